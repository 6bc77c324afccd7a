// Routing and the text of paths, queries, cursors: pure, no sockets.
#include <catch2/catch.hpp>

#include "api/http.hpp"
#include "api/parameters.hpp"
#include "api/router.hpp"

using namespace penstock;
using namespace penstock::api;
using outcome = router::outcome;

namespace {

router make_router() {
  router r;
  r.add(http_method::get, "/");
  r.add(http_method::get, "/v1/runs");
  r.add(http_method::get, "/v1/runs/{id}");
  r.add(http_method::post, "/v1/runs/{id}/cancel");
  r.add(http_method::get, "/v1/pipelines/{name}");
  r.add(http_method::put, "/v1/pipelines/{name}");
  r.add(http_method::del, "/v1/pipelines/{name}");
  r.add(http_method::get, "/v1/pipelines/{name}/flows/{flow}");
  r.add(http_method::post, "/v1/dead-letters/replay");
  r.add(http_method::post, "/hooks/{path...}");
  return r;
}

struct found {
  router::match match;
  std::vector<path_parameter> parameters;
};

// The patterns that names of parameters point into must live on.
const router& routes() {
  static const router r = make_router();
  return r;
}

found find(http_method method, std::string_view path) {
  found f;
  f.match = routes().find(method, path, f.parameters);
  return f;
}

request with_query(std::string_view text) {
  request r;
  r.query = parse_query(text).value();
  return r;
}

}  // namespace

TEST_CASE("a path finds its endpoint and parameters", "[router]") {
  const auto run = find(http_method::get, "/v1/runs/01ABC");
  REQUIRE(run.match.what == outcome::found);
  CHECK(run.match.index == 2);
  REQUIRE(run.parameters.size() == 1);
  CHECK(run.parameters[0].name == "id");
  CHECK(run.parameters[0].value == "01ABC");

  const auto flow = find(http_method::get, "/v1/pipelines/orders/flows/intake");
  REQUIRE(flow.match.what == outcome::found);
  REQUIRE(flow.parameters.size() == 2);
  CHECK(flow.parameters[1].value == "intake");

  CHECK(find(http_method::get, "/").match.what == outcome::found);
  CHECK(find(http_method::head, "/v1/runs").match.what == outcome::found);
}

TEST_CASE("the rest of a path is one parameter", "[router]") {
  const auto hook = find(http_method::post, "/hooks/shop/eu/orders");
  REQUIRE(hook.match.what == outcome::found);
  CHECK(hook.parameters[0].value == "shop/eu/orders");
  CHECK(find(http_method::post, "/hooks").match.what == outcome::not_found);
  CHECK(find(http_method::post, "/hooks/").match.what == outcome::not_found);
}

TEST_CASE("a wrong method is told which ones there are", "[router]") {
  const auto wrong = find(http_method::post, "/v1/pipelines/orders");
  CHECK(wrong.match.what == outcome::method_not_allowed);
  CHECK(wrong.match.allow == "GET, HEAD, PUT, DELETE, OPTIONS");
  CHECK(find(http_method::other, "/v1/runs").match.allow == "GET, HEAD, OPTIONS");
  CHECK(find(http_method::head, "/hooks/x").match.allow == "POST, OPTIONS");
}

TEST_CASE("an unknown path is told the nearest route", "[router]") {
  CHECK(find(http_method::get, "/v1/run").match.detail.find("did you mean /v1/runs?") != std::string::npos);
  CHECK(find(http_method::get, "/v1/runs/").match.detail.find("/v1/runs") != std::string::npos);
  const auto typo = find(http_method::get, "/v1/pipeline/orders");
  CHECK(typo.match.what == outcome::not_found);
  CHECK(typo.match.detail.find("/v1/pipelines/{name}") != std::string::npos);
  CHECK(
      find(http_method::get, "/completely/different/things/entirely/elsewhere").match.detail.find("GET /") !=
      std::string::npos);
  CHECK(find(http_method::get, "").match.what == outcome::not_found);
  CHECK(find(http_method::get, "v1/runs").match.what == outcome::not_found);
  CHECK(find(http_method::get, "*").match.what == outcome::not_found);
  CHECK(find(http_method::get, "//v1/runs").match.what == outcome::not_found);
}

TEST_CASE("segments are decoded after the split, and never become a path", "[router]") {
  CHECK(find(http_method::get, "/v1/runs/a%2Db").parameters[0].value == "a-b");
  CHECK(find(http_method::get, "/v1/runs/%C3%A9").parameters[0].value == "\xC3\xA9");
  for (const char* bad : {"/v1/runs/a%2Fb", "/v1/runs/%2e%2e", "/v1/runs/..", "/v1/runs/.", "/v1/runs/%00",
                          "/v1/runs/a%00b", "/v1/runs/%", "/v1/runs/%4", "/v1/runs/%zz"}) {
    INFO(bad);
    CHECK(find(http_method::get, bad).match.what == outcome::bad_path);
  }
  for (const char* bad : {"/hooks/a/../b", "/hooks/a/%2e%2e/b", "/hooks/a//b", "/hooks/a/%2F"}) {
    INFO(bad);
    CHECK(find(http_method::post, bad).match.what == outcome::bad_path);
  }
}

TEST_CASE("a route is added once", "[router]") {
  router r = make_router();
  CHECK_THROWS_AS(r.add(http_method::get, "/v1/runs"), std::logic_error);
}

TEST_CASE("percent-encoding is undone strictly and made for what needs it", "[router]") {
  CHECK(percent_decode("a%20b%25") == "a b%");
  CHECK(percent_decode("") == "");
  CHECK_FALSE(percent_decode("%"));
  CHECK_FALSE(percent_decode("%a"));
  CHECK_FALSE(percent_decode("%g0"));
  CHECK(percent_encode("a b/é") == "a%20b%2F%C3%A9");
}

TEST_CASE("a query is split and decoded", "[query]") {
  const auto q = parse_query("a=1&b=x%26y&&c&d=2024-01-01T00:00:00+02:00&e==").value();
  REQUIRE(q.size() == 5);
  CHECK(q[1].value == "x&y");
  CHECK(q[2].name == "c");
  CHECK(q[2].value == "");
  CHECK(q[3].value == "2024-01-01T00:00:00+02:00");  // + is no space here
  CHECK(q[4].value == "=");
  CHECK_FALSE(parse_query("a=%"));
  CHECK(parse_query("")->empty());
}

TEST_CASE("parameters are checked", "[query]") {
  CHECK(read_page(with_query("limit=7"), "runs")->limit == 7);
  CHECK(read_page(with_query(""), "runs")->limit == 100);
  for (const char* bad :
       {"limit=0", "limit=-1", "limit=1001", "limit=", "limit=7x", "limit=99999999999999999999"}) {
    INFO(bad);
    const auto page = read_page(with_query(bad), "runs");
    REQUIRE_FALSE(page.has_value());
    CHECK(page.error().code == errc::malformed);
    CHECK(page.error().detail.find("limit") != std::string::npos);
  }
  CHECK(read_flag(with_query("follow"), "follow").value());
  CHECK(read_flag(with_query("follow=true"), "follow").value());
  CHECK_FALSE(read_flag(with_query("follow=false"), "follow").value());
  CHECK_FALSE(read_flag(with_query(""), "follow").value());
  CHECK_FALSE(read_flag(with_query("follow=yes"), "follow").has_value());
  CHECK(read_time(with_query("since=2018-02-07T00:00:00Z"), "since").value().has_value());
  CHECK_FALSE(read_time(with_query("since=yesterday"), "since").has_value());
  CHECK(read_duration(with_query("wait=30s"), "wait", std::chrono::minutes(1)).value() ==
        std::chrono::seconds(30));
  CHECK_FALSE(read_duration(with_query("wait=2m"), "wait", std::chrono::minutes(1)).has_value());
  CHECK_FALSE(read_duration(with_query("wait=30"), "wait", std::chrono::minutes(1)).has_value());
}

TEST_CASE("a cursor is opaque, comes back unchanged, and belongs to its list", "[query]") {
  const std::string cursor = make_cursor("runs", "01ARZ3NDEKTSV4RRFFQ69G5FAV");
  CHECK(cursor.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") ==
        std::string::npos);
  CHECK(read_page(with_query("cursor=" + cursor), "runs")->after == "01ARZ3NDEKTSV4RRFFQ69G5FAV");
  for (const std::string& bad : {std::string("x"), std::string("!!!"), cursor + "=",
                                 make_cursor("topics", "a"), make_cursor("runs", "")}) {
    INFO(bad);
    CHECK_FALSE(read_page(with_query("cursor=" + percent_encode(bad)), "runs").has_value());
  }
  CHECK(read_page(with_query("cursor="), "runs")->after.empty());
}

TEST_CASE("base64url returns every byte", "[query]") {
  for (std::size_t size = 0; size < 6; ++size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(0xfa + i);
    CHECK(base64url_decode(base64url(bytes)) == bytes);
  }
  CHECK(base64url("\xff\xff\xfe") == "___-");
  CHECK_FALSE(base64url_decode("A"));
  CHECK(base64url_decode("AA"));
  CHECK_FALSE(base64url_decode("AB"));  // bits behind the last byte
  CHECK_FALSE(base64url_decode("AA=="));
}
