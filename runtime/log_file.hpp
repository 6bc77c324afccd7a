// The output of one task (DATA/logs/RUN/TASK.log) or of one supervised command, with a limit.
//
// Lines are stored as `<RFC 3339 time> <o|e|-> <text>`: when the line was read, and whether it came from
// stdout, from stderr or from Penstock itself. A line longer than 64 KiB is cut into pieces; bytes that are not
// UTF-8 stay as they are. The file and its folders are made at the first line, so a silent task leaves none.
// At `limit` bytes, depending on what is known of the end:
// - keep_ends, for a task: one line says so, and of all that comes then the last 64 KiB are kept (a quarter of them for
//   stderr), and stored at the end (flush) below a line that says how much is missing. Penstock's own few lines are
//   always stored.
// - rotate, for what never ends: FILE becomes FILE.1 (the older FILE.1 is gone) and FILE begins anew. Whoever
//   fills it in less than `pause` is in between treated as above, so that a flood does not occupy the disk.
// A full disk is not the task's fault: it is logged, what could not be stored counts as discarded, and after `pause` it is
// tried again: one line says then what is missing.
// Written by one thread at a time; read by anyone, also while it is written: the lines of one write() appear
// together. A reader that follows FILE through a rotation keeps it open: once the name means another file, what is
// left in the old one comes first.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/output_tail.hpp"
#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

class log_file {
 public:
  enum class stream : char { out = 'o', err = 'e', note = '-' };  // note: written by Penstock itself
  enum class when_full { keep_ends, rotate };

  // Appends to what is there (a later attempt of the same task). `pause`: least time between two rotations, and
  // from a failure to the next try.
  log_file(std::filesystem::path file, std::int64_t limit_bytes, when_full then = when_full::keep_ends,
           std::chrono::nanoseconds pause = std::chrono::seconds{10});
  ~log_file();
  log_file(const log_file&) = delete;
  log_file& operator=(const log_file&) = delete;

  // Bytes as they were read from the pipe; incomplete lines wait for their end (or for flush).
  void write(stream from, std::string_view bytes);
  void note(std::string_view line);
  // Nothing more comes, at least for now: stores incomplete lines and what is kept of the end.
  void flush();

  // When catch_up() has something to do: what waits for a rotation can be stored then. Mostly time_point::max().
  std::chrono::steady_clock::time_point due() const;
  void catch_up();

  // Output that is not stored, as far as that is decided: after flush() it is.
  std::int64_t discarded_bytes() const { return discarded_; }

 private:
  using clock = std::chrono::steady_clock;

  bool open();
  bool may_rotate() const { return !rotated_at_ || clock::now() - *rotated_at_ >= pause_; }
  void reach_limit(std::string& text);
  void rotate();
  void store_tail();
  void store(std::string_view text);
  void break_off(const char* doing);
  void tell_what_is_missing();
  std::string& partial(stream from) { return from == stream::out ? partial_out_ : partial_err_; }

  const std::filesystem::path file_;
  const std::int64_t limit_;
  const when_full then_;
  const std::chrono::nanoseconds pause_;
  unique_fd fd_;
  std::int64_t size_ = 0;
  std::int64_t discarded_ = 0;
  bool full_ = false;
  bool broken_ = false;
  bool torn_ = false;  // the last line of the file is not whole
  clock::time_point broken_at_{};
  std::optional<std::int64_t> discarded_before_{};  // it broke; of discarded_, what was known of by then
  std::optional<clock::time_point> rotated_at_;
  std::string partial_out_, partial_err_;
  output_tail tail_;  // empty unless full
};

// The last whole lines of a log as they are stored, at most `bytes` (of a longer last line: its end). Empty when
// there is none.
std::string log_tail(const std::filesystem::path& log, std::size_t bytes);

}  // namespace penstock::runtime
