// Server-sent events from bytes, incrementally (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6).
//
// One object reads one answer of a server; pieces may be cut anywhere. Pure; one caller at a time. What always holds: it
// keeps no more than about twice `most_bytes` and a few KiB, whatever comes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::runtime {

struct sse_message {
  std::string data;
  std::string type;     // of the field `event`; empty: none was given
  std::string id;       // in force when it was dispatched: its own, or that of an earlier one; empty: none
  bool own_id = false;  // it came with `id`
  bool too_long = false;  // its data was, and is not here
};

class sse_parser {
 public:
  // A longer id is ignored, since it could not be sent in a header, and so is a longer name of an event.
  static constexpr std::size_t most_id_bytes = 4096;

  // `last_id`: the one that the server was asked to go on after. Of a message whose data is longer than `most_bytes` only the
  // data is left out.
  explicit sse_parser(std::size_t most_bytes, std::string last_id = {});

  // Adds what is complete to `out`.
  void put(std::string_view bytes, std::vector<sse_message>& out);

  const std::string& last_id() const { return last_id_; }
  std::optional<std::chrono::milliseconds> retry() const { return retry_; }  // the newest that the server asked for

 private:
  void put_part(std::string_view part);
  void take_line(std::string_view line, std::vector<sse_message>& out);
  void take_field(std::string_view name, std::string_view value);
  void dispatch(std::vector<sse_message>& out);
  void skip_byte_order_mark(std::string_view& bytes);

  const std::size_t most_bytes_;
  const std::size_t most_line_bytes_;
  std::string line_;             // begun, its end has not come
  bool line_too_long_ = false;   // its rest is skipped
  bool after_cr_ = false;        // a LF that comes now belongs to the CR before
  std::size_t mark_read_ = 0;    // bytes of a byte order mark at the very beginning
  std::string data_, type_;
  std::string last_id_, next_id_;  // dispatched; of the message that is being read
  bool own_id_ = false;
  bool too_long_ = false;  // the message that is being read
  std::optional<std::chrono::milliseconds> retry_;
};

}  // namespace penstock::runtime
