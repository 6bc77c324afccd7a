// steps: window - sums events up by key and window: by time (tumbling, sliding, sessions) or by count.
//
// The step takes events in and gives results out. The watermark (watermark.hpp) says how far event time has come; it is
// moved before each event, so results leave at the event that moved the watermark past the window's end, wherever batches
// begin and end, ordered by end and key. An event at that moment too late for every window of its own goes to late().
// What windows hold and how they are corrected: key_windows.hpp. What is worked out: aggregates.hpp.
//
// - Determinism: results follow from the events alone, with one exception. `max_ahead` compares an event's time with the
//   wall clock, because no other time says what the future is: the sender may have set meta.time itself. An event that was
//   refused, and comes again after a crash once the clock has passed its border, is then taken. With `clock: processing`
//   only tick() closes windows, whose time is stored before the results leave: an event repeated after a crash may fall
//   into a later window, but no result leaves twice in two versions.
// - State: one row for each window that a batch changed, further rows with what was added to its lists, and one for the
//   watermark; all rows of a window go when it is dropped. A stop keeps open windows; finish() lets their results leave
//   and keeps them, so that a flow that goes on corrects them (revision 2) instead of beginning anew.
// - Bounds: windows held, values in one window's list, bytes of keys and kept values. What goes beyond is a dead letter,
//   but still moves the watermark, so that windows go on closing and make room.
#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>
#include <simdjson.h>

#include "config/time.hpp"
#include "runtime/components/all.hpp"
#include "runtime/components/event_clock.hpp"
#include "runtime/key_windows.hpp"
#include "runtime/lua.hpp"
#include "runtime/watermark.hpp"

namespace penstock::runtime::components::window_step {

namespace {

constexpr std::int64_t most_spans = 10'000;  // windows that one event may belong to
constexpr const char* watermark_row = "m";

// ---- the record

config::field required(config::field f) {
  f.required = true;
  return f;
}

config::field not_with_count(config::field f) {
  f.excludes = "count";
  return f;
}

config::field aggregate_field() {
  using config::field_type;
  config::field one{.name = "aggregate",
                    .type = field_type::object,
                    .doc = "count, or one of these with an expression, as in {max: event.total}. nil is skipped.",
                    .example = "{max: event.total}"};
  const auto add = [&one](const char* name, const char* doc) {
    one.children.push_back({.name = name, .type = field_type::expression, .doc = doc, .example = "event.total"});
    one.exactly_one.emplace_back(name);
  };
  one.children.push_back({.name = "of_events",
                          .type = field_type::choice,
                          .doc = "count: the number of events. Written short: `events: count`.",
                          .choices = {"count"}});
  one.exactly_one.emplace_back("of_events");
  one.shorthand = "of_events";
  add("count", "For how many events this is true (neither nil nor false).");
  add("first", "The value of the earliest event; of equal times the one that arrived first.");
  add("last", "The value of the latest event; of equal times the one that arrived last.");
  add("min", "The smallest number.");
  add("max", "The largest number.");
  add("sum", "The sum of the numbers; a whole number when all are whole and it fits into 64 bits.");
  add("mean", "The mean of the numbers.");
  add("stddev", "The standard deviation of a sample (n - 1); null for fewer than two numbers.");
  add("distinct", "How many different values, exactly.");
  add("collect", "The list of the values, in order of arrival.");
  one.children.push_back(
      {.name = "percentile",
       .type = field_type::object,
       .doc = "Exact, with linear interpolation between the two nearest numbers.",
       .example = "{of: event.ms, at: 95}",
       .children = {{.name = "of",
                     .type = field_type::expression,
                     .doc = "The number.",
                     .required = true,
                     .example = "event.ms"},
                    {.name = "at",
                     .type = field_type::number,
                     .doc = "Which percentile: 50 is the median.",
                     .required = true,
                     .example = "95",
                     .minimum = 0,
                     .maximum = 100}}});
  one.exactly_one.emplace_back("percentile");
  return one;
}

std::vector<config::field> shape_fields() {
  using config::field_type;
  return {
      duration_field("tumbling",
                     "One window after the other, of this length; they begin at multiples of it since 1970 (UTC).", "",
                     "1h", shortest_s),
      {.name = "sliding",
       .type = field_type::object,
       .doc = "Windows that overlap: of this size, a new one every so often.",
       .example = "{size: 1h, every: 5m}",
       .children = {required(duration_field("size", "How long each window is.", "", "1h", shortest_s)),
                    required(duration_field("every", "How far their begins lie apart; not more than size.", "", "5m",
                                            shortest_s))}},
      {.name = "session",
       .type = field_type::object,
       .doc = "Events of a key that follow each other by less than gap.",
       .example = "{gap: 10m}",
       .children = {required(duration_field("gap", "How long nothing comes before a session has ended.", "", "10m",
                                            shortest_s)),
                    duration_field("longest",
                                   "A session that becomes longer ends there, and the next event begins another.", "24h",
                                   "8h", shortest_s)},
       .shorthand = "gap"},
      {.name = "count",
       .type = field_type::integer,
       .doc = "Windows of so many events of a key, in order of arrival.",
       .example = "100",
       .minimum = 1},
  };
}

std::vector<config::field> time_fields() {
  using config::field_type;
  return {
      not_with_count(time_field()),
      not_with_count({.name = "clock",
                      .type = field_type::choice,
                      .doc = "event: windows follow the events' own times. processing: the wall clock when they are "
                             "processed; delay, lateness, idle and max_ahead then mean nothing.",
                      .fallback = "event",
                      .choices = {"event", "processing"}}),
      not_with_count(delay_field()),
      not_with_count(duration_field(
          "lateness",
          "How long a closed window is kept. An event that comes for it in this time makes the corrected result leave at "
          "once, with the next revision; later ones go to the output late.",
          "0s", "6h", 0)),
      not_with_count(idle_field()),
      not_with_count(max_ahead_field()),
  };
}

std::vector<config::field> fields() {
  using config::field_type;
  std::vector<config::field> all = shape_fields();
  all.push_back({.name = "key",
                 .type = field_type::expression,
                 .doc = "Events with the same value are summed up together; any JSON value, also a list. Without it, or "
                        "where it is nil, all together.",
                 .example = "event.customer"});
  for (config::field& f : time_fields()) all.push_back(std::move(f));
  all.push_back({.name = "aggregates",
                 .type = field_type::map,
                 .doc = "What is worked out: field of the result and how.",
                 .fallback = "{count: count}",
                 .example = "{events: count, highest: {max: event.total}}",
                 .children = {aggregate_field()},
                 .minimum = 1,
                 .keys_are_names = true});
  all.push_back({.name = "max_keys",
                 .type = field_type::integer,
                 .doc = "Windows held at most in all: open ones and, within lateness, closed ones. With count, keys.",
                 .fallback = "100000",
                 .minimum = 1});
  all.push_back({.name = "max_values",
                 .type = field_type::integer,
                 .doc = "Values that percentile, distinct and collect keep at most in one window.",
                 .fallback = "100000",
                 .minimum = 1});
  all.push_back({.name = "max_bytes",
                 .type = field_type::size,
                 .doc = "Memory for keys and kept values (first, last, percentile, distinct, collect) in all.",
                 .fallback = "256MiB",
                 .minimum = 1024});
  return all;
}

config::component_spec spec() {
  return {
      .kind = config::component_kind::step,
      .name = "window",
      .doc = "Sums events up by key and window of time or count; the results go on in place of the events, each once its "
             "window has ended. Survives restarts.",
      .settings = {.name = "window",
                   .type = config::field_type::object,
                   .doc = "",
                   .example = "{tumbling: 1h}",
                   .children = fields(),
                   .exactly_one = {"tumbling", "sliding", "session", "count"}},
      .examples = {"window: {tumbling: 5m}",
                   "window: {tumbling: 1h, key: event.net, time: event.time, lateness: 6h, aggregates: {events: count, "
                   "highest: {max: event.mag}, mean: {mean: event.mag}}}",
                   "window: {sliding: {size: 1h, every: 5m}, key: event.host, aggregates: {p95: {percentile: {of: "
                   "event.ms, at: 95}}}}",
                   "window: {session: {gap: 10m}, key: event.user, clock: processing, aggregates: {pages: {collect: "
                   "event.page}}}",
                   "window: {count: 100, key: event.sensor, aggregates: {mean: {mean: event.value}, off: {stddev: "
                   "event.value}}}"},
      .outputs = [](const config::value&) { return std::vector<std::string>{"late"}; },
      .state_settings = {"tumbling", "sliding", "session", "count", "key", "time", "clock", "aggregates"},
  };
}

// ---- settings

window_shape shape_of(const config::value& v) {
  window_shape shape;
  if (v.contains("tumbling")) {
    shape.size = shape.every = micros_of(v.at("tumbling"));
  } else if (v.contains("sliding")) {
    shape.size = micros_of(v.at("sliding").at("size"));
    shape.every = micros_of(v.at("sliding").at("every"));
    if (shape.every > shape.size)
      throw std::runtime_error("sliding: `every` is longer than `size`, so some events would be in no window");
    if (shape.size / shape.every > most_spans)
      throw std::runtime_error("sliding: an event would belong to more than 10000 windows; make `every` longer");
  } else if (v.contains("session")) {
    shape.is = window_shape::kind::session;
    shape.gap = micros_of(v.at("session").at("gap"));
    shape.longest = micros_of(v.at("session").at("longest"));
    if (shape.gap > shape.longest) throw std::runtime_error("session: `gap` is longer than `longest`");
  } else {
    shape.is = window_shape::kind::count;
    shape.count = v.at("count").get<std::int64_t>();
  }
  return shape;
}

aggregate_kind kind_of(const std::string& word) {
  using enum aggregate_kind;
  static const std::map<std::string, aggregate_kind> all{
      {"of_events", events}, {"count", count}, {"first", first},   {"last", last},         {"min", min},
      {"max", max},          {"sum", sum},     {"mean", mean},     {"stddev", stddev},     {"distinct", distinct},
      {"collect", collect},  {"percentile", percentile}};
  return all.at(word);
}

std::vector<aggregate_use> uses_of(const config::value& aggregates) {
  std::vector<aggregate_use> uses;
  for (const auto& [name, how] : aggregates.items()) {
    for (const char* const taken : {"key", "from", "until", "sequence", "revision"}) {
      if (name == taken) throw std::runtime_error("aggregates: the result has a field '" + name + "' already");
    }
    const config::value& what = how.begin().value();
    aggregate_use use{name, kind_of(how.begin().key())};
    if (use.kind == aggregate_kind::percentile) {
      use.expression = what.at("of").get<std::string>();
      use.at = what.at("at").get<double>();
    } else if (use.kind != aggregate_kind::events) {
      use.expression = what.get<std::string>();
    }
    uses.push_back(std::move(use));
  }
  return uses;
}

struct settings {
  window_shape shape;
  bool processing_clock;  // also that of count windows: none
  std::optional<std::string> key, time;
  std::int64_t delay, lateness, idle, max_ahead;
  window_limits limits;
  std::vector<aggregate_use> aggregates;
};

settings parse(const config::value& v) {
  const auto text = [&v](const char* name) {
    return v.contains(name) ? std::optional(v.at(name).get<std::string>()) : std::nullopt;
  };
  settings s{shape_of(v),
             v.at("clock") == "processing",
             text("key"),
             text("time"),
             micros_of(v.at("delay")),
             micros_of(v.at("lateness")),
             micros_of(v.at("idle")),
             micros_of(v.at("max_ahead")),
             {v.at("max_keys").get<std::size_t>(), v.at("max_values").get<std::size_t>(),
              v.at("max_bytes").get<std::size_t>()},
             uses_of(v.at("aggregates"))};
  if (s.processing_clock && s.time)
    throw std::runtime_error("`time` and `clock: processing` exclude each other; give one of them");
  if (s.processing_clock) s.lateness = 0;
  const bool counts = s.shape.is == window_shape::kind::count;
  if (counts && static_cast<std::size_t>(s.shape.count) > s.limits.values_per_window &&
      aggregate_plan(s.aggregates).has_lists())
    throw std::runtime_error("a window of `count` events cannot keep all their values: raise max_values");
  return s;
}

// ---- values

using values = std::vector<aggregate_value>;

// The expressions of a step, evaluated together: the payload is parsed once.
class expressions {
 public:
  expressions(const settings& s, const aggregate_plan& plan, const std::string* run_context)
      : has_key_(s.key), has_time_(s.time), mapping_(fields_of(s, plan), run_context) {
    read.resize(plan.columns().size());
  }

  // What is wrong, or empty. The results stay until the next call.
  std::string evaluate(const event& e) {
    key = time = "null";
    if (!has_key_ && !has_time_ && read.empty()) return {};
    made_.clear();
    lua_outcome<bool> mapped = mapping_.apply(e, made_);
    if (!mapped.failure.empty()) return std::move(mapped.failure);
    made_.reserve(made_.size() + simdjson::SIMDJSON_PADDING);
    split();
    return {};
  }

  std::string_view key, time;  // JSON
  values read;                 // nil is empty

 private:
  static std::vector<std::pair<std::string, std::string>> fields_of(const settings& s, const aggregate_plan& plan) {
    std::vector<std::pair<std::string, std::string>> all;
    if (s.key) all.emplace_back("key", *s.key);
    if (s.time) all.emplace_back("time", *s.time);
    all.insert(all.end(), plan.columns().begin(), plan.columns().end());
    return all;
  }

  // Throws simdjson_error only if the mapping did not write JSON.
  void split() {
    const simdjson::padded_string_view text(made_.data(), made_.size(), made_.capacity());
    simdjson::ondemand::document document = parser_.iterate(text);
    std::size_t column = 0;
    bool key_is_next = has_key_, time_is_next = has_time_;
    for (simdjson::ondemand::field field : document.get_object()) {
      const std::string_view json = simdjson::to_json_string(field.value());
      if (std::exchange(key_is_next, false)) {
        key = json;
      } else if (std::exchange(time_is_next, false)) {
        time = json;
      } else {
        read[column++].json = json == "null" ? std::string_view() : json;
      }
    }
  }

  const bool has_key_, has_time_;
  const lua_mapping mapping_;
  std::string made_;
  simdjson::ondemand::parser parser_;
};

// ---------------------------------------------------------------------------------------------------------------

class window_step final : public step {
 public:
  window_step(const config::value& v, const component_context& context)
      : settings_(parse(v)),
        plan_(settings_.aggregates),
        expressions_(settings_, plan_, context.run_context.get()),
        now_(context.now),
        name_(context.consumer + "/" + context.step),
        watermark_(settings_.delay, settings_.idle),
        windows_(settings_.shape, plan_, settings_.lateness, settings_.limits,
                 [this](const key_window& w) { add_result(w); }) {}

  void process(batch& events, step_output& out) override {
    if (events.empty()) return;
    const std::int64_t wall = to_micros(now_());
    clock_ = std::max(clock_, wall);
    watermark_.heard(wall);
    results_.clear();
    batch_ = &events;
    for (const event& e : events.events) take(e, wall, out);
    events.events.swap(results_);
    changed_ = true;
  }

  std::optional<timestamp> wake_at() const override {
    const std::optional<std::int64_t> due = windows_.next_end();
    if (!due || counts()) return std::nullopt;
    if (settings_.processing_clock) return from_micros(*due);
    const std::optional<std::int64_t> at = watermark_.wake_at(*due);
    return at ? std::optional(from_micros(*at)) : std::nullopt;
  }

  void tick(timestamp now, batch& events, step_output&) override {
    const std::optional<std::int64_t> due = windows_.next_end();
    if (!due || counts()) return;
    const std::int64_t wall = to_micros(now);
    begin_results(events);
    if (settings_.processing_clock) {
      clock_ = std::max(clock_, wall);
      windows_.advance(clock_);
    } else if (watermark_.tick(wall, *due)) {
      windows_.advance(watermark_.at());
    }
    events.events.swap(results_);
    changed_ = true;
  }

  void finish(batch& events, step_output&) override {
    begin_results(events);
    windows_.finish();
    events.events.swap(results_);
  }

  void restore(const std::vector<state_entry>& entries) override {
    for (const state_entry& entry : entries) {
      if (entry.key != watermark_row) continue;
      state_reader in(entry.value);
      clock_ = in.integer();
      watermark_.read(in);
      in.end();
    }
    windows_.restore(entries, now());
  }

  std::vector<state_change> changes() override {
    std::vector<state_change> all;
    windows_.append_changes(all);
    if (!std::exchange(changed_, false)) return all;
    std::string row;
    state_writer out(row);
    out.integer(clock_);
    watermark_.write(out);
    all.push_back({{}, watermark_row, std::move(row)});
    return all;
  }

 private:
  bool counts() const { return settings_.shape.is == window_shape::kind::count; }
  std::int64_t now() const { return settings_.processing_clock ? clock_ : watermark_.at(); }

  // No event causes these results, so they have no position.
  void begin_results(batch& events) {
    results_.clear();
    batch_ = &events;
    position_ = 0;
  }

  void take(const event& e, std::int64_t wall, step_output& out) {
    std::string wrong = expressions_.evaluate(e);
    if (wrong.empty()) wrong = plan_.check(expressions_.read);
    std::int64_t time = to_micros(e.time);
    if (wrong.empty() && !counts()) wrong = find_time(wall, time);
    if (!wrong.empty()) return out.dead(e, std::move(wrong));

    position_ = e.position;
    if (!counts() && !settings_.processing_clock) {
      watermark_.saw(time);
      windows_.advance(watermark_.at());
    }
    const std::string_view key = canonical(expressions_.key, key_memory_);
    switch (windows_.take(key, time, expressions_.read, now())) {
      case key_windows::outcome::taken:
        return;
      case key_windows::outcome::late:
        return out.late(e);
      case key_windows::outcome::too_many_windows:
        return out.dead(e, "there would be more than " + std::to_string(settings_.limits.windows) +
                               (counts() ? " keys (max_keys)" : " windows, open or kept for late events (max_keys)"));
      case key_windows::outcome::too_many_values:
        return out.dead(e, "its window would keep more than " + std::to_string(settings_.limits.values_per_window) +
                               " values (max_values)");
      case key_windows::outcome::too_many_bytes:
        return out.dead(e, "keys and kept values would need more than " +
                               format_size(static_cast<std::int64_t>(settings_.limits.bytes)) + " (max_bytes)");
    }
  }

  // `time` comes in as the event's own. Returns what is wrong, or empty.
  std::string find_time(std::int64_t wall, std::int64_t& time) const {
    if (settings_.processing_clock) {
      time = clock_;
      return {};
    }
    return find_event_time(settings_.time ? expressions_.time : std::string_view(), wall, settings_.max_ahead, time);
  }

  void add_result(const key_window& w) {
    text_.assign("{\"key\":").append(*w.key);
    if (counts()) {
      text_ += ",\"sequence\":" + std::to_string(w.from);
    } else {
      text_.append(",\"from\":\"").append(from_text_.of(w.from));
      text_.append("\",\"until\":\"").append(until_text_.of(w.until)) += '"';
    }
    text_ += ",\"revision\":" + std::to_string(w.revision);
    plan_.append_result(text_, w.state);
    text_ += '}';

    event e;
    e.data = batch_->keep(text_);
    text_.assign(name_).append("\n").append(*w.key);
    text_ += "\n" + std::to_string(w.from) + "\n" + std::to_string(w.revision);
    e.id = batch_->keep(ids_.of(text_));
    e.source = batch_->keep(name_);
    e.type = "window";
    e.key = batch_->keep(key_text(*w.key));
    e.time = from_micros(w.until);
    e.position = position_;
    results_.push_back(e);
  }

  // Most results that leave together have the same times.
  struct time_text {
    std::int64_t at = 0;
    std::string text{};

    const std::string& of(std::int64_t time) {
      if (text.empty() || time != at) text = format_time(from_micros(time));
      at = time;
      return text;
    }
  };

  const settings settings_;
  const aggregate_plan plan_;
  expressions expressions_;
  const std::function<timestamp()> now_;
  const std::string name_;
  watermark watermark_;
  std::int64_t clock_ = 0;  // with `clock: processing`: how far it has come; it never goes back
  key_windows windows_;
  bool changed_ = false;  // watermark or clock, since the last changes()

  // Of the call at hand.
  batch* batch_ = nullptr;
  std::vector<event> results_;
  std::int64_t position_ = 0;
  std::string text_, key_memory_;
  time_text from_text_, until_text_;
  id_maker ids_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), parse), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<window_step>(settings, context);
        }));
}

}  // namespace penstock::runtime::components::window_step
