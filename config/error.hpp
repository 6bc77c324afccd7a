// The one way this program says "that depends on what you gave me".
//
// Functions whose failure depends on input return result<T>; a broken world (database gone, a bug) throws.
// `errc` lists only the cases that somebody reacts to; api/ maps them to HTTP statuses in one switch.
// Plain values, any thread.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include <boost/system/result.hpp>

namespace penstock {

enum class errc {
  invalid,              // the input breaks a rule: see `problems` or `detail`
  malformed,            // the input cannot even be read (JSON or YAML syntax)
  unauthorized,         // signature or token missing or wrong
  forbidden,            // known, but not allowed
  not_found,            // no such thing
  conflict,             // it exists already, or is in a state that forbids this
  precondition_failed,  // If-Match / If-None-Match did not hold
  too_large,            // beyond a size limit
  unsupported_media,    // content type that nobody reads
  overloaded,           // a queue or topic is full; try again after `retry_after`
  unavailable,          // starting, stopping, or a flow that is down
};

// One thing wrong with a definition, or with a line of a batch.
struct problem {
  std::string pointer;  // where, as an RFC 6901 JSON pointer; empty means the whole document
  int line = 0;         // 1-based; 0 means unknown
  int column = 0;       // 1-based; 0 means unknown
  std::string detail;   // what is wrong and, where possible, what to write instead

  bool operator==(const problem&) const = default;
};

struct error {
  errc code = errc::invalid;
  std::string detail;
  std::vector<problem> problems{};
  int retry_after_s = 0;  // seconds; 0 means none
};

template <class T>
using result = boost::system::result<T, error>;

// Called by result<T>::value() when there is no value: reaching it is a bug in the caller.
[[noreturn]] inline void throw_exception_from_error(const error& e, const boost::source_location&) {
  throw std::logic_error("unchecked error: " + e.detail);
}

}  // namespace penstock
