#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {

namespace {

template <class... F>
struct overloaded : F... {
  using F::operator()...;
};
template <class... F>
overloaded(F...) -> overloaded<F...>;

std::string topic_in_words(const config::topic_trigger& t) {
  std::string text = "topic " + t.topic;
  if (!t.where.empty()) text += " where " + t.where;
  text += ", up to " + std::to_string(t.max_events) + " events";
  if (t.max_wait.count() > 0) text += " or " + format_duration(t.max_wait);
  if (t.debounce.count() > 0) text += ", after " + format_duration(t.debounce) + " of quiet";
  if (t.grace_period.count() > 0) text += ", grace " + format_duration(t.grace_period);
  return text;
}

}  // namespace

std::string trigger_key(const config::trigger& trigger) {
  return std::visit(
      overloaded{[](const config::topic_trigger& t) { return "topic:" + t.topic; },
                 [](const config::cron_trigger& t) { return "cron:" + t.expression.text + "@" + t.timezone; },
                 [](const config::every_trigger& t) { return "every:" + format_duration(t.interval); },
                 [](const config::at_trigger& t) { return "at:" + format_time(t.time); },
                 [](const config::after_trigger& t) { return "after:" + t.pipeline + "." + t.job; },
                 [](const config::file_trigger& t) { return "file:" + t.path; },
                 [](const config::webhook_trigger& t) { return "webhook:" + t.path; }},
      trigger);
}

std::string in_words(const config::trigger& trigger) {
  return std::visit(
      overloaded{[](const config::topic_trigger& t) { return topic_in_words(t); },
                 [](const config::cron_trigger& t) { return "cron " + t.expression.text + " " + t.timezone; },
                 [](const config::every_trigger& t) { return "every " + format_duration(t.interval); },
                 [](const config::at_trigger& t) { return "at " + format_time(t.time); },
                 [](const config::after_trigger& t) { return "after " + (t.pipeline.empty() ? "" : t.pipeline + ".") + t.job; },
                 [](const config::file_trigger& t) { return "file " + t.path; },
                 [](const config::webhook_trigger& t) { return "webhook " + t.path; }},
      trigger);
}

std::unique_ptr<trigger_watch> make_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                          const config::trigger& trigger, std::shared_ptr<runtime::wakeup> wake) {
  return std::visit(
      overloaded{[&](const config::topic_trigger& t) { return make_topic_watch(around, runs, t, wake); },
                 [&](const config::cron_trigger& t) { return make_cron_watch(around, runs, t); },
                 [&](const config::every_trigger& t) { return make_every_watch(around, runs, t); },
                 [&](const config::at_trigger& t) { return make_at_watch(around, runs, t); },
                 [&](const config::after_trigger&) { return std::unique_ptr<trigger_watch>(); },
                 [&](const config::file_trigger& t) { return make_file_watch(around, runs, t, wake); },
                 [&](const config::webhook_trigger& t) { return make_webhook_watch(around, runs, t); }},
      trigger);
}

}  // namespace penstock::scheduler
