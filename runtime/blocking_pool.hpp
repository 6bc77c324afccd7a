// Threads for calls that block: file and database sinks, libcurl, fsync.
//
// A thread is started when work arrives and none is free, up to `most`; one that finds no work for
// `idle_time` ends. So an idle daemon has none, and one hanging sink does not hold up another until `most` of
// them hang. Owned by the daemon; the destructor waits for the work that was submitted. Work that throws is
// logged (run() hands the exception to its caller instead).
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace penstock::runtime {

namespace asio = boost::asio;

class blocking_pool {
 public:
  explicit blocking_pool(std::size_t most, std::chrono::seconds idle_time = std::chrono::seconds{10});
  ~blocking_pool();
  blocking_pool(const blocking_pool&) = delete;
  blocking_pool& operator=(const blocking_pool&) = delete;

  // Throws std::system_error when there is no thread and none can be started.
  void submit(std::function<void()> work);

  // Runs `call` (-> T or void) on a pool thread and resumes the awaiting coroutine on its own executor.
  // Throws what it threw.
  template <class F, class T = std::invoke_result_t<F>>
  asio::awaitable<T> run(F call);

 private:
  void work_until_idle();
  void join_retired();

  const std::size_t most_;
  const std::chrono::seconds idle_time_;
  std::mutex mutex_;
  std::condition_variable changed_;    // for idle threads: work, or the end
  std::condition_variable all_ended_;  // for the destructor
  std::deque<std::function<void()>> waiting_;
  std::map<std::thread::id, std::thread> threads_;
  std::vector<std::thread> retired_;  // ended by themselves; joined by the next one who comes along
  std::size_t idle_ = 0;
  bool closing_ = false;
};

// ---------------------------------------------------------------------------------------------------------------

template <class F, class T>
asio::awaitable<T> blocking_pool::run(F call) {
  if constexpr (std::is_void_v<T>) {
    return asio::async_initiate<const asio::use_awaitable_t<>, void(std::exception_ptr)>(
        [this](auto handler, F f) {
          auto executor = asio::get_associated_executor(handler);
          auto shared = std::make_shared<decltype(handler)>(std::move(handler));
          auto guard = asio::make_work_guard(executor);
          submit([f = std::move(f), shared, executor, guard]() mutable {
            std::exception_ptr failure;
            try {
              f();
            } catch (...) {
              failure = std::current_exception();
            }
            asio::post(executor, [shared, failure] { std::move (*shared)(failure); });
          });
        },
        asio::use_awaitable, std::move(call));
  } else {
    return asio::async_initiate<const asio::use_awaitable_t<>, void(std::exception_ptr, T)>(
        [this](auto handler, F f) {
          auto executor = asio::get_associated_executor(handler);
          auto shared = std::make_shared<decltype(handler)>(std::move(handler));
          auto guard = asio::make_work_guard(executor);
          submit([f = std::move(f), shared, executor, guard]() mutable {
            std::exception_ptr failure;
            auto value = std::make_shared<T>();
            try {
              *value = f();
            } catch (...) {
              failure = std::current_exception();
            }
            asio::post(executor,
                       [shared, failure, value] { std::move (*shared)(failure, std::move(*value)); });
          });
        },
        asio::use_awaitable, std::move(call));
  }
}

}  // namespace penstock::runtime
