#include "scheduler/late_starts.hpp"

#include <spdlog/spdlog.h>

#include <vector>

#include "scheduler/live_run.hpp"

namespace penstock::scheduler {

using steady = std::chrono::steady_clock;

late_starts::late_starts(asio::any_io_executor control, store& state)
    : store_(state), added_(std::make_shared<runtime::wakeup>(std::move(control))) {}

void late_starts::add(std::shared_ptr<live_run> run) {
  waiting_.push_back({std::move(run), steady::now() + patience});
  if (waiting_.size() == 1) added_->notify();
}

void late_starts::stop() {
  stopping_ = true;
  added_->notify();
}

asio::awaitable<void> late_starts::run() {
  while (!stopping_) {
    while (!waiting_.empty() && !waiting_.front().run->unstored_start()) waiting_.pop_front();  // ended, nearly always
    if (waiting_.empty()) {
      co_await added_->wait();
    } else if (steady::now() < waiting_.front().due) {
      co_await added_->wait_until(waiting_.front().due);
    } else {
      co_await store_due();
    }
  }
}

// When the store fails, a run that ends meanwhile stores it; the others are tried again, before those that came later.
asio::awaitable<void> late_starts::store_due() {
  std::vector<std::shared_ptr<live_run>> due;
  std::vector<late_start> rows;
  while (!waiting_.empty() && waiting_.front().due <= steady::now()) {
    auto run = std::move(waiting_.front().run);
    waiting_.pop_front();
    if (!run->unstored_start()) continue;
    rows.push_back({run->record().id, *run->unstored_start()});
    due.push_back(std::move(run));
  }
  try {
    co_await store_.start_attempts(std::move(rows));
    for (const auto& run : due) run->start_stored();
    co_return;
  } catch (const std::exception& e) {
    spdlog::error("the starts of {} runs cannot be stored, trying again in 1 s: {}", due.size(), e.what());
  }
  const auto again = steady::now() + std::chrono::seconds(1);
  while (!stopping_ && steady::now() < again) co_await added_->wait_until(again);
  for (auto run = due.rbegin(); run != due.rend(); ++run) waiting_.push_front({std::move(*run), again});
}

}  // namespace penstock::scheduler
