#include "scheduler/dispatcher.hpp"

#include <boost/asio/post.hpp>
#include <utility>

namespace penstock::scheduler {

dispatcher::dispatcher(asio::any_io_executor control, std::int64_t most, std::chrono::nanoseconds ageing)
    : control_(std::move(control)), queue_(most, ageing), self_(std::make_shared<dispatcher*>(this)) {}

dispatcher::~dispatcher() { *self_ = nullptr; }

bool dispatcher::enter(const queue_entry& entry) { return queue_.start_now(entry, wall_now()); }

void dispatcher::wait(queue_entry entry, std::function<void()> start) {
  waiting_.insert_or_assign(entry.id, std::move(start));
  queue_.wait(std::move(entry));
  look_again();
}

void dispatcher::release(const std::string& id) {
  waiting_.erase(id);
  queue_.remove(id);
  look_again();
}

void dispatcher::limit_pipeline(const std::string& pipeline, std::optional<std::int64_t> most) {
  queue_.limit_pipeline(pipeline, most);
  look_again();
}

void dispatcher::limit_job(const std::string& pipeline, const std::string& job, std::optional<std::int64_t> most,
                           std::optional<std::int64_t> of_a_key) {
  queue_.limit_job(pipeline, job, most, of_a_key);
  look_again();
}

void dispatcher::limit_pool(const std::string& pool, std::optional<std::int64_t> slots) {
  queue_.limit_pool(pool, slots);
  look_again();
}

void dispatcher::hold_pipeline(const std::string& pipeline, bool held) {
  queue_.hold_pipeline(pipeline, held);
  look_again();
}

void dispatcher::stop() { queue_.hold_all(); }

void dispatcher::look_again() {
  if (std::exchange(looking_, true)) return;
  asio::post(control_, [self = self_] {
    if (*self) (*self)->start_all();
  });
}

void dispatcher::start_all() {
  looking_ = false;
  while (const auto id = queue_.next(wall_now())) {
    const auto found = waiting_.find(*id);
    const auto start = std::move(found->second);
    waiting_.erase(found);
    start();
  }
}

}  // namespace penstock::scheduler
