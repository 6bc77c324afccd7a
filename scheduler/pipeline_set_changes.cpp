// Changes of pipelines: what a new definition would do and does, going back to an earlier one, removal.
#include "scheduler/pipeline_set.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "config/kept_state.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/flow_store.hpp"
#include "scheduler/etag.hpp"
#include "scheduler/hook_secrets.hpp"
#include "scheduler/plan.hpp"

namespace penstock::scheduler {

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
  auto problems = names_.conflicts(next);
  if (problems.empty()) problems = passing_.conflicts(next);
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
  if (!live && request.origin == "rest") runtime::make_names_durable(around_.options.data / "work");
  passing_.define(name, (*revision)->definition);
  const auto arrived = [this, name](void*) { passing_.define(name, nullptr); };
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
  std::vector<std::string> new_topics;
  for (const auto& [topic, declared] : (*revision)->definition->topics) {
    if (!names_.declares_topic(topic)) new_topics.push_back(topic);
  }
  co_await bring_to_life(record, *revision);
  live_.at(name)->start_jobs();
  for (const auto& topic : new_topics) {
    for (const auto& [pipeline, job] : names_.triggered_by(topic)) {
      if (const auto waits = find_job(pipeline, job)) (*waits)->topics_declared();
    }
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
  if (before) {
    passing_.define(record.name, before->definition);
    of_file_[live->record().origin].erase(record.name);
  }
  names_.define(record.name, revision->definition);
  const auto left_behind = co_await live->become(record, revision, around_.options.drain_timeout);
  live_[record.name] = live;
  of_file_[record.origin].insert(record.name);
  for (const auto& sentence : left_behind) spdlog::warn("{}", sentence);
  if (before) share_pools(*before->definition);
  share_pools(*revision->definition);
  for (const auto& [name, topic] : revision->definition->topics) {
    if (!topic.retain && !topic.dedupe) continue;
    expiring_[name] = around_.offered.topics.find(name)->subscribe([wake = activity_](std::int64_t) { wake->notify(); });
  }
}

// A pool that several pipelines declare has the fewest slots that one of them gives it. One that none declares any more
// keeps what it had: runs that wait for it shall still end.
void pipeline_set::share_pools(const config::pipeline& definition) {
  for (const auto& [pool, slots] : definition.pools) {
    if (const auto fewest = names_.slots(pool); fewest > 0) around_.room.limit_pool(pool, fewest);
  }
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
  names_.define(name, nullptr);
  of_file_[live->record().origin].erase(name);
  const auto topics = topics_only_of(name);
  retired_jobs_.insert(retired_jobs_.end(), live->retired_jobs().begin(), live->retired_jobs().end());
  live_.erase(name);
  share_pools(*live->current()->definition);
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
    const bool wanted_soon = passing_.declares_topic(topic);  // by a definition that is on its way
    if (!elsewhere && !read_by_run && !wanted_soon) only.push_back(topic);
  }
  return only;
}

}  // namespace penstock::scheduler
