// The log of changes: numbers, what is kept, and followers that come and go.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include "scheduler/change_log.hpp"

using namespace penstock;
using namespace penstock::scheduler;

namespace {

change numbered(int n) { return {.kind = "flow", .pipeline = "p", .name = std::to_string(n), .state = "running"}; }

std::vector<std::int64_t> numbers(const std::vector<change>& changes) {
  std::vector<std::int64_t> all;
  for (const auto& one : changes) {
    CHECK(one.name == std::to_string(one.number));
    all.push_back(one.number);
  }
  return all;
}

}  // namespace

TEST_CASE("changes: the last ones are kept, in order", "[changes]") {
  using list = std::vector<std::int64_t>;
  change_log log("LIFE", 3);
  CHECK(log.last() == 0);
  CHECK(log.first() == 1);
  CHECK(log.after(0, 10).empty());
  for (int n = 1; n <= 3; ++n) log.add(numbered(n));
  CHECK(numbers(log.after(0, 10)) == list{1, 2, 3});
  CHECK(numbers(log.after(1, 1)) == list{2});
  CHECK(log.after(3, 10).empty());
  CHECK(log.after(99, 10).empty());
  for (int n = 4; n <= 9; ++n) log.add(numbered(n));
  CHECK(log.first() == 7);
  CHECK(log.last() == 9);
  CHECK(numbers(log.after(0, 10)) == list{7, 8, 9});  // the reader sees by the number that some are missing
  CHECK(numbers(log.after(8, 10)) == list{9});
}

TEST_CASE("changes: a follower that is gone is forgotten", "[changes]") {
  boost::asio::io_context io;
  change_log log("LIFE");
  auto stays = std::make_shared<runtime::wakeup>(io.get_executor());
  auto goes = std::make_shared<runtime::wakeup>(io.get_executor());
  const std::weak_ptr<runtime::wakeup> gone = goes;
  log.follow(stays);
  log.follow(goes);
  goes.reset();
  CHECK(gone.expired());
  log.add(numbered(1));
  io.run();
  io.restart();
  bool told = false;
  boost::asio::co_spawn(io, stays->wait(), [&told](std::exception_ptr) { told = true; });
  io.run();
  CHECK(told);
}

TEST_CASE("changes: a run is told as it stands", "[changes]") {
  run_record run;
  run.id = "R";
  run.pipeline = "p";
  run.job = "j";
  run.state = run_state::queued;
  run.waiting_reason = "pool 'db' has no free slot";
  run.reason = "not yet";
  CHECK(change_of(run).state == "queued");
  CHECK(change_of(run).reason == "pool 'db' has no free slot");
  run.state = run_state::failed;
  CHECK(change_of(run).reason == "not yet");
  CHECK(change_of(run).run == "R");
}
