// steps: throttle - lets at most so many events through in a time; what is over that is dropped.
//
// By the clock, so a repeated batch may lose other events than the first time: for protecting what comes behind, not for
// results that must come out the same. Each key has its own allowance: `most` at once when it was quiet, and then one
// each `per` / `most`. Keys beyond max_keys push out the one that was used longest ago, whose allowance is then whole
// again. Nothing is kept over a restart.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::throttle_step {

namespace {

using clock = std::chrono::steady_clock;

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "throttle",
      .doc = "Lets at most so many events through in a time, for each key; the rest is dropped. Goes by the clock, so it "
             "does not do the same again when events are repeated.",
      .settings = {.name = "throttle",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "most",
                                 .type = field_type::integer,
                                 .doc = "How many.",
                                 .required = true,
                                 .example = "100",
                                 .minimum = 1},
                                {.name = "per",
                                 .type = field_type::duration,
                                 .doc = "In which time.",
                                 .fallback = "1s",
                                 .example = "1m",
                                 .minimum = 0.000001},
                                {.name = "key",
                                 .type = field_type::expression,
                                 .doc = "What is counted by itself; without it all events together.",
                                 .example = "event.customer"},
                                {.name = "then",
                                 .type = field_type::choice,
                                 .doc = "What becomes of the rest: drop (counted as filtered) or dead_letter.",
                                 .fallback = "drop",
                                 .choices = {"drop", "dead_letter"}},
                                {.name = "max_keys",
                                 .type = field_type::integer,
                                 .doc = "Keys remembered at most.",
                                 .fallback = "100000",
                                 .minimum = 1}},
                   .shorthand = "most"},
      .examples = {"throttle: {most: 100, per: 1s}", "throttle: {most: 5, per: 1m, key: event.customer, then: dead_letter}"},
  };
}

// The generic cell rate algorithm (ITU-T I.371): for each key the time at which its allowance will be whole again.
class allowances {
 public:
  allowances(std::int64_t most, std::chrono::nanoseconds per, std::size_t most_keys)
      : each_(std::max<std::chrono::nanoseconds>(per / most, std::chrono::nanoseconds{1})),
        all_(each_ * most),
        most_keys_(most_keys) {}

  bool take(const std::string& key, clock::time_point now) {
    used& u = of(key);
    const auto whole = std::max(u.whole_at, now);
    if (whole + each_ - now > all_) return false;
    u.whole_at = whole + each_;
    return true;
  }

 private:
  struct used {
    std::string key;
    clock::time_point whole_at{};
  };

  used& of(const std::string& key) {
    if (const auto known = places_.find(key); known != places_.end()) {
      by_use_.splice(by_use_.end(), by_use_, known->second);
      return *known->second;
    }
    if (places_.size() >= most_keys_) {
      places_.erase(by_use_.front().key);
      by_use_.pop_front();
    }
    by_use_.push_back({key, {}});
    places_.emplace(key, std::prev(by_use_.end()));
    return by_use_.back();
  }

  const std::chrono::nanoseconds each_, all_;
  const std::size_t most_keys_;
  std::list<used> by_use_;  // the one used longest ago first
  std::unordered_map<std::string, std::list<used>::iterator> places_;
};

class throttle_step final : public step {
 public:
  throttle_step(const config::value& v, const std::string* run_context)
      : key_(v.value("key", "''"), run_context),
        bury_(v.at("then").get<std::string>() == "dead_letter"),
        rate_(std::to_string(v.at("most").get<std::int64_t>()) + " per " +
              format_duration(std::chrono::nanoseconds(v.at("per").get<std::int64_t>()))),
        allowances_(v.at("most").get<std::int64_t>(), std::chrono::nanoseconds(v.at("per").get<std::int64_t>()),
                    v.at("max_keys").get<std::size_t>()) {}

  void process(batch& events, step_output& out) override {
    const auto now = clock::now();
    std::erase_if(events.events, [&](const event& e) {
      lua_outcome<std::string> key = key_.text_of(e);
      if (!key.failure.empty()) {
        out.dead(e, "key: " + key.failure);
        return true;
      }
      if (allowances_.take(key.value, now)) return false;
      if (bury_) out.dead(e, "over the rate of " + rate_);
      return true;
    });
  }

 private:
  const lua_expression key_;
  const bool bury_;
  const std::string rate_;
  allowances allowances_;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<throttle_step>(settings, context.run_context.get());
        }));
}

}  // namespace penstock::runtime::components::throttle_step
