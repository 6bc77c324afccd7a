// Removes what has expired: events past `retain` that no consumer needs, dedupe keys, old runs and their logs.
//
// Control thread; owned by the supervisor. Works after activity, at most once a minute, or when the oldest kept event
// expires; an idle daemon is not woken for it. Ends with stop().
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>

#include "runtime/wakeup.hpp"
#include "scheduler/pipeline_set.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class maintenance {
 public:
  maintenance(surroundings& around, pipeline_set& pipelines, std::shared_ptr<runtime::wakeup> activity);

  asio::awaitable<void> run();
  void stop();

 private:
  asio::awaitable<std::optional<timestamp>> clean_up(timestamp now);
  asio::awaitable<std::optional<timestamp>> retain(const config::topic& definition, timestamp now);
  asio::awaitable<void> prune(timestamp now);
  std::int64_t needed_after(const std::string& topic) const;

  surroundings& around_;
  pipeline_set& pipelines_;
  const std::shared_ptr<runtime::wakeup> activity_;
  const std::shared_ptr<runtime::wakeup> stopped_;
  bool stopping_ = false;
};

}  // namespace penstock::scheduler
