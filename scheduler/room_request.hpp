// A trigger's place in the dispatcher: asked for, granted, given back.
//
// Control thread; a member of the trigger's watch. At most one request at a time. Destroyed or cancelled, it gives back
// what it has; once the room has become a run's (take), it begins anew.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "runtime/wakeup.hpp"
#include "scheduler/job_runs.hpp"

namespace penstock::scheduler {

class room_request {
 public:
  // `name` tells this trigger from all others.
  room_request(std::shared_ptr<job_runs> runs, std::string name, std::shared_ptr<runtime::wakeup> wake)
      : runs_(std::move(runs)), name_(std::move(name)), wake_(std::move(wake)) {}
  ~room_request() { cancel(); }
  room_request(const room_request&) = delete;
  room_request& operator=(const room_request&) = delete;

  // True: it has room now. Else it waits in line since `since`, and `wake` is notified when it has.
  bool ask(const std::string& overlap_key, timestamp since) {
    if (state_ && overlap_key != overlap_key_) cancel();
    if (!state_) {
      overlap_key_ = overlap_key;
      serial_ = ++last_serial_;
      state_ = std::make_shared<bool>(false);
      queue_entry entry;
      entry.id = room_name();
      entry.key = overlap_key;
      entry.since = since;
      *state_ = runs_->ask(std::move(entry), [state = state_, wake = wake_] {
        *state = true;
        wake->notify();
      });
    }
    return *state_;
  }

  // The room goes to the run that is made now.
  std::string take() {
    std::string room = room_name();
    state_.reset();
    return room;
  }

  void cancel() {
    if (!std::exchange(state_, nullptr)) return;
    runs_->give_back(room_name());
  }

 private:
  std::string room_name() const { return name_ + "#" + std::to_string(serial_); }

  const std::shared_ptr<job_runs> runs_;
  const std::string name_;
  const std::shared_ptr<runtime::wakeup> wake_;
  std::string overlap_key_;
  std::shared_ptr<bool> state_;  // null: not asked; else whether it was granted
  std::uint64_t serial_ = 0;  // of the last request
  // Of all requests: a room that became a run's outlives the watch that asked for it.
  static inline std::uint64_t last_serial_ = 0;
};

}  // namespace penstock::scheduler
