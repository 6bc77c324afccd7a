#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "config/node.hpp"
#include "config/scalar.hpp"

namespace penstock::config {
namespace {

node read(const std::string& text) {
  INFO(text);
  auto out = parse_document(text);
  if (!out) FAIL(out.error().detail);
  return *out;
}

std::string as_json(const std::string& yaml) { return json_of(read(yaml)).dump(); }

error refused(const std::string& text, const node_limits& limits = {}) {
  const auto out = parse_document(text, limits);
  REQUIRE_FALSE(out.has_value());
  const error e = out.error();
  CHECK(e.code == errc::malformed);
  REQUIRE(e.problems.size() >= 1);
  return e;
}

std::string repeated(const std::string& part, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += part;
  return out;
}

}  // namespace

TEST_CASE("unquoted scalars follow YAML 1.2, quoted ones are text", "[config][node]") {
  CHECK(as_json("[1, -7, +3, 0x1F, 0o17, 007, 1.5, .5, 1e3, -2.5E-1]") ==
        "[1,-7,3,31,15,7,1.5,0.5,1000.0,-0.25]");
  CHECK(as_json("[true, false, null, ~, yes, no, on, True, NO]")
            .find("\"yes\",\"no\",\"on\",\"True\",\"NO\"]") != std::string::npos);
  CHECK(as_json("['1', \"true\", \"null\", '~', !!str 5]") == R"(["1","true","null","~","5"])");
  CHECK(
      as_json("[1_000, 1:30, 0b1, .inf, .nan, nan, inf, +-1, -+1, 0x-1, 1e999, 2018-02-07, 1., --]") ==
      R"(["1_000","1:30","0b1",".inf",".nan","nan","inf","+-1","-+1","0x-1","1e999","2018-02-07",1.0,"--"])");
  CHECK(as_json("[9223372036854775807, 9223372036854775808]") ==
        "[9223372036854775807,9.223372036854776e+18]");
  CHECK(as_json("a: |\n  one\n  two\nb: >\n  one\n  two\n") == R"({"a":"one\ntwo\n","b":"one two\n"})");
  CHECK(as_json("|\n  5\n") == R"("5\n")");
}

TEST_CASE("every node knows where it stands", "[config][node]") {
  const node root = read("a: 1\nb:\n  - x\n  - {c: 'é', d: \"y\"}\n");
  CHECK(root.at == mark{1, 1});
  CHECK(root.fields[0].value.at == mark{1, 4});
  CHECK(root.fields[1].at == mark{2, 1});
  CHECK(root.find("b")->items[0].at == mark{3, 5});
  const node& inner = root.find("b")->items[1];
  CHECK(inner.at == mark{4, 5});
  CHECK(inner.fields[0].value.at == mark{4, 9});
  CHECK(inner.fields[1].at == mark{4, 14});
  CHECK(inner.fields[1].value.at == mark{4, 17});
  CHECK(root.find("nothing") == nullptr);
}

TEST_CASE("line ends, a byte order mark and an explicit document change nothing", "[config][node]") {
  CHECK(as_json("a: 1\r\nb: 2\r\n") == R"({"a":1,"b":2})");
  CHECK(read("a: 1\r\nb: 2\r\n").fields[1].value.at == mark{2, 4});
  CHECK(read("\xEF\xBB\xBF"
             "a: 1")
            .fields[0]
            .value.at == mark{1, 4});
  CHECK(as_json("%YAML 1.2\n---\na: 1\n...\n") == R"({"a":1})");
  CHECK(as_json("") == "null");
}

TEST_CASE("JSON is read as JSON", "[config][node]") {
  CHECK(as_json(R"({"a":"b","c":[1,-2.5e3,true,null,{}],"d":{"e":[]}})") ==
        R"({"a":"b","c":[1,-2500.0,true,null,{}],"d":{"e":[]}})");
  CHECK(as_json(R"({"a":"\ud83d\ude00 \u00e9 \/ \\ \" \b\f\n\r\t"})") ==
        nlohmann::ordered_json::parse(R"({"a":"\ud83d\ude00 \u00e9 \/ \\ \" \b\f\n\r\t"})").dump());
  CHECK(as_json(R"(["\\ud83d\\ude00", "\\\ud83d\ude00"])") ==
        nlohmann::ordered_json::parse(R"(["\\ud83d\\ude00", "\\\ud83d\ude00"])").dump());
  CHECK(as_json("{\n\t\"a\": [\n\t\t1,\n\t\t2\n\t]\n}") == R"({"a":[1,2]})");
  CHECK(as_json(R"({"":"", "a b":": # - {", "https://x/":"y: z"})") ==
        R"({"":"","a b":": # - {","https://x/":"y: z"})");
  CHECK(as_json(R"({"zero":"\u0000"})") == R"({"zero":"\u0000"})");
  const node pair = read(R"({"\ud83d\ude00": "\uD83D\uDE00", "b": 1})");
  CHECK(pair.fields[0].key == "😀");
  CHECK(pair.fields[0].value.text == "😀");
  CHECK(pair.fields[1].value.at == mark{1, 39});
  refused(R"({"a":"\ud83d"})");
}

TEST_CASE("an unquoted reading of braces is still YAML", "[config][node]") {
  CHECK(as_json("{a: 'it''s', b: [x, y]}") == R"({"a":"it's","b":["x","y"]})");
  CHECK(as_json("{a: '\\ud83d\\ude00'}") == R"({"a":"\\ud83d\\ude00"})");
}

TEST_CASE("aliases repeat what they name, where they stand", "[config][node]") {
  CHECK(as_json("a: &x [1, {b: 2}]\nc: *x\nd: [*x]\n") ==
        R"({"a":[1,{"b":2}],"c":[1,{"b":2}],"d":[[1,{"b":2}]]})");
  const node root = read("a: &x {b: 2}\nc: *x\n");
  CHECK(root.find("c")->at == mark{2, 4});
  CHECK(root.find("c")->fields[0].at == mark{1, 8});
  CHECK(as_json("a: &x 1\nb: &x 2\nc: *x\n") == R"({"a":1,"b":2,"c":2})");
}

TEST_CASE("anchors that contain themselves are refused", "[config][node]") {
  CHECK_THAT(refused("a: &x [1, *x]\n").detail,
             Catch::Matchers::Contains("stands inside the value it names"));
  CHECK_THAT(refused("&x {a: {b: *x}}\n").detail, Catch::Matchers::Contains("stands inside"));
  CHECK(refused("a: &x [1, *x]\n").problems.front().pointer == "/a/1");
  CHECK(refused("a: &x [1, *x]\n").problems.front().column == 11);
}

TEST_CASE("aliases cannot make a small text large", "[config][node]") {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 20; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + repeated(before + ", ", 9) +
            before + "]\n";
  }
  CHECK_THAT(refused(bomb).detail, Catch::Matchers::Contains("aliases expanded"));

  const std::string long_text =
      "a: &a " + std::string(200'000, 'x') + "\nb: [" + repeated("*a, ", 5'000) + "*a]\n";
  CHECK_THAT(refused(long_text).detail, Catch::Matchers::Contains("bytes of text"));

  std::string deep = "a0: &a0 [x]\n";
  for (int i = 1; i < 100; ++i) {
    deep += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + "]\n";
  }
  CHECK_THAT(refused(deep).detail, Catch::Matchers::Contains("levels deep"));
}

TEST_CASE("deep nesting is refused before anything recurses", "[config][node]") {
  for (const std::string part :
       {"[", "- ", "{a: ", "? ", "[[", "{", "{{", "[{", "!!seq [", "- [", "&a [", "? - "}) {
    INFO(part);
    refused(repeated(part, 100'000));
  }
  refused(repeated("[", 1 << 20));
  refused(repeated("a: [", 200'000) + repeated("]", 200'000));
  std::string indented;
  for (int i = 0; i < 1'000; ++i) indented += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  refused(indented);
  const node_limits shallow{.depth = 3};
  CHECK(parse_document("[[[1]]]", shallow).has_value());
  CHECK_THAT(refused("[[[[1]]]]", shallow).detail, Catch::Matchers::Contains("more than 3 levels"));
}

TEST_CASE("a document has limits", "[config][node]") {
  CHECK_THAT(refused(std::string((1 << 20) + 1, ' ')).detail,
             Catch::Matchers::Contains("the limit is 1048576"));
  CHECK_THAT(refused("[" + repeated("1,", 100'001) + "]").detail,
             Catch::Matchers::Contains("more than 100000 values"));
  CHECK_FALSE(parse_document("a: [1, 2]", {.nodes = 4}).has_value());
  CHECK(parse_document("a: [1, 2]", {.nodes = 5}).has_value());
}

TEST_CASE("large documents on one line take no quadratic time", "[config][node]") {
  std::string json = "{";
  for (int i = 0; i < 45'000; ++i) json += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":\"é\"";
  CHECK(read(json + "}").fields.size() == 45'000);
  CHECK(read("[" + repeated("~,", 90'000) + "]").items.size() == 90'000);
}

TEST_CASE("characters that cannot be are refused with their place", "[config][node]") {
  CHECK(refused(std::string("a: b\nc: \0d", 10)).problems.front() ==
        problem{"", 2, 4, "a control character stands here"});
  for (const char* bytes : {"\xff", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                            "\xf8\x88\x80\x80\x80", "\x80", "\xe2\x82", "\xf0\x9f\x98"}) {
    CHECK(refused(std::string("é: ") + bytes).problems.front() ==
          problem{"", 1, 4, "the text is not valid UTF-8"});
  }
  CHECK(read("a: \xf4\x8f\xbf\xbf").fields.size() == 1);
}

TEST_CASE("problems that do not stop the reading are kept beside the tree", "[config][node]") {
  const auto out = read_document("a: 1\na: 2\nb: !x 3\n? [k]\n: 4\nc: {d: 1, d: 2}\n");
  REQUIRE(out.has_value());
  REQUIRE(out->problems.size() == 4);
  CHECK(out->problems[0].pointer == "/a");
  CHECK(out->problems[1].pointer == "/b");
  CHECK(out->problems[2].line == 4);
  CHECK(out->problems[3].pointer == "/c/d");
  CHECK(out->root.find("a")->text == "1");
  CHECK(out->root.fields.size() == 3);
}

}  // namespace penstock::config
