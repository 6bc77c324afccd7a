#include "runtime/log_file.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "config/time.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t longest_log_line = 64 * 1024;
constexpr std::int64_t tail_bytes = 64 * 1024;

// Where the lines of one write() are put together; kept, because a busy pipe fills it thousands of times a
// second.
std::string& scratch() {
  thread_local std::string text;
  text.clear();
  return text;
}

std::string line_start(timestamp at, char from) { return format_time(at) + ' ' + from + ' '; }
std::string line_start(log_file::stream from) { return line_start(wall_now(), static_cast<char>(from)); }

// For notes, which need no exactness: 1027604480 -> "980MiB".
std::string about(std::int64_t bytes) {
  for (const int shift : {30, 20, 10}) {
    const std::int64_t unit = std::int64_t{1} << shift;
    if (bytes >= 10 * unit) return format_size((bytes + unit / 2) / unit * unit);
  }
  return format_size(bytes);
}

std::int64_t stored_size(const output_tail::line& line) {
  constexpr std::int64_t stamp = 30;  // "2018-02-07T00:00:00.000000Z o ", and the newline makes one more
  return stamp + static_cast<std::int64_t>(line.text.size()) + 1;
}

// Which of the lines have room in so many bytes: the last ones of each stream, and its last in any case. A quarter is
// for stderr, if it has that much to say; what one stream leaves is the other's.
std::vector<bool> choose_last(const std::vector<output_tail::line>& lines, std::int64_t room) {
  constexpr char err = static_cast<char>(log_file::stream::err);
  std::int64_t out_size = 0, err_size = 0;
  for (const auto& line : lines) (line.from == err ? err_size : out_size) += stored_size(line);
  const std::int64_t for_err = std::max(room / 4, room - out_size);
  const std::int64_t for_out = room - std::min(err_size, for_err);
  std::vector<bool> chosen(lines.size());
  for (const bool is_err : {false, true}) {
    std::int64_t left = is_err ? for_err : for_out;
    bool first = true;
    for (std::size_t i = lines.size(); i-- > 0;) {
      if ((lines[i].from == err) != is_err) continue;
      left -= stored_size(lines[i]);
      if (left < 0 && !first) break;
      chosen[i] = true;
      first = false;
    }
  }
  return chosen;
}

unique_fd open_for_append(const std::filesystem::path& file) {
  return unique_fd(::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
}

}  // namespace

log_file::log_file(std::filesystem::path file, std::int64_t limit_bytes, when_full then,
                   std::chrono::nanoseconds pause)
    : file_(std::move(file)),
      limit_(limit_bytes),
      then_(then),
      pause_(pause),
      tail_(static_cast<std::size_t>(std::min(limit_bytes, tail_bytes))) {}

log_file::~log_file() { flush(); }

bool log_file::open() {
  if (broken_ && clock::now() - broken_at_ >= pause_) {
    broken_ = false;
    fd_ = unique_fd();
  }
  if (fd_.get() >= 0 || broken_) return !broken_;
  fd_ = open_for_append(file_);
  if (fd_.get() < 0 && errno == ENOENT) {
    std::error_code ignored;  // the second open tells
    std::filesystem::create_directories(file_.parent_path(), ignored);
    fd_ = open_for_append(file_);
  }
  struct stat status {};
  if (fd_.get() < 0 || ::fstat(fd_.get(), &status) != 0) {
    break_off("write");
    return false;
  }
  size_ = status.st_size;
  full_ = size_ >= limit_;
  if (discarded_before_) tell_what_is_missing();
  return !broken_;
}

// Told once, until it is over.
void log_file::break_off(const char* doing) {
  if (!discarded_before_) {
    spdlog::error("cannot {} {}: {}; trying again from time to time", doing, file_.string(), std::generic_category().message(errno));
    discarded_before_ = discarded_;
  }
  broken_ = true;
  broken_at_ = clock::now();
}

void log_file::tell_what_is_missing() {
  const std::int64_t missing = discarded_ - *discarded_before_;
  store((torn_ ? "\n" : "") + line_start(stream::note) + about(missing) + " of output are missing here: the log could not be written\n");
  if (broken_) return;
  torn_ = false;
  discarded_before_.reset();
  spdlog::info("{} can be written again; {} of output are missing", file_.string(), about(missing));
}

void log_file::write(stream from, std::string_view bytes) {
  if (bytes.empty()) return;
  if (open() && full_ && then_ == when_full::rotate && may_rotate()) rotate();
  std::string& text = scratch();
  std::string& start = partial(from);
  const std::string stamp = full_ || broken_ ? std::string() : line_start(from);
  while (!bytes.empty() && !full_ && !broken_) {
    const auto line_end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, line_end);
    const std::size_t room = longest_log_line - start.size();
    const bool cut = piece.size() > room;
    if (!cut && line_end == std::string_view::npos) {
      start.append(piece);
      bytes = {};
      break;
    }
    text.append(stamp).append(start).append(cut ? piece.substr(0, room) : piece).push_back('\n');
    start.clear();
    bytes.remove_prefix(cut ? room : line_end + 1);
    if (size_ + static_cast<std::int64_t>(text.size()) >= limit_) reach_limit(text);
  }
  if (!text.empty()) store(text);
  if (broken_) {
    discarded_ += static_cast<std::int64_t>(bytes.size());
  } else {
    tail_.add(static_cast<char>(from), wall_now(), bytes);
  }
}

// With the line in `text` that was added last. Lines that have begun belong to what comes then.
void log_file::reach_limit(std::string& text) {
  if (then_ == when_full::rotate && may_rotate()) {
    store(std::exchange(text, {}));
    return rotate();
  }
  full_ = true;
  for (const auto from : {stream::out, stream::err})
    tail_.add(static_cast<char>(from), wall_now(), std::exchange(partial(from), {}));
  text += line_start(stream::note) + "the log's limit of " + format_size(limit_) + " is reached" +
          (then_ == when_full::rotate ? " too soon: output waits here, and only the last of it is stored\n"
                                      : ": of further output only the last is stored, at the end\n");
}

void log_file::rotate() {
  if (broken_) return;
  rotated_at_ = clock::now();
  const std::filesystem::path older = file_.string() + ".1";
  unique_fd next;
  if (::rename(file_.c_str(), older.c_str()) == 0 || errno == ENOENT) next = open_for_append(file_);
  if (next.get() < 0) {
    return break_off("begin anew");
  }
  fd_ = std::move(next);
  size_ = 0;
  full_ = false;
  store_tail();
}

void log_file::note(std::string_view line) {
  if (!open()) return;
  std::string text = line_start(stream::note);
  text.append(line).push_back('\n');
  store(text);
}

void log_file::flush() {
  if (broken_) {
    for (const auto from : {stream::out, stream::err})
      discarded_ += static_cast<std::int64_t>(std::exchange(partial(from), {}).size());
    return;
  }
  for (const auto from : {stream::out, stream::err})
    if (!full_ && !partial(from).empty()) write(from, "\n");
  if (tail_.empty()) return;
  if (then_ == when_full::rotate) return rotate();
  store_tail();
}

std::chrono::steady_clock::time_point log_file::due() const {
  if (broken_ || tail_.empty() || then_ != when_full::rotate) return clock::time_point::max();
  return rotated_at_ ? *rotated_at_ + std::chrono::duration_cast<clock::duration>(pause_) : clock::time_point::min();
}

void log_file::catch_up() {
  if (clock::now() >= due()) rotate();
}

void log_file::store_tail() {
  if (tail_.empty()) return;
  std::int64_t missing = tail_.taken_in();
  const auto lines = tail_.take(longest_log_line);
  const auto chosen = choose_last(lines, std::min(limit_, tail_bytes));
  std::string text;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!chosen[i]) continue;
    missing -= static_cast<std::int64_t>(lines[i].bytes);
    text += line_start(lines[i].at, lines[i].from) + lines[i].text + '\n';
  }
  discarded_ += missing;
  if (missing > 0) note(about(missing) + " of output were not stored; the last lines follow");
  store(text);
}

void log_file::store(std::string_view text) {
  while (!text.empty() && !broken_) {
    const auto written = ::write(fd_.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      break_off("write");
      discarded_ += static_cast<std::int64_t>(text.size());
      return;
    }
    size_ += written;
    torn_ = static_cast<std::size_t>(written) < text.size();
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::string log_tail(const std::filesystem::path& log, std::size_t bytes) {
  const unique_fd file(::open(log.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0 || status.st_size <= 0 || bytes == 0) return {};
  // One byte more, which tells whether the first line is whole.
  const auto size = std::min(static_cast<std::size_t>(status.st_size), bytes + 1);
  std::string text(size, '\0');
  const auto got = ::pread(file.get(), text.data(), size, status.st_size - static_cast<off_t>(size));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (text.size() <= bytes) return text;
  const auto line_end = text.find('\n');
  const bool none_begins = line_end == std::string::npos || line_end + 1 == text.size();
  return text.substr(none_begins ? 1 : line_end + 1);
}

}  // namespace penstock::runtime
