// What a program reads and prints: events on stdin, the log, events to a sink.
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/runtime/command_world.hpp"

namespace test_command_pipes {

using namespace penstock;
using namespace penstock::testing;

TEST_CASE("command: reads its events as NDJSON until their end", "[command_run]") {
  world w;
  auto options = w.sh("wc -lc; head -c 1 | wc -c");
  made_source::record record;
  const auto strand = w.strand();
  options.input = std::make_unique<made_source>(record, strand, 10'000, 1000);
  CHECK(w.run(std::move(options), strand).ok());
  CHECK(record.opened);
  CHECK(record.acknowledged == 10'000);
  CHECK(contains(w.log(), "10000 10010000\n"));
  CHECK(contains(w.log(), " o 0\n"));
}

TEST_CASE("command: no input is an empty stdin", "[command_run]") {
  world w;
  CHECK(w.run(w.sh("wc -c")).ok());
  CHECK(contains(w.log(), " o 0\n"));
}

TEST_CASE("command: 10 MB that it never reads do not keep it", "[command_run]") {
  world w;
  auto options = w.sh("exit 0");
  made_source::record record;
  const auto strand = w.strand();
  options.input = std::make_unique<made_source>(record, strand, 10'000, 1000);
  CHECK(w.run(std::move(options), strand).ok());
  CHECK(record.acknowledged < 10'000);
  CHECK(record.stopped_already);
}

TEST_CASE("command: it had enough, closes stdin, and works on", "[command_run]") {
  world w;
  fifo go(w.dir / "go");
  auto options = w.sh("head -n 1 > /dev/null; exec <&-; read x < " + go.path() + "; echo went on");
  made_source::record record;
  const auto strand = w.strand();
  options.input = std::make_unique<made_source>(record, strand, 1'000'000, 1000);
  auto run = w.make(std::move(options), strand);
  auto ended = w.start(*run);
  record.stopped.get_future().wait();  // the source is told to stop while the program still runs
  go.let_go();
  CHECK(ended.get().ok());
  CHECK(contains(w.log(), " o went on\n"));
}

TEST_CASE("command: when it ends, an input that waits for more is stopped", "[command_run]") {
  world w;
  auto options = w.sh("head -n 1 > /dev/null");
  made_source::record record;
  const auto strand = w.strand();
  auto input = std::make_unique<made_source>(record, strand, 1, 10);
  input->endless();
  options.input = std::move(input);
  CHECK(w.run(std::move(options), strand).ok());
  CHECK(record.acknowledged == 1);
}

TEST_CASE("command: half an input is no success", "[command_run]") {
  world w;
  auto options = w.sh("cat > /dev/null");
  made_source::record record;
  const auto strand = w.strand();
  auto input = std::make_unique<made_source>(record, strand, 10, 10);
  input->failing();
  options.input = std::move(input);
  const auto outcome = w.run(std::move(options), strand);
  CHECK_FALSE(outcome.ok());
  CHECK(outcome.input_failure == "the topic is gone");
  CHECK(contains(outcome.reason, "its input failed: the topic is gone"));
}

TEST_CASE("command: stdout closed early is no end", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto run = w.make(w.sh("echo before; exec >&- 2>&-; read x < " + ready.path() + "; touch after; exit 6"));
  auto ended = w.start(*run);
  ready.let_go();
  CHECK(ended.get().exit_code == 6);
  CHECK(std::filesystem::exists(w.dir / "work" / "after"));
  CHECK(contains(w.log(), " o before\n"));
}

TEST_CASE("command: 100 MB into a log of 64 KiB: its beginning and its end are kept", "[command_run]") {
  world w;
  auto options = w.sh("echo first; yes 'some line of output' | head -c 100000000; echo; echo end; echo really >&2");
  options.log_limit_bytes = 64 << 10;
  CHECK(w.run(std::move(options)).ok());
  const auto log = w.log();
  CHECK(log.size() < 2 * (64 << 10) + 1000);
  CHECK(contains(log.substr(0, 50), " o first\n"));
  CHECK(contains(log, " - the log's limit of 64KiB is reached: of further output only the last is stored, at the end\n"));
  CHECK(contains(log, " - 95MiB of output were not stored; the last lines follow\n"));
  CHECK(contains(log, " o end\n"));
  CHECK(contains(log, " e really\n"));
  CHECK(log.size() > 2 * (64 << 10) - 1000);
}

TEST_CASE("command: a supervised command's log begins anew at its limit", "[command_run]") {
  world w;
  auto options = w.sh("seq 1 2000; printf unfinished");
  options.continuous = true;
  options.log_limit_bytes = 48 << 10;
  CHECK(w.run(std::move(options)).ok());
  const auto older = read_file(w.dir / "logs" / "R" / "main.log.1"), newer = w.log();
  CHECK(contains(older, " o 1\n"));
  CHECK(contains(newer, " o 2000\n"));
  CHECK(contains(newer, " o unfinished\n"));
  CHECK(std::count(older.begin(), older.end(), '\n') + std::count(newer.begin(), newer.end(), '\n') == 2001);
}

TEST_CASE("command: of a supervised command that floods its log, the last words come out while it is silent",
          "[command_run]") {
  world w;
  fifo done(w.dir / "done");
  auto options = w.sh("seq 1 100000; echo last words; echo up > " + done.path() + "; exec tail -f /dev/null");
  options.continuous = true;
  options.log_limit_bytes = 16 << 10;
  options.log_pause = 50ms;
  auto run = w.make(std::move(options));
  auto ended = w.start(*run);
  done.read_line();
  while (!contains(w.log(), " o last words\n")) std::this_thread::yield();
  run->cancel();
  CHECK(ended.get().end == command_end::cancelled);
  CHECK(w.log().size() < 64 << 10);
}

TEST_CASE("command: a flood does not hold up the others", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto flood = w.sh("echo $$ > " + ready.path() + "; exec yes");
  flood.log = w.dir / "logs" / "R" / "flood.log";
  flood.log_limit_bytes = 64 << 10;
  auto run = w.make(std::move(flood));
  auto ended = w.start(*run);
  ready.read_line();
  for (int i = 0; i < 50; ++i) CHECK(w.run(w.sh("echo here")).ok());
  run->cancel();
  CHECK(ended.get().end == command_end::cancelled);
}

TEST_CASE("command: everything it printed is there, however it ended", "[command_run]") {
  world w;
  auto options = w.sh("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; kill -KILL $$");
  CHECK(w.run(std::move(options)).signal == SIGKILL);
  const auto log = w.log();
  CHECK(std::count(log.begin(), log.end(), '\n') == 2000);
  CHECK(contains(log, " o line 1999\n"));
}

TEST_CASE("command: its NDJSON goes to the sink, and what is not JSON to the dead letters", "[command_run]") {
  world w;
  w.sunk.refuse = "{\"n\":3}";
  const auto outcome = w.run(w.sh_to_sink(
      R"(echo '{"n":1}'; echo; echo 'not json' ; printf '{"n":3}\r\n'; echo '{"n":'; echo for the log >&2; printf '[4]')"));
  CHECK(outcome.ok());
  CHECK(w.sunk.payloads == std::vector<std::string>{"{\"n\":1}", "[4]"});
  CHECK(w.sunk.ids == std::vector<std::string>{"p/run/R/main:1", "p/run/R/main:6"});
  CHECK(w.sunk.positions == std::vector<std::int64_t>{1, 6});
  CHECK(w.sunk.opened_with.empty());
  CHECK(w.sunk.closed);
  const auto dead = w.flows_.dead_letters({});
  REQUIRE(dead.size() == 3);
  for (const auto& letter : dead) {
    CHECK(letter.consumer == "p/run/R/main");
    CHECK(letter.pipeline == "p");
    CHECK_FALSE(letter.reason.empty());
    CHECK(letter.step == (letter.data == w.sunk.refuse ? "to" : "stdout"));
  }
  CHECK(w.flows_.load("p/run/R/main").position == 6);
  CHECK(contains(w.log(), " e for the log\n"));
  CHECK(contains(w.log(), "3 lines of its output became dead letters\n"));
  CHECK_FALSE(contains(w.log(), " o "));
}

TEST_CASE("command: much output reaches the sink whole and in order", "[command_run]") {
  world w;
  CHECK(w.run(w.sh_to_sink("seq 1 100000")).ok());
  REQUIRE(w.sunk.payloads.size() == 100'000);
  for (std::size_t i = 0; i < w.sunk.payloads.size(); ++i)
    REQUIRE(w.sunk.payloads[i] == std::to_string(i + 1));
}

TEST_CASE("command: a line that is too long is a dead letter, and the next one is fine", "[command_run]") {
  world w;
  CHECK(w.run(w.sh_to_sink("printf '\"'; head -c 3000000 /dev/zero | tr '\\0' x; echo '\"'; echo 2")).ok());
  CHECK(w.sunk.payloads == std::vector<std::string>{"2"});
  const auto dead = w.flows_.dead_letters({});
  REQUIRE(dead.size() == 1);
  CHECK(contains(dead[0].reason, "longer than 1MiB"));
  CHECK(dead[0].data.size() == 1 << 20);
}

TEST_CASE("command: lines that an earlier attempt delivered are not delivered again", "[command_run]") {
  world w;
  CHECK_FALSE(w.run(w.sh_to_sink("seq 1 500; exit 1")).ok());
  CHECK(w.run(w.sh_to_sink("seq 1 1000")).ok());
  CHECK(w.sunk.opened_with == "after 500");
  REQUIRE(w.sunk.payloads.size() == 1000);
  CHECK(w.sunk.payloads.back() == "1000");
  CHECK(contains(w.log(), "500 lines were delivered by an earlier attempt\n"));
}

TEST_CASE("command: a supervised command's numbers never come again", "[command_run]") {
  world w;
  for (int start = 0; start < 3; ++start) {
    auto options = w.sh_to_sink("seq 1 3");
    options.continuous = true;
    CHECK(w.run(std::move(options)).ok());
  }
  CHECK(w.sunk.payloads.size() == 9);
  CHECK(std::is_sorted(w.sunk.positions.begin(), w.sunk.positions.end()));
  CHECK(std::adjacent_find(w.sunk.positions.begin(), w.sunk.positions.end()) == w.sunk.positions.end());
}

TEST_CASE("command: when its sink fails it is ended", "[command_run]") {
  world w;
  w.sunk.fail_at = "2";
  const bool supervised = GENERATE(false, true);
  auto options = w.sh_to_sink("echo 1; echo 2; exec tail -f /dev/null");
  options.continuous = supervised;
  const auto outcome = w.run(std::move(options));
  CHECK_FALSE(outcome.ok());
  CHECK(outcome.output_failure == "the other side is down");
  CHECK(outcome.reason == "its output could not be stored: the other side is down; ended by SIGTERM");
  CHECK(outcome.signal == SIGTERM);
  CHECK_FALSE(w.sunk.closed);
  const auto dead = w.flows_.dead_letters({});
  // A task's next attempt prints the lines again; a supervised command does not, so they are kept (one or two
  // of them: the sink may have got the first alone).
  CHECK(dead.size() == (supervised ? w.sunk.payloads.empty() ? 2u : 1u : 0u));
}

TEST_CASE("command: a sink that fails at the last line makes the run fail", "[command_run]") {
  world w;
  w.sunk.fail_at = "1";
  const auto outcome = w.run(w.sh_to_sink("printf 1"));
  CHECK_FALSE(outcome.ok());
  CHECK(outcome.exit_code == 0);
  CHECK(contains(outcome.reason, "its output could not be stored"));
}

TEST_CASE("command: an unknown sink is a reason, and nothing starts", "[command_run]") {
  world w;
  auto options = w.sh("touch started");
  options.definition.to = config::component_use{"no_such_sink", "to", {}};
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK(contains(outcome.reason, "no_such_sink"));
  CHECK_FALSE(std::filesystem::exists(w.dir / "work" / "started"));
}

}  // namespace test_command_pipes
