#include "api/log_stream.hpp"

#include <algorithm>
#include <chrono>
#include <fcntl.h>
#include <set>
#include <unistd.h>
#include <utility>

#include "runtime/blocking_pool.hpp"

namespace penstock::api {

namespace {

// Longer than the longest line that runtime/log_file.hpp stores, so that a piece always holds a whole one.
constexpr std::size_t piece_size = 256 << 10;
constexpr std::size_t stamp_size = 30;  // "2018-02-07T00:00:00.000000Z o "
// For ever, as a length of time that can still be added to a clock.
constexpr auto for_ever = std::chrono::hours{24 * 365 * 10};

// What stands in the file from `offset` on, at most one piece of it. A file that is not there (yet) is empty.
std::string read_log(const std::filesystem::path& file, std::int64_t offset) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::string text(piece_size, '\0');
  const auto size = ::pread(fd, text.data(), text.size(), offset);
  ::close(fd);
  text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  return text;
}

}  // namespace

std::string show_lines(std::string_view stored, const std::string& prefix, bool timestamps) {
  std::string out;
  out.reserve(stored.size());
  while (!stored.empty()) {
    const std::size_t end = stored.find('\n');
    std::string_view line = stored.substr(0, end);
    stored.remove_prefix(std::min(stored.size(), line.size() + 1));
    if (!timestamps) line.remove_prefix(std::min(line.size(), stamp_size));
    out.append(prefix).append(line).push_back('\n');
  }
  return out;
}

log_stream::log_stream(context& c, const std::string& run, const std::vector<std::string>& tasks, options how,
                       interruption& end)
    : context_(c), options_(how), wake_(std::make_shared<runtime::wakeup>(c.control)) {
  for (const std::string& task : tasks) {
    to_read_.push_back(logs_.size());
    logs_.push_back({tasks.size() > 1 ? task + " | " : "", c.supervisor.log_file(run, task)});
  }
  if (how.follow) follow(run, end);
}

void log_stream::follow(const std::string& run, interruption& end) {
  complete_ = false;
  end_ = &end;
  std::set<std::filesystem::path> folders;
  for (const log& l : logs_) folders.insert(l.file.parent_path());
  for (const auto& folder : folders) {
    watches_.push_back(context_.logs.watch(folder, [this](std::string_view file) { changed(file); }));
  }
  run_end_.emplace(context_, run, for_ever, wake_);
  end.listen([wake = wake_] { wake->notify(); });
}

void log_stream::changed(std::string_view file) {
  for (std::size_t i = 0; i < logs_.size(); ++i) {
    if (logs_[i].waiting || (!file.empty() && logs_[i].file.filename() != file)) continue;
    logs_[i].waiting = true;
    to_read_.push_back(i);
  }
  wake_->notify();
}

void log_stream::read_all_again() {
  to_read_.clear();
  for (std::size_t i = 0; i < logs_.size(); ++i) {
    logs_[i].waiting = true;
    to_read_.push_back(i);
  }
}

asio::awaitable<std::string> log_stream::next() {
  for (;;) {
    if (end_ != nullptr && end_->raised()) co_return std::string();
    std::string text = co_await read_on();
    if (!text.empty() || complete_) co_return text;
    if (run_end_->over()) {
      complete_ = true;
      read_all_again();
    } else {
      co_await wake_->wait();
    }
  }
}

// The next lines of the first log that has some; empty when none has.
asio::awaitable<std::string> log_stream::read_on() {
  while (!to_read_.empty()) {
    log& l = logs_[to_read_.front()];
    l.waiting = false;  // a change from here on is a new one
    auto work = [file = l.file, offset = l.offset] { return read_log(file, offset); };
    std::string bytes = co_await context_.blocking.run(std::move(work));
    const std::size_t last_line = bytes.rfind('\n');
    std::size_t whole = last_line == std::string::npos ? 0 : last_line + 1;
    if (complete_ && whole == 0) whole = bytes.size();
    if (whole == 0) {
      to_read_.pop_front();
      continue;
    }
    l.offset += static_cast<std::int64_t>(whole);
    co_return show_lines(std::string_view(bytes).substr(0, whole), l.prefix, options_.timestamps);
  }
  co_return std::string();
}

}  // namespace penstock::api
