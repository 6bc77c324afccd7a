// `params` and `run` in the steps of runs. They come into a text as a Lua literal, so most of this is JSON that tries to
// end the literal early, to run code, or to come out changed.
#include <random>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/inputs.hpp"
#include "runtime/lua.hpp"
#include "runtime/lua_text.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_run_context {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using nlohmann::json;
using penstock::testing::flow_bench;
using penstock::testing::wait_for;

namespace {

struct sample {
  batch owner;
  event e;
  explicit sample(const std::string& data) {
    e.id = "id-1";
    e.data = owner.keep(data);
  }
};

const sample order(R"({"total":10,"params":"of the event","run":5})");

std::string text(const std::string& expression, const std::string& context) {
  const auto outcome = lua_expression(expression, &context).text_of(order.e);
  CHECK(outcome.failure == "");
  return outcome.value;
}

// {"x": EXPRESSION} as a mapping writes it.
json mapped(const std::string& expression, const std::string& context) {
  std::string out;
  const auto done = lua_mapping({{"x", expression}}, &context).apply(order.e, out);
  CHECK(done.failure == "");
  return json::parse(out).at("x");
}

std::string params_of(const json& params) { return json{{"params", params}}.dump(); }

// As Lua has it: fields that are null are absent.
json without_null_fields(const json& from) {
  if (!from.is_structured()) return from;
  json kept = from.is_array() ? json::array() : json::object();
  for (const auto& [key, value] : from.items()) {
    if (from.is_array())
      kept.push_back(without_null_fields(value));
    else if (!value.is_null())
      kept[key] = without_null_fields(value);
  }
  return kept;
}

class random_json {
 public:
  explicit random_json(unsigned seed) : random_(seed) {}

  json make(int depth) {
    const int kinds = depth == 0 ? 6 : 8;
    switch (pick(kinds)) {
      case 0: return nullptr;
      case 1: return pick(2) == 0;
      case 2: return static_cast<std::int64_t>(bits_()) >> pick(64);
      case 3: return std::ldexp(static_cast<double>(static_cast<std::int64_t>(bits_())), static_cast<int>(pick(400)) - 200);
      case 4:
      case 5: return string();
      case 6: {
        json list = json::array();
        for (auto n = pick(70); n > 0; --n) list.push_back(make(depth - 1));
        return list;
      }
      default: {
        json object = json::object();
        for (auto n = pick(6); n > 0; --n) object["k" + string()] = make(depth - 1);
        return object;
      }
    }
  }

  std::string string() {
    static const std::vector<std::string> bits{"\"", "\\", "\n", "\r", std::string(1, '\0'), "]]", "--", "'", "é", "\xF0\x9F\x98\x80",
                                               "1", "\\n", "${", "}", "end", "\x7f", "\t", "a", " ", "\xE2\x80\xA8"};
    std::string made;
    for (auto n = pick(6); n > 0; --n) made += bits[pick(bits.size())];
    return made;
  }

 private:
  std::size_t pick(std::size_t below) { return bits_() % below; }
  std::uint64_t bits_() { return random_(); }
  std::mt19937_64 random_;
};

}  // namespace

TEST_CASE("expressions, mappings and scripts see params and run", "[run_context]") {
  const std::string context = R"({"params":{"least":5,"name":"Zoë"},"run":{"id":"R1","attempt":2}})";
  CHECK(lua_expression("event.total > params.least", &context).truth(order.e).value);
  CHECK(text("params.name .. run.id .. run.attempt .. event.total", context) == "ZoëR1210");
  CHECK(mapped("{params, run.attempt + 1}", context) == json::parse(R"([{"least":5,"name":"Zoë"},3])"));
  const auto made = lua_script("event.least = params.least\nrun.id = 'mine'\nevent.run = run.id", &context).run(order.e);
  REQUIRE(made.failure == "");
  CHECK(json::parse(made.value.at(0)) == json::parse(R"({"total":10,"params":"of the event","run":"mine","least":5})"));
  // What a script does to them is gone at the next event.
  const lua_script twice("params.n = (params.n or 0) + 1 event.n = params.n", &context);
  for (int i = 0; i < 3; ++i) CHECK(json::parse(twice.run(order.e).value.at(0)).at("n") == 1);
}

TEST_CASE("in a flow params and run are nil", "[run_context]") {
  CHECK(lua_expression("params == nil and run == nil").truth(order.e).value);
  const std::string half = R"({"params":{"a":1}})", null = R"({"params":null,"run":null})";
  CHECK(text("params.a .. type(run)", half) == "1nil");
  CHECK(text("type(params) .. type(run)", null) == "nilnil");
}

TEST_CASE("a text that does not mention them is compiled as ever", "[run_context]") {
  const std::string context = R"({"params":{"a":1},"run":{"id":"R1"}})", broken = "{";
  CHECK(run_locals("event.total > 5", &context).empty());
  CHECK(run_locals("event.params == event.run and 'run' and x.params[1] and runner and params_2", &context).empty());
  CHECK(run_locals("params.a", nullptr).empty());
  CHECK(run_locals("'x'..params.a", &context) == R"(local params = {["a"]=1,} )");
  CHECK(run_locals("run.id", &context) == R"(local run = {["id"]="R1",} )");
  CHECK(run_locals("run.id == params.a", &context) == R"(local params, run = {["a"]=1,}, {["id"]="R1",} )");
  // Then the context is not even read.
  CHECK(lua_expression("event.total == 10", &broken).truth(order.e).value);
  CHECK_THROWS_WITH(lua_expression("params.a", &broken), Contains("parameters"));
  CHECK_THROWS_WITH(lua_script("event.a = run.id", &broken), Contains("parameters"));
  // Plain fields keep their short way, also beside a field that needs params.
  std::string out;
  CHECK(lua_mapping({{"a", "event.params"}, {"b", "params.a"}, {"c", "event.run"}}, &context).apply(order.e, out).failure == "");
  CHECK(out == R"({"a":"of the event","b":1,"c":5})");
}

TEST_CASE("line numbers stay those of the writer", "[run_context]") {
  const std::string context = params_of({{"text", "a\nb\r\nc"}, {"lines", {"\n", "\n\n"}}});
  CHECK(lua_script("event.a = params.text\n\nevent.b = nosuch.field", &context).run(order.e).failure ==
        "line 3: attempt to index a nil value (global 'nosuch')");
  CHECK(lua_expression("params.lines + 1", &context).truth(order.e).failure ==
        "attempt to perform arithmetic on a table value (field 'lines')");
  CHECK(lua_expression("params.text and\n nosuch.field", &context).truth(order.e).failure ==
        "line 2: attempt to index a nil value (global 'nosuch')");
  std::string out;
  CHECK(lua_mapping({{"a", "params.text"}, {"b", "params.x.y"}}, &context).apply(order.e, out).failure ==
        "b: attempt to index a nil value (field 'x')");
}

TEST_CASE("numbers stay what they are", "[run_context]") {
  const json numbers = json::parse(R"([9223372036854775807,-9223372036854775808,-9223372036854775807,0,-0.0,2.0,1e300,)"
                                   R"(5e-324,0.30000000000000004,-1.5,9007199254740993])");
  CHECK(mapped("params.n", params_of({{"n", numbers}})).dump() == numbers.dump());
  CHECK(text("math.type(params.n) .. (params.n == math.mininteger and ' smallest' or '')",
             R"({"params":{"n":-9223372036854775808}})") == "integer smallest");
  CHECK(text("math.type(params.n) .. params.n", R"({"params":{"n":18446744073709551615}})") == "float1.844674407371e+19");
}

TEST_CASE("null, empty and repeated fields", "[run_context]") {
  const std::string context =
      R"({"params":{"a":null,"list":[1,null,3],"rows":[[null],[],{}],"empty":[],"object":{},"same":1,"same":2,"z":[null]}})";
  CHECK(text("tostring(params.a) .. #params.list .. tostring(params.list[2]) .. params.same", context) == "nil3null1");
  CHECK(mapped("params", context) ==
        json::parse(R"({"list":[1,null,3],"rows":[[null],[],{}],"empty":[],"object":{},"same":1,"z":[null]})"));
}

TEST_CASE("no string ends the literal", "[run_context]") {
  for (const std::string& hostile :
       {std::string("\"} error('out') --"), std::string("]] error('out') --[["), std::string("\\"), std::string("\\\""),
        std::string("\n error('out')"), std::string("\r\n"), std::string("a\0b", 3), std::string("\0" "1", 2),
        std::string("\\0\\z\\x41\\u{41}"), std::string("'\"]]\\\n\r\0", 9), std::string("\x1b[2J\x7f"), std::string("${env:KEY}"),
        std::string(100'000, '"')}) {
    const json params{{"s", hostile}, {hostile, "as a name"}, {"list", {hostile, {hostile}}}};
    CHECK(mapped("params", params_of(params)) == params);
    CHECK(text("params.s", params_of(params)) == hostile);
  }
}

TEST_CASE("whatever the JSON, it comes out as it went in", "[run_context]") {
  random_json random(20'240'607);
  for (int i = 0; i < 400; ++i) {
    const json params = {{"v", random.make(3)}};
    INFO(params.dump());
    const std::string context = params_of(params);
    CHECK(mapped("{params}", context)[0].dump() == without_null_fields(params).dump());
  }
}

TEST_CASE("nested as deep as JSON may be, and deeper", "[run_context]") {
  const auto nested = [](int depth, const std::string& open, const std::string& close) {
    std::string made = R"({"params":{"v":)";
    for (int i = 0; i < depth; ++i) made += open;
    made += "1";
    for (int i = 0; i < depth; ++i) made += close;
    return made + "}}";
  };
  for (const auto& [open, close] : std::vector<std::pair<std::string, std::string>>{
           {"[", "]"}, {R"({"a":)", "}"}, {R"([1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,)", "]"}}) {
    CHECK(mapped("params.v", nested(62, open, close)) == json::parse(nested(62, open, close))["params"]["v"]);
    const std::string deep = nested(100, open, close);
    CHECK_THROWS_WITH(lua_expression("params.v", &deep), Contains("parameters"));
  }
}

TEST_CASE("large parameters count against the limits of a call", "[run_context]") {
  json list = json::array();
  for (int i = 0; i < 20'000; ++i) list.push_back("item " + std::to_string(i));
  CHECK(text("#params.list .. params.list[20000]", params_of({{"list", list}})) == "20000item 19999");
  for (int i = 0; i < 600'000; ++i) list.push_back(i);
  const std::string context = params_of({{"list", list}});
  CHECK_THAT(lua_expression("#params.list", &context).truth(order.e).failure, Contains("limit"));
  CHECK(lua_expression("event.total == 10", &context).truth(order.e).value);
}

TEST_CASE("steps of a run see its parameters, those of a flow see none", "[run_context][dataflow]") {
  flow_bench b;
  b.append("in", {R"({"id":1,"n":1})", R"({"id":2,"n":7})", R"({"id":3,"n":8})", R"({"id":4,"n":9})"});
  b.topic("out");
  topic_claim claim(b.topic("in"), 0, 4, false);
  const auto execute = [&](const std::string& consumer, std::shared_ptr<const std::string> run_context) {
    const asio::any_io_executor strand = asio::make_strand(b.pool.get_executor());
    dataflow_options options;
    options.pipeline = "test";
    options.consumer = consumer;
    options.workdir = b.dir.path();
    options.definition = b.shared(
        "from: {generate: {count: 1}}\n"
        "steps:\n"
        "  - filter: event.n >= (params and params.least or 0)\n"
        "  - dedupe: params and event.n // params.per or event.n\n"
        "  - script: event.by = run and run.id\n"
        "  - map: {n: event.n, by: event.by, note: params and params.note}\n"
        "to: {topic: out}");
    options.input = claim.make_source(strand);
    options.run_context = std::move(run_context);
    dataflow_run run(strand, b.components, b.offered, std::move(options));
    CHECK(wait_for(b.pool, run.run()).reason == "");
  };
  execute("test/flow/f", nullptr);
  REQUIRE(b.content("out").size() == 4);
  CHECK(json::parse(b.content("out")[0]) == json::parse(R"({"n":1,"by":null,"note":null})"));

  execute("test/run/R1/load", std::make_shared<const std::string>(
                                  R"({"params":{"least":7,"per":4,"note":"a \"b\"\n"},"run":{"id":"R1"}})"));
  const auto made = b.content("out");
  REQUIRE(made.size() == 6);  // 7 alone, 8 and 9 are the same
  CHECK(json::parse(made[4]) == json::parse(R"({"n":7,"by":"R1","note":"a \"b\"\n"})"));
  CHECK(json::parse(made[5]).at("n") == 8);
}

}  // namespace test_run_context
