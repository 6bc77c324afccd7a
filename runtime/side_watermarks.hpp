// The watermark of two sides that are read together: that of the side which has not come as far as the other.
//
// Pure; all times are microseconds since 1970. One side may be read far ahead of the other (two topics after a stop), and
// must wait for it. A side of which nothing came for `idle` is not waited for until it is heard again; when that is both,
// the wall clock moves the watermark on, as in watermark.hpp, whose rules for late ticks hold here as well. It never goes
// back. With `by_side` false all events are of one order, and the newest counts whichever side it is of.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "runtime/watermark.hpp"

namespace penstock::runtime {

class side_watermarks {
 public:
  side_watermarks(std::int64_t delay, std::int64_t idle, bool by_side)
      : delay_(delay), idle_(idle), by_side_(by_side), newest_(delay, idle) {}

  // watermark::none before both sides were heard, or one was idle.
  std::int64_t at() const { return at_; }

  void saw(std::size_t side, std::int64_t event_time, std::int64_t wall) {
    if (newest_.at() == watermark::none) sides_[0].heard = sides_[1].heard = wall;
    newest_.saw(event_time);
    newest_.heard(wall);
    sides_[side].at = std::max(sides_[side].at, event_time - delay_);
    sides_[side].heard = wall;
    sides_[side].idle = false;
    move();
  }

  // The newest event is far enough for `due`, but a side that is waited for is not.
  bool held_back(std::int64_t due) const { return at_ < due && newest_.at() >= due; }

  // When the wall clock alone will have brought the watermark to `due`, which is after at().
  std::optional<std::int64_t> wake_at(std::int64_t due) const {
    return held_back(due) ? slower().heard + idle_ : newest_.wake_at(due);
  }

  // True: the watermark has moved.
  bool tick(std::int64_t wall, std::int64_t due) {
    if (!held_back(due)) {
      if (!newest_.tick(wall, due)) return false;
      sides_[0].idle = sides_[1].idle = true;
    } else {
      progress& slow = slower();
      const std::int64_t expected = slow.heard + idle_;
      if (wall < expected) return false;
      if (wall > expected + watermark::punctual) {
        slow.heard += wall - expected + idle_;  // as if the time had stood still: due again after `idle`
        return false;
      }
      slow.idle = true;
    }
    move();
    return true;
  }

  void write(state_writer& out) const {
    newest_.write(out);
    out.integer(at_);
    for (const progress& s : sides_) {
      out.integer(s.at);
      out.integer(s.heard);
      out.integer(s.idle);
    }
  }
  void read(state_reader& in) {
    newest_.read(in);
    at_ = in.integer();
    for (progress& s : sides_) {
      s.at = in.integer();
      s.heard = in.integer();
      s.idle = in.integer() != 0;
    }
  }

 private:
  struct progress {
    std::int64_t at = watermark::none;
    std::int64_t heard = 0;  // wall clock
    bool idle = false;       // not waited for
  };

  const progress& slower() const { return sides_[0].at < sides_[1].at ? sides_[0] : sides_[1]; }
  progress& slower() { return sides_[0].at < sides_[1].at ? sides_[0] : sides_[1]; }

  void move() {
    std::int64_t reached = newest_.at();
    for (const progress& s : sides_) {
      if (by_side_ && !s.idle) reached = std::min(reached, s.at);
    }
    at_ = std::max(at_, reached);
  }

  std::int64_t delay_, idle_;
  bool by_side_;
  watermark newest_;  // of all events
  std::array<progress, 2> sides_{};
  std::int64_t at_ = watermark::none;
};

}  // namespace penstock::runtime
