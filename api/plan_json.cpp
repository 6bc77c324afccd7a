// What a change would do, as JSON.
#include <nlohmann/json.hpp>

#include "api/json.hpp"
#include "scheduler/plan.hpp"

namespace penstock::api {

namespace {

std::string_view token(scheduler::part_change change) {
  switch (change) {
    case scheduler::part_change::added: return "added";
    case scheduler::part_change::changed: return "changed";
    case scheduler::part_change::removed: return "removed";
  }
  return {};
}

std::string_view token(scheduler::clock_shift shift) {
  return shift == scheduler::clock_shift::skipped ? "skipped" : "repeated";
}

// A side that has no such value has no such member either, because null is a value.
json fields_json(const std::vector<config::field_change>& fields) {
  json all = json::array();
  for (const auto& f : fields) {
    json one{{"path", f.path}};
    if (!f.before.is_discarded()) one["before"] = f.before;
    if (!f.after.is_discarded()) one["after"] = f.after;
    all.push_back(std::move(one));
  }
  return all;
}

json parts_json(const std::vector<scheduler::planned_part>& parts) {
  json all = json::array();
  for (const auto& p : parts) {
    all.push_back({{"name", p.name}, {"change", token(p.change)}, {"effect", p.effect}, {"losses", p.losses}, {"fields", fields_json(p.fields)}});
  }
  return all;
}

}  // namespace

json to_json(const scheduler::plan& plan) {
  return {{"effect", plan.effect.empty() ? json(nullptr) : json(plan.effect)},
          {"topics", parts_json(plan.topics)},
          {"flows", parts_json(plan.flows)},
          {"jobs", parts_json(plan.jobs)},
          {"settings", fields_json(plan.settings)},
          {"untouched", {{"topics", plan.same_topics}, {"flows", plan.same_flows}, {"jobs", plan.same_jobs}}}};
}

json to_json(const scheduler::planned_schedule& schedule) {
  json next = json::array();
  for (const auto& firing : schedule.next) {
    const bool plain = firing.shift == scheduler::clock_shift::none;
    next.push_back({{"at", scheduler::format_local(firing)}, {"clock", plain ? json(nullptr) : json(token(firing.shift))}});
  }
  return {{"job", schedule.job},
          {"trigger", schedule.trigger},
          {"timezone", schedule.timezone},
          {"note", schedule.note.empty() ? json(nullptr) : json(schedule.note)},
          {"next", std::move(next)}};
}

}  // namespace penstock::api
