// Looking at what waits in a topic, and claims on only those events that match: in one go, in every possible pair of
// looks, beside appends, with expressions that fail, and on a topic that is closed meanwhile.
#include <algorithm>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/inputs.hpp"
#include "runtime/topic_scan.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_topic_scan {

using namespace penstock;
using namespace penstock::runtime;
using penstock::testing::flow_bench;
using penstock::testing::wait_for;

namespace {

using texts = std::vector<std::string>;

scan_state scan(flow_bench& b, const std::string& topic, scan_rule rule, scan_state from = {}, std::int64_t last = -1) {
  const auto of = b.topic(topic);
  if (last < 0) last = of->last_offset();
  return wait_for(b.pool, scan_topic(of, std::move(from), last, std::move(rule), asio::make_strand(b.pool.get_executor())));
}

// {"n":1,"k":"a"} … with the given keys.
texts keyed(const std::string& keys) {
  texts payloads;
  for (const char key : keys) {
    payloads.push_back(R"({"n":)" + std::to_string(payloads.size() + 1) + R"(,"k":")" + key + "\"}");
  }
  return payloads;
}

std::string shown(const scan_state& s) {
  return "until " + std::to_string(s.until) + ", " + std::to_string(s.matching) + " matching, " +
         std::to_string(s.failures) + " failed, full at " + std::to_string(s.full_at) + ", key '" + s.key + "'" +
         (s.closed ? ", closed" : "");
}

std::vector<std::int64_t> offsets(flow_bench& b, source& from, std::int64_t position = 0, std::size_t most = 100) {
  std::vector<std::int64_t> all;
  wait_for(b.pool, from.open(position));
  while (std::optional<batch> events = wait_for(b.pool, from.read(most))) {
    CHECK_FALSE(events->empty());
    for (const event& e : events->events) all.push_back(e.position);
  }
  return all;
}

}  // namespace

TEST_CASE("a scan counts what matches", "[topic_scan]") {
  flow_bench b;
  b.append("in", keyed("aaaaaaaaaa"));
  const auto all = scan(b, "in", {"", "", 100});
  CHECK(shown(all) == "until 10, 10 matching, 0 failed, full at 0, key ''");
  CHECK(all.oldest == b.topic("in")->received_at(1));
  CHECK(all.newest == b.topic("in")->received_at(10));
  CHECK(all.oldest.has_value());

  CHECK(shown(scan(b, "in", {"event.n % 3 == 0", "", 100})) == "until 10, 3 matching, 0 failed, full at 0, key ''");
  CHECK(shown(scan(b, "in", {"event.n % 3 == 0", "", 2})) == "until 6, 2 matching, 0 failed, full at 6, key ''");
  CHECK(shown(scan(b, "in", {"meta.position > 8", "", 0})) == "until 10, 2 matching, 0 failed, full at 0, key ''");
  CHECK(shown(scan(b, "in", {"", "", 10})) == "until 10, 10 matching, 0 failed, full at 10, key ''");

  const auto none = scan(b, "in", {"event.n > 99", "event.k", 5});
  CHECK(shown(none) == "until 10, 0 matching, 0 failed, full at 0, key ''");
  CHECK_FALSE(none.oldest);
  CHECK_FALSE(none.newest);
  CHECK_FALSE(none.keyed);
  CHECK(shown(scan(b, "in", {"", "", 5}, {}, 3)) == "until 3, 3 matching, 0 failed, full at 0, key ''");
  b.topic("empty");
  CHECK(shown(scan(b, "empty", {"event.n", "", 5})) == "until 0, 0 matching, 0 failed, full at 0, key ''");
}

TEST_CASE("a scan ends before another key", "[topic_scan]") {
  flow_bench b;
  b.append("in", keyed("aaabba"));
  const auto first = scan(b, "in", {"", "event.k", 100});
  CHECK(shown(first) == "until 3, 3 matching, 0 failed, full at 0, key 'a', closed");
  CHECK(first.newest == b.topic("in")->received_at(3));
  scan_state next;
  next.until = first.until;
  CHECK(shown(scan(b, "in", {"", "event.k", 100}, next)) == "until 5, 2 matching, 0 failed, full at 0, key 'b', closed");
  // Full first: nobody knows yet what follows.
  CHECK(shown(scan(b, "in", {"", "event.k", 3})) == "until 3, 3 matching, 0 failed, full at 3, key 'a'");
  // What does not match has no say.
  CHECK(shown(scan(b, "in", {"event.k ~= 'b'", "event.k", 100})) == "until 6, 4 matching, 0 failed, full at 0, key 'a'");
  // A caller that knows the key already.
  scan_state given;
  given.keyed = true;
  given.key = "b";
  CHECK(shown(scan(b, "in", {"", "event.k", 100}, given)) == "until 0, 0 matching, 0 failed, full at 0, key 'b', closed");
  given.until = 3;
  CHECK(shown(scan(b, "in", {"", "event.k", 100}, given)) == "until 5, 2 matching, 0 failed, full at 0, key 'b', closed");
  // An ended scan stays as it is.
  CHECK(shown(scan(b, "in", {"", "event.k", 100}, first)) == shown(first));
}

TEST_CASE("keys are texts; nil and failures are the empty one", "[topic_scan]") {
  flow_bench b;
  b.append("in", {R"({"k":{"x":1}})", R"({"k":{"x":1}})", R"({"k":{"x":2}})"});
  CHECK(shown(scan(b, "in", {"", "event.k", 9})) == R"(until 2, 2 matching, 0 failed, full at 0, key '{"x":1}', closed)");
  b.append("nil", {"{}", R"({"k":null})", R"({"k":""})", R"({"k":0})"});
  CHECK(shown(scan(b, "nil", {"", "event.k", 9})) == "until 3, 3 matching, 0 failed, full at 0, key '', closed");
  b.append("bad", {"{}", R"({"a":{"b":1}})"});
  CHECK(shown(scan(b, "bad", {"", "event.a.b", 9})) == "until 1, 1 matching, 1 failed, full at 0, key '', closed");
}

TEST_CASE("an event for which the condition fails does not match", "[topic_scan]") {
  flow_bench b;
  b.append("in", {R"({"a":{"b":1}})", "{}", R"({"a":{"b":false}})", "5", R"({"a":{"b":2}})"});
  const auto seen = scan(b, "in", {"event.a.b", "", 100});
  CHECK(shown(seen) == "until 5, 2 matching, 2 failed, full at 0, key ''");
  CHECK(shown(scan(b, "in", {"no lua", "", 100})) == "until 5, 0 matching, 5 failed, full at 0, key ''");
  CHECK(shown(scan(b, "in", {"(function() while true do end end)()", "", 100}, {}, 2)) ==
        "until 2, 0 matching, 2 failed, full at 0, key ''");
}

TEST_CASE("two looks see what one sees, wherever the first ends", "[topic_scan]") {
  flow_bench b;
  b.append("in", keyed("xaaxxaabaxba"));
  for (const std::string where : {"", "event.k ~= 'x'", "event.k == 'b'", "event.n > 3"}) {
    for (const std::string key : {"", "event.k"}) {
      for (std::int64_t most = 1; most <= 6; ++most) {
        const auto once = scan(b, "in", {where, key, most});
        for (std::int64_t between = 0; between <= 12; ++between) {
          const auto half = scan(b, "in", {where, key, most}, {}, between);
          CHECK(half.until <= between);
          const auto both = scan(b, "in", {where, key, most}, half);
          CHECK(shown(both) == shown(once));
          CHECK(both.oldest == once.oldest);
          CHECK(both.newest == once.newest);
        }
      }
    }
  }
}

TEST_CASE("the limit may change between two looks", "[topic_scan]") {
  flow_bench b;
  b.append("in", keyed("aaaaaaaa"));
  const auto full = scan(b, "in", {"", "", 3});
  CHECK(shown(scan(b, "in", {"", "", 5}, full)) == "until 5, 5 matching, 0 failed, full at 5, key ''");
  CHECK(shown(scan(b, "in", {"", "", 0}, full)) == "until 8, 8 matching, 0 failed, full at 0, key ''");
  CHECK(shown(scan(b, "in", {"", "", 2}, full)) == "until 3, 3 matching, 0 failed, full at 3, key ''");
}

TEST_CASE("many events are looked at in slices, beside others on the same thread", "[topic_scan]") {
  flow_bench b;
  texts payloads(50'000, R"({"n":1,"k":"a"})");
  payloads[49'998] = R"({"n":2,"k":"a"})";
  b.append("in", payloads);
  boost::asio::thread_pool one_thread(1);
  std::atomic<int> turns{0};
  std::atomic<bool> ended{false};
  const std::function<void()> other = [&] {
    ++turns;
    if (!ended) asio::post(one_thread, other);
  };
  asio::post(one_thread, other);
  auto looking = scan_topic(b.topic("in"), {}, 50'000, {"event.n == 2", "event.k", 10}, one_thread.get_executor());
  const scan_state seen = wait_for(b.pool, std::move(looking));
  ended = true;
  one_thread.join();
  CHECK(shown(seen) == "until 50000, 1 matching, 0 failed, full at 0, key 'a'");
  CHECK(turns >= 50);
}

TEST_CASE("a scan stays before what it cannot read", "[topic_scan]") {
  flow_bench b;
  b.append("in", keyed("aaaa"));
  const auto of = b.topic("in");
  const auto half = scan(b, "in", {"event.n", "", 100}, {}, 2);
  of->close();
  const auto worker = asio::make_strand(b.pool.get_executor());
  const auto after = wait_for(b.pool, scan_topic(of, half, 4, {"event.n", "", 100}, worker));
  CHECK(shown(after) == shown(half));
  CHECK(after.newest == half.newest);
}

// ---- claims

TEST_CASE("a filtered claim gives only what matches, the same at each reading", "[claim]") {
  flow_bench b;
  b.append("in", keyed("abababababab"));
  topic_claim claim(b.topic("in"), 1, 11, false, "event.k == 'b' and meta.position ~= 6");
  const auto strand = asio::make_strand(b.pool.get_executor());
  using list = std::vector<std::int64_t>;
  for (const std::size_t most : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{100}})
    CHECK(offsets(b, *claim.make_source(strand), 0, most) == list{2, 4, 8, 10});
  CHECK(offsets(b, *claim.make_source(strand), 4, 1) == list{8, 10});
  CHECK(offsets(b, *claim.make_source(strand), 5) == list{8, 10});
  CHECK(offsets(b, *claim.make_source(strand), 10).empty());
  topic_claim nothing(b.topic("in"), 0, 12, false, "event.a.b");  // fails for each
  CHECK(offsets(b, *nothing.make_source(strand), 0, 1).empty());
}

TEST_CASE("an open filtered claim waits for what matches", "[claim]") {
  flow_bench b;
  b.append("in", keyed("abaab"));
  topic_claim claim(b.topic("in"), 0, 1, true, "event.k == 'b'");
  const auto strand = asio::make_strand(b.pool.get_executor());
  const auto s = claim.make_source(strand);
  const auto read = [&] { return asio::co_spawn(strand, s->read(100), asio::use_future); };
  asio::co_spawn(strand, s->open(0), asio::use_future).get();
  auto waiting = read();
  claim.extend(2);
  CHECK(waiting.get()->events.at(0).position == 2);
  waiting = read();
  claim.extend(4);  // nothing that matches
  claim.extend(5);
  CHECK(waiting.get()->events.at(0).position == 5);
  waiting = read();
  claim.close();
  CHECK_FALSE(waiting.get().has_value());
}

TEST_CASE("a filtered claim can be stopped in a long stretch that does not match", "[claim]") {
  flow_bench b;
  b.append("in", texts(20'000, R"({"k":"a"})"));
  topic_claim claim(b.topic("in"), 0, 20'000, false, "event.k == 'b'");
  boost::asio::thread_pool one_thread(1);
  const asio::any_io_executor strand = asio::make_strand(one_thread.get_executor());
  const auto s = claim.make_source(strand);
  asio::co_spawn(strand, s->open(0), asio::use_future).get();
  auto reading = asio::co_spawn(strand, s->read(10), asio::use_future);
  asio::post(strand, [&] { s->stop_input(); });
  CHECK_FALSE(reading.get().has_value());
  one_thread.join();
}

namespace {

// Fails at its read number `fails_at`, counted from 1; 0: never.
class failing_source final : public source {
 public:
  failing_source(std::unique_ptr<source> inner, int fails_at) : inner_(std::move(inner)), fails_at_(fails_at) {}
  asio::awaitable<void> open(std::int64_t position) override { co_await inner_->open(position); }
  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    if (++reads_ == fails_at_) throw std::runtime_error("injected");
    co_return co_await inner_->read(most);
  }
  void stop_input() override { inner_->stop_input(); }

 private:
  const std::unique_ptr<source> inner_;
  const int fails_at_;
  int reads_ = 0;
};

// One attempt over all of "in" but the events with k = "c". True: to the end.
bool attempt(flow_bench& b, int fails_at = 0) {
  topic_claim claim(b.topic("in"), 0, 9, false, "event.k ~= 'c'");
  const asio::any_io_executor strand = asio::make_strand(b.pool.get_executor());
  auto input = std::make_unique<failing_source>(claim.make_source(strand), fails_at);
  auto run = b.make_on(strand, "test/run/R/load", b.parse("from: {generate: {count: 1}}\nto: {topic: out}"), std::move(input));
  return wait_for(b.pool, run->run()).end == dataflow_end::input_ended;
}

}  // namespace

TEST_CASE("a run's dataflow over a filtered claim goes on where it failed", "[claim][dataflow]") {
  for (const int fails_at : {1, 2, 3, 4}) {  // there are three batches, and the end of input
    flow_bench b;
    b.append("in", keyed("abcabcabc"));
    b.topic("out");
    b.batch_events = 2;
    INFO("at read " << fails_at);
    CHECK_FALSE(attempt(b, fails_at));
    CHECK(attempt(b));
    CHECK(b.content("out").size() == 6);
    CHECK(b.counters->received == 6);
    CHECK(b.balanced());
  }
}

TEST_CASE("a run's dataflow that is repeated from its end repeats one batch at most", "[claim][dataflow]") {
  for (const std::size_t most : {std::size_t{1}, std::size_t{2}, std::size_t{4}}) {
    flow_bench b;
    b.append("in", keyed("abcabcabc"));
    b.topic("out");
    b.batch_events = most;
    INFO("batches of " << most);
    CHECK(attempt(b));
    const auto saved = b.flows.load("test/run/R/load").position;
    const std::vector<std::int64_t> matching{1, 2, 4, 5, 7, 8};
    const auto repeated = std::count_if(matching.begin(), matching.end(), [saved](auto offset) { return offset > saved; });
    CHECK(repeated <= static_cast<std::ptrdiff_t>(most));
    CHECK(attempt(b));  // as after a kill that came before the end was stored
    CHECK(b.content("out").size() == 6);  // the topic takes each once
    CHECK(b.counters->received == 6 + repeated);
    CHECK(b.balanced());
  }
}

TEST_CASE("a run's dataflow of one batch saves nothing", "[claim][dataflow]") {
  flow_bench b;
  b.append("in", keyed("abcabcabc"));
  b.topic("out");
  CHECK(attempt(b));
  CHECK(b.flows.load("test/run/R/load").position == 0);
  CHECK(attempt(b));
  CHECK(b.content("out").size() == 6);
}

TEST_CASE("the first payload of given events", "[claim]") {
  CHECK(first_payload("{\"a\":1}\n{\"a\":2}") == "{\"a\":1}");
  CHECK(first_payload("\n  \r\n [2] \r\n{}") == " [2] \r");
  CHECK(first_payload("7") == "7");
  CHECK_FALSE(first_payload(""));
  CHECK_FALSE(first_payload("\n \n"));
  CHECK_FALSE(first_payload("{\n{}"));
}

}  // namespace test_topic_scan
