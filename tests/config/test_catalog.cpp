#include "test_catalog.hpp"

#include <algorithm>

namespace penstock::testing {
namespace {

using namespace config;

component_spec webhook() {
  const field signature{
      .name = "signature",
      .type = field_type::object,
      .children = {{.name = "scheme",
                    .type = field_type::choice,
                    .required = true,
                    .choices = {"hmac-sha256", "github"}},
                   {.name = "header"},
                   {.name = "secret", .required = true, .secret = true}},
  };
  return {
      .kind = component_kind::source,
      .name = "webhook",
      .doc = "Events posted to /hooks",
      .settings = {.type = field_type::object, .children = {{.name = "path", .required = true}, signature}}};
}

component_spec topic(component_kind kind) {
  return {.kind = kind,
          .name = "topic",
          .doc = "A durable topic",
          .settings = {.type = field_type::object,
                       .children = {{.name = "topic", .type = field_type::name, .required = true}},
                       .shorthand = "topic"},
          .examples = {"topic: orders"}};
}

component_spec file_source() {
  return {.kind = component_kind::source,
          .name = "file",
          .doc = "Lines of files",
          .settings = {.type = field_type::object,
                       .children = {{.name = "path",
                                     .type = field_type::list,
                                     .required = true,
                                     .children = {{.name = "path"}},
                                     .minimum = 1,
                                     .single_allowed = true},
                                    {.name = "format",
                                     .type = field_type::choice,
                                     .fallback = "ndjson",
                                     .choices = {"ndjson", "csv", "lines"}},
                                    {.name = "since", .type = field_type::time}},
                       .shorthand = "path"},
          .bounded = true,
          .live = false};
}

component_spec generate() {
  return {
      .kind = component_kind::source,
      .name = "generate",
      .doc = "Made-up events",
      .settings =
          {.type = field_type::object,
           .children = {{.name = "every", .type = field_type::duration, .fallback = "1s", .minimum = 0.001},
                        {.name = "jitter", .type = field_type::number, .minimum = 0, .maximum = 1},
                        {.name = "count", .type = field_type::integer},
                        {.name = "data", .type = field_type::any}}},
      .bounded = true};
}

component_spec step(std::string name, field settings) {
  return {.kind = component_kind::step, .name = std::move(name), .doc = "", .settings = std::move(settings)};
}

component_spec sqlite() {
  return {
      .kind = component_kind::sink,
      .name = "sqlite",
      .doc = "Rows of a table",
      .settings = {
          .type = field_type::object,
          .children = {{.name = "file", .required = true},
                       {.name = "table", .type = field_type::name, .required = true},
                       {.name = "mode",
                        .type = field_type::choice,
                        .fallback = "append",
                        .choices = {"append", "upsert"}},
                       {.name = "key", .type = field_type::list, .children = {{.name = "column"}}},
                       {.name = "cache", .type = field_type::size, .fallback = "8MiB", .maximum = 1 << 30}}}};
}

component_spec http() {
  return {.kind = component_kind::sink,
          .name = "http",
          .doc = "Requests",
          .settings =
              {.type = field_type::object,
               .children = {{.name = "url", .required = true},
                            {.name = "method",
                             .type = field_type::choice,
                             .fallback = "POST",
                             .choices = {"POST", "PUT"}},
                            {.name = "headers", .type = field_type::map, .children = {{.name = "value"}}},
                            {.name = "compress", .type = field_type::boolean, .fallback = "false"},
                            {.name = "retry", .type = field_type::duration_range, .fallback = "1s..30s"}}},
          .examples = {"http: {url: \"https://example.org/\"}"}};
}

component_spec drop() {
  return {.kind = component_kind::sink,
          .name = "drop",
          .doc = "Nowhere",
          .settings = {.type = field_type::object}};
}

std::optional<std::string> unbalanced(std::string_view text, bool) {
  if (std::count(text.begin(), text.end(), '(') == std::count(text.begin(), text.end(), ')'))
    return std::nullopt;
  return "')' expected near <eof>";
}

catalog made() {
  const auto keyed = [](std::initializer_list<component_spec> specs) {
    std::map<std::string, component_spec, std::less<>> out;
    for (const auto& spec : specs) out.emplace(spec.name, spec);
    return out;
  };
  return {
      .sources = keyed({webhook(), topic(component_kind::source), file_source(), generate()}),
      .steps = keyed(
          {step("filter", {.type = field_type::expression}),
           step("map",
                {.type = field_type::map, .children = {{.type = field_type::expression}}, .minimum = 1}),
           step("script", {.type = field_type::script})}),
      .sinks = keyed({topic(component_kind::sink), sqlite(), http(), drop()}),
      .check_lua = unbalanced,
  };
}

}  // namespace

const catalog& small_catalog() {
  static const catalog all = made();
  return all;
}

}  // namespace penstock::testing
