// The events that a `join` step holds, each until the last event that may belong to it has come.
//
// Pure: no clock, no Lua; all times are microseconds since 1970. Owned by its step. `now` is always the step's watermark. An
// event is held until now is beyond its time by more than `within`; one that comes after that is late. Results go through
// the function given at construction: pairs when the second event of them comes, in the order of the first one's time (of
// equal times, of arrival); an event that is let go without a partner, where its side is to be kept, alone.
//
// What always holds: an event leaves in pairs or once alone, never both. Every held event stands in its group (key and
// side) and in by_time_; in lonely_ as well, if it would leave alone.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/flow_store.hpp"

namespace penstock::runtime {

struct join_rules {
  std::int64_t within = 0;           // the times of a pair differ by at most this
  bool first_only = false;           // each event has one partner at most, the earliest that is there and has none
  std::array<bool, 2> keep_alone{};  // by side: what has no partner leaves alone
};

struct join_limits {
  std::size_t events, bytes, partners;
  std::size_t results;  // bytes that the results of one event with several partners may have together
};

// An event of a side (0 left, 1 right), with what results need of it.
struct held_event {
  std::size_t side = 0;
  std::int64_t time = 0;
  std::string id{}, source{};
  std::string payload{};  // JSON

  // For join_buffer alone.
  std::uint64_t number = 0;  // in order of arrival; names its row in the store
  const std::string* key{};  // as JSON
  bool matched = false;      // kept up only where keep_alone
  bool stored = false;       // has a row
};

class join_buffer {
 public:
  // One of the two is null where an event leaves alone.
  using result_function = std::function<void(std::string_view key, const held_event* left, const held_event* right)>;
  enum class outcome { taken, late, too_many_events, too_many_bytes, too_many_partners, too_large_results };

  join_buffer(join_rules rules, join_limits limits, result_function result);

  // Joins an event with those that are there, and holds it. Anything but `taken` has changed nothing.
  outcome take(std::string_view key, held_event e, std::int64_t now);
  // An event that can have no partner.
  void take_alone(std::string_view key, const held_event& e) const;
  // Lets go of what can have no further partner.
  void advance(std::int64_t now);
  // Lets go of all that would leave alone. What is held for partners only stays.
  void finish();

  // From which watermark on advance() has something to let go; something that leaves alone.
  std::optional<std::int64_t> next_due() const;
  std::optional<std::int64_t> next_lonely_due() const;
  std::size_t size() const { return by_time_.size(); }

  // The durable state: a row e… for each event.
  void restore(const std::vector<state_entry>& entries);
  void append_changes(std::vector<state_change>& changes);

 private:
  struct place {
    std::int64_t time;
    std::uint64_t number;
    auto operator<=>(const place&) const = default;
  };
  struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using events = std::map<place, held_event>;
  using groups = std::unordered_map<std::string, std::array<events, 2>, text_hash, std::equal_to<>>;

  outcome find_partners(std::string_view key, const held_event& e);
  void send(std::string_view key, const held_event& one, const held_event* other) const;
  bool leaves_alone(const held_event& e) const { return rules_.keep_alone[e.side] && !e.matched; }
  held_event& hold(std::string_view key, held_event e);
  void match(held_event& e);
  void let_go(held_event& e);

  const join_rules rules_;
  const join_limits limits_;
  const result_function result_;

  groups groups_;
  std::map<place, held_event*> by_time_;
  std::set<place> lonely_;
  std::size_t bytes_ = 0;
  std::uint64_t next_number_ = 1;
  std::vector<held_event*> partners_;  // of the event at hand

  // Since the last append_changes().
  std::map<std::uint64_t, held_event*> unsaved_;
  std::vector<std::string> removed_rows_;
};

}  // namespace penstock::runtime
