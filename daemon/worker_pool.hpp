// Named threads that run one io_context: the daemon's pools. Idle threads block in the kernel, without wakeups.
// Owned by the application; finish() lets no new idle wait begin and joins once the queued work is done.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <string>
#include <thread>
#include <vector>

namespace penstock::daemon {

class worker_pool {
 public:
  enum class priority { low, normal, live, control };  // low gives way; live goes first, control before it (thread_priority.hpp)

  worker_pool(const std::string& name, std::size_t threads, priority p = priority::normal);
  ~worker_pool();
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;

  boost::asio::any_io_executor executor() { return context_.get_executor(); }
  void finish();

 private:
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_;
  std::vector<std::thread> threads_;
};

}  // namespace penstock::daemon
