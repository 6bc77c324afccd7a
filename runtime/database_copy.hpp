// A copy of one SQLite file as it was at one instant, made page by page while others go on writing to it.
//
// SQLite's backup interface over a connection that stays in one read transaction: what is committed later is not seen and
// never makes the copy start over. The source's write-ahead log cannot be folded as long as the view is open. One thread at
// a time; owned by who makes it. Every failure throws sqlite::failure.
#pragma once

#include <cstdint>
#include <filesystem>

#include "runtime/sqlite.hpp"

struct sqlite3_backup;

namespace penstock::runtime::sqlite {

class database_copy {
 public:
  // Opens the file, which exists.
  explicit database_copy(std::filesystem::path file);
  ~database_copy();
  database_copy(const database_copy&) = delete;
  database_copy& operator=(const database_copy&) = delete;

  // From here on the view is what is committed now.
  void fix_view();
  std::int64_t bytes() const { return pages_ * page_bytes_; }
  const std::filesystem::path& file() const { return file_; }

  // Once, before step(): the copy, a file that does not exist yet.
  void begin(const std::filesystem::path& copy);
  // Copies at most about so many bytes; returns how many it was. `done()` tells whether that was all.
  std::int64_t step(std::int64_t most_bytes);
  bool done() const { return done_; }
  // Closes both files. The copy is complete, but not yet synced to disk.
  void close();

 private:
  [[noreturn]] void fail(int code) const;

  std::filesystem::path file_, copy_;
  connection from_, to_;
  sqlite3_backup* work_ = nullptr;
  std::int64_t pages_ = 0, page_bytes_ = 0;
  bool done_ = false;
};

}  // namespace penstock::runtime::sqlite
