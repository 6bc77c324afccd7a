// Lines cut out of bytes, however these are cut, and addresses as people write them.
#include <random>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/line_input.hpp"
#include "runtime/socket_address.hpp"
#include "tests/temp_dir.hpp"

namespace test_line_input {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;

namespace {

using texts = std::vector<std::string>;

std::shared_ptr<const line_rules> rules(bool ndjson, std::size_t max_line = 1 << 20) {
  return std::make_shared<const line_rules>(line_rules{ndjson, max_line, "/test"});
}

// All events, cut at most `most` at a time, the bytes in pieces of that size.
struct outcome {
  texts lines, lost, reasons;
};
outcome feed(const std::string& text, std::shared_ptr<const line_rules> r, std::size_t piece, std::size_t most = 100) {
  line_input in(std::move(r));
  outcome out;
  const auto take = [&] {
    batch events;
    while (in.cut(events, most) > 0) {
    }
    for (const event& e : events.events) {
      out.lines.emplace_back(e.data);
      CHECK(e.id.size() == 26);
      CHECK(e.source == "/test");
    }
    for (const lost_line& one : in.take_lost()) {
      out.lost.push_back(one.begin);
      out.reasons.push_back(one.reason);
    }
  };
  for (std::size_t at = 0; at < text.size(); at += piece) {
    in.add(std::string_view(text).substr(at, piece));
    take();
  }
  in.finish();
  take();
  return out;
}

}  // namespace

TEST_CASE("lines are the same however the bytes are cut", "[lines]") {
  const std::string text = "{\"n\":1}\n\r\n\n[2]\r\n\"three\"\n4";
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    for (const std::size_t most : {1, 2, 100}) {
      CHECK(feed(text, rules(true), piece, most).lines == texts{"{\"n\":1}", "[2]", "\"three\"", "4"});
      CHECK(feed(text, rules(false), piece, most).lines == texts{"{\"n\":1}", "", "", "[2]", "\"three\"", "4"});
    }
  }
  CHECK(feed("", rules(true), 1).lines.empty());
  CHECK(feed("\n\n", rules(true), 1).lines.empty());
}

TEST_CASE("a line that is too long is lost alone, with its beginning and the reason", "[lines]") {
  const std::string text = "1\n" + std::string(5000, 'x') + "\n22\n" + std::string(11, 'y') + "\n" + std::string(10, 'z') + "\n";
  for (const std::size_t piece : {1, 7, 100, 5003, 100'000}) {
    const outcome out = feed(text, rules(true, 10), piece);
    CHECK(out.lines == texts{"1", "22", std::string(10, 'z')});
    REQUIRE(out.lost.size() == 2);
    CHECK(out.lost[0].size() >= 11);
    CHECK(out.lost[0].size() <= 4096);
    CHECK(out.lost[0].find_first_not_of('x') == std::string::npos);
    CHECK(out.lost[1] == std::string(11, 'y'));
    CHECK_THAT(out.reasons[0], Contains("longer than 10B") || Contains("longer than 10 ") || Contains("max_line"));
  }
  CHECK(feed(std::string(50, 'x'), rules(true, 10), 3).lines.empty());
  CHECK(feed(std::string(50, 'x'), rules(true, 10), 3).lost.size() == 1);
}

// By structure: it would take minutes if each piece made a copy of the line.
TEST_CASE("a long line in small pieces is not copied with each of them", "[lines]") {
  const std::string text(1 << 20, 'x');
  const outcome out = feed(text + "\n1\n", rules(false), 1);
  REQUIRE(out.lines.size() == 2);
  CHECK(out.lines[0] == text);
  CHECK(out.lines[1] == "1");
}

TEST_CASE("lost lines count, so that no number of them is taken at once", "[lines]") {
  line_input in(rules(true, 1));
  batch events;
  std::string text = "1\n";
  for (int i = 0; i < 10; ++i) text += "22\n";
  in.add(text + "333");
  CHECK(in.cut(events, 4) == 4);
  CHECK(events.size() == 1);
  CHECK(in.take_lost().size() == 3);
  CHECK(in.cut(events, 4) == 4);
  CHECK(in.take_lost().size() == 4);
  CHECK(in.cut(events, 3) == 3);
  CHECK(in.take_lost().size() == 3);
  CHECK(in.cut(events, 3) == 1);  // it is too long already
  CHECK(in.take_lost().size() == 1);
  in.add("3\n4\n");
  CHECK(in.cut(events, 3) == 1);
  CHECK(events.events.back().data == "4");
}

TEST_CASE("random bytes never lose a line nor make one up", "[lines]") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    texts lines;
    std::string text;
    for (unsigned i = random() % 50; i > 0; --i) {
      lines.emplace_back(random() % 30, static_cast<char>('a' + random() % 26));
      text += lines.back() + "\n";
    }
    CHECK(feed(text, rules(false), 1 + random() % 40, 1 + random() % 5).lines == lines);
  }
}

TEST_CASE("a line that is broken off is lost, and nothing else", "[lines]") {
  line_input in(rules(true));
  batch events;
  in.add("1\n{\"n\":");
  CHECK(in.cut(events, 10, "10.0.0.1:5") == 1);
  CHECK(events.events[0].subject == "10.0.0.1:5");
  CHECK(in.in_a_line());
  in.break_off("gone");
  const std::vector<lost_line> lost = in.take_lost();
  REQUIRE(lost.size() == 1);
  CHECK(lost[0].begin == "{\"n\":");
  CHECK(lost[0].reason == "gone");
  CHECK_FALSE(in.in_a_line());
  CHECK(in.cut(events, 10) == 0);

  const line_rules r{true, 10, "/p/flow/f"};
  batch faulty;
  append_lost(faulty, r, lost);
  REQUIRE(faulty.size() == 1);
  CHECK(faulty.events[0].data == "{\"n\":");
  CHECK(faulty.events[0].fault == "gone");
  CHECK(faulty.events[0].source == "/p/flow/f");
}

TEST_CASE("addresses as people write them", "[lines]") {
  using kind = socket_address::kind;
  const auto of = [](const std::string& text) { return socket_address::of(text); };
  CHECK(of("127.0.0.1:7000").host == "127.0.0.1");
  CHECK(of("127.0.0.1:7000").port == "7000");
  CHECK(of("tcp:localhost:1").is == kind::tcp);
  CHECK(of("udp:[::1]:53").is == kind::udp);
  CHECK(of("udp:[::1]:53").host == "::1");
  CHECK(of("unix:/run/a:b.sock").is == kind::local);
  CHECK(of("unix:/run/a:b.sock").path == "/run/a:b.sock");
  for (const char* wrong : {"", "7000", "host", "host:", ":7000", "host:http", "host:65536", "host:-1", "::1:7000", "unix:",
                            "udp:", "udp:7000", "[]:1"}) {
    INFO(wrong);
    CHECK_THROWS_WITH(of(wrong), Contains("is no address"));
  }
  CHECK_THROWS_WITH(resolve(of("unix:" + std::string(200, 'x')), "/tmp"), Contains("at most 107 bytes"));
}

TEST_CASE("addresses that others reach are known as such", "[lines]") {
  const auto beyond = [](const std::string& text) {
    const auto at = resolve_number(socket_address::of(text));
    return at ? at->reaches_beyond() : throw std::runtime_error("no number");
  };
  CHECK_FALSE(beyond("127.0.0.1:1"));
  CHECK_FALSE(beyond("127.200.0.1:1"));
  CHECK_FALSE(beyond("[::1]:1"));
  CHECK(beyond("0.0.0.0:1"));
  CHECK(beyond("10.0.0.1:1"));
  CHECK(beyond("[::]:1"));
  CHECK_FALSE(resolve_number(socket_address::of("localhost:1")));
  CHECK(resolve(socket_address::of("localhost:1"), {}).front().text() == "127.0.0.1:1");
}

TEST_CASE("the path of a local socket is taken over only from the dead", "[lines]") {
  const penstock::testing::temp_dir dir;
  const socket_address address = socket_address::of("unix:s");
  const resolved_address at = resolve(address, dir.path()).front();
  {
    const unique_fd first = listen_at(at, address);
    CHECK_THROWS_WITH(listen_at(at, address), Contains("another program does"));
  }
  CHECK(std::filesystem::exists(dir / "s"));  // as after a kill
  const unique_fd second = listen_at(at, address);
  std::filesystem::remove(dir / "s");
  std::filesystem::create_directory(dir / "s");
  CHECK_THROWS_WITH(listen_at(at, address), Contains("no socket"));
  CHECK(std::filesystem::is_directory(dir / "s"));
}

}  // namespace test_line_input
