// Intake and output of events as JSON. The inputs are mostly hostile: cut off, too deep, not UTF-8, with the
// wrong ends.
#include <memory>
#include <set>
#include <string>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/json.hpp"
#include "runtime/ulid.hpp"

namespace test_json {

using namespace penstock;
using namespace penstock::runtime;
using namespace std::string_literals;

namespace {

const timestamp received = from_micros(1'517'365'101'235'000);
const event_defaults defaults{"/topics/orders", "event", received};

result<batch> read(std::string body, intake_format format, const intake_limits& limits = {}) {
  return read_events(std::make_shared<const buffer>(std::move(body)), format, defaults, limits);
}

std::vector<std::string> payloads(std::string body, intake_format format, const intake_limits& limits = {}) {
  result<batch> events = read(std::move(body), format, limits);
  INFO((events ? "" : events.error().detail));
  REQUIRE(events.has_value());
  std::vector<std::string> found;
  for (const event& e : events->events) found.emplace_back(e.data);
  return found;
}

error refused(std::string body, intake_format format, const intake_limits& limits = {}) {
  const result<batch> events = read(std::move(body), format, limits);
  REQUIRE_FALSE(events.has_value());
  return events.error();
}

std::string refused_text(std::string body, intake_format format, const intake_limits& limits = {}) {
  const error wrong = refused(std::move(body), format, limits);
  CHECK(wrong.code == errc::malformed);
  return wrong.detail;
}

std::string nested(int depth) {
  const auto count = static_cast<std::size_t>(depth);
  return std::string(count, '[') + "1" + std::string(count, ']');
}

using texts = std::vector<std::string>;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
constexpr intake_format json = intake_format::json, ndjson = intake_format::ndjson,
                        cloudevent = intake_format::cloudevent,
                        cloudevents = intake_format::cloudevents_batch;

event event_with(batch& owner, std::string_view data, std::string_view type = "") {
  event e;
  e.id = "1";
  e.source = "/s";
  e.type = "t";
  e.data = owner.keep(data);
  e.datacontenttype = type;
  e.time = received;
  return e;
}

std::string ndjson_of(std::string_view data, std::string_view type = "") {
  batch owner;
  std::string out;
  append_ndjson(out, event_with(owner, data, type));
  return out;
}

nlohmann::json cloudevent_of(const event& e) {
  std::string out;
  append_cloudevent(out, e);
  CHECK(out.find('\n') == std::string::npos);
  return nlohmann::json::parse(out);
}

}  // namespace

TEST_CASE("ndjson: one event a line, blank lines and any line end", "[json]") {
  CHECK(payloads("{\"a\":1}\n{\"a\":2}\n", ndjson) == texts{"{\"a\":1}", "{\"a\":2}"});
  CHECK(payloads("{\"a\":1}\r\n\r\n   \n\t{\"a\":2} \r\n\n3", ndjson) ==
        texts{"{\"a\":1}", "{\"a\":2}", "3"});
  CHECK(payloads("[1,2]\n\"x\"\nnull\ntrue\n-0.5e3", ndjson) ==
        texts{"[1,2]", "\"x\"", "null", "true", "-0.5e3"});
  CHECK(payloads("{\"a\":1,\"a\":2}", ndjson) == texts{"{\"a\":1,\"a\":2}"});
  CHECK(payloads("{}", ndjson) == texts{"{}"});
}

TEST_CASE("ndjson: events get ids, times and defaults", "[json]") {
  const result<batch> events = read("{}\n{}\n{}\n", ndjson);
  REQUIRE(events.has_value());
  std::set<std::string> ids;
  std::string before;
  for (const event& e : events->events) {
    CHECK(is_ulid(e.id));
    CHECK(std::string(e.id) > before);
    before = e.id;
    ids.emplace(e.id);
    CHECK(e.source == "/topics/orders");
    CHECK(e.type == "event");
    CHECK(e.time == received);
    CHECK(e.is_json());
    CHECK(e.position == 0);
  }
  CHECK(ids.size() == 3);
}

TEST_CASE("ndjson: what is malformed is named by line and column", "[json]") {
  CHECK_THAT(refused_text("{}\n{\"a\":1\n{}", ndjson), StartsWith("line 2, column 7: "));
  CHECK_THAT(refused_text("{}\n\n  {\"a\" 1}\n", ndjson), StartsWith("line 3, column 8: "));
  CHECK_THAT(refused_text("{}\n{} x\n", ndjson), StartsWith("line 2, column 4: "));
  CHECK_THAT(refused_text("{}{}\n", ndjson), StartsWith("line 1, column 3: "));
  CHECK_THAT(refused_text("{\"a\":tru}", ndjson), StartsWith("line 1, column 9: "));
  const error wrong = refused("{}\n{\"a\":1\n", ndjson);
  REQUIRE(wrong.problems.size() == 1);
  CHECK(wrong.problems[0].line == 2);
  CHECK(wrong.problems[0].column == 7);
}

TEST_CASE("json that nobody should take", "[json]") {
  const std::string bad[] = {"{",         "}",           "[1,",        "[1,]",      "[,1]",
                             "[1 2]",     "[1}",         "{]",         "{\"a\"}",   "{a:1}",
                             "'a'",       "{\"a\":}",    "{\"a\":1,}", "nul",       "NaN",
                             "Infinity",  "1e999",       "-1e999",     "01",        "1.",
                             ".5",        "+1",          "0x10",       "\"a",       "\"\\x\"",
                             "\"\\u12\"", "\"\\ud800\"", "[\"\\",      "\"\t\"",    "{\"a\":1}}",
                             "[[1]",      "[1]]",        "[1],",       "[1] 2",     "[\"]",
                             "{\"a\":1]", "\x01",        "//x\n1",     "[1,/**/2]", "18446744073709551616"};
  for (const std::string& text : bad) {
    INFO(text);
    CHECK_FALSE(refused_text(text, json).empty());
    if (text.find('\n') == std::string::npos)
      CHECK_THAT(refused_text("{}\n" + text, ndjson), StartsWith("line 2"));
    CHECK_THAT(refused_text("[{}," + text + "]", json), Contains("item"));
    CHECK_FALSE(check_json(buffer(text).text()).empty());
  }
}

TEST_CASE("json: each cut of a body is refused or is whole", "[json]") {
  const std::string whole = "[{\"a\":[1,{\"b\":\"]}\\\"\"}]} , \"x\\\\\" ,-1.5e+3,true]";
  CHECK(payloads(whole, json) == texts{"{\"a\":[1,{\"b\":\"]}\\\"\"}]}", "\"x\\\\\"", "-1.5e+3", "true"});
  for (std::size_t length = 0; length < whole.size(); ++length) {
    INFO(length);
    CHECK_FALSE(read(whole.substr(0, length), json).has_value());
  }
}

TEST_CASE("json: an object is one event, an array is many", "[json]") {
  CHECK(payloads(" {\"a\":\n1} \n", json) == texts{"{\"a\":\n1}"});
  CHECK(payloads("[{\"a\":[1]},2,\"x,]\", [3] ]", json) == texts{"{\"a\":[1]}", "2", "\"x,]\"", "[3]"});
  CHECK(payloads("5", json) == texts{"5"});
  CHECK_THAT(refused_text("[{},{\"a\":},3]", json), StartsWith("item 2, line 1, column 10: "));
  CHECK_THAT(refused_text("[{},\n {\"a\":}]", json), StartsWith("item 2, line 2, column 7: "));
  CHECK_THAT(refused_text("{\n \"a\" 1}", json), StartsWith("line 2, column 6: "));
  CHECK(refused("[{},{]", json).problems.at(0).pointer == "/1");
}

TEST_CASE("nothing to read is not success", "[json]") {
  for (const intake_format format : {json, ndjson, cloudevent, cloudevents}) {
    CHECK(refused_text("", format) == "no events");
    CHECK(refused_text(" \r\n\t\n ", format) == "no events");
  }
  CHECK(refused_text("[]", json) == "no events");
  CHECK(refused_text(" [ ] ", cloudevents) == "no events");
  CHECK_THAT(refused_text("[] x", json), Contains("follows"));
}

TEST_CASE("byte order mark, NUL, and what is not UTF-8", "[json]") {
  CHECK_THAT(refused_text("\xEF\xBB\xBF{}", ndjson), Contains("byte order mark"));
  CHECK_THAT(refused_text("{}\n\xEF\xBB\xBF{}", ndjson), Contains("line 2") && Contains("byte order mark"));
  CHECK_THAT(refused_text("{}\n{}\0"s, ndjson), Contains("line 2") && Contains("NUL"));
  CHECK_THAT(refused_text("\0"s, json), Contains("NUL"));
  CHECK_THAT(refused_text("\"a\0b\""s, json), Contains("control character"));
  CHECK_THAT(refused_text("[1,\0]"s, json), Contains("item 2"));
  CHECK_THAT(refused_text("{\"a\":\"\xFF\"}", ndjson), StartsWith("line 1") && Contains("UTF-8"));
  CHECK_THAT(refused_text("\"\xC0\x80\"", json), Contains("UTF-8"));
  CHECK_THAT(refused_text("\"\xED\xA0\x80\"", json), Contains("UTF-8"));
  CHECK_THAT(refused_text("\"\xE2\x82", ndjson), Contains("line 1"));
  CHECK(payloads("\"a\\u0000b\"", json) == texts{"\"a\\u0000b\""});
}

TEST_CASE("depth is limited exactly", "[json]") {
  CHECK(payloads(nested(64), ndjson).size() == 1);
  CHECK_THAT(refused_text(nested(65), ndjson), Contains("64 deep"));
  CHECK_THAT(refused_text("{}\n" + nested(100'000), ndjson), StartsWith("line 2: ") && Contains("deep"));
  CHECK_THAT(refused_text("[" + std::string(500'000, '['), json), StartsWith("item 1"));
  CHECK(payloads(nested(3), ndjson, {.depth = 3}).size() == 1);
  CHECK_FALSE(read(nested(4), ndjson, {.depth = 3}).has_value());
  CHECK(payloads(nested(4), ndjson, {.depth = 4}).size() == 1);
  CHECK(check_json(buffer(nested(64)).text()).empty());
  CHECK_FALSE(check_json(buffer(nested(65)).text()).empty());
}

TEST_CASE("numbers keep their text", "[json]") {
  const texts numbers{"9223372036854775807", "-9223372036854775808", "18446744073709551615", "0.1", "1E400"};
  CHECK(payloads("9223372036854775807\n-9223372036854775808\n18446744073709551615\n0.1", ndjson) ==
        texts(numbers.begin(), numbers.end() - 1));
  CHECK_THAT(refused_text("{\"n\":123456789012345678901234567890}", ndjson), Contains("out of range"));
}

TEST_CASE("limits on size and number", "[json]") {
  const std::string big = "\"" + std::string(98, 'x') + "\"";
  CHECK(payloads(big, ndjson, {.event_bytes = 100}).size() == 1);
  const error too_large = refused("{}\n" + big, ndjson, {.event_bytes = 99});
  CHECK(too_large.code == errc::too_large);
  CHECK_THAT(too_large.detail, StartsWith("line 2: ") && Contains("100 bytes"));
  CHECK(refused("[" + big + "]", json, {.event_bytes = 99}).code == errc::too_large);
  CHECK(payloads("1\n2", ndjson, {.events = 2}).size() == 2);
  CHECK(refused("1\n2\n3", ndjson, {.events = 2}).code == errc::too_large);
  CHECK(refused("[1,2,3]", json, {.events = 2}).code == errc::too_large);
}

TEST_CASE("a large event between small ones, and the parser afterwards", "[json]") {
  const std::string large = "{\"x\":\"" + std::string(900'000, 'y') + "\"}";
  CHECK(payloads("{\"a\":1}\n" + large + "\n{\"a\":2}", ndjson) == texts{"{\"a\":1}", large, "{\"a\":2}"});
  CHECK(payloads("{\"a\":3}", ndjson) == texts{"{\"a\":3}"});
}

TEST_CASE("payloads lie in the body and have their padding", "[json]") {
  auto body = std::make_shared<const buffer>("{\"a\":1}\n{\"a\":2}");
  const std::string_view text = body->text();
  std::weak_ptr<const buffer> watch = body;
  result<batch> events = read_events(std::move(body), ndjson, defaults);
  REQUIRE(events.has_value());
  CHECK(events->events[1].data.data() == text.data() + 8);
  CHECK_FALSE(watch.expired());
  *events = batch();
  CHECK(watch.expired());
}

TEST_CASE("cloudevents: structured", "[json]") {
  const result<batch> events = read(
      R"( {"specversion":"1.0","id":"A-1","source":"/shop","type":"order.made","subject":"s\u00e9",
          "time":"2018-01-31T02:18:21.235+01:00","datacontenttype":"application/json","partitionkey":"k1",
          "traceparent":"00-1","n":{"data":0},"data" : {"a": [1, 2 ], "data":"}"} , "x":1} )",
      cloudevent);
  REQUIRE(events.has_value());
  REQUIRE(events->size() == 1);
  const event& e = events->events[0];
  CHECK(e.id == "A-1");
  CHECK(e.source == "/shop");
  CHECK(e.type == "order.made");
  CHECK(e.subject == "s\xC3\xA9");
  CHECK(e.key == "k1");
  CHECK(format_time(e.time) == "2018-01-31T01:18:21.235000Z");
  CHECK(e.data == "{\"a\": [1, 2 ], \"data\":\"}\"}");
}

TEST_CASE("cloudevents: the forms of data", "[json]") {
  const auto one = [](const std::string& members) {
    result<batch> events =
        read(R"({"specversion":"1.0","id":"1","source":"s","type":"t")" + members + "}", cloudevent);
    INFO((events ? "" : events.error().detail));
    REQUIRE(events.has_value());
    CHECK(events->events[0].time == received);
    return std::move(*events);
  };
  CHECK(one("").events[0].data.empty());
  CHECK(one(R"(,"data":null)").events[0].data == "null");
  CHECK(one(R"(,"data":"x")").events[0].data == "\"x\"");
  CHECK(one(R"(,"d\u0061ta":[1])").events[0].data == "[1]");
  CHECK(one(R"(,"subject":null,"data":1)").events[0].subject.empty());
  CHECK(one(R"(,"datacontenttype":"text/plain","data":"a\nb")").events[0].data == "a\nb");
  CHECK(one(R"(,"datacontenttype":"text/plain","data":"")").events[0].data.empty());
  CHECK(one(R"(,"datacontenttype":"text/xml","data":{"a":1})").events[0].data == "{\"a\":1}");
  CHECK(one(R"(,"datacontenttype":"image/png","data_base64":"/wD+")").events[0].data == "\xFF\x00\xFE"s);
  CHECK(one(R"(,"datacontenttype":"image/png","data_base64":"/wA=")").events[0].data == "\xFF\x00"s);
  CHECK(one(R"(,"datacontenttype":"image/png","data_base64":"/w")").events[0].data == "\xFF"s);
  CHECK(one(R"(,"datacontenttype":"image/png","data_base64":"")").events[0].data.empty());
  CHECK(one(R"(,"data_base64":"eyJhIjoxfQ==")").events[0].data == "{\"a\":1}");
}

TEST_CASE("cloudevents: what is refused", "[json]") {
  const auto wrong = [](const std::string& text) { return refused_text(text, cloudevent); };
  const std::string head = R"({"specversion":"1.0","id":"1","source":"s","type":"t")";
  CHECK_THAT(wrong("[]"), Contains("object"));
  CHECK_THAT(wrong("5"), Contains("object"));
  CHECK_THAT(wrong(R"({"specversion":"1.0","source":"s","type":"t"})"), Contains("'id'"));
  CHECK_THAT(wrong(R"({"specversion":"1.0","id":"","source":"s","type":"t"})"), Contains("'id'"));
  CHECK_THAT(wrong(R"({"specversion":"1.0","id":1,"source":"s","type":"t"})"),
             Contains("'id' must be a string"));
  CHECK_THAT(wrong(R"({"specversion":"0.3","id":"1","source":"s","type":"t"})"), Contains("1.0"));
  CHECK_THAT(wrong(R"({"id":"1","source":"s","type":"t"})"), Contains("specversion"));
  CHECK_THAT(wrong(head + R"(,"time":"yesterday"})"), Contains("RFC 3339"));
  CHECK_THAT(wrong(head + R"(,"subject":"a\nb"})"), Contains("control character"));
  CHECK_THAT(wrong(head + R"(,"data":1,"data_base64":"AA=="})"), Contains("both"));
  for (const char* text : {"A", "A===", "AA=A", "A A=", "AAAA=", "AA%="}) {
    INFO(text);
    CHECK_THAT(wrong(head + R"(,"datacontenttype":"a/b","data_base64":")" + text + "\"}"),
               Contains("base64"));
  }
  CHECK_THAT(wrong(head + R"(,"data_base64":"/w=="})"), Contains("data_base64"));
  CHECK_THAT(wrong(head + "}{"), StartsWith("line 1"));
  CHECK_THAT(wrong(head + ",\"data\":" + nested(70) + "}"), Contains("deep"));
  CHECK(
      refused(head + ",\"data\":\"" + std::string(200, 'x') + "\"}", cloudevent, {.event_bytes = 100}).code ==
      errc::too_large);
}

TEST_CASE("cloudevents: a batch names the item that is wrong", "[json]") {
  const std::string good = R"({"specversion":"1.0","id":"1","source":"s","type":"t","data":1})";
  CHECK(payloads("[" + good + " , " + good + "]", cloudevents) == texts{"1", "1"});
  CHECK_THAT(refused_text("[" + good + ",{}]", cloudevents), StartsWith("item 2: "));
  CHECK_THAT(refused_text(good, cloudevents), Contains("array"));
}

TEST_CASE("output as NDJSON is always one line of JSON", "[json]") {
  CHECK(ndjson_of("{\"a\":1}") == "{\"a\":1}\n");
  CHECK(ndjson_of("{\n\"a\":\r\n\"\\n\"}") == "{ \"a\":  \"\\n\"}\n");
  CHECK(ndjson_of("") == "null\n");
  CHECK(ndjson_of("a\n\"b\"\\\x01", "text/plain") == "\"a\\n\\\"b\\\"\\\\\\u0001\"\n");
  CHECK(ndjson_of("", "text/plain") == "\"\"\n");
  CHECK(ndjson_of("\xFF\x00\xFE"s, "application/octet-stream") == "\"/wD+\"\n");
  CHECK(ndjson_of("\xFF", "application/octet-stream") == "\"/w==\"\n");
  CHECK(ndjson_of("{\"a\":1}", "application/vnd.x+json") == "{\"a\":1}\n");
}

TEST_CASE("output as CloudEvents is JSON whatever the payload is", "[json]") {
  batch owner;
  event e = event_with(owner, "{\"a\":\n1}");
  e.position = 7;
  nlohmann::json shown = cloudevent_of(e);
  CHECK(shown["data"] == nlohmann::json{{"a", 1}});
  CHECK(shown["offset"] == 7);
  CHECK(shown["datacontenttype"] == "application/json");
  CHECK(shown["time"] == "2018-01-31T02:18:21.235000Z");
  CHECK_FALSE(shown.contains("partitionkey"));
  CHECK(cloudevent_of(event_with(owner, "{broken"))["data_base64"] == "e2Jyb2tlbg==");
  CHECK(cloudevent_of(event_with(owner, "text", "text/plain"))["data"] == "text");
  CHECK(cloudevent_of(event_with(owner, "\xFF", "a/b"))["data_base64"] == "/w==");
  CHECK_FALSE(cloudevent_of(event_with(owner, "")).contains("data"));
  e.subject = "\"s\"";
  e.key = "\xFFk";
  shown = cloudevent_of(e);
  CHECK(shown["subject"] == "\"s\"");
  CHECK(shown["partitionkey"] == "\xEF\xBF\xBDk");
}

TEST_CASE("a CloudEvent comes back as it went out", "[json]") {
  batch owner;
  event e = event_with(owner, "{\"a\":[1,2.50]}");
  e.key = "k";
  e.subject = "tab\\\"";
  std::string text;
  append_cloudevent(text, e);
  const result<batch> again = read(text, cloudevent);
  REQUIRE(again.has_value());
  CHECK(again->events[0].data == e.data);
  CHECK(again->events[0].key == e.key);
  CHECK(again->events[0].subject == e.subject);
  CHECK(again->events[0].time == e.time);
}

TEST_CASE("JSON strings are valid JSON for every byte", "[json]") {
  for (int c = 0; c < 256; ++c) {
    const std::string text = "x" + std::string(1, static_cast<char>(c)) + "y";
    std::string out;
    append_json_string(out, text);
    INFO(out);
    const nlohmann::json parsed = nlohmann::json::parse(out);
    CHECK(parsed.get<std::string>() == (c < 0x80 ? text : "x\xEF\xBF\xBDy"));
  }
}

}  // namespace test_json
