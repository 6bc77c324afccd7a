// Which form of an answer a client gets, and lists of ETags: pure text rules of RFC 9110.
#include <catch2/catch.hpp>

#include "api/conditional.hpp"
#include "api/media.hpp"
#include "scheduler/etag.hpp"

using namespace penstock;
using api::best_offer;
using scheduler::etag_comparison;
using scheduler::lists_etag;

namespace {

std::string chosen(std::string_view accept, std::vector<std::string_view> offers = {api::json_type, api::yaml_type, api::text_type}) {
  return std::string(best_offer(accept, offers).value_or("none"));
}

}  // namespace

TEST_CASE("Accept: the highest quality wins, then the most exact range, then the first", "[media]") {
  CHECK(chosen("") == api::json_type);
  CHECK(chosen("  ") == api::json_type);
  CHECK(chosen("*/*") == api::json_type);
  CHECK(chosen("application/*") == api::json_type);
  CHECK(chosen("text/plain") == api::text_type);
  CHECK(chosen("TEXT/Plain; charset=utf-8") == api::text_type);
  CHECK(chosen("text/*;q=0.3, application/yaml;q=0.2") == api::text_type);
  CHECK(chosen("application/json;q=0.5, application/yaml") == api::yaml_type);
  CHECK(chosen("application/json, application/yaml;q=0.5") == api::json_type);
  CHECK(chosen("application/yaml, */*") == api::yaml_type);
  CHECK(chosen("text/x-yaml") == api::yaml_type);
  CHECK(chosen("application/yaml, application/json") == api::yaml_type);
  CHECK(chosen("application/json, application/yaml") == api::json_type);
  CHECK(chosen("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8") == api::json_type);
}

TEST_CASE("Accept: what is excluded is not sent", "[media]") {
  CHECK(chosen("text/html") == "none");
  CHECK(chosen("application/json;q=0") == "none");
  CHECK(chosen("application/json;q=0, */*") == api::yaml_type);
  CHECK(chosen("*/*;q=0") == "none");
  CHECK(chosen("application/json;q=0, application/*;q=0.1") == api::yaml_type);
  CHECK(chosen("image/png, , ;q=1") == "none");
  CHECK(chosen("application/json", {api::schema_type}) == api::schema_type);
  CHECK(chosen("application/json", {api::sse_type}) == "none");
}

TEST_CASE("Accept: broken qualities count as none", "[media]") {
  CHECK(chosen("text/plain;q=nan, application/json;q=0.9") == api::text_type);
  CHECK(chosen("text/plain;q=-1") == api::text_type);
  CHECK(chosen("text/plain;q=") == api::text_type);
  CHECK(chosen("text/plain ; Q=0.1 , application/json;q=0.2") == api::json_type);
}

TEST_CASE("lists of ETags: quotes, commas and weak ones", "[media]") {
  const auto strong = [](std::string_view list) { return lists_etag(list, "\"a\"", etag_comparison::strong); };
  const auto weak = [](std::string_view list) { return lists_etag(list, "\"a\"", etag_comparison::weak); };
  CHECK(strong("\"a\""));
  CHECK(strong("*"));
  CHECK(strong(" \"b\" , \"a\""));
  CHECK(strong("\"b,c\",\"a\""));
  CHECK_FALSE(strong("W/\"a\""));
  CHECK(weak("W/\"a\""));
  CHECK(weak("W/\"b\", W/\"a\""));
  CHECK(weak("*"));
  for (const std::string_view other : {"", ",", "a", "\"", "\"a", "a\"", "\"A\"", "\"b\",", "\"b, \"", "\"x\"a\"", "W/", "W/\"", "w/\"a\""}) {
    INFO(other);
    CHECK_FALSE(strong(other));
    CHECK_FALSE(weak(other));
  }
  CHECK(lists_etag("\"a,b\"", "\"a,b\"", etag_comparison::strong));
}

TEST_CASE("a client that has it gets 304 without a body", "[media]") {
  const auto document = api::make_document(api::json_type, "{}");
  api::request r;
  CHECK(api::send_document(r, document).status == 200);
  const std::string value = "\"x\", W/" + document.etag;
  r.headers.push_back({"if-none-match", value});
  const auto known = api::send_document(r, document);
  CHECK(known.status == 304);
  CHECK(known.body.empty());
  CHECK(known.headers.front() == std::pair<std::string, std::string>("ETag", document.etag));
}
