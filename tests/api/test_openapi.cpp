// The document, made from rules that are small enough to see through. (What the daemon really answers is held against its own
// document in every end-to-end test.)
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "api/json.hpp"
#include "api/openapi.hpp"
#include "api/query_rules.hpp"
#include "scheduler/model.hpp"

using namespace penstock;
using api::json;

namespace {

json document_of(const std::vector<api::endpoint_rules>& rules) { return json::parse(api::openapi_text(rules)); }

const api::endpoint_rules read_run{.method = api::http_method::get,
                                   .path = "/v1/runs/{id}",
                                   .needs = api::access::read,
                                   .summary = "one run",
                                   .query = {"wait"},
                                   .operation = "get_run",
                                   .answers = {{200, "Run"}}};

}  // namespace

TEST_CASE("openapi: an operation has what its rules say and what follows from them", "[openapi]") {
  const json document = document_of({read_run});
  CHECK(document["openapi"] == "3.1.0");
  const json& get = document["paths"]["/v1/runs/{id}"]["get"];
  CHECK(get["operationId"] == "get_run");
  CHECK(get["tags"] == json::array({"runs"}));
  CHECK(get["x-penstock-role"] == "read");
  CHECK_FALSE(get.contains("security"));
  CHECK_FALSE(get.contains("requestBody"));
  REQUIRE(get["parameters"].size() == 2);
  CHECK(get["parameters"][0]["in"] == "path");
  CHECK(get["parameters"][0]["required"] == true);
  CHECK(get["parameters"][1]["name"] == "wait");
  CHECK(get["parameters"][1]["required"] == false);
  CHECK(get["responses"]["200"]["content"]["application/json"]["schema"]["$ref"] == "#/components/schemas/Run");
  for (const char* status : {"400", "401", "403", "404", "406", "429", "500", "503"}) CHECK(get["responses"].contains(status));
  for (const char* status : {"409", "411", "412", "422"}) CHECK_FALSE(get["responses"].contains(status));
  CHECK(document["security"] == json::array({json{{"bearer", json::array()}}}));
  CHECK(document["servers"][0]["url"] == "/");
}

TEST_CASE("openapi: open endpoints ask for no token, bodies are described, rests of paths are parameters", "[openapi]") {
  const json document = document_of({{.method = api::http_method::get,
                                      .path = "/healthz",
                                      .needs = api::access::open,
                                      .summary = "up",
                                      .operation = "get_health",
                                      .answers = {{200, "Health"}}},
                                     {.method = api::http_method::post,
                                      .path = "/hooks/{path...}",
                                      .needs = api::access::signed_body,
                                      .summary = "intake",
                                      .operation = "post_hook",
                                      .body = "Delivery",
                                      .answers = {{202, "DeliveryAnswer"}},
                                      .problems = {401}}});
  CHECK(document["paths"]["/healthz"]["get"]["security"] == json::array());
  const json& hook = document["paths"]["/hooks/{path}"]["post"];
  CHECK(hook["security"] == json::array());
  CHECK(hook["requestBody"]["required"] == false);
  CHECK(hook["responses"].contains("422"));
  CHECK_FALSE(hook["responses"].contains("406"));
}

TEST_CASE("openapi: schemas are closed, and extended ones are whole", "[openapi]") {
  const json schemas = document_of({read_run})["components"]["schemas"];
  CHECK(schemas["Run"]["additionalProperties"] == false);
  CHECK(schemas["Run"]["properties"].contains("id"));
  CHECK(schemas["Run"]["properties"].contains("tasks"));
  CHECK(schemas["RunPage"]["properties"]["items"]["items"]["$ref"] == "#/components/schemas/RunSummary");
  CHECK_FALSE(json(schemas).dump().find("$extends") != std::string::npos);
  CHECK(schemas["Applied"]["required"].size() == schemas["Pipeline"]["required"].size() + 3);
}

// The words of a schema are those of an enum: all of them, in their order, and no more.
template <class Enum>
void check_words(const json& words) {
  for (std::size_t i = 0; i < words.size(); ++i) CHECK(words[i] == scheduler::token(static_cast<Enum>(i)));
  CHECK_THROWS(scheduler::token(static_cast<Enum>(words.size())));
}

TEST_CASE("openapi: states and triggers have the words of the domain", "[openapi]") {
  const json schemas = document_of({read_run})["components"]["schemas"];
  check_words<scheduler::run_state>(schemas["RunState"]["enum"]);
  check_words<scheduler::flow_state>(schemas["FlowState"]["enum"]);
  check_words<scheduler::trigger_kind>(schemas["TriggerKind"]["enum"]);
  check_words<scheduler::run_state>(api::rules_of("state").known);
}

TEST_CASE("openapi: what is named and not there is a mistake of the table", "[openapi]") {
  api::endpoint_rules wrong = read_run;
  wrong.query = {"wiat"};
  CHECK_THROWS_AS(api::openapi_text({wrong}), std::logic_error);
  wrong = read_run;
  wrong.answers[0].schema = "Rum";
  CHECK_THROWS_AS(api::openapi_text({wrong}), std::logic_error);
}
