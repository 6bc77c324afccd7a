// What a command prints on stdout, as events to its sink: one JSON value a line.
//
// Lives on the run's strand, owned by its command_run. Lines are numbered from 1; an event's id is
// CONSUMER:NUMBER and its position the number, so that sinks which remember positions or ids take a line
// once. A task's attempts count from 1 again: a line that an earlier attempt delivered is dropped (a task has
// one fixed input, so it should print the same). A supervised command prints something new after each start:
// its numbers go on above all that were ever used. A line that is not JSON, or longer than 1 MiB, is a dead
// letter of step "stdout"; an event that the sink refuses is one of step "to". Numbers, the sink's checkpoint
// and dead letters of a batch are committed together after the sink's write.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "runtime/component.hpp"
#include "runtime/registry.hpp"

namespace penstock::runtime {

class command_output {
 public:
  // Throws what the sink throws that cannot be made. `continuous`: a supervised command.
  command_output(const registry& components, const component_context& context,
                 const config::component_use& to, bool continuous);

  asio::awaitable<void> open();  // once, first
  // Bytes as they were read from the pipe; copied.
  void take(std::string_view bytes);
  // Hands the complete lines taken so far to the sink. Throws when the sink fails.
  asio::awaitable<void> deliver();
  // The program prints no more: the last line, though it has no newline, and the sink's close.
  asio::awaitable<void> finish();

  std::int64_t repeated_lines() const {
    return repeated_;
  }  // dropped, because an earlier attempt delivered them
  std::int64_t dead_lines() const { return dead_count_; }

 private:
  void keep_partial(std::string_view piece);
  void add_line(std::string_view line);
  dead_letter bury(const event& e, std::string step, std::string reason);
  asio::awaitable<void> write(std::shared_ptr<const batch> events, commit& done);

  const component_context context_;
  const bool continuous_;
  std::unique_ptr<sink> sink_;
  std::string checkpoint_;      // of the sink
  std::int64_t position_ = 0;   // number of the last line taken
  std::int64_t delivered_ = 0;  // lines up to here were delivered by an earlier attempt
  std::string partial_;         // a line whose end has not come yet
  batch events_;                // taken, not delivered
  std::vector<dead_letter> dead_;
  std::int64_t repeated_ = 0;
  std::int64_t dead_count_ = 0;
};

}  // namespace penstock::runtime
