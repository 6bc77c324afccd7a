// A look at what waits in a topic: which events match a filter, how many, since when, and where a run's input ends.
//
// Moves no cursor and keeps nothing: the state goes in and comes out, so a caller goes on where the last look ended.
// scan_topic may be awaited from any executor; the work is done on `worker`, in slices.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/time.hpp"
#include "runtime/topic.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

struct scan_rule {
  std::string where;      // expression over event and meta, as in a filter; empty: all match
  std::string key;        // run_expression over event; empty: none
  std::int64_t most = 0;  // stop at so many; 0: no limit
};

struct scan_state {
  std::int64_t until = 0;     // looked at up to here
  std::int64_t matching = 0;  // of what was looked at
  std::int64_t failures = 0;  // events for which `where` or the key failed
  std::int64_t full_at = 0;   // offset of the `most`-th that matches, which is then `until`; 0: not reached
  bool closed = false;        // an event with another key follows; `until` is before it
  bool keyed = false;         // `key` is what all must have: that of the first that matched, or given by the caller
  std::optional<timestamp> oldest{}, newest{};  // receive times of the first and last that match
  std::string key{};
};

// Goes on from `from` up to and including offset `last`, but not beyond the `most`-th that matches or an event with
// another key. An event for which `where` fails or is not true does not match; where the key fails or is nil, it is "".
// The first failure of a scan is logged. `until` stays before what cannot be read (the topic was closed, or the events
// were removed and none follow). Throws sqlite::failure when the topic's file cannot be read.
asio::awaitable<scan_state> scan_topic(std::shared_ptr<topic> from_topic, scan_state from, std::int64_t last,
                                       scan_rule rule, asio::any_io_executor worker);

}  // namespace penstock::runtime
