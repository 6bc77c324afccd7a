// Server-sent events cut in every way that a network can, and texts that the specification has rules for.
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/sse_parser.hpp"

namespace test_sse_parser {

using namespace penstock::runtime;

namespace {

struct read_stream {
  std::vector<std::string> data, types, ids, own;
  std::string last_id;
  std::vector<bool> too_long;
  std::int64_t retry_ms = -1;
};

read_stream parse(const std::string& text, std::size_t piece = 1'000'000, std::size_t most = 1000, std::string last_id = {}) {
  sse_parser parser(most, std::move(last_id));
  std::vector<sse_message> messages;
  for (std::size_t at = 0; at < text.size(); at += piece) parser.put(std::string_view(text).substr(at, piece), messages);
  read_stream out;
  for (const sse_message& m : messages) {
    out.data.push_back(m.data);
    out.too_long.push_back(m.too_long);
    out.types.push_back(m.type);
    out.ids.push_back(m.id);
    if (m.own_id) out.own.push_back(m.id);
  }
  out.last_id = parser.last_id();
  if (parser.retry()) out.retry_ms = parser.retry()->count();
  return out;
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("the examples of the specification are read as it says", "[sse]") {
  CHECK(parse("data: YHOO\ndata: +2\ndata: 10\n\n").data == texts{"YHOO\n+2\n10"});
  const read_stream ids = parse(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n");
  CHECK(ids.data == texts{"first event", "second event", " third event"});
  CHECK(ids.ids == texts{"1", "", ""});
  CHECK(ids.own == texts{"1"});
  CHECK(parse("data\n\ndata\ndata\n\ndata:").data == texts{"", "\n"});  // the last one has no end
  CHECK(parse("data:test\n\ndata: test\n\n").data == texts{"test", "test"});
  const read_stream typed = parse("event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\ndata: 1\n\n");
  CHECK(typed.types == texts{"add", "remove", ""});
}

TEST_CASE("a stream means the same wherever it is cut and however its lines end", "[sse]") {
  const std::string text =
      "\xEF\xBB\xBFid: 7\nevent: a\ndata: {\"n\":1,\ndata: \"m\":2}\n\n: note\n\ndata: x\n\nretry: 250\nid: 8\n\ndata: \xE2\x82\xAC\n\n";
  for (const std::string end : {"\n", "\r", "\r\n"}) {
    std::string written;
    for (const char c : text) written += c == '\n' ? end : std::string(1, c);
    for (std::size_t piece = 1; piece <= written.size(); ++piece) {
      const read_stream read = parse(written, piece);
      REQUIRE(read.data == texts{"{\"n\":1,\n\"m\":2}", "x", "\xE2\x82\xAC"});
      REQUIRE(read.types == texts{"a", "", ""});
      REQUIRE(read.ids == texts{"7", "7", "8"});
      REQUIRE(read.own == texts{"7"});
      REQUIRE(read.retry_ms == 250);
    }
  }
}

TEST_CASE("what is no field, or no proper value, is passed over", "[sse]") {
  CHECK(parse("data : x\nDATA: x\n data: x\n\n").data.empty());
  CHECK(parse("retry: 1s\nretry: -1\nretry: 99999999999999999999\nretry:\n\n").retry_ms == -1);
  const read_stream nul = parse(std::string("id: 1\ndata: a\n\nid: 2") + '\0' + "3\ndata: b\n\n");
  CHECK(nul.ids == texts{"1", "1"});
  CHECK(parse("\xEF\xBBx\ndata: a\n\n").data == texts{"a"});
  CHECK(parse("data: a\n\n\xEF\xBB\xBF" "data: b\n\n").data == texts{"a"});  // a mark only counts at the beginning
  CHECK(parse("data: a\n\n", 3, 1000, "41").ids == texts{"41"});
}

TEST_CASE("a message whose data is too long keeps its place, id and name, but no data", "[sse]") {
  const std::string big(20'000, 'x'), large(1001, 'y');
  for (const std::size_t piece : {1UL, 7UL, 100'000UL}) {
    for (const std::string& data : {big, large}) {
      const read_stream read = parse("id: 1\ndata: a\n\nid: 2\nevent: e\ndata: 0\ndata:" + data + "\ndata: b\n\ndata: c\n\n", piece);
      CHECK(read.data == texts{"a", "", "c"});
      CHECK(read.too_long == std::vector<bool>{false, true, false});
      CHECK(read.types == texts{"", "e", ""});
      CHECK(read.ids == texts{"1", "2", "2"});
      CHECK(read.own == texts{"1", "2"});
      CHECK(read.last_id == "2");
    }
    std::string lines = "data: " + std::string(100, 'y') + "\n";
    for (int i = 0; i < 5; ++i) lines += lines;
    CHECK(parse(lines + "\ndata: c\n\n", piece).data == texts{"", "c"});
    CHECK(parse("data: " + std::string(1000, 'z') + "\n\n", piece).too_long == std::vector<bool>{false});
  }
}

TEST_CASE("a line that is too long and no data is passed over", "[sse]") {
  const std::string big(20'000, 'x');
  for (const std::size_t piece : {1UL, 7UL, 100'000UL}) {
    const read_stream read = parse("data: a\n: " + big + "\nid: " + big + "\nevent: " + big + "\ndatax: " + big + "\n" + big + "\ndata: b\n\n", piece);
    CHECK(read.data == texts{"a\nb"});
    CHECK(read.too_long == std::vector<bool>{false});
    CHECK(read.ids == texts{""});
    CHECK(read.types == texts{""});
    const std::string most(4096, 'i');  // more than the data may have
    const read_stream longest = parse("id: " + most + "\nevent: " + most + "\ndata: c\n\n", piece, 10);
    CHECK(longest.ids == texts{most});
    CHECK(longest.types == texts{most});
    const read_stream beyond = parse("id: " + most + "i\nevent: " + most + "i\ndata: c\n\n", piece, 10'000);
    CHECK(beyond.ids == texts{""});
    CHECK(beyond.types == texts{""});
  }
}

}  // namespace test_sse_parser
