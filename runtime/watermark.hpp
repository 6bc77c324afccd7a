// How far event time has come: the newest time seen, less a delay; when no event comes, on with the wall clock.
//
// Pure; all times are microseconds since 1970. While events come, the watermark depends on their times alone. After
// `idle` without one it moves on from where it was by the time that has passed on the wall clock, so that it works for
// old data as for live data. A tick that comes much later than it was asked for means that the daemon was down or held up,
// not that the source was idle: what was sent meanwhile has yet to be read, so that time does not count. All of this
// follows from the state and the tick's own time, so a repeated tick does the same again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "runtime/state_bytes.hpp"

namespace penstock::runtime {

class watermark {
 public:
  static constexpr std::int64_t none = std::numeric_limits<std::int64_t>::min();
  static constexpr std::int64_t punctual = 2'000'000;  // a tick that is later than this is not of an idle source

  watermark(std::int64_t delay, std::int64_t idle) : delay_(delay), idle_(idle) {}

  // Everything before this has been seen; `none` before the first event.
  std::int64_t at() const { return at_; }

  void saw(std::int64_t event_time) { at_ = std::max(at_, event_time - delay_); }
  // Events have come, at this time of the wall clock.
  void heard(std::int64_t wall) {
    heard_ = wall;
    idling_ = false;
  }

  // When the wall clock alone will have brought the watermark to `due`.
  std::optional<std::int64_t> wake_at(std::int64_t due) const {
    if (at_ == none) return std::nullopt;
    const std::int64_t missing = std::max<std::int64_t>(due - at_, 0);
    return heard_ + (idling_ ? missing : std::max(missing, idle_));
  }

  // True: the watermark has moved.
  bool tick(std::int64_t wall, std::int64_t due) {
    const std::optional<std::int64_t> expected = wake_at(due);
    if (!expected || wall < *expected) return false;
    if (wall > *expected + punctual) {
      heard_ += wall - *expected + idle_;  // as if the time had stood still: due again after `idle`
      return false;
    }
    at_ += wall - heard_;
    heard_ = wall;
    idling_ = true;
    return true;
  }

  void write(state_writer& out) const {
    out.integer(at_);
    out.integer(heard_);
    out.integer(idling_);
  }
  void read(state_reader& in) {
    at_ = in.integer();
    heard_ = in.integer();
    idling_ = in.integer() != 0;
  }

 private:
  std::int64_t delay_, idle_;
  std::int64_t at_ = none;
  std::int64_t heard_ = 0;  // wall clock, up to which at_ holds
  bool idling_ = false;     // the wall clock has moved it since the last event
};

}  // namespace penstock::runtime
