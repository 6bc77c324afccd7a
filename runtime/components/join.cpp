// steps: join - pairs of events of two sides with the same key, whose times are near each other.
//
// The step takes events in and gives pairs out. Each event of a side is held until the watermark (side_watermarks.hpp) says
// that no further partner of it can come; the watermark is moved before each event. A pair leaves at the event that
// completes it, what has no partner at the event or tick that moved the watermark past its last possible one, so the results
// are the same wherever batches begin and end. What is of neither side is dropped. What is held, and in which order it
// leaves: join_buffer.hpp.
//
// - Lateness: an event is late when the watermark is beyond its time by more than `within`: it would be let go at once. One
//   that is behind the watermark by less joins what is still held; out of order by no more than `delay`, it misses none.
// - Determinism: results follow from the events alone, but for `max_ahead` (see window.cpp).
// - State: one row for each held event and one for the watermark. A stop keeps what is held; finish() lets those go that
//   leave alone, so none of them is in a pair later.
// - Bounds: events and bytes held, partners of one event and the size of its results. What goes beyond is a dead letter, but still moves the watermark.
#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "config/time.hpp"
#include "runtime/aggregates.hpp"
#include "runtime/components/all.hpp"
#include "runtime/components/event_clock.hpp"
#include "runtime/join_buffer.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/lua.hpp"
#include "runtime/side_watermarks.hpp"

namespace penstock::runtime::components::join_step {

namespace {

constexpr const char* watermark_row = "m";

// ---- the record

config::field side_field(const std::string& name, config::field where, const std::string& example) {
  using config::field_type;
  return {.name = name,
          .type = field_type::object,
          .doc = "The " + name + " side.",
          .required = true,
          .example = example,
          .children = {std::move(where),
                       {.name = "key",
                        .type = field_type::expression,
                        .doc = "Events of both sides with the same value belong together; any JSON value, also a list. "
                               "Where it is nil, the event has no partner.",
                        .required = true,
                        .example = "event.order_id"},
                       {.name = "as",
                        .type = field_type::name,
                        .doc = "The field of the result that holds this side's event.",
                        .fallback = name,
                        .example = "order"}}};
}

std::vector<config::field> limit_fields() {
  using config::field_type;
  return {{.name = "max_events",
           .type = field_type::integer,
           .doc = "Events held at most, of both sides together.",
           .fallback = "100000",
           .minimum = 1},
          {.name = "max_bytes",
           .type = field_type::size,
           .doc = "Memory for the events held.",
           .fallback = "256MiB",
           .minimum = 1024},
          {.name = "max_partners",
           .type = field_type::integer,
           .doc = "Partners that an event may find at most when it comes.",
           .fallback = "1000",
           .minimum = 1},
          {.name = "max_results",
           .type = field_type::size,
           .doc = "How large the results of one event with several partners may be together: each holds both payloads.",
           .fallback = "1MiB",
           .minimum = 1024}};
}

std::vector<config::field> fields() {
  using config::field_type;
  std::vector<config::field> all{
      side_field("left",
                 {.name = "where",
                  .type = field_type::expression,
                  .doc = "Which events are of this side.",
                  .required = true,
                  .example = "meta.topic == 'orders'"},
                 "{where: meta.topic == 'orders', key: event.id}"),
      side_field("right",
                 {.name = "where",
                  .type = field_type::expression,
                  .doc = "Which of those that are not of the left side are of this one. Without it, all. What is of neither "
                         "side is dropped.",
                  .example = "meta.topic == 'payments'"},
                 "{key: event.order}"),
      duration_field("within", "By how much the times of the two events of a pair may differ, either way.", "", "10m", 0),
      {.name = "each",
       .type = field_type::choice,
       .doc = "all: every pair. first: each event is in one pair at most; it takes the earliest partner that is there and "
              "free.",
       .fallback = "all",
       .choices = {"all", "first"}},
      {.name = "unmatched",
       .type = field_type::choice,
       .doc = "Of which side an event without a partner goes on alone, the other being null, once none can come any more.",
       .fallback = "drop",
       .choices = {"drop", "left", "right", "both"}},
      time_field(),
      {.name = "watermark",
       .type = field_type::choice,
       .doc = "What says how far event time has come. slower: the side that is behind the other, unless it is idle, as one "
              "of two topics may be read ahead. newest: the newest event of either side, for events that are in one order.",
       .fallback = "slower",
       .choices = {"slower", "newest"}},
      delay_field(),
      idle_field(),
      max_ahead_field()};
  for (config::field& f : all) {
    if (f.name == "within") f.required = true;
    if (f.name == "idle")
      f.doc = "When no event of a side has come for so long, it is not waited for; when none has come of either, the "
              "watermark moves on with the wall clock.";
  }
  for (config::field& f : limit_fields()) all.push_back(std::move(f));
  return all;
}

config::component_spec spec() {
  return {
      .kind = config::component_kind::step,
      .name = "join",
      .doc = "Joins events of two sides that have the same key and happened within an interval; the pairs go on in their "
             "place. Survives restarts.",
      .settings = {.name = "join", .type = config::field_type::object, .doc = "", .children = fields()},
      .examples = {"join: {left: {where: meta.topic == 'orders', key: event.id, as: order}, right: {where: meta.topic == "
                   "'payments', key: event.order, as: payment}, within: 10m}",
                   "join: {left: {where: event.kind == 'request', key: event.id}, right: {where: event.kind == 'answer', "
                   "key: event.id}, within: 30s, time: event.at, watermark: newest, each: first, unmatched: left}"},
      .outputs = [](const config::value&) { return std::vector<std::string>{"late"}; },
      .state_settings = {"left", "right", "each", "unmatched", "time"},
  };
}

// ---- settings

struct side_settings {
  std::optional<std::string> where;
  std::string key, as;
};

struct settings {
  std::array<side_settings, 2> sides;
  join_rules rules;
  join_limits limits;
  std::optional<std::string> time;
  bool by_side;
  std::int64_t delay, idle, max_ahead;
};

std::optional<std::string> text_in(const config::value& v, const char* name) {
  return v.contains(name) ? std::optional(v.at(name).get<std::string>()) : std::nullopt;
}

side_settings side_of(const config::value& v) {
  return {text_in(v, "where"), v.at("key").get<std::string>(), v.at("as").get<std::string>()};
}

settings parse(const config::value& v) {
  const std::string unmatched = v.at("unmatched").get<std::string>();
  settings s{{side_of(v.at("left")), side_of(v.at("right"))},
             {micros_of(v.at("within")),
              v.at("each") == "first",
              {unmatched == "left" || unmatched == "both", unmatched == "right" || unmatched == "both"}},
             {v.at("max_events").get<std::size_t>(), v.at("max_bytes").get<std::size_t>(),
              v.at("max_partners").get<std::size_t>(), v.at("max_results").get<std::size_t>()},
             text_in(v, "time"),
             v.at("watermark") == "slower",
             micros_of(v.at("delay")),
             micros_of(v.at("idle")),
             micros_of(v.at("max_ahead"))};
  for (const side_settings& side : s.sides) {
    if (side.as == "key") throw std::runtime_error("as: the result has a field 'key' already");
  }
  if (s.sides[0].as == s.sides[1].as)
    throw std::runtime_error("as: both sides would be the field '" + s.sides[0].as + "' of the result");
  return s;
}

// ---- one side's expressions

class side_reader {
 public:
  side_reader(const side_settings& s, const std::optional<std::string>& time_setting, const std::string* run_context)
      : has_time_(time_setting), mapping_(fields_of(s, time_setting), run_context) {
    if (s.where) where_.emplace(*s.where, run_context);
  }

  lua_outcome<bool> is_mine(const event& e) const { return where_ ? where_->truth(e) : lua_outcome<bool>{true, {}}; }

  // What is wrong, or empty. Key and time stay until the next call.
  std::string read(const event& e) {
    made_.clear();
    lua_outcome<bool> mapped = mapping_.apply(e, made_);
    if (!mapped.failure.empty()) return std::move(mapped.failure);
    made_.reserve(made_.size() + padding);
    const auto members = json_members(made_);
    key = canonical(members->at(0).value, key_memory_);
    time = has_time_ ? members->at(1).value : std::string_view();
    return {};
  }

  std::string_view key, time;  // JSON; no time: empty

 private:
  static std::vector<std::pair<std::string, std::string>> fields_of(const side_settings& s,
                                                                    const std::optional<std::string>& time_setting) {
    std::vector<std::pair<std::string, std::string>> all{{"key", s.key}};
    if (time_setting) all.emplace_back("time", *time_setting);
    return all;
  }

  const bool has_time_;
  std::optional<lua_expression> where_;
  const lua_mapping mapping_;
  std::string made_, key_memory_;
};

// ---------------------------------------------------------------------------------------------------------------

class join_step final : public step {
 public:
  join_step(const config::value& v, const component_context& context)
      : settings_(parse(v)),
        sides_{side_reader(settings_.sides[0], settings_.time, context.run_context.get()),
               side_reader(settings_.sides[1], settings_.time, context.run_context.get())},
        now_(context.now),
        name_(context.consumer + "/" + context.step),
        watermark_(settings_.delay, settings_.idle, settings_.by_side),
        held_(settings_.rules, settings_.limits, [this](std::string_view key, const held_event* left,
                                                        const held_event* right) { add_result(key, left, right); }) {}

  void process(batch& events, step_output& out) override {
    if (events.empty()) return;
    const std::int64_t wall = to_micros(now_());
    results_.clear();
    batch_ = &events;
    for (const event& e : events.events) take(e, wall, out);
    events.events.swap(results_);
    changed_ = true;
  }

  std::optional<timestamp> wake_at() const override {
    const std::optional<std::int64_t> due = next_due();
    const std::optional<std::int64_t> at = due ? watermark_.wake_at(*due) : std::nullopt;
    return at ? std::optional(from_micros(*at)) : std::nullopt;
  }

  void tick(timestamp now, batch& events, step_output&) override {
    const std::optional<std::int64_t> due = next_due();
    if (!due) return;
    begin_results(events);
    if (watermark_.tick(to_micros(now), *due)) held_.advance(watermark_.at());
    events.events.swap(results_);
    changed_ = true;
  }

  void finish(batch& events, step_output&) override {
    begin_results(events);
    held_.finish();
    events.events.swap(results_);
  }

  void restore(const std::vector<state_entry>& entries) override {
    for (const state_entry& entry : entries) {
      if (entry.key != watermark_row) continue;
      state_reader in(entry.value);
      watermark_.read(in);
      in.end();
    }
    held_.restore(entries);
  }

  std::vector<state_change> changes() override {
    std::vector<state_change> all;
    held_.append_changes(all);
    if (!std::exchange(changed_, false)) return all;
    std::string row;
    state_writer out(row);
    watermark_.write(out);
    all.push_back({{}, watermark_row, std::move(row)});
    return all;
  }

 private:
  // What time alone must bring: a side that is not waited for any longer, or something that leaves alone. What is only
  // held for partners may wait for the next event.
  std::optional<std::int64_t> next_due() const {
    const std::optional<std::int64_t> due = held_.next_due();
    return due && watermark_.held_back(*due) ? due : held_.next_lonely_due();
  }

  // No event causes these results, so they have no position.
  void begin_results(batch& events) {
    results_.clear();
    batch_ = &events;
    position_ = 0;
  }

  void take(const event& e, std::int64_t wall, step_output& out) {
    for (std::size_t side = 0; side < sides_.size(); ++side) {
      lua_outcome<bool> mine = sides_[side].is_mine(e);
      if (!mine.failure.empty()) return out.dead(e, std::move(mine.failure));
      if (mine.value) return take(e, side, wall, out);
    }
  }

  void take(const event& e, std::size_t side, std::int64_t wall, step_output& out) {
    side_reader& reader = sides_[side];
    std::string wrong = e.is_json() && !e.data.empty() ? check_json(e.data) : std::string();
    if (wrong.empty()) wrong = reader.read(e);
    std::int64_t time = to_micros(e.time);
    if (wrong.empty()) wrong = find_event_time(reader.time, wall, settings_.max_ahead, time);
    if (!wrong.empty()) return out.dead(e, std::move(wrong));

    position_ = e.position;
    watermark_.saw(side, time, wall);
    held_.advance(watermark_.at());
    held_event taken;
    taken.side = side;
    taken.time = time;
    taken.id = e.id;
    taken.source = e.source;
    append_ndjson(taken.payload, e);
    taken.payload.pop_back();  // the newline
    if (reader.key == "null") return held_.take_alone(reader.key, taken);
    switch (held_.take(reader.key, std::move(taken), watermark_.at())) {
      case join_buffer::outcome::taken:
        return;
      case join_buffer::outcome::late:
        return out.late(e);
      case join_buffer::outcome::too_many_events:
        return out.dead(e, "more than " + std::to_string(settings_.limits.events) + " events would be held (max_events)");
      case join_buffer::outcome::too_many_bytes:
        return out.dead(e, "the events held would need more than " +
                               format_size(static_cast<std::int64_t>(settings_.limits.bytes)) + " (max_bytes)");
      case join_buffer::outcome::too_many_partners:
        return out.dead(e, "it would be joined with more than " + std::to_string(settings_.limits.partners) +
                               " events (max_partners)");
      case join_buffer::outcome::too_large_results:
        return out.dead(e, "its results would be larger than " +
                               format_size(static_cast<std::int64_t>(settings_.limits.results)) + " (max_results)");
    }
  }

  void add_result(std::string_view key, const held_event* left, const held_event* right) {
    text_.assign("{\"key\":").append(key);
    append_side(0, left);
    append_side(1, right);
    text_ += '}';
    event e;
    e.data = batch_->keep(text_);
    e.id = batch_->keep(id_of(left, right));
    e.source = batch_->keep(name_);
    e.type = "join";
    e.key = batch_->keep(key_text(key));
    e.time = from_micros(std::max(left ? left->time : right->time, right ? right->time : left->time));
    e.position = position_;
    results_.push_back(e);
  }

  void append_side(std::size_t side, const held_event* e) {
    text_.append(",\"").append(settings_.sides[side].as).append("\":").append(e ? e->payload : "null");
  }

  // Of the two events' own names, so that it is the same whenever the pair is found again.
  std::string id_of(const held_event* left, const held_event* right) {
    text_.clear();
    state_writer out(text_);
    out.text(name_);
    for (const held_event* const e : {left, right}) {
      out.text(e ? e->source : std::string());
      out.text(e ? e->id : std::string());
    }
    return ids_.of(text_);
  }

  const settings settings_;
  std::array<side_reader, 2> sides_;
  const std::function<timestamp()> now_;
  const std::string name_;
  side_watermarks watermark_;
  join_buffer held_;
  bool changed_ = false;  // the watermark, since the last changes()

  // Of the call at hand.
  batch* batch_ = nullptr;
  std::vector<event> results_;
  std::int64_t position_ = 0;
  std::string text_;
  id_maker ids_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), parse), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<join_step>(settings, context);
        }));
}

}  // namespace penstock::runtime::components::join_step
