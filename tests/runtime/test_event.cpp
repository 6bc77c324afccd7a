#include <algorithm>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/event.hpp"

namespace test_event {

using namespace penstock;
using namespace penstock::runtime;

namespace {

// Reads every padding byte behind the text: the address sanitizer complains when one is not there.
int touch_padding(std::string_view text) {
  int sum = 0;
  for (std::size_t i = 0; i < padding; ++i) sum += text.data()[text.size() + i] != 0;
  return sum;
}

event event_of(batch& b, const std::string& id, const std::string& data) {
  event e;
  e.id = b.keep(id);
  e.data = b.keep(data);
  return e;
}

}  // namespace

TEST_CASE("kept texts stay where they are while the batch grows and moves", "[event]") {
  std::mt19937 random(7);
  batch b;
  std::vector<std::pair<std::string, std::string_view>> kept;
  for (int i = 0; i < 3000; ++i) {
    std::string text(random() % 5 == 0 ? random() % 9000 : random() % 60, static_cast<char>('a' + i % 26));
    const auto view = b.keep(text);
    kept.emplace_back(std::move(text), view);
  }
  const std::string huge(5 << 20, 'H');
  const auto huge_view = b.keep(huge);
  batch moved(std::move(b));
  batch assigned;
  assigned.keep("something else");
  assigned = std::move(moved);
  b.keep("a batch that was moved from is usable");
  for (const auto& [text, view] : kept) {
    REQUIRE(view == text);
    REQUIRE(touch_padding(view) >= 0);
  }
  CHECK(huge_view == huge);
  CHECK(touch_padding(huge_view) >= 0);
}

TEST_CASE("an empty payload has readable bytes behind it too", "[event]") {
  batch b;
  const auto nothing = b.keep({});
  REQUIRE(nothing.data() != nullptr);
  CHECK(nothing.empty());
  CHECK(touch_padding(nothing) >= 0);
  event e;
  const event copy = b.copy(e);
  REQUIRE(copy.data.data() != nullptr);
  CHECK(touch_padding(copy.data) >= 0);
}

TEST_CASE("allocations do not overlap, padding included", "[event]") {
  batch b;
  std::vector<char*> made;
  for (int i = 0; i < 1000; ++i) {
    char* const bytes = b.allocate(100);
    std::fill(bytes, bytes + 100 + padding, static_cast<char>(i));
    made.push_back(bytes);
  }
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(std::all_of(made[static_cast<std::size_t>(i)], made[static_cast<std::size_t>(i)] + 100 + padding,
                        [i](char c) { return c == static_cast<char>(i); }));
  }
}

TEST_CASE("append takes over events and memory, and leaves the other empty but usable", "[event]") {
  batch all;
  std::vector<std::string> expected;
  for (int part = 0; part < 50; ++part) {
    batch next;
    const auto body = std::make_shared<const buffer>("body " + std::to_string(part));
    next.adopt(body);
    for (int i = 0; i < 20; ++i) {
      expected.push_back(std::to_string(part) + "/" + std::to_string(i) + std::string(200, 'x'));
      next.events.push_back(event_of(next, expected.back(), expected.back()));
    }
    event adopted;
    adopted.id = next.keep("adopted");
    adopted.data = body->text();
    next.events.push_back(adopted);
    expected.push_back("body " + std::to_string(part));
    all.append(std::move(next));
    REQUIRE(next.empty());
    next.events.push_back(event_of(next, "again", "again"));
    REQUIRE(next.events.front().data == "again");
  }
  REQUIRE(all.size() == expected.size());
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    REQUIRE(all.events[i].data == expected[i]);
    bytes += expected[i].size();
  }
  CHECK(all.payload_bytes() == bytes);
}

TEST_CASE("a copy of an event outlives the batch it came from", "[event]") {
  batch kept;
  event copy;
  {
    batch original;
    event e;
    e.id = original.keep("id");
    e.source = original.keep("source");
    e.type = original.keep("type");
    e.subject = original.keep("subject");
    e.datacontenttype = original.keep("text/plain");
    e.key = original.keep("key");
    e.data = original.keep(std::string("bytes\0and more", 14));
    e.time = from_micros(123);
    e.position = 9;
    copy = kept.copy(e);
  }
  CHECK(copy.id == "id");
  CHECK(copy.source == "source");
  CHECK(copy.type == "type");
  CHECK(copy.subject == "subject");
  CHECK(copy.datacontenttype == "text/plain");
  CHECK(copy.key == "key");
  CHECK(copy.data == std::string("bytes\0and more", 14));
  CHECK(copy.time == from_micros(123));
  CHECK(copy.position == 9);
  CHECK_FALSE(copy.is_json());
  CHECK(touch_padding(copy.data) >= 0);
}

TEST_CASE("an adopted buffer lives as long as the batch", "[event]") {
  auto body = std::make_shared<const buffer>("{}");
  const std::weak_ptr<const buffer> watch = body;
  CHECK(body->text() == "{}");
  CHECK(touch_padding(body->text()) == 0);
  {
    batch b;
    b.adopt(std::move(body));
    const batch moved = std::move(b);
    CHECK_FALSE(watch.expired());
  }
  CHECK(watch.expired());
}

TEST_CASE("what is JSON", "[event]") {
  event e;
  CHECK(e.is_json());
  e.datacontenttype = "application/json; charset=utf-8";
  CHECK(e.is_json());
  e.datacontenttype = "application/geo+json";
  CHECK(e.is_json());
  e.datacontenttype = "text/csv";
  CHECK_FALSE(e.is_json());
}

static_assert(!std::is_copy_constructible_v<batch>);

}  // namespace test_event
