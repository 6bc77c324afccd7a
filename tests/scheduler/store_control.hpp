// A store with its threads, for tests: the test's own thread is the control thread. And runs to put into it.
#pragma once

#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include "runtime/sqlite.hpp"
#include "runtime/ulid.hpp"
#include "scheduler/store.hpp"
#include "tests/scheduler/noon.hpp"
#include "tests/temp_dir.hpp"

namespace penstock::testing {

namespace asio = boost::asio;
namespace sqlite = runtime::sqlite;
using namespace scheduler;  // it is what all of this is about

class control {
 public:
  explicit control(std::filesystem::path file) : file_(std::move(file)) { open(); }

  void open() { store_ = std::make_unique<store>(file_, thread_.get_executor()); }
  void reopen() {
    store_.reset();
    open();
  }
  store* operator->() { return store_.get(); }
  const std::filesystem::path& file() const { return file_; }

  template <class T>
  T await(asio::awaitable<T> work) {
    auto done = asio::co_spawn(io_, std::move(work), asio::use_future);
    run();
    return done.get();
  }

  // All at once; the results in order.
  template <class T>
  std::vector<T> await_all(std::vector<asio::awaitable<T>> work) {
    std::vector<std::future<T>> done;
    for (auto& one : work) done.push_back(asio::co_spawn(io_, std::move(one), asio::use_future));
    run();
    std::vector<T> results;
    for (auto& one : done) results.push_back(one.get());
    return results;
  }

  // The only value of a query, by a connection of its own.
  std::string ask(const std::string& sql) {
    sqlite::connection db(file_, sqlite::open_mode::read_only);
    sqlite::statement s(db, sql);
    return s.step() ? std::string(s.text(0)) : "";
  }
  void execute(const std::string& sql) {
    sqlite::connection db(file_, sqlite::open_mode::read_write_create);
    db.execute(sql);
  }

 private:
  void run() {
    io_.restart();
    io_.run();
  }

  std::filesystem::path file_;
  asio::io_context io_;
  asio::thread_pool thread_{1};
  std::unique_ptr<store> store_;
};

inline run_record a_run(const std::string& pipeline = "p", const std::string& job = "j", timestamp at = noon) {
  run_record r;
  r.id = runtime::make_ulid(at);
  r.pipeline = pipeline;
  r.job = job;
  r.revision = 1;
  r.created_at = at;
  r.tasks = {{.name = "first"}, {.name = "second"}};
  return r;
}

inline task_record task(std::string name, run_state state, int attempt, std::optional<int> exit_code,
                        std::string reason, std::optional<timestamp> started_at,
                        std::optional<timestamp> ended_at) {
  return {.name = std::move(name),
          .state = state,
          .attempt = attempt,
          .exit_code = exit_code,
          .reason = std::move(reason),
          .started_at = started_at,
          .ended_at = ended_at};
}

inline std::string make(control& c, run_record r) {
  return c.await(c->create_run({.run = std::move(r)})).value().id;
}

inline std::string in_state(control& c, run_state state, const std::string& job = "j", timestamp at = noon) {
  const auto id = make(c, a_run("p", job, at));
  if (state == run_state::queued) return id;
  if (state == run_state::skipped) {
    c.await(c->finish_run({.run = id, .state = state, .reason = "overlap", .at = at + std::chrono::seconds(1)}));
    return id;
  }
  c.await(c->start_attempt(id, 1, at));
  if (state == run_state::retrying) {
    c.await(c->set_waiting(id, state, "attempt 2", at + std::chrono::seconds(10), at));
  } else if (state != run_state::running) {
    c.await(c->finish_run({.run = id, .state = state, .reason = "because", .at = at + std::chrono::seconds(1)}));
  }
  return id;
}

inline std::vector<std::string> ids(const std::vector<run_record>& runs) {
  std::vector<std::string> all;
  for (const auto& r : runs) all.push_back(r.id);
  return all;
}

// All rows of a table as text.
inline std::string rows_of(sqlite::connection& db, const std::string& table) {
  sqlite::statement columns(db, "SELECT count(*) FROM pragma_table_info('" + table + "')");
  columns.step();
  const auto width = static_cast<int>(columns.integer(0));
  columns.reset();
  sqlite::statement row(db, "SELECT * FROM " + table);
  std::string all;
  while (row.step()) {
    for (int i = 0; i < width; ++i) all.append(row.is_null(i) ? "NULL" : row.text(i)).append("|");
    all += "\n";
  }
  return all;
}

// All of the database as text, but for the page counters: two equal ones mean that nothing was changed.
inline std::string dump(control& c) {
  sqlite::connection db(c.file(), sqlite::open_mode::read_only);
  std::string all;
  sqlite::statement tables(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name");
  while (tables.step()) {
    const std::string table(tables.text(0));
    all.append(table).append(":\n").append(rows_of(db, table));
  }
  return all;
}

// The counters that triggers keep are what counting gives.
inline bool counts_are_right(control& c) {
  return c.ask(
             "SELECT count(*) FROM (SELECT pipeline, job, state, count(*) AS n FROM runs GROUP BY 1, 2, 3) "
             "AS r"
             " FULL JOIN (SELECT * FROM run_counts WHERE runs > 0) AS k USING (pipeline, job, state)"
             " WHERE r.n IS NOT k.runs") == "0";
}

}  // namespace penstock::testing
