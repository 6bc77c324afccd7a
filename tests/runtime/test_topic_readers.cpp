// A topic's file is asked while it rests, while it is written, and while it changes from one to the other.
#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "runtime/topic.hpp"
#include "tests/runtime/wait_for.hpp"
#include "tests/temp_dir.hpp"

namespace test_topic_readers {

using namespace penstock;
using namespace penstock::runtime;

namespace {

const timestamp start = from_micros(1'700'000'000'000'000);

struct bench {
  testing::temp_dir dir;
  asio::thread_pool pool{2};
  std::shared_ptr<topic> t = make();

  std::filesystem::path file() const { return dir / "topics/t.db"; }
  std::shared_ptr<topic> make() {
    return std::make_shared<topic>(config::topic{.name = "t", .retain = {}, .max_bytes = {}, .dedupe = {}}, file(), pool.get_executor());
  }
  // Events of producer "p" at its positions from `from` to before `to`.
  void produce(int from, int to) {
    auto events = std::make_shared<batch>();
    for (int i = from; i < to; ++i) {
      event e;
      e.id = events->keep(std::to_string(i));
      e.source = "/topics/t";
      e.type = "event";
      e.data = "{}";
      e.position = i;
      events->events.push_back(e);
    }
    testing::wait_for(pool, t->append(std::move(events), append_options("p", start))).value();
  }
  void retain() { testing::wait_for(pool, t->retain(start, INT64_MAX)); }
};

}  // namespace

TEST_CASE("a topic at rest is asked without its log being made", "[topic]") {
  bench b;
  b.produce(1, 8);
  b.t.reset();
  b.t = b.make();
  const auto log = b.file().string() + "-wal";
  REQUIRE_FALSE(std::filesystem::exists(log));
  const auto before = std::filesystem::last_write_time(b.file().parent_path());
  CHECK(b.t->last_offset() == 7);
  CHECK(b.t->producer_position("p") == 7);
  CHECK(b.t->producer_position("q") == 0);
  CHECK(b.t->received_at(3) == start);
  CHECK(b.t->received_at(8) == std::nullopt);
  CHECK(b.t->status().events == 7);
  CHECK(std::filesystem::last_write_time(b.file().parent_path()) == before);
  b.produce(8, 9);
  REQUIRE(std::filesystem::exists(log));
  CHECK(b.t->producer_position("p") == 8);
  CHECK(b.t->status().last_offset == 8);
}

// Method: one thread appends and lets the file rest, so that it changes under whoever takes it for unchanging; another asks.
TEST_CASE("what a topic is asked at rest is true whenever it wakes", "[topic]") {
  bench b;
  std::atomic<std::int64_t> begun{0}, stored{0};
  std::atomic<bool> over{false};
  std::thread writer([&] {
    for (int i = 1; i <= 300; ++i) {
      begun = i;
      b.produce(i, i + 1);
      stored = i;
      for (int look = 0; look < 2; ++look) b.retain();
    }
    over = true;
  });
  int wrong = 0;
  std::int64_t asked = 0;
  for (; !over; ++asked) {
    const std::int64_t least = stored;
    const std::int64_t seen = b.t->producer_position("p");
    wrong += seen < least || seen > begun;
    const topic_status status = b.t->status();
    wrong += status.last_offset < least || status.last_offset > begun || status.events != status.last_offset;
  }
  writer.join();
  CHECK(wrong == 0);
  CHECK(asked > 0);
}

TEST_CASE("a look at a topic after a crash leaves its log to the next writer", "[topic]") {
  bench b;
  b.produce(1, 8);
  testing::temp_dir crashed;
  std::filesystem::create_directories(crashed / "topics");
  for (const char* ending : {"", "-wal"}) {
    std::filesystem::copy_file(b.file().string() + ending, (crashed / "topics/t.db").string() + ending);
  }
  topic left(config::topic{.name = "t", .retain = {}, .max_bytes = {}, .dedupe = {}}, crashed / "topics/t.db", b.pool.get_executor());
  CHECK(left.last_offset() == 7);
  CHECK(left.producer_position("p") == 7);
  CHECK(left.status().events == 7);
  CHECK(std::filesystem::file_size(crashed / "topics/t.db-wal") > 0);
}

TEST_CASE("a closed topic reads as empty", "[topic]") {
  bench b;
  b.produce(1, 8);
  b.t->close();
  CHECK(b.t->producer_position("p") == 0);
  CHECK(b.t->received_at(1) == std::nullopt);
  CHECK(b.t->read(0, 10).events.empty());
}

}  // namespace test_topic_readers
