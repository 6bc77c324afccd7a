// Addresses as operators write them, and what is said of those that are none.
#include <catch2/catch.hpp>

#include "api/listen_address.hpp"

using namespace penstock;
using namespace penstock::api;

TEST_CASE("addresses that can be listened on", "[listen_address]") {
  struct expected {
    const char* text;
    const char* shown;
    bool stays_here;
  };
  for (const expected& e : {expected{"127.0.0.1:8420", "http://127.0.0.1:8420", true}, {"localhost:1", "http://127.0.0.1:1", true},
                            {"[::1]:0", "http://[::1]:0", true}, {"::1:80", "http://[::1]:80", true},
                            {"http://127.0.0.7:65535", "http://127.0.0.7:65535", true},
                            {"https://0.0.0.0:8443", "https://0.0.0.0:8443", false}, {"[::]:8420", "http://[::]:8420", false},
                            {"192.0.2.1:80", "http://192.0.2.1:80", false}, {"unix:/run/a b.sock", "unix:/run/a b.sock", true}}) {
    INFO(e.text);
    const auto found = parse_listen_address(e.text);
    REQUIRE(found.has_value());
    CHECK(found->shown() == e.shown);
    CHECK(found->stays_here() == e.stays_here);
    CHECK(found->is_unix() == found->host_and_port().empty());
  }
}

TEST_CASE("addresses that cannot", "[listen_address]") {
  for (const char* text : {"", ":", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80x", "127.0.0.1: 80",
                           "example.com:80", "256.0.0.1:80", "[::1:80", "[]:80", "https://", "https://127.0.0.1", "https://127.0.0.1:1/",
                           "http://https://127.0.0.1:1", "unix:", "unix:relative", "unix:/", "unix:/run/", "unix://127.0.0.1:80x/", "tcp://127.0.0.1:1"}) {
    INFO(text);
    const auto found = parse_listen_address(text);
    REQUIRE_FALSE(found.has_value());
    CHECK(found.error().detail.find("'" + std::string(text) + "'") != std::string::npos);
  }
  CHECK(parse_listen_address("unix:/" + std::string(100, 'x')).has_value());
  CHECK_FALSE(parse_listen_address("unix:/" + std::string(102, 'x')).has_value());
}
