// The last of what a task printed after its log was full: bytes as they came, until they are asked for as lines.
//
// Owned by one log_file. Each stream has its own end kept, so that a flood on one does not carry off the last words on
// the other. Taking in costs one copy and no search for lines, because a task may print gigabytes; holds at most about
// twice `bytes` for each stream, however they come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "config/time.hpp"

namespace penstock::runtime {

class output_tail {
 public:
  struct line {
    char from = 0;
    timestamp at{};        // when its end was read
    std::string text{};    // without its newline
    std::size_t bytes = 0; // as they were taken in, its newline included
  };

  // `bytes`: kept of each stream.
  explicit output_tail(std::size_t bytes) : limit_(bytes) {}

  void add(char from, timestamp at, std::string_view bytes);
  // All lines, the last one of each stream finished or not, in the order in which they ended; each about `longest`
  // bytes at most (a longer one comes in pieces). One whose beginning is gone begins with "…". Forgets everything.
  std::vector<line> take(std::size_t longest);

  bool empty() const { return taken_in_ == 0; }
  std::int64_t taken_in() const { return taken_in_; }  // bytes, since the last take()

 private:
  struct piece {
    std::uint64_t number = 0;  // in the order in which they came
    timestamp at{};
    bool at_line_start = false;
    std::string bytes{};
  };
  struct stream {
    char from = 0;
    bool inside_line = false;  // its last byte did not end a line
    std::size_t size = 0;      // of all pieces
    std::deque<piece> pieces{};
  };
  struct numbered_line {
    std::uint64_t number;
    line text;
  };
  stream& stream_of(char from);
  static void add_lines(const stream& one, std::size_t longest, std::vector<numbered_line>& lines);

  const std::size_t limit_;
  std::vector<stream> streams_;
  std::uint64_t last_number_ = 0;
  std::int64_t taken_in_ = 0;
};

}  // namespace penstock::runtime
