#include "runtime/sse_parser.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "runtime/records.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t mark_done = byte_order_mark.size();

}  // namespace

sse_parser::sse_parser(std::size_t most_bytes, std::string last_id)
    // "data: " and the like do not count as the message's.
    : most_bytes_(most_bytes), most_line_bytes_(std::max(most_bytes, most_id_bytes) + 16), last_id_(last_id), next_id_(std::move(last_id)) {}

void sse_parser::put(std::string_view bytes, std::vector<sse_message>& out) {
  skip_byte_order_mark(bytes);
  while (!bytes.empty()) {
    if (after_cr_ && bytes.front() == '\n') bytes.remove_prefix(1);
    if (std::exchange(after_cr_, false) && bytes.empty()) return;
    const std::size_t end = bytes.find_first_of("\r\n");
    const std::string_view part = bytes.substr(0, end);
    const bool whole = end != bytes.npos && line_.empty() && !line_too_long_ && part.size() <= most_line_bytes_;
    if (!whole) put_part(part);
    if (end == bytes.npos) return;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (!std::exchange(line_too_long_, false)) take_line(whole ? part : std::string_view(line_), out);
    line_.clear();
  }
}

// Of a line that is too long only its beginning matters: a message is too long when its data is.
void sse_parser::put_part(std::string_view part) {
  if (line_too_long_) return;
  line_ += part.substr(0, most_line_bytes_ + 1 - line_.size());
  if (line_.size() <= most_line_bytes_) return;
  line_too_long_ = true;
  if (line_.starts_with("data:")) {
    too_long_ = true;
    data_.clear();
  }
  line_.clear();
}

// Only at the very beginning, perhaps in pieces.
void sse_parser::skip_byte_order_mark(std::string_view& bytes) {
  while (mark_read_ < mark_done && !bytes.empty()) {
    if (bytes.front() != byte_order_mark[mark_read_]) {
      line_.assign(byte_order_mark.substr(0, mark_read_));  // it was something else
      mark_read_ = mark_done;
      return;
    }
    bytes.remove_prefix(1);
    ++mark_read_;
  }
}

void sse_parser::take_line(std::string_view line, std::vector<sse_message>& out) {
  if (line.empty()) return dispatch(out);
  const std::size_t colon = line.find(':');
  if (colon == 0) return;  // a comment
  if (colon == line.npos) return take_field(line, {});
  std::string_view value = line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  take_field(line.substr(0, colon), value);
}

void sse_parser::take_field(std::string_view name, std::string_view value) {
  if (name == "data") {
    if (data_.size() + value.size() > most_bytes_) too_long_ = true;
    if (too_long_) return data_.clear();
    data_.append(value).append("\n");
  } else if (name == "event") {
    if (value.size() <= most_id_bytes) type_ = value;
  } else if (name == "id") {
    if (value.find('\0') != value.npos || value.size() > most_id_bytes) return;
    next_id_ = value;
    own_id_ = true;
  } else if (name == "retry") {
    std::int64_t ms = 0;
    const bool digits = std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '9'; });
    const auto [_, wrong] = std::from_chars(value.data(), value.data() + value.size(), ms);
    if (digits && wrong == std::errc()) retry_ = std::chrono::milliseconds(ms);
  }
}

// An id counts although its message has no data, or too much of it: the server shall not send it again.
void sse_parser::dispatch(std::vector<sse_message>& out) {
  last_id_ = next_id_;
  const bool has_data = !data_.empty();
  if (has_data) data_.pop_back();  // the last line end
  if (has_data || too_long_) out.push_back({std::move(data_), std::move(type_), last_id_, own_id_ && !last_id_.empty(), too_long_});
  data_.clear();
  type_.clear();
  own_id_ = false;
  too_long_ = false;
}

}  // namespace penstock::runtime
