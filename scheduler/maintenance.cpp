#include "scheduler/maintenance.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>

#include "runtime/topic.hpp"
#include "scheduler/due_time.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;
using std::chrono::microseconds;

constexpr std::chrono::seconds pause_between{60};
constexpr std::size_t runs_at_once = 1000;

}  // namespace

maintenance::maintenance(surroundings& around, pipeline_set& pipelines, std::shared_ptr<runtime::wakeup> activity)
    : around_(around),
      pipelines_(pipelines),
      activity_(std::move(activity)),
      stopped_(std::make_shared<runtime::wakeup>(around.where.control)) {}

void maintenance::stop() {
  stopping_ = true;
  activity_->notify();
  stopped_->notify();
}

asio::awaitable<void> maintenance::run() {
  while (!stopping_) {
    std::optional<timestamp> next;
    try {
      next = co_await clean_up(wall_now());
    } catch (const std::exception& e) {
      spdlog::error("clean-up: {}", e.what());
      next = wall_now();
    }
    if (next) {
      co_await activity_->wait_until(steady_time(*next));
    } else {
      co_await activity_->wait();
    }
    co_await stopped_->wait_until(steady::now() + pause_between);  // one clean-up for what gathers meanwhile
  }
}

// Returns when to look again; nothing: after the next activity.
asio::awaitable<std::optional<timestamp>> maintenance::clean_up(timestamp now) {
  std::map<std::string, config::topic> expiring;  // by name: pipelines share topics
  for (const auto& [name, live] : pipelines_.live()) {
    for (const auto& [topic, definition] : live->current()->definition->topics) {
      if (definition.retain || definition.dedupe) expiring.emplace(topic, definition);
    }
  }
  std::optional<timestamp> next;
  for (const auto& [topic, definition] : expiring) next = earlier(next, co_await retain(definition, now));
  co_await prune(now);
  pipelines_.forget_idle_jobs();
  co_return next;
}

asio::awaitable<std::optional<timestamp>> maintenance::retain(const config::topic& definition, timestamp now) {
  const auto topic = around_.offered.topics.find(definition.name);
  if (!topic) co_return std::nullopt;
  const auto removed = co_await topic->retain(now, needed_after(definition.name));
  if (!definition.retain) co_return std::nullopt;  // only its dedupe keys expire
  if (removed > 0) {
    spdlog::info("topic {}: {} events older than {} removed", definition.name, removed, format_duration(*definition.retain));
  }
  const auto first = topic->status().first_offset;
  const auto oldest = first == 0 ? std::nullopt : topic->received_at(first);
  if (!oldest) co_return std::nullopt;
  co_return *oldest + std::chrono::duration_cast<microseconds>(*definition.retain);
}

asio::awaitable<void> maintenance::prune(timestamp now) {
  const auto before = now - std::chrono::duration_cast<microseconds>(around_.options.keep_for);
  std::vector<history> own_rules;
  for (const auto& [name, live] : pipelines_.live()) {
    for (const auto& [job, definition] : live->current()->definition->jobs) {
      const auto& keep = definition.history;
      if (!keep.runs && !keep.within) continue;
      own_rules.push_back({name, job, keep.runs, std::nullopt});
      if (keep.within) own_rules.back().before = now - std::chrono::duration_cast<microseconds>(*keep.within);
    }
  }
  const auto pruned = co_await around_.store.prune_runs(before, around_.options.keep_runs, std::move(own_rules));
  for (const auto& run : pruned) {
    std::error_code ignored;
    std::filesystem::remove_all(around_.options.data / "logs" / run, ignored);
  }
}

// Up to here nobody needs the topic's events any more.
std::int64_t maintenance::needed_after(const std::string& topic) const {
  auto floor = std::numeric_limits<std::int64_t>::max();
  for (const auto& consumer : pipelines_.consumers(topic)) floor = std::min(floor, consumer.cursor);
  for (const auto& [id, run] : around_.unfinished) {
    if (run->record().input.topic == topic) floor = std::min(floor, run->record().input.after);
  }
  // The input of a run that is a dead letter is kept until it is replayed or discarded, as far as there is any of it.
  std::optional<std::int64_t> first;
  const auto first_kept = [&] {
    const auto read = around_.offered.topics.find(topic);
    if (!first) first = read ? read->status().first_offset : 0;
    return *first;
  };
  std::string after_id;
  for (;;) {
    const auto dead = around_.store.dead_runs("", after_id, runs_at_once);
    for (const auto& run : dead) {
      if (run.input.topic == topic && run.input.until >= first_kept()) floor = std::min(floor, run.input.after);
    }
    if (dead.size() < runs_at_once) return floor;
    after_id = dead.back().id;
  }
}

}  // namespace penstock::scheduler
