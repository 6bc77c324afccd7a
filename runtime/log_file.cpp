#include "runtime/log_file.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <spdlog/spdlog.h>

#include "config/time.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t longest_line = 64 * 1024;

// Where the lines of one write() are put together; kept, because a busy pipe fills it thousands of times a
// second.
std::string& scratch() {
  thread_local std::string text;
  text.clear();
  return text;
}

std::string prefix(log_file::stream from) {
  return format_time(wall_now()) + ' ' + static_cast<char>(from) + ' ';
}

}  // namespace

log_file::log_file(std::filesystem::path file, std::int64_t limit_bytes)
    : file_(std::move(file)), limit_(limit_bytes) {}

log_file::log_file(log_file&& other) noexcept
    : file_(std::move(other.file_)),
      limit_(other.limit_),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      discarded_(other.discarded_),
      full_(other.full_),
      broken_(other.broken_),
      partial_out_(std::exchange(other.partial_out_, {})),
      partial_err_(std::exchange(other.partial_err_, {})) {}

log_file::~log_file() {
  flush();
  if (fd_ >= 0) ::close(fd_);
}

bool log_file::open() {
  if (fd_ >= 0 || broken_) return !broken_;
  constexpr int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC;
  fd_ = ::open(file_.c_str(), flags, 0640);
  if (fd_ < 0 && errno == ENOENT) {
    std::error_code ignored;  // the second open tells
    std::filesystem::create_directories(file_.parent_path(), ignored);
    fd_ = ::open(file_.c_str(), flags, 0640);
  }
  struct stat status {};
  if (fd_ < 0 || ::fstat(fd_, &status) != 0) {
    spdlog::error("cannot write {}: {}", file_.string(), std::generic_category().message(errno));
    broken_ = full_ = true;
    return false;
  }
  size_ = status.st_size;
  full_ = size_ >= limit_;
  return true;
}

void log_file::write(stream from, std::string_view bytes) {
  if (bytes.empty()) return;
  if (!open() || full_) return discard(static_cast<std::int64_t>(bytes.size()));
  std::string& text = scratch();
  std::string& start = partial(from);
  const std::string stamp = prefix(from);
  while (!bytes.empty() && !full_) {
    const auto line_end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, line_end);
    const std::size_t room = longest_line - start.size();
    const bool cut = piece.size() > room;
    if (!cut && line_end == std::string_view::npos) {
      start.append(piece);
      bytes = {};
      break;
    }
    text += stamp;
    add_line(text, start, cut ? piece.substr(0, room) : piece);
    start.clear();
    bytes.remove_prefix(cut ? room : line_end + 1);
  }
  discard(static_cast<std::int64_t>(bytes.size()));
  if (!text.empty()) store(text);
}

// Ends the line that `text` stops in, and the file's share of output with it where the limit is reached: so a
// file that is full is at least `limit` bytes long, which is how the next attempt knows.
void log_file::add_line(std::string& text, std::string_view start, std::string_view rest) {
  text.append(start).append(rest).push_back('\n');
  const std::int64_t over = size_ + static_cast<std::int64_t>(text.size()) - limit_;
  if (over < 0) return;
  full_ = true;
  const auto lost = std::min(static_cast<std::size_t>(over), start.size() + rest.size());
  text.resize(text.size() - lost - 1);
  text.push_back('\n');
  discard(static_cast<std::int64_t>(lost));
  text += prefix(stream::note) + "the log's limit of " + format_size(limit_) +
          " is reached: further output is not stored\n";
}

void log_file::note(std::string_view line) {
  if (!open()) return;
  std::string text = prefix(stream::note);
  text.append(line).push_back('\n');
  store(text);
}

void log_file::flush() {
  for (const auto from : {stream::out, stream::err}) {
    if (partial(from).empty()) continue;
    if (full_) {
      discard(static_cast<std::int64_t>(partial(from).size()));
      partial(from).clear();
    } else {
      write(from, "\n");
    }
  }
}

void log_file::store(std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(fd_, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      spdlog::error("cannot write {}: {}", file_.string(), std::generic_category().message(errno));
      broken_ = full_ = true;
      return discard(static_cast<std::int64_t>(text.size()));
    }
    size_ += written;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace penstock::runtime
