// The log lines of a run's tasks, as text: what is there, and when followed what comes until the run ends.
//
// Control thread; files are read on the blocking pool, in pieces. Woken by the kernel when a file was written
// to, by the end of the run, or by the end of the request; never by a timer. Only whole lines are sent.
#pragma once

#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/context.hpp"
#include "api/http.hpp"
#include "api/run_end.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::api {

class log_stream final : public body_stream {
 public:
  struct options {
    bool follow = false;
    bool timestamps = false;  // lines as they are stored, with time and stream, instead of the text alone
  };

  // `tasks`: names, in the order they are shown; with several, each line begins with its task's name.
  log_stream(context& c, const std::string& run, const std::vector<std::string>& tasks, options how,
             interruption& end);

  asio::awaitable<std::string> next() override;

 private:
  struct log {
    std::string prefix;
    std::filesystem::path file;
    std::int64_t offset = 0;  // sent so far
    bool waiting = true;      // in to_read_
  };

  void follow(const std::string& run, interruption& end);
  void changed(std::string_view file);
  void read_all_again();
  asio::awaitable<std::string> read_on();

  context& context_;
  options options_;
  std::vector<log> logs_;
  std::deque<std::size_t> to_read_;  // indexes of logs that may have more
  bool complete_ = true;             // nothing will be added any more
  interruption* end_ = nullptr;      // of a follower
  std::shared_ptr<runtime::wakeup> wake_;
  std::vector<std::shared_ptr<void>> watches_;
  std::optional<run_end> run_end_;
};

// The lines of `stored` (whole lines of a log file) as a reader sees them.
std::string show_lines(std::string_view stored, const std::string& prefix, bool timestamps);

}  // namespace penstock::api
