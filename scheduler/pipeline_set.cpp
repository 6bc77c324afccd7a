#include "scheduler/pipeline_set.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>

#include "config/kept_state.hpp"
#include "runtime/flow_store.hpp"
#include "scheduler/alert_text.hpp"
#include "scheduler/etag.hpp"
#include "scheduler/hook_secrets.hpp"
#include "scheduler/plan.hpp"

namespace penstock::scheduler {

namespace {

namespace fs = std::filesystem;

std::string make_etag(std::int64_t revision, std::string_view text) {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a, 64 bits: tells texts apart, guards nothing
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return fmt::format("\"{}-{:016x}\"", revision, hash);
}

bool matches(config::after_outcome wanted, run_state ended) {
  switch (wanted) {
    case config::after_outcome::succeeded: return ended == run_state::succeeded;
    case config::after_outcome::failed: return ended == run_state::failed || ended == run_state::timed_out;
    case config::after_outcome::any: return ended != run_state::skipped;
  }
  return false;
}

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in.peek() != std::ifstream::traits_type::eof()) text << in.rdbuf();
  if (!in.is_open() || in.bad()) throw std::runtime_error("cannot be read");
  return text.str();
}

// As a broken one is called that no file can be named for.
std::string stored_name(const pipeline_record& record) {
  return record.name + " (stored revision " + std::to_string(record.revision) + ")";
}

std::string media_type_of(const fs::path& file) { return file.extension() == ".json" ? "application/json" : "application/yaml"; }

error stopping_error() { return {errc::unavailable, "the daemon is stopping", {}, 5}; }

// The paths under /hooks that a definition receives at, and where in it each is: "/flows/intake", "/jobs/build".
std::map<std::string, std::string> hooks_of(const config::pipeline& definition) {
  std::map<std::string, std::string> hooks;
  for (const auto& [name, flow] : definition.flows) {
    if (const auto path = hook_path(flow); !path.empty()) hooks.emplace(path, "/flows/" + name);
  }
  for (const auto& [name, job] : definition.jobs) {
    for (const auto& trigger : job.triggers) {
      if (const auto* hook = std::get_if<config::webhook_trigger>(&trigger)) hooks.emplace(hook->path, "/jobs/" + name);
    }
  }
  return hooks;
}

// The job that an `after` trigger of `pipeline` follows, as "PIPELINE/JOB".
std::string followed(const config::after_trigger& trigger, const std::string& pipeline) {
  return (trigger.pipeline.empty() ? pipeline : trigger.pipeline) + "/" + trigger.job;
}

}  // namespace

error not_found(const std::string& what, const std::string& name, const std::vector<std::string>& known) {
  const auto near = config::nearest(name, known);
  return {errc::not_found, "no " + what + " '" + name + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?")};
}

bool is_definition_file(const fs::path& file) {
  const auto ending = file.extension();
  return !file.filename().native().starts_with('.') && (ending == ".yaml" || ending == ".yml" || ending == ".json");
}

std::string shown_consumer(const std::string& consumer) { return consumer.substr(0, consumer.find('@')); }

pipeline_set::pipeline_set(surroundings& around, std::shared_ptr<runtime::wakeup> activity)
    : around_(around), activity_(std::move(activity)), loading_(around.where.control) {}

runtime::gate& pipeline_set::gate_of(const std::string& name) {
  auto& gate = gates_[name];
  if (!gate) gate = std::make_unique<runtime::gate>(around_.where.control);
  return *gate;
}

asio::awaitable<void> pipeline_set::close() {
  closed_ = true;
  std::vector<runtime::gate*> gates;
  for (const auto& [name, gate] : gates_) gates.push_back(gate.get());
  for (auto* gate : gates) held_.push_back(co_await gate->enter());
}

// ---- finding ----

result<std::shared_ptr<live_pipeline>> pipeline_set::find(const std::string& name) const {
  const auto found = live_.find(name);
  if (found != live_.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [other, pipeline] : live_) known.push_back(other);
  return not_found("pipeline", name, known);
}

result<std::shared_ptr<job_supervisor>> pipeline_set::find_job(const std::string& pipeline, const std::string& job) const {
  const auto live = find(pipeline);
  if (!live) return live.error();
  const auto found = (*live)->jobs().find(job);
  if (found != (*live)->jobs().end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, j] : (*live)->jobs()) known.push_back(name);
  return not_found("job", job, known);
}

result<std::shared_ptr<flow_supervisor>> pipeline_set::find_flow(const std::string& pipeline,
                                                                 const std::string& flow) const {
  const auto live = find(pipeline);
  if (!live) return live.error();
  const auto found = (*live)->flows().find(flow);
  if (found != (*live)->flows().end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, f] : (*live)->flows()) known.push_back(name);
  return not_found("flow", flow, known);
}

std::vector<std::shared_ptr<job_supervisor>> pipeline_set::all_jobs() const {
  auto jobs = retired_jobs_;
  for (const auto& [name, live] : live_) {
    for (const auto& [job_name, job] : live->jobs()) jobs.push_back(job);
    jobs.insert(jobs.end(), live->retired_jobs().begin(), live->retired_jobs().end());
  }
  return jobs;
}

std::vector<consumer_view> pipeline_set::consumers(const std::string& topic) const {
  std::vector<consumer_view> found;
  const auto log = around_.offered.topics.find(topic);
  if (!log) return found;
  const auto cursors = around_.offered.flows.cursors();
  const std::map<std::string, std::int64_t> positions(cursors.begin(), cursors.end());
  const auto add = [&](const std::string& consumer, std::int64_t cursor) {
    found.push_back({consumer, cursor, std::max<std::int64_t>(0, log->last_offset() - cursor)});
  };
  for (const auto& [name, live] : live_) {
    for (const auto& [flow_name, flow] : live->flows()) {
      if (!flow->reads_topic(topic)) continue;
      const auto at = positions.find(flow->consumer());
      add(shown_consumer(flow->consumer()), at == positions.end() ? 0 : flow->read_up_to(topic, at->second));
    }
    for (const auto& [job_name, job] : live->jobs()) {
      if (const auto cursor = job->cursor(topic)) add(name + "/job/" + job_name, *cursor);
    }
  }
  return found;
}

// ---- what follows from a run's end ----

void pipeline_set::index_followers(const std::string& pipeline, const config::pipeline* before,
                                   const config::pipeline* after) {
  const auto each = [&](const config::pipeline* definition, const auto& act) {
    if (!definition) return;
    for (const auto& [name, job] : definition->jobs) {
      for (const auto& trigger : job.triggers) {
        if (const auto* t = std::get_if<config::after_trigger>(&trigger)) act(followed(*t, pipeline), std::pair(pipeline, name));
      }
    }
  };
  each(before, [&](const std::string& key, const auto& who) { followers_[key].erase(who); });
  each(after, [&](const std::string& key, const auto& who) { followers_[key].insert(who); });
}

std::vector<prepared_run> pipeline_set::dependents_of(const run_record& ended) {
  activity_->notify();
  std::vector<prepared_run> made;
  const auto key = ended.pipeline + "/" + ended.job;
  const auto found = followers_.find(key);
  if (found == followers_.end()) return made;
  for (const auto& [pipeline, name] : found->second) {
    const auto job = find_job(pipeline, name);
    if (!job) continue;
    const auto& triggers = (*job)->definition().triggers;
    const bool follows = std::any_of(triggers.begin(), triggers.end(), [&](const auto& trigger) {
      const auto* t = std::get_if<config::after_trigger>(&trigger);
      return t && followed(*t, pipeline) == key && matches(t->outcome, ended.state);
    });
    if (!follows) continue;
    auto run = (*job)->runs().draft(trigger_kind::after);
    run.upstream_run = ended.id;
    run.trace = child_context(ended);
    auto prepared = (*job)->runs().prepare(run);
    if (!prepared) prepared = prepared_run{{.run = skipped(std::move(run), prepared.error().detail)}, [](bool) {}};
    made.push_back(std::move(*prepared));
  }
  return made;
}

asio::awaitable<void> pipeline_set::follow(run_record ended) {
  auto dependents = dependents_of(ended);
  std::vector<new_run> rows;
  for (const auto& d : dependents) rows.push_back(d.made);
  if (!rows.empty()) co_await around_.store.create_runs(std::move(rows));
  for (auto& d : dependents) d.settle(true);

  const auto revision = revision_of(ended);
  if (!revision) co_return;
  ended.revision = revision->revision;
  auto alerts = failure_alerts(ended, revision->definition->jobs.at(ended.job), around_.options.data);
  for (auto& alert : alerts) co_await around_.store.add_alert(std::move(alert));
  around_.alerts_wait->notify();
}

// The revision that has its job: its own, or the current one when that cannot be read any more. Null: neither has.
std::shared_ptr<const pipeline_revision> pipeline_set::revision_of(const run_record& run) const {
  if (const auto stored = around_.store.revision(run.pipeline, run.revision)) {
    const auto own = make_revision(*stored, around_.components.catalog(), around_.options.data);
    if (own && (*own)->definition->jobs.contains(run.job)) return *own;
  }
  const auto job = find_job(run.pipeline, run.job);
  return job ? (*job)->runs().revision() : nullptr;
}

// ---- definitions ----

asio::awaitable<void> pipeline_set::load_stored() {
  std::vector<std::pair<pipeline_record, std::shared_ptr<const pipeline_revision>>> stored;
  for (auto& record : around_.store.pipelines()) {
    auto revision = make_revision(record, around_.components.catalog(), around_.options.data);
    if (revision) {
      stored.emplace_back(std::move(record), *revision);
      continue;
    }
    const error why = revision.error();
    spdlog::error("pipeline {} cannot be loaded: {}", record.name, why.detail);
    broken_[stored_name(record)] = why.problems;
    unreadable_.emplace(record.name, std::move(record));
  }
  for (const auto& [record, revision] : stored) {  // all topics first, whoever reads them
    for (const auto& [name, topic] : revision->definition->topics) around_.offered.topics.declare(topic);
  }
  for (auto& [record, revision] : stored) co_await bring_to_life(std::move(record), revision);
}

void pipeline_set::start_jobs() {
  for (const auto& [name, live] : live_) live->start_jobs();
}

result<void> pipeline_set::check_preconditions(const apply_request& request, const live_pipeline* live) const {
  if (request.must_be_new && live) return error{errc::conflict, "pipeline '" + live->record().name + "' exists already"};
  if (!request.if_match.empty()) {
    if (!live) return error{errc::precondition_failed, "there is no such pipeline for If-Match to match"};
    if (!lists_etag(request.if_match, live->record().etag, etag_comparison::strong)) {
      return error{errc::precondition_failed, "the current ETag is " + live->record().etag + ", not " + request.if_match};
    }
  }
  return {};
}

result<void> pipeline_set::check_shared_names(const config::pipeline& next) const {
  std::map<std::string, std::string> hooks;  // path -> who has it
  std::vector<problem> problems;
  const auto add = [&](const std::string& pointer, std::string detail) { problems.push_back({pointer, 0, 0, std::move(detail)}); };
  const auto look_at = [&](const std::string& other, const config::pipeline& definition) {
    if (other == next.name) return;
    for (const auto& [name, topic] : next.topics) {
      const auto same = definition.topics.find(name);
      if (same == definition.topics.end() || same->second == topic) continue;
      add("/topics/" + name, "pipeline '" + other + "' declares topic '" + name + "' with other settings; write the same ones, or "
                             "leave it to '" + other + "'");
    }
    for (const auto& [path, user] : hooks_of(definition)) hooks.emplace(path, other + user);
  };
  for (const auto& [other, live] : live_) look_at(other, *live->current()->definition);
  for (const auto& [other, definition] : coming_) look_at(other, *definition);
  for (const auto& [path, user] : hooks_of(next)) {
    const auto taken = hooks.find(path);
    if (taken != hooks.end()) add(user, taken->second + " receives at /hooks" + path + " already");
  }
  if (problems.empty()) return {};
  const std::string detail = problems.front().detail;
  return error{errc::invalid, detail, std::move(problems)};
}

plan pipeline_set::plan_of(const config::pipeline& after, const apply_answer& answer, const live_pipeline* live) const {
  std::vector<std::string> shared;
  for (const auto& [other, p] : live_) {
    if (other == after.name) continue;
    for (const auto& [topic, definition] : p->current()->definition->topics) shared.push_back(topic);
  }
  const plan_question asked{
      .before = live ? live->current()->definition.get() : nullptr,
      .after = after,
      .changes = answer.changes,
      .components = around_.components.catalog(),
      .paused = live && live->record().paused,
      .same_text = answer.unchanged,
      .before_label = live ? after.name + ", revision " + std::to_string(live->record().revision) : "nothing",
      .after_label = after.name + ", as planned",
      .shared_topics = std::move(shared),
      .now = wall_now(),
      .last_firing = [this, &after](const std::string& job, const std::string& key) {
        return around_.store.last_firing(after.name, job, key);
      }};
  return make_plan(asked);
}

asio::awaitable<result<apply_answer>> pipeline_set::apply(apply_request request) {
  const std::string file = request.origin == "rest" ? "" : request.origin;
  auto parsed = config::parse_pipeline(request.text, around_.components.catalog(), {.file = file});
  if (!parsed) co_return parsed.error();
  const std::string name = parsed->name;
  if (request.name && *request.name != name) {
    co_return error{errc::conflict, "the definition's name is '" + name + "', the URL's is '" + *request.name + "'"};
  }
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(name).enter();
  if (closed_) co_return stopping_error();
  if (!file.empty()) {
    if (auto other = claimed_by_another_file(name, file)) co_return *std::move(other);
  }
  const auto found = live_.find(name);
  live_pipeline* live = found == live_.end() ? nullptr : found->second.get();
  if (auto ok = check_preconditions(request, live); !ok) co_return ok.error();

  if (auto ok = check_shared_names(*parsed); !ok) co_return ok.error();

  apply_answer answer;
  answer.created = !live;
  answer.warnings = parsed->warnings;
  const config::pipeline* before = live ? live->current()->definition.get() : nullptr;
  // The live definition has ${dir} filled in, so only one that has, too, can be compared with it.
  const auto after = as_it_would_live(*parsed, request.origin, around_.options.data);
  answer.changes = config::diff(before, &after);
  if (live) {
    answer.record = live->record();
    for (auto& loss : config::state_losses(*before, after, around_.components.catalog())) {
      answer.warnings.push_back({.pointer = {}, .line = 0, .column = 0, .detail = std::move(loss)});
    }
    answer.unchanged = live->record().text == request.text && live->record().origin == request.origin;
  }
  if (request.dry_run) answer.planned = std::make_shared<const plan>(plan_of(after, answer, live));
  if (answer.unchanged) co_return answer;
  if (auto faults = hook_secret_faults(*parsed, around_.offered.secrets); !faults.empty()) {
    const std::string detail = faults.front().detail;
    co_return error{errc::invalid, detail, std::move(faults)};
  }
  auto& record = answer.record;
  const auto unreadable = unreadable_.find(name);
  const std::int64_t expected = live ? record.revision : unreadable != unreadable_.end() ? unreadable->second.revision : 0;
  record.name = name;
  record.text = request.text;
  record.media_type = request.media_type;
  record.origin = request.origin;
  record.updated_at = wall_now();
  if (!live) record.created_at = expected > 0 ? unreadable->second.created_at : record.updated_at;
  const auto earlier = around_.store.revisions(name);  // also of a removed pipeline of that name
  record.revision = earlier.empty() ? 1 : earlier.front().revision + 1;
  record.etag = make_etag(record.revision, record.text);
  if (request.dry_run) co_return answer;

  const auto revision = make_revision(record, std::move(*parsed), around_.options.data);
  if (!revision) co_return revision.error();
  coming_[name] = (*revision)->definition;
  const auto arrived = [this, name](void*) { coming_.erase(name); };
  const std::shared_ptr<void> until_here(nullptr, arrived);
  if (live) {
    if (auto failed = co_await live->try_changed(*revision, around_.options.drain_timeout); !failed.empty()) {
      const std::string flow = failed.front().pointer.substr(std::string_view("/flows/").size());
      std::string detail = "revision " + std::to_string(live->record().revision) + " goes on, because flow " + flow +
                           " of the new one " + failed.front().detail;
      spdlog::warn("pipeline {}: {}", name, detail);
      co_return error{errc::invalid, std::move(detail), std::move(failed)};
    }
  }
  std::exception_ptr broken;
  result<pipeline_record> stored = error{};
  try {
    stored = co_await around_.store.put_pipeline(record, expected);
  } catch (...) {
    broken = std::current_exception();
  }
  if (live && !stored) co_await live->put_back(around_.options.drain_timeout);
  if (broken) std::rethrow_exception(broken);
  if (!stored) co_return stored.error();
  record.paused = stored->paused;
  forget_unreadable(name);
  co_await bring_to_life(record, *revision);
  live_.at(name)->start_jobs();
  for (auto& [other, p] : live_) {
    for (auto& [job_name, job] : p->jobs()) job->topics_declared();
  }
  tell(name, answer.created ? "registered" : "replaced");
  spdlog::info("pipeline {}: revision {} is live", name, record.revision);
  co_return answer;
}

result<pipeline_record> pipeline_set::revision(const std::string& name, std::int64_t revision) const {
  const auto live = find(name);
  if (!live) return live.error();
  if (auto stored = around_.store.revision(name, revision)) return *std::move(stored);
  return error{errc::not_found, "pipeline '" + name + "' has no revision " + std::to_string(revision) + "; the current one is " +
                                    std::to_string((*live)->record().revision)};
}

// The one before the current one, in this life of the pipeline; 0: there is none.
std::int64_t pipeline_set::revision_before(const pipeline_record& current) const {
  for (const auto& one : around_.store.revisions(current.name)) {
    if (one.revision < current.revision && one.created_at == current.created_at) return one.revision;
  }
  return 0;
}

// A file's revision stays the file's: ${dir} keeps its meaning, and whenever the file is loaded again its text counts.
asio::awaitable<result<apply_answer>> pipeline_set::rollback(rollback_request request) {
  const auto live = find(request.name);
  if (!live) co_return live.error();
  const auto before = request.revision.value_or(revision_before((*live)->record()));
  if (before == 0) co_return error{errc::conflict, "there is no revision before the current one"};
  if (!request.revision && request.if_match.empty()) request.if_match = (*live)->record().etag;  // "before" is seen from this one
  auto wanted = revision(request.name, before);
  if (!wanted) co_return wanted.error();
  apply_request again{.name = std::move(request.name),
                      .text = std::move(wanted->text),
                      .media_type = std::move(wanted->media_type),
                      .origin = std::move(wanted->origin),
                      .if_match = std::move(request.if_match),
                      .dry_run = request.dry_run};
  co_return co_await apply(std::move(again));
}

asio::awaitable<void> pipeline_set::bring_to_life(pipeline_record record,
                                                      std::shared_ptr<const pipeline_revision> revision) {
  const auto known = live_.find(record.name);
  const auto live = known == live_.end() ? std::make_shared<live_pipeline>(around_, record.name) : known->second;
  const auto before = live->current();
  index_followers(record.name, before ? before->definition.get() : nullptr, revision->definition.get());
  const auto left_behind = co_await live->become(record, revision, around_.options.drain_timeout);
  live_[record.name] = live;
  for (const auto& sentence : left_behind) spdlog::warn("{}", sentence);
  share_pools();
  for (const auto& [name, topic] : revision->definition->topics) {
    if (!topic.retain && !topic.dedupe) continue;
    expiring_[name] = around_.offered.topics.find(name)->subscribe([wake = activity_](std::int64_t) { wake->notify(); });
  }
}

// A pool that several pipelines declare has the fewest slots that one of them gives it. One that none declares any more
// keeps what it had: runs that wait for it shall still end.
void pipeline_set::share_pools() {
  std::map<std::string, std::int64_t> fewest;
  for (const auto& [name, live] : live_) {
    for (const auto& [pool, slots] : live->current()->definition->pools) {
      const auto [known, fresh] = fewest.emplace(pool, slots);
      if (!fresh) known->second = std::min(known->second, slots);
    }
  }
  for (const auto& [pool, slots] : fewest) around_.room.limit_pool(pool, slots);
}

asio::awaitable<result<void>> pipeline_set::remove(std::string name, std::string if_match) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(name).enter();
  if (closed_) co_return stopping_error();
  if (unreadable_.contains(name)) {
    co_await around_.store.remove_pipeline(name);
    forget_unreadable(name);
    co_return result<void>{};
  }
  auto found = find(name);
  if (!found) co_return found.error();
  const auto live = *found;
  if (!if_match.empty() && !lists_etag(if_match, live->record().etag, etag_comparison::strong)) {
    co_return error{errc::precondition_failed, "the current ETag is " + live->record().etag + ", not " + if_match};
  }
  co_await around_.store.remove_pipeline(name);  // first: when the disk is full, nothing has changed
  live->retire_jobs();  // no trigger writes a row of it any more
  for (const auto& sentence : co_await stop_flows(around_, live->all_flows(), around_.options.drain_timeout,
                                                flow_state::stopped, unfinished_work::emit)) {
    spdlog::warn("{}", sentence);
  }
  co_await around_.offered.flows.forget(name + "/flow/");
  index_followers(name, live->current()->definition.get(), nullptr);
  const auto topics = topics_only_of(name);
  retired_jobs_.insert(retired_jobs_.end(), live->retired_jobs().begin(), live->retired_jobs().end());
  live_.erase(name);
  share_pools();
  for (const auto& topic : topics) {
    expiring_.erase(topic);
    around_.offered.topics.remove(topic);
  }
  around_.tallies.erase(name);
  tell(name, "removed");
  spdlog::info("pipeline {} is removed", name);
  co_return result<void>{};
}

bool pipeline_set::uses_topic(const live_pipeline& pipeline, const std::string& topic) const {
  if (pipeline.current()->definition->topics.contains(topic)) return true;
  return std::any_of(pipeline.flows().begin(), pipeline.flows().end(),
                     [&](const auto& flow) { return flow.second->reads_topic(topic); }) ||
         std::any_of(pipeline.jobs().begin(), pipeline.jobs().end(),
                     [&](const auto& job) { return job.second->cursor(topic).has_value(); });
}

// Topics that only this pipeline declares and nobody else reads.
std::vector<std::string> pipeline_set::topics_only_of(const std::string& name) const {
  std::vector<std::string> only;
  for (const auto& [topic, definition] : live_.at(name)->current()->definition->topics) {
    const bool elsewhere = std::any_of(live_.begin(), live_.end(), [&, wanted = topic](const auto& entry) {
      return entry.first != name && uses_topic(*entry.second, wanted);
    });
    const bool read_by_run =
        std::any_of(around_.unfinished.begin(), around_.unfinished.end(),
                    [wanted = topic](const auto& entry) { return entry.second->record().input.topic == wanted; });
    if (!elsewhere && !read_by_run) only.push_back(topic);
  }
  return only;
}

asio::awaitable<result<void>> pipeline_set::pause(std::string name) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(name).enter();
  if (closed_) co_return stopping_error();
  const auto live = find(name);
  if (!live) co_return live.error();
  co_await around_.store.set_paused(name, true);
  co_await (*live)->pause(around_.options.drain_timeout);
  tell(name, "paused");
  co_return result<void>{};
}

asio::awaitable<result<void>> pipeline_set::resume(std::string name) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(name).enter();
  if (closed_) co_return stopping_error();
  const auto live = find(name);
  if (!live) co_return live.error();
  co_await around_.store.set_paused(name, false);
  (*live)->resume();
  tell(name, "resumed");
  co_return result<void>{};
}

asio::awaitable<result<void>> pipeline_set::start_flow(std::string pipeline, std::string flow) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(pipeline).enter();
  if (closed_) co_return stopping_error();
  const auto found = find_flow(pipeline, flow);
  if (!found) co_return found.error();
  if (live_.at(pipeline)->record().paused) co_return error{errc::conflict, "pipeline '" + pipeline + "' is paused"};
  (*found)->start();
  co_return result<void>{};
}

asio::awaitable<result<void>> pipeline_set::stop_flow(std::string pipeline, std::string flow, unfinished_work what) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(pipeline).enter();
  if (closed_) co_return stopping_error();
  const auto found = find_flow(pipeline, flow);
  if (!found) co_return found.error();
  const auto limit = around_.options.drain_timeout;
  const bool paused = live_.at(pipeline)->record().paused;
  const bool ended = co_await (*found)->stop(limit, paused ? flow_state::paused : flow_state::stopped, what);
  if (ended) co_return result<void>{};
  co_return error{errc::unavailable, "flow " + flow + " did not end within " + format_duration(limit) + "; it ends by itself", {}, 5};
}

asio::awaitable<void> pipeline_set::write_down(std::string file, pipeline_record taken) {
  audit_record entry{.who = "file", .target = std::move(file), .pipeline = taken.name, .outcome = "done"};
  entry.detail = "revision " + std::to_string(taken.revision);
  co_await around_.audit.add(std::move(entry));
}

asio::awaitable<std::optional<error>> pipeline_set::apply_file(fs::path file) {
  try {
    apply_request request;
    request.text = read_file(file);
    request.media_type = media_type_of(file);
    request.origin = file.string();
    const auto applied = co_await apply(std::move(request));
    if (!applied) co_return applied.error();
    if (!applied->unchanged) co_await write_down(file.string(), applied->record);
    for (const auto& [name, live] : live_) {
      if (name == applied->record.name || live->record().origin != file.string()) continue;
      spdlog::warn("{} names pipeline {} now; pipeline {}, which it named before, goes on until it is deleted", file.string(),
                   applied->record.name, name);
    }
    co_return std::nullopt;
  } catch (const std::exception& e) {
    co_return error{errc::malformed, e.what()};
  }
}

// Of two files that name the same pipeline the one keeps it that had it first, while it is there and says so.
std::optional<error> pipeline_set::claimed_by_another_file(const std::string& name, const std::string& file) const {
  const auto live = live_.find(name);
  if (live == live_.end()) return std::nullopt;
  const std::string owner = live->second->record().origin;
  std::error_code unknown;
  if (owner == "rest" || owner == file || !fs::is_regular_file(owner, unknown)) return std::nullopt;
  const auto says = config::parse_pipeline(read_file(owner), around_.components.catalog(), {.file = owner});
  if (says && says->name != name) return std::nullopt;
  const std::string detail = "pipeline '" + name + "' is defined in " + owner + " already; give this one another name, or remove that file";
  return error{errc::conflict, detail, {{"/name", 0, 0, detail}}};
}

asio::awaitable<void> pipeline_set::take_up_files(fs::path folder) {
  const auto inside = fs::absolute(folder).lexically_normal();
  for (auto record : around_.store.pipelines()) {
    const fs::path file(record.origin);
    std::error_code unknown;
    if (file.parent_path() != inside || !is_definition_file(file) || !fs::is_regular_file(file, unknown)) continue;
    std::string text;
    try {
      text = read_file(file);
    } catch (const std::exception&) {
      continue;  // said when the folder is loaded, like all that is wrong
    }
    if (text == record.text) continue;
    const auto says = config::parse_pipeline(text, around_.components.catalog(), {.file = record.origin});
    if (!says || says->name != record.name) continue;
    const auto before = record.revision;
    const auto earlier = around_.store.revisions(record.name);
    record.text = std::move(text);
    record.media_type = media_type_of(file);
    record.updated_at = wall_now();
    record.revision = earlier.empty() ? 1 : earlier.front().revision + 1;
    record.etag = make_etag(record.revision, record.text);
    const auto stored = co_await around_.store.put_pipeline(record, before);
    if (!stored) continue;
    spdlog::info("pipeline {}: revision {}, from {}, which was changed meanwhile", record.name, record.revision, record.origin);
    co_await write_down(record.origin, *stored);
  }
}

asio::awaitable<void> pipeline_set::load_file(fs::path file) {
  auto failure = co_await apply_file(file);
  if (!failure) {
    broken_.erase(file.string());
    co_return;
  }
  if (failure->problems.empty()) failure->problems.push_back({"", 0, 0, failure->detail});
  for (const auto& p : failure->problems) spdlog::error("{}", config::describe(p, file.string()));
  broken_[file.string()] = std::move(failure->problems);
}

asio::awaitable<void> pipeline_set::load_folder(fs::path folder) {
  const auto pass = co_await loading_.enter();
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && is_definition_file(entry.path())) files.insert(fs::absolute(entry.path()).lexically_normal());
  }
  const auto inside = fs::absolute(folder).lexically_normal();
  std::erase_if(broken_, [&](const auto& one) {
    const fs::path file(one.first);
    return file.is_absolute() && file.parent_path() == inside && !files.contains(file);
  });
  for (auto file = files.begin(); file != files.end() && !closed_; ++file) co_await load_file(*file);
}

asio::awaitable<void> pipeline_set::load_files(std::vector<fs::path> files) {
  const auto pass = co_await loading_.enter();
  for (const auto& file : files) {
    if (closed_) break;
    std::error_code unknown;
    const auto named = fs::absolute(file).lexically_normal();
    if (fs::is_regular_file(named, unknown)) {
      co_await load_file(named);
    } else {
      broken_.erase(named.string());
    }
  }
}

std::string pipeline_set::hook_owner(const std::string& path) const {
  for (const auto& [name, live] : live_) {
    if (hooks_of(*live->current()->definition).contains(path)) return name;
  }
  return {};
}

std::vector<broken_file> pipeline_set::broken_files() const {
  std::vector<broken_file> all;
  for (const auto& [file, problems] : broken_) all.push_back({file, problems});
  return all;
}

void pipeline_set::tell(const std::string& name, const char* what) {
  around_.changes.add({.kind = "pipeline", .pipeline = name, .state = what});
}

void pipeline_set::forget_unreadable(const std::string& name) {
  const auto found = unreadable_.find(name);
  if (found == unreadable_.end()) return;
  broken_.erase(stored_name(found->second));
  unreadable_.erase(found);
}

// ---- runs of an earlier start ----

std::shared_ptr<job_supervisor> pipeline_set::retired_job(std::shared_ptr<const pipeline_revision> revision,
                                                          const std::string& job) {
  auto made = std::make_shared<job_supervisor>(around_, std::move(revision), job);
  retired_jobs_.push_back(made);
  return made;
}

asio::awaitable<void> pipeline_set::take_over(run_record record) {
  const auto stored = around_.store.revision(record.pipeline, record.revision);
  std::string reason = "its definition is gone";
  if (stored) {
    const auto revision = make_revision(*stored, around_.components.catalog(), around_.options.data);
    if (!revision) reason = "its definition can no longer be read: " + revision.error().detail;
    if (revision && (*revision)->definition->jobs.contains(record.job)) {
      if (record.tasks.empty()) record.tasks = around_.store.run(record.id)->tasks;
      const auto known = find_job(record.pipeline, record.job);
      const auto job = known ? *known : retired_job(*revision, record.job);
      if (!known) {
        for (const auto& [pool, slots] : (*revision)->definition->pools) around_.room.limit_pool(pool, slots);
        share_pools();  // those that a live pipeline declares have their own size
      }
      for (const auto& [name, topic] : (*revision)->definition->topics) {
        if (!around_.offered.topics.find(name)) around_.offered.topics.declare(topic);  // its input may be there
      }
      job->runs().take_over(std::move(record), *revision);
      if (!known) {
        job->retire();  // before it starts, so that its triggers make nothing
        job->start(false);
      }
      co_return;
    }
  }
  run_end end{.run = record.id, .state = run_state::failed, .reason = reason, .at = wall_now(), .tasks = record.tasks};
  record.state = end.state;
  record.reason = end.reason;
  record.ended_at = end.at;
  co_await around_.store.finish_run(std::move(end));
  co_await follow(std::move(record));
}

void pipeline_set::forget_idle_jobs() {
  const auto idle = std::partition(retired_jobs_.begin(), retired_jobs_.end(), [](const auto& job) { return !job->idle(); });
  std::set<std::string> left;
  for (auto at = idle; at != retired_jobs_.end(); ++at) left.insert((*at)->runs().pipeline());
  retired_jobs_.erase(idle, retired_jobs_.end());
  for (const auto& job : retired_jobs_) left.erase(job->runs().pipeline());
  for (const auto& name : left) {
    if (!live_.contains(name)) around_.room.forget_pipeline(name);
  }
}

}  // namespace penstock::scheduler
