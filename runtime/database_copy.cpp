#include "runtime/database_copy.hpp"

#include <algorithm>
#include <utility>

#include <sqlite3.h>

namespace penstock::runtime::sqlite {
namespace {

constexpr const char* any_read = "SELECT count(*) FROM sqlite_schema";

std::int64_t one_integer(connection& db, const char* sql) {
  statement query(db, sql);
  return query.step() ? query.integer(0) : 0;
}

}  // namespace

database_copy::database_copy(std::filesystem::path file) : file_(std::move(file)), from_(file_, open_mode::read_only) {
  from_.execute("PRAGMA cache_size = -1024");
  page_bytes_ = one_integer(from_, "PRAGMA page_size");
  one_integer(from_, any_read);  // so that the files are open when it comes to time
}

database_copy::~database_copy() {
  if (work_) sqlite3_backup_finish(work_);
}

void database_copy::fix_view() {
  from_.execute("BEGIN");
  one_integer(from_, any_read);  // begins the read transaction, which BEGIN alone does not
  pages_ = one_integer(from_, "PRAGMA page_count");
}

void database_copy::begin(const std::filesystem::path& copy) {
  copy_ = copy;
  to_ = connection(copy, open_mode::read_write_create, static_cast<int>(page_bytes_));
  // Nobody else sees the copy, and it counts only when it is whole and synced.
  to_.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2048");
  work_ = sqlite3_backup_init(to_.handle(), "main", from_.handle(), "main");
  if (!work_) fail(sqlite3_extended_errcode(to_.handle()));
}

void database_copy::fail(int code) const {
  throw failure(code, "copying " + file_.string() + " to " + copy_.string() + ": " + sqlite3_errstr(code));
}

std::int64_t database_copy::step(std::int64_t most_bytes) {
  const auto before = sqlite3_backup_remaining(work_);
  const auto pages = static_cast<int>(std::max<std::int64_t>(1, most_bytes / std::max<std::int64_t>(1, page_bytes_)));
  const int code = sqlite3_backup_step(work_, pages);
  if (code != SQLITE_OK && code != SQLITE_DONE) fail(code);
  done_ = code == SQLITE_DONE;
  const auto left = sqlite3_backup_remaining(work_);
  return (before > 0 ? before - left : sqlite3_backup_pagecount(work_) - left) * page_bytes_;
}

void database_copy::close() {
  const int code = work_ ? sqlite3_backup_finish(std::exchange(work_, nullptr)) : SQLITE_OK;
  to_ = {};
  from_ = {};
  if (code != SQLITE_OK) fail(code);
}

}  // namespace penstock::runtime::sqlite
