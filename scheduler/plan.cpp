#include "scheduler/plan.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "config/kept_state.hpp"
#include "scheduler/policy.hpp"
#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {
namespace {

const config::value& part_of(const config::pipeline* p, const char* kind, const std::string& name) {
  static const config::value none = config::no_value();
  if (!p || !p->document.is_object()) return none;
  const auto parts = p->document.find(kind);
  if (parts == p->document.end() || !parts->is_object()) return none;
  const auto found = parts->find(name);
  return found == parts->end() ? none : *found;
}

// Effects, one function for each kind of part.

std::string topic_effect(const plan_question& asked, const std::string& name, part_change change) {
  const bool shared = std::find(asked.shared_topics.begin(), asked.shared_topics.end(), name) != asked.shared_topics.end();
  switch (change) {
    case part_change::added:
      return shared ? "is there already, because another pipeline declares it" : "is made, or taken up again with what it holds";
    case part_change::changed:
      return "keeps its events; the new settings count from the next event and the next clean-up on";
    case part_change::removed:
      return shared ? "goes on, because another pipeline declares it"
                    : "keeps its events on disk; without a declaration it is not served after the next start of the daemon";
  }
  return {};
}

std::string flow_effect(const plan_question& asked, const std::string& name, part_change change) {
  if (change == part_change::removed) return "drains, emits what its steps still hold where they can, and ends";
  if (asked.paused) return "stays paused with its pipeline; starts with the new settings when that is resumed";
  if (change == part_change::added) return "starts";
  const auto* now = std::get_if<config::dataflow>(&asked.after.flows.at(name).does);
  if (!now) return "is ended gracefully, then started with the new settings";
  const auto* before = std::get_if<config::dataflow>(&asked.before->flows.at(name).does);
  const std::string kept = "; what its steps hold is kept";
  if (!before) return "its command is ended gracefully, then it starts as a dataflow";
  const std::string reads = config::input_of(*now->from, asked.components), read = config::input_of(*before->from, asked.components);
  if (reads != read) return "drains, then reads " + reads + " instead of " + read + ", from where its settings say" + kept;
  return "drains, then starts again with the new settings where it was" + kept;
}

std::string job_effect(const plan_question& asked, const std::string& name, part_change change) {
  switch (change) {
    case part_change::added:
      if (asked.after.jobs.at(name).triggers.empty()) return "is there to be started over REST";
      return asked.paused ? "is there; its triggers wait until the pipeline is resumed" : "waits for its triggers";
    case part_change::changed:
      return "makes new runs of the new revision; runs that exist keep theirs";
    case part_change::removed:
      return "makes no more runs; those that exist go on, of their revision";
  }
  return {};
}

using effect_of = std::string (*)(const plan_question&, const std::string&, part_change);

std::vector<planned_part> parts(const plan_question& asked, const char* kind, const config::changes& changes, effect_of effect) {
  std::vector<planned_part> all;
  const auto add = [&](const std::vector<std::string>& names, part_change change) {
    for (const std::string& name : names) {
      planned_part part{.name = name, .change = change, .effect = effect(asked, name, change), .losses = {}, .fields = {}};
      if (change == part_change::changed) {
        part.fields = config::field_changes(part_of(asked.before, kind, name), part_of(&asked.after, kind, name));
        if (part.fields.empty()) part.effect += " (the values are the same: their order is another, or the folder that paths begin in)";
      }
      all.push_back(std::move(part));
    }
  };
  add(changes.added, part_change::added);
  add(changes.changed, part_change::changed);
  add(changes.removed, part_change::removed);
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return all;
}

void add_losses(plan& made, const plan_question& asked) {
  if (!asked.before) return;
  for (std::string& loss : config::state_losses(*asked.before, asked.after, asked.components)) {
    for (auto& flow : made.flows) {
      const std::string begins = "flow " + flow.name + ", ";
      if (!loss.starts_with(begins)) continue;
      flow.losses.push_back(loss.substr(begins.size()));
      const std::string kept = "; what its steps hold is kept";
      if (flow.effect.ends_with(kept)) flow.effect.replace(flow.effect.size() - kept.size(), kept.size(), "; not all that its steps hold is kept");
      break;
    }
  }
}

// All but topics, flows and jobs.
config::value settings_of(const config::pipeline* p) {
  if (!p || !p->document.is_object()) return config::value::object();
  config::value rest = p->document;
  for (const char* kind : {"topics", "flows", "jobs"}) rest.erase(kind);
  return rest;
}

planned_schedule schedule_of(const plan_question& asked, const std::string& job, const config::trigger& trigger) {
  planned_schedule made{.job = job, .trigger = in_words(trigger), .timezone = "UTC", .next = {}, .note = {}};
  const auto last = asked.last_firing(job, trigger_key(trigger));
  if (const auto* at = std::get_if<config::at_trigger>(&trigger)) {
    const auto due = next_at(*at, last);
    if (due) made.next.push_back({.at = *due});
    if (!due) made.note = "has fired already";
    if (due && *due <= asked.now) made.note = "its time has passed: it fires at once";
    return made;
  }
  const auto* cron = std::get_if<config::cron_trigger>(&trigger);
  if (cron) made.timezone = cron->timezone;
  for (const auto at : next_firings(trigger, asked.now, planned_firings, last)) {
    made.next.push_back(cron ? seen_locally(cron->expression, cron->timezone, at) : firing{.at = at});
  }
  if (made.next.empty()) made.note = "does not fire within ten years";
  if (asked.paused) made.note = "the pipeline is paused: nothing fires until it is resumed";
  return made;
}

std::vector<planned_schedule> schedules_of(const plan_question& asked) {
  std::vector<planned_schedule> all;
  for (const auto& [name, job] : asked.after.jobs) {
    for (const auto& trigger : job.triggers) {
      const bool known_beforehand = std::holds_alternative<config::cron_trigger>(trigger) ||
                                    std::holds_alternative<config::every_trigger>(trigger) ||
                                    std::holds_alternative<config::at_trigger>(trigger);
      if (known_beforehand) all.push_back(schedule_of(asked, name, trigger));
    }
  }
  return all;
}

}  // namespace

plan make_plan(const plan_question& asked) {
  plan made;
  made.topics = parts(asked, "topics", asked.changes.topics, topic_effect);
  made.flows = parts(asked, "flows", asked.changes.flows, flow_effect);
  made.jobs = parts(asked, "jobs", asked.changes.jobs, job_effect);
  add_losses(made, asked);
  made.settings = config::field_changes(settings_of(asked.before), settings_of(&asked.after));
  const auto same = [](std::size_t all, const config::changes& c) { return all - c.added.size() - c.changed.size(); };
  made.same_topics = same(asked.after.topics.size(), asked.changes.topics);
  made.same_flows = same(asked.after.flows.size(), asked.changes.flows);
  made.same_jobs = same(asked.after.jobs.size(), asked.changes.jobs);
  made.diff = config::unified_diff(asked.before ? config::canonical_text(asked.before->document) : "",
                                   config::canonical_text(asked.after.document), asked.before_label, asked.after_label);
  if (asked.same_text) {
    made.effect = "nothing: the text is that of the current revision";
  } else if (asked.before && asked.changes.empty()) {
    made.effect = "a new revision is stored, and nothing else: only the text (comments, layout, defaults written out) or its origin differs";
  }
  made.schedules = schedules_of(asked);
  return made;
}

}  // namespace penstock::scheduler
