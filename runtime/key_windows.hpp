// The windows that a `window` step holds: one for each key and span of time (or run of `count` events), with what was
// worked out of its events so far.
//
// Pure: no clock, no Lua; all times are microseconds since 1970. Owned by its step. `now` is always the step's watermark
// (or its clock). A window is open until now reaches its end; then its result leaves, in the order of end and key, and it
// is kept for `lateness` more, in which each further event makes the corrected result leave at once. Results go through the
// function given at construction; the window that it is shown may be gone afterwards.
//
// What always holds: the windows of a key are ordered by their begin, and sessions of a key do not overlap; every window
// with an end stands in exactly one of `closings_` (it is open) and `drops_` (its end has passed). A session's place
// there may be earlier than its end, which only grows: it is put right when its turn comes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/aggregates.hpp"
#include "runtime/flow_store.hpp"

namespace penstock::runtime {

struct window_shape {
  enum class kind { spans, session, count };
  kind is = kind::spans;
  std::int64_t size = 0, every = 0;   // spans: tumbling ones have size == every; they begin at multiples of `every`
  std::int64_t gap = 0, longest = 0;  // session
  std::int64_t count = 0;
};

struct window_limits {
  std::size_t windows, values_per_window, bytes;
};

struct key_window {
  std::uint64_t id = 0;          // names its rows in the store
  const std::string* key{};      // as JSON
  std::int64_t from = 0;         // count: which one of its key this is, from 1
  std::int64_t until = 0;        // its end, exclusive; count: the last event's time
  std::int64_t events = 0;
  std::int64_t revision = 0;     // how many results have left
  bool unsent = false;           // it has changed since
  aggregate_state state{};

  // For key_windows alone.
  std::int64_t queued_at = 0;    // under what it stands in closings_ or drops_
  std::size_t bytes = 0;         // of its kept values
  std::uint32_t value_rows = 0;  // in the store
  bool closed = false;           // it stands in drops_
  bool dirty = false;            // to be written
  bool stored = false;           // has a row
  bool gone = false;             // its rows are to be removed
};

class key_windows {
 public:
  using result_function = std::function<void(const key_window&)>;
  enum class outcome { taken, late, too_many_windows, too_many_values, too_many_bytes };

  // `plan` must outlive this.
  key_windows(window_shape shape, const aggregate_plan& plan, std::int64_t lateness, window_limits limits,
              result_function result);

  // Adds an event to its windows; those that are closed already leave again. Anything but `taken` has changed nothing.
  outcome take(std::string_view key, std::int64_t time, const std::vector<aggregate_value>& values, std::int64_t now);
  // Closes what has ended and drops what is too old to be corrected.
  void advance(std::int64_t now);
  // The results of all windows that have changed since their last one. They stay open.
  void finish();
  // When advance() will have something to close, at the earliest.
  std::optional<std::int64_t> next_end() const;
  std::size_t size() const { return held_; }

  // The durable state: a row w… for each window, and rows v… with the values that were added to its lists.
  void restore(const std::vector<state_entry>& entries, std::int64_t now);
  void append_changes(std::vector<state_change>& changes);

 private:
  struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using windows_of_key = std::vector<std::unique_ptr<key_window>>;
  using groups = std::unordered_map<std::string, windows_of_key, text_hash, std::equal_to<>>;
  using group = groups::value_type;
  using queue = std::map<std::int64_t, std::vector<key_window*>>;

  outcome take_into_spans(std::string_view key, std::int64_t time, const std::vector<aggregate_value>& values,
                          std::int64_t now);
  outcome take_into_session(std::string_view key, std::int64_t time, const std::vector<aggregate_value>& values,
                            std::int64_t now);
  outcome take_into_count(std::string_view key, std::int64_t time, const std::vector<aggregate_value>& values);
  outcome check_limits(std::size_t further_windows, std::size_t affected, const std::vector<aggregate_value>& values) const;
  bool has_room(const key_window* w, const std::vector<aggregate_value>& values) const;

  group* find(std::string_view key);
  key_window& open(std::string_view key, std::int64_t from, std::int64_t until);
  void add(key_window& w, const std::vector<aggregate_value>& values, std::int64_t time);
  void send(key_window& w);
  void take_back(const key_window& w);
  void drop(key_window& w);
  void forget_rows(const key_window& w, bool with_window);
  void touch(key_window& w);
  void enqueue(key_window& w);
  void leave_queue(key_window& w);
  void send_in_order(const std::vector<key_window*>& windows);
  key_window& read_window(const state_entry& entry, std::int64_t now);

  const window_shape shape_;
  const aggregate_plan& plan_;
  const std::int64_t lateness_;
  const window_limits limits_;
  const result_function result_;

  groups groups_;
  queue closings_;  // open windows by their end
  queue drops_;     // closed windows by when they are dropped
  std::size_t held_ = 0;
  std::size_t bytes_ = 0;  // of keys and kept values
  std::uint64_t next_id_ = 1;
  std::vector<std::pair<std::int64_t, key_window*>> targets_;  // of the event at hand

  // Since the last append_changes().
  std::vector<key_window*> dirty_;
  std::vector<std::unique_ptr<key_window>> gone_;  // some of dirty_ may be here
  std::vector<std::string> removed_rows_;
};

}  // namespace penstock::runtime
