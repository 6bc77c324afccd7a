#include "config/check_triggers.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <stdexcept>
#include <vector>

#include <date/tz.h>

#include "config/cron_expression.hpp"
#include "config/in_quotes.hpp"
#include "config/scalar.hpp"
#include "config/time.hpp"
#include "config/validate.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

std::vector<std::string> known_time_zones() {
  std::vector<std::string> out;
  for (const auto& zone : date::get_tzdb().zones) out.push_back(zone.name());
  return out;
}

// "Madrid" means Europe/Madrid, which no edit distance finds.
std::string zone_of_city(std::string_view city, const std::vector<std::string>& zones) {
  for (const auto& zone : zones) {
    if (zone.size() > city.size() && zone.ends_with(city) && zone[zone.size() - city.size() - 1] == '/')
      return zone;
  }
  return {};
}

std::optional<std::string> time_zone_fault(const std::string& name) {
  if (name == "UTC") return std::nullopt;
  try {
    const auto& known = date::get_tzdb().zones;
    const auto is_it = [&name](const date::time_zone& zone) { return zone.name() == name; };
    if (std::any_of(known.begin(), known.end(), is_it)) return std::nullopt;
    const std::vector<std::string> zones = known_time_zones();
    const std::string city = name.empty() ? "" : zone_of_city(name, zones);
    const std::string near = city.empty() ? nearest(name, zones) : city;
    return "unknown time zone " + in_quotes(name) +
           (near.empty() ? "; write an IANA name such as Europe/Madrid" : "; did you mean '" + near + "'?");
  } catch (const std::runtime_error&) {
    return "time zone " + in_quotes(name) +
           " cannot be looked up: this system has no time zone data (tzdata)";
  }
}

// The scalar that a trigger's or source's short or long form gives as `path`.
template <class Then>
void look_at_path(const place& use, Then then) {
  if (use.what().type == node::kind::scalar) then(use);
  look_at_text(use, "path", then);
}

// ./in/../in/a and in/a are one file.
std::string normal(const std::string& path) {
  return std::filesystem::path(path).lexically_normal().string();
}

std::optional<std::string> file_path_fault(const std::string& text) {
  const auto slash = text.rfind('/');
  const std::string folder = slash == text.npos ? "" : text.substr(0, slash);
  const std::string name = slash == text.npos ? text : text.substr(slash + 1);
  if (text.empty()) return "the file's path is empty";
  if (name.empty() || name == "." || name == "..") {
    return in_quotes(text) + " is a folder; name the files in it, such as " + in_quotes(folder + "/*");
  }
  if (folder.find_first_of("*?[") != folder.npos) {
    return "only the last part of a path may be a pattern, in " + in_quotes(text) + " another is";
  }
  return std::nullopt;
}

std::optional<std::string> hook_path_fault(const std::string& text) {
  if (!text.starts_with('/')) {
    return "the path " + in_quotes(text) + " must begin with a slash" +
           (text.empty() ? "" : "; write " + in_quotes("/" + text));
  }
  const auto wrong = std::find_if(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f || c == '?' || c == '#';
  });
  if (wrong == text.end()) return std::nullopt;
  return "the path " + in_quotes(text) + " cannot hold spaces, '?' or '#'";
}

}  // namespace

trigger_checker::trigger_checker(const place& document, problem_list& problems)
    : document_(document), problems_(problems) {
  look_at(document_, "jobs", [this](const place& jobs) {
    for (const auto& name : keys_of(jobs.what())) starts_after_.graph[name];
  });
}

void trigger_checker::check(const std::string& job, const place& triggers) {
  std::set<std::string> topics, files, schedules, upstream;
  std::set<nanoseconds> intervals;
  std::set<timestamp> times;
  const auto once = [this](bool is_new, const place& where, const std::string& what, const char* hint = "") {
    if (is_new) return;
    problems_.wrong_value(where, what + " " + in_quotes(where.what().text) + " starts this job already" + hint);
  };
  for_each_item(triggers, [&](const place& trigger_place) {
    if (problems_.full()) return;
    check_schedule(trigger_place);
    check_debounce(trigger_place);
    look_at_text(trigger_place, "topic", [&](const place& topic) {
      once(topics.insert(topic.what().text).second, topic, "topic",
           "; write one trigger whose 'where' joins the conditions with 'or', or another job");
    });
    look_at_text(trigger_place, "cron", [&](const place& cron) {
      const node* zone = trigger_place.what().find("timezone");
      once(schedules.insert(cron.what().text + " in " + (zone ? zone->text : "UTC")).second, cron, "the schedule");
    });
    look_at_text(trigger_place, "every", [&](const place& every) {
      const auto interval = parse_duration(every.what().text);
      once(!interval || intervals.insert(*interval).second, every, "every");
    });
    look_at_text(trigger_place, "at", [&](const place& at) {
      const auto time = parse_time(at.what().text);
      once(!time || times.insert(*time).second, at, "the time");
    });
    look_at(trigger_place, "file", [&](const place& file) {
      check_file(file);
      look_at_path(file, [&](const place& path) {
        once(files.insert(normal(path.what().text)).second, path, "the file");
      });
    });
    look_at(trigger_place, "webhook", [&](const place& hook) {
      look_at_path(hook, [&](const place& path) { check_hook("job " + in_quotes(job), path); });
    });
    look_at(trigger_place, "after", [&](const place& after) {
      check_after(job, after);
      once(after.what().type != node::kind::scalar || upstream.insert(after.what().text).second, after, "the end of");
    });
  });
}

void trigger_checker::check_source(const std::string& flow, const place& from) {
  look_at(from, "webhook", [&](const place& hook) {
    look_at_path(hook, [&](const place& path) { check_hook("flow " + in_quotes(flow), path); });
  });
}

void trigger_checker::check_cycles() {
  report_cycles(starts_after_, "these jobs start each other for ever: ", problems_);
}

void trigger_checker::check_hook(const std::string& whose, const place& path) {
  const std::string& text = path.what().text;
  if (auto fault = hook_path_fault(text)) {
    problems_.wrong_value(path, *fault);
    return;
  }
  const auto [taken, is_new] = hooks_.emplace(text, whose);
  if (is_new) return;
  problems_.wrong_value(path, "what is posted to " + in_quotes("/hooks" + text) + " goes to " + taken->second +
                                  " already");
}

void trigger_checker::check_file(const place& file) {
  std::string path;
  look_at_path(file, [&](const place& written) {
    path = written.what().text;
    if (auto fault = file_path_fault(path)) problems_.wrong_value(written, *fault);
  });
  look_at(file, "remove", [&](const place& remove) {
    if (boolean_of(remove.what()) != true || !file.what().find("move_to")) return;
    problems_.wrong_key(remove, "'remove' and 'move_to' exclude each other; a file is deleted or moved");
  });
  const auto folder = std::filesystem::path(".") / std::filesystem::path(path).parent_path();
  for (const auto* key : {"move_to", "move_failed_to"}) {
    look_at_text(file, key, [&](const place& target) {
      const std::string& text = target.what().text;
      if (text.empty()) {
        problems_.wrong_value(target, "the folder's name is empty");
      } else if ((folder / text / "").lexically_normal() == (folder / "").lexically_normal()) {
        problems_.wrong_value(target, "that is the folder which the files come from");
      }
    });
  }
}

void trigger_checker::check_debounce(const place& trigger_place) {
  look_at_text(trigger_place, "debounce", [&](const place& debounce) {
    const node* wait = trigger_place.what().find("max_wait");
    const auto quiet = parse_duration(debounce.what().text);
    const auto most = wait ? parse_duration(wait->text) : std::nullopt;
    if (!quiet || !most || *most == nanoseconds{0} || *quiet <= *most) return;
    problems_.wrong_value(debounce, "longer than max_wait (" + format_duration(*most) +
                                        "), which ends the waiting, so it would never be reached");
  });
}

void trigger_checker::check_schedule(const place& trigger_place) {
  look_at_text(trigger_place, "cron", [this](const place& cron) {
    const auto parsed = parse_cron(cron.what().text);
    if (!parsed) problems_.wrong_value(cron, "not a cron expression: " + parsed.error().detail);
  });
  look_at_text(trigger_place, "timezone", [this](const place& zone) {
    if (auto fault = time_zone_fault(zone.what().text)) problems_.wrong_value(zone, *fault);
  });
}

void trigger_checker::check_after(const std::string& job, const place& after) {
  if (after.what().type == node::kind::scalar) {
    check_job_exists(job, after, parse_job_reference(after.what().text));
    return;
  }
  look_at_text(after, "job", [&](const place& name) {
    job_reference target = parse_job_reference(name.what().text);
    const node* pipeline = after.what().find("pipeline");
    if (pipeline && pipeline->type == node::kind::scalar) {
      if (!target.pipeline.empty()) {
        problems_.wrong_value(name,
                              in_quotes(name.what().text) + " names a pipeline, and so does 'pipeline'");
        return;
      }
      target.pipeline = pipeline->text;
    }
    check_job_exists(job, name, target);
  });
}

void trigger_checker::check_job_exists(const std::string& job, const place& where, const job_reference& target) {
  if (!is_name(target.job) || (!target.pipeline.empty() && !is_name(target.pipeline))) {
    problems_.wrong_value(where, in_quotes(where.what().text) + " is neither a job nor pipeline.job");
    return;
  }
  const node* own_name = document_.what().find("name");
  const bool here = target.pipeline.empty() || (own_name && own_name->text == target.pipeline);
  if (!here) return;  // another pipeline may come later
  if (starts_after_.graph.count(target.job)) {
    starts_after_.add(job, target.job, where);
    return;
  }
  const node* jobs = document_.what().find("jobs");
  const std::string known = suggestion(target.job, jobs ? keys_of(*jobs) : std::vector<std::string>{});
  problems_.wrong_value(where, "this pipeline has no job " + in_quotes(target.job) + "; " + known +
                                   (known.ends_with('?') ? " A" : "; a") +
                                   " job of another pipeline is written pipeline.job");
}

}  // namespace penstock::config
