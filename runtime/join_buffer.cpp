#include "runtime/join_buffer.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>

#include "runtime/state_bytes.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t event_overhead = 400;  // of memory, for its places in the containers

std::size_t bytes_of(std::string_view key, const held_event& e) {
  return key.size() + e.id.size() + e.source.size() + e.payload.size() + event_overhead;
}

std::string row_of(std::uint64_t number) {
  char text[24];
  std::snprintf(text, sizeof text, "e%016llx", static_cast<unsigned long long>(number));
  return text;
}

std::uint64_t number_of_row(const std::string& key) {
  std::uint64_t number = 0;
  const char* const end = key.data() + key.size();
  const auto [read_to, wrong] = std::from_chars(key.data() + 1, end, number, 16);
  if (wrong != std::errc() || read_to != end) state_reader::damaged();
  return number;
}

}  // namespace

join_buffer::join_buffer(join_rules rules, join_limits limits, result_function result)
    : rules_(rules), limits_(limits), result_(std::move(result)) {}

join_buffer::outcome join_buffer::take(std::string_view key, held_event e, std::int64_t now) {
  if (e.time + rules_.within < now) return outcome::late;
  if (const outcome found = find_partners(key, e); found != outcome::taken) return found;
  const bool done = rules_.first_only && !partners_.empty();
  if (!done && by_time_.size() >= limits_.events) return outcome::too_many_events;
  if (!done && bytes_ + bytes_of(key, e) > limits_.bytes) return outcome::too_many_bytes;

  for (held_event* const partner : partners_) {
    send(key, e, partner);
    if (rules_.first_only)
      let_go(*partner);
    else
      match(*partner);
  }
  e.matched = rules_.keep_alone[e.side] && !partners_.empty();
  e.number = next_number_++;
  if (!done) {
    held_event& held = hold(key, std::move(e));
    unsaved_[held.number] = &held;
  }
  return outcome::taken;
}

void join_buffer::take_alone(std::string_view key, const held_event& e) const {
  if (rules_.keep_alone[e.side]) send(key, e, nullptr);
}

// Their results together are bounded as well: each is a copy of both payloads.
join_buffer::outcome join_buffer::find_partners(std::string_view key, const held_event& e) {
  partners_.clear();
  const auto known = groups_.find(key);
  if (known == groups_.end()) return outcome::taken;
  events& others = known->second[1 - e.side];
  std::size_t results = 0;
  for (auto at = others.lower_bound({e.time - rules_.within, 0}); at != others.end(); ++at) {
    if (at->first.time > e.time + rules_.within) break;
    if (partners_.size() == limits_.partners) return outcome::too_many_partners;
    results += e.payload.size() + at->second.payload.size() + event_overhead;
    if (!partners_.empty() && results > limits_.results) return outcome::too_large_results;
    partners_.push_back(&at->second);
    if (rules_.first_only) break;
  }
  return outcome::taken;
}

void join_buffer::send(std::string_view key, const held_event& one, const held_event* other) const {
  if (one.side == 0)
    result_(key, &one, other);
  else
    result_(key, other, &one);
}

// ---- what is held

held_event& join_buffer::hold(std::string_view key, held_event e) {
  auto known = groups_.find(key);
  if (known == groups_.end()) known = groups_.emplace(std::string(key), std::array<events, 2>()).first;
  e.key = &known->first;
  const place where{e.time, e.number};
  held_event& held = known->second[e.side].emplace(where, std::move(e)).first->second;
  by_time_.emplace(where, &held);
  if (leaves_alone(held)) lonely_.insert(where);
  bytes_ += bytes_of(key, held);
  return held;
}

void join_buffer::match(held_event& e) {
  if (!leaves_alone(e)) return;
  e.matched = true;
  lonely_.erase({e.time, e.number});
  unsaved_[e.number] = &e;
}

// `e` is gone afterwards.
void join_buffer::let_go(held_event& e) {
  const place where{e.time, e.number};
  bytes_ -= bytes_of(*e.key, e);
  if (e.stored) removed_rows_.push_back(row_of(e.number));
  unsaved_.erase(e.number);
  lonely_.erase(where);
  by_time_.erase(where);
  const auto known = groups_.find(*e.key);
  known->second[e.side].erase(where);
  if (known->second[0].empty() && known->second[1].empty()) groups_.erase(known);
}

void join_buffer::advance(std::int64_t now) {
  while (!by_time_.empty() && by_time_.begin()->first.time + rules_.within < now) {
    held_event& e = *by_time_.begin()->second;
    if (leaves_alone(e)) send(*e.key, e, nullptr);
    let_go(e);
  }
}

void join_buffer::finish() {
  while (!lonely_.empty()) {
    held_event& e = *by_time_.at(*lonely_.begin());
    send(*e.key, e, nullptr);
    let_go(e);
  }
}

std::optional<std::int64_t> join_buffer::next_due() const {
  if (by_time_.empty()) return std::nullopt;
  return by_time_.begin()->first.time + rules_.within + 1;
}

std::optional<std::int64_t> join_buffer::next_lonely_due() const {
  if (lonely_.empty()) return std::nullopt;
  return lonely_.begin()->time + rules_.within + 1;
}

// ---- the durable state

void join_buffer::append_changes(std::vector<state_change>& changes) {
  for (std::string& key : removed_rows_) changes.push_back({{}, std::move(key), std::nullopt});
  removed_rows_.clear();
  for (const auto& [number, e] : unsaved_) {
    std::string row;
    state_writer out(row);
    out.integer(static_cast<std::int64_t>(e->side));
    out.integer(e->matched);
    out.integer(e->time);
    out.text(*e->key);
    out.text(e->id);
    out.text(e->source);
    out.text(e->payload);
    changes.push_back({{}, row_of(number), std::move(row)});
    e->stored = true;
  }
  unsaved_.clear();
}

void join_buffer::restore(const std::vector<state_entry>& entries) {
  for (const state_entry& entry : entries) {
    if (!entry.key.starts_with('e')) continue;
    state_reader in(entry.value);
    held_event e;
    const std::int64_t side = in.integer();
    if (side != 0 && side != 1) state_reader::damaged();
    e.side = static_cast<std::size_t>(side);
    e.matched = in.integer() != 0;
    e.time = in.integer();
    const std::string_view key = in.text();
    e.id = in.text();
    e.source = in.text();
    e.payload = in.text();
    in.end();
    e.number = number_of_row(entry.key);
    e.stored = true;
    next_number_ = std::max(next_number_, e.number + 1);
    hold(key, std::move(e));
  }
}

}  // namespace penstock::runtime
