// A topic: a durable, ordered log of events in one SQLite file (DATA/topics/NAME.db).
//
// Writes go through the topic's commit_queue (group commit); offsets are dense and start at 1. Reads use a
// small pool of read-only connections and may happen on any thread (they block for microseconds: WAL); what is only asked of a
// file at rest opens none that stays.
// `last_offset` is the last committed one. Dedupe and producer positions are decided in the transaction that
// appends. Owned by the topics object (shared_ptr, because readers may outlive a removal); the file is opened
// at first use.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "config/error.hpp"
#include "runtime/commit_queue.hpp"
#include "runtime/event.hpp"
#include "runtime/waiting_place.hpp"

namespace penstock::runtime {

// No aggregate on purpose: GCC 12 destroys an aggregate twice that is made with braces in a co_await
// expression.
struct append_options {
  append_options() = default;
  explicit append_options(std::string producer_name, std::optional<timestamp> receive_time = {})
      : producer(std::move(producer_name)), received(receive_time) {}

  // Exactly-once: when set, events whose position is at or below the producer's committed position are
  // skipped, and the producer's position becomes the batch's highest, all in the same transaction. Events
  // without a position (0) are never skipped.
  std::string producer;
  // The receive time of all events; absent: the wall clock. Give what the events' own default time was taken
  // from.
  std::optional<timestamp> received;
};

struct append_result {
  std::int64_t accepted = 0;
  std::int64_t duplicates = 0;    // by the topic's dedupe rule
  std::int64_t skipped = 0;       // by producer position
  std::int64_t first_offset = 0;  // of what was accepted; 0: nothing was
  std::int64_t last_offset = 0;
};

struct topic_status {
  std::string name;
  std::int64_t first_offset = 0;  // oldest kept; 0: empty
  std::int64_t last_offset = 0;   // newest ever appended
  std::int64_t events = 0;        // kept
  std::int64_t bytes = 0;         // on disk, without the log of what is to be folded in, and without free pages
  std::int64_t duplicates = 0;    // since the file was made
};

class topic : public std::enable_shared_from_this<topic> {
 public:
  // `pause`: as of its commit_queue.
  topic(config::topic definition, std::filesystem::path file, asio::any_io_executor writers,
        std::shared_ptr<commit_pause> pause = {});
  ~topic();

  const std::string& name() const { return name_; }

  // Durable when it returns. errc::overloaded: max_bytes is reached, or 64 MiB wait to be written already;
  // errc::unavailable: the topic was closed or removed. Throws sqlite::failure when the disk fails; then
  // nothing of the batch is stored. The dedupe key is evaluated on the calling thread.
  asio::awaitable<result<append_result>> append(std::shared_ptr<const batch> events,
                                                append_options options = {});

  // Events with offset in (after, until], at most `limit` events and about `max_bytes` of payload; `position`
  // of each is its offset. Blocks briefly. Empty when there are none; at least one event when there are some.
  batch read(std::int64_t after, std::size_t limit, std::int64_t until = INT64_MAX,
             std::size_t max_bytes = 4 << 20);

  // The last committed offset. No I/O after the first call.
  std::int64_t last_offset();
  // Throws std::runtime_error when the topic ends before `position`, which a reader has reached: its file is an older copy, or
  // was made anew. Waiting would look healthy while everything up to there is skipped.
  void require_reached(std::int64_t position);
  // Of a request, until its events are stored. The topic must outlive it. Control thread.
  waiting_place take_place(std::size_t most);
  // From now on events get offsets above `offset`; nothing changes when they do already. Stored with the first of them. Before
  // anybody reads or writes.
  void go_on_after(std::int64_t offset);
  // When the event at `offset` (or the next one kept) was received; nothing when there is none.
  std::optional<timestamp> received_at(std::int64_t offset);
  std::int64_t producer_position(const std::string& producer);
  topic_status status();
  // As of its commit_queue.
  std::optional<std::string> trouble() const;
  asio::awaitable<void> probe();

  // `listener` is called (on the writer's thread, so it must only post) after each commit with the new last
  // offset, until the returned token is destroyed. Once the token's destructor has returned it is not called
  // again. The token may outlive the topic.
  class subscription;
  std::shared_ptr<subscription> subscribe(std::function<void(std::int64_t)> listener);

  // A changed definition: retention, limits and dedupe apply from the next append on.
  void redefine(config::topic definition);

  // Deletes the oldest events up to the first that is not older than `retain` or lies above `keep_after`
  // (what consumers still need), dedupe keys past their time, and producers that were silent for 30 days.
  // Works in slices, so that appends go on meanwhile. The files of a topic that was not used
  // since the last call are closed until they are needed. Durable when it returns; returns the number of
  // events removed.
  asio::awaitable<std::int64_t> retain(timestamp now, std::int64_t keep_after);

  // Waits for pending appends and closes the file. Afterwards the topic reads as empty and takes no more
  // appends. Blocks; not to be called on the writer pool.
  void close();

 private:
  struct state;
  std::string name_;
  std::unique_ptr<state> state_;
};

// All topics by name. Thread-safe; owned by the daemon.
class topics {
 public:
  topics(std::filesystem::path folder, asio::any_io_executor writer_pool, std::shared_ptr<commit_pause> pause = {});
  ~topics();

  // Makes the topic, or redefines an existing one. Opens no file yet.
  std::shared_ptr<topic> declare(const config::topic& definition);
  std::shared_ptr<topic> find(std::string_view name) const;  // null when there is none
  std::vector<std::shared_ptr<topic>> all() const;           // by name
  std::vector<std::string> names() const;
  const std::filesystem::path& folder() const { return folder_; }  // of the topics' files
  // Forgets the topic and unlinks its file.
  void remove(const std::string& name);
  // Calls `act` while no topic can be declared, found or removed. It must not call back.
  void hold_still(const std::function<void()>& act) const;
  void close();

 private:
  const std::filesystem::path folder_;
  asio::any_io_executor writer_pool_;
  std::shared_ptr<commit_pause> pause_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<topic>, std::less<>> topics_;
};

}  // namespace penstock::runtime
