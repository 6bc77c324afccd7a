// steps: alert - one event to a named output when enough events matched within a time; the events themselves pass.
//
// For each key the times of the last `threshold` matches are kept. When the oldest of them is less than `within` before
// the newest, the threshold is reached: one alert, and then none for `every`. All by the events' own time, so that a
// repeated input gives the same alerts. The state is committed with the cursor (state key: the event's key). Keys beyond
// max_keys push out the one that matched longest ago.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <iterator>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::alert_step {

namespace {

constexpr std::size_t most_sample = 4096;  // bytes of payload in an alert

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "alert",
      .doc = "Sends one event to an output when so many events have matched within a time, and is then silent for a while. "
             "All events go on unchanged.",
      .settings =
          {.name = "alert",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "when",
                 .type = field_type::expression,
                 .doc = "Which events count.",
                 .required = true,
                 .example = "event.status >= 500"},
                {.name = "threshold",
                 .type = field_type::integer,
                 .doc = "How many make an alert.",
                 .fallback = "1",
                 .example = "100",
                 .minimum = 1,
                 .maximum = 10'000},
                {.name = "within",
                 .type = field_type::duration,
                 .doc = "In which time, by the events' own.",
                 .fallback = "1m",
                 .example = "60s",
                 .minimum = 0.000001},
                {.name = "every",
                 .type = field_type::duration,
                 .doc = "At most one alert in this time; without it the same as `within`.",
                 .example = "5m"},
                {.name = "key",
                 .type = field_type::expression,
                 .doc = "What is counted by itself; without it all events together.",
                 .example = "event.host"},
                {.name = "output",
                 .type = field_type::name,
                 .doc = "The output that alerts go to; `outputs` says where it leads.",
                 .fallback = "alerts"},
                {.name = "max_keys",
                 .type = field_type::integer,
                 .doc = "Keys remembered at most.",
                 .fallback = "100000",
                 .minimum = 1}}},
      .examples = {"alert: {when: event.status >= 500, threshold: 100, within: 60s, every: 5m, key: event.host}",
                   "alert: {when: event.level == 'fatal', output: pager}"},
      .outputs = [](const config::value& settings) {
        const bool known = settings.is_object() && settings.contains("output") && settings.at("output").is_string();
        return known ? std::vector<std::string>{settings.at("output").get<std::string>()} : std::vector<std::string>{};
      },
      .state_settings = {"key"},
  };
}

// What is known of one key. Times are microseconds since 1970.
struct history {
  std::string key;
  std::int64_t used = 0;                     // the how manieth match was its last
  std::int64_t matched = 0;                  // since the last alert
  std::optional<std::int64_t> alerted_at{};
  std::deque<std::int64_t> times{};          // of the last matches, in the order in which they came

  // Times as what lies between them, because these are short.
  std::string as_text() const {
    nlohmann::json text{{"used", used}, {"matched", matched}, {"gaps", nlohmann::json::array()}};
    if (alerted_at) text["alerted_at"] = *alerted_at;
    std::int64_t before = 0;
    for (const std::int64_t t : times) {
      text["gaps"].push_back(t - before);
      before = t;
    }
    return text.dump();
  }

  static history of(const state_entry& entry) {
    try {
      const auto text = nlohmann::json::parse(entry.value);
      history h{entry.key, text.at("used"), text.at("matched")};
      if (text.contains("alerted_at")) h.alerted_at = text["alerted_at"].get<std::int64_t>();
      std::int64_t at = 0;
      for (const auto& gap : text.at("gaps")) h.times.push_back(at += gap.get<std::int64_t>());
      return h;
    } catch (const nlohmann::json::exception&) {
      throw std::runtime_error("the stored state of key '" + entry.key + "' is damaged: " + excerpt(entry.value));
    }
  }
};

struct settings {
  std::size_t threshold;
  std::int64_t within_us, every_us;
  std::string output;
  std::size_t max_keys;
};

settings parse(const config::value& v) {
  const std::int64_t within = v.at("within").get<std::int64_t>();
  return {v.at("threshold").get<std::size_t>(), within / 1000, v.value("every", within) / 1000,
          v.at("output").get<std::string>(), v.at("max_keys").get<std::size_t>()};
}

class alert_step final : public step {
 public:
  alert_step(const config::value& v, const component_context& context)
      : settings_(parse(v)),
        name_(context.step),
        when_(v.at("when").get<std::string>(), context.run_context.get()),
        key_(v.value("key", "''"), context.run_context.get()) {}

  void process(batch& events, step_output& out) override {
    std::erase_if(events.events, [&](const event& e) {
      lua_outcome<bool> matches = when_.truth(e);
      lua_outcome<std::string> key;
      if (matches.failure.empty() && matches.value) key = key_.text_of(e);
      std::string failure = matches.failure.empty() ? std::move(key.failure) : std::move(matches.failure);
      if (!failure.empty()) {
        out.dead(e, std::move(failure));
        return true;
      }
      if (matches.value) count(e, key.value, events, out);
      return false;
    });
  }

  void restore(const std::vector<state_entry>& entries) override {
    std::vector<history> known;
    for (const state_entry& entry : entries) known.push_back(history::of(entry));
    std::sort(known.begin(), known.end(), [](const history& a, const history& b) { return a.used < b.used; });
    for (history& h : known) {
      matches_ = h.used;
      while (h.times.size() > settings_.threshold) h.times.pop_front();
      add(std::move(h));
    }
  }

  std::vector<state_change> changes() override {
    std::vector<state_change> all;
    for (const std::string& key : std::exchange(changed_, {})) {
      const auto known = places_.find(key);
      std::optional<std::string> value;
      if (known != places_.end()) value = known->second->as_text();
      all.push_back({{}, key, std::move(value)});
    }
    return all;
  }

 private:
  void count(const event& e, const std::string& key, batch& memory, step_output& out) {
    history& h = of(key);
    const std::int64_t at = to_micros(e.time);
    h.used = ++matches_;
    ++h.matched;
    h.times.push_back(at);
    if (h.times.size() > settings_.threshold) h.times.pop_front();
    changed_.insert(key);
    if (h.times.size() < settings_.threshold || !near(h.times.front(), at, settings_.within_us)) return;
    if (h.alerted_at && near(*h.alerted_at, at, settings_.every_us)) return;
    out.to_output(alert_of(e, h, memory), settings_.output);
    h.alerted_at = at;
    h.matched = 0;
  }

  // Also for times that come in disorder: one that lies far ahead must not silence what follows.
  static bool near(std::int64_t a, std::int64_t b, std::int64_t within) { return a - b < within && b - a < within; }

  event alert_of(const event& e, const history& h, batch& memory) const {
    std::string text = "{\"alert\":";
    append_json_string(text, name_);
    text += ",\"key\":";
    append_json_string(text, h.key);
    text += ",\"count\":" + std::to_string(h.times.size());
    text += ",\"matched_since_last\":" + std::to_string(h.matched);
    text += ",\"first_time\":\"" + format_time(from_micros(h.times.front()));
    text += "\",\"last_time\":\"" + format_time(e.time) + "\",\"sample\":";
    append_sample(text, e);
    text += '}';
    event made = e;
    made.id = memory.keep(std::string(e.id) + "/alert");
    made.type = "alert";
    made.key = memory.keep(h.key);
    made.data = memory.keep(text);
    made.datacontenttype = {};
    return made;
  }

  // The payload as it is, or the beginning of its text.
  static void append_sample(std::string& text, const event& e) {
    std::string line;
    append_ndjson(line, e);
    line.pop_back();
    const bool json = !e.is_json() || e.data.empty() || check_json(e.data).empty();
    if (json && line.size() <= most_sample)
      text += line;
    else
      append_json_string(text, excerpt(line, most_sample));
  }

  // Of this key, as the one used last.
  history& of(const std::string& key) {
    if (const auto known = places_.find(key); known != places_.end()) {
      by_use_.splice(by_use_.end(), by_use_, known->second);
      return *known->second;
    }
    return add({key});
  }

  history& add(history h) {
    if (places_.size() >= settings_.max_keys) {
      changed_.insert(by_use_.front().key);
      places_.erase(by_use_.front().key);
      by_use_.pop_front();
    }
    by_use_.push_back(std::move(h));
    places_.emplace(by_use_.back().key, std::prev(by_use_.end()));
    return by_use_.back();
  }

  const settings settings_;
  const std::string name_;
  const lua_expression when_;
  const lua_expression key_;
  std::list<history> by_use_;  // the one that matched longest ago first
  std::unordered_map<std::string, std::list<history>::iterator> places_;
  std::set<std::string> changed_;  // keys, since the last commit
  std::int64_t matches_ = 0;       // of all keys
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<alert_step>(settings, context);
        }));
}

}  // namespace penstock::runtime::components::alert_step
