// Live streams against subscribers that come, go, come back and are slow, and the sink that feeds them.
#include <future>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/subscribers.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_subscribers {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;

namespace {

using texts = std::vector<std::string>;
using ending = stream_piece::ending;

std::chrono::steady_clock::time_point in_time() { return std::chrono::steady_clock::now() + std::chrono::seconds(20); }

struct door_bench {
  asio::thread_pool pool{1};
  subscribers door;

  ~door_bench() { pool.join(); }

  std::shared_ptr<subscriber> join(const std::string& name, const std::string& last_id = {}) {
    auto joined = door.subscribe(name, last_id, pool.get_executor());
    REQUIRE(joined.has_value());
    return *joined;
  }
  stream_piece next(subscriber& from) {
    return asio::co_spawn(pool, from.next(in_time()), asio::use_future).get();
  }
  bool quiet(subscriber& from) {
    const stream_piece piece = asio::co_spawn(pool, from.next(std::chrono::steady_clock::now()), asio::use_future).get();
    return piece.messages.empty() && !piece.gap && piece.end == ending::none;
  }
};

batch numbers(int from, int until) {
  batch events;
  for (int n = from; n <= until; ++n) {
    event e;
    e.data = events.keep(std::to_string(n));
    events.events.push_back(e);
  }
  return events;
}

texts read(const stream_piece& piece) {
  texts found;
  for (const stream_message& m : piece.messages) found.push_back(*m.text);
  return found;
}

}  // namespace

TEST_CASE("everyone who is there gets each event, from when they came", "[subscribers]") {
  door_bench b;
  const auto prices = b.door.hold("prices", {});
  const auto early = b.join("prices");
  prices->publish(numbers(1, 2));
  const auto late = b.join("prices");
  prices->publish(numbers(3, 3));
  CHECK(read(b.next(*early)) == texts{"1", "2", "3"});
  CHECK(read(b.next(*late)) == texts{"3"});
  CHECK(b.quiet(*late));
  auto waiting = asio::co_spawn(b.pool, late->next(in_time()), asio::use_future);
  prices->publish(numbers(4, 4));
  CHECK(read(waiting.get()) == texts{"4"});
  CHECK(b.door.list().at(0).subscribers == 2);
  CHECK(b.door.list().at(0).events == 4);
}

TEST_CASE("who comes back goes on after the last event seen, or is told of a gap", "[subscribers]") {
  door_bench b;
  const auto prices = b.door.hold("prices", {.events = 3, .bytes = 1000});
  const auto first = b.join("prices");
  prices->publish(numbers(1, 5));
  CHECK(read(b.next(*first)) == texts{"1", "2", "3", "4", "5"});  // kept for it, though three are what is kept otherwise
  const auto after = [&](std::int64_t n) { return b.next(*b.join("prices", first->id_of(n))); };
  CHECK(read(after(2)) == texts{"3", "4", "5"});
  CHECK_FALSE(after(2).gap);
  CHECK(read(after(4)) == texts{"5"});
  CHECK(b.quiet(*b.join("prices", first->id_of(5))));
  for (const std::string& id : {first->id_of(1), first->id_of(0), first->id_of(6), std::string("1-4"), std::string("-"),
                                first->id_of(4) + "x", std::string(10'000, '9')}) {
    INFO(id);
    const stream_piece piece = b.next(*b.join("prices", id));
    CHECK(piece.gap);
    CHECK(read(piece) == texts{"3", "4", "5"});
  }
}

TEST_CASE("a ring is bounded in bytes, too, and the largest wish counts", "[subscribers]") {
  door_bench b;
  const auto small = b.door.hold("prices", {.events = 100, .bytes = 5});
  const auto one = b.join("prices");
  small->publish(numbers(100, 104));  // three bytes each
  CHECK(b.next(*one).end == ending::overrun);
  CHECK(read(b.next(*b.join("prices", one->id_of(4)))) == texts{"104"});
  const auto large = b.door.hold("prices", {.events = 1, .bytes = 1000});
  const auto other = b.join("prices");
  small->publish(numbers(200, 204));
  CHECK(read(b.next(*other)).size() == 5);
  batch huge;
  event e;
  e.data = huge.keep("\"" + std::string(5000, 'x') + "\"");
  huge.events.push_back(e);
  large->publish(huge);
  CHECK(b.next(*other).messages.size() == 1);  // at least one is kept
}

TEST_CASE("a wish counts as long as its holder is there", "[subscribers]") {
  door_bench b;
  const auto flow = b.door.hold("prices", {.events = 1, .bytes = 0});
  auto before = b.door.hold("prices", {.events = 100, .bytes = 1000});
  const auto one = b.join("prices");
  before->publish(numbers(1, 50));
  const auto now = b.door.hold("prices", {.events = 3, .bytes = 1000});
  CHECK(read(b.next(*b.join("prices", one->id_of(0)))).size() == 50);
  before.reset();
  now->publish(numbers(51, 51));
  CHECK(read(b.next(*one)).size() == 51);  // until now it was kept for this one
  CHECK(read(b.next(*b.join("prices", one->id_of(0)))) == texts{"49", "50", "51"});
}

TEST_CASE("what is sent is one line of JSON", "[subscribers]") {
  door_bench b;
  const auto stream = b.door.hold("s", {});
  const auto one = b.join("s");
  batch events;
  for (const auto& [data, type] : std::vector<std::pair<std::string, std::string>>{
           {"{\r\n\"a\": 1,\r\"b\": 2\n}", ""}, {"line\nline", "text/plain"}, {"\xff", "application/octet-stream"}, {"", ""}}) {
    event e;
    e.data = events.keep(data);
    e.datacontenttype = events.keep(type);
    events.events.push_back(e);
  }
  stream->publish(events);
  const texts got = read(b.next(*one));
  REQUIRE(got.size() == 4);
  for (const std::string& text : got) CHECK(text.find_first_of("\r\n") == text.npos);
  CHECK(nlohmann::json::parse(got[0]) == nlohmann::json{{"a", 1}, {"b", 2}});
  CHECK(got[1] == "\"line\\nline\"");
  CHECK(got[2] == "\"/w==\"");
  CHECK(got[3] == "null");
}

TEST_CASE("a stream is there while somebody holds it", "[subscribers]") {
  door_bench b;
  const auto unknown = b.door.subscribe("prices", {}, b.pool.get_executor());
  REQUIRE_FALSE(unknown.has_value());
  CHECK(unknown.error().code == errc::not_found);
  auto flow = b.door.hold("prices", {});
  auto other = b.door.hold("prices", {});
  CHECK(flow == other);
  CHECK_THAT(b.door.subscribe("price", {}, b.pool.get_executor()).error().detail, Contains("prices"));
  const auto one = b.join("prices");
  flow->publish(numbers(1, 1));
  const std::string id = one->id_of(1);
  flow.reset();
  CHECK(b.door.list().size() == 1);
  other->publish(numbers(2, 2));
  other.reset();
  const stream_piece last = b.next(*one);
  CHECK(read(last) == texts{"1", "2"});
  CHECK(last.end == ending::closed);
  CHECK(b.door.list().empty());
  CHECK_FALSE(b.door.subscribe("prices", {}, b.pool.get_executor()).has_value());
  const auto again = b.door.hold("prices", {});
  again->publish(numbers(3, 4));
  CHECK(b.next(*b.join("prices", id)).gap);  // another stream of that name
}

TEST_CASE("closing a subscriber wakes it, from any thread, and many may publish at once", "[subscribers]") {
  door_bench b;
  const auto stream = b.door.hold("s", {.events = 100'000, .bytes = 10'000'000});
  const auto one = b.join("s");
  std::vector<std::future<void>> feeders;
  for (int i = 0; i < 4; ++i) {
    feeders.push_back(std::async(std::launch::async, [&] {
      for (int n = 0; n < 100; ++n) stream->publish(numbers(1, 50));
    }));
  }
  std::int64_t expected = 1;
  bool in_order = true;
  while (expected <= 20'000) {
    const stream_piece piece = b.next(*one);
    REQUIRE(piece.end == ending::none);
    for (const stream_message& m : piece.messages) in_order = in_order && m.number == expected++;
  }
  CHECK(in_order);
  for (auto& feeder : feeders) feeder.get();
  auto waiting = asio::co_spawn(b.pool, one->next(in_time()), asio::use_future);
  one->close();
  CHECK(waiting.get().end == ending::closed);
}

TEST_CASE("the sink shows what is JSON, and makes dead letters of what only says so", "[subscribers]") {
  flow_bench flow;
  flow.append("in", {"{\"n\":1}", "{\"n\":", "{\"n\":3}"});
  const auto held = flow.streams.hold("prices", {});
  const auto joined = flow.streams.subscribe("prices", {}, flow.pool.get_executor());
  REQUIRE(joined.has_value());
  auto run = flow.make("test/flow/f", flow.parse("from: {topic: in}\nto: {subscribers: prices}"));
  auto ended = asio::co_spawn(flow.pool, run->run(), asio::use_future);
  texts got;
  while (got.size() < 2) {
    const stream_piece piece = asio::co_spawn(flow.pool, (*joined)->next(in_time()), asio::use_future).get();
    REQUIRE_FALSE(piece.messages.empty());
    for (const std::string& text : read(piece)) got.push_back(text);
  }
  run->request_drain();
  CHECK(ended.get().end == dataflow_end::drained);
  CHECK(got == texts{"{\"n\":1}", "{\"n\":3}"});
  CHECK(flow.dead().size() == 1);
  CHECK(flow.balanced());
}

}  // namespace test_subscribers
