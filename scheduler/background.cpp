#include "scheduler/background.hpp"

#include <boost/asio/co_spawn.hpp>
#include <spdlog/spdlog.h>

#include <exception>

namespace penstock::scheduler {

void in_background(const asio::any_io_executor& executor, std::string name, asio::awaitable<void> work) {
  asio::co_spawn(executor, std::move(work), [name = std::move(name)](std::exception_ptr failure) {
    if (!failure) return;
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      spdlog::error("{} ended unexpectedly: {}", name, e.what());
    }
  });
}

}  // namespace penstock::scheduler
