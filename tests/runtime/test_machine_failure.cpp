#include <cerrno>
#include <new>
#include <stdexcept>
#include <system_error>

#include <catch2/catch.hpp>
#include <sqlite3.h>

#include "runtime/durable_folder.hpp"
#include "runtime/machine_failure.hpp"
#include "runtime/sqlite.hpp"
#include "tests/temp_dir.hpp"

namespace test_machine_failure {

using namespace penstock::runtime;
using penstock::testing::temp_dir;

namespace {

template <class Exception>
std::string of(Exception e) {
  return machine_failure(std::make_exception_ptr(std::move(e)));
}

}  // namespace

TEST_CASE("machine_failure: what may pass is told from what will not", "[machine_failure]") {
  CHECK(of(sqlite::failure(SQLITE_FULL, "x")) == "the disk is full");
  CHECK(of(sqlite::failure(SQLITE_IOERR_FSYNC, "x")) == "the disk fails");
  CHECK(of(sqlite::failure(SQLITE_IOERR_NOMEM, "x")) == "there is no more memory");
  CHECK(of(sqlite::failure(SQLITE_BUSY, "x")) == "another program has locked a database");
  CHECK(of(sqlite::failure(SQLITE_CORRUPT, "x")) == "a database cannot be read");
  CHECK(of(std::bad_alloc()) == "there is no more memory");
  CHECK(of(std::system_error(ENOSPC, std::generic_category())) == "the disk is full");
  CHECK(of(std::system_error(EMFILE, std::generic_category())) == "there are no more file descriptors");

  CHECK(machine_failure(nullptr).empty());
  CHECK(of(sqlite::failure(SQLITE_CONSTRAINT_UNIQUE, "x")).empty());
  CHECK(of(std::system_error(ENOENT, std::generic_category())).empty());
  CHECK(of(std::runtime_error("the disk is full")).empty());
  CHECK(machine_failure(std::make_exception_ptr(7)).empty());
}

TEST_CASE("durable_folder: makes what is missing, and only that", "[durable_folder]") {
  const temp_dir dir;
  CHECK(make_durable_folder(dir / "a" / "b" / "c"));
  CHECK(std::filesystem::is_directory(dir / "a" / "b" / "c"));
  CHECK_FALSE(make_durable_folder(dir / "a" / "b" / "c"));
  CHECK(make_durable_folder(dir / "a" / "x" / ""));
  CHECK(std::filesystem::is_directory(dir / "a" / "x"));
  CHECK_THROWS_AS(make_durable_folder("/proc/none/of/these"), std::filesystem::filesystem_error);
}

}  // namespace test_machine_failure
