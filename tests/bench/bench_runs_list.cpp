// How long a page of GET /v1/runs takes with a million runs in state.db: every combination of the filters, first page
// and later ones, with values that change from call to call; beside each the floor: the same 50 rows by their ids
// from the same file. Prints medians and 99th percentiles; asserts nothing.
//
// Usage: bench_runs_list [runs] [calls]   (default 1000000 300)
//        bench_runs_list --fill FILE RUNS    nothing but so many ended runs, put into the state.db of a daemon that is down
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <boost/asio/thread_pool.hpp>

#include "runtime/sqlite.hpp"
#include "scheduler/store.hpp"
#include "scheduler/store_rows.hpp"
#include "scheduler/store_timeline.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace penstock;
using namespace penstock::scheduler;
using namespace std::chrono_literals;
namespace sqlite = penstock::runtime::sqlite;

const timestamp begin = from_micros(1'800'000'000'000'000);
constexpr auto apart = 3s;  // a run every three seconds: a million are 35 days
constexpr int pipelines = 100;
constexpr int jobs = 10;  // of each; the same names in all

class dice {
 public:
  std::int64_t below(std::int64_t n) { return std::uniform_int_distribution<std::int64_t>(0, n - 1)(source_); }

 private:
  std::mt19937_64 source_{7};
};

std::string id_of(std::int64_t i) {
  std::string tail = std::to_string(i);
  return rows::id_prefix(begin + apart * i) + std::string(16 - tail.size(), '0') + tail;
}

// Of a thousand runs: 940 succeeded, 40 failed, 10 cancelled, 5 timed out, 5 skipped; the newest ones are unfinished.
run_state state_of(std::int64_t i, std::int64_t unfinished_from, dice& random) {
  using enum run_state;
  if (i >= unfinished_from) return std::array{queued, running, retrying}[static_cast<std::size_t>(i % 3)];
  const auto n = random.below(1000);
  return n < 940 ? succeeded : n < 980 ? failed : n < 990 ? cancelled : n < 995 ? timed_out : skipped;
}

std::string timeline_of(timestamp at, run_state end) {
  std::string lines = rows::timeline_line(
      {at, "queued", "made by topic trigger, 5 events of orders; waits: another run of this job is active"});
  lines += rows::timeline_line({at + 1s, "running", "attempt 1"});
  return lines + rows::timeline_line({at + 2s, std::string(token(end)), ""});
}

void fill(const std::filesystem::path& file, std::int64_t runs, std::int64_t unfinished) {
  sqlite::connection db(file, sqlite::open_mode::read_write_create);
  db.execute("PRAGMA synchronous = OFF");
  sqlite::transaction all(db);
  sqlite::statement insert(
      db, "INSERT INTO runs (id, pipeline, job, revision, state, trigger_kind, waiting_reason, reason, attempt,"
          " interruptions, scheduled_for, upstream_run, input_kind, input_topic, input_after, input_until,"
          " input_open, input_events, params, created_at, started_at, ended_at, timeline) VALUES (?1, ?2, ?3, 1, ?4,"
          " 'topic', '', ?5, 1, 0, NULL, '', 'topic', 'orders', ?6, ?6 + 5, 0, 5,"
          " '{\"region\":\"north\",\"dry\":false}', ?7, ?7, ?8, ?9)");
  dice random;
  for (std::int64_t i = 0; i < runs; ++i) {
    const timestamp at = begin + apart * i;
    const run_state state = state_of(i, runs - unfinished, random);
    // One run in ten thousand belongs to a pipeline that hardly runs.
    const std::string pipeline = i % 10'000 == 5 ? "rare" : "pipeline-" + std::to_string(random.below(pipelines));
    std::optional<timestamp> ended;
    if (is_final(state)) ended = at + 2s;
    const std::string reason = state == run_state::failed ? "task main: exit code 1" : "";
    const std::string timeline = timeline_of(at, state);
    const std::string job = "job-" + std::to_string(random.below(jobs));
    const std::string id = id_of(i);
    rows::with(insert, id, pipeline, job, state, reason, i * 5, at, ended, timeline).run();
  }
  all.commit();
}

// Microseconds. Beside the time that passed, that of this thread alone: what the 99th percentile is on a machine that
// does nothing else.
struct figures {
  double median = 0, p99 = 0, own_p99 = 0;
};

double thread_time() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

figures timed(std::size_t calls, const std::function<void(std::size_t)>& call) {
  std::vector<double> took, own;
  for (std::size_t i = 0; i < calls; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double own_start = thread_time();
    call(i);
    own.push_back(thread_time() - own_start);
    took.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(took.begin(), took.end());
  std::sort(own.begin(), own.end());
  return {took[calls / 2], took[calls * 99 / 100], own[calls * 99 / 100]};
}

enum parts : unsigned {
  by_pipeline = 1,
  by_job = 2,
  by_state = 4,
  by_since = 8,
  by_until = 16,
  later_page = 32,
  all_parts = 64
};

run_filter filter_of(unsigned with, std::int64_t runs, dice& random) {
  using enum run_state;
  run_filter f;
  if (with & by_pipeline) {
    f.pipeline = random.below(20) ? "pipeline-" + std::to_string(random.below(pipelines)) : "rare";
  }
  if (with & by_job) f.job = "job-" + std::to_string(random.below(jobs));
  if (with & by_state) {
    const std::array<std::vector<run_state>, 6> choices{{{succeeded}, {failed}, {queued, running, retrying},
                                                         {failed, timed_out, cancelled}, {skipped}, {queued}}};
    f.states = choices.at(static_cast<std::size_t>(random.below(6)));
  }
  const auto since = random.below(runs);
  if (with & by_since) f.since = begin + apart * since;
  if (with & by_until) f.until = begin + apart * (with & by_since ? since + random.below(runs - since) : since);
  if (with & later_page) f.before_id = id_of(random.below(runs));
  return f;
}

std::string name_of(unsigned with) {
  std::string name;
  const auto add = [&](unsigned part, const char* word) {
    if (with & part) name += (name.empty() ? "" : " ") + std::string(word);
  };
  add(by_pipeline, "pipeline");
  add(by_job, "job");
  add(by_state, "state");
  add(by_since, "since");
  add(by_until, "until");
  add(later_page, "later");
  return name.empty() ? "all" : name;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "--fill") {
    fill(argv[2], std::atoll(argv[3]), 0);
    return 0;
  }
  const std::int64_t runs = argc > 1 ? std::atoll(argv[1]) : 1'000'000;
  const auto calls = static_cast<std::size_t>(argc > 2 ? std::atoll(argv[2]) : 300);
  if (runs < 1000 || calls < 1) {
    std::fprintf(stderr, "usage: bench_runs_list [runs, at least 1000] [calls]\n");
    return 2;
  }
  const penstock::testing::temp_dir dir;
  const auto file = dir / "state.db";
  boost::asio::thread_pool thread(1);
  { store make(file, thread.get_executor()); }
  fill(file, runs, 60);
  std::printf("%lld runs, %.0f MiB, %zu calls each; microseconds\n", static_cast<long long>(runs),
              static_cast<double>(std::filesystem::file_size(file)) / (1 << 20), calls);
  std::printf("%-40s %8s %8s %8s %8s %8s %8s %6s\n", "filter", "median", "p99", "own p99", "floor", "p99", "own p99",
              "rows");

  store db(file, thread.get_executor());
  sqlite::connection plain(file, sqlite::open_mode::read_only);
  sqlite::statement by_id(plain, rows::select_runs("WHERE id = ?1"));
  figures worst{};
  for (unsigned with = 0; with < all_parts; ++with) {
    dice random;
    std::vector<run_filter> filters;
    std::vector<std::vector<std::string>> pages;
    std::size_t found = 0;
    for (std::size_t i = 0; i < calls; ++i) filters.push_back(filter_of(with, runs, random));
    const figures ours = timed(calls, [&](std::size_t i) {
      pages.emplace_back();
      for (const auto& r : db.runs(filters[i])) pages.back().push_back(r.id);
    });
    const figures floor = timed(calls, [&](std::size_t i) {
      for (const auto& id : pages[i]) found += rows::one(rows::with(by_id, id), rows::run_from).has_value() ? 1 : 0;
    });
    worst = {std::max(worst.median, ours.median), std::max(worst.p99, ours.p99), std::max(worst.own_p99, ours.own_p99)};
    std::printf("%-40s %8.0f %8.0f %8.0f %8.0f %8.0f %8.0f %6.1f\n", name_of(with).c_str(), ours.median, ours.p99,
                ours.own_p99, floor.median, floor.p99, floor.own_p99,
                static_cast<double>(found) / static_cast<double>(calls));
  }
  std::printf("worst: median %.0f, p99 %.0f, own p99 %.0f\n", worst.median, worst.p99, worst.own_p99);
}
