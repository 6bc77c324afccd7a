// The registry, and every component's description of itself: what it shows as an example must be a definition
// that the program accepts and can make.
#include <algorithm>
#include <regex>
#include <set>
#include <stdlib.h>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/registry.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_registry {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;

namespace {

std::string indented(const std::string& text, const std::string& by) {
  std::string out = by;
  for (const char c : text) {
    out += c;
    if (c == '\n') out += by;
  }
  return out;
}

// A pipeline whose one flow uses the example.
std::string pipeline_with(config::component_kind kind, const std::string& example) {
  std::string text = "name: example\nflows:\n  tried:\n    from:\n";
  text +=
      indented(kind == config::component_kind::source ? example : "generate: {count: 1}", "      ") + "\n";
  if (kind == config::component_kind::step)
    text += "    steps:\n      -\n" + indented(example, "        ") + "\n";
  text += "    to:\n";
  text += indented(kind == config::component_kind::sink ? example : "drop: {}", "      ") + "\n";
  return text;
}

// With the outputs that it needs: a definition without them is told which these are.
std::string definition_of(const config::component_spec& spec, const std::string& example, const registry& components) {
  const std::string text = pipeline_with(spec.kind, example);
  const auto parsed = config::parse_pipeline(text, components.catalog(), {.stored = true});
  if (parsed || !spec.outputs) return text;
  std::string outputs;
  for (const problem& p : parsed.error().problems) {
    std::smatch named;
    if (std::regex_search(p.detail, named, std::regex("'outputs: \\{(.*): drop\\}'"))) outputs += named.str(1) + ": drop, ";
  }
  return text + "    outputs: {" + outputs + "}\n";
}

std::string problems_of(const config::component_spec& spec, const std::string& example,
                        const registry& components) {
  const auto parsed =
      config::parse_pipeline(definition_of(spec, example, components), components.catalog(), {.stored = true});
  if (parsed) return {};
  std::string all = parsed.error().detail;
  for (const problem& p : parsed.error().problems) all += "\n" + config::describe(p, spec.name);
  return all;
}

void for_each_spec(const registry& components,
                   const std::function<void(const config::component_spec&)>& call) {
  const config::catalog& all = components.catalog();
  for (const auto* kind : {&all.sources, &all.steps, &all.sinks}) {
    for (const auto& [name, spec] : *kind) call(spec);
  }
}

void for_each_field(const config::field& f, const std::function<void(const config::field&)>& call) {
  for (const config::field& child : f.children) {
    call(child);
    for_each_field(child, call);
  }
}

config::component_spec named(config::component_kind kind, const std::string& name) {
  return {.kind = kind,
          .name = name,
          .doc = "d",
          .settings = {.name = name, .type = config::field_type::object, .doc = ""}};
}

std::unique_ptr<sink> no_sink(const config::value&, const component_context&) { return nullptr; }
std::unique_ptr<source> no_source(const config::value&, const component_context&) { return nullptr; }

}  // namespace

TEST_CASE("every component's examples fit its own record and can be made", "[registry]") {
  flow_bench b;
  ::setenv("WEBHOOK_SECRET", "s", 1);
  ::setenv("ALERTS_TOKEN", "t", 1);
  b.write_file("github", "s\n");
  b.write_file("billing", "whsec_bmV3\n");
  b.write_file("billing_old", "whsec_b2xk\n");
  b.offered.secrets.secrets_dir = b.dir.path();
  const component_context context{b.offered, "example", "example/flow/tried", b.dir.path(),
                                  b.pool.get_executor()};

  for_each_spec(b.components, [&](const config::component_spec& spec) {
    INFO("component " << spec.name);
    CHECK_FALSE(spec.examples.empty());
    CHECK_FALSE(spec.doc.empty());
    for (const std::string& example : spec.examples) {
      INFO(example);
      CHECK(problems_of(spec, example, b.components) == "");
      const auto parsed = config::parse_pipeline(definition_of(spec, example, b.components), b.components.catalog(),
                                                 {.stored = true});
      if (!parsed) continue;
      const auto& made = std::get<config::dataflow>(parsed->flows.at("tried").does);
      const auto& tried = spec.kind == config::component_kind::source ? *made.from
                          : spec.kind == config::component_kind::sink ? *made.to
                                                                      : made.steps.at(0);
      if (spec.check) CHECK_NOTHROW(spec.check(tried.settings, {.in_run = true, .input_ends = true}));
      CHECK(b.components.source_of(*made.from, context));
      for (const auto& step : made.steps) CHECK(b.components.step_of(step, context));
      CHECK(b.components.sink_of(*made.to, context));
    }
  });
}

TEST_CASE("every setting is documented and every choice is a default of its own field", "[registry]") {
  const registry components = make_registry();
  for_each_spec(components, [](const config::component_spec& spec) {
    std::set<std::string> names;
    for (const config::field& f : spec.settings.children) CHECK(names.insert(f.name).second);
    for_each_field(spec.settings, [&](const config::field& f) {
      INFO(spec.name << "." << f.name);
      CHECK_FALSE(f.doc.empty());
      if (f.type == config::field_type::choice && !f.fallback.empty()) {
        CHECK(std::count(f.choices.begin(), f.choices.end(), f.fallback) == 1);
      }
      CHECK_FALSE((f.required && !f.fallback.empty()));
    });
    const std::string& shorthand = spec.settings.shorthand;
    if (!shorthand.empty()) CHECK(names.contains(shorthand));
  });
}

TEST_CASE("the components that the design promises are there", "[registry]") {
  const registry components = make_registry();
  const config::catalog& all = components.catalog();
  for (const char* name : {"webhook", "topic", "file", "generate"}) CHECK(all.sources.contains(name));
  for (const char* name : {"filter", "map", "script", "dedupe"}) CHECK(all.steps.contains(name));
  for (const char* name : {"topic", "file", "sqlite", "http", "stdout", "drop"})
    CHECK(all.sinks.contains(name));
  CHECK(all.sources.at("file").bounded);
  CHECK_FALSE(all.sources.at("topic").bounded);
  CHECK(all.check_lua("event.total >", false).has_value());
  CHECK_FALSE(all.check_lua("event.total > 5", false).has_value());
}

TEST_CASE("settings that make no sense are found before anything runs", "[registry]") {
  const registry components = make_registry();
  const auto problems = [&](config::component_kind kind, const std::string& text) {
    return problems_of(
        config::component_spec{.kind = kind, .name = "x", .doc = "", .settings = {.name = "x", .doc = ""}},
        text, components);
  };
  using config::component_kind;
  CHECK_THAT(problems(component_kind::source, "webhook: {pth: /a}"), Contains("path"));
  CHECK_THAT(problems(component_kind::source, "webhook: {path: /a, signature: {header: X, secret: plain}}"),
             Contains("secret"));
  CHECK_THAT(problems(component_kind::source, "generate: {count: 0}"), Contains("count"));
  CHECK_THAT(problems(component_kind::source, "file: {path: a.csv, delimiter: ';'}"), Contains("semicolon"));
  CHECK_THAT(problems(component_kind::sink, "sqlite: {file: a.db}"), Contains("table"));
  CHECK_THAT(problems(component_kind::sink, "http: {url: 'http://a', method: GET}"), Contains("POST"));
  CHECK_THAT(problems(component_kind::sink, "topic: {topic: a, key: 'event.'}"), Contains("key"));
}

TEST_CASE("a name stands for one component of a kind", "[registry]") {
  registry r;
  r.add(named(config::component_kind::sink, "a"), registry::make_sink(no_sink));
  r.add(named(config::component_kind::source, "a"), registry::make_source(no_source));
  CHECK_THROWS_WITH(r.add(named(config::component_kind::sink, "a"), registry::make_sink(no_sink)),
                    Contains("twice"));
  CHECK_THROWS_WITH(r.add(named(config::component_kind::source, "b"), registry::make_sink(no_sink)),
                    Contains("another kind"));
}

TEST_CASE("a component of a newer version is named in the failure", "[registry]") {
  flow_bench b;
  const component_context context{b.offered, "p", "p/flow/f", b.dir.path(), b.pool.get_executor()};
  CHECK_THROWS_WITH(b.components.sink_of(testing::use("teleport", {}), context), Contains("teleport"));
}

TEST_CASE("a secret without a value stops a component from being made, and only the reference is shown",
          "[registry]") {
  flow_bench b;
  ::unsetenv("NO_SUCH_SECRET");
  const component_context context{b.offered, "p", "p/flow/f", b.dir.path(), b.pool.get_executor()};
  CHECK_THROWS_WITH(context.reveal("Bearer ${env:NO_SUCH_SECRET}"), Contains("NO_SUCH_SECRET"));
  CHECK(context.reveal("plain") == "plain");
}

}  // namespace test_registry
