// A webhook trigger: what is posted to /hooks/PATH becomes the input of a run. The sender's 202 says that the run is
// durable. One delivery, one run.
#include <memory>

#include <spdlog/spdlog.h>

#include "runtime/json.hpp"
#include "runtime/webhook_intake.hpp"
#include "runtime/webhooks.hpp"
#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {

namespace {

// On the control thread, as long as a request may still arrive: longer than the watch itself.
struct hook {
  std::shared_ptr<job_runs> runs;
  runtime::webhook_intake intake;
  std::string path;
  std::shared_ptr<runtime::replay_memory> seen;
  bool quiet = false;
};

// A delivery that its sender names makes one run, also after a restart: the name is kept as an idempotency key.
asio::awaitable<result<runtime::delivery_answer>> make_run(std::shared_ptr<hook> to, trace_context trace,
                                                            runtime::webhook_intake::posted one) {
  if (to->quiet || to->runs->stopping()) {
    co_return error{errc::unavailable, "job " + to->runs->job() + " takes no runs now: its pipeline is paused or leaving", {}, 5};
  }
  auto run = to->runs->draft(trigger_kind::webhook);
  run.trace = std::move(trace);
  run.input.type = run_input::kind::inline_events;
  run.input.events = static_cast<std::int64_t>(one.events.size());
  for (const auto& e : one.events.events) runtime::append_ndjson(run.input.ndjson, e);
  std::optional<idempotency> once;
  if (!one.id.empty()) {
    const std::string scope = to->runs->pipeline() + "/" + to->runs->job();
    once = idempotency{"delivery " + one.id + " to /hooks" + to->path, scope, "webhook"};
  }
  const auto made = co_await to->runs->make(std::move(run), std::move(once));
  if (!made) co_return made.error();
  if (made->existed) co_return runtime::delivery_answer{.accepted = 0, .duplicate = true};
  co_return runtime::delivery_answer{static_cast<std::int64_t>(one.events.size())};
}

asio::awaitable<result<runtime::delivery_answer>> receive(std::shared_ptr<hook> to, runtime::delivery d) {
  const auto header = [&d](const char* name) {
    const auto found = d.headers.find(name);
    return found == d.headers.end() ? std::string_view() : std::string_view(found->second);
  };
  runtime::webhook_intake::onward go_on = [to, trace = read_trace_context(header("traceparent"), header("tracestate"))](
                                              runtime::webhook_intake::posted one) {
    return make_run(to, trace, std::move(one));
  };
  co_return co_await to->intake.receive(std::move(d), to->seen, std::move(go_on));
}

class webhook_watch final : public trigger_watch {
 public:
  webhook_watch(surroundings& around, std::shared_ptr<job_runs> runs, const config::webhook_trigger& trigger)
      : around_(around), runs_(std::move(runs)), trigger_(trigger), key_(trigger_key(trigger)) {
    around_.offered.webhooks.reserve(trigger_.path);
  }
  ~webhook_watch() override {
    if (hook_) hook_->quiet = true;
    claim_.reset();
    around_.offered.webhooks.unreserve(trigger_.path);
  }

  asio::awaitable<void> open() override {
    const auto reveal = [this](const std::string& text) {
      const auto value = config::resolve_secrets(text, around_.offered.secrets);
      if (!value) throw std::runtime_error(value.error().detail);
      return *value;
    };
    hook_ = std::make_shared<hook>(hook{runs_, runtime::webhook_intake(trigger_.path, trigger_.signature, reveal),
                                        trigger_.path, around_.offered.webhooks.replays(trigger_.path)});
    auto claimed = around_.offered.webhooks.claim(trigger_.path, [to = hook_](runtime::delivery d) {
      return receive(to, std::move(d));
    });
    if (!claimed) throw std::runtime_error(claimed.error().detail);
    claim_ = std::move(*claimed);
    co_return;
  }

  asio::awaitable<when> advance(timestamp, bool quiet) override {
    if (hook_) hook_->quiet = quiet;
    co_return std::nullopt;
  }

  const std::string& key() const override { return key_; }

 private:
  surroundings& around_;
  const std::shared_ptr<job_runs> runs_;
  const config::webhook_trigger trigger_;
  const std::string key_;
  std::shared_ptr<hook> hook_;
  std::shared_ptr<void> claim_;
};

}  // namespace

std::unique_ptr<trigger_watch> make_webhook_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                                  const config::webhook_trigger& trigger) {
  return std::make_unique<webhook_watch>(around, std::move(runs), trigger);
}

}  // namespace penstock::scheduler
