// See commit_queue.hpp. One posted function at a time works through what waits; it posts itself again while
// there is more, so that queues which share a pool take turns.
#include "runtime/commit_queue.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "runtime/machine_failure.hpp"

namespace penstock::runtime {
namespace {

// Pieces in one transaction at most: bounds how long the first of them waits for the last.
constexpr std::size_t group_limit = 1000;
// Pages in the log from which on it is folded into the file when nothing waits (as many as SQLite has; of the usual size, 4 MiB).
constexpr int fold_at = 1000;
// With so many more it is folded also before what waits.
constexpr int fold_patience = 500;
// One that did not start over after it was folded is folded again after so many pages, then twice as many, up to fold_at.
constexpr int first_fold_pause = 100;

struct item {
  commit_queue::work piece;
  commit_queue::completion done;
  std::exception_ptr failure{};
};

// The open connection with the statements that frame a group.
// When the log is folded next, as long as it does not start over.
struct fold_plan {
  int log_starts = 0;            // it is about this log: see log_state
  int next = fold_at;            // at so many pages in it
  int pause = first_fold_pause;  // pages from then until the next time
};

struct session {
  explicit session(sqlite::connection opened)
      : db(std::move(opened)),
        begin(db, "BEGIN IMMEDIATE"),
        commit(db, "COMMIT"),
        savepoint(db, "SAVEPOINT piece"),
        keep(db, "RELEASE piece"),
        undo(db, "ROLLBACK TO piece") {
    db.fold_log_by_hand();
  }

  sqlite::connection db;
  sqlite::statement begin, commit, savepoint, keep, undo;
  fold_plan fold;
};

std::string text_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "unknown";
  }
}

// What the machine has done to a group; nothing: it is not to blame.
std::optional<std::string> trouble_of(const std::vector<item>& group, const std::exception_ptr& reason) {
  std::exception_ptr found = machine_failure(reason).empty() ? nullptr : reason;
  for (std::size_t i = 0; i < group.size() && !found; ++i) {
    if (group[i].failure && !machine_failure(group[i].failure).empty()) found = group[i].failure;
  }
  if (!found) return std::nullopt;
  return machine_failure(found) + " (" + text_of(found) + ")";
}

}  // namespace

struct commit_queue::state : std::enable_shared_from_this<commit_queue::state> {
  asio::any_io_executor executor;
  std::function<sqlite::connection()> open;
  std::function<void()> committed;
  std::function<void()> undone;
  std::shared_ptr<commit_pause> pause;

  std::mutex mutex;
  std::condition_variable rested;
  std::deque<item> waiting;  // guarded by mutex
  bool working = false;      // guarded by mutex: a function is posted or running
  bool closed = false;       // guarded by mutex
  std::optional<std::string> trouble{};  // guarded by mutex

  std::unique_ptr<session> current;  // used on the executor only, and by close() after the last work
  std::string fold_failure{};        // empty: that worked; executor

  void start() {
    asio::post(executor, [self = shared_from_this()] { self->work_once(); });
  }

  void work_once() {
    bool stored = false;
    {
      const commit_pause::entry inside(pause.get());
      std::vector<item> group = take_group();
      const std::exception_ptr reason = run_group(group);
      stored = reason == nullptr;
      finish(group, reason);
    }
    if (stored) fold_log();
    go_on();
  }

  void rest_now(const std::function<void()>& before) {
    before();
    current.reset();
    go_on();
  }

  void go_on() {
    std::unique_lock lock(mutex);
    if (!waiting.empty()) {
      lock.unlock();
      start();
      return;
    }
    working = false;
    rested.notify_all();
  }

  std::vector<item> take_group() {
    const std::lock_guard lock(mutex);
    const auto size = static_cast<std::ptrdiff_t>(std::min(waiting.size(), group_limit));
    std::vector<item> group(std::make_move_iterator(waiting.begin()),
                            std::make_move_iterator(waiting.begin() + size));
    waiting.erase(waiting.begin(), waiting.begin() + size);
    return group;
  }

  // One transaction. Returns what kept the group as a whole from being stored, or nothing.
  std::exception_ptr run_group(std::vector<item>& group) {
    try {
      if (!current) current = std::make_unique<session>(open());
      current->begin.run();
      if (group.size() == 1) {
        group.front().piece(current->db);
      } else {
        for (item& one : group) run_in_savepoint(one);
      }
      current->commit.run();
      return nullptr;
    } catch (...) {
      auto reason = std::current_exception();
      roll_back();
      return reason;
    }
  }

  void run_in_savepoint(item& one) {
    current->savepoint.run();
    try {
      one.piece(current->db);
    } catch (...) {
      one.failure = std::current_exception();
      // A full disk can make SQLite roll back everything, the earlier pieces included: then the group has
      // failed.
      if (!current->db.in_transaction()) throw;
      current->undo.run();
    }
    current->keep.run();
  }

  void roll_back() noexcept {
    if (!current || !current->db.in_transaction()) return;
    try {
      current->db.execute("ROLLBACK");
    } catch (...) {
      current.reset();  // its state is unknown; the next group opens the file anew
    }
  }

  void finish(std::vector<item>& group, const std::exception_ptr& reason) {
    note_trouble(trouble_of(group, reason), reason == nullptr);
    const auto& hook = reason ? undone : committed;
    if (hook) hook();
    for (item& one : group) one.done(one.failure ? one.failure : reason);
  }

  // Behind the commit and not in it, where SQLite would do it (a page or a thousand to write, two syncs): what has just been
  // stored does not wait for it. The log starts over only once all of it is folded, at a moment without readers. While readers
  // take turns it goes on, and is folded again after more and more growth: else there would be a fold behind every commit.
  void fold_log() {
    const auto [pages, starts] = current->db.log();
    fold_plan& plan = current->fold;
    if (plan.log_starts != starts) plan = {.log_starts = starts};
    if (pages < plan.next) return;
    if (pages < plan.next + fold_patience) {
      const std::lock_guard lock(mutex);
      if (!waiting.empty()) return;
    }
    std::string failure;
    try {
      if (!current->db.fold_log()) return;
      plan.next = pages + plan.pause;
      plan.pause = std::min(2 * plan.pause, fold_at);
    } catch (const sqlite::failure& e) {
      failure = e.what();
    }
    if (!failure.empty() && fold_failure.empty()) spdlog::error("what is stored stays in the log, which grows: {}", failure);
    if (failure.empty() && !fold_failure.empty()) spdlog::info("the log is folded into its file again; the trouble was: {}", fold_failure);
    fold_failure = std::move(failure);
  }

  // Its beginning and its end are told once each.
  void note_trouble(std::optional<std::string> now, bool stored) {
    if (!now && !stored) return;  // what was to be stored was wrong: says nothing about the machine
    std::optional<std::string> before;
    {
      const std::lock_guard lock(mutex);
      before = std::exchange(trouble, now);
    }
    if (now && !before) spdlog::error("nothing can be stored: {}", *now);
    if (before && !now) spdlog::info("all can be stored again; the trouble was: {}", *before);
  }
};

commit_queue::commit_queue(asio::any_io_executor executor, std::function<sqlite::connection()> open,
                           std::function<void()> committed, std::function<void()> undone,
                           std::shared_ptr<commit_pause> pause)
    : state_(std::make_shared<state>()) {
  state_->executor = std::move(executor);
  state_->open = std::move(open);
  state_->committed = std::move(committed);
  state_->undone = std::move(undone);
  state_->pause = std::move(pause);
}

commit_queue::~commit_queue() { close(); }

void commit_queue::submit(work piece, completion done) {
  std::unique_lock lock(state_->mutex);
  if (state_->closed) {
    lock.unlock();
    done(std::make_exception_ptr(closed()));
    return;
  }
  state_->waiting.push_back({std::move(piece), std::move(done)});
  if (std::exchange(state_->working, true)) return;
  lock.unlock();
  state_->start();
}

std::optional<std::string> commit_queue::trouble() const {
  const std::lock_guard lock(state_->mutex);
  return state_->trouble;
}

asio::awaitable<void> commit_queue::probe() {
  auto piece = [](sqlite::connection& db) {
    db.execute("PRAGMA user_version = " + std::to_string(sqlite::schema_version(db)));
  };
  co_await run(std::move(piece));
}

void commit_queue::rest(std::function<void()> before) {
  const std::lock_guard lock(state_->mutex);
  if (state_->closed || std::exchange(state_->working, true)) return;
  asio::post(state_->executor, [self = state_, before = std::move(before)] { self->rest_now(before); });
}

void commit_queue::close() {
  std::unique_lock lock(state_->mutex);
  state_->closed = true;
  state_->rested.wait(lock, [this] { return !state_->working; });
  state_->current.reset();
}

}  // namespace penstock::runtime
