#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "config/json_schema.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

value at(const value& schema, const std::string& pointer) { return schema.at(value::json_pointer(pointer)); }

// Every $ref points at something, every `required` key is a property, and no `type` or `enum` is empty.
void check_sound(const value& schema, const value& root) {
  if (schema.is_array()) {
    for (const value& item : schema) check_sound(item, root);
    return;
  }
  if (!schema.is_object()) return;
  if (schema.contains("$ref")) {
    CHECK(root.contains(value::json_pointer(schema.at("$ref").get<std::string>().substr(1))));
  }
  if (schema.contains("required") && schema.at("required").is_array() && schema.contains("properties")) {
    for (const value& key : schema.at("required"))
      CHECK(schema.at("properties").contains(key.get<std::string>()));
  }
  if (schema.contains("enum")) CHECK_FALSE(schema.at("enum").empty());
  for (const auto& [key, child] : schema.items()) {
    if (key != "default" && key != "examples") check_sound(child, root);
  }
}

}  // namespace

TEST_CASE("the schema says what the records say", "[config][schema]") {
  const value schema = pipeline_json_schema(testing::small_catalog());
  check_sound(schema, schema);
  CHECK(schema.at("$schema") == "https://json-schema.org/draft/2020-12/schema");
  CHECK(schema.at("required") == value::array({"name"}));
  CHECK(schema.at("additionalProperties") == false);

  const std::string job = "/properties/jobs/additionalProperties/properties";
  CHECK(at(schema, job + "/on_overlap/anyOf/0/enum") == value::array({"queue", "skip", "allow", "replace"}));
  CHECK(at(schema, job + "/on_overlap/default") == "queue");
  CHECK(at(schema, job + "/queue_limit/default") == 1000);
  CHECK(at(schema, job + "/grace/default") == "10s");
  CHECK(at(schema, job + "/timeout/examples") == value::array({"15m"}));
  CHECK(at(schema, job + "/timeout/type") == "string");
  CHECK(at(schema, job + "/tasks/minProperties") == 1);
  CHECK(at(schema, job + "/from/$ref") == "#/$defs/source");

  const value trigger_schema = at(schema, job + "/trigger/anyOf/1");
  CHECK(trigger_schema.at("oneOf").size() == 7);
  CHECK(trigger_schema.at("oneOf").at(0) == value::parse(R"({"required":["topic"]})"));
  CHECK(trigger_schema.at("dependentRequired").at("max_wait") == value::array({"topic"}));
  CHECK(trigger_schema.at("properties").at("cron").at("examples") == value::array({"0 6 * * *"}));

  const value& pools = at(schema, job + "/pools");
  CHECK(pools.at("anyOf").at(0).at("additionalProperties").at("minimum") == 1);
  CHECK(pools.at("anyOf").at(1).at("items").at("pattern") == pools.at("anyOf").at(2).at("pattern"));
  const value retry = at(schema, job + "/retry/anyOf/1");
  CHECK(retry.at("allOf").dump() == R"([{"not":{"required":["exit_codes","not_exit_codes"]}}])");
  const value parameter = at(schema, job + "/params/additionalProperties");
  CHECK(parameter.at("anyOf").at(0).at("type") == value::array({"string", "number", "boolean", "array"}));
  CHECK(parameter.at("anyOf").at(1).at("properties").contains("choices"));
}

TEST_CASE("each component is a choice of its kind", "[config][schema]") {
  const value schema = pipeline_json_schema(testing::small_catalog());
  std::vector<std::string> sinks;
  for (const value& choice : at(schema, "/$defs/sink/oneOf")) {
    sinks.push_back(choice.contains("enum") ? choice.at("enum").dump()
                                            : choice.at("required").at(0).get<std::string>());
  }
  CHECK(sinks == std::vector<std::string>{"drop", "http", "sqlite", "topic", "[\"drop\"]"});
  CHECK(at(schema, "/$defs/step/oneOf/0/properties").contains("name"));
  CHECK_FALSE(at(schema, "/$defs/sink/oneOf/0/properties").contains("name"));
}

TEST_CASE("secrets are marked and take references only", "[config][schema]") {
  const value schema = pipeline_json_schema(testing::small_catalog());
  for (const value& source : at(schema, "/$defs/source/oneOf")) {
    if (!source.contains("properties") || !source.at("properties").contains("webhook")) continue;
    const value secret = at(source, "/properties/webhook/properties/signature/properties/secret");
    CHECK(secret.at("writeOnly") == true);
    CHECK(secret.at("pattern").get<std::string>().find("env|file|secret") != std::string::npos);
    return;
  }
  FAIL("no webhook in the schema");
}

namespace {

// The first schema of an object, however deep, that has such a property; or null.
const value* with_property(const value& schema, const std::string& name) {
  if (!schema.is_structured()) return nullptr;
  if (schema.is_object() && schema.contains("properties") && schema.at("properties").contains(name)) return &schema;
  for (const value& child : schema) {
    if (const value* found = with_property(child, name)) return found;
  }
  return nullptr;
}

}  // namespace

TEST_CASE("what depends on a choice is allowed and required beside it only", "[config][schema]") {
  const value schema = pipeline_json_schema(testing::small_catalog());
  const value* signature = with_property(schema, "tolerance");
  REQUIRE(signature);
  CHECK_FALSE(signature->contains("required"));
  const auto condition_of = [&](const std::string& name) {
    for (const value& one : signature->at("allOf")) {
      if (one.contains("else") && one.at("else").at("properties").contains(name)) return one;
    }
    return value();
  };
  // Without a scheme it is hmac-sha256, so that the condition holds, too.
  CHECK(condition_of("header") ==
        value::parse(R"({"if": {"properties": {"scheme": {"enum": ["hmac-sha256", "hmac-sha1", "hmac-sha512"]}}},
                         "else": {"properties": {"header": false}}, "then": {"required": ["header"]}})"));
  CHECK(condition_of("tolerance") ==
        value::parse(R"({"if": {"properties": {"scheme": {"enum": ["stripe", "standard"]}}, "required": ["scheme"]},
                         "else": {"properties": {"tolerance": false}}})"));
  CHECK(condition_of("secret").is_null());
}

}  // namespace penstock::config
