// The connections that read a topic's file: a small pool for whoever reads events, and none that stays for what is only asked.
//
// Owned by the topic's state; any thread. At most two readers are lent at once, each for one call. A file at rest (no writer has it
// open, it has no log) is asked as one that does not change: the log that a connection makes, and removes when it goes, takes much
// longer than the answer. close() waits for those that are lent; what is asked afterwards is answered as if there were no file.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "runtime/sqlite.hpp"

namespace penstock::runtime {

inline constexpr std::int64_t topic_format = 1;
inline constexpr std::string_view topic_cache_size = "PRAGMA cache_size = -1024";  // KiB per connection
inline constexpr std::string_view select_last_offset =
    "SELECT max(last_offset, coalesce((SELECT max(offset) FROM events), 0)) FROM counters";

// The integer in a statement's one row; 0 when it is NULL or there is no row.
inline std::int64_t one_integer(sqlite::statement& query) {
  const std::int64_t value = query.step() ? query.integer(0) : 0;
  query.reset();
  return value;
}

// A read-only connection and its statements.
struct topic_reader {
  explicit topic_reader(sqlite::connection opened);

  sqlite::connection db;
  sqlite::statement events, received, last, producer, summary;
};

class topic_readers {
 public:
  explicit topic_readers(std::filesystem::path file);

  enum class after_use { keep_open, close_if_new };

  // A reader, taken from the pool for one call; none when there is no file or the pool is closed. Only reading events keeps a new
  // connection open: looking at thousands of topics must not leave their files open.
  class lease {
   public:
    lease(topic_readers& owner, after_use after);
    ~lease();
    lease(const lease&) = delete;
    lease& operator=(const lease&) = delete;

    explicit operator bool() const { return taken_ != nullptr; }
    topic_reader& operator*() const { return *taken_; }
    topic_reader* operator->() const { return taken_.get(); }

   private:
    void give_up();

    topic_readers& owner_;
    std::unique_ptr<topic_reader> taken_;
    bool close_after_ = false;
  };

  // One of its own, outside the pool. Null: there is no file yet, or nothing was made in it yet.
  std::unique_ptr<topic_reader> open(sqlite::open_mode mode) const;

  // What `ask(topic_reader&)` returns, a T; T() when there is no file or the pool is closed; nothing: the file is not at rest, or was
  // not all the time.
  template <class Ask, class T = std::invoke_result_t<Ask, topic_reader&>>
  std::optional<T> ask_at_rest(Ask ask) {
    if (closed_) return T();
    const std::int64_t known_writers = writers_;
    if (has_log()) return std::nullopt;
    try {
      const auto from = open(sqlite::open_mode::unchanging);
      T found = from ? ask(*from) : T();
      if (writers_ == known_writers) return found;
    } catch (const sqlite::failure&) {
      if (writers_ == known_writers) throw;
    }
    return std::nullopt;
  }

  // The same, whether it rests or not.
  template <class Ask, class T = std::invoke_result_t<Ask, topic_reader&>>
  T ask_once(Ask ask) {
    if (auto found = ask_at_rest(ask)) return std::move(*found);
    const lease from(*this, after_use::close_if_new);
    return from ? ask(*from) : T();
  }

  // The writer says so before it opens the file, and once more when it has: before that there was perhaps no log yet.
  void writer_opens() { ++writers_; }

  // Calls `work` while no reader is lent; further ones wait until it returns.
  template <class F>
  void without_readers(F work) {
    hold(true);
    const std::shared_ptr<void> over(nullptr, [this](void*) { hold(false); });
    work();
  }

  void rest();  // closes those that are idle
  void close();

 private:
  void hold(bool held);
  bool has_log() const;
  bool none_lent() const { return idle_.size() == static_cast<std::size_t>(open_); }

  const std::filesystem::path file_;
  std::atomic<std::int64_t> writers_{0};
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<topic_reader>> idle_;  // guarded by mutex_, as is the rest
  int open_ = 0;                                     // idle and lent
  std::atomic<bool> closed_{false};
  bool held_ = false;
};

}  // namespace penstock::runtime
