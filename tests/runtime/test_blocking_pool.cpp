#include <atomic>
#include <future>
#include <latch>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/blocking_pool.hpp"

namespace test_blocking_pool {

using penstock::runtime::blocking_pool;
namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// Which threads do `count` pieces of work that all wait for each other.
std::set<std::thread::id> threads_for(blocking_pool& pool, int count) {
  std::latch all_there(count);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  std::vector<std::future<void>> done;
  for (int i = 0; i < count; ++i) {
    auto finished = std::make_shared<std::promise<void>>();
    done.push_back(finished->get_future());
    pool.submit([&, finished] {
      all_there.arrive_and_wait();
      {
        std::lock_guard lock(mutex);
        ids.insert(std::this_thread::get_id());
      }
      finished->set_value();
    });
  }
  for (auto& one : done) one.wait();
  return ids;
}

asio::awaitable<std::string> text_from(blocking_pool& pool, std::thread::id& worker) {
  auto call = [&worker] {
    worker = std::this_thread::get_id();
    return std::string("made elsewhere");
  };
  const std::string text = co_await pool.run(std::move(call));
  co_return text;
}

asio::awaitable<void> nothing_from(blocking_pool& pool, std::atomic<int>& calls) {
  auto call = [&calls] { ++calls; };
  co_await pool.run(std::move(call));
}

asio::awaitable<int> failure_from(blocking_pool& pool) {
  auto call = []() -> int { throw std::runtime_error("the disk is gone"); };
  const int never = co_await pool.run(std::move(call));
  co_return never;
}

}  // namespace

TEST_CASE("blocking pool: work that waits for other work gets threads of its own", "[blocking_pool]") {
  blocking_pool pool(8);
  CHECK(threads_for(pool, 8).size() == 8);
}

TEST_CASE("blocking pool: never more threads than allowed, and all work is done", "[blocking_pool]") {
  std::atomic<int> now{0}, most{0}, done{0};
  {
    blocking_pool pool(3);
    for (int i = 0; i < 500; ++i)
      pool.submit([&] {
        const int here = ++now;
        for (int seen = most; here > seen && !most.compare_exchange_weak(seen, here);) {
        }
        std::this_thread::yield();
        --now;
        ++done;
      });
  }  // the destructor waits for what was submitted
  CHECK(done == 500);
  CHECK(most <= 3);
}

TEST_CASE("blocking pool: idle threads end, and work afterwards starts new ones", "[blocking_pool]") {
  blocking_pool pool(4, 0s);
  for (int round = 0; round < 200; ++round) REQUIRE(threads_for(pool, 4).size() == 4);
}

TEST_CASE("blocking pool: a coroutine gets the value on its own thread", "[blocking_pool]") {
  blocking_pool pool(2);
  asio::io_context context;
  std::thread::id worker;
  auto text = asio::co_spawn(context, text_from(pool, worker), asio::use_future);
  context.run();
  CHECK(text.get() == "made elsewhere");
  CHECK(worker != std::this_thread::get_id());
}

TEST_CASE("blocking pool: a coroutine gets the exception", "[blocking_pool]") {
  blocking_pool pool(2);
  asio::io_context context;
  auto failed = asio::co_spawn(context, failure_from(pool), asio::use_future);
  context.run();
  CHECK_THROWS_WITH(failed.get(), "the disk is gone");
}

TEST_CASE("blocking pool: thousands of coroutines at once", "[blocking_pool]") {
  blocking_pool pool(4);
  asio::io_context context;
  std::atomic<int> calls{0};
  std::vector<std::future<void>> all;
  for (int i = 0; i < 5000; ++i)
    all.push_back(asio::co_spawn(context, nothing_from(pool, calls), asio::use_future));
  context.run();
  for (auto& one : all) one.get();
  CHECK(calls == 5000);
}

TEST_CASE("blocking pool: work that throws does not end its thread", "[blocking_pool]") {
  blocking_pool pool(1);
  std::promise<void> done;
  pool.submit([] { throw std::runtime_error("expected by the test"); });
  pool.submit([] { throw 42; });
  pool.submit([&] { done.set_value(); });
  done.get_future().wait();
  SUCCEED();
}

TEST_CASE("blocking pool: work may submit work", "[blocking_pool]") {
  blocking_pool pool(1);
  std::promise<int> done;
  pool.submit([&] { pool.submit([&] { done.set_value(7); }); });
  CHECK(done.get_future().get() == 7);
}

TEST_CASE("blocking pool: no threads at all is a mistake", "[blocking_pool]") {
  CHECK_THROWS(blocking_pool(0));
}

}  // namespace test_blocking_pool
