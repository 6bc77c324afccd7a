// Copies of databases that are written to meanwhile, and the pause of all commits that makes them one instant.
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <thread>

#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include "runtime/commit_queue.hpp"
#include "runtime/data_copy.hpp"
#include "runtime/database_copy.hpp"
#include "tests/temp_dir.hpp"

namespace penstock::runtime::test_data_copy {
namespace {

std::int64_t one(sqlite::connection& db, const std::string& sql) {
  sqlite::statement query(db, sql);
  REQUIRE(query.step());
  return query.integer(0);
}

sqlite::connection rows(const std::filesystem::path& file, int count) {
  sqlite::connection db(file, sqlite::open_mode::read_write_create);
  db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER, filler BLOB)");
  db.execute("BEGIN");
  for (int i = 0; i < count; ++i) db.execute("INSERT INTO t VALUES (" + std::to_string(i) + ", zeroblob(2000))");
  db.execute("COMMIT");
  return db;
}

}  // namespace

TEST_CASE("a copy is what was committed when its view was fixed, whatever is written while it is made", "[data_copy]") {
  const testing::temp_dir dir;
  sqlite::connection writer = rows(dir / "a.db", 500);
  sqlite::database_copy copy(dir / "a.db");
  writer.execute("UPDATE t SET n = -1");  // before the view: counts
  copy.fix_view();
  CHECK(copy.bytes() > 500 * 2000);
  copy.begin(dir / "b.db");
  std::int64_t copied = 0;
  for (int slice = 0; !copy.done(); ++slice) {
    REQUIRE(slice < 1000);
    copied += copy.step(50'000);
    writer.execute("UPDATE t SET n = 7");
    writer.execute("INSERT INTO t VALUES (8, zeroblob(2000))");
    writer.execute("PRAGMA wal_checkpoint(PASSIVE)");
  }
  CHECK(copied == copy.bytes());
  copy.close();
  sqlite::connection made(dir / "b.db", sqlite::open_mode::read_only);
  CHECK(one(made, "SELECT count(*) FROM t") == 500);
  CHECK(one(made, "SELECT count(*) FROM t WHERE n = -1") == 500);
  CHECK(one(made, "SELECT integrity_check = 'ok' FROM pragma_integrity_check") == 1);
  CHECK(one(writer, "SELECT count(*) FROM t WHERE n = 7") > 500);
}

TEST_CASE("a copy never writes over a file of another kind and says what it could not copy", "[data_copy]") {
  const testing::temp_dir dir;
  rows(dir / "a.db", 10);
  sqlite::database_copy copy(dir / "a.db");
  copy.fix_view();
  CHECK_THROWS_AS(copy.begin(dir / "nowhere" / "b.db"), sqlite::failure);
  CHECK_THROWS_AS(sqlite::database_copy(dir / "nowhere.db"), sqlite::failure);
}

TEST_CASE("while commits are held none begins, and those under way are waited for", "[data_copy]") {
  const testing::temp_dir dir;
  const auto pause = std::make_shared<commit_pause>();
  boost::asio::thread_pool pool(2);
  const auto open = [&dir] {
    sqlite::connection db(dir / "a.db", sqlite::open_mode::read_write_create);
    db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)");
    return db;
  };
  commit_queue queue(boost::asio::make_strand(pool), open, {}, {}, pause);

  std::promise<void> begun, go_on;
  std::atomic<int> ended{0};
  queue.submit(
      [&](sqlite::connection& db) {
        begun.set_value();
        go_on.get_future().wait();
        db.execute("INSERT INTO t VALUES (1)");
      },
      [&](std::exception_ptr) { ++ended; });
  begun.get_future().wait();
  std::promise<void> held, let_go;
  std::thread holder([&] {
    const commit_pause::hold still(*pause);
    held.set_value();
    let_go.get_future().wait();
  });
  auto is_held = held.get_future();
  CHECK(is_held.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);  // one is under way
  go_on.set_value();
  is_held.wait();
  CHECK(ended == 1);

  std::promise<void> second;
  queue.submit([](sqlite::connection& db) { db.execute("INSERT INTO t VALUES (2)"); }, [&](std::exception_ptr) { second.set_value(); });
  auto stored = second.get_future();
  CHECK(stored.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);
  let_go.set_value();
  stored.wait();
  holder.join();
  sqlite::connection db(dir / "a.db", sqlite::open_mode::read_only);
  CHECK(one(db, "SELECT count(*) FROM t") == 2);
  queue.close();
}

TEST_CASE("a data folder is copied with its topics, and a copy that is told to stop ends", "[data_copy]") {
  const testing::temp_dir dir;
  std::filesystem::create_directories(dir / "data" / "topics");
  std::filesystem::create_directories(dir / "copy");
  std::filesystem::create_directories(dir / "other");
  rows(dir / "data" / "state.db", 10);
  rows(dir / "data" / "topics" / "orders.db", 10);
  boost::asio::thread_pool pool(1);
  commit_pause commits;
  const topics all(dir / "data" / "topics", pool.get_executor());
  copy_progress progress;
  std::stop_source stop;
  copy_data(dir / "data", dir / "copy", false, all, commits, progress, stop.get_token());
  CHECK(progress.files_done == 2);
  CHECK(progress.bytes_done == progress.bytes);
  CHECK(progress.as_of > 0);
  CHECK_FALSE(commits.viewed);
  sqlite::connection made(dir / "copy" / "topics" / "orders.db", sqlite::open_mode::read_only);
  CHECK(one(made, "SELECT count(*) FROM t") == 10);
  stop.request_stop();
  copy_progress none;
  CHECK_THROWS_AS(copy_data(dir / "data", dir / "other", false, all, commits, none, stop.get_token()), copy_stopped);
  CHECK_FALSE(commits.viewed);
}

}  // namespace penstock::runtime::test_data_copy
