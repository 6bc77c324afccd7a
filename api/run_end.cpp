#include "api/run_end.hpp"

#include <utility>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>

namespace penstock::api {

struct run_end::state {
  asio::cancellation_signal cancel;
  std::shared_ptr<runtime::wakeup> wake;
  bool over = false;
};

namespace {

asio::awaitable<void> wait(scheduler::supervisor& supervisor, std::string run,
                           std::chrono::nanoseconds limit) {
  co_await supervisor.wait_for_end(std::move(run), limit);
}

}  // namespace

run_end::run_end(context& c, std::string run, std::chrono::nanoseconds limit,
                 std::shared_ptr<runtime::wakeup> wake)
    : state_(std::make_shared<state>()) {
  state_->wake = std::move(wake);
  asio::co_spawn(c.control, wait(c.supervisor, std::move(run), limit),
                 asio::bind_cancellation_slot(state_->cancel.slot(), [s = state_](std::exception_ptr) {
                   s->over = true;
                   s->wake->notify();
                 }));
}

run_end::~run_end() { state_->cancel.emit(asio::cancellation_type::terminal); }

bool run_end::over() const { return state_->over; }

}  // namespace penstock::api
