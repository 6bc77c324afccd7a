#include "runtime/key_windows.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace penstock::runtime {
namespace {

constexpr std::size_t key_overhead = 64;  // bytes of memory that a window's key costs beside itself

std::int64_t begin_of_span(std::int64_t time, std::int64_t every) {
  const std::int64_t behind = time % every;
  return time - (behind < 0 ? behind + every : behind);
}

std::string window_row(std::uint64_t id) {
  char text[32];
  std::snprintf(text, sizeof text, "w%016llx", static_cast<unsigned long long>(id));
  return text;
}

std::string value_row(std::uint64_t id, std::uint32_t number) {
  char text[48];
  std::snprintf(text, sizeof text, "v%016llx.%08x", static_cast<unsigned long long>(id), number);
  return text;
}

// The window's number in "w…" or "v….…"; 0: there is none.
std::uint64_t id_of_row(const std::string& key) {
  return key.size() < 17 ? 0 : std::strtoull(key.substr(1, 16).c_str(), nullptr, 16);
}

}  // namespace

key_windows::key_windows(window_shape shape, const aggregate_plan& plan, std::int64_t lateness, window_limits limits,
                         result_function result)
    : shape_(shape), plan_(plan), lateness_(lateness), limits_(limits), result_(std::move(result)) {}

key_windows::outcome key_windows::take(std::string_view key, std::int64_t time,
                                       const std::vector<aggregate_value>& values, std::int64_t now) {
  switch (shape_.is) {
    case window_shape::kind::spans:
      return take_into_spans(key, time, values, now);
    case window_shape::kind::session:
      return take_into_session(key, time, values, now);
    case window_shape::kind::count:
      return take_into_count(key, time, values);
  }
  throw std::logic_error("unknown kind of window");
}

// ---- limits

bool key_windows::has_room(const key_window* w, const std::vector<aggregate_value>& values) const {
  return !w || plan_.has_room(w->state, values, limits_.values_per_window);
}

key_windows::outcome key_windows::check_limits(std::size_t further_windows, std::size_t affected,
                                               const std::vector<aggregate_value>& values) const {
  if (held_ + further_windows > limits_.windows) return outcome::too_many_windows;
  if (bytes_ + affected * plan_.most_bytes(values) > limits_.bytes) return outcome::too_many_bytes;
  return outcome::taken;
}

// ---- tumbling and sliding

key_windows::outcome key_windows::take_into_spans(std::string_view key, std::int64_t time,
                                                  const std::vector<aggregate_value>& values, std::int64_t now) {
  group* const known = find(key);
  targets_.clear();
  std::size_t missing = 0;
  bool room = true;
  const std::int64_t latest = begin_of_span(time, shape_.every);
  for (std::int64_t from = latest; from > time - shape_.size; from -= shape_.every) {
    if (from + shape_.size + lateness_ <= now) break;  // as are all before
    key_window* found = nullptr;
    if (known) {
      windows_of_key& all = known->second;
      const auto at = std::lower_bound(all.begin(), all.end(), from,
                                       [](const auto& w, std::int64_t begin) { return w->from < begin; });
      if (at != all.end() && (*at)->from == from) found = at->get();
    }
    missing += found == nullptr;
    room = room && has_room(found, values);
    targets_.emplace_back(from, found);
  }
  if (targets_.empty()) return outcome::late;
  const outcome checked = check_limits(missing, targets_.size(), values);
  if (checked != outcome::taken) return checked;
  if (!room) return outcome::too_many_values;

  for (auto target = targets_.rbegin(); target != targets_.rend(); ++target) {
    key_window& w = target->second ? *target->second : open(key, target->first, target->first + shape_.size);
    if (!target->second) {
      w.closed = w.until <= now;
      enqueue(w);
    }
    add(w, values, time);
    if (w.closed) send(w);
  }
  return outcome::taken;
}

// ---- sessions

// An event belongs to the session that it falls into, and lengthens it; else it begins one. A session that then reaches
// the next one is joined with it; where that would be longer than `longest`, it ends where the next begins.
key_windows::outcome key_windows::take_into_session(std::string_view key, std::int64_t time,
                                                    const std::vector<aggregate_value>& values, std::int64_t now) {
  group* const known = find(key);
  key_window *mine = nullptr, *next = nullptr;
  if (known) {
    windows_of_key& all = known->second;
    const auto after = std::upper_bound(all.begin(), all.end(), time,
                                        [](std::int64_t t, const auto& w) { return t < w->from; });
    if (after != all.end()) next = after->get();
    if (after != all.begin() && time < (*std::prev(after))->until) mine = std::prev(after)->get();
  }
  const std::int64_t from = mine ? mine->from : time;
  std::int64_t until = std::min(time + shape_.gap, from + shape_.longest);
  if (mine) until = std::max(until, mine->until);
  const bool reaches = next && next->from < until;
  const bool joins = reaches && next->until - from <= shape_.longest;
  if (reaches) until = joins ? std::max(until, next->until) : next->from;

  if (until + lateness_ <= now) return outcome::late;
  const outcome checked = check_limits(!mine && !joins, 1, values);
  if (checked != outcome::taken) return checked;
  const bool both = mine && joins;
  if (!has_room(mine, values) || (joins && !has_room(next, values)) ||
      (both && !plan_.can_join(mine->state, next->state, limits_.values_per_window - 1)))
    return outcome::too_many_values;

  key_window* w = mine;
  if (both) {
    if (next->revision > 0) take_back(*next);
    bytes_ += next->bytes;
    mine->bytes += next->bytes;
    mine->events += next->events;
    plan_.join(mine->state, std::move(next->state));
    drop(*next);
  } else if (joins) {
    if (next->revision > 0) take_back(*next);
    w = next;
    w->revision = 0;
    w->from = from;
  } else if (!mine) {
    w = &open(key, from, until);
  }
  const bool fresh = !mine && !joins, was_closed = w->closed;
  w->until = until;
  w->closed = until <= now;
  if (!fresh && was_closed != w->closed) {
    w->closed = was_closed;
    leave_queue(*w);
    w->closed = until <= now;
  }
  if (fresh || was_closed != w->closed) enqueue(*w);
  add(*w, values, time);
  if (w->closed) send(*w);
  return outcome::taken;
}

// A result that has left under a begin that is none any more: corrected to that of no events.
void key_windows::take_back(const key_window& w) {
  key_window nothing;
  nothing.key = w.key;
  nothing.from = w.from;
  nothing.until = w.until;
  nothing.revision = w.revision + 1;
  nothing.state = plan_.begin();
  result_(nothing);
}

// ---- count

key_windows::outcome key_windows::take_into_count(std::string_view key, std::int64_t time,
                                                  const std::vector<aggregate_value>& values) {
  group* const known = find(key);
  key_window* const mine = known ? known->second.front().get() : nullptr;
  const outcome checked = check_limits(mine == nullptr, 1, values);
  if (checked != outcome::taken) return checked;
  if (!has_room(mine, values)) return outcome::too_many_values;

  key_window& w = mine ? *mine : open(key, 1, time);
  w.until = time;
  add(w, values, 0);  // the order of arrival counts
  if (w.events < shape_.count) return outcome::taken;
  send(w);
  forget_rows(w, false);
  w.value_rows = 0;
  bytes_ -= w.bytes;
  w.bytes = 0;
  w.state = plan_.begin();
  w.events = 0;
  w.revision = 0;
  ++w.from;
  return outcome::taken;
}

// ---- windows

key_windows::group* key_windows::find(std::string_view key) {
  const auto found = groups_.find(key);
  return found == groups_.end() ? nullptr : &*found;
}

key_window& key_windows::open(std::string_view key, std::int64_t from, std::int64_t until) {
  auto known = groups_.find(key);
  if (known == groups_.end()) known = groups_.emplace(std::string(key), windows_of_key()).first;
  windows_of_key& all = known->second;
  auto made = std::make_unique<key_window>();
  key_window& w = *made;
  w.id = next_id_++;
  w.key = &known->first;
  w.from = from;
  w.until = until;
  w.state = plan_.begin();
  const auto place =
      std::upper_bound(all.begin(), all.end(), from, [](std::int64_t t, const auto& other) { return t < other->from; });
  all.insert(place, std::move(made));
  ++held_;
  bytes_ += key.size() + key_overhead;
  return w;
}

void key_windows::add(key_window& w, const std::vector<aggregate_value>& values, std::int64_t time) {
  const std::size_t grown = plan_.add(w.state, values, time);
  w.bytes += grown;
  bytes_ += grown;
  ++w.events;
  w.unsent = true;
  touch(w);
}

void key_windows::touch(key_window& w) {
  if (w.dirty) return;
  w.dirty = true;
  dirty_.push_back(&w);
}

void key_windows::send(key_window& w) {
  ++w.revision;
  w.unsent = false;
  touch(w);
  result_(w);
}

// `w` stands in no queue any more when this is called from advance(); from a join it is taken out here.
void key_windows::drop(key_window& w) {
  if (shape_.is == window_shape::kind::session) leave_queue(w);
  const auto known = groups_.find(*w.key);
  windows_of_key& all = known->second;
  const auto at = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.get() == &w; });
  --held_;
  bytes_ -= w.bytes + w.key->size() + key_overhead;
  w.gone = true;
  forget_rows(w, true);
  if (w.dirty) gone_.push_back(std::move(*at));
  all.erase(at);
  if (all.empty()) groups_.erase(known);
}

void key_windows::forget_rows(const key_window& w, bool with_window) {
  for (std::uint32_t i = 0; i < w.value_rows; ++i) removed_rows_.push_back(value_row(w.id, i));
  if (with_window && w.stored) removed_rows_.push_back(window_row(w.id));
}

// ---- order of ends

void key_windows::enqueue(key_window& w) {
  w.queued_at = w.closed ? w.until + lateness_ : w.until;
  (w.closed ? drops_ : closings_)[w.queued_at].push_back(&w);
}

// Does nothing when it stands in none.
void key_windows::leave_queue(key_window& w) {
  queue& all = w.closed ? drops_ : closings_;
  const auto bucket = all.find(w.queued_at);
  if (bucket == all.end()) return;
  std::vector<key_window*>& there = bucket->second;
  const auto at = std::find(there.begin(), there.end(), &w);
  if (at == there.end()) return;
  *at = there.back();
  there.pop_back();
  if (there.empty()) all.erase(bucket);
}

void key_windows::send_in_order(const std::vector<key_window*>& windows) {
  // The begin of each key beside it: comparing a million of them must not go through as many pointers.
  struct ordered {
    std::int64_t until;
    std::array<char, 24> begin_of_key;  // JSON has no zero bytes
    key_window* window;
  };
  std::vector<ordered> all;
  all.reserve(windows.size());
  for (key_window* const w : windows) {
    if (!w->unsent) continue;
    all.push_back({w->until, {}, w});
    w->key->copy(all.back().begin_of_key.data(), all.back().begin_of_key.size());
  }
  std::sort(all.begin(), all.end(), [](const ordered& a, const ordered& b) {
    if (a.until != b.until) return a.until < b.until;
    const int begins = std::memcmp(a.begin_of_key.data(), b.begin_of_key.data(), a.begin_of_key.size());
    if (begins != 0) return begins < 0;
    const int order = a.window->key->compare(*b.window->key);
    return order != 0 ? order < 0 : a.window->from < b.window->from;
  });
  for (const ordered& one : all) send(*one.window);
}

void key_windows::advance(std::int64_t now) {
  std::vector<key_window*> ended;
  while (!closings_.empty() && closings_.begin()->first <= now) {
    const std::vector<key_window*> due = std::move(closings_.extract(closings_.begin()).mapped());
    for (key_window* const w : due) {
      if (w->until > now)
        enqueue(*w);  // a session that has grown
      else
        ended.push_back(w);
    }
  }
  send_in_order(ended);
  for (key_window* const w : ended) {
    w->closed = true;
    if (w->until + lateness_ <= now)
      drop(*w);
    else
      enqueue(*w);
  }
  while (!drops_.empty() && drops_.begin()->first <= now) {
    const std::vector<key_window*> due = std::move(drops_.extract(drops_.begin()).mapped());
    for (key_window* const w : due) {
      if (w->until + lateness_ > now)
        enqueue(*w);
      else
        drop(*w);
    }
  }
}

void key_windows::finish() {
  std::vector<key_window*> open_ones;
  for (auto& [key, all] : groups_) {
    for (const auto& w : all) {
      if (w->unsent) open_ones.push_back(w.get());
    }
  }
  send_in_order(open_ones);
}

std::optional<std::int64_t> key_windows::next_end() const {
  if (closings_.empty()) return std::nullopt;
  return closings_.begin()->first;
}

// ---------------------------------------------------------------------------------------------------------------
// The durable state

// Removals first: a count window's rows begin anew under the same names.
void key_windows::append_changes(std::vector<state_change>& changes) {
  for (std::string& key : removed_rows_) changes.push_back({{}, std::move(key), std::nullopt});
  removed_rows_.clear();
  for (key_window* const w : dirty_) {
    if (w->gone) continue;
    std::string values;
    state_writer list(values);
    const bool more = plan_.append_unsaved(list, w->state);
    if (more) changes.push_back({{}, value_row(w->id, w->value_rows++), std::move(values)});
    std::string row;
    state_writer out(row);
    out.text(*w->key);
    out.integer(w->from);
    out.integer(w->until);
    out.integer(w->events);
    out.integer(w->revision);
    out.integer(w->unsent);
    plan_.write(out, w->state);
    changes.push_back({{}, window_row(w->id), std::move(row)});
    w->dirty = false;
    w->stored = true;
  }
  dirty_.clear();
  gone_.clear();
}

key_window& key_windows::read_window(const state_entry& entry, std::int64_t now) {
  state_reader in(entry.value);
  const std::string_view key = in.text();
  const std::int64_t from = in.integer();
  const std::int64_t until = in.integer();
  key_window& w = open(key, from, until);
  w.id = id_of_row(entry.key);
  next_id_ = std::max(next_id_, w.id + 1);
  w.events = in.integer();
  w.revision = in.integer();
  w.unsent = in.integer() != 0;
  w.state = plan_.read(in);
  in.end();
  w.stored = true;
  w.closed = until <= now && !w.unsent;
  if (shape_.is != window_shape::kind::count) enqueue(w);
  return w;
}

void key_windows::restore(const std::vector<state_entry>& entries, std::int64_t now) {
  std::unordered_map<std::uint64_t, key_window*> by_id;
  std::vector<const state_entry*> lists;
  for (const state_entry& entry : entries) {
    if (entry.key.starts_with('w')) by_id[id_of_row(entry.key)] = &read_window(entry, now);
    if (entry.key.starts_with('v')) lists.push_back(&entry);
  }
  std::sort(lists.begin(), lists.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
  for (const state_entry* const entry : lists) {
    const auto window = by_id.find(id_of_row(entry->key));
    if (window == by_id.end()) state_reader::damaged();
    key_window& w = *window->second;
    if (entry->key != value_row(w.id, w.value_rows)) state_reader::damaged();
    ++w.value_rows;
    state_reader in(entry->value);
    plan_.read_values(in, w.state);
  }
  for (const auto& [id, w] : by_id) {
    plan_.check_complete(w->state);
    w->bytes = plan_.kept_bytes(w->state);
    bytes_ += w->bytes;
  }
}

}  // namespace penstock::runtime
