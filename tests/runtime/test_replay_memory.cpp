// What a hook remembers of accepted deliveries: one of many doubles gets through, a failed one may come again, and
// neither time nor number lets a replay in. Time is a parameter.
#include <atomic>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/replay_memory.hpp"

namespace test_replay_memory {

using namespace penstock;
using namespace penstock::runtime;
using namespace std::chrono_literals;

namespace {

constexpr timestamp start{1'700'000'000s};

replay_key key(int n) {
  replay_key out{};
  for (std::size_t i = 0; i < 4; ++i) out[i] = static_cast<unsigned char>(n >> (8 * i));
  return out;
}

struct bench {
  std::shared_ptr<replay_memory> memory = std::make_shared<replay_memory>();

  auto begin(std::vector<replay_key> keys, timestamp now = start, std::size_t limit = 100) {
    return memory->begin(keys, now, limit);
  }
  void accept(std::vector<replay_key> keys, timestamp until, timestamp now = start) {
    auto claim = begin(std::move(keys), now);
    REQUIRE(claim.has_value());
    REQUIRE(*claim);
    (*claim)->keep(until);
  }
  bool is_known(std::vector<replay_key> keys, timestamp now) {
    const auto claim = begin(std::move(keys), now);
    return claim && !*claim;
  }
};

}  // namespace

TEST_CASE("replays: accepted once, known until its time is over", "[replay_memory]") {
  bench b;
  b.accept({key(1)}, start + 5min);
  CHECK(b.is_known({key(1)}, start));
  CHECK(b.is_known({key(1)}, start + 5min));
  CHECK_FALSE(b.is_known({key(1)}, start + 5min + 1us));
  CHECK_FALSE(b.is_known({key(2)}, start));
  CHECK(b.memory->size(start + 5min + 1us) == 0);
}

TEST_CASE("replays: what was not accepted may come again", "[replay_memory]") {
  bench b;
  {
    auto first = b.begin({key(1), key(2)});
    REQUIRE(*first);
    for (const int n : {1, 2}) {
      const auto second = b.begin({key(n)});
      REQUIRE_FALSE(second.has_value());
      CHECK(second.error().code == errc::unavailable);
      CHECK(second.error().retry_after_s == 1);
    }
  }
  b.accept({key(1), key(2)}, start + 1min);
  CHECK(b.is_known({key(2), key(3)}, start));
  CHECK_FALSE(b.is_known({key(3)}, start));  // it was not remembered for having been beside one that was
}

TEST_CASE("replays: they are forgotten by their own time, not in their order", "[replay_memory]") {
  bench b;
  b.accept({key(1)}, start + 1h);
  b.accept({key(2)}, start + 1min);
  CHECK_FALSE(b.is_known({key(2)}, start + 2min));
  CHECK(b.is_known({key(1)}, start + 2min));
}

TEST_CASE("replays: full, it takes nothing new and forgets nothing early", "[replay_memory]") {
  bench b;
  b.accept({key(1)}, start + 10s);
  auto on_its_way = b.begin({key(2)}, start, 2);
  const auto refused = b.begin({key(3)}, start, 2);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::overloaded);
  CHECK(refused.error().retry_after_s == 10);
  CHECK(b.is_known({key(1)}, start));
  on_its_way->reset();
  CHECK(b.begin({key(3)}, start, 2).has_value());
  const auto later = b.begin({key(4)}, start + 11s, 1);
  CHECK(later.has_value());
}

TEST_CASE("replays: of many at once one gets through", "[replay_memory]") {
  bench b;
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> through{0};
    std::vector<std::thread> senders;
    for (int t = 0; t < 4; ++t) {
      senders.emplace_back([&] {
        auto claim = b.memory->begin({key(round)}, start, 1000);
        if (!claim || !*claim) return;
        ++through;
        (*claim)->keep(start + 1min);
      });
    }
    for (auto& one : senders) one.join();
    REQUIRE(through == 1);
  }
}

TEST_CASE("replays: a claim may outlive everybody else", "[replay_memory]") {
  std::unique_ptr<replay_memory::claim> claim;
  {
    bench b;
    auto begun = b.begin({key(1)});
    claim = std::move(*begun);
  }
  claim->keep(start + 1min);
  claim.reset();
}

}  // namespace test_replay_memory
