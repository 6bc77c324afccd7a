#include "config/warnings.hpp"

#include <algorithm>
#include <string>

#include "config/field.hpp"
#include "config/in_quotes.hpp"
#include "config/scalar.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

// The topic that a source or sink names, in its short or long form.
template <class Then>
void look_at_topic(const place& use, Then then) {
  look_at(use, "topic", [&then](const place& topic) {
    if (topic.what().type == node::kind::scalar) then(topic);
    look_at_text(topic, "topic", then);
  });
}

class warner {
 public:
  explicit warner(const place& document) : document_(document) {
    look_at(document, "topics", [this](const place& topics) { declared_ = keys_of(topics.what()); });
  }

  std::vector<problem> found() {
    look_at(document_, "flows", [this](const place& flows) {
      for_each_entry(flows, [this](const std::string&, const place& flow) { look_at_flow(flow); });
    });
    look_at(document_, "jobs", [this](const place& jobs) {
      for_each_entry(jobs, [this](const std::string&, const place& job) { look_at_job(job); });
    });
    return warnings_.take_sorted();
  }

 private:
  void check_declared(const place& topic) {
    const std::string& name = topic.what().text;
    if (std::find(declared_.begin(), declared_.end(), name) != declared_.end()) return;
    const std::string near = nearest(name, declared_);
    warnings_.wrong_value(topic, "no topic " + in_quotes(name) + " is declared here; " +
                                     (near.empty() ? "another pipeline must declare it"
                                                   : "did you mean '" + near + "'?"));
  }

  // `read`: where the topic that is read stands.
  void check_circle(const place& work, const place& read, const std::string& what) {
    look_at(work, "to", [&](const place& to) {
      look_at_topic(to, [&](const place& written) {
        if (written.what().text != read.what().text) return;
        warnings_.wrong_value(written, what + " what it puts there, for ever unless a step ends it");
      });
    });
  }

  void look_at_flow(const place& flow) {
    look_at(flow, "from", [&](const place& from) {
      const auto check = [&](const place& topic) { check_circle(flow, topic, "the flow reads from this topic"); };
      look_at_topic(from, check);
      look_at(from, "topics", [&](const place& several) {
        if (several.what().type != node::kind::mapping) return for_each_item(several, check);
        look_at(several, "topics", [&](const place& listed) { for_each_item(listed, check); });
      });
    });
  }

  void look_at_job(const place& job) {
    look_at(job, "trigger", [&](const place& triggers) {
      for_each_item(triggers, [&](const place& trigger) { look_at_trigger(job, trigger); });
    });
    look_at(job, "alerts", [this](const place& alerts) {
      for_each_item(alerts, [this](const place& alert) {
        look_at(alert, "to", [this](const place& to) {
          look_at_topic(to, [this](const place& topic) { check_declared(topic); });
        });
      });
    });
    look_at(job, "retry", [this](const place& retry) { look_at_retry(retry); });
  }

  void look_at_trigger(const place& job, const place& trigger) {
    look_at_text(trigger, "topic", [&](const place& topic) {
      check_declared(topic);
      check_circle(job, topic, "the job is started by");
    });
    check_one(trigger, "max_events", {"max_wait", "grace_period"});
    look_at(trigger, "file", [this](const place& file) {
      if (file.what().find("max_files")) return check_one(file, "max_files", {"max_wait"});
      look_at(file, "max_wait", [this](const place& wait) {
        warnings_.wrong_key(wait, "changes nothing: a run has one file unless 'max_files' says more");
      });
    });
  }

  void check_one(const place& p, const char* most, const std::vector<std::string>& keys) {
    const node* written = p.what().find(most);
    if (!written || integer_of(*written) != 1) return;
    for (const std::string& key : keys) {
      look_at(p, key, [&](const place& wait) {
        warnings_.wrong_key(wait, "changes nothing: a run with '" + std::string(most) + ": 1' waits for no more");
      });
    }
  }

  void look_at_retry(const place& retry) {
    const node* attempts = retry.what().find("attempts");
    if (attempts && integer_of(*attempts) != 1) return;
    for_each_entry(retry, [this](const std::string& key, const place& setting) {
      if (key == "attempts") return;
      warnings_.wrong_key(setting, "changes nothing: a run has one attempt unless 'attempts' says more");
    });
  }

  const place& document_;
  std::vector<std::string> declared_;
  problem_list warnings_;
};

}  // namespace

std::vector<problem> find_warnings(const place& document) { return warner(document).found(); }

}  // namespace penstock::config
