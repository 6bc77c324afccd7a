// Sources for the events that a run was given: a claimed range of a topic, or events posted with the trigger.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "runtime/component.hpp"
#include "runtime/topic.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

// A run's claim on a topic: offsets (after, until], of these only the events for which `where` is true (an
// expression over event and meta; empty: all). While open, it may be extended (grace_period); a source made
// from it reads up to `until` and then waits for more or for the close. Shared by the run and the sources of
// its tasks, each of which evaluates `where` for itself, on its strand; positions are the topic's offsets in
// any case. extend and close from any thread.
class topic_claim {
 public:
  topic_claim(std::shared_ptr<topic> from, std::int64_t after, std::int64_t until, bool open,
              std::string where = {});
  ~topic_claim();

  void extend(std::int64_t until);
  void close();
  std::int64_t after() const;
  std::int64_t until() const;

  // Each source reads the whole claim from its beginning (or from the position given to open()).
  std::unique_ptr<source> make_source(const asio::any_io_executor& strand);

 private:
  struct state;
  class reader;
  std::shared_ptr<state> state_;
};

// The events of an NDJSON text, one payload a line; blank lines are skipped. Position and id follow from the
// line number (from 1) and `source_name`, so every reading gives the same events. Reading throws at a line
// that is not JSON.
std::unique_ptr<source> make_inline_source(std::string ndjson, const std::string& source_name);

// The first payload of such a text; nothing when there is none, or the first is not JSON.
std::optional<std::string> first_payload(const std::string& ndjson);

// No events at all.
std::unique_ptr<source> make_empty_source();

}  // namespace penstock::runtime
