// The output of one task: DATA/logs/RUN/TASK.log, with a limit.
//
// Lines are stored as `<RFC 3339 time> <o|e|-> <text>`: when the line was read, and whether it came from
// stdout, from stderr or from Penstock itself. At `limit` bytes of output one line says so, and further
// output is counted, not stored (Penstock's own few lines still are). A line longer than 64 KiB is cut into
// pieces; bytes that are not UTF-8 stay as they are. The file and its folders are made at the first line, so
// a silent task leaves none. A full disk is not the task's fault: it is logged once, and what could not be
// stored counts as discarded. Written by one thread at a time; read by anyone, also while it is written: the
// lines of one write() appear together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace penstock::runtime {

class log_file {
 public:
  enum class stream : char { out = 'o', err = 'e', note = '-' };  // note: written by Penstock itself

  // Appends to what is there (a later attempt of the same task).
  log_file(std::filesystem::path file, std::int64_t limit_bytes);
  ~log_file();
  log_file(log_file&& other) noexcept;
  log_file& operator=(log_file&&) = delete;

  // Bytes as they were read from the pipe; incomplete lines wait for their end (or for flush).
  void write(stream from, std::string_view bytes);
  void note(std::string_view line);
  void flush();

  // No more output is stored; what is not handed to write() because of that is told to discard().
  bool full() const { return full_; }
  void discard(std::int64_t bytes) { discarded_ += bytes; }
  std::int64_t discarded_bytes() const { return discarded_; }

 private:
  bool open();
  void add_line(std::string& text, std::string_view start, std::string_view rest);
  void store(std::string_view text);
  std::string& partial(stream from) { return from == stream::out ? partial_out_ : partial_err_; }

  std::filesystem::path file_;
  std::int64_t limit_;
  int fd_ = -1;
  std::int64_t size_ = 0;
  std::int64_t discarded_ = 0;
  bool full_ = false;
  bool broken_ = false;
  std::string partial_out_, partial_err_;
};

}  // namespace penstock::runtime
