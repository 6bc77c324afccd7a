// Definitions, with all components: what is wrong is told with its place; what is taken means the same when it is read again
// in the form that REST shows and in its canonical text, and has no difference from itself.
#include <string>

#include <nlohmann/json.hpp>

#include "api/json.hpp"
#include "config/definition.hpp"
#include "config/diff.hpp"
#include "config/document_diff.hpp"
#include "runtime/registry.hpp"
#include "scheduler/plan.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

const config::catalog& components() {
  static const runtime::registry all = runtime::make_registry();
  return all.catalog();
}

void check_problems(const std::vector<problem>& problems) {
  for (const problem& p : problems) {
    require(!p.detail.empty(), "a problem says what is wrong");
    require(p.pointer.empty() || p.pointer.front() == '/', "a pointer is one", p.pointer);
    require(p.line >= 0 && p.column >= 0, "a place is one");
    const std::string shown = api::to_text(api::to_json(p));
    require(nlohmann::json::accept(shown), "a problem is shown as JSON", shown);
    require(config::describe(p, "a.yaml").find('\n') == std::string::npos, "a problem is one line", config::describe(p, "a.yaml"));
  }
}

config::pipeline read_again(const std::string& text, const config::pipeline& first, const char* what) {
  auto again = config::parse_pipeline(text, components());
  if (!again) {
    const auto& e = again.error();
    require(false, what, text + "\n" + e.detail + (e.problems.empty() ? "" : "\n" + config::describe(e.problems.front(), "")));
  }
  require(config::field_changes(again->document, first.document).empty(), what, text + "\n---\n" + again->document.dump());
  require(config::diff(&first, &*again).empty(), what, text);
  return std::move(*again);
}

void try_plan(const config::pipeline& p) {
  const timestamp now = from_micros(1'774'000'000'000'000);
  const auto changes = config::diff(nullptr, &p);
  const scheduler::plan made = scheduler::make_plan({
      .after = p,
      .changes = changes,
      .components = components(),
      .before_label = "nothing",
      .after_label = "new",
      .now = now,
      .last_firing = [](const std::string&, const std::string&) { return std::nullopt; },
  });
  require(nlohmann::json::accept(api::to_text(api::to_json(made))), "a plan is JSON");
  require(made.topics.size() == p.topics.size() && made.flows.size() == p.flows.size() && made.jobs.size() == p.jobs.size(),
          "from nothing all parts are new");
  for (const auto& schedule : made.schedules) {
    require(schedule.next.size() <= scheduler::planned_firings, "a plan is bounded");
    for (std::size_t i = 1; i < schedule.next.size(); ++i) require(schedule.next[i - 1].at < schedule.next[i].at, "firings are in order");
  }
}

}  // namespace

void try_input(std::string_view text) {
  const auto first = config::parse_pipeline(text, components());
  if (!first) {
    require(!first.error().detail.empty() || !first.error().problems.empty(), "a refusal says why");
    check_problems(first.error().problems);
    return;
  }
  check_problems(first->warnings);
  const std::string as_json = first->document.dump();
  read_again(as_json, *first, "a definition is read as REST shows it");
  const std::string canonical = config::canonical_text(first->document);
  const config::pipeline again = read_again(canonical, *first, "a definition is read as its canonical text");
  require(config::canonical_text(again.document) == canonical, "there is one canonical text", canonical);
  require(config::field_changes(first->document, again.document).empty(), "nothing differs from itself");
  require(config::unified_diff(canonical, canonical, "a", "b").empty(), "nothing differs from itself");
  try_plan(*first);
}

}  // namespace penstock::fuzz
