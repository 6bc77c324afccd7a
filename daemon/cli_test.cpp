#include "daemon/cli_test.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "config/definition.hpp"
#include "daemon/cli_commands.hpp"
#include "daemon/cli_output.hpp"
#include "runtime/pipeline_test_run.hpp"
#include "runtime/registry.hpp"

namespace penstock::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_shown = 5;           // differences of one list; with --json, all
constexpr std::size_t longest_shown = 1'000;    // characters of one event, likewise

// ---- what is tested ----

struct tested {
  const config::pipeline_test* test;
  runtime::test_outcome outcome;
  double milliseconds = 0;
};

// ---- as text ----

std::string shortened(std::string text) {
  if (text.size() <= longest_shown) return text;
  std::size_t end = longest_shown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not within a character
  return text.substr(0, end) + "…";
}

std::string in_milliseconds(double ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", ms);
  return text;
}

void show_mismatch(std::ostream& out, const std::string& noun, const config::mismatch& one) {
  const char* how = !one.got ? " is missing" : !one.expected ? " is one too many" : " differs";
  out << "          " << noun << ' ' << one.index + 1 << how << (one.detail.empty() ? "" : ": ") << shortened(one.detail) << '\n';
  if (one.expected) out << "            expected  " << shortened(one.expected->dump()) << '\n';
  if (one.got) out << "            got       " << shortened(one.got->dump()) << '\n';
}

void show_unmet(std::ostream& out, const config::unmet_expectation& unmet) {
  const std::string noun = unmet.where == "dead" ? "dead letter" : "event";
  out << "        " << unmet.where << ": " << unmet.expected << ' ' << noun << (unmet.expected == 1 ? "" : "s") << " expected, "
      << unmet.got << " came\n";
  for (std::size_t i = 0; i < std::min(most_shown, unmet.mismatches.size()); ++i) show_mismatch(out, noun, unmet.mismatches[i]);
  if (unmet.mismatches.size() > most_shown) out << "          and " << unmet.mismatches.size() - most_shown << " more differences\n";
}

void show_tested(std::ostream& out, const std::string& file, const tested& one) {
  const bool passed = one.outcome.passed();
  out << (passed ? "ok      " : "FAILED  ") << file << ':' << one.test->at.line << ": " << one.test->name << " ("
      << in_milliseconds(one.milliseconds) << ")\n";
  if (!one.outcome.failure.empty()) out << "        it cannot be run: " << one.outcome.failure << '\n';
  for (const auto& unmet : one.outcome.unmet) show_unmet(out, unmet);
  out.flush();  // the next test may take its time
}

// ---- as JSON ----

document as_json(const config::unmet_expectation& unmet) {
  document differences = document::array();
  for (const config::mismatch& one : unmet.mismatches) {
    document entry{{"index", one.index}};
    if (one.expected) entry["expected"] = *one.expected;
    if (one.got) entry["got"] = *one.got;
    if (!one.detail.empty()) entry["detail"] = one.detail;
    differences.push_back(std::move(entry));
  }
  return {{"where", unmet.where}, {"expected", unmet.expected}, {"got", unmet.got}, {"differences", std::move(differences)}};
}

document as_json(const tested& one) {
  document unmet = document::array();
  for (const auto& part : one.outcome.unmet) unmet.push_back(as_json(part));
  document entry{{"name", one.test->name},
                 {"line", one.test->at.line},
                 {"passed", one.outcome.passed()},
                 {"duration_ms", one.milliseconds},
                 {"unmet", std::move(unmet)}};
  if (!one.outcome.failure.empty()) entry["failure"] = one.outcome.failure;
  return entry;
}

// ---- all of it ----

class session {
 public:
  session(const test_options& options, std::ostream& out) : options_(options), out_(out) {}

  int run() {
    for (const std::string& file : definition_files(options_.files)) run_file(file);
    if (!options_.names.empty() && passed_ + failed_ == 0 && broken_ == 0) throw usage_error("no test is named like " + options_.names.front());
    show_totals();
    return broken_ > 0 ? exit_usage : failed_ > 0 ? exit_no : exit_ok;
  }

 private:
  void run_file(const std::string& file) {
    const std::string shown = file == "-" ? "stdin" : file;
    document entry{{"file", shown}, {"valid", true}, {"errors", document::array()}, {"tests", document::array()}};
    const auto parsed = config::parse_pipeline(read_file(file), components_.catalog(), {.file = shown});
    if (!parsed) {
      ++broken_;
      entry["valid"] = false;
      entry["errors"] = cli::as_json(parsed.error());
      if (!options_.json) show_error(out_, parsed.error(), shown);
    } else {
      if (parsed->tests.empty() && !options_.json) out_ << "ok      " << shown << ": has no tests\n";
      const fs::path folder = file == "-" ? fs::current_path() : fs::absolute(file).lexically_normal().parent_path();
      for (const config::pipeline_test& test : parsed->tests) {
        if (!is_wanted(test.name)) continue;
        const tested one = run_test(*parsed, test, folder);
        if (options_.json) entry["tests"].push_back(as_json(one));
        if (!options_.json) show_tested(out_, shown, one);
      }
    }
    files_.push_back(std::move(entry));
  }

  tested run_test(const config::pipeline& pipeline, const config::pipeline_test& test, const fs::path& folder) {
    const auto began = std::chrono::steady_clock::now();
    tested one{.test = &test, .outcome = runtime::run_pipeline_test(components_, pipeline, test, folder)};
    one.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
    ++(one.outcome.passed() ? passed_ : failed_);
    return one;
  }

  bool is_wanted(const std::string& name) const {
    return options_.names.empty() || std::any_of(options_.names.begin(), options_.names.end(), [&](const std::string& part) {
             return name.find(part) != std::string::npos;
           });
  }

  void show_totals() {
    if (options_.json) {
      const document all{{"passed", passed_}, {"failed", failed_}, {"invalid", broken_}, {"files", std::move(files_)}};
      out_ << all.dump(2) << '\n';
      return;
    }
    out_ << passed_ << " passed, " << failed_ << " failed";
    if (broken_ > 0) out_ << ", " << broken_ << (broken_ == 1 ? " file is" : " files are") << " not valid";
    out_ << '\n';
  }

  const test_options& options_;
  std::ostream& out_;
  const runtime::registry components_ = runtime::make_registry();
  document files_ = document::array();
  int passed_ = 0, failed_ = 0, broken_ = 0;
};

}  // namespace

int test(const test_options& options, std::ostream& out) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("penstock"));  // what the step `log` shows
  spdlog::set_pattern("%v");
  std::signal(SIGPIPE, SIG_IGN);  // a step's program may have gone when its input is written
  return session(options, out).run();
}

}  // namespace penstock::cli
