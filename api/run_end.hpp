// Watches for the end of a run on behalf of a handler or stream that waits for other things too.
//
// Control thread. The watch ends with this object; nothing polls.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "api/context.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::api {

class run_end {
 public:
  // Notifies `wake` once the run is final, or cannot be found, or `limit` is over.
  run_end(context& c, std::string run, std::chrono::nanoseconds limit, std::shared_ptr<runtime::wakeup> wake);
  ~run_end();
  run_end(const run_end&) = delete;
  run_end& operator=(const run_end&) = delete;

  bool over() const;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::api
