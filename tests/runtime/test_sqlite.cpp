#include <fstream>
#include <string>

#include <catch2/catch.hpp>
#include <sqlite3.h>

#include "runtime/sqlite.hpp"
#include "tests/temp_dir.hpp"

namespace test_sqlite {

using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::temp_dir;
using sqlite::connection;
using sqlite::open_mode;
using sqlite::statement;

namespace {

std::string pragma(connection& db, const std::string& name) {
  statement s(db, "PRAGMA " + name);
  return s.step() ? std::string(s.text(0)) : "";
}

std::int64_t count(connection& db) {
  statement s(db, "SELECT count(*) FROM t");
  s.step();
  return s.integer(0);
}

}  // namespace

TEST_CASE("a writing connection is durable by its settings", "[sqlite]") {
  const temp_dir dir;
  connection db(dir / "a.db", open_mode::read_write_create);
  CHECK(pragma(db, "journal_mode") == "wal");
  CHECK(pragma(db, "synchronous") == "2");
  CHECK(pragma(db, "foreign_keys") == "1");
  CHECK(pragma(db, "busy_timeout") == "5000");
  CHECK(pragma(db, "journal_size_limit") == "67108864");
}

TEST_CASE("values come back as they went in", "[sqlite]") {
  const temp_dir dir;
  connection db(dir / "a.db", open_mode::read_write_create);
  db.execute("CREATE TABLE t (a, b, c, d, e)");
  const std::string bytes("a\0b\xff", 4);
  {
    statement insert(db, "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)");
    insert.bind(1, std::int64_t{INT64_MIN})
        .bind(2, 0.1)
        .bind(3, bytes)
        .bind_blob(4, bytes)
        .bind_null(5)
        .run();
    // Empty is not NULL, even without an address; bindings of another type replace the old ones.
    insert.bind(1, std::string_view()).bind_blob(2, {}).bind(3, std::optional<std::string_view>());
    insert.bind(4, std::optional<std::int64_t>(7)).run();
    CHECK(db.last_insert_rowid() == 2);
  }
  statement rows(db, "SELECT a, b, c, d, e, typeof(a), typeof(b), typeof(c) FROM t");
  REQUIRE(rows.step());
  CHECK(rows.integer(0) == INT64_MIN);
  CHECK(rows.real(1) == 0.1);
  CHECK(rows.text(2) == bytes);
  CHECK(rows.blob(3) == bytes);
  CHECK(rows.is_null(4));
  REQUIRE(rows.step());
  CHECK(rows.text(5) == "text");
  CHECK(rows.text(6) == "blob");
  CHECK(rows.text(7) == "null");
  CHECK(rows.text(0).empty());
  CHECK(rows.integer(3) == 7);
  CHECK_FALSE(rows.step());
  CHECK(rows.step());  // done means reset: it starts over
}

TEST_CASE("binding in the middle of the rows starts the statement over", "[sqlite]") {
  const temp_dir dir;
  connection db(dir / "a.db", open_mode::read_write_create);
  db.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)");
  statement rows(db, "SELECT a FROM t WHERE a >= ?1 ORDER BY a");
  rows.bind(1, std::int64_t{1});
  REQUIRE(rows.step());
  rows.bind(1, std::int64_t{3});
  REQUIRE(rows.step());
  CHECK(rows.integer(0) == 3);
  CHECK_FALSE(rows.step());
}

TEST_CASE("failures name the file and tell the row's fault from the world's", "[sqlite]") {
  const temp_dir dir;
  connection db(dir / "a.db", open_mode::read_write_create);
  db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY CHECK (a > 0))");
  statement insert(db, "INSERT INTO t VALUES (?1)");
  try {
    insert.bind(1, std::int64_t{-1}).run();
    FAIL("the constraint was not checked");
  } catch (const sqlite::failure& f) {
    CHECK(f.is_constraint());
    CHECK_FALSE(f.is_full_or_io());
    CHECK(f.code() == SQLITE_CONSTRAINT_CHECK);
    CHECK_THAT(f.what(), Contains((dir / "a.db").string()));
  }
  insert.bind(1, std::int64_t{1}).run();  // usable after a failure
  CHECK_THROWS_AS(statement(db, "SELECT nonsense FROM nowhere"), sqlite::failure);
  CHECK_THROWS_AS(db.execute("nonsense"), sqlite::failure);
  CHECK_THROWS_AS(insert.bind(2, std::int64_t{1}), sqlite::failure);
}

TEST_CASE("a file that is no database throws with its name", "[sqlite]") {
  const temp_dir dir;
  std::ofstream(dir / "bad.db") << std::string(5000, '#');
  CHECK_THROWS_WITH(connection(dir / "bad.db", open_mode::read_write_create), Contains("bad.db"));
  connection reading(dir / "bad.db", open_mode::read_only);
  CHECK_THROWS_WITH(sqlite::schema_version(reading), Contains("bad.db"));
}

TEST_CASE("reading a missing file throws and does not make it", "[sqlite]") {
  const temp_dir dir;
  CHECK_THROWS_WITH(connection(dir / "none.db", open_mode::read_only), Contains("none.db"));
  CHECK_FALSE(std::filesystem::exists(dir / "none.db"));
}

TEST_CASE("a file is read as one that does not change, whatever its name", "[sqlite]") {
  const temp_dir dir;
  const auto file = dir / "a 100%41?b#c.db";
  {
    connection db(file, open_mode::read_write_create);
    db.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
  }
  connection reading(file, open_mode::unchanging);
  CHECK(count(reading) == 1);
  CHECK_FALSE(std::filesystem::exists(file.string() + "-wal"));
  CHECK_THROWS_AS(reading.execute("INSERT INTO t VALUES (2)"), sqlite::failure);
  CHECK_THROWS_WITH(connection(dir / "none.db", open_mode::unchanging), Contains("none.db"));
}

TEST_CASE("a read-only connection sees commits and cannot write", "[sqlite]") {
  const temp_dir dir;
  connection db(dir / "a.db", open_mode::read_write_create);
  db.execute("CREATE TABLE t (a)");
  connection reading(dir / "a.db", open_mode::read_only);
  db.execute("INSERT INTO t VALUES (1)");
  CHECK(count(reading) == 1);
  try {
    reading.execute("INSERT INTO t VALUES (2)");
    FAIL("a read-only connection wrote");
  } catch (const sqlite::failure& f) {
    CHECK(f.is_full_or_io());
  }
}

TEST_CASE("a transaction that is left without commit never happened", "[sqlite]") {
  const temp_dir dir;
  connection db(dir / "a.db", open_mode::read_write_create);
  db.execute("CREATE TABLE t (a)");
  {
    sqlite::transaction t(db);
    CHECK(db.in_transaction());
    db.execute("INSERT INTO t VALUES (1)");
  }
  CHECK_FALSE(db.in_transaction());
  CHECK(count(db) == 0);
  {
    sqlite::transaction t(db);
    db.execute("INSERT INTO t VALUES (1)");
    t.commit();
  }
  CHECK(count(db) == 1);
  {
    const sqlite::transaction t(db);
    db.execute("ROLLBACK");  // as SQLite does by itself when the disk is full
  }
  CHECK(count(db) == 1);
}

TEST_CASE("moved connections and statements work, and any order of destruction is fine", "[sqlite]") {
  const temp_dir dir;
  statement survivor;
  {
    connection first(dir / "a.db", open_mode::read_write_create);
    connection db(std::move(first));
    CHECK_FALSE(first);
    REQUIRE(db);
    db.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)");
    statement rows(db, "SELECT a FROM t ORDER BY a");
    REQUIRE(rows.step());
    survivor = std::move(rows);
  }
  REQUIRE(survivor.step());
  CHECK(survivor.integer(0) == 2);
  survivor = statement();
  CHECK_FALSE(std::filesystem::exists(dir / "a.db-wal"));  // closed for good with the last statement
}

TEST_CASE("migrations run once each, whole or not at all", "[sqlite]") {
  const temp_dir dir;
  {
    connection db(dir / "a.db", open_mode::read_write_create);
    CHECK(sqlite::schema_version(db) == 0);
    sqlite::migrate(db, {"CREATE TABLE t (a)"});
    CHECK(sqlite::schema_version(db) == 1);
    db.execute("INSERT INTO t VALUES (1)");
    sqlite::migrate(db, {"CREATE TABLE t (a)"});
    CHECK_THROWS(sqlite::migrate(db, {"CREATE TABLE t (a)", "CREATE TABLE u (a); nonsense"}));
    CHECK(sqlite::schema_version(db) == 1);
    sqlite::migrate(db, {"CREATE TABLE t (a)", "CREATE TABLE u (a)", "INSERT INTO u SELECT a FROM t"});
    CHECK(sqlite::schema_version(db) == 3);
  }
  connection db(dir / "a.db", open_mode::read_write_create);
  CHECK_THROWS_WITH(sqlite::migrate(db, {"CREATE TABLE t (a)"}),
                    Contains("a.db") && Contains("newer") && Contains("3"));
  CHECK(count(db) == 1);
}

TEST_CASE("whoever migrates second sees what the first has made", "[sqlite]") {
  const temp_dir dir;
  connection first(dir / "a.db", open_mode::read_write_create);
  sqlite::migrate(first, {"CREATE TABLE t (a)"});
  connection second(dir / "a.db", open_mode::read_write_create);
  CHECK(count(second) == 0);  // it has read the old schema
  sqlite::migrate(first, {"CREATE TABLE t (a)", "ALTER TABLE t ADD COLUMN b"});
  sqlite::migrate(second, {"CREATE TABLE t (a)", "ALTER TABLE t ADD COLUMN b"});
  statement(second, "INSERT INTO t VALUES (1, 2)").run();
  CHECK(count(second) == 1);
}

TEST_CASE("a reader undoes what a killed writer left half done", "[sqlite]") {
  temp_dir dir;
  const auto raw = [&](const char* sql, sqlite3* db) { REQUIRE(sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK); };
  sqlite3* writer = nullptr;
  REQUIRE(sqlite3_open((dir / "a.db").c_str(), &writer) == SQLITE_OK);
  raw("CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA cache_size = 2; BEGIN;", writer);
  raw("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
      "INSERT INTO t SELECT randomblob(100) FROM n; UPDATE t SET x = 2 WHERE x = 1;",
      writer);
  // As it would be found after kill -9.
  std::filesystem::copy_file(dir / "a.db", dir / "b.db");
  std::filesystem::copy_file(dir / "a.db-journal", dir / "b.db-journal");
  sqlite3_close(writer);

  connection reader(dir / "b.db", open_mode::read_only);
  statement query(reader, "SELECT count(*), max(x) FROM t");
  REQUIRE(query.step());
  CHECK(query.integer(0) == 1);
  CHECK(query.integer(1) == 1);
  query.reset();
  CHECK_THROWS(reader.execute("DELETE FROM t"));
}

}  // namespace test_sqlite
