// Events and batches: the data that moves.
//
// An event is a set of views (CloudEvents 1.0 attributes, a key, and the payload bytes) into memory that its batch
// owns; nothing is allocated per event beyond the vector's slot. A batch moves from source through steps to sink as
// one owner at a time, so neither has locks. What always holds: every view of an event points into its own batch's
// memory (arena or adopted buffer), and at least `padding` readable bytes follow every payload, so that simdjson may
// read past its end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/time.hpp"

namespace penstock::runtime {

// Readable bytes after every payload (simdjson's SIMDJSON_PADDING is at most this; checked in json.cpp).
constexpr std::size_t padding = 64;

// A thread's JSON parser that has grown beyond this is thrown away after use (it holds about 14 bytes per byte of JSON).
constexpr std::size_t kept_parser_capacity = 256 << 10;

struct event {
  std::string_view id;               // never empty once a source has emitted it
  std::string_view source;           // URI reference; default "/topics/NAME" or the flow's name
  std::string_view type;             // default "event"
  std::string_view subject;          // may be empty
  std::string_view datacontenttype;  // empty means application/json
  std::string_view key;              // ordering and upsert key; may be empty
  std::string_view data;             // payload bytes
  std::string_view topic;            // it was read from; empty: from something else
  std::string_view fault;            // why its source could not read it as what it should be: a dead letter before all steps
  timestamp time{};                  // CloudEvents `time`: when it happened; default: when it was received
  std::int64_t position = 0;         // where in its source it stood (a topic's offset); 0: the source has no positions

  bool is_json() const { return datacontenttype.empty() || datacontenttype.find("json") != std::string_view::npos; }
};

// Bytes that a batch keeps alive; `padding` readable bytes follow `text`.
class buffer {
 public:
  explicit buffer(std::string text);  // appends the padding to the string's own storage
  std::string_view text() const { return {storage_.data(), storage_.size() - padding}; }

 private:
  std::string storage_;
};

class batch {
 public:
  batch();
  batch(batch&&) noexcept;
  batch& operator=(batch&&) noexcept;
  ~batch();

  std::vector<event> events;

  bool empty() const { return events.empty(); }
  std::size_t size() const { return events.size(); }
  std::size_t payload_bytes() const;  // sum of data sizes

  // Copies `text` into this batch's memory (padding included) and returns the copy.
  std::string_view keep(std::string_view text);
  // `size` writable bytes followed by padding; valid as long as the batch.
  char* allocate(std::size_t size);
  // Keeps `bytes` alive as long as the batch; views into it may be used in `events`.
  void adopt(std::shared_ptr<const buffer> bytes);
  // Takes over the other's events and memory.
  void append(batch&& other);
  // A deep copy, for one event of another batch.
  event copy(const event& other);

 private:
  std::vector<std::unique_ptr<char[]>> chunks_;
  std::vector<std::shared_ptr<const buffer>> adopted_;
  char* free_ = nullptr;        // next free byte of the newest chunk
  std::size_t available_ = 0;   // bytes left there
};

}  // namespace penstock::runtime
