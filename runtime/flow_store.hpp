// What flows must remember: DATA/flows.db.
//
// One row per consumer (its cursor and its sink's checkpoint), the durable state of its steps, and the dead
// letters of its events; a batch's share of all of it commits in one transaction, grouped with other flows'
// by the commit_queue. A consumer is "PIPELINE/flow/FLOW" or "PIPELINE/run/RUN/TASK". Any thread may call;
// owned by the daemon.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/error.hpp"
#include "config/time.hpp"
#include "runtime/commit_queue.hpp"
#include "runtime/event.hpp"

namespace penstock::runtime {

// One key of a step's durable state, set or (value absent) removed.
struct state_change {
  std::string step;
  std::string key;
  std::optional<std::string> value;
};

// What stands under this name is no step's but the engine's own; under source_record + COMPONENT what its
// source::record() gave.
constexpr const char* engine_state = "";
constexpr const char* input_key = "input";  // of it: what the consumer reads, as config::input_of has it
constexpr const char* source_record = "read ";

struct state_entry {
  std::string step, key, value;
};

// An event that could not be processed. `id` is a ULID; (consumer, step, event id, position) is unique, so
// that replaying a batch after a crash does not store it twice.
struct dead_letter {
  std::string id;
  std::string pipeline;
  std::string consumer;
  std::string step;  // step name, or "to" for the sink
  std::string reason;
  int attempts = 1;
  timestamp at{};
  // the event
  std::string event_id, source, type, subject, datacontenttype, key, data, topic;
  timestamp event_time{};
  std::int64_t position = 0;
};

struct checkpoint {
  std::int64_t position = 0;         // the cursor; 0: at the beginning, or the source has none
  std::string sink;                  // what the sink asked to be kept; opaque
  std::vector<state_entry> steps{};  // only filled by load()
};

struct commit {
  std::string consumer;
  std::int64_t position = 0;
  std::string sink;
  std::vector<state_change> steps{};
  std::vector<dead_letter> dead{};
  std::vector<std::string> settled{};  // ids of dead letters that were replayed by this batch: removed
};

struct dead_letter_filter {
  std::string pipeline{};  // empty: all
  std::string consumer{};
  std::string after_id{};  // exclusive
  std::size_t limit = 100;
};

// Reads see what save() and the others have returned from; a file that is not there yet reads as empty and is
// not made.
class flow_store {
 public:
  // `pause`: as of its commit_queue.
  flow_store(std::filesystem::path file, asio::any_io_executor executor, std::shared_ptr<commit_pause> pause = {});
  ~flow_store();

  checkpoint load(const std::string& consumer);  // blocks briefly
  std::optional<std::string> find_state(const std::string& consumer, const std::string& step, const std::string& key);
  asio::awaitable<void> save(commit c);          // durable when it returns
  // Cursor and state of the consumer of that name and of all below it ("p/run/R" has "p/run/R/TASK", not
  // "p/run/R2"). Dead letters stay.
  asio::awaitable<void> forget(std::string consumer_prefix);

  std::vector<dead_letter> dead_letters(const dead_letter_filter& filter);  // oldest first; blocks briefly
  std::optional<dead_letter> find_dead_letter(const std::string& id);
  std::int64_t count_dead_letters();
  asio::awaitable<std::int64_t> remove_dead_letters(std::vector<std::string> ids);

  // Cursors of all consumers, for lag and retention: consumer -> position.
  std::vector<std::pair<std::string, std::int64_t>> cursors();
  // As of its commit_queue.
  std::optional<std::string> trouble() const;
  asio::awaitable<void> probe();

  // Waits for pending commits and closes the file. Afterwards the store reads as empty and saving throws
  // commit_queue::closed. Blocks; not to be called on the executor.
  void close();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace penstock::runtime
