// steps: dedupe - drops events whose key was seen before, across batches and restarts.
//
// The keys and when each was first seen are held in memory and committed with the cursor (state key: the
// event's key, value: microseconds since 1970), so after a crash the step knows exactly the events that were
// passed on. Bounded by time and by count, the oldest forgotten first. A duplicate does not prolong its key's
// time.
#include <algorithm>
#include <charconv>
#include <deque>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::dedupe_step {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "dedupe",
      .doc = "Drops events whose key was seen before; they are counted as duplicates. Survives restarts.",
      .settings =
          {.name = "dedupe",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "key",
                 .type = field_type::expression,
                 .doc = "What makes two events the same. An event whose key is nil is never a duplicate.",
                 .fallback = "meta.id",
                 .example = "event.order_id"},
                {.name = "within",
                 .type = field_type::duration,
                 .doc = "How long a key is remembered after it was first seen.",
                 .fallback = "24h",
                 .example = "1h"},
                {.name = "max_keys",
                 .type = field_type::integer,
                 .doc = "Keys remembered at most; beyond that the oldest are forgotten (some 150 bytes of "
                        "memory each).",
                 .fallback = "1000000",
                 .minimum = 1}},
           .shorthand = "key"},
      .examples = {"dedupe: event.order_id", "dedupe: {key: event.order_id, within: 1h}", "dedupe: {}"},
      .state_settings = {"key"},
  };
}

// The keys seen, oldest first, with a record of what changed since the last commit.
class seen_keys {
 public:
  seen_keys(std::int64_t within_us, std::size_t most) : within_us_(within_us), most_(most) {}

  void restore(const std::vector<state_entry>& entries) {
    std::vector<std::pair<std::int64_t, std::string>> known;
    for (const state_entry& entry : entries) known.emplace_back(seen_at(entry), entry.key);
    std::sort(known.begin(), known.end());
    for (auto& [at, key] : known) insert(std::move(key), at);
  }

  // False when it is there already.
  bool add(const std::string& key, std::int64_t now) {
    if (times_.contains(key)) return false;
    insert(key, now);
    changes_.push_back({{}, key, std::to_string(now)});
    while (order_.size() > most_) forget_oldest();
    return true;
  }

  void forget_older(std::int64_t now) {
    while (!order_.empty() && now - order_.front()->second >= within_us_) forget_oldest();
  }

  std::vector<state_change> take_changes() { return std::exchange(changes_, {}); }

 private:
  using seen_key = std::pair<const std::string, std::int64_t>;  // its address in the map is stable

  static std::int64_t seen_at(const state_entry& entry) {
    std::int64_t at = 0;
    const char* const end = entry.value.data() + entry.value.size();
    const auto [read_to, wrong] = std::from_chars(entry.value.data(), end, at);
    if (wrong != std::errc() || read_to != end)
      throw std::runtime_error("the stored state of key '" + entry.key + "' is damaged: '" + entry.value +
                               "'");
    return at;
  }

  void insert(std::string key, std::int64_t at) {
    order_.push_back(&*times_.emplace(std::move(key), at).first);
  }

  void forget_oldest() {
    const seen_key& oldest = *order_.front();
    order_.pop_front();
    changes_.push_back({{}, oldest.first, std::nullopt});
    times_.erase(times_.find(oldest.first));
  }

  const std::int64_t within_us_;
  const std::size_t most_;
  std::unordered_map<std::string, std::int64_t> times_;
  std::deque<const seen_key*> order_;
  std::vector<state_change> changes_;
};

class dedupe_step final : public step {
 public:
  dedupe_step(const config::value& settings, const component_context& context)
      : now_(context.now),
        key_(settings.at("key").get<std::string>(), context.run_context.get()),
        seen_(settings.at("within").get<std::int64_t>() / 1000, settings.at("max_keys").get<std::size_t>()) {}

  void process(batch& events, step_output& out) override {
    const std::int64_t now = to_micros(now_());
    seen_.forget_older(now);
    std::erase_if(events.events, [&](const event& e) {
      lua_outcome<std::string> key = key_.text_of(e);
      if (!key.failure.empty()) {
        out.dead(e, std::move(key.failure));
        return true;
      }
      if (key.value.empty() || seen_.add(key.value, now)) return false;
      out.duplicate(e);
      return true;
    });
  }

  void restore(const std::vector<state_entry>& entries) override { seen_.restore(entries); }
  std::vector<state_change> changes() override { return seen_.take_changes(); }

 private:
  const std::function<timestamp()> now_;
  const lua_expression key_;
  seen_keys seen_;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<dedupe_step>(settings, context);
        }));
}

}  // namespace penstock::runtime::components::dedupe_step
