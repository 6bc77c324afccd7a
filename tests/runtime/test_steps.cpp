// The steps filter, map, script and dedupe, made from YAML as a person writes them and fed batch by batch.
// Restarts of dedupe go through what it asks to be stored, with and without the last commit.
#include <map>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/runtime/flow_bench.hpp"

namespace test_steps {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using penstock::testing::flow_bench;

namespace {

using texts = std::vector<std::string>;

struct outcome final : step_output {
  std::vector<std::pair<std::string, std::string>> died;  // id, reason
  texts duplicates;

  void dead(const event& e, std::string reason) override { died.emplace_back(e.id, std::move(reason)); }
  void duplicate(const event& e) override { duplicates.emplace_back(e.id); }
  void to_output(const event&, std::string_view) override {}
  void late(const event&) override {}
};

// A step by itself, with the store that its changes would go to.
struct step_bench {
  flow_bench flow;
  std::map<std::string, std::string> stored;
  outcome out;
  std::unique_ptr<step> one;
  config::component_use use;

  explicit step_bench(const std::string& yaml)
      : use(flow.parse("from: {generate: {count: 1}}\nsteps:\n  - " + yaml + "\nto: drop").steps.at(0)) {
    restart();
  }

  void restart() {
    const component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(),
                                    flow.pool.get_executor()};
    one = flow.components.step_of(use, context);
    std::vector<state_entry> entries;
    for (const auto& [key, value] : stored) entries.push_back({use.name, key, value});
    one->restore(entries);
  }

  void commit() {
    for (const state_change& change : one->changes()) {
      if (change.value)
        stored[change.key] = *change.value;
      else
        stored.erase(change.key);
    }
  }

  batch process(batch events) {
    one->process(events, out);
    return events;
  }

  // Ids are a, b, c ...; positions 1, 2, 3 ...
  static batch events_of(const texts& payloads, std::string_view content_type = "") {
    batch events;
    for (const std::string& payload : payloads) {
      event e;
      const auto count = events.size();
      e.id = events.keep(std::string(1, static_cast<char>('a' + count)));
      e.source = "/test";
      e.type = "made";
      e.key = "k";
      e.datacontenttype = content_type;
      e.data = events.keep(payload);
      e.time = from_micros(1'000'000);
      e.position = static_cast<std::int64_t>(count) + 1;
      events.events.push_back(e);
    }
    return events;
  }

  texts payloads(const texts& given, std::string_view content_type = "") {
    const batch left = process(events_of(given, content_type));
    texts found;
    for (const event& e : left.events) found.emplace_back(e.data);
    return found;
  }

  // Ids of what is left of events that are only ids.
  texts ids(const texts& given) {
    batch events;
    for (const std::string& id : given) {
      event e;
      e.id = events.keep(id);
      e.data = events.keep("{}");
      events.events.push_back(e);
    }
    const batch left = process(std::move(events));
    texts found;
    for (const event& e : left.events) found.emplace_back(e.id);
    commit();
    return found;
  }
};

std::int64_t now_us() { return to_micros(wall_now()); }
constexpr std::int64_t hour_us = 3'600'000'000;

}  // namespace

TEST_CASE("filter keeps order, drops, and buries what fails", "[steps]") {
  step_bench b("filter: event.total > 5");
  CHECK(b.payloads({"{\"total\":9}", "{\"total\":1}", "{\"total\":6.5}", "{\"total\":5}"}) ==
        texts{"{\"total\":9}", "{\"total\":6.5}"});
  CHECK(b.out.died.empty());
  CHECK(b.payloads({"{}", "{\"total\":7}", "{broken", "{\"total\":\"8\"}", "", "[]", "{\"total\":8}"}) ==
        texts{"{\"total\":7}", "{\"total\":8}"});
  REQUIRE(b.out.died.size() == 5);
  CHECK(b.out.died[0] == std::pair<std::string, std::string>("a", "attempt to compare number with nil"));
  CHECK(b.out.died[1].first == "c");
  CHECK_THAT(b.out.died[1].second, Contains("not valid JSON"));
  CHECK_THAT(b.out.died[2].second, Contains("compare number with string"));
  CHECK_THAT(b.out.died[3].second, Contains("nil"));
  CHECK(b.payloads({}).empty());
}

TEST_CASE("filter leaves the payload's bytes alone", "[steps]") {
  step_bench b("filter: event ~= nil");
  CHECK(b.payloads({" { \"a\" : 1.50 } ", "[1e2]"}) == texts{" { \"a\" : 1.50 } ", "[1e2]"});
  CHECK(b.payloads({"\xFF\xFE", "line"}, "text/plain") == texts{"\xFF\xFE", "line"});
  step_bench meta("filter: meta.position % 2 == 0");
  CHECK(meta.payloads({"1", "{broken", "3", "4"}) == texts{"{broken", "4"});
}

TEST_CASE("filter survives a hostile expression for the events after it", "[steps]") {
  step_bench b("filter: \"event.bad and (function() while true do end end)() or true\"");
  CHECK(b.payloads({"{}", "{\"bad\":true}", "{}"}) == texts{"{}", "{}"});
  REQUIRE(b.out.died.size() == 1);
  CHECK_THAT(b.out.died[0].second, Contains("instruction limit"));
}

TEST_CASE("map keeps the order written and the attributes", "[steps]") {
  step_bench b(
      "map: {z: event.id, a: event.total * 2, who: meta.id, \"a b\": 1, none: event.none, list: event.l}");
  const batch left = b.process(step_bench::events_of({"{\"id\":7,\"total\":1.25,\"l\":[1,{}]}"}));
  REQUIRE(left.size() == 1);
  CHECK(left.events[0].data == R"({"z":7,"a":2.5,"who":"a","a b":1,"none":null,"list":[1,{}]})");
  CHECK(left.events[0].id == "a");
  CHECK(left.events[0].position == 1);
  CHECK(left.events[0].key == "k");
  CHECK(left.events[0].type == "made");
}

TEST_CASE("map buries what fails and names the field", "[steps]") {
  step_bench b("map: {ok: event.a, sum: event.a + event.b}");
  CHECK(b.payloads({"{\"a\":1,\"b\":2}", "{\"a\":1}", "{", "{\"a\":2,\"b\":2}"}) ==
        texts{"{\"ok\":1,\"sum\":3}", "{\"ok\":2,\"sum\":4}"});
  REQUIRE(b.out.died.size() == 2);
  CHECK_THAT(b.out.died[0].second, StartsWith("sum: attempt to perform arithmetic"));
  CHECK(b.out.died[1].first == "c");
}

TEST_CASE("map makes JSON of what was not", "[steps]") {
  step_bench b("map: {line: event, size: \"#event\"}");
  const batch left = b.process(step_bench::events_of({"a \"b\"", "\xFF"}, "text/plain"));
  REQUIRE(left.size() == 1);
  CHECK(left.events[0].data == R"({"line":"a \"b\"","size":5})");
  CHECK(left.events[0].is_json());
  CHECK_THAT(b.out.died.at(0).second, Contains("UTF-8"));
}

TEST_CASE("a mapped payload can be parsed in place by the next step", "[steps]") {
  step_bench first("map: {a: event.a}");
  step_bench second("map: {b: event.a + 1}");
  texts payloads;
  for (int i = 0; i < 20; ++i) payloads.push_back("{\"a\":" + std::to_string(i) + "}");
  const batch left = second.process(first.process(step_bench::events_of(payloads)));
  for (std::size_t i = 0; i < 20; ++i) CHECK(left.events[i].data == "{\"b\":" + std::to_string(i + 1) + "}");
}

TEST_CASE("script changes, drops, multiplies and buries", "[steps]") {
  step_bench b(
      "script: |\n"
      "      if event.n == 0 then return nil end\n"
      "      if event.n < 0 then error('negative') end\n"
      "      for i = 2, event.n do emit({copy = i}) end\n"
      "      event.seen = true");
  const batch left = b.process(step_bench::events_of({"{\"n\":1}", "{\"n\":0}", "{\"n\":-1}", "{\"n\":3}"}));
  texts found;
  for (const event& e : left.events)
    found.push_back(std::string(e.id) + " " + std::to_string(e.position) + " " + std::string(e.data));
  CHECK(found == texts{"a 1 {\"n\":1,\"seen\":true}", "d-1 4 {\"copy\":2}", "d-2 4 {\"copy\":3}",
                       "d 4 {\"n\":3,\"seen\":true}"});
  REQUIRE(b.out.died.size() == 1);
  CHECK(b.out.died[0].first == "c");
  CHECK_THAT(b.out.died[0].second, Contains("negative"));
  CHECK(b.payloads({"not json", "{\"n\":1}"}) == texts{"{\"n\":1,\"seen\":true}"});
}

TEST_CASE("dedupe within a batch, across batches and across a restart", "[steps]") {
  step_bench b("dedupe: {}");
  CHECK(b.ids({"a", "b", "a", "c", "b"}) == texts{"a", "b", "c"});
  CHECK(b.out.duplicates == texts{"a", "b"});
  CHECK(b.ids({"c", "d"}) == texts{"d"});
  CHECK(b.stored.size() == 4);
  b.restart();
  CHECK(b.ids({"a", "d", "e"}) == texts{"e"});
  CHECK(b.out.died.empty());
  CHECK(b.one->changes().empty());
}

TEST_CASE("dedupe without the last commit passes the batch again", "[steps]") {
  step_bench b("dedupe: {}");
  b.ids({"a"});
  CHECK(b.process(step_bench::events_of({"1", "2", "3"})).size() ==
        2);  // a is known, b and c go on, no commit
  b.restart();
  CHECK(b.process(step_bench::events_of({"1", "2", "3"})).size() == 2);
  b.commit();
  b.restart();
  CHECK(b.process(step_bench::events_of({"1", "2", "3"})).size() == 0);
}

TEST_CASE("dedupe by an expression", "[steps]") {
  step_bench b("dedupe: {key: event.k}");
  CHECK(b.payloads({"{\"k\":1}", "{\"k\":\"1\"}", "{\"k\":null}", "{}", "{\"k\":null}", "{\"k\":\"\"}",
                    "{\"k\":\"\"}", "{\"k\":1.0}"}) == texts{"{\"k\":1}", "{\"k\":null}", "{}",
                                                             "{\"k\":null}", "{\"k\":\"\"}", "{\"k\":\"\"}",
                                                             "{\"k\":1.0}"});
  CHECK(b.payloads({"{\"k\":{}}", "{broken", "{\"k\":2}"}) == texts{"{\"k\":2}"});
  CHECK(b.out.died.size() == 2);
  step_bench shorter("dedupe: event.k");
  CHECK(shorter.payloads({"{\"k\":1}", "{\"k\":1}"}).size() == 1);
}

TEST_CASE("dedupe keys of any bytes", "[steps]") {
  step_bench b("dedupe: {key: event}");
  const std::string zero("a\0b", 3), zero2("a\0c", 3), large(100'000, 'x');
  const texts given{zero, zero2, zero, "\xFF\xFE", "\xFF\xFE", large, large};
  CHECK(b.payloads(given, "text/plain") == texts{zero, zero2, "\xFF\xFE", large});
  b.commit();
  b.restart();
  CHECK(b.payloads(given, "text/plain").empty());
}

TEST_CASE("dedupe forgets by time", "[steps]") {
  step_bench b("dedupe: {within: 2h}");
  b.stored = {{"old", std::to_string(now_us() - 2 * hour_us - 1)},
              {"young", std::to_string(now_us() - hour_us)},
              {"ahead", std::to_string(now_us() + hour_us)}};
  b.restart();
  CHECK(b.ids({"young", "old", "ahead", "old"}) == texts{"old"});
  CHECK(b.stored.size() == 3);
  b.stored["young"] = "0";
  b.stored["ahead"] = "0";
  b.restart();
  CHECK(b.ids({"x"}) == texts{"x"});
  CHECK(b.stored.count("young") == 0);
  CHECK(b.stored.count("old") == 1);
  CHECK(b.stored.size() == 2);
}

TEST_CASE("a duplicate does not prolong its key's time", "[steps]") {
  step_bench b("dedupe: {within: 1h}");
  const std::string seen = std::to_string(now_us() - hour_us / 2);
  b.stored = {{"a", seen}};
  b.restart();
  CHECK(b.ids({"a"}).empty());
  CHECK(b.stored.at("a") == seen);
}

TEST_CASE("dedupe forgets the oldest beyond max_keys", "[steps]") {
  step_bench b("dedupe: {max_keys: 3}");
  CHECK(b.ids({"a", "b", "c"}).size() == 3);
  CHECK(b.ids({"a", "d"}) == texts{"d"});
  CHECK(b.stored.size() == 3);
  CHECK(b.stored.count("a") == 0);
  CHECK(b.ids({"a", "b", "d"}) == texts{"a", "b"});
  CHECK(b.stored.size() == 3);
  // More in one batch than are kept: what is stored is what is known.
  texts many;
  for (int i = 0; i < 100; ++i) many.push_back("m" + std::to_string(i));
  CHECK(b.ids(many).size() == 100);
  CHECK(b.stored.size() == 3);
  b.restart();
  CHECK(b.ids({"m97", "m98", "m99"}).empty());
  CHECK(b.ids({"m96"}) == texts{"m96"});
}

TEST_CASE("dedupe takes over more than max_keys after the limit was lowered", "[steps]") {
  step_bench b("dedupe: {max_keys: 2}");
  b.stored = {{"a", std::to_string(now_us() - 3)},
              {"b", std::to_string(now_us() - 2)},
              {"c", std::to_string(now_us() - 1)}};
  b.restart();
  CHECK(b.ids({"d"}) == texts{"d"});
  CHECK(b.stored.size() == 2);
  CHECK(b.ids({"c", "d"}).empty());
}

TEST_CASE("dedupe says so when its state is damaged", "[steps]") {
  step_bench b("dedupe: {}");
  for (const char* value : {"", "x", "12x", "99999999999999999999"}) {
    b.stored = {{"a", value}};
    CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
  }
}

}  // namespace test_steps
