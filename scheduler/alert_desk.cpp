#include "scheduler/alert_desk.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>

#include "scheduler/background.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;

constexpr int most_attempts = 10;  // with the pauses: about 17 minutes
constexpr std::size_t at_once = 16;

timestamp next_try(int attempts) {
  const config::retry_rule rule{.attempts = most_attempts,
                                .backoff_first = std::chrono::seconds(1),
                                .backoff_limit = std::chrono::minutes(5),
                                .exit_codes = {},
                                .not_exit_codes = {},
                                .budget = {}};
  return wall_now() + std::chrono::duration_cast<std::chrono::microseconds>(backoff(rule, attempts + 1, 0));
}

// On the strand: everything that the sink does.
asio::awaitable<void> write_one(std::unique_ptr<runtime::sink> to, std::shared_ptr<const runtime::batch> events) {
  co_await to->open("");
  const auto written = co_await to->write(events);
  co_await to->close();
  if (!written.refused.empty()) throw std::runtime_error("refused: " + written.refused.front().reason);
}

}  // namespace

void alert_desk::stop() {
  stopping_ = true;
  around_.alerts_wait->notify();
}

asio::awaitable<void> alert_desk::run() {
  while (!stopping_) {
    std::optional<timestamp> next;
    try {
      const auto now = wall_now();
      for (auto& alert : around_.store.alerts(not_before_.size() + at_once)) {
        const auto [known, fresh] = not_before_.emplace(alert.id, timestamp::max());
        if (!fresh && known->second > now) {
          if (known->second != timestamp::max()) next = std::min(next.value_or(known->second), known->second);
          continue;
        }
        known->second = timestamp::max();
        const std::string name = "alert " + alert.id;
        in_background(around_.where.control, name, deliver(std::move(alert)));
      }
    } catch (const std::exception& e) {
      spdlog::error("alerts: {}", e.what());
      next = wall_now() + std::chrono::seconds(10);
    }
    if (next) {
      co_await around_.alerts_wait->wait_until(steady::now() + std::chrono::duration_cast<steady::duration>(*next - wall_now()));
    } else {
      co_await around_.alerts_wait->wait();
    }
  }
}

asio::awaitable<void> alert_desk::finish(std::chrono::nanoseconds patience) {
  const auto deadline = steady::now() + std::chrono::duration_cast<steady::duration>(patience);
  bool in_time = true;
  while (on_their_way_ > 0 && in_time) in_time = co_await delivered_->wait_until(deadline);
}

asio::awaitable<void> alert_desk::deliver(alert_record alert) {
  ++on_their_way_;
  const auto count_off = [this](void*) {
    --on_their_way_;
    delivered_->notify();
  };
  const std::shared_ptr<void> until_here(nullptr, count_off);
  std::string failure;
  try {
    co_await hand_over(alert);
  } catch (const std::exception& e) {
    failure = *e.what() ? e.what() : "it did not say why";
  }
  if (stopping_ && !failure.empty()) co_return;  // it is still in the store
  const int attempts = alert.attempts + 1;
  try {
    if (failure.empty()) {
      co_await around_.store.settle_alert(alert.id);
      not_before_.erase(alert.id);
    } else if (attempts >= most_attempts) {
      co_await bury(alert, failure);
      not_before_.erase(alert.id);
    } else {
      spdlog::warn("alert of run {} ({}) cannot be delivered, attempt {} of {}: {}", alert.run, alert.kind, attempts,
                   most_attempts, failure);
      co_await around_.store.alert_failed(alert.id, attempts, failure);
      not_before_[alert.id] = next_try(attempts);
    }
  } catch (const std::exception& e) {
    spdlog::error("alert {}: {}", alert.id, e.what());
    not_before_[alert.id] = wall_now() + std::chrono::seconds(10);
  }
  around_.alerts_wait->notify();
}

std::shared_ptr<const pipeline_revision> alert_desk::revision_of(const alert_record& alert) const {
  const auto live = pipelines_.live().find(alert.pipeline);
  if (live != pipelines_.live().end() && live->second->current()->revision == alert.revision) return live->second->current();
  const auto stored = around_.store.revision(alert.pipeline, alert.revision);
  if (!stored) throw std::runtime_error("its definition is gone");
  auto made = make_revision(*stored, around_.components.catalog(), around_.options.data);
  if (!made) throw std::runtime_error("its definition can no longer be read: " + made.error().detail);
  return *made;
}

asio::awaitable<void> alert_desk::hand_over(const alert_record& alert) {
  const auto revision = revision_of(alert);
  const auto& to = revision->definition->jobs.at(alert.job).alerts.at(static_cast<std::size_t>(alert.index)).to;
  const asio::any_io_executor strand = asio::make_strand(around_.where.batch);
  const runtime::component_context context{around_.offered,   alert.pipeline, alert.pipeline + "/job/" + alert.job + "/alert",
                                           revision->workdir, strand,         nullptr};
  auto events = std::make_shared<runtime::batch>();
  runtime::event e;
  e.id = events->keep(alert.id);
  e.source = events->keep("/pipelines/" + alert.pipeline + "/jobs/" + alert.job);
  e.type = events->keep("penstock.run." + alert.kind);
  e.subject = events->keep(alert.run);
  e.data = events->keep(alert.payload);
  e.time = alert.created_at;
  events->events.push_back(e);
  auto work = write_one(around_.components.sink_of(to, context), std::move(events));
  co_await asio::co_spawn(strand, std::move(work), asio::use_awaitable);
}

asio::awaitable<void> alert_desk::bury(const alert_record& alert, std::string reason) {
  spdlog::error("alert of run {} ({}) is given up after {} attempts: {}", alert.run, alert.kind, most_attempts, reason);
  runtime::commit done;
  done.consumer = alert.pipeline + "/job/" + alert.job + "/alert";
  runtime::dead_letter letter;
  letter.id = alert.id;
  letter.pipeline = alert.pipeline;
  letter.consumer = done.consumer;
  letter.step = "alert";
  letter.reason = std::move(reason);
  letter.attempts = most_attempts;
  letter.at = wall_now();
  letter.event_id = alert.id;
  letter.source = "/pipelines/" + alert.pipeline + "/jobs/" + alert.job;
  letter.type = "penstock.run." + alert.kind;
  letter.data = alert.payload;
  letter.event_time = alert.created_at;
  done.dead.push_back(std::move(letter));
  co_await around_.offered.flows.save(std::move(done));
  co_await around_.store.settle_alert(alert.id);
}

}  // namespace penstock::scheduler
