#include "runtime/output_tail.hpp"

#include <algorithm>
#include <utility>

namespace penstock::runtime {

namespace {

// Bytes that come this soon after others belong to the same piece: a task that prints byte by byte must not make a
// piece of each.
constexpr auto same_moment = std::chrono::milliseconds{1};
constexpr std::size_t most_pieces = 4096;
constexpr std::string_view cut_off = "…";  // stands for the beginning of a line

}  // namespace

output_tail::stream& output_tail::stream_of(char from) {
  for (stream& one : streams_)
    if (one.from == from) return one;
  streams_.push_back({from});
  return streams_.back();
}

void output_tail::add(char from, timestamp at, std::string_view bytes) {
  if (bytes.empty()) return;
  taken_in_ += static_cast<std::int64_t>(bytes.size());
  stream& to = stream_of(from);
  bool at_line_start = !to.inside_line;
  to.inside_line = bytes.back() != '\n';
  if (bytes.size() > limit_) {
    at_line_start = bytes[bytes.size() - limit_ - 1] == '\n';
    bytes.remove_prefix(bytes.size() - limit_);
  }
  to.size += bytes.size();
  const bool continues = !to.pieces.empty() && to.pieces.back().number == last_number_ &&
                         at - to.pieces.back().at < same_moment &&
                         to.pieces.back().bytes.size() + bytes.size() <= limit_ / 16;
  if (continues) {
    to.pieces.back().bytes.append(bytes);
    return;
  }
  piece next;
  while (!to.pieces.empty() &&
         (to.size - to.pieces.front().bytes.size() >= limit_ || to.pieces.size() >= most_pieces)) {
    next = std::move(to.pieces.front());  // for its memory
    to.size -= next.bytes.size();
    to.pieces.pop_front();
  }
  next.number = ++last_number_;
  next.at = at;
  next.at_line_start = at_line_start;
  next.bytes.assign(bytes);
  to.pieces.push_back(std::move(next));
}

void output_tail::add_lines(const stream& one, std::size_t longest, std::vector<numbered_line>& lines) {
  line current{one.from};
  std::uint64_t number = 0;
  const auto end_line = [&] { lines.push_back({number, std::exchange(current, line{one.from})}); };
  if (!one.pieces.empty() && !one.pieces.front().at_line_start) current.text = cut_off;
  for (const piece& p : one.pieces) {
    number = p.number;
    for (std::string_view left = p.bytes; !left.empty();) {
      const auto room = longest - std::min(longest, current.text.size());
      const auto part = left.substr(0, std::min(left.find('\n'), room));
      current.at = p.at;
      current.text.append(part);
      current.bytes += part.size();
      left.remove_prefix(part.size());
      if (left.empty()) break;
      if (left.front() == '\n') {
        ++current.bytes;
        left.remove_prefix(1);
      }
      end_line();
    }
  }
  if (current.bytes > 0) end_line();
}

std::vector<output_tail::line> output_tail::take(std::size_t longest) {
  std::vector<numbered_line> numbered;
  for (stream& one : streams_) {
    add_lines(one, longest, numbered);
    one.pieces.clear();
    one.size = 0;
  }
  std::stable_sort(numbered.begin(), numbered.end(),
                   [](const auto& a, const auto& b) { return a.number < b.number; });
  taken_in_ = 0;
  std::vector<line> lines;
  lines.reserve(numbered.size());
  for (auto& one : numbered) lines.push_back(std::move(one.text));
  return lines;
}

}  // namespace penstock::runtime
