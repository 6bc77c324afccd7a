#include "runtime/machine_failure.hpp"

#include <cerrno>
#include <new>
#include <system_error>

#include <boost/system/system_error.hpp>
#include <sqlite3.h>

#include "runtime/sqlite.hpp"

namespace penstock::runtime {

namespace {

std::string of_errno(int number) {
  switch (number) {
    case ENOSPC:
    case EDQUOT: return "the disk is full";
    case EIO:
    case EROFS: return "the disk fails";
    case EMFILE:
    case ENFILE: return "there are no more file descriptors";
    case ENOMEM: return "there is no more memory";
    default: return {};
  }
}

std::string of_sqlite(int code) {
  switch (code & 0xff) {
    case SQLITE_FULL: return "the disk is full";
    case SQLITE_IOERR: return code == SQLITE_IOERR_NOMEM ? "there is no more memory" : "the disk fails";
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN: return "a database cannot be opened";
    case SQLITE_CORRUPT:  // SQLite says so, too, when a read fails with EIO
    case SQLITE_NOTADB: return "a database cannot be read";
    case SQLITE_NOMEM: return "there is no more memory";
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return "another program has locked a database";
    default: return {};
  }
}

}  // namespace

std::string machine_failure(const std::exception_ptr& failure) {
  if (!failure) return {};
  try {
    std::rethrow_exception(failure);
  } catch (const sqlite::failure& e) {
    return of_sqlite(e.code());
  } catch (const std::bad_alloc&) {
    return of_errno(ENOMEM);
  } catch (const std::system_error& e) {
    return of_errno(e.code().value());
  } catch (const boost::system::system_error& e) {
    return of_errno(e.code().value());
  } catch (...) {
    return {};
  }
}

}  // namespace penstock::runtime
