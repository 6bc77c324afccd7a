// Durable appends per second to a topic, beside floors from the same run, so that they can be compared on any machine: the same
// rows through bare SQLite, the same bytes at the end of a file with fdatasync. Not a test: it asserts nothing.
//
//   bench_topic [FOLDER] [BATCHES] [--lines]     default: a scratch folder, 1,000 batches
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <future>
#include <string>
#include <unistd.h>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <sqlite3.h>

#include "runtime/sqlite.hpp"
#include "runtime/topic.hpp"
#include "runtime/ulid.hpp"
#include "tests/bench/figures.hpp"
#include "tests/temp_dir.hpp"

using namespace penstock;
using namespace penstock::runtime;

namespace {

bool lines_only = false;  // figures for a program, no table

constexpr int batch_events = 1000;
constexpr std::size_t event_bytes = 300;

std::shared_ptr<const batch> make_batch() {
  auto b = std::make_shared<batch>();
  const std::string filler(event_bytes - 60, 'x');
  const timestamp now = wall_now();
  for (int i = 0; i < batch_events; ++i) {
    const std::string id = make_ulid(now);
    event e;
    e.id = b->keep(id);
    e.source = "/topics/bench";
    e.type = "event";
    e.data = b->keep(R"({"id":")" + id + R"(","filler":")" + filler + "\"}");
    b->events.push_back(e);
  }
  return b;
}

template <class F>
double seconds(F work) {
  const auto from = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

void report(const char* name, const char* what, std::int64_t events, double took, double floor) {
  const double rate = static_cast<double>(events) / took;
  if (lines_only) return penstock::testing::print_line(name, rate, "events/s");
  std::printf("%-44s %10.0f events/s", what, rate);
  if (floor > 0) std::printf("  %5.1f %% of the floor", 100 * rate / floor);
  std::printf("\n");
  std::fflush(stdout);
}

// The same payloads at the end of a file, with fdatasync after each batch.
void raw_append(const std::filesystem::path& file, const batch& b, int batches) {
  std::string bytes;
  for (const event& e : b.events) bytes += e.data;
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const double took = seconds([&] {
    for (int i = 0; i < batches; ++i) {
      if (::write(fd, bytes.data(), bytes.size()) < 0 || ::fdatasync(fd) != 0) throw std::runtime_error("cannot write");
    }
  });
  ::close(fd);
  const auto events = static_cast<std::int64_t>(b.events.size()) * batches;
  report(b.events.size() == 1 ? "append_single" : "append",
         b.events.size() == 1 ? "floor: append + fdatasync, 1 event" : "floor: append + fdatasync, 1,000 events", events, took, 0);
}

// An id and the payload, nothing else, one transaction a batch.
double raw_sqlite(const std::filesystem::path& file, const batch& b, int batches) {
  sqlite::connection db(file, sqlite::open_mode::read_write_create);
  db.execute("CREATE TABLE events (offset INTEGER PRIMARY KEY, id TEXT, data BLOB)");
  sqlite::statement insert(db, "INSERT INTO events VALUES (NULL, ?1, ?2)");
  const double took = seconds([&] {
    for (int i = 0; i < batches; ++i) {
      sqlite::transaction t(db);
      for (const event& e : b.events) insert.bind(1, e.id).bind_blob(2, e.data).run();
      t.commit();
    }
  });
  const auto events = static_cast<std::int64_t>(b.events.size()) * batches;
  report(b.events.size() == 1 ? "sqlite_single" : "sqlite",
         b.events.size() == 1 ? "floor: bare SQLite, 1 event a transaction" : "floor: bare SQLite, 1 transaction a batch", events,
         took, 0);
  return static_cast<double>(events) / took;
}

asio::awaitable<void> append_all(std::shared_ptr<topic> t, std::shared_ptr<const batch> b, int batches) {
  for (int i = 0; i < batches; ++i) {
    auto r = co_await t->append(b);
    if (!r) throw std::runtime_error(r.error().detail);
  }
}

void measure_appends(topics& all, asio::thread_pool& callers, const char* what, const char* name, int writers, int batches,
                     std::shared_ptr<const batch> b, double floor) {
  const auto t = all.declare({.name = name, .retain = {}, .max_bytes = {}, .dedupe = {}});
  const double took = seconds([&] {
    std::vector<std::future<void>> ends;
    for (int w = 0; w < writers; ++w) {
      ends.push_back(asio::co_spawn(callers, append_all(t, b, batches / writers), asio::use_future));
    }
    for (auto& end : ends) end.get();
  });
  report(name, what, t->last_offset(), took, floor);
}

void measure_reads(topic& t) {
  std::int64_t after = 0, bytes = 0;
  const double took = seconds([&] {
    for (batch b = t.read(after, batch_events); !b.empty(); b = t.read(after, batch_events)) {
      after = b.events.back().position;
      bytes += static_cast<std::int64_t>(b.payload_bytes());
    }
  });
  report("read", "read, 1,000 at a time", after, took, 0);
}

}  // namespace

int main(int argc, char** argv) {
  lines_only = penstock::testing::take_lines_option(argc, argv);
  const penstock::testing::temp_dir scratch;
  const std::filesystem::path folder = argc > 1 ? std::filesystem::path(argv[1]) : scratch.path();
  const int batches = argc > 2 ? std::atoi(argv[2]) : 1000;
  const auto b = make_batch();
  const auto single = [&] {
    auto s = std::make_shared<batch>();
    s->events.push_back(s->copy(b->events.front()));
    return std::shared_ptr<const batch>(std::move(s));
  }();
  raw_append(folder / "floor", *b, batches);
  raw_append(folder / "floor_single", *single, batches * 10);
  const double floor = raw_sqlite(folder / "floor.db", *b, batches);
  const double floor_single = raw_sqlite(folder / "floor_single.db", *single, batches * 10);

  asio::thread_pool writers(1), callers(1);
  topics all(folder / "topics", writers.get_executor());
  measure_appends(all, callers, "topic, 1 caller, batches of 1,000", "one", 1, batches, b, floor);
  measure_appends(all, callers, "topic, 8 callers, batches of 1,000", "eight", 8, batches, b, floor);
  measure_appends(all, callers, "topic, 1 caller, single events", "one_single", 1, batches * 10, single, floor_single);
  measure_appends(all, callers, "topic, 64 callers, single events", "many_single", 64, batches * 200, single, floor_single);
  measure_reads(*all.find("one"));
  all.close();
}
