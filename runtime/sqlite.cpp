// See sqlite.hpp. The only rules here are about SQLite itself; each is explained in its documentation of the
// C interface.
#include "runtime/sqlite.hpp"

#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sqlite3.h>

#include "runtime/unique_fd.hpp"

namespace penstock::runtime::sqlite {
namespace {

constexpr int busy_timeout_ms = 5000;

[[noreturn]] void fail(sqlite3* db, int code, std::string_view doing) {
  const char* const file = db ? sqlite3_db_filename(db, "main") : nullptr;
  std::string what = file && *file ? file : "database";
  what.append(": ").append(doing).append(": ");
  what += db ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  throw failure(db ? sqlite3_extended_errcode(db) : code, what);
}

// Once, before SQLite is first used: its memory statistics cost a global lock in every allocation.
void configure() {
  static const int once = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  static_cast<void>(once);
}

// The read before this has made the log (FILE-wal). SQLite syncs the folder that holds it at the first commit, but does not
// look whether that has worked (os_unix.c, unixSync): commits could be lost with the log's name. It stays as long as the
// connection does.
void sync_folder_of(sqlite3* db) {
  const char* const file = sqlite3_db_filename(db, "main");
  if (!file || !*file) return;  // in memory
  const std::string folder = std::filesystem::path(file).parent_path().string();
  const unique_fd open(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (open.get() < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
    throw failure(SQLITE_CANTOPEN, folder + ": cannot open the folder: " + std::generic_category().message(errno));
  if (open.get() < 0 || ::fsync(open.get()) == 0 || errno == EINVAL) return;  // one that cannot be read, or cannot be synced at all
  throw failure(SQLITE_IOERR_DIR_FSYNC, folder + ": cannot sync the folder: " + std::generic_category().message(errno));
}

std::string unchanging_uri(const std::filesystem::path& file) {
  std::string uri = "file:";
  for (const char c : file.string()) {
    if (c == '?' || c == '#' || c == '%') {
      uri += c == '?' ? "%3f" : c == '#' ? "%23" : "%25";
    } else {
      uri += c;
    }
  }
  return uri + "?immutable=1";
}

// A null pointer would bind NULL; empty text is not NULL.
const char* bytes_of(std::string_view text) { return text.data() ? text.data() : ""; }

}  // namespace

bool failure::is_constraint() const { return (code_ & 0xff) == SQLITE_CONSTRAINT; }

bool failure::is_full_or_io() const {
  const int primary = code_ & 0xff;
  return primary == SQLITE_FULL || primary == SQLITE_IOERR || primary == SQLITE_READONLY ||
         primary == SQLITE_CANTOPEN;
}

connection::connection(const std::filesystem::path& file, open_mode mode, int page_bytes) {
  configure();
  // Also a reader may have to undo what a killed writer has left half done (sqlite.org/lockingv3.html, "hot journals"),
  // which takes a file that is open for writing; query_only keeps it from writing anything else.
  int access = SQLITE_OPEN_READWRITE;
  if (mode == open_mode::read_write_create) access |= SQLITE_OPEN_CREATE;
  if (mode == open_mode::unchanging) access = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
  const std::string name = mode == open_mode::unchanging ? unchanging_uri(file) : file.string();
  const int code = sqlite3_open_v2(name.c_str(), &handle_, access | SQLITE_OPEN_NOMUTEX, nullptr);
  try {
    if (code != SQLITE_OK) {
      throw failure(
          handle_ ? sqlite3_extended_errcode(handle_) : code,
          file.string() + ": cannot open: " + (handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(code)));
    }
    sqlite3_extended_result_codes(handle_, 1);
    sqlite3_busy_timeout(handle_, busy_timeout_ms);
    // temp_store: what undoing a savepoint needs stays in memory instead of temporary files.
    execute("PRAGMA temp_store = MEMORY");
    if (mode == open_mode::read_only) execute("PRAGMA query_only = ON");
    if (mode == open_mode::read_write_create) {
      execute("PRAGMA page_size = " + std::to_string(page_bytes));  // before WAL mode, which fixes it
      execute(
          "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
          "PRAGMA journal_size_limit = 67108864; SELECT 1 FROM sqlite_schema LIMIT 1");
      sync_folder_of(handle_);
    }
  } catch (...) {
    sqlite3_close_v2(std::exchange(handle_, nullptr));
    throw;
  }
}

connection::connection(connection&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), log_(std::move(other.log_)) {}

connection& connection::operator=(connection&& other) noexcept {
  connection taken(std::move(other));
  std::swap(handle_, taken.handle_);
  std::swap(log_, taken.log_);
  return *this;
}

// "v2": the file is closed when the last of the connection's statements is gone, in whatever order owners let
// go.
connection::~connection() { sqlite3_close_v2(handle_); }

void connection::leave_log() { sqlite3_db_config(handle_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr); }

void connection::fold_log_by_hand() {
  log_ = std::make_unique<log_state>();
  const auto committed = [](void* state, sqlite3* db, const char*, int in_log) {
    log_state& log = *static_cast<log_state*>(state);
    int written = 0, unused = 0;  // pages, since the commit before
    sqlite3_db_status(db, SQLITE_DBSTATUS_CACHE_WRITE, &written, &unused, 1);
    log.pages = in_log;
    if (in_log <= written) ++log.starts;  // it holds nothing else
    return SQLITE_OK;
  };
  sqlite3_wal_hook(handle_, committed, log_.get());  // in the place of SQLite's own, which folds
}

bool connection::fold_log() {
  const int code = sqlite3_wal_checkpoint_v2(handle_, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  const int primary = code & 0xff;
  if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED) return false;
  if (code != SQLITE_OK) fail(handle_, code, "folding the log");
  return true;
}

void connection::execute(std::string_view sql) {
  const int code = sqlite3_exec(handle_, std::string(sql).c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(handle_, code, sql);
}

std::int64_t connection::changes() const { return sqlite3_changes64(handle_); }
std::int64_t connection::last_insert_rowid() const { return sqlite3_last_insert_rowid(handle_); }
bool connection::in_transaction() const { return sqlite3_get_autocommit(handle_) == 0; }

statement::statement(connection& db, std::string_view sql) {
  const int code = sqlite3_prepare_v3(db.handle(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &handle_, nullptr);
  if (code != SQLITE_OK) fail(db.handle(), code, sql);
}

statement::statement(statement&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), on_row_(std::exchange(other.on_row_, false)) {}

statement& statement::operator=(statement&& other) noexcept {
  statement taken(std::move(other));
  std::swap(handle_, taken.handle_);
  std::swap(on_row_, taken.on_row_);
  return *this;
}

statement::~statement() { sqlite3_finalize(handle_); }

void statement::bound(int code) {
  if (code != SQLITE_OK) fail(sqlite3_db_handle(handle_), code, "binding a value");
}

statement& statement::bind(int index, std::int64_t value) {
  if (on_row_) reset();
  bound(sqlite3_bind_int64(handle_, index, value));
  return *this;
}

statement& statement::bind(int index, double value) {
  if (on_row_) reset();
  bound(sqlite3_bind_double(handle_, index, value));
  return *this;
}

statement& statement::bind(int index, std::string_view text) {
  if (on_row_) reset();
  bound(sqlite3_bind_text64(handle_, index, bytes_of(text), text.size(), SQLITE_STATIC, SQLITE_UTF8));
  return *this;
}

statement& statement::bind_blob(int index, std::string_view bytes) {
  if (on_row_) reset();
  bound(sqlite3_bind_blob64(handle_, index, bytes_of(bytes), bytes.size(), SQLITE_STATIC));
  return *this;
}

statement& statement::bind_null(int index) {
  if (on_row_) reset();
  bound(sqlite3_bind_null(handle_, index));
  return *this;
}

bool statement::step() {
  const int code = sqlite3_step(handle_);
  on_row_ = code == SQLITE_ROW;
  if (on_row_) return true;
  // Reset first: it is what lets go of locks, and it keeps the error's code and text.
  sqlite3_reset(handle_);
  if (code != SQLITE_DONE) fail(sqlite3_db_handle(handle_), code, sqlite3_sql(handle_));
  return false;
}

void statement::run() {
  while (step()) {
  }
}

void statement::reset() {
  on_row_ = false;
  sqlite3_reset(handle_);
}

bool statement::is_null(int column) const { return sqlite3_column_type(handle_, column) == SQLITE_NULL; }
std::int64_t statement::integer(int column) const { return sqlite3_column_int64(handle_, column); }
double statement::real(int column) const { return sqlite3_column_double(handle_, column); }

std::string_view statement::text(int column) const { return blob(column); }

std::string_view statement::blob(int column) const {
  // The order matters: asking for the bytes may convert the value, and the size is of what it was converted
  // to.
  const void* const bytes = sqlite3_column_blob(handle_, column);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(handle_, column));
  return {static_cast<const char*>(bytes), bytes ? size : 0};
}

transaction::transaction(connection& db) : db_(db) { db_.execute("BEGIN IMMEDIATE"); }

transaction::~transaction() {
  // SQLite may have rolled back by itself (disk full). A failing ROLLBACK leaves nothing that could be done
  // here: the connection stays in its transaction and says so at the next BEGIN.
  if (open_ && db_.in_transaction()) sqlite3_exec(db_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void transaction::commit() {
  db_.execute("COMMIT");
  open_ = false;
}

std::int64_t schema_version(connection& db) {
  statement version(db, "PRAGMA user_version");
  return version.step() ? version.integer(0) : 0;
}

void require_known_schema(connection& db, std::int64_t known) {
  const std::int64_t found = schema_version(db);
  if (found <= known) return;
  throw failure(SQLITE_CANTOPEN, std::string(sqlite3_db_filename(db.handle(), "main")) +
                                     ": made by a newer penstock (format " + std::to_string(found) +
                                     "; this one knows formats up to " + std::to_string(known) + ")");
}

void migrate(connection& db, std::initializer_list<std::string_view> migrations) {
  const auto known = static_cast<std::int64_t>(migrations.size());
  require_known_schema(db, known);
  if (schema_version(db) < known) {
    transaction all(db);
    std::int64_t version = 0;
    for (const std::string_view migration : migrations) {
      if (++version > schema_version(db)) db.execute(migration);  // unless another connection was quicker
    }
    db.execute("PRAGMA user_version = " + std::to_string(known));
    all.commit();
  }
  // When another connection has migrated, what this one remembers of the tables is old, and preparing a statement trusts
  // it; running one notices.
  statement(db, "SELECT 1 FROM sqlite_schema LIMIT 1").step();
}

}  // namespace penstock::runtime::sqlite
