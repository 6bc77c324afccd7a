// from: command and to: command with real programs: how they end, what is lost then and what is not, and that nothing of
// them is left. Waiting is for lines only.
#include <algorithm>
#include <future>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "tests/runtime/flow_bench.hpp"

namespace test_command_lines {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;

namespace {

using texts = std::vector<std::string>;

struct program_bench : flow_bench {
  program_bench() { ::signal(SIGPIPE, SIG_IGN); }
  ~program_bench() { CHECK(::waitpid(-1, nullptr, WNOHANG) == -1); }  // no child

  void program(const std::string& text) { write_file("program.py", text); }
  static std::string from(const std::string& more = "") { return "from: {command: {run: [python3, program.py]" + more + "}}\n"; }
  static std::string to(const std::string& more = "") { return "to: {command: {run: [python3, program.py]" + more + "}}\n"; }

  std::string reason(const std::string& yaml) {
    const dataflow_outcome outcome = run("test/flow/f", yaml);
    CHECK(outcome.end == dataflow_end::failed);
    return outcome.reason;
  }
  bool ends_well(const std::string& yaml) {
    const dataflow_outcome outcome = run("test/flow/f", yaml);
    INFO(outcome.reason);
    CHECK(outcome.reason == "");
    return outcome.end == dataflow_end::input_ended;
  }
};

// A flow at work until it is drained.
struct at_work {
  at_work(flow_bench& bench, const std::string& yaml)
      : b(bench), run(b.make("test/flow/f", b.parse(yaml))), ended(asio::co_spawn(b.pool, run->run(), asio::use_future)) {}
  template <class Done>
  void wait_until(Done done) const {
    while (!done() && ended.wait_for(std::chrono::milliseconds{1}) != std::future_status::ready) {
    }
    CHECK(done());
  }
  void wait_for_topic(const std::string& name, std::size_t count) const {
    wait_until([&] { return b.content(name).size() >= count; });
  }
  dataflow_outcome drain() {
    run->request_drain();
    return ended.get();
  }

  flow_bench& b;
  std::unique_ptr<dataflow_run> run;
  std::future<dataflow_outcome> ended;
};

constexpr const char* to_topic = "to: {topic: out}";

}  // namespace

TEST_CASE("what a program prints are the events, and exit code 0 is the end", "[command]") {
  program_bench b;
  b.topic("out");
  b.program("for n in range(3000): print('{\"n\":%d}' % n)\nprint('last', end='')");
  CHECK(b.ends_well(b.from(", at_end: end, format: lines") + to_topic));
  const texts all = b.content("out");
  REQUIRE(all.size() == 3001);
  CHECK(all[2999] == R"({"n":2999})");
  CHECK(all[3000] == "last");
  CHECK(b.balanced());
}

TEST_CASE("a program that fails makes the flow fail once its lines are safe", "[command]") {
  program_bench b;
  b.topic("out");
  b.program("import sys\nprint(1)\nprint(2)\nprint('12', end='')\nsys.stdout.flush()\nprint('no more', file=sys.stderr)\nsys.exit(3)");
  for (const char* at_end : {"", ", at_end: end"})
    CHECK_THAT(b.reason(b.from(at_end) + to_topic), Contains("from command: the program ended: exit code 3 (no more)"));
  CHECK(b.content("out") == texts{"1", "2", "1", "2"});  // 12 could be the beginning of 123
  const auto dead = b.dead("test/flow/f");
  REQUIRE(dead.size() == 2);
  CHECK(dead[0].data == "12");
  CHECK(dead[0].step == "from");
  CHECK_THAT(dead[0].reason, Contains("whole line") && Contains("exit code 3"));
}

TEST_CASE("a program that has ended is started again by the flow, also after exit code 0", "[command]") {
  program_bench b;
  b.topic("out");
  b.program("print(1)");
  CHECK_THAT(b.reason(b.from() + to_topic), Contains("exit code 0"));
  CHECK(b.content("out") == texts{"1"});
}

TEST_CASE("lines that are no events are dead letters", "[command]") {
  program_bench b;
  b.topic("out");
  b.program("print('{\"n\":1}')\nprint('{\"n\":')\nprint('\"' + 'x' * 5000 + '\"')\nprint()\nprint(2)");
  CHECK(b.ends_well(b.from(", at_end: end, max_line: 100B") + to_topic));
  CHECK(b.content("out") == texts{R"({"n":1})", "2"});
  const auto dead = b.dead();
  REQUIRE(dead.size() == 2);
  const bool first_is_long = dead[0].data.size() > 100;
  CHECK_THAT(dead[first_is_long ? 0 : 1].reason, Contains("max_line"));
  CHECK_THAT(dead[first_is_long ? 1 : 0].reason, Contains("JSON"));
}

TEST_CASE("a stop asks the program to end and takes its last words", "[command]") {
  program_bench b;
  b.topic("out");
  b.program(R"(
import signal, sys
def end(*_):
    print('"bye"')
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(1)
while True: signal.pause()
)");
  at_work flow(b, b.from() + to_topic);
  flow.wait_for_topic("out", 1);
  CHECK(flow.drain().end == dataflow_end::drained);
  CHECK(b.content("out") == texts{"1", "\"bye\""});
}

TEST_CASE("a flow that is busy at the stop still hears the last words", "[command]") {
  program_bench b;
  b.topic("out");
  b.program(R"(
import signal, sys
def end(*_):
    print('"bye"')
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(1)
while True: signal.pause()
)");
  struct slow_sink final : sink {
    std::shared_ptr<wakeup> held;
    std::promise<void>* entered;
    texts* taken;
    asio::awaitable<void> open(const std::string&) override { co_return; }
    asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
      if (entered) {
        std::exchange(entered, nullptr)->set_value();
        co_await held->wait();
      }
      for (const event& e : events->events) taken->emplace_back(e.data);
      co_return write_result{};
    }
    asio::awaitable<void> close() override { co_return; }
  };
  std::promise<void> entered;
  std::shared_ptr<wakeup> held;
  texts taken;
  const registry real = make_registry();
  b.components = penstock::testing::with_sink(real, "drop", [&](const config::value&, const component_context& c) {
    auto made = std::make_unique<slow_sink>();
    made->held = held = std::make_shared<wakeup>(c.executor);
    made->entered = &entered;
    made->taken = &taken;
    return made;
  });
  at_work flow(b, b.from(", grace: 1ms") + "to: drop");
  entered.get_future().get();
  flow.run->request_drain();
  siginfo_t info{};
  REQUIRE(::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0);  // it has gone, and longer ago than `grace`:
  const auto gone = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() < gone + std::chrono::milliseconds{5}) {
  }
  held->notify();
  CHECK(flow.ended.get().end == dataflow_end::drained);
  CHECK(taken == texts{"1", "\"bye\""});
}

TEST_CASE("a program that prints on and on is killed at the stop all the same", "[command]") {
  program_bench b;
  b.topic("out");
  at_work flow(b, std::string("from: {command: {run: [sh, -c, 'trap \"\" TERM; yes 1'], grace: 50ms}}\n") + to_topic);
  flow.wait_for_topic("out", 100);
  CHECK(flow.drain().end == dataflow_end::drained);
}

TEST_CASE("a program that does not want to end is killed with all that it has started", "[command]") {
  program_bench b;
  b.topic("out");
  b.program(R"(
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "1000"])
n = 0
while True:
    print(n)
    n += 1
)");
  at_work flow(b, b.from(", grace: 100ms") + to_topic);
  flow.wait_for_topic("out", 2000);
  CHECK(flow.drain().end == dataflow_end::drained);
  const texts all = b.content("out");
  for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(all[i] == std::to_string(i));
}

TEST_CASE("what a program has started does not speak for it after its end", "[command]") {
  program_bench b;
  b.topic("out");
  CHECK(b.ends_well(std::string("from: {command: {run: [sh, -c, 'yes 2 & echo 1'], at_end: end}}\n") + to_topic));
  CHECK_FALSE(b.content("out").empty());
}

TEST_CASE("a program stands still while the flow is busy", "[command]") {
  program_bench b;
  b.program(R"(
import os, sys
for n in range(100000):
    os.write(1, b'{"n":%d}\n' % n)
    if n % 100 == 0: open("printed", "w").write(str(n))
)");
  b.topic("out");
  auto held = std::make_shared<wakeup>(b.pool.get_executor());
  struct slow_sink final : sink {
    std::shared_ptr<wakeup> held;
    std::promise<void>* entered;
    asio::awaitable<void> open(const std::string&) override { co_return; }
    asio::awaitable<write_result> write(std::shared_ptr<const batch>) override {
      if (entered) std::exchange(entered, nullptr)->set_value();
      co_await held->wait();
      throw std::runtime_error("enough");
    }
    asio::awaitable<void> close() override { co_return; }
  };
  std::promise<void> entered;
  const registry real = make_registry();
  b.components = penstock::testing::with_sink(real, "drop", [&](const config::value&, const component_context& c) {
    auto made = std::make_unique<slow_sink>();
    held = std::make_shared<wakeup>(c.executor);
    made->held = held;
    made->entered = &entered;
    return made;
  });
  at_work flow(b, b.from() + "to: drop");
  entered.get_future().get();
  held->notify();
  CHECK_THAT(flow.ended.get().reason, Contains("enough"));
  // A pipe and a read's worth of lines, not all of them.
  const std::string printed = b.file_text("printed");
  CHECK((printed.empty() || std::stoi(printed) < 50'000));
}

TEST_CASE("a program that is not there fails the flow", "[command]") {
  program_bench b;
  CHECK_THAT(b.reason("from: {command: [no-such-program-anywhere]}\nto: drop"), Contains("no-such-program-anywhere"));
  CHECK_THAT(b.reason("from: {generate: {count: 1}}\nto: {command: [no-such-program-anywhere]}"), Contains("no-such-program-anywhere"));
}

// ---- to: command ---------------------------------------------------------------------------------------------------------

namespace {

const std::string keeper = R"(
import sys, json
kept = open("kept", "a")
for line in sys.stdin:
    e = json.loads(line)
    if isinstance(e, dict) and "say" in e:
        print(e["say"])
        continue
    kept.write(line)
    kept.flush()
    print("ok")
)";

}  // namespace

TEST_CASE("a program takes events and answers each", "[command]") {
  program_bench b;
  b.program(keeper);
  CHECK(b.ends_well("from: {generate: {count: 3000}}\n" + b.to()));
  const std::string kept = b.file_text("kept");
  CHECK(std::count(kept.begin(), kept.end(), '\n') == 3000);
  CHECK(kept.starts_with("{\"n\":1}\n{\"n\":2}\n"));
  CHECK(b.counters->emitted == 3000);
}

TEST_CASE("what a program refuses is a dead letter with its reason", "[command]") {
  program_bench b;
  b.program(keeper);
  b.append("in", {"1", R"({"say":"! no such customer"})", R"({"say":"{\"error\": \"too big\"}"})", R"({"say":"{\"error\": 7}"})",
                  R"({"say":"!"})", R"({"say":"ok"})", "2"});
  at_work flow(b, "from: {topic: in}\n" + b.to());
  flow.wait_until([&] { return b.counters->received >= 7; });
  CHECK(flow.drain().end == dataflow_end::drained);
  CHECK(b.file_text("kept") == "1\n2\n");
  const auto dead = b.dead();
  REQUIRE(dead.size() == 4);
  CHECK(dead[0].reason == "no such customer");
  CHECK(dead[1].reason == "too big");
  CHECK(dead[2].reason == "7");
  CHECK(dead[3].reason == "the program gave no reason");
  CHECK(b.balanced());
}

TEST_CASE("a program that answers something else, or dies, holds the events back", "[command]") {
  program_bench b;
  b.program(keeper);
  b.append("in", {"1", R"({"say":"done"})"});
  CHECK_THAT(b.reason("from: {topic: in}\n" + b.to()), Contains("neither ok nor an error: done"));
  b.program("import sys\nfor line in sys.stdin:\n  if 'say' in line: sys.exit(5)\n  print('ok')");
  CHECK_THAT(b.reason("from: {topic: in}\n" + b.to()), Contains("exit code 5"));
  b.program("import sys\nfor line in sys.stdin: pass");
  CHECK_THAT(b.reason("from: {topic: in}\n" + b.to(", timeout: 100ms, start_timeout: 500ms, grace: 100ms")), Contains("no answer within"));
  CHECK(b.dead().empty());
  CHECK(b.flows.load("test/flow/f").position == 0);
  b.program("import sys\nfor line in sys.stdin: print('ok')");  // repaired: the same events again
  at_work flow(b, "from: {topic: in}\n" + b.to());
  flow.wait_until([&] { return b.counters->emitted >= 2; });
  CHECK(flow.drain().end == dataflow_end::drained);
}

TEST_CASE("what a program has answered before it dies is neither sent again nor buried", "[command]") {
  program_bench b;
  std::vector<std::string> payloads;
  for (int n = 1; n <= 50; ++n) payloads.push_back("{\"n\":" + std::to_string(n) + "}");
  b.append("in", payloads);
  // Each life dies, or answers nonsense, in its turn at n = 30; event 7 is refused.
  const auto dies = [](const std::string& how) {
    return R"(
import sys, json, os
for line in sys.stdin:
    n = json.loads(line)["n"]
    if n == 7:
        print("! seven")
        continue
    if n == 30: )" + how + R"(
    open("kept", "a").write("%d " % n)
    print("ok")
)";
  };
  std::string before, after, all;
  for (int n = 1; n <= 50; ++n) {
    if (n != 7) (n < 30 ? before : after) += std::to_string(n) + " ";
  }
  for (const std::string how : {"sys.exit(9)", "print('what?'); break"}) {
    INFO(how);
    std::filesystem::remove(b.dir / "kept");
    std::filesystem::remove(b.dir / "second");
    // The second life takes it.
    b.program(dies("\n        if not os.path.exists('second'):\n            open('second', 'w')\n            " + how));
    {
      const std::string consumer = "test/flow/again" + std::to_string(how.size());
      const auto run = b.make(consumer, b.parse("from: {topic: in}\n" + b.to(", in_flight: 1") +
                                                "delivery: {attempts: 2, backoff: 1ms..1ms}"));
      auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
      while (b.flows.load(consumer).position == 0 && ended.wait_for(std::chrono::milliseconds{1}) != std::future_status::ready) {
      }
      run->request_drain();
      CHECK(ended.get().reason == "");
      CHECK(b.file_text("kept") == before + after);
      REQUIRE(b.dead(consumer).size() == 1);
      CHECK(b.dead(consumer)[0].reason == "seven");
    }
    std::filesystem::remove(b.dir / "kept");
    b.program(dies(how));
    const std::string consumer = "test/flow/bury" + std::to_string(how.size());
    const auto run = b.make(consumer, b.parse("from: {topic: in}\n" + b.to(", in_flight: 1") +
                                              "delivery: {attempts: 1, then: dead_letter}"));
    auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
    while (b.flows.load(consumer).position == 0 && ended.wait_for(std::chrono::milliseconds{1}) != std::future_status::ready) {
    }
    run->request_drain();
    CHECK(ended.get().reason == "");
    CHECK(b.file_text("kept") == before + after.substr(3));  // all but 30, which nobody else is buried with
    const auto dead = b.dead(consumer);
    REQUIRE(dead.size() == 2);
    CHECK(dead[0].data == "{\"n\":7}");
    CHECK(dead[1].data == "{\"n\":30}");
    CHECK(dead[1].attempts == 1);
  }
}

TEST_CASE("events that a program hangs or dies at are buried alone, each after its own attempts", "[command]") {
  for (const std::string how : {"sys.exit(9)", "sys.exit(print('what?'))", "signal.pause()"}) {
    INFO(how);
    program_bench b;
    std::vector<std::string> payloads;
    for (int n = 1; n <= 12; ++n) payloads.push_back(std::to_string(n));
    b.append("in", payloads);
    b.program("import signal, sys\nfor line in sys.stdin:\n  open('tries', 'a').write(line)\n  if int(line) in (3, 4, 9): " + how +
              "\n  else: print('ok', flush=True)");
    at_work flow(b, "from: {topic: in}\n" + b.to(", in_flight: 1, timeout: 150ms, start_timeout: 5s, grace: 10ms") +
                        "delivery: {attempts: 2, backoff: 1ms..1ms, then: dead_letter}");
    flow.wait_until([&] { return b.counters->received >= 12; });
    CHECK(flow.drain().reason == "");
    std::vector<std::string> buried;
    for (const auto& letter : b.dead()) {
      buried.push_back(letter.data);
      CHECK(letter.attempts == 2);
    }
    CHECK(buried == std::vector<std::string>{"3", "4", "9"});
    CHECK(b.file_text("tries") == "1\n2\n3\n3\n4\n4\n5\n6\n7\n8\n9\n9\n10\n11\n12\n");
    CHECK(b.balanced());
  }
}

TEST_CASE("a program that hangs at one event after the other is to blame itself", "[command]") {
  program_bench b;  // or a batch would take as long as all its events together
  std::vector<std::string> payloads;
  for (int n = 1; n <= 40; ++n) payloads.push_back(std::to_string(n));
  b.append("in", payloads);
  b.program("import sys\nfor line in sys.stdin:\n  open('tries', 'a').write(line)\n  if int(line) > 2: sys.exit(7)\n  print('ok', flush=True)");
  at_work flow(b, "from: {topic: in}\n" + b.to(", in_flight: 1") + "delivery: {attempts: 1, then: dead_letter}");
  flow.wait_until([&] { return b.counters->received >= 40; });
  CHECK(flow.drain().reason == "");
  CHECK(b.file_text("tries") == "1\n2\n3\n4\n5\n6\n");  // three alone, then all that are left
  const auto dead = b.dead();
  REQUIRE(dead.size() == 38);
  for (std::size_t i = 0; i < dead.size(); ++i) {
    CHECK(dead[i].attempts == (i < 4 ? 1 : 0));
    CHECK((dead[i].reason.find("not tried") == 0) == (i >= 4));
  }
  CHECK(b.balanced());
}

TEST_CASE("a sink that nothing is right for still ends", "[command]") {
  program_bench b;  // it dies before it reads, so no event is more to blame than another
  b.append("in", {"1", "2", "3"});
  b.program("import sys\nsys.exit(4)");
  at_work flow(b, "from: {topic: in}\n" + b.to() + "delivery: {attempts: 3, backoff: 1ms..1ms, then: dead_letter}");
  flow.wait_until([&] { return b.counters->received >= 3; });
  CHECK(flow.drain().reason == "");
  REQUIRE(b.dead().size() == 3);
  for (const auto& letter : b.dead()) CHECK(letter.attempts == 3);
}

TEST_CASE("what a flow that fails has given to a program is still read by it", "[command]") {
  program_bench b;
  b.program("import sys\ntext = sys.stdin.read()\nopen('kept', 'w').write(text)");
  const std::string from = "from: {command: {run: [sh, -c, 'echo 1; echo 2; exit 3']}}\n";
  CHECK_THAT(b.reason(from + b.to(", ack: none")), Contains("exit code 3"));
  CHECK(b.file_text("kept") == "1\n2\n");
  // One that does not end then is killed.
  b.program("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()");
  CHECK_THAT(b.reason(from + b.to(", ack: none, grace: 50ms")), Contains("exit code 3"));
}

TEST_CASE("a program without a name is refused, and one that is not here is doubted", "[command]") {
  const registry all = make_registry();
  const config::value nameless{{"run", {""}}}, missing{{"run", {"no-such-program-anywhere"}}}, there{{"run", {"sh"}}};
  for (const config::component_spec* spec : {&all.catalog().sources.at("command"), &all.catalog().sinks.at("command")}) {
    CHECK_THROWS_WITH(spec->check(nameless, {}), Contains("name is empty"));
    CHECK_NOTHROW(spec->check(missing, {}));
    CHECK_THAT(spec->doubt(missing), Contains("no-such-program-anywhere"));
    CHECK(spec->doubt(there).empty());
  }
}

TEST_CASE("without answers the pipe is all that is waited for, and at the end the program", "[command]") {
  program_bench b;
  b.program("import sys\nprint('starts')\ntext = sys.stdin.read()\nopen('kept', 'w').write(text)\nprint('done')");
  CHECK(b.ends_well("from: {generate: {count: 20000}}\n" + b.to(", ack: none")));
  const std::string kept = b.file_text("kept");
  CHECK(std::count(kept.begin(), kept.end(), '\n') == 20'000);

  b.program("import sys\nsys.stdin.readline()\nprint('sick', file=sys.stderr)\nsys.exit(4)");
  const std::string reason = b.reason("from: {generate: {count: 200000}}\n" + b.to(", ack: none"));
  CHECK_THAT(reason, Contains("the program has ended: exit code 4 (sick)"));
  b.program("import signal\nwhile True: signal.pause()");
  CHECK_THAT(b.reason("from: {generate: {count: 200000}}\n" + b.to(", ack: none, timeout: 100ms, grace: 100ms")),
             Contains("has not read its input for 100ms"));
}

TEST_CASE("the whole event goes to a program that wants it", "[command]") {
  program_bench b;
  b.program(R"(
import sys, json
for line in sys.stdin:
    e = json.loads(line)
    open("kept", "a").write("%s %s\n" % (e["id"], e["data"]["n"]))
    print("ok")
)");
  CHECK(b.ends_well("from: {generate: {count: 2}}\n" + b.to(", send: cloudevent")));
  CHECK(b.file_text("kept") == "1 1\n2 2\n");
}

}  // namespace test_command_lines
