// from: webhook - events posted to /hooks/PATH; the sender gets its answer when they are safe downstream.
//
// Two threads meet here. The receiver runs on the control thread: it checks and reads what was posted
// (webhook_intake, which also knows replays) and waits in the delivery_queue; the source runs on its flow's strand and takes all that
// waits as one batch, so many senders share one commit. Every delivery that enters the queue is answered:
// accepted, or `unavailable` when the flow failed, stopped or was destroyed first. Events have no positions:
// after `unavailable` the sender tries again.
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <nlohmann/json.hpp>

#include "config/signature_field.hpp"
#include "runtime/components/all.hpp"
#include "runtime/wakeup.hpp"
#include "runtime/webhook_intake.hpp"
#include "runtime/webhooks.hpp"

namespace penstock::runtime::components::webhook_source {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "webhook",
      .doc =
          "Events posted to /hooks/PATH: a JSON value, an array, NDJSON, or CloudEvents (binary, structured, "
          "batch). "
          "The answer comes when they are safe downstream. One flow receives at a path.",
      .settings = {.name = "webhook",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "path",
                                 .type = field_type::string,
                                 .doc = "Where below /hooks; begins with a slash.",
                                 .required = true,
                                 .example = "/orders"},
                                config::signature_field(),
                                {.name = "queue",
                                 .type = field_type::integer,
                                 .doc = "Events that may wait; beyond it senders get 429 with Retry-After.",
                                 .fallback = "10000",
                                 .minimum = 1}},
                   .shorthand = "path"},
      .examples = {"webhook: /orders",
                   "webhook: {path: /orders, signature: {header: X-Webhook-Signature, secret: "
                   "\"${env:WEBHOOK_SECRET}\"}}",
                   "webhook: {path: /github, signature: {scheme: github, secret: \"${secret:github}\"}}",
                   "webhook: {path: /billing, signature: {scheme: standard, secrets: [\"${secret:billing}\", "
                   "\"${secret:billing_old}\"]}}"},
      .bounded = false,
      .live = true,
  };
}

struct settings {
  webhook_intake intake;
  std::string path;
  std::size_t queue;
  std::shared_ptr<replay_memory> seen;
};

settings parse(const config::value& v, const component_context& context) {
  const std::string path = v.at("path").get<std::string>();
  const auto signature = v.find("signature");
  const auto reveal = [&context](const std::string& text) { return context.reveal(text); };
  return {webhook_intake(path, signature == v.end() ? config::value() : *signature, reveal), path,
          v.value("queue", std::size_t{10'000}), context.services.webhooks.replays(path)};
}

// ---------------------------------------------------------------------------------------------------------------
// Between the threads

// Deliveries on their way: waiting to be taken, then in flight until their batch is settled. Any thread;
// shared by the source and by receivers that may outlive it.
class delivery_queue {
 public:
  using completion = std::function<void(result<delivery_answer>)>;

  delivery_queue(std::size_t limit, std::shared_ptr<wakeup> arrived)
      : limit_(limit), arrived_(std::move(arrived)) {}

  // `done` is called exactly once, on any thread; it must only post.
  void submit(batch events, completion done) {
    if (const std::optional<error> refused = enter(events, done)) return done(*refused);
    arrived_->notify();
  }

  // All that waits, up to about `most` events, as one batch; nothing when nothing waits.
  std::optional<batch> take(std::size_t most) {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) return std::nullopt;
    batch events;
    do {
      waiting& next = waiting_.front();
      in_flight_.push_back({next.events.size(), std::move(next.done)});
      events.append(std::move(next.events));
      waiting_.pop_front();
    } while (!waiting_.empty() && events.size() + waiting_.front().events.size() <= most);
    return events;
  }

  // Answers what was taken: safe, or the reason why not.
  void settle(const std::optional<error>& failure) {
    std::vector<taken> settled;
    {
      const std::lock_guard lock(mutex_);
      settled.swap(in_flight_);
      for (const taken& one : settled) held_ -= one.events;
    }
    for (const taken& one : settled) {
      if (failure) {
        one.done(*failure);
      } else {
        one.done(delivery_answer{static_cast<std::int64_t>(one.events)});
      }
    }
  }

  // What waits may still be taken; nothing more comes in.
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }

  // Stops and answers everything with `reason`.
  void abandon(const error& reason) {
    std::deque<waiting> left;
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      left.swap(waiting_);
    }
    for (const waiting& one : left) one.done(reason);
    settle(reason);
  }

 private:
  struct waiting {
    batch events;
    completion done;
  };
  struct taken {
    std::size_t events;
    completion done;
  };

  std::optional<error> enter(batch& events, completion& done) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return error{errc::unavailable, "the flow is stopping", {}, 1};
    // One that is larger than the queue itself may pass alone; else it never could.
    if (held_ > 0 && held_ + events.size() > limit_) {
      return error{errc::overloaded, std::to_string(held_) + " events are waiting already", {}, 1};
    }
    held_ += events.size();
    waiting_.push_back({std::move(events), std::move(done)});
    return std::nullopt;
  }

  const std::size_t limit_;
  const std::shared_ptr<wakeup> arrived_;
  std::mutex mutex_;
  std::deque<waiting> waiting_;
  std::vector<taken> in_flight_;
  std::size_t held_ = 0;  // events in both
  bool stopped_ = false;
};

// Suspends the receiver until its events are settled; resumes it on its own executor.
asio::awaitable<result<delivery_answer>> until_settled(std::shared_ptr<delivery_queue> queue,
                                                       batch delivered) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(result<delivery_answer>)>(
      [queue = std::move(queue)](auto handler, batch events) {
        auto executor = asio::get_associated_executor(handler);
        auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        auto guard = asio::make_work_guard(executor);
        queue->submit(std::move(events), [shared, executor, guard](result<delivery_answer> answer) {
          asio::post(executor, [shared, answer] { std::move (*shared)(answer); });
        });
      },
      asio::use_awaitable, std::move(delivered));
}

asio::awaitable<result<delivery_answer>> receive(std::shared_ptr<const settings> s,
                                                 std::shared_ptr<delivery_queue> queue, delivery d) {
  webhook_intake::onward go_on = [queue](webhook_intake::posted one) {
    return until_settled(queue, std::move(one.events));
  };
  co_return co_await s->intake.receive(std::move(d), s->seen, std::move(go_on));
}

class webhook_source final : public source {
 public:
  webhook_source(settings s, const component_context& context)
      : settings_(std::make_shared<const settings>(std::move(s))),
        webhooks_(context.services.webhooks),
        arrived_(std::make_shared<wakeup>(context.executor)),
        queue_(std::make_shared<delivery_queue>(settings_->queue, arrived_)) {}

  ~webhook_source() override {
    claim_.reset();
    queue_->abandon(error{errc::unavailable, "the flow has stopped", {}, 1});
  }

  asio::awaitable<void> open(std::int64_t) override {
    auto take = [s = settings_, queue = queue_](delivery d) { return receive(s, queue, std::move(d)); };
    result<std::shared_ptr<void>> claimed = webhooks_.claim(settings_->path, std::move(take));
    if (!claimed) throw std::runtime_error(claimed.error().detail);
    claim_ = std::move(*claimed);
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (true) {
      std::optional<batch> events = queue_->take(most);
      if (events || stopped_) co_return std::move(events);
      co_await arrived_->wait();
    }
  }

  void acknowledge(std::int64_t) override { queue_->settle(std::nullopt); }

  // The reason is the operator's affair, not the sender's.
  void reject(const std::string&) override {
    queue_->abandon(error{errc::unavailable, "the flow failed before the events were safe", {}, 1});
  }

  void stop_input() override {
    stopped_ = true;
    queue_->stop();
    arrived_->notify();
  }

 private:
  std::shared_ptr<const settings> settings_;
  webhooks& webhooks_;
  std::shared_ptr<wakeup> arrived_;
  std::shared_ptr<delivery_queue> queue_;
  std::shared_ptr<void> claim_;
  bool stopped_ = false;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<webhook_source>(parse(v, context), context);
        }));
}

}  // namespace penstock::runtime::components::webhook_source
