#include <atomic>
#include <filesystem>
#include <functional>
#include <future>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <catch2/catch.hpp>
#include <sqlite3.h>

#include "runtime/commit_queue.hpp"
#include "tests/runtime/file_size_limit.hpp"
#include "tests/runtime/wait_for.hpp"
#include "tests/temp_dir.hpp"

namespace test_commit_queue {

using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::file_size_limit;
using penstock::testing::temp_dir;
using penstock::testing::wait_for;

namespace {

std::int64_t count(sqlite::connection& db) {
  sqlite::statement s(db, "SELECT count(*) FROM t");
  s.step();
  return s.integer(0);
}

void insert(sqlite::connection& db, std::int64_t value) {
  sqlite::statement(db, "INSERT INTO t VALUES (?1)").bind(1, value).run();
}

std::string text_of(const std::exception_ptr& e) {
  if (!e) return "";
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& caught) {
    return caught.what();
  }
}

// A queue over a table t(a), and a way to hold its executor so that a group gathers behind.
struct bench {
  temp_dir dir;
  asio::thread_pool pool{2};
  asio::any_io_executor strand = asio::make_strand(pool);
  std::atomic<int> commits{0}, undone{0}, opened{0};
  std::atomic<bool> cannot_open{false};
  commit_queue queue{strand, [this] { return open(); }, [this] { ++commits; }, [this] { ++undone; }};

  sqlite::connection open() {
    ++opened;
    if (cannot_open) throw std::runtime_error("no way in");
    sqlite::connection db(dir / "q.db", sqlite::open_mode::read_write_create);
    db.execute("CREATE TABLE IF NOT EXISTS t (a UNIQUE)");
    return db;
  }

  // What is submitted by `work` is one group.
  template <class F>
  void as_group(F work) {
    std::promise<void> go;
    asio::post(strand, [held = go.get_future().share()] { held.wait(); });
    work();
    go.set_value();
  }

  std::int64_t stored() {
    sqlite::connection db(dir / "q.db", sqlite::open_mode::read_only);
    return count(db);
  }
};

// Submits a piece; the future has what it ended with.
std::future<std::string> submit(bench& b, commit_queue::work piece) {
  auto done = std::make_shared<std::promise<std::string>>();
  auto end = done->get_future();
  b.queue.submit(std::move(piece), [done](const std::exception_ptr& e) { done->set_value(text_of(e)); });
  return end;
}

}  // namespace

TEST_CASE("done is called after the commit, and not a moment before", "[commit_queue]") {
  bench b;
  std::promise<std::int64_t> seen;
  b.queue.submit([](sqlite::connection& db) { insert(db, 1); },
                 [&](const std::exception_ptr& e) {
                   CHECK(!e);
                   CHECK(b.commits == 1);
                   seen.set_value(b.stored());
                 });
  CHECK(seen.get_future().get() == 1);
}

TEST_CASE("what must not wait for the caller is told on the queue's thread, once it is stored", "[commit_queue]") {
  bench b;
  std::vector<std::string> order;  // the caller goes on behind what it was told by
  const auto tell = [&](std::int64_t value) {
    CHECK(b.strand.target<asio::strand<asio::thread_pool::executor_type>>()->running_in_this_thread());
    order.push_back("stored " + std::to_string(value) + " of " + std::to_string(b.stored()));
  };
  const auto ask = [&](std::int64_t value) -> asio::awaitable<std::string> {
    auto piece = [value](sqlite::connection& db) {
      insert(db, value);
      return value;
    };
    try {
      co_await b.queue.run(std::move(piece), tell);
    } catch (const std::exception& e) {
      co_return e.what();
    }
    order.push_back("went on");
    co_return "";
  };
  CHECK(wait_for(b.pool, ask(7)).empty());
  CHECK_FALSE(wait_for(b.pool, ask(7)).empty());  // it is unique
  CHECK(order == std::vector<std::string>{"stored 7 of 1", "went on"});
}

TEST_CASE("what waits shares one commit, in the order submitted", "[commit_queue]") {
  bench b;
  std::vector<int> order;
  std::vector<std::future<std::string>> ends;
  b.as_group([&] {
    for (int i = 0; i < 500; ++i) {
      ends.push_back(submit(b, [&order, i](sqlite::connection& db) {
        insert(db, i);
        order.push_back(i);
      }));
    }
  });
  for (auto& end : ends) REQUIRE(end.get().empty());
  CHECK(b.commits == 1);
  CHECK(std::is_sorted(order.begin(), order.end()));
  CHECK(b.stored() == 500);
}

TEST_CASE("a group has a limit; what is over it comes with the next", "[commit_queue]") {
  bench b;
  std::vector<std::future<std::string>> ends;
  b.as_group([&] {
    for (int i = 0; i < 2500; ++i) ends.push_back(submit(b, [i](sqlite::connection& db) { insert(db, i); }));
  });
  for (auto& end : ends) REQUIRE(end.get().empty());
  CHECK(b.commits == 3);
  CHECK(b.stored() == 2500);
}

TEST_CASE("pieces that throw in a group are undone alone", "[commit_queue]") {
  bench b;
  std::vector<std::future<std::string>> ends;
  b.as_group([&] {
    for (int i = 0; i < 100; ++i) {
      ends.push_back(submit(b, [i](sqlite::connection& db) {
        insert(db, i);
        if (i % 3 == 0) throw std::runtime_error("piece " + std::to_string(i));
        if (i % 3 == 1) insert(db, i - 1);  // what the piece before had written is gone: no constraint breaks
      }));
    }
  });
  for (int i = 0; i < 100; ++i) {
    REQUIRE(ends[static_cast<std::size_t>(i)].get() == (i % 3 == 0 ? "piece " + std::to_string(i) : ""));
  }
  CHECK(b.stored() == 33 * 2 + 33);
  CHECK(b.commits == 1);
  CHECK(b.undone == 0);
}

TEST_CASE("a piece that is alone and throws rolls the transaction back", "[commit_queue]") {
  bench b;
  REQUIRE(submit(b, [](sqlite::connection& db) { insert(db, 1); }).get().empty());
  CHECK(submit(b, [](sqlite::connection& db) {
          insert(db, 2);
          throw std::runtime_error("alone");
        }).get() == "alone");
  CHECK_THAT(submit(b, [](sqlite::connection& db) { insert(db, 1); }).get(), Contains("UNIQUE"));
  CHECK(submit(b, [](sqlite::connection& db) { insert(db, 3); }).get().empty());
  CHECK(b.stored() == 2);
  CHECK(b.commits == 2);
  CHECK(b.undone == 2);
  CHECK(b.opened == 1);
}

TEST_CASE("a group in which every piece throws leaves nothing", "[commit_queue]") {
  bench b;
  std::vector<std::future<std::string>> ends;
  b.as_group([&] {
    for (int i = 0; i < 10; ++i) {
      ends.push_back(submit(b, [](sqlite::connection& db) {
        insert(db, 1);
        throw std::runtime_error("no");
      }));
    }
  });
  for (auto& end : ends) CHECK(end.get() == "no");
  CHECK(b.stored() == 0);
}

TEST_CASE("when SQLite rolls everything back in the middle, the whole group has failed", "[commit_queue]") {
  bench b;
  std::vector<std::future<std::string>> ends;
  b.as_group([&] {
    ends.push_back(submit(b, [](sqlite::connection& db) { insert(db, 1); }));
    ends.push_back(submit(b, [](sqlite::connection& db) {
      db.execute("ROLLBACK");  // as SQLite itself does on some I/O errors
      throw std::runtime_error("lost");
    }));
    ends.push_back(submit(b, [](sqlite::connection& db) { insert(db, 3); }));
  });
  for (auto& end : ends) CHECK(end.get() == "lost");
  CHECK(b.stored() == 0);
  CHECK(b.undone == 1);
  CHECK(submit(b, [](sqlite::connection& db) { insert(db, 4); }).get().empty());
  CHECK(b.stored() == 1);
}

// Method: a limit on file sizes (RLIMIT_FSIZE) makes the writes of COMMIT fail as a full disk does; the table
// fits the page cache, so that the pieces themselves succeed.
TEST_CASE("when COMMIT fails every piece of the group gets the failure, and the queue goes on",
          "[commit_queue]") {
  bench b;
  REQUIRE(submit(b, [](sqlite::connection& db) { insert(db, -1); }).get().empty());
  const std::string payload(10'000, 'x');
  std::vector<std::future<std::string>> ends;
  {
    const file_size_limit full(100'000);
    b.as_group([&] {
      for (int i = 0; i < 20; ++i) {
        ends.push_back(submit(b, [i, payload](sqlite::connection& db) {
          const std::string text = std::to_string(i) + payload;
          sqlite::statement(db, "INSERT INTO t VALUES (?1)").bind(1, text).run();
        }));
      }
    });
    for (auto& end : ends) CHECK_THAT(end.get(), Contains("q.db"));
    CHECK(b.undone == 1);
    CHECK(b.commits == 1);
    CHECK_THAT(b.queue.trouble().value_or(""), Contains("the disk fails") && Contains("q.db"));
  }
  CHECK_FALSE(submit(b, [](sqlite::connection& db) { insert(db, -1); }).get().empty());
  CHECK(b.queue.trouble());  // a row that is refused says nothing about the disk
  CHECK(submit(b, [](sqlite::connection& db) { insert(db, 2); }).get().empty());
  CHECK_FALSE(b.queue.trouble());
  CHECK(b.stored() == 2);
}

TEST_CASE("when the file cannot be opened all get that failure, and the next piece tries again",
          "[commit_queue]") {
  bench b;
  b.cannot_open = true;
  std::vector<std::future<std::string>> ends;
  b.as_group([&] {
    for (int i = 0; i < 3; ++i) ends.push_back(submit(b, [](sqlite::connection& db) { insert(db, 1); }));
  });
  for (auto& end : ends) CHECK(end.get() == "no way in");
  CHECK(b.opened == 1);
  CHECK(submit(b, [](sqlite::connection& db) { insert(db, 1); }).get() == "no way in");
  b.cannot_open = false;
  CHECK(submit(b, [](sqlite::connection& db) { insert(db, 1); }).get().empty());
  CHECK(b.opened == 3);
  CHECK(b.stored() == 1);
}

TEST_CASE("nothing is opened before the first piece", "[commit_queue]") {
  const bench b;
  CHECK(b.opened == 0);
  CHECK_FALSE(std::filesystem::exists(b.dir / "q.db"));
}

TEST_CASE("close commits what waits, then refuses", "[commit_queue]") {
  bench b;
  std::vector<std::future<std::string>> ends;
  b.as_group([&] {
    for (int i = 0; i < 1500; ++i) ends.push_back(submit(b, [i](sqlite::connection& db) { insert(db, i); }));
  });
  b.queue.close();
  for (auto& end : ends) {
    REQUIRE(end.wait_for(std::chrono::seconds(0)) == std::future_status::ready);
    REQUIRE(end.get().empty());
  }
  CHECK_FALSE(std::filesystem::exists(b.dir / "q.db-wal"));
  CHECK(b.stored() == 1500);
  CHECK_THAT(submit(b, [](sqlite::connection&) {}).get(), Contains("closed"));
  b.queue.close();
  auto piece = [](sqlite::connection&) {};
  CHECK_THROWS_AS(wait_for(b.pool, b.queue.run(piece)), commit_queue::closed);
}

TEST_CASE("a resting queue closes its file and opens it again for the next piece", "[commit_queue]") {
  bench b;
  int rested = 0;
  for (int round = 1; round <= 3; ++round) {
    REQUIRE(submit(b, [round](sqlite::connection& db) { insert(db, round); }).get().empty());
    // The queue may not have noticed yet that nothing waits; then it does not rest, and is asked again.
    while (rested < round) {
      std::promise<void> turn;
      b.queue.rest([&rested] { ++rested; });
      asio::post(b.strand, [&turn] { turn.set_value(); });
      turn.get_future().wait();
    }
  }
  CHECK(b.opened == 3);
  CHECK(b.stored() == 3);
  b.queue.close();
  b.queue.rest([&rested] { ++rested; });
  CHECK(rested == 3);
}

TEST_CASE("resting never loses a piece", "[commit_queue]") {
  bench b;
  {
    std::jthread rester([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) b.queue.rest([] {});
    });
    for (int i = 0; i < 300; ++i) {
      REQUIRE(submit(b, [i](sqlite::connection& db) { insert(db, i); }).get().empty());
    }
  }
  b.queue.close();
  CHECK(b.stored() == 300);
}

// A piece of so many pages, and what the file has grown to.
constexpr std::int64_t page = 4096;
void write_pages(sqlite::connection& db, std::int64_t pages) {
  db.execute("CREATE TABLE IF NOT EXISTS large (a BLOB)");
  sqlite::statement(db, "INSERT INTO large VALUES (zeroblob(?1))").bind(1, pages * page).run();
}

TEST_CASE("the log is folded behind the commit that filled it, not in it", "[commit_queue]") {
  bench b;
  const auto file_pages = [&b] { return static_cast<std::int64_t>(std::filesystem::file_size(b.dir / "q.db")) / page; };
  std::promise<std::int64_t> when_told;
  b.queue.submit([](auto& db) { write_pages(db, 1100); }, [&](const auto&) { when_told.set_value(file_pages()); });
  CHECK(when_told.get_future().get() < 100);
  while (file_pages() < 1100) std::this_thread::yield();
}

TEST_CASE("the log is folded when nothing waits, or when it has become too long", "[commit_queue]") {
  bench b;
  const auto file_pages = [&b] { return static_cast<std::int64_t>(std::filesystem::file_size(b.dir / "q.db")) / page; };
  constexpr int last = 6;
  std::vector<std::int64_t> seen;
  std::promise<void> over;
  std::function<void(int)> submit = [&](int number) {
    b.queue.submit(
        [&submit, number](auto& db) {
          if (number < last) submit(number + 1);  // so that there is always one that waits
          write_pages(db, 400);
        },
        [&, number](const auto&) {
          seen.push_back(file_pages());
          if (number == last) over.set_value();
        });
  };
  submit(1);
  over.get_future().get();
  REQUIRE(seen.size() == last);
  CHECK(seen[3] < 100);  // 1600 pages are in the log, and it is to be folded next
  CHECK(seen[4] > 1600);
}

// Method: readers take turns, each beginning before the one before it ends, so that the log never starts over. What was not
// folded because of the first could be folded from then on, behind any commit.
TEST_CASE("a log that readers keep from starting over is not folded behind every commit", "[commit_queue]") {
  bench b;
  const auto store = [&b](std::int64_t pages) {
    for (const std::int64_t size : {pages, std::int64_t{0}}) {  // once the second is stored, what was behind the first is over
      std::promise<void> stored;
      b.queue.submit([size](auto& db) { size > 0 ? write_pages(db, size) : void(); }, [&](const auto&) { stored.set_value(); });
      stored.get_future().get();
    }
  };
  const auto file_pages = [&b] { return static_cast<std::int64_t>(std::filesystem::file_size(b.dir / "q.db")) / page; };
  const auto read = [&b] {
    auto reader = std::make_unique<sqlite::connection>(b.dir / "q.db", sqlite::open_mode::read_only);
    reader->execute("BEGIN; SELECT count(*) FROM t");
    return reader;
  };
  store(1);
  auto reader = read();
  store(1600);  // so many that it is tried before what waits
  for (int i = 0; i < 5; ++i) {
    reader = read();  // and the one before ends
    store(1);
    CHECK(file_pages() < 100);
  }
  store(120);
  while (file_pages() < 1600) std::this_thread::yield();
}

// After a commit that is larger than all that was in the log before it, too. (Each is large enough to be folded before what waits.)
TEST_CASE("a log that nobody reads never grows beyond one commit", "[commit_queue]") {
  bench b;
  for (const std::int64_t pages : {1600, 1700, 1800, 1900, 2000, 1600}) {
    for (const std::int64_t size : {pages, std::int64_t{0}}) {
      std::promise<void> stored;
      b.queue.submit([size](auto& db) { size > 0 ? write_pages(db, size) : void(); }, [&](const auto&) { stored.set_value(); });
      stored.get_future().get();
    }
  }
  CHECK(std::filesystem::file_size(b.dir / "q.db-wal") < 2300 * page);
}

TEST_CASE("run resumes the caller on its own executor with the value", "[commit_queue]") {
  bench b;
  asio::thread_pool callers(1);
  const auto thread_of = [](asio::thread_pool& pool) {
    return asio::post(pool, asio::use_future([] { return std::this_thread::get_id(); })).get();
  };
  const auto caller = thread_of(callers);
  std::thread::id before, after;
  const auto call = [&]() -> asio::awaitable<std::string> {
    before = std::this_thread::get_id();
    auto piece = [](sqlite::connection& db) {
      insert(db, 1);
      return std::string("value");
    };
    auto value = co_await b.queue.run(piece);
    after = std::this_thread::get_id();
    co_return value;
  };
  CHECK(wait_for(callers, call()) == "value");
  CHECK(before == caller);
  CHECK(after == caller);
  auto thrower = [](sqlite::connection& db) -> int {
    insert(db, 2);
    throw std::out_of_range("mine");
  };
  CHECK_THROWS_AS(wait_for(callers, b.queue.run(thrower)), std::out_of_range);
  CHECK(b.stored() == 1);
}

TEST_CASE("many threads, every piece exactly once", "[commit_queue]") {
  bench b;
  std::atomic<int> failed{0};
  std::latch done(8 * 500);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 500; ++i) {
          b.queue.submit(
              [t, i](sqlite::connection& db) {
                insert(db, t * 1000 + i);
                if (i % 7 == 0) throw std::runtime_error("seven");
              },
              [&](const std::exception_ptr& e) {
                if (e) ++failed;
                done.count_down();
              });
        }
      });
    }
  }
  done.wait();
  CHECK(failed == 8 * 72);
  CHECK(b.stored() == 8 * (500 - 72));
}

}  // namespace test_commit_queue
