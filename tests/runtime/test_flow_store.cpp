#include <atomic>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/thread_pool.hpp>
#include <catch2/catch.hpp>

#include "runtime/flow_store.hpp"
#include "runtime/sqlite.hpp"
#include "runtime/ulid.hpp"
#include "tests/runtime/file_size_limit.hpp"
#include "tests/runtime/wait_for.hpp"
#include "tests/temp_dir.hpp"

namespace test_flow_store {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::file_size_limit;
using penstock::testing::temp_dir;
using penstock::testing::wait_for;

namespace {

struct bench {
  temp_dir dir;
  asio::thread_pool pool{2};
  std::unique_ptr<flow_store> store = make();

  std::filesystem::path file() const { return dir / "flows.db"; }
  std::unique_ptr<flow_store> make() { return std::make_unique<flow_store>(file(), pool.get_executor()); }
  void reopen() {
    store.reset();
    store = make();
  }
  void save(commit c) { wait_for(pool, store->save(std::move(c))); }
  void forget(const std::string& name) { wait_for(pool, store->forget(name)); }
  std::int64_t remove(std::vector<std::string> ids) {
    return wait_for(pool, store->remove_dead_letters(std::move(ids)));
  }
};

dead_letter dead(const std::string& consumer, const std::string& event_id, std::int64_t position) {
  dead_letter d;
  d.id = make_ulid();
  d.pipeline = consumer.substr(0, consumer.find('/'));
  d.consumer = consumer;
  d.step = "filter_1";
  d.reason = "attempt to compare nil with number";
  d.attempts = 3;
  d.at = from_micros(1'700'000'000'123'456);
  d.event_id = event_id;
  d.source = "/topics/t";
  d.type = "event";
  d.subject = "s";
  d.datacontenttype = "text/plain";
  d.key = "k";
  d.data = std::string("bytes\0\xff", 7);
  d.event_time = from_micros(1'600'000'000'000'001);
  d.position = position;
  return d;
}

commit commit_of(const std::string& consumer, std::int64_t position) {
  return {.consumer = consumer, .position = position, .sink = "", .steps = {}, .dead = {}};
}

std::map<std::string, std::string> state_of(const checkpoint& c) {
  std::map<std::string, std::string> all;
  for (const state_entry& e : c.steps) all[e.step + "." + e.key] = e.value;
  return all;
}

}  // namespace

TEST_CASE("a store without a file reads as empty and makes none; one with an empty file reads as empty", "[flow_store]") {
  bench b;
  const bool empty_file = GENERATE(false, true);
  if (empty_file) std::ofstream(b.file()).close();
  const checkpoint none = b.store->load("p/flow/f");
  CHECK(none.position == 0);
  CHECK(none.sink.empty());
  CHECK(none.steps.empty());
  CHECK(b.store->dead_letters({}).empty());
  CHECK_FALSE(b.store->find_dead_letter("x"));
  CHECK(b.store->count_dead_letters() == 0);
  CHECK(b.store->cursors().empty());
  CHECK(std::filesystem::exists(b.file()) == empty_file);
  b.save(commit_of("p/flow/f", 1));
  CHECK(b.store->load("p/flow/f").position == 1);
}

TEST_CASE("a checkpoint comes back as saved, also after a reopening", "[flow_store]") {
  bench b;
  const std::string bytes("\0\1\xff", 3);
  b.save({.consumer = "p/flow/f",
          .position = 41,
          .sink = bytes,
          .steps = {{"window_1", "k1", "one"}, {"window_1", "k2", bytes}, {"dedupe_2", "k1", ""}},
          .dead = {}});
  b.save({.consumer = "p/flow/f",
          .position = 42,
          .sink = "length=7",
          .steps = {{"window_1", "k1", std::nullopt},
                    {"window_1", "k2", "two"},
                    {"window_1", "none", std::nullopt}},
          .dead = {}});
  b.save(commit_of("p/flow/other", 7));
  for (const bool again : {false, true}) {
    if (again) b.reopen();
    const checkpoint c = b.store->load("p/flow/f");
    CHECK(c.position == 42);
    CHECK(c.sink == "length=7");
    CHECK(state_of(c) == std::map<std::string, std::string>{{"dedupe_2.k1", ""}, {"window_1.k2", "two"}});
    CHECK(b.store->load("p/flow/other").steps.empty());
    CHECK(b.store->cursors() ==
          std::vector<std::pair<std::string, std::int64_t>>{{"p/flow/f", 42}, {"p/flow/other", 7}});
  }
}

TEST_CASE("forgetting takes a consumer and all below it, and no namesake", "[flow_store]") {
  bench b;
  for (const char* const name :
       {"p/run/R", "p/run/R/a", "p/run/R/b", "p/run/R2", "p/run/R2/a", "p/run/Q", "p/run/R-x"}) {
    b.save({.consumer = name,
            .position = 1,
            .sink = "",
            .steps = {{"s", "k", name}},
            .dead = {dead(name, "e", 1)}});
  }
  b.forget("p/run/R");
  const auto names = [&] {
    std::vector<std::string> all;
    for (const auto& [name, position] : b.store->cursors()) all.push_back(name);
    return all;
  };
  CHECK(names() == std::vector<std::string>{"p/run/Q", "p/run/R-x", "p/run/R2", "p/run/R2/a"});
  CHECK(b.store->load("p/run/R/a").steps.empty());
  CHECK(b.store->load("p/run/R2/a").steps.size() == 1);
  CHECK(b.store->count_dead_letters() == 7);
  b.forget("p/run/R2/");  // a slash at the end changes nothing
  CHECK(names() == std::vector<std::string>{"p/run/Q", "p/run/R-x"});
  b.forget("p");
  CHECK(names().empty());
}

TEST_CASE("a dead letter comes back as saved", "[flow_store]") {
  bench b;
  const dead_letter d = dead("p/flow/f", "e1", 5);
  b.save({.consumer = d.consumer, .position = 5, .sink = "", .steps = {}, .dead = {d}});
  const auto found = b.store->find_dead_letter(d.id);
  REQUIRE(found);
  CHECK(found->id == d.id);
  CHECK(found->pipeline == "p");
  CHECK(found->consumer == d.consumer);
  CHECK(found->step == d.step);
  CHECK(found->reason == d.reason);
  CHECK(found->attempts == 3);
  CHECK(found->at == d.at);
  CHECK(found->event_id == "e1");
  CHECK(found->source == d.source);
  CHECK(found->type == d.type);
  CHECK(found->subject == d.subject);
  CHECK(found->datacontenttype == d.datacontenttype);
  CHECK(found->key == d.key);
  CHECK(found->data == d.data);
  CHECK(found->event_time == d.event_time);
  CHECK(found->position == 5);
  CHECK_FALSE(b.store->find_dead_letter("no such id"));
}

TEST_CASE("processing a batch again does not store its dead letters twice", "[flow_store]") {
  bench b;
  const auto save = [&](std::int64_t position) {
    b.save({.consumer = "p/flow/f",
            .position = position,
            .sink = "",
            .steps = {},
            .dead = {dead("p/flow/f", "e1", 1), dead("p/flow/f", "e2", 2)}});
  };
  save(2);
  const auto first = b.store->dead_letters({});
  save(2);  // other ids, the same events
  b.reopen();
  save(2);
  const auto again = b.store->dead_letters({});
  REQUIRE(again.size() == 2);
  CHECK(again[0].id == first[0].id);
  CHECK(again[1].id == first[1].id);
  // The very same commit once more is no error either.
  b.save({.consumer = "p/flow/f", .position = 2, .sink = "", .steps = {}, .dead = first});
  CHECK(b.store->count_dead_letters() == 2);
  // Another step, position or consumer is another dead letter.
  auto other = dead("p/flow/f", "e1", 1);
  other.step = "to";
  b.save({.consumer = "p/flow/f",
          .position = 2,
          .sink = "",
          .steps = {},
          .dead = {other, dead("p/flow/f", "e1", 9)}});
  b.save(
      {.consumer = "p/flow/g", .position = 2, .sink = "", .steps = {}, .dead = {dead("p/flow/g", "e1", 1)}});
  CHECK(b.store->count_dead_letters() == 5);
  // A removed one may die again.
  CHECK(b.remove({first[0].id}) == 1);
  save(2);
  CHECK(b.store->count_dead_letters() == 5);
}

TEST_CASE("dead letters are listed oldest first, filtered, page by page", "[flow_store]") {
  bench b;
  std::vector<std::string> ids;
  for (int i = 0; i < 60; ++i) {
    const std::string consumer = i % 3 == 0 ? "one/flow/a" : i % 3 == 1 ? "one/flow/b" : "two/flow/a";
    auto d = dead(consumer, "e" + std::to_string(i), i);
    d.id = make_ulid(from_micros(1'700'000'000'000'000 + i * 1000));
    ids.push_back(d.id);
    b.save({.consumer = consumer, .position = i, .sink = "", .steps = {}, .dead = {d}});
  }
  const auto list = [&](dead_letter_filter filter) {
    std::vector<std::string> all;
    for (const dead_letter& d : b.store->dead_letters(filter)) all.push_back(d.id);
    return all;
  };
  CHECK(list({}) == ids);
  CHECK(list({.limit = 0}).empty());
  CHECK(list({.limit = SIZE_MAX}).size() == 60);
  CHECK(list({.pipeline = "one"}).size() == 40);
  CHECK(list({.pipeline = "two"}).size() == 20);
  CHECK(list({.consumer = "one/flow/b"}).size() == 20);
  CHECK(list({.pipeline = "one", .consumer = "two/flow/a"}).empty());
  CHECK(list({.pipeline = "on"}).empty());
  std::vector<std::string> paged;
  for (std::string after;;) {
    const auto page = list({.pipeline = "one", .after_id = after, .limit = 7});
    if (page.empty()) break;
    paged.insert(paged.end(), page.begin(), page.end());
    after = page.back();
  }
  CHECK(paged == list({.pipeline = "one"}));
}

TEST_CASE("removing counts what was there", "[flow_store]") {
  bench b;
  const auto one = dead("p/flow/f", "e1", 1), two = dead("p/flow/f", "e2", 2);
  b.save({.consumer = "p/flow/f", .position = 2, .sink = "", .steps = {}, .dead = {one, two}});
  CHECK(b.remove({}) == 0);
  CHECK(b.remove({one.id, "none", one.id}) == 1);
  CHECK(b.remove({one.id}) == 0);
  CHECK(b.store->count_dead_letters() == 1);
  CHECK_FALSE(b.store->find_dead_letter(one.id));
}

TEST_CASE("a batch's share commits whole or not at all when the disk is full", "[flow_store]") {
  bench b;
  b.save({.consumer = "p/flow/f", .position = 1, .sink = "", .steps = {{"s", "k", "old"}}, .dead = {}});
  {
    const file_size_limit full(1 << 20);
    commit large{
        .consumer = "p/flow/f", .position = 2, .sink = "new", .steps = {{"s", "k", "new"}}, .dead = {}};
    large.dead.push_back(dead("p/flow/f", "e1", 1));
    large.dead.back().data.assign(4 << 20, 'x');
    CHECK_THROWS_AS(b.save(large), sqlite::failure);
  }
  const checkpoint kept = b.store->load("p/flow/f");
  CHECK(kept.position == 1);
  CHECK(state_of(kept) == std::map<std::string, std::string>{{"s.k", "old"}});
  CHECK(b.store->count_dead_letters() == 0);
  b.save(commit_of("p/flow/f", 3));
  CHECK(b.store->load("p/flow/f").position == 3);
}

TEST_CASE("many flows save at once and a load is never of two commits", "[flow_store]") {
  bench b;
  constexpr int flows = 6, rounds = 150;
  std::atomic<int> mixed{0};
  std::atomic<bool> stop{false};
  std::jthread watcher([&] {
    while (!stop) {
      const checkpoint c = b.store->load("p/flow/0");
      if (c.position == 0) continue;
      if (c.sink != std::to_string(c.position)) ++mixed;
      if (c.steps.size() != 1 || c.steps[0].value != c.sink) ++mixed;
    }
  });
  {
    std::vector<std::jthread> savers;
    for (int f = 0; f < flows; ++f) {
      savers.emplace_back([&, f] {
        for (int i = 1; i <= rounds; ++i) {
          const std::string now = std::to_string(i);
          b.save({.consumer = "p/flow/" + std::to_string(f),
                  .position = i,
                  .sink = now,
                  .steps = {{"s", "k", now}},
                  .dead = {}});
        }
      });
    }
  }
  stop = true;
  watcher.join();
  CHECK(mixed == 0);
  for (int f = 0; f < flows; ++f) CHECK(b.store->load("p/flow/" + std::to_string(f)).position == rounds);
}

TEST_CASE("a store that is closed saves nothing and reads as empty", "[flow_store]") {
  bench b;
  b.save(commit_of("p/flow/f", 1));
  b.store->close();
  CHECK_THROWS_AS(b.save(commit_of("p/flow/f", 2)), commit_queue::closed);
  CHECK(b.store->load("p/flow/f").position == 0);
  b.store->close();
  CHECK_FALSE(std::filesystem::exists(b.file().string() + "-wal"));
  b.reopen();
  CHECK(b.store->load("p/flow/f").position == 1);
}

TEST_CASE("a newer or a corrupt flows.db is refused by name", "[flow_store]") {
  bench b;
  b.save(commit_of("p/flow/f", 1));
  b.store->close();
  {
    sqlite::connection db(b.file(), sqlite::open_mode::read_write_create);
    db.execute("PRAGMA user_version = 77");
  }
  b.reopen();
  CHECK_THROWS_WITH(b.store->load("p/flow/f"), Contains("flows.db") && Contains("newer") && Contains("77"));
  CHECK_THROWS_WITH(b.save(commit_of("p/flow/f", 2)), Contains("flows.db") && Contains("newer"));
  b.store->close();
  std::ofstream(b.file()) << std::string(20'000, '#');
  b.reopen();
  CHECK_THROWS_WITH(b.store->load("p/flow/f"), Contains("flows.db"));
  CHECK_THROWS_WITH(b.save(commit_of("p/flow/f", 2)), Contains("flows.db"));
}

TEST_CASE("a store of the first format is brought to the present one by whoever comes first", "[flow_store]") {
  temp_dir dir;
  asio::thread_pool pool{1};
  {
    flow_store store(dir / "flows.db", pool.get_executor());
    commit c{"p/flow/f", 7, "", {}, {}, {}};
    dead_letter letter;
    letter.id = "01A";
    letter.pipeline = "p";
    letter.consumer = "p/flow/f";
    letter.step = "map_1";
    letter.event_id = "e";
    c.dead.push_back(letter);
    wait_for(pool, store.save(c));
  }
  const auto take_back = [&] {
    sqlite::connection db(dir / "flows.db", sqlite::open_mode::read_write_create);
    db.execute("ALTER TABLE dead_letters DROP COLUMN topic");
    db.execute("PRAGMA user_version = 1");
  };
  take_back();
  {
    flow_store store(dir / "flows.db", pool.get_executor());
    CHECK(store.load("p/flow/f").position == 7);  // reading alone must do
    REQUIRE(store.find_dead_letter("01A").has_value());
    CHECK(store.find_dead_letter("01A")->topic.empty());
  }
  take_back();
  {
    flow_store store(dir / "flows.db", pool.get_executor());
    wait_for(pool, store.save({"p/flow/f", 8, "", {}, {}, {}}));
    CHECK(store.load("p/flow/f").position == 8);
    CHECK(store.count_dead_letters() == 1);
  }
  pool.join();
}

}  // namespace test_flow_store
