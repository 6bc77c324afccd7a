#include "scheduler/dead_letter_desk.hpp"

#include <algorithm>
#include <map>
#include <sstream>

#include "runtime/dataflow_run.hpp"
#include "runtime/json.hpp"

namespace penstock::scheduler {

namespace {

struct consumer_parts {
  std::string pipeline, kind, name;
};
consumer_parts split_consumer(const std::string& consumer) {
  std::istringstream parts(shown_consumer(consumer));
  consumer_parts p;
  std::getline(parts, p.pipeline, '/');
  std::getline(parts, p.kind, '/');
  std::getline(parts, p.name, '/');
  return p;
}

runtime::event event_of(const runtime::dead_letter& letter, runtime::batch& owner) {
  runtime::event e;
  e.id = owner.keep(letter.event_id);
  e.source = owner.keep(letter.source);
  e.type = owner.keep(letter.type);
  e.subject = owner.keep(letter.subject);
  e.datacontenttype = owner.keep(letter.datacontenttype);
  e.topic = owner.keep(letter.topic);
  e.key = owner.keep(letter.key);
  e.data = owner.keep(letter.data);
  e.time = letter.event_time;
  return e;
}

}  // namespace

std::vector<dead_letter_view> dead_letter_desk::list(const std::string& pipeline,
                                                                   const std::string& after_id, std::size_t limit) {
  std::vector<dead_letter_view> all;
  for (auto& letter : around_.offered.flows.dead_letters({.pipeline = pipeline, .after_id = after_id, .limit = limit})) {
    letter.consumer = shown_consumer(letter.consumer);
    all.push_back({std::move(letter), "event", 1});
  }
  for (const auto& run : around_.store.dead_runs(pipeline, after_id, limit)) {
    runtime::dead_letter letter;
    letter.id = run.id;
    letter.pipeline = run.pipeline;
    letter.consumer = run.pipeline + "/job/" + run.job;
    letter.step = "run";
    letter.reason = run.reason;
    letter.attempts = run.attempt;
    letter.at = run.ended_at.value_or(run.created_at);
    all.push_back({std::move(letter), "run", run.input.events});
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.letter.id < b.letter.id; });
  if (all.size() > limit) all.resize(limit);
  return all;
}

std::int64_t dead_letter_desk::count() {
  return around_.offered.flows.count_dead_letters() + around_.store.count_dead_runs();
}

asio::awaitable<void> dead_letter_desk::replay_flow(std::string consumer, std::vector<runtime::dead_letter> letters,
                                                    settled& outcome) {
  const auto parts = split_consumer(consumer);
  const auto live = pipelines_.find(parts.pipeline);
  std::string reason = "flow " + parts.pipeline + "/" + parts.name + " no longer exists";
  if (live && (*live)->flows().contains(parts.name)) {
    runtime::batch events;
    std::vector<std::string> ids;
    for (const auto& letter : letters) {
      events.events.push_back(event_of(letter, events));
      ids.push_back(letter.id);
    }
    const auto flow = (*live)->flows().at(parts.name);
    const auto replayed = co_await flow->replay(std::move(events), std::move(ids));
    if (replayed) {
      outcome.done += static_cast<std::int64_t>(letters.size());
      outcome.dead_again += *replayed;
      co_return;
    }
    reason = replayed.error().detail;
  }
  for (const auto& letter : letters) outcome.failed.push_back(letter.id + ": " + reason);
}

// Events of a run's task: a new run of that job reads them.
asio::awaitable<void> dead_letter_desk::replay_task(std::string consumer, std::vector<runtime::dead_letter> letters,
                                                    settled& outcome) {
  const auto run_id = split_consumer(consumer).name;
  const auto stored = around_.store.run(run_id);
  std::string reason = "run " + run_id + " is no longer kept";
  if (stored) {
    const auto job = pipelines_.find_job(stored->pipeline, stored->job);
    if (job) {
      auto run = (*job)->runs().draft(trigger_kind::rest);
      run.params = stored->params;
      run.input.type = run_input::kind::inline_events;
      std::vector<std::string> ids;
      for (const auto& letter : letters) {
        runtime::batch owner;
        runtime::append_ndjson(run.input.ndjson, event_of(letter, owner));
        ids.push_back(letter.id);
      }
      run.input.events = static_cast<std::int64_t>(letters.size());
      const idempotency once{"replay of " + ids.front() + " to " + ids.back(), "dead-letters", std::to_string(ids.size())};
      const auto made = co_await (*job)->runs().make(std::move(run), once);
      if (made) {
        co_await around_.offered.flows.remove_dead_letters(ids);
        outcome.done += static_cast<std::int64_t>(ids.size());
        co_return;
      }
      reason = made.error().detail;
    } else {
      reason = job.error().detail;
    }
  }
  for (const auto& letter : letters) outcome.failed.push_back(letter.id + ": " + reason);
}

asio::awaitable<result<settled>> dead_letter_desk::replay(std::vector<std::string> ids) {
  settled outcome;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::map<std::string, std::vector<runtime::dead_letter>> by_consumer;
  std::vector<std::string> runs;
  for (const auto& id : ids) {
    if (auto letter = around_.offered.flows.find_dead_letter(id)) {
      if (letter->step == runtime::step_unreadable) {
        outcome.failed.push_back(id + ": its source could not read it, so there is no event to replay; send it anew, and discard this");
        continue;
      }
      by_consumer[letter->consumer].push_back(std::move(*letter));
    } else if (around_.store.run(id)) {
      runs.push_back(id);
    } else {
      co_return error{errc::not_found, "no dead letter '" + id + "'"};
    }
  }
  for (auto& [consumer, letters] : by_consumer) {
    if (split_consumer(consumer).kind == "flow") {
      co_await replay_flow(consumer, std::move(letters), outcome);
    } else {
      co_await replay_task(consumer, std::move(letters), outcome);
    }
  }
  for (const auto& id : runs) co_await replay_run(id, outcome);
  co_return outcome;
}

asio::awaitable<void> dead_letter_desk::replay_run(std::string id, settled& outcome) {
  const auto stored = around_.store.run(id);
  const bool dead = stored && (stored->state == run_state::failed || stored->state == run_state::timed_out) &&
                    stored->input.events > 0;
  if (!dead) {
    outcome.failed.push_back(id + ": this run is no dead letter");
    co_return;
  }
  const idempotency once{"replay of run " + id, "dead-letters", id};  // asked twice, or after a crash: still one run
  // Nobody's request: it begins a trace of its own. (A named value, because GCC 12 copies a temporary's bytes into the frame.)
  const trace_context own;
  const auto made = co_await runs_.retry(id, false, once, own);
  if (!made) {
    outcome.failed.push_back(id + ": " + made.error().detail);
    co_return;
  }
  std::vector<std::string> ids{id};
  outcome.done += co_await around_.store.settle_dead_runs(std::move(ids));
}

asio::awaitable<result<settled>> dead_letter_desk::discard(std::vector<std::string> ids) {
  settled outcome;
  outcome.done = co_await around_.offered.flows.remove_dead_letters(ids);
  outcome.done += co_await around_.store.settle_dead_runs(ids);
  if (outcome.done == 0 && !ids.empty()) co_return error{errc::not_found, "none of these dead letters exists"};
  co_return outcome;
}

}  // namespace penstock::scheduler
