// SQLite as RAII, knowing no tables. Every failure throws sqlite::failure: the database is part of the world.
// A connection belongs to one thread at a time; who owns it says so.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace penstock::runtime::sqlite {

class failure : public std::runtime_error {
 public:
  failure(int code, const std::string& what) : std::runtime_error(what), code_(code) {}
  int code() const { return code_; }  // SQLite's extended result code
  bool is_constraint() const;         // a row broke a constraint: the row's fault
  bool is_full_or_io() const;         // disk full, I/O error, read-only: the world's fault

 private:
  int code_;
};

// `unchanging`: only read, and neither locked nor looked at for a log. Good where the file has no log (FILE-wal, FILE-journal), and what
// was read only if nobody has written meanwhile (sqlite.org/uri.html, "immutable").
enum class open_mode { read_write_create, read_only, unchanging };

class connection {
 public:
  connection() = default;
  // WAL, synchronous=FULL, foreign_keys on, busy timeout 5 s. A read-only connection changes none of the
  // file's modes. `page_bytes` is for a file that does not exist yet (a power of two, 512 to 65536).
  connection(const std::filesystem::path& file, open_mode mode, int page_bytes = 4096);
  connection(connection&& other) noexcept;
  connection& operator=(connection&& other) noexcept;
  ~connection();

  // It leaves the log as it is when it is the last to go, instead of folding it into the file.
  void leave_log();
  // From now on no commit folds the log into the file, which would keep it waiting: fold_log() does, when its caller thinks fit.
  void fold_log_by_hand();
  struct log_state {
    int pages = 0;   // in the log after the last commit of this connection
    int starts = 0;  // how often a commit of it was the first in the log
  };
  log_state log() const { return log_ ? *log_ : log_state(); }
  // As far as readers allow. False: somebody else is at it. Throws failure (a full disk): what is left stays for the next time.
  bool fold_log();

  explicit operator bool() const { return handle_ != nullptr; }
  sqlite3* handle() const { return handle_; }
  void execute(std::string_view sql);  // one or many statements without parameters
  std::int64_t changes() const;        // rows changed by the last statement
  std::int64_t last_insert_rowid() const;
  // False also after SQLite rolled back by itself, as it may when the disk is full.
  bool in_transaction() const;

 private:
  sqlite3* handle_ = nullptr;
  std::unique_ptr<log_state> log_;  // SQLite has its address; null: commits fold the log
};

// One prepared statement. Use: s.bind(1, x).bind(2, y); while (s.step()) s.integer(0); reset happens by
// itself at the next bind or at the end of step(). Bound text and blobs must live until the statement is
// stepped to its end.
class statement {
 public:
  statement() = default;
  statement(connection& db, std::string_view sql);
  statement(statement&& other) noexcept;
  statement& operator=(statement&& other) noexcept;
  ~statement();

  statement& bind(int index, std::int64_t value);  // indexes are 1-based, as in SQL
  statement& bind(int index, double value);
  statement& bind(int index, std::string_view text);
  statement& bind_blob(int index, std::string_view bytes);
  statement& bind_null(int index);
  template <class T>
  statement& bind(int index, const std::optional<T>& value) {
    return value ? bind(index, *value) : bind_null(index);
  }

  bool step();  // true: a row is there; false: done (and reset)
  void run();   // steps to the end, ignoring rows
  void reset();

  bool is_null(int column) const;  // columns are 0-based, as in SQLite
  std::int64_t integer(int column) const;
  double real(int column) const;
  std::string_view text(int column) const;  // valid until the next step
  std::string_view blob(int column) const;
  sqlite3_stmt* handle() const { return handle_; }  // for what is asked rarely: names and types of columns

 private:
  void bound(int code);  // throws when a bind call failed

  sqlite3_stmt* handle_ = nullptr;
  bool on_row_ = false;  // stepped to a row and not reset since
};

// BEGIN IMMEDIATE … COMMIT; rolls back when left without commit().
class transaction {
 public:
  explicit transaction(connection& db);
  ~transaction();
  void commit();

 private:
  connection& db_;
  bool open_ = true;
};

// The file's format number (PRAGMA user_version); 0: nothing was made in it yet.
std::int64_t schema_version(connection& db);
// Throws, naming the file and both numbers, when the file's format is newer than `known`.
void require_known_schema(connection& db, std::int64_t known);
// Brings the file to the format that has all `migrations`: those that it lacks run in one transaction that also records
// their number, so others see all of them or none, also after a crash. Never change one that was released; add another.
void migrate(connection& db, std::initializer_list<std::string_view> migrations);

}  // namespace penstock::runtime::sqlite
