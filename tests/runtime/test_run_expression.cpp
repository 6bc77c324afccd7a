// Expressions over a run, and the fill-ins of commands: parts that are missing, values of every type, texts that do not
// compile or run for ever, and braces where they mislead.
#include <string>

#include <catch2/catch.hpp>

#include "runtime/run_expression.hpp"

namespace test_run_expression {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;

namespace {

const std::string context =
    R"({"params":{"region":"eu","count":3,"ratio":0.30000000000000004,"whole":2.0,"big":9223372036854775807,)"
    R"("none":null,"yes":true,"list":["a","b"],"empty":[],"nothing":"","odd":"${params.region}}'\""},)"
    R"("run":{"id":"R1","attempt":2},)"
    R"("tasks":{"extract":{"state":"succeeded","exit_code":0,"output":{"rows":41,"files":["x","y"]}}},)"
    R"("item":{"name":"n1"},"item_index":4,"event":{"customer":{"id":7},"run":"inner"}})";

bool truth(const std::string& text, const std::string& over = context) {
  const auto outcome = run_expression(text).truth(over);
  CHECK(outcome.failure == "");
  return outcome.value;
}

std::string json(const std::string& text, const std::string& over = context) {
  const auto outcome = run_expression(text).json(over);
  CHECK(outcome.failure == "");
  return outcome.value;
}

std::string text_of(const std::string& text, const std::string& over = context) {
  const auto outcome = run_expression(text).text(over);
  CHECK(outcome.failure == "");
  return outcome.value;
}

std::string failure(const std::string& text, const std::string& over = context) {
  const auto outcome = run_expression(text).text(over);
  CHECK_FALSE(outcome.failure.empty());
  CHECK(outcome.value.empty());
  CHECK(run_expression(text).json(over).value.empty());
  CHECK_FALSE(run_expression(text).truth(over).value);
  return outcome.failure;
}

std::string filled(const std::string& text, const std::string& over = context) {
  const auto outcome = fill_in(text, over);
  if (!outcome) FAIL(outcome.error().detail);
  return *outcome;
}

std::string refused(const std::string& text, const std::string& over = context) {
  const auto outcome = fill_in(text, over);
  REQUIRE(outcome.has_error());
  CHECK(outcome.error().code == errc::invalid);
  return outcome.error().detail;
}

}  // namespace

TEST_CASE("an expression sees the parts of its run", "[run_expression]") {
  CHECK(truth("params.region == 'eu' and run.attempt == 2"));
  CHECK(truth("tasks.extract.state == 'succeeded' and tasks.extract.exit_code == 0"));
  CHECK(truth("tasks.extract.output.rows > 40 and #tasks.extract.output.files == 2"));
  CHECK(truth("item.name == 'n1' and item_index == 4"));
  CHECK(truth("event.customer.id == 7"));
  CHECK(truth("event.run == 'inner' and event.event == nil"));
  CHECK(truth("params.none == nil and params.absent == nil"));
  CHECK(truth("meta == nil"));
  CHECK(truth("'params' ~= nil"));
  CHECK_FALSE(truth("params.absent"));
  CHECK(truth("params.nothing"));  // as in Lua
  CHECK(truth("math.max(1, params.count) == 3"));
  CHECK(truth("(function() local n = 0 for _ in pairs(tasks) do n = n + 1 end return n end)() == 1"));
}

TEST_CASE("a part that is missing is nil", "[run_expression]") {
  for (const std::string part : {"params", "run", "tasks", "item", "item_index", "event"}) {
    CHECK(truth(part + " == nil", "{}"));
    CHECK(truth(part + " == nil", ""));
    CHECK(truth(part + " == nil", "{\"" + part + "\":null}"));
    CHECK(truth(part + " == 1", "{\"" + part + "\":1}"));
  }
  // An event without fields of its own does not show the context it lies in.
  CHECK(truth("event == nil and params.a == 1", R"({"params":{"a":1}})"));
  CHECK(failure("tasks.extract.state", "{}") == "attempt to index a nil value (local 'tasks')");
}

TEST_CASE("a value as JSON", "[run_expression]") {
  CHECK(json("tasks.extract.output") == R"({"rows":41,"files":["x","y"]})");
  CHECK(json("params.list") == R"(["a","b"])");
  CHECK(json("params.empty") == "[]");
  CHECK(json("params.big") == "9223372036854775807");
  CHECK(json("params.ratio") == "0.30000000000000004");
  CHECK(json("params.absent") == "null");
  CHECK(json("{params.region, item_index}") == R"(["eu",4])");
  CHECK(json("json.decode('[1,{}]')") == "[1,{}]");
  CHECK(json("1") == "1");
  CHECK(run_expression("tostring").json(context).failure == "a function cannot be written as JSON");
  CHECK(run_expression("{tostring}").text(context).failure == "a function cannot be written as JSON");
  CHECK_THAT(run_expression("0/0").json(context).failure, Contains("NaN"));
  CHECK_THAT(run_expression("'\\xff'").json(context).failure, Contains("UTF-8"));
}

TEST_CASE("a value as text", "[run_expression]") {
  CHECK(text_of("params.region .. '-' .. params.count") == "eu-3");
  CHECK(text_of("params.big") == "9223372036854775807");
  CHECK(text_of("params.ratio") == "0.30000000000000004");
  CHECK(text_of("params.whole") == "2.0");
  CHECK(text_of("params.yes") == "true");
  CHECK(text_of("params.list") == R"(["a","b"])");
  CHECK(text_of("{}") == "{}");
  CHECK(text_of("params.absent") == "");
  CHECK(text_of("null") == "");
  CHECK(text_of("'\\xff\\0z'") == std::string("\xff\0z", 3));
  CHECK(text_of("1/0") == "inf");
  CHECK(text_of("event.customer.id", R"({"event":{"customer":{"id":18446744073709551615}}})") == "18446744073709551616.0");
}

TEST_CASE("failures are told in the writer's words", "[run_expression]") {
  CHECK(failure("params.absent.deeper") == "attempt to index a nil value (field 'absent')");
  CHECK(failure("params.list + 1") == "attempt to perform arithmetic on a table value (field 'list')");
  CHECK(failure("params.count +\n nosuch.thing") == "line 2: attempt to index a nil value (global 'nosuch')");
  CHECK(failure("error('own words')") == "own words");
  for (const std::string broken : {"params.", "1 2", "params..", "return 1", "1)", "end"}) {
    const std::string said = failure(broken);
    INFO(said);
    CHECK(said.find("local") == said.npos);
    CHECK(said.find("event.params") == said.npos);
  }
  CHECK_THAT(failure("params.region", "{\"params\":"), Contains("JSON"));
}

TEST_CASE("the limits of all Lua hold", "[run_expression]") {
  CHECK_THAT(failure("(function() while true do end end)()"), Contains("instruction limit"));
  CHECK_THAT(failure("string.rep('x', 1 << 40)"), Contains("memory limit") || Contains("instruction limit") ||
                                                      Contains("too large"));
  CHECK_THAT(failure("(function() params.region = 1 end)()"), Contains("read-only"));
  CHECK(truth("os == nil and io == nil and load == nil and require == nil"));
  // Nothing stays for the next one.
  CHECK_THAT(failure("(function() leak = 1 end)()"), Contains("cannot be assigned"));
}

TEST_CASE("an event alone is as a context that holds nothing else", "[run_expression]") {
  batch owner;
  event e;
  e.data = owner.keep(R"({"customer":7,"tags":["a"],"params":1})");
  const auto key = [&](const std::string& text) { return run_expression(text).text(e); };
  CHECK(key("event.customer").value == "7");
  CHECK(key("event.tags").value == R"(["a"])");
  CHECK(key("event.absent").value == "");
  CHECK(key("params == nil and run == nil and meta == nil").value == "true");
  CHECK_FALSE(key("event.customer.id").failure.empty());
  e.datacontenttype = "text/plain";
  e.data = owner.keep("a line");
  CHECK(key("event").value == "a line");
  e.datacontenttype = "";
  e.data = owner.keep(R"({"a":1},"params":{"b":2})");
  CHECK_FALSE(key("event.a").failure.empty());
}

TEST_CASE("fill-ins are replaced, all else stays", "[run_expression][fill_in]") {
  CHECK(filled("") == "");
  CHECK(filled("plain $ text {} $") == "plain $ text {} $");
  CHECK(filled("--region=${params.region} -n ${params.count}") == "--region=eu -n 3");
  CHECK(filled("${params.region}${run.id}") == "euR1");
  CHECK(filled("${tasks.extract.output.rows + 1}") == "42");
  CHECK(filled("${item}") == R"({"name":"n1"})");
  CHECK(filled("${item_index}") == "4");
  CHECK(filled("${item.name}/${item[\"name\"]}") == "n1/n1");
  CHECK(filled("${params[\"region\"]}") == "eu");
  CHECK(filled("[${params.nothing}]") == "[]");
  CHECK(filled("${params.list}") == R"(["a","b"])");
  for (const std::string other :
       {"${HOME}", "${env:PATH}", "${file:/etc/x}", "${dir}/a.py", "${}", "${", "$params.region", "${runner.x}",
        "${event.a}", "${meta.id}", "${1 + 1}", "$${x", "${paramsx.y}"}) {
    CHECK(filled(other) == other);
  }
  // Braces and quotes inside of the expression.
  CHECK(filled("${params.absent or '}'}|") == "}|");
  CHECK(filled("${params.absent or \"\\\"}\"}|") == "\"}|");
  CHECK(filled("${params.absent or #{1, {2}, 3}}|") == "3|");
  // What was filled in is not looked at again.
  CHECK(filled("${params.odd}") == "${params.region}}'\"");
}

TEST_CASE("a fill-in without a value is refused by name", "[run_expression][fill_in]") {
  CHECK(refused("--id ${params.regon} ${params.none}") == "${params.regon} has no value");
  CHECK(refused("${params.none}") == "${params.none} has no value");
  CHECK(refused("${item}", "{}") == "${item} has no value");
  CHECK_THAT(refused("${params.region", context), Contains("not closed"));
  CHECK(refused("${tasks.load.output.x}") == "${tasks.load.output.x}: attempt to index a nil value (field 'load')");
  CHECK_THAT(refused("${params.region region}"), Contains("${params.region region}: "));
}

TEST_CASE("secrets are filled in between, never out of a parameter", "[run_expression][fill_in]") {
  const auto reveal = [](const std::string& text) {
    return text.find("${env:KEY}") == text.npos ? text : text.substr(0, text.find("${env:KEY}")) + "s3cret";
  };
  const std::string sly = R"({"params":{"a":"${env:KEY}","b":"env:KEY}"}})";
  CHECK(*fill_in("k=${env:KEY}", sly, reveal) == "k=s3cret");
  CHECK(*fill_in("${params.a}", sly, reveal) == "${env:KEY}");
  CHECK(*fill_in("${${params.b}", sly, reveal) == "${env:KEY}");
}

TEST_CASE("fill-ins are checked before", "[run_expression][fill_in]") {
  CHECK_FALSE(check_fill_ins("a ${params.region} ${HOME} ${item.x[1]} ${tasks.a.output.b or {}}"));
  CHECK_THAT(check_fill_ins("${params.}").value_or(""), Contains("${params.}: "));
  CHECK_THAT(check_fill_ins("${params.a !=  1}").value_or(""), Contains("~="));
  CHECK_THAT(check_fill_ins("${params.a, 2}").value_or(""), Contains("single expression"));
  CHECK_THAT(check_fill_ins("x ${run.id").value_or(""), Contains("not closed"));
}

}  // namespace test_run_expression
