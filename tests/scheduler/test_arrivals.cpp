#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>
#include <optional>
#include <utility>

#include "scheduler/arrivals.hpp"

namespace penstock::scheduler {

TEST_CASE("arrivals: whoever asks for a run on its way waits until it is there", "[arrivals]") {
  asio::io_context control;
  arrivals arriving(control.get_executor());
  int there = 0;
  const auto ask = [&](std::string run) {
    asio::co_spawn(control, arriving.over(std::move(run)), [&](const std::exception_ptr&) { ++there; });
    control.restart();
    control.poll();
  };
  ask("r1");
  CHECK(there == 1);  // nobody knows it
  std::optional<arrivals::guard> guard = arriving.enter("r1");
  ask("r1");
  ask("r1");
  ask("r2");
  CHECK(there == 2);
  arrivals::guard moved = std::move(*guard);
  guard.reset();
  control.restart();
  control.poll();
  CHECK(there == 2);
  {
    const arrivals::guard last = std::move(moved);
  }
  control.restart();
  control.poll();
  CHECK(there == 4);
  ask("r1");
  CHECK(there == 5);
}

TEST_CASE("arrivals: a guard may be left behind", "[arrivals]") {
  asio::io_context control;
  arrivals::guard left;
  {
    arrivals arriving(control.get_executor());
    left = arriving.enter("r1");
  }
}

}  // namespace penstock::scheduler
