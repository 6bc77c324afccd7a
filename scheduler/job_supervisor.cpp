#include "scheduler/job_supervisor.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "scheduler/background.hpp"
#include "scheduler/due_time.hpp"

namespace penstock::scheduler {

job_supervisor::job_supervisor(surroundings& around, std::shared_ptr<const pipeline_revision> revision, std::string job)
    : around_(around),
      name_(revision->name + "/" + job),
      changed_(std::make_shared<runtime::wakeup>(around.where.control)),
      runs_(std::make_shared<job_runs>(around, std::move(revision), std::move(job), changed_)) {}

// ---- life ----

void job_supervisor::start(bool paused) {
  if (alive_) return;
  paused_ = paused;
  alive_ = true;
  runs_->watch_open = [this](const std::shared_ptr<live_run>& run) {
    return std::any_of(watches_.begin(), watches_.end(), [&run](const auto& w) { return w.watch->watch_open(run); });
  };
  in_background(around_.where.control, "job " + name_, watch_triggers());
}

void job_supervisor::redefine(std::shared_ptr<const pipeline_revision> revision) {
  runs_->redefine(std::move(revision));
  redefined_ = true;
  changed_->notify();
}

void job_supervisor::topics_declared() {
  if (std::none_of(watches_.begin(), watches_.end(), [](const auto& w) { return w.watch->misses_topic(); })) return;
  redefined_ = true;
  changed_->notify();
}

void job_supervisor::clock_was_set() {
  runs_->clock_was_set();
  changed_->notify();
}

void job_supervisor::pause(bool paused) {
  paused_ = paused;
  changed_->notify();
}

void job_supervisor::retire() {
  retired_ = true;
  changed_->notify();
}

void job_supervisor::stop() {
  stopping_ = true;
  runs_->stop();
  changed_->notify();
}

bool job_supervisor::over() const { return stopping_ || (retired_ && !redefined_ && watches_.empty() && runs_->idle()); }

asio::awaitable<void> job_supervisor::watch_triggers() {
  const auto self = shared_from_this();
  while (!over()) {
    when next;
    try {
      next = co_await advance();
    } catch (const std::exception& e) {
      spdlog::error("job {}: {}; looking again in 1 s", name_, e.what());
      next = wall_now() + std::chrono::seconds(1);
    }
    if (over()) break;
    if (next) {
      // Whoever has something to do at once lets all others have their turn first.
      if (*next <= wall_now()) co_await asio::post(around_.where.control, asio::use_awaitable);
      co_await changed_->wait_until(steady_time(*next));
    } else {
      co_await changed_->wait();
    }
  }
  watches_.clear();
  runs_->watch_open = nullptr;
  alive_ = false;
}

// One look at everything that could be done now.
asio::awaitable<job_supervisor::when> job_supervisor::advance() {
  if (redefined_) make_watches();
  if (!std::exchange(opened_, true)) {
    for (std::size_t i = 0; i < watches_.size(); ++i) co_await open(watches_[i]);
    co_await close_unwatched();
  }
  if (retired_) std::erase_if(watches_, [](const auto& w) { return !w.open && !w.watch->busy(); });  // they open no more
  when next;
  for (std::size_t i = 0; i < watches_.size(); ++i) {
    if (stopping_ || redefined_) co_return wall_now();
    auto& w = watches_[i];
    w.last_look = retired_ ? !w.watch->busy() : w.leaving && !w.watch->irreplaceable();
    next = earlier(next, co_await advance(w));
  }
  std::erase_if(watches_, [](const auto& w) { return w.last_look; });
  co_return next;
}

asio::awaitable<void> job_supervisor::open(watched& w) {
  try {
    co_await w.watch->open();
    w.open = true;
  } catch (const std::exception& e) {
    w.trouble = e.what();
    spdlog::error("job {}: trigger {}: {}; trying again every second", name_, w.watch->key(), w.trouble);
  }
}

// One trigger that cannot work now (a secret is missing) keeps no other from working.
asio::awaitable<job_supervisor::when> job_supervisor::advance(watched& w) {
  std::string trouble;
  try {
    if (!w.open) co_await w.watch->open();
    w.open = true;
    when next = co_await w.watch->advance(wall_now(), paused_ || retired_ || w.leaving);
    w.trouble.clear();
    co_return next;
  } catch (const std::exception& e) {
    trouble = e.what();
  }
  if (trouble != w.trouble) spdlog::error("job {}: trigger {}: {}; trying again every second", name_, w.watch->key(), trouble);
  w.trouble = std::move(trouble);
  w.open = false;  // where it stands is read again, and it holds no room meanwhile
  co_return wall_now() + std::chrono::seconds(1);
}

void job_supervisor::make_watches() {
  redefined_ = false;
  opened_ = false;
  const auto revision = runs_->revision();
  const auto& triggers = revision->definition->jobs.at(runs_->job()).triggers;
  // What they asked for is given back before the new ones ask.
  std::erase_if(watches_, [&triggers](const watched& w) {
    const auto is_its = [&w](const auto& trigger) { return trigger_key(trigger) == w.watch->key(); };
    return !w.watch->irreplaceable() || std::any_of(triggers.begin(), triggers.end(), is_its);
  });
  for (auto& w : watches_) w.leaving = true;
  for (const auto& trigger : triggers) {
    if (retired_ && !std::holds_alternative<config::file_trigger>(trigger)) continue;  // only to put files away
    if (auto watch = make_watch(around_, runs_, trigger, changed_)) watches_.push_back({std::move(watch)});
  }
}

// A claim that is open and whose trigger is gone would never be closed by anybody.
asio::awaitable<void> job_supervisor::close_unwatched() {
  for (const auto& run : runs_->executing()) {
    if (!run->record().input.open || runs_->watch_open(run)) continue;
    co_await around_.store.close_input(run->record().id);
    run->close_input();
  }
}

// ---- what is shown ----

std::optional<std::int64_t> job_supervisor::cursor(const std::string& topic) const {
  for (const auto& w : watches_) {
    if (const auto cursor = w.watch->cursor(topic)) return cursor;
  }
  return std::nullopt;
}

job_view job_supervisor::view() const {
  job_view v;
  v.name = runs_->job();
  v.queued = runs_->waiting();
  v.running = runs_->running();
  for (const auto& trigger : definition().triggers) v.triggers.push_back(in_words(trigger));
  for (const auto& w : watches_) {
    v.next_firing = earlier(v.next_firing, w.watch->next_firing());
    v.expression_failures += w.watch->expression_failures();
    if (!w.trouble.empty()) v.troubles.push_back(w.watch->key() + ": " + w.trouble);
  }
  if (const auto pipeline = around_.tallies.find(runs_->pipeline()); pipeline != around_.tallies.end()) {
    if (const auto job = pipeline->second.find(v.name); job != pipeline->second.end()) v.since_start = job->second;
  }
  return v;
}

}  // namespace penstock::scheduler
