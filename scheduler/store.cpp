// See store.hpp. The file is opened and migrated here; what is said to it stands in store_writer, store_pruner,
// store_reader and store_security, and the class passes calls on to them: to the readers directly, to the others
// through the commit queue.
#include "scheduler/store.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "runtime/commit_queue.hpp"
#include "runtime/sqlite.hpp"
#include "runtime/ulid.hpp"
#include "scheduler/schema.hpp"
#include "scheduler/store_pruner.hpp"
#include "scheduler/store_reader.hpp"
#include "scheduler/store_security.hpp"
#include "scheduler/store_writer.hpp"

namespace penstock::scheduler {
namespace {

struct migration {
  std::string_view name;
  std::string_view sql;
};

// Those of schema.sql, in order: each from its line of that kind to the next.
std::vector<migration> migrations_in(std::string_view schema) {
  constexpr std::string_view opens = "\n-- migration: ";
  std::vector<migration> found;
  for (auto at = schema.find(opens); at != std::string_view::npos;) {
    const auto name = at + opens.size();
    const auto end = schema.find('\n', name);
    at = schema.find(opens, end);
    found.push_back({schema.substr(name, end - name), schema.substr(end, at - end)});
  }
  return found;
}

void refuse_newer(sqlite::connection& db, const std::vector<migration>& migrations) {
  sqlite::statement applied(db, "SELECT name FROM migrations");
  while (applied.step()) {
    const std::string name(applied.text(0));
    const bool known =
        std::any_of(migrations.begin(), migrations.end(), [&](const migration& m) { return m.name == name; });
    if (!known) {
      throw std::runtime_error("was written by a newer Penstock (this one does not know its migration '" +
                               name + "'); start that version, or restore a backup");
    }
  }
}

void apply(sqlite::connection& db, const migration& m) {
  sqlite::transaction all(db);
  sqlite::statement known(db, "SELECT 1 FROM migrations WHERE name = ?1");
  const bool done = known.bind(1, m.name).step();
  known.reset();
  if (done) return;
  db.execute("PRAGMA cache_size = -65536");  // KiB: the keys of a new index on a million rows are sorted in it
  db.execute(m.sql);
  sqlite::statement record(db, "INSERT INTO migrations VALUES (?1, ?2)");
  record.bind(1, m.name).bind(2, to_micros(wall_now())).run();
  all.commit();
  db.execute("PRAGMA cache_size = -2000");  // SQLite's default
}

void name_data_folder(sqlite::connection& db) {
  const std::string id = runtime::make_ulid();
  sqlite::statement once(db,
                         "INSERT INTO data_folder SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM data_folder)");
  once.bind(1, id).run();
}

sqlite::connection open_and_migrate(const std::filesystem::path& file) {
  try {
    sqlite::connection db(file, sqlite::open_mode::read_write_create);
    db.execute(
        "CREATE TABLE IF NOT EXISTS migrations (name TEXT NOT NULL PRIMARY KEY, applied_at INTEGER NOT NULL) "
        "STRICT");
    const std::vector<migration> migrations = migrations_in(schema_sql);
    refuse_newer(db, migrations);
    for (const migration& m : migrations) apply(db, m);
    name_data_folder(db);
    return db;
  } catch (const std::exception& e) {
    const std::string why = e.what();
    const bool damaged = why.find("not a database") != why.npos || why.find("malformed") != why.npos;
    throw std::runtime_error("the state database " + file.string() + " cannot be used: " + why + (damaged ? "; put the one of a backup in its place" : ""));
  }
}

}  // namespace

struct store::state {
  std::filesystem::path file;
  // These are made, used and destroyed on the store thread.
  std::unique_ptr<store_writer> write;
  std::unique_ptr<store_pruner> prune;
  std::unique_ptr<security_writer> guard;
  std::unique_ptr<store_reader> read;   // made at the first look, after the file exists
  std::atomic<bool> failing{false};     // the last commit
  runtime::commit_queue queue;

  state(std::filesystem::path path, asio::any_io_executor executor, std::shared_ptr<runtime::commit_pause> pause)
      : file(std::move(path)),
        queue(std::move(executor), [this] { return open(); }, [this] { failing = false; }, [this] { failing = true; },
              std::move(pause)) {}

  sqlite::connection open() {
    close_statements();
    sqlite::connection db = open_and_migrate(file);
    write = std::make_unique<store_writer>(db);
    prune = std::make_unique<store_pruner>(db);
    guard = std::make_unique<security_writer>(db);
    return db;
  }

  void close_statements() {
    write.reset();
    prune.reset();
    guard.reset();
  }

  store_reader& look() {
    if (!read) read = std::make_unique<store_reader>(file);
    return *read;
  }

  // One piece of a transaction: f(store_writer&) on the store thread; the awaitable ends when it is durable.
  template <class F, class T = std::invoke_result_t<F, store_writer&>>
  asio::awaitable<T> commit(F f) {
    return commit(std::move(f), [](const auto&...) {});
  }
  // The same, with what is called on the store thread as soon as it is durable: commit_queue::run.
  template <class F, class D, class T = std::invoke_result_t<F, store_writer&>>
  asio::awaitable<T> commit(F f, D durable) {
    return queue.run([this, f = std::move(f)](sqlite::connection&) { return f(*write); }, std::move(durable));
  }

  // The same for what nobody waits for: f(security_writer&).
  template <class F>
  void note(const char* what, F f) {
    queue.submit([this, f = std::move(f)](sqlite::connection&) { f(*guard); },
                 [what](const std::exception_ptr& failure) {
                   try {
                     if (failure) std::rethrow_exception(failure);
                   } catch (const std::exception& e) {
                     spdlog::error("{} cannot be stored: {}", what, e.what());
                   }
                 });
  }
};

store::store(std::filesystem::path file, asio::any_io_executor writer, std::shared_ptr<runtime::commit_pause> pause)
    : state_(std::make_unique<state>(std::move(file), std::move(writer), std::move(pause))) {
  const auto opened = std::make_shared<std::promise<void>>();
  const auto done = [opened](const std::exception_ptr& failure) {
    if (failure) {
      opened->set_exception(failure);
    } else {
      opened->set_value();
    }
  };
  auto finished = opened->get_future();
  state_->queue.submit([](sqlite::connection&) {}, done);
  finished.get();
}

store::~store() { close(); }

void store::name_anew(const std::filesystem::path& file) {
  sqlite::connection db(file, sqlite::open_mode::read_write_create);
  sqlite::statement name(db, "UPDATE data_folder SET instance = ?1");
  const std::string id = runtime::make_ulid();
  name.bind(1, id).run();
}

void store::close() {
  state_->read.reset();
  state_->queue.submit([s = state_.get()](sqlite::connection&) { s->close_statements(); },
                       [](const std::exception_ptr&) {});
  state_->queue.close();
}

std::string store::instance() { return state_->look().instance(); }

// ---- pipelines ----

asio::awaitable<result<pipeline_record>> store::put_pipeline(pipeline_record next,
                                                             std::int64_t expected_revision) {
  return state_->commit([next = std::move(next), expected_revision](auto& w) {
    return w.put_pipeline(next, expected_revision);
  });
}

asio::awaitable<void> store::remove_pipeline(std::string name) {
  return state_->commit([name = std::move(name)](auto& w) { w.remove_pipeline(name); });
}

asio::awaitable<void> store::set_paused(std::string name, bool paused) {
  return state_->commit([name = std::move(name), paused](auto& w) { w.set_paused(name, paused); });
}

std::vector<pipeline_record> store::pipelines() { return state_->look().pipelines(); }

std::optional<pipeline_record> store::revision(const std::string& pipeline, std::int64_t revision) {
  return state_->look().revision(pipeline, revision);
}

std::vector<pipeline_record> store::revisions(const std::string& pipeline) {
  return state_->look().revisions(pipeline);
}

// ---- runs ----

asio::awaitable<result<store::created>> store::create_run(new_run r) {
  const auto made = [durable = r.durable](const result<created>& run) {
    if (durable && run && !run->existed) durable();
  };
  return state_->commit([r = std::move(r)](auto& w) { return w.create(r); }, made);
}

asio::awaitable<void> store::create_runs(std::vector<new_run> runs) {
  std::vector<std::function<void()>> durable;
  for (const new_run& r : runs) {
    if (r.durable) durable.push_back(r.durable);
  }
  const auto made = [durable = std::move(durable)] {
    for (const auto& tell : durable) tell();
  };
  return state_->commit([runs = std::move(runs)](auto& w) { w.create_all(runs); }, made);
}

std::optional<result<store::created>> store::known_request(const idempotency& once) {
  return state_->look().known_request(once);
}

asio::awaitable<void> store::extend_input(std::string run, std::int64_t until, std::int64_t events,
                                          cursor_move cursor) {
  return state_->commit([run = std::move(run), until, events, cursor = std::move(cursor)](auto& w) {
    w.extend_input(run, until, events, cursor);
  });
}

asio::awaitable<void> store::close_input(std::string run) {
  return state_->commit([run = std::move(run)](auto& w) { w.close_input(run); });
}

asio::awaitable<void> store::start_attempt(std::string run, int attempt, timestamp at) {
  return state_->commit([run = std::move(run), attempt, at](auto& w) { w.start_attempt(run, attempt, at); });
}

asio::awaitable<void> store::start_attempts(std::vector<late_start> started) {
  return state_->commit([started = std::move(started)](auto& w) { w.start_attempts(started); });
}

bool store::failing() const { return state_->failing; }

std::optional<std::string> store::trouble() const { return state_->queue.trouble(); }

asio::awaitable<void> store::probe() { return state_->queue.probe(); }

asio::awaitable<void> store::add_tasks(std::string run, std::vector<task_record> instances) {
  return state_->commit(
      [run = std::move(run), instances = std::move(instances)](auto& w) { w.add_tasks(run, instances); });
}

asio::awaitable<void> store::update_task(std::string run, task_record task) {
  return state_->commit(
      [run = std::move(run), task = std::move(task)](auto& w) { w.update_task(run, task); });
}

asio::awaitable<void> store::set_waiting(std::string run, run_state as, std::string waiting_reason,
                                         std::optional<timestamp> retry_at, timestamp at) {
  return state_->commit([run = std::move(run), as, why = std::move(waiting_reason), retry_at, at](auto& w) {
    w.set_waiting(run, as, why, retry_at, at);
  });
}

asio::awaitable<void> store::finish_run(run_end end) {
  return state_->commit([end = std::move(end)](auto& w) { w.finish(end); });
}

asio::awaitable<recovery> store::recover(timestamp now) {
  return state_->commit([now](auto& w) { return w.recover(now); });
}

std::optional<run_record> store::run(const std::string& id) { return state_->look().run(id); }
std::vector<timeline_entry> store::timeline(const std::string& run) { return state_->look().timeline(run); }
std::vector<run_record> store::runs(const run_filter& filter) { return state_->look().runs(filter); }
std::string store::load_input(const std::string& run) { return state_->look().load_input(run); }

std::map<std::string, std::int64_t> store::count_by_state(const std::string& pipeline,
                                                          const std::string& job) {
  return state_->look().count_by_state(pipeline, job);
}

asio::awaitable<std::vector<std::string>> store::prune_runs(timestamp before, std::int64_t keep) {
  return prune_runs(before, keep, std::vector<history>());
}

// The pass is shared with the store thread, which may still be at a portion when nobody waits for it any more.
asio::awaitable<std::vector<std::string>> store::prune_runs(timestamp before, std::int64_t keep,
                                                            std::vector<history> own_rules) {
  const auto pass = std::make_shared<store_pruner::pass>(before, keep, own_rules);
  std::vector<std::string> pruned;
  while (!pass->over()) {
    auto next = state_->commit([pass, s = state_.get()](auto&) { return s->prune->portion(*pass); });
    auto portion = co_await std::move(next);
    pruned.insert(pruned.end(), std::make_move_iterator(portion.begin()),
                  std::make_move_iterator(portion.end()));
  }
  co_return pruned;
}

// ---- triggers ----

std::optional<std::int64_t> store::cursor(const std::string& pipeline, const std::string& job,
                                          const std::string& trigger) {
  return state_->look().cursor(pipeline, job, trigger);
}

asio::awaitable<void> store::set_cursor(std::string pipeline, std::string job, std::string trigger,
                                        std::int64_t position) {
  return state_->commit([pipeline = std::move(pipeline), job = std::move(job), trigger = std::move(trigger),
                         position](auto& w) { w.set_cursor(pipeline, job, trigger, position); });
}

std::optional<timestamp> store::last_firing(const std::string& pipeline, const std::string& job,
                                            const std::string& trigger) {
  return state_->look().last_firing(pipeline, job, trigger);
}

asio::awaitable<void> store::set_firing(schedule_move move) {
  return state_->commit([move = std::move(move)](auto& w) { w.set_firing(move); });
}

std::vector<std::pair<std::string, std::int64_t>> store::cursors() { return state_->look().cursors(); }

std::vector<timestamp> store::scheduled_times(const std::string& pipeline, const std::string& job,
                                              timestamp from, timestamp until) {
  return state_->look().scheduled_times(pipeline, job, from, until);
}

// ---- files ----

std::vector<file_claim> store::taken_files(const std::string& pipeline, const std::string& job,
                                           const std::string& trigger) {
  return state_->look().taken_files(pipeline, job, trigger);
}

std::vector<file_claim> store::files_of(const std::string& run) { return state_->look().files_of(run); }

asio::awaitable<void> store::forget_files(std::vector<file_claim> claims) {
  return state_->commit([claims = std::move(claims)](auto& w) { w.forget_files(claims); });
}

// ---- alerts ----

asio::awaitable<void> store::add_alert(alert_record alert) {
  return state_->commit([alert = std::move(alert)](auto& w) { w.add_alert(alert); });
}

std::vector<alert_record> store::alerts(std::size_t limit) { return state_->look().alerts(limit); }

asio::awaitable<void> store::settle_alert(std::string id) {
  return state_->commit([id = std::move(id)](auto& w) { w.settle_alert(id); });
}

asio::awaitable<void> store::alert_failed(std::string id, int attempts, std::string failure) {
  return state_->commit([id = std::move(id), attempts, failure = std::move(failure)](auto& w) {
    w.alert_failed(id, attempts, failure);
  });
}

// ---- dead letters of runs ----

std::vector<run_record> store::dead_runs(const std::string& pipeline, const std::string& after_id,
                                         std::size_t limit) {
  return state_->look().dead_runs(pipeline, after_id, limit);
}

std::int64_t store::count_dead_runs() { return state_->look().count_dead_runs(); }

asio::awaitable<std::int64_t> store::settle_dead_runs(std::vector<std::string> ids) {
  return state_->commit([ids = std::move(ids)](auto& w) { return w.settle_dead(ids); });
}

// ---- tokens and the audit log ----

asio::awaitable<void> store::add_token(token_record token) {
  return state_->commit([token = std::move(token), s = state_.get()](auto&) { s->guard->add_token(token); });
}

asio::awaitable<void> store::revoke_token(std::string id, timestamp at) {
  return state_->commit([id = std::move(id), at, s = state_.get()](auto&) { s->guard->revoke_token(id, at); });
}

std::vector<token_record> store::tokens() { return state_->look().security().tokens(); }

asio::awaitable<void> store::add_audit(audit_record entry, audit_limits keep) {
  return state_->commit([entry = std::move(entry), keep, s = state_.get()](auto&) { s->guard->add_audit(entry, keep); });
}

std::vector<audit_record> store::audit(const audit_filter& wanted) { return state_->look().security().audit(wanted); }

void store::note_token_use(std::string id, timestamp at) {
  state_->note("the use of a token", [id = std::move(id), at](security_writer& w) { w.token_used(id, at); });
}

void store::note_audit(std::vector<audit_record> entries, audit_limits keep) {
  state_->note("a part of the audit log", [entries = std::move(entries), keep](security_writer& w) {
    for (const audit_record& entry : entries) w.add_audit(entry, keep);
  });
}

}  // namespace penstock::scheduler
