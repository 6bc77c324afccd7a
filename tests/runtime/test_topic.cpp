#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <numeric>
#include <random>
#include <set>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <catch2/catch.hpp>
#include <sqlite3.h>

#include "runtime/topic.hpp"
#include "tests/runtime/file_size_limit.hpp"
#include "tests/runtime/wait_for.hpp"
#include "tests/temp_dir.hpp"

namespace test_topic {

using namespace penstock;
using namespace penstock::runtime;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using penstock::testing::file_size_limit;
using penstock::testing::temp_dir;
using penstock::testing::wait_for;

namespace {

const timestamp start = from_micros(1'700'000'000'000'000);

std::shared_ptr<batch> batch_of(const std::vector<std::string>& ids, std::int64_t first_position = 0,
                                std::size_t payload = 0) {
  auto b = std::make_shared<batch>();
  for (const std::string& id : ids) {
    event e;
    e.id = b->keep(id);
    e.source = "/topics/t";
    e.type = "event";
    e.data = b->keep(R"({"id":")" + id + R"(","pad":")" + std::string(payload, 'x') + "\"}");
    if (first_position > 0) e.position = first_position++;
    b->events.push_back(e);
  }
  return b;
}

std::vector<std::string> numbers(int from, int to) {
  std::vector<std::string> ids;
  for (int i = from; i < to; ++i) ids.push_back(std::to_string(i));
  return ids;
}

// One topic over a scratch folder that can be closed and opened again.
struct bench {
  temp_dir dir;
  asio::thread_pool pool{2};
  config::topic definition{.name = "t", .retain = {}, .max_bytes = {}, .dedupe = {}};
  std::shared_ptr<topic> t = make();

  std::filesystem::path file() const { return dir / "topics/t.db"; }
  std::shared_ptr<topic> make() { return std::make_shared<topic>(definition, file(), pool.get_executor()); }
  void reopen() {
    t.reset();
    t = make();
  }
  void dedupe(nanoseconds within, const std::string& key = "event.id") {
    definition.dedupe = config::dedupe_rule{key, within};
    t->redefine(definition);
  }

  result<append_result> try_append(std::shared_ptr<const batch> events, append_options options = {}) {
    if (!options.received) options.received = start;
    return wait_for(pool, t->append(std::move(events), std::move(options)));
  }
  append_result append(std::shared_ptr<const batch> events, append_options options = {}) {
    return try_append(std::move(events), std::move(options)).value();
  }
  append_result append(const std::vector<std::string>& ids, timestamp at = start) {
    return append(batch_of(ids), append_options("", at));
  }
  append_result produce(const std::string& producer, int from, int to) {
    return append(batch_of(numbers(from, to), from), append_options(producer, start));
  }
  std::int64_t retain(timestamp now, std::int64_t keep_after = INT64_MAX) {
    return wait_for(pool, t->retain(now, keep_after));
  }
  std::vector<std::string> ids() {
    std::vector<std::string> all;
    for (const event& e : t->read(0, SIZE_MAX, INT64_MAX, SIZE_MAX).events) all.emplace_back(e.id);
    return all;
  }
};

// Offsets of everything kept are dense, and the file is whole.
void check_whole(bench& b) {
  const topic_status status = b.t->status();
  const batch all = b.t->read(0, SIZE_MAX, INT64_MAX, SIZE_MAX);
  REQUIRE(static_cast<std::int64_t>(all.size()) == status.events);
  std::int64_t expected = status.first_offset;
  for (const event& e : all.events) REQUIRE(e.position == expected++);
  if (!all.empty()) REQUIRE(expected == status.last_offset + 1);
  REQUIRE(b.t->last_offset() == status.last_offset);
  sqlite::connection db(b.file(), sqlite::open_mode::read_only);
  sqlite::statement check(db, "PRAGMA integrity_check");
  REQUIRE(check.step());
  REQUIRE(check.text(0) == "ok");
}

}  // namespace

TEST_CASE("events come back as they went in", "[topic]") {
  bench b;
  auto events = std::make_shared<batch>();
  event full;
  full.id = "id-1";
  full.source = "https://example.org/shop";
  full.type = "order.created";
  full.subject = "order 7";
  full.datacontenttype = "text/plain";
  full.key = "k\xc3\xa9y";
  full.data = std::string_view("bytes\0\xff and more", 16);
  full.time = start - 1h;
  event plain;
  plain.id = "id-2";
  plain.source = "/topics/t";
  plain.type = "event";
  plain.data = "{}";
  plain.time = start;
  event bare;
  bare.id = "id-3";
  events->events = {full, plain, bare, full};
  const append_result stored = b.append(events);
  CHECK(stored.accepted == 4);
  CHECK(stored.first_offset == 1);
  CHECK(stored.last_offset == 4);
  for (const bool again : {false, true}) {
    if (again) b.reopen();
    const batch back = b.t->read(0, 10);
    REQUIRE(back.size() == 4);
    for (const std::size_t i : {std::size_t{0}, std::size_t{3}}) {
      const event& e = back.events[i];
      CHECK(e.id == full.id);
      CHECK(e.source == full.source);
      CHECK(e.type == full.type);
      CHECK(e.subject == full.subject);
      CHECK(e.datacontenttype == full.datacontenttype);
      CHECK(e.key == full.key);
      CHECK(e.data == full.data);
      CHECK(e.time == full.time);
      CHECK(e.position == static_cast<std::int64_t>(i) + 1);
    }
    CHECK(back.events[1].source == "/topics/t");
    CHECK(back.events[1].type == "event");
    CHECK(back.events[1].time == start);
    CHECK(back.events[1].data == "{}");
    CHECK(back.events[1].is_json());
    CHECK(back.events[2].type.empty());
    CHECK(back.events[2].data.empty());
    CHECK(back.events[2].time == start);  // absent: when it was received
  }
}

TEST_CASE("payloads that were read have padding behind them", "[topic]") {
  bench b;
  b.append(batch_of(numbers(0, 300), 0, 37));
  const batch back = b.t->read(0, 300);
  int sum = 0;
  for (const event& e : back.events) {
    for (std::size_t i = 0; i < padding; ++i) sum += e.data.data()[e.data.size() + i];
  }
  CHECK(sum == sum);  // the address sanitizer is the judge
}

TEST_CASE("a topic that nobody wrote to has no file and reads as empty", "[topic]") {
  bench b;
  CHECK(b.t->read(0, 100).empty());
  CHECK(b.t->last_offset() == 0);
  CHECK(b.t->status().events == 0);
  CHECK(b.t->status().bytes == 0);
  CHECK_FALSE(b.t->received_at(1));
  CHECK(b.t->producer_position("p") == 0);
  CHECK(b.retain(start) == 0);
  CHECK(b.append(std::make_shared<batch>()).accepted == 0);
  CHECK_FALSE(std::filesystem::exists(b.dir / "topics"));
  // And what was looked at before the first append is seen after it.
  b.append({"a"});
  CHECK(b.ids() == std::vector<std::string>{"a"});
  CHECK(b.t->last_offset() == 1);
}

TEST_CASE("a file that was made but never filled reads as empty", "[topic]") {
  bench b;
  std::filesystem::create_directories(b.dir / "topics");
  std::ofstream(b.file()).flush();
  CHECK(b.t->read(0, 1).empty());
  CHECK(b.t->last_offset() == 0);
  CHECK(b.append({"a"}).first_offset == 1);
}

TEST_CASE("read keeps to its limits", "[topic]") {
  bench b;
  b.append(batch_of(numbers(1, 101), 0, 1000));
  CHECK(b.t->read(0, 7).size() == 7);
  CHECK(b.t->read(0, 0).empty());
  CHECK(b.t->read(100, 7).empty());
  CHECK(b.t->read(95, 50).size() == 5);
  CHECK(b.t->read(10, 100, 15).size() == 5);
  CHECK(b.t->read(10, 100, 15).events.front().position == 11);
  CHECK(b.t->read(15, 100, 10).empty());
  CHECK(b.t->read(-5, 100, 3).size() == 3);
  CHECK(b.t->read(INT64_MAX, 100).empty());
  // About max_bytes of payload, and one event at least however small that is.
  CHECK(b.t->read(0, 100, INT64_MAX, 5000).size() == 5);
  CHECK(b.t->read(0, 100, INT64_MAX, 1).size() == 1);
  CHECK(b.t->read(0, 100, INT64_MAX, 0).size() == 1);
  // A read that stopped early does not keep the next one from seeing what is new.
  b.append({"new"});
  CHECK(b.t->read(100, 1).size() == 1);
  CHECK(b.t->received_at(101) == start);
}

TEST_CASE("concurrent appends: nothing lost, offsets dense, each batch in one piece", "[topic]") {
  bench b;
  constexpr int threads = 8, batches = 60;
  std::atomic<std::int64_t> accepted{0};
  std::atomic<int> torn{0};
  {
    std::vector<std::jthread> writers;
    for (int w = 0; w < threads; ++w) {
      writers.emplace_back([&, w] {
        for (int i = 0; i < batches; ++i) {
          const int size = 1 + (w * 7 + i) % 20;
          const auto r = b.append(batch_of(std::vector<std::string>(
              static_cast<std::size_t>(size), std::to_string(w) + "-" + std::to_string(i))));
          accepted += r.accepted;
          if (r.last_offset - r.first_offset + 1 != size) ++torn;
          const batch mine = b.t->read(r.first_offset - 1, SIZE_MAX, r.last_offset);
          if (static_cast<int>(mine.size()) != size || mine.events.front().id != mine.events.back().id)
            ++torn;
        }
      });
    }
  }
  CHECK(torn == 0);
  CHECK(accepted == b.t->last_offset());
  check_whole(b);
  b.reopen();
  CHECK(accepted == b.t->last_offset());
  check_whole(b);
}

// --- dedupe

TEST_CASE("a key is a duplicate within its window only, inside one batch too", "[topic][dedupe]") {
  bench b;
  b.dedupe(10s);
  const auto first = b.append({"a", "b", "a", "c", "a"});
  CHECK(first.accepted == 3);
  CHECK(first.duplicates == 2);
  CHECK(first.last_offset == 3);
  const auto all_known = b.append({"b", "c"}, start + 9s);
  CHECK(all_known.accepted == 0);
  CHECK(all_known.duplicates == 2);
  CHECK(all_known.first_offset == 0);
  CHECK(all_known.last_offset == 0);
  // 10 s after it was stored it is no duplicate; that it was seen at 9 s does not prolong the window.
  CHECK(b.append({"b"}, start + 10s - 1us).duplicates == 1);
  CHECK(b.append({"b"}, start + 10s).accepted == 1);
  CHECK(b.append({"b"}, start + 19s).duplicates == 1);
  CHECK(b.ids() == std::vector<std::string>{"a", "b", "c", "b"});
  CHECK(b.t->status().duplicates == 6);
  check_whole(b);
}

TEST_CASE("dedupe remembers across a reopening", "[topic][dedupe]") {
  bench b;
  b.dedupe(1h);
  b.append({"a", "b"});
  b.reopen();
  CHECK(b.append({"b", "c"}, start + 1min).duplicates == 1);
  CHECK(b.t->status().duplicates == 1);
  CHECK(b.ids() == std::vector<std::string>{"a", "b", "c"});
}

TEST_CASE("an event without a key is never a duplicate", "[topic][dedupe]") {
  bench b;
  b.dedupe(1h, "event.nothing");
  CHECK(b.append({"a", "a", "a"}).accepted == 3);
  CHECK(b.append({"a"}).accepted == 1);
}

TEST_CASE("keys of another expression are not compared", "[topic][dedupe]") {
  bench b;
  b.dedupe(1h);
  b.append({"a"});
  b.dedupe(1h, "event.pad");
  auto events = batch_of({"x"});
  events->events.front().data = events->keep(R"({"id":"x","pad":"a"})");
  CHECK(b.append(events).accepted == 1);
  CHECK(b.append(events).duplicates == 1);
}

TEST_CASE("a changed window applies from the next append on", "[topic][dedupe]") {
  bench b;
  b.dedupe(10s);
  b.append({"a"});
  b.dedupe(1h);
  CHECK(b.append({"a"}, start + 30min).duplicates == 1);
  b.dedupe(1s);
  CHECK(b.append({"a"}, start + 2s).accepted == 1);
  b.definition.dedupe.reset();
  b.t->redefine(b.definition);
  CHECK(b.append({"a", "a"}, start + 2s).accepted == 2);
}

TEST_CASE("keys that a failed append brought are not remembered", "[topic][dedupe]") {
  bench b;
  b.dedupe(1h);
  b.append({"first"});
  auto huge = batch_of({"a", "b"}, 0, 3 << 20);
  {
    const file_size_limit full(1 << 20);
    CHECK_THROWS_AS(b.append(huge), sqlite::failure);
  }
  CHECK(b.append({"a", "b"}).accepted == 2);
}

// --- producers

TEST_CASE("a producer's replay is skipped, whatever the batch boundaries", "[topic][producer]") {
  bench b;
  std::mt19937 random(11);
  int next = 1, stored = 0;
  std::int64_t skipped = 0;
  for (int round = 0; round < 200; ++round) {
    // Go back to anywhere (or not at all), replay up to anywhere beyond.
    const int from = std::max(1, next - static_cast<int>(random() % 30));
    const int to = next + static_cast<int>(random() % 20);
    const auto r = b.produce("flow", from, to);
    REQUIRE(r.accepted == to - next);
    REQUIRE(r.skipped == next - from);
    skipped += r.skipped;
    stored += static_cast<int>(r.accepted);
    next = to;
    REQUIRE(b.t->producer_position("flow") == next - 1);
    if (round % 40 == 0) b.reopen();
  }
  CHECK(skipped > 0);
  CHECK(b.ids() == numbers(1, next));
  CHECK(b.t->last_offset() == stored);
  CHECK(b.t->status().duplicates == 0);
}

TEST_CASE("producers do not know of one another", "[topic][producer]") {
  bench b;
  CHECK(b.produce("one", 1, 11).accepted == 10);
  CHECK(b.produce("two", 1, 6).accepted == 5);
  CHECK(b.append(batch_of(numbers(1, 4), 1)).accepted == 3);  // no producer, no check
  CHECK(b.t->producer_position("one") == 10);
  CHECK(b.t->producer_position("two") == 5);
  CHECK(b.t->producer_position("three") == 0);
}

TEST_CASE("events without a position, and several of one position, are all stored", "[topic][producer]") {
  bench b;
  CHECK(b.append(batch_of({"a", "b"}), append_options("p", start)).accepted == 2);
  CHECK(b.append(batch_of({"c"}), append_options("p", start)).accepted == 1);
  auto split = batch_of({"d", "e", "f"}, 5);
  for (event& e : split->events) e.position = 5;
  CHECK(b.append(split, append_options("p", start)).accepted == 3);
  CHECK(b.append(split, append_options("p", start)).skipped == 3);
}

TEST_CASE("a producer's position moves over duplicates, and a skipped event is no duplicate",
          "[topic][producer]") {
  bench b;
  b.dedupe(1h);
  b.append({"3", "4"});
  const auto r = b.produce("p", 1, 5);
  CHECK(r.accepted == 2);
  CHECK(r.duplicates == 2);
  CHECK(b.t->producer_position("p") == 4);
  const auto again = b.produce("p", 1, 5);
  CHECK(again.skipped == 4);
  CHECK(again.duplicates == 0);
}

// --- limits and failures

TEST_CASE("max_bytes answers overloaded until retention has made room", "[topic]") {
  bench b;
  b.definition.max_bytes = 200'000;
  b.definition.retain = 1h;
  b.t->redefine(b.definition);
  int taken = 0;
  result<append_result> r = append_result{};
  while ((r = b.try_append(batch_of(numbers(taken, taken + 10), 0, 900)))) taken += 10;
  CHECK(r.error().code == errc::overloaded);
  CHECK(r.error().retry_after_s > 0);
  CHECK_THAT(r.error().detail, Contains("'t'") && Contains("max_bytes"));
  CHECK(taken > 150);
  CHECK(taken < 250);
  CHECK(b.t->last_offset() == taken);
  check_whole(b);
  CHECK(b.retain(start + 2h) == taken);
  CHECK(b.append({"again"}).first_offset == taken + 1);
  // The smallest limit still takes something: an empty topic counts as empty.
  b.definition.max_bytes = 1;
  b.t->redefine(b.definition);
  CHECK_FALSE(b.try_append(batch_of(numbers(0, 100), 0, 900)).has_error());
  CHECK(b.try_append(batch_of({"more"})).has_error());
}

TEST_CASE("a topic goes on after what was given away before its file was lost", "[topic]") {
  bench b;
  SECTION("while it is down: somebody knows, and says so") {
    b.t->go_on_after(40);
    CHECK(b.t->last_offset() == 40);
    CHECK(b.t->status().last_offset == 40);
    CHECK(b.t->status().events == 0);
    CHECK(b.append({"a"}).first_offset == 41);
    b.t->go_on_after(20);  // never back
  }
  SECTION("an empty file is none") {
    b.append({"a"});
    b.reopen();
    for (const char* ending : {"", "-wal", "-shm"}) std::filesystem::remove(b.file().string() + ending);
    std::ofstream(b.file()).flush();
    b.t->go_on_after(40);
    CHECK(b.append({"b"}).first_offset == 41);
  }
  SECTION("while it rests: it remembers") {
    for (int i = 0; i < 40; ++i) b.append({std::to_string(i)});
    const auto log = b.file().string() + "-wal";
    for (int i = 0; i < 1000 && std::filesystem::exists(log); ++i) b.retain(start);
    REQUIRE(std::filesystem::remove(b.file()));
    CHECK(b.append({"a"}).first_offset == 41);
  }
  CHECK(b.append({"z"}).first_offset == 42);
  b.reopen();
  CHECK(b.t->last_offset() == 42);
  check_whole(b);
}

TEST_CASE("too much waiting to be written answers overloaded, and counts down again", "[topic]") {
  bench b;
  asio::thread_pool callers(1);
  std::promise<void> go;
  const auto held = go.get_future().share();
  for (int i = 0; i < 2; ++i) asio::post(b.pool, [held] { held.wait(); });  // both writer threads
  const auto large = batch_of({"x"}, 0, 10 << 20);
  std::vector<std::future<result<append_result>>> waiting;
  for (int i = 0; i < 8; ++i) {
    waiting.push_back(asio::co_spawn(callers, b.t->append(large), asio::use_future));
  }
  // The single caller thread has started them in order: the last two do not fit 64 MiB.
  for (const std::size_t i : {std::size_t{6}, std::size_t{7}}) {
    const auto refused = waiting[i].get();
    REQUIRE(refused.has_error());
    CHECK(refused.error().code == errc::overloaded);
    CHECK(refused.error().retry_after_s == 1);
  }
  go.set_value();
  for (std::size_t i = 0; i < 6; ++i) CHECK(waiting[i].get().value().accepted == 1);
  CHECK(b.append(large).last_offset == 7);
  // One batch alone is never too much, whatever its size.
  CHECK(b.append(batch_of({"y"}, 0, 70 << 20)).accepted == 1);
}

// Method: file sizes are limited to a little above what the files have; appends go on until the disk is
// "full", in every way they meet it (alone, in groups); then the limit is lifted.
TEST_CASE("a full disk loses nothing that was accepted and leaves no gap", "[topic]") {
  bench b;
  b.append(numbers(0, 100));
  std::atomic<std::int64_t> accepted{100};
  std::atomic<int> refused{0};
  {
    const file_size_limit full(2 << 20);
    std::vector<std::jthread> writers;
    for (int w = 0; w < 4; ++w) {
      writers.emplace_back([&, w] {
        for (int i = 0; i < 40; ++i) {
          try {
            accepted += b.append(batch_of(numbers(0, 1 + (i + w) % 50), 0, 2000)).accepted;
          } catch (const sqlite::failure& f) {
            if (f.is_full_or_io()) ++refused;
          }
        }
      });
    }
  }
  CHECK(refused > 0);
  CHECK(b.t->last_offset() == accepted);
  check_whole(b);
  CHECK(b.append({"after"}).first_offset == accepted + 1);
  b.reopen();
  CHECK(b.t->last_offset() == accepted + 1);
  check_whole(b);
}

// Method: a trigger in the file refuses one event; the writer is held up so that all appends come as one
// group.
TEST_CASE("an append that fails in a group leaves no gap for the others", "[topic]") {
  bench b;
  b.append({"first"});
  {
    sqlite::connection db(b.file(), sqlite::open_mode::read_write_create);
    db.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.id = 'poison' "
        "BEGIN SELECT RAISE(ABORT, 'poisoned'); END");
  }
  asio::thread_pool callers(1);
  std::promise<void> go;
  const auto held = go.get_future().share();
  for (int i = 0; i < 2; ++i) asio::post(b.pool, [held] { held.wait(); });
  std::vector<std::future<result<append_result>>> ends;
  for (int i = 0; i < 30; ++i) {
    const auto ids =
        i % 3 == 1 ? std::vector<std::string>{"a", "b", "poison", "c"} : std::vector<std::string>{"a", "b"};
    ends.push_back(asio::co_spawn(callers, b.t->append(batch_of(ids)), asio::use_future));
  }
  go.set_value();
  std::int64_t next = 2;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (i % 3 == 1) {
      CHECK_THROWS_WITH(ends[i].get(), Contains("poisoned"));
      continue;
    }
    const append_result r = ends[i].get().value();
    CHECK(r.first_offset == next);
    next = r.last_offset + 1;
  }
  CHECK(b.t->last_offset() == 41);
  check_whole(b);
}

// Method: a snapshot that is held back keeps the write-ahead log from starting over, so the log would grow
// with every append.
TEST_CASE("a read that stopped early does not let the write-ahead log grow", "[topic]") {
  bench b;
  b.append(batch_of(numbers(0, 100), 0, 1000));
  const auto large = batch_of(numbers(0, 1000), 0, 1000);
  for (int i = 0; i < 40; ++i) {
    REQUIRE(b.t->read(0, 100, INT64_MAX, 2000).size() == 2);
    b.append(large);
  }
  CHECK(std::filesystem::file_size(b.file().string() + "-wal") < 16 << 20);
}

// Method: three readers take turns so that there is hardly a moment without one, while 100 MiB are appended.
TEST_CASE("readers that never pause do not let the write-ahead log grow without bound", "[topic]") {
  bench b;
  const auto large = batch_of(numbers(0, 100), 0, 10'000);
  b.append(large);
  std::uintmax_t most = 0;
  {
    std::vector<std::jthread> readers;
    for (int r = 0; r < 3; ++r) {
      readers.emplace_back([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) b.t->read(0, 5000, INT64_MAX, 32 << 20);
      });
    }
    for (int i = 0; i < 100; ++i) {
      b.append(large);
      most = std::max(most, std::filesystem::file_size(b.file().string() + "-wal"));
    }
  }
  CHECK(most < 70 << 20);
  check_whole(b);
}

TEST_CASE("a file made by a newer version is refused, for reading and writing", "[topic]") {
  bench b;
  b.append({"a"});
  b.t->close();
  {
    sqlite::connection db(b.file(), sqlite::open_mode::read_write_create);
    db.execute("PRAGMA user_version = 99");
  }
  b.reopen();
  CHECK_THROWS_WITH(b.t->read(0, 1), Contains("t.db") && Contains("newer") && Contains("99"));
  CHECK_THROWS_WITH(b.append({"b"}), Contains("t.db") && Contains("newer") && Contains("99"));
  CHECK_THROWS_WITH(b.t->status(), Contains("newer"));
}

TEST_CASE("a corrupt file throws with its name", "[topic]") {
  bench b;
  std::filesystem::create_directories(b.dir / "topics");
  std::ofstream(b.file()) << std::string(20'000, '#');
  CHECK_THROWS_WITH(b.t->read(0, 1), Contains("t.db"));
  CHECK_THROWS_WITH(b.t->last_offset(), Contains("t.db"));
  CHECK_THROWS_WITH(b.append({"a"}), Contains("t.db"));
  // Readers that could not be opened do not use up the pool.
  for (int i = 0; i < 5; ++i) CHECK_THROWS(b.t->read(0, 1));
}

TEST_CASE("damage in the middle of a file throws with its name and never hangs", "[topic]") {
  bench b;
  b.append(batch_of(numbers(0, 2000), 0, 300));
  b.t->close();
  {
    std::fstream file(b.file(), std::ios::in | std::ios::out | std::ios::binary);
    for (int page = 5; page < 100; ++page) {
      file.seekp(page * 4096);
      file << std::string(4096, '\x5a');
    }
  }
  b.reopen();
  for (int i = 0; i < 5; ++i) CHECK_THROWS_WITH(b.t->read(0, 2000), Contains("t.db"));
}

// --- listeners

TEST_CASE("listeners hear the new last offset after each commit", "[topic][listener]") {
  bench b;
  std::vector<std::int64_t> heard;
  auto token = b.t->subscribe([&](std::int64_t last) {
    heard.push_back(last);
    if (b.t->last_offset() != last) heard.push_back(-1);
  });
  b.append({"a", "b"});
  b.append({"c"});
  CHECK(heard == std::vector<std::int64_t>{2, 3});
  b.produce("p", 1, 3);
  b.produce("p", 1, 3);  // nothing new, nothing said
  CHECK(heard == std::vector<std::int64_t>{2, 3, 5});
  token.reset();
  b.append({"d"});
  CHECK(heard.size() == 3);
}

// Method: the first listener holds up the round of calls while the second one's token goes.
TEST_CASE("a token that goes during a round of calls is not called in it", "[topic][listener]") {
  bench b;
  std::promise<void> reached, go_on;
  bool called = false;
  const auto first = b.t->subscribe([&](std::int64_t) {
    reached.set_value();
    go_on.get_future().wait();
  });
  auto second = b.t->subscribe([&](std::int64_t) { called = true; });
  std::jthread writer([&] { b.append({"a"}); });
  reached.get_future().wait();
  second.reset();
  go_on.set_value();
  writer.join();
  CHECK_FALSE(called);
}

TEST_CASE("a token may outlive its topic", "[topic][listener]") {
  bench b;
  auto token = b.t->subscribe([](std::int64_t) {});
  b.append({"a"});
  b.t.reset();
  token.reset();
}

TEST_CASE("a listener may let go of its own token", "[topic][listener]") {
  bench b;
  int calls = 0;
  std::shared_ptr<topic::subscription> token;
  token = b.t->subscribe([&](std::int64_t) {
    ++calls;
    token.reset();
  });
  b.append({"a"});
  b.append({"b"});
  CHECK(calls == 1);
}

TEST_CASE("once its token is gone a listener is never called again, while commits run", "[topic][listener]") {
  bench b;
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0}, late{0};
  std::jthread writer([&] {
    while (!stop) b.append({"a"});
  });
  {
    std::vector<std::jthread> subscribers;
    for (int s = 0; s < 3; ++s) {
      subscribers.emplace_back([&] {
        for (int i = 0; i < 300; ++i) {
          auto alive = std::make_unique<std::atomic<bool>>(true);
          auto token = b.t->subscribe([&, watched = alive.get()](std::int64_t) {
            ++calls;
            if (!*watched) ++late;
          });
          if (i % 3 == 0) b.append({"b"});
          token.reset();
          *alive = false;
          alive.reset();  // a later call would be a use after free
        }
      });
    }
  }
  stop = true;
  writer.join();
  CHECK(calls > 0);
  CHECK(late == 0);
}

// --- retention

TEST_CASE("retention removes what is old, never above keep_after", "[topic][retention]") {
  bench b;
  b.definition.retain = 1h;
  b.t->redefine(b.definition);
  for (int i = 0; i < 10; ++i) b.append(numbers(i * 10, i * 10 + 10), start + i * 10min);
  CHECK(b.retain(start + 30min) == 0);
  CHECK(b.retain(start + 1h) == 0);  // exactly as old as `retain` is not older
  CHECK(b.retain(start + 1h + 1us, 4) == 4);
  CHECK(b.t->status().first_offset == 5);
  CHECK(b.retain(start + 1h + 1us) == 6);
  CHECK(b.t->status().first_offset == 11);
  CHECK(b.retain(start + 1h + 25min, 5) == 0);
  CHECK(b.retain(start + 24h, 33) == 23);
  check_whole(b);
  CHECK(b.t->read(0, 1).events.front().position == 34);
  CHECK(b.t->received_at(1) == start + 30min);  // the next one kept
  CHECK(b.t->status().events == 67);
  CHECK(b.t->last_offset() == 100);
  CHECK(b.retain(start + 24h, 0) == 0);
  CHECK(b.retain(start + 24h, -1) == 0);
}

TEST_CASE("without a retention rule everything stays", "[topic][retention]") {
  bench b;
  b.append(numbers(0, 10));
  CHECK(b.retain(start + std::chrono::years(20)) == 0);
  CHECK(b.t->status().events == 10);
}

TEST_CASE("offsets go on after everything was removed, and after a reopening", "[topic][retention]") {
  bench b;
  b.definition.retain = 1s;
  b.t->redefine(b.definition);
  std::int64_t next = 1;
  for (int round = 0; round < 3; ++round) {
    CHECK(b.append(numbers(0, 5)).first_offset == next);
    next += 5;
    CHECK(b.retain(start + 1h) == 5);
    CHECK(b.t->read(0, 10).empty());
    CHECK(b.t->status().events == 0);
    CHECK(b.t->status().first_offset == 0);
    CHECK(b.t->status().last_offset == next - 1);
    if (round > 0) b.reopen();
    CHECK(b.t->last_offset() == next - 1);
    CHECK_FALSE(b.t->received_at(1));
  }
  check_whole(b);
}

TEST_CASE("retention works in slices and through appends", "[topic][retention]") {
  bench b;
  b.definition.retain = 1h;
  b.definition.dedupe = config::dedupe_rule{"event.id", 1h};
  b.t->redefine(b.definition);
  for (int i = 0; i < 25; ++i) b.append(numbers(i * 1000, i * 1000 + 1000));
  b.append(numbers(90'000, 90'100), start + 2h);
  std::atomic<bool> stop{false};
  std::int64_t appended = 0;
  std::jthread writer([&] {
    int id = 100'000;
    while (!stop) {
      const auto r =
          wait_for(b.pool, b.t->append(batch_of({std::to_string(id++)}), append_options("", start + 2h)));
      appended += r.value().accepted;
    }
  });
  CHECK(b.retain(start + 2h) == 25'000);
  stop = true;
  writer.join();
  CHECK(b.t->status().events == 100 + appended);
  check_whole(b);
  // The keys went with their time: the file has room again for as many without growing.
  sqlite::connection db(b.file(), sqlite::open_mode::read_only);
  sqlite::statement keys(db, "SELECT count(*) FROM dedupe");
  REQUIRE(keys.step());
  CHECK(keys.integer(0) == 100 + appended);
}

TEST_CASE("a clock that was wrong for a while does not make retention remove young events",
          "[topic][retention]") {
  bench b;
  b.definition.retain = 1h;
  b.t->redefine(b.definition);
  b.append({"a"});
  b.append({"from the future"}, start + 48h);
  b.append({"b"}, start + 1min);
  CHECK(b.retain(start + 3h) == 1);
  check_whole(b);
  CHECK(b.ids() == std::vector<std::string>{"from the future", "b"});
}

TEST_CASE("producers that were silent for a month are forgotten, others not", "[topic][retention]") {
  bench b;
  b.produce("old", 1, 5);
  b.append(batch_of({"x"}, 9), append_options("young", start + std::chrono::days(20)));
  b.retain(start + std::chrono::days(31));
  CHECK(b.t->producer_position("old") == 0);
  CHECK(b.t->producer_position("young") == 9);
}

TEST_CASE("an unused topic's files are closed by retention, and open again when needed",
          "[topic][retention]") {
  bench b;
  const auto open_files = [&] {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      if (std::filesystem::read_symlink(entry, gone).string().starts_with(b.dir.path().string())) ++count;
    }
    return count;
  };
  b.append({"a"});
  CHECK(b.t->read(0, 1).size() == 1);
  const auto bytes = b.t->status().bytes;  // most of it is in the log still, and counts once
  b.retain(start);
  CHECK(open_files() > 0);
  // The second time it was unused. Closing happens behind the answer, or at the next call if the queue was
  // not at rest yet.
  for (int i = 0; i < 1000 && open_files() > 0; ++i) b.retain(start);
  CHECK(open_files() == 0);
  CHECK(b.t->status().events == 1);  // looking leaves nothing open
  CHECK(b.t->status().bytes == static_cast<std::int64_t>(std::filesystem::file_size(b.file())));
  CHECK(b.t->status().bytes == bytes);
  CHECK(b.t->last_offset() == 1);
  CHECK(b.t->received_at(1) == start);
  CHECK(open_files() == 0);
  CHECK(b.append({"b"}).first_offset == 2);
  CHECK(b.ids() == std::vector<std::string>{"a", "b"});
}

TEST_CASE("status is of the last commit", "[topic]") {
  bench b;
  b.definition.retain = 1h;
  b.t->redefine(b.definition);
  for (int i = 1; i < 20; ++i) {
    b.append({"a"});
    CHECK(b.t->status().last_offset == i);
    CHECK(b.t->status().last_offset == i);
    CHECK(b.t->status().name == "t");
  }
  CHECK(b.t->status().bytes > 0);
  b.retain(start + 2h);
  CHECK(b.t->status().events == 0);
}

// --- closing, and many topics

TEST_CASE("close commits what waits; then the topic reads as empty and refuses", "[topic]") {
  bench b;
  asio::thread_pool callers(1);
  std::vector<std::future<result<append_result>>> ends;
  for (int i = 0; i < 50; ++i) {
    ends.push_back(asio::co_spawn(callers, b.t->append(batch_of(numbers(0, 10))), asio::use_future));
  }
  ends.front().get();
  b.t->close();
  std::int64_t accepted = 10;
  for (std::size_t i = 1; i < ends.size(); ++i) {
    const auto r = ends[i].get();
    if (r) {
      accepted += r->accepted;
    } else {
      CHECK(r.error().code == errc::unavailable);
    }
  }
  CHECK(b.t->read(0, 1).empty());
  CHECK(b.try_append(batch_of({"x"})).error().code == errc::unavailable);
  CHECK(b.retain(start) == 0);
  b.t->close();
  CHECK_FALSE(std::filesystem::exists(b.file().string() + "-wal"));
  b.reopen();
  CHECK(b.t->last_offset() == accepted);
  check_whole(b);
}

TEST_CASE("close waits for reads that are under way", "[topic]") {
  bench b;
  b.append(batch_of(numbers(0, 1000), 0, 300));
  std::atomic<int> odd{0};
  {
    std::vector<std::jthread> readers;
    for (int r = 0; r < 4; ++r) {
      readers.emplace_back([&] {
        while (true) {
          const std::size_t size = b.t->read(0, 1000).size();
          if (size == 0) return;
          if (size != 1000) ++odd;
        }
      });
    }
    b.t->close();
  }
  CHECK(odd == 0);
}

TEST_CASE("ten thousand declared topics cost no file", "[topic]") {
  const temp_dir dir;
  asio::thread_pool pool(2);
  topics all(dir / "topics", pool.get_executor());
  for (int i = 0; i < 10'000; ++i) {
    const auto t =
        all.declare({.name = "topic_" + std::to_string(i), .retain = {}, .max_bytes = {}, .dedupe = {}});
    REQUIRE(t->read(0, 10).empty());
    REQUIRE(t->last_offset() == 0);
  }
  CHECK_FALSE(std::filesystem::exists(dir / "topics"));
  CHECK(all.names().size() == 10'000);
  CHECK(all.all().size() == 10'000);
  CHECK(all.names().front() == "topic_0");
}

TEST_CASE("topics are found, redefined and removed by name", "[topic]") {
  const temp_dir dir;
  asio::thread_pool pool(2);
  topics all(dir / "topics", pool.get_executor());
  CHECK(all.find("a") == nullptr);
  const config::topic definition{.name = "a", .retain = {}, .max_bytes = {}, .dedupe = {}};
  const auto a = all.declare(definition);
  CHECK(all.find("a") == a);
  CHECK(wait_for(pool, a->append(batch_of({"1"}))).value().accepted == 1);
  auto changed = definition;
  changed.max_bytes = 1;
  CHECK(all.declare(changed) == a);
  CHECK(wait_for(pool, a->append(batch_of(numbers(0, 200)))).value().accepted == 200);
  CHECK(wait_for(pool, a->append(batch_of({"3"}))).error().code == errc::overloaded);
  CHECK(a->read(0, 1).size() == 1);

  all.remove("a");
  all.remove("a");
  CHECK(all.find("a") == nullptr);
  CHECK(std::filesystem::is_empty(dir / "topics"));
  CHECK(a->read(0, 10).empty());  // who still holds it reads nothing
  CHECK(wait_for(pool, a->append(batch_of({"4"}))).error().code == errc::unavailable);
  CHECK(std::filesystem::is_empty(dir / "topics"));

  const auto again = all.declare(definition);
  CHECK(wait_for(pool, again->append(batch_of({"1"}))).value().first_offset == 1);
  all.close();
  CHECK(wait_for(pool, again->append(batch_of({"2"}))).error().code == errc::unavailable);
}

// --- kill -9

namespace {

constexpr const char* crash_folder = "PENSTOCK_TEST_CRASH_FOLDER";

// Appends for ever from several threads and prints "FIRST LAST TAG" once an append has returned.
[[noreturn]] void append_until_killed(const std::string& folder) {
  asio::thread_pool pool(2);
  topics all(folder, pool.get_executor());
  const auto t = all.declare(
      {.name = "crash", .retain = {}, .max_bytes = {}, .dedupe = config::dedupe_rule{"event.id", 1h}});
  std::vector<std::jthread> writers;
  for (int w = 0; w < 3; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0;; ++i) {
        const std::string tag =
            std::to_string(::getpid()) + "-" + std::to_string(w) + "-" + std::to_string(i);
        std::vector<std::string> ids;
        for (int n = 0; n <= i % 40; ++n) ids.push_back(tag + "/" + std::to_string(n));
        const auto r =
            wait_for(pool, t->append(batch_of(ids, 0, static_cast<std::size_t>(i % 7) * 400))).value();
        const std::string line =
            std::to_string(r.first_offset) + " " + std::to_string(r.last_offset) + " " + tag + "\n";
        if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) ::_exit(1);
      }
    });
  }
  writers.clear();
  ::_exit(1);
}

struct acknowledged {
  std::int64_t first = 0, last = 0;
  std::string tag;
};

// Starts this program again as the appending child, kills it once it has acknowledged `appends`, and returns
// all that it had.
std::vector<acknowledged> run_and_kill(const std::filesystem::path& folder, std::size_t appends) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    ::setenv(crash_folder, folder.c_str(), 1);
    ::execl("/proc/self/exe", "crash", "[topic_crash_child]", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::FILE* const reports = ::fdopen(ends[0], "r");
  std::vector<acknowledged> all;
  char tag[100];
  acknowledged one;
  while (std::fscanf(reports, "%ld %ld %99s", &one.first, &one.last, tag) == 3) {
    one.tag = tag;
    all.push_back(one);
    if (all.size() == appends) ::kill(child, SIGKILL);
  }
  std::fclose(reports);
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  return all;
}

}  // namespace

TEST_CASE("the child of the kill -9 test", "[.][topic_crash_child]") {
  if (const char* const folder = std::getenv(crash_folder)) append_until_killed(folder);
}

// Method: a child process appends from three threads and reports each acknowledged append through a pipe; it
// is killed with SIGKILL after a random number of reports, in the middle of whatever it was doing, again and
// again over the same folder.
TEST_CASE("kill -9 in mid-write: all that was acknowledged is there, offsets dense, the file whole",
          "[topic][crash]") {
  const temp_dir dir;
  std::mt19937 random(static_cast<unsigned>(::getpid()));
  std::int64_t last = 0;
  for (int round = 0; round < 12; ++round) {
    const auto acks = run_and_kill(dir.path(), 1 + random() % 60);
    REQUIRE_FALSE(acks.empty());
    asio::thread_pool pool(2);
    topics all(dir.path(), pool.get_executor());
    const auto t = all.declare(
        {.name = "crash", .retain = {}, .max_bytes = {}, .dedupe = config::dedupe_rule{"event.id", 1h}});
    const batch stored = t->read(0, SIZE_MAX, INT64_MAX, SIZE_MAX);
    std::set<std::string> ids;
    for (std::size_t i = 0; i < stored.size(); ++i) {
      REQUIRE(stored.events[i].position == static_cast<std::int64_t>(i) + 1);
      REQUIRE(ids.emplace(stored.events[i].id).second);
    }
    for (const acknowledged& ack : acks) {
      REQUIRE(ack.first > last);
      REQUIRE(ack.last <= static_cast<std::int64_t>(stored.size()));
      for (std::int64_t offset = ack.first; offset <= ack.last; ++offset) {
        const event& e = stored.events[static_cast<std::size_t>(offset) - 1];
        REQUIRE(e.id == ack.tag + "/" + std::to_string(offset - ack.first));
      }
    }
    // Replaying an acknowledged event is a duplicate: the keys were in the same transaction.
    const auto again = wait_for(pool, t->append(batch_of({acks.back().tag + "/0"}))).value();
    CHECK(again.duplicates == 1);
    last = t->last_offset();
    CHECK(last == static_cast<std::int64_t>(stored.size()));
    sqlite::connection db(dir / "crash.db", sqlite::open_mode::read_only);
    sqlite::statement check(db, "PRAGMA integrity_check");
    REQUIRE(check.step());
    REQUIRE(check.text(0) == "ok");
  }
}

}  // namespace test_topic
