// The step exec with real programs (sh and python3): answers, several and none, crashes, hangs, and that nothing of a
// program is left. Waiting is for answers only.
#include <signal.h>
#include <string>
#include <sys/wait.h>

#include <catch2/catch.hpp>

#include "runtime/line_program.hpp"
#include "tests/runtime/one_step.hpp"

namespace test_exec_step {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::one_step;
using penstock::testing::texts;
using penstock::testing::wait_for;

namespace {

const std::string upper = R"(
import sys, json
for line in sys.stdin:
    e = json.loads(line)
    if e == "die" or (isinstance(e, dict) and e.get("die")): sys.exit(3)
    if isinstance(e, dict) and "print" in e:
        print(e["print"])
        continue
    print(json.dumps({"got": e}))
)";

boost::asio::awaitable<batch> one_batch(step& s, batch events, step_output& out) {
  co_await s.process_waiting(events, out);
  co_return std::move(events);
}

// A step with its program, which is started and ended as a dataflow does it.
struct program_bench : one_step {
  explicit program_bench(const std::string& script, const std::string& more = "", bool open = true)
      : one_step("exec: {run: [python3, program.py]" + more + "}") {
    ::signal(SIGPIPE, SIG_IGN);
    flow.write_file("program.py", script);
    if (open) start();
  }
  ~program_bench() {
    stop();
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);  // no child
  }

  void start() { run(one->open()); }
  void stop() { run(one->close()); }

  batch ask(batch events) {
    return boost::asio::co_spawn(strand, one_batch(*one, std::move(events), out), boost::asio::use_future).get();
  }
  texts answers(const texts& given, std::string_view content_type = "") {
    return payloads_of(ask(events_of(given, content_type)));
  }

 private:
  void run(boost::asio::awaitable<void> what) {
    boost::asio::co_spawn(strand, std::move(what), boost::asio::use_future).get();
  }
};

}  // namespace

TEST_CASE("a program answers line by line, batch after batch", "[exec]") {
  program_bench b(upper);
  CHECK(b.one->waits());
  CHECK_FALSE(b.one->stateless());
  CHECK(b.answers({R"({"n":1})", "[1,\n2]"}) == texts{R"({"got": {"n": 1}})", R"({"got": [1, 2]})"});
  CHECK(b.answers({"plain \"x\""}, "text/plain") == texts{R"({"got": "plain \"x\""})"});
  CHECK(b.answers({}).empty());
  texts many(3000, R"({"n":1})");
  CHECK(b.answers(many).size() == 3000);
  CHECK(b.out.died.empty());
}

TEST_CASE("an answer can be none, several or a refusal", "[exec]") {
  program_bench b(upper);
  const batch left = b.ask(one_step::events_of({R"({"print":""})", R"({"print":"null"})", R"({"print":"[{\"a\":1.0},2]"})",
                                                R"({"print":"[]"})", R"({"print":"! no such customer"})", R"({"print":"7"})"}));
  CHECK(one_step::payloads_of(left) == texts{R"({"a":1.0})", "2", "7"});
  CHECK(one_step::ids_of(left) == texts{"c/0", "c/1", "f"});
  CHECK(left.events[1].position == 3);
  REQUIRE(b.out.died.size() == 1);
  CHECK(b.out.died[0] == std::pair<std::string, std::string>("e", "no such customer"));
}

TEST_CASE("the event that kills the program dies, its neighbours pass", "[exec]") {
  program_bench b(upper);
  CHECK(b.answers({"1", "2", R"({"die":true})", "4", R"({"die":true})", "6"}) ==
        texts{R"({"got": 1})", R"({"got": 2})", R"({"got": 4})", R"({"got": 6})"});
  REQUIRE(b.out.died.size() == 2);
  CHECK(b.out.died[0] ==
        std::pair<std::string, std::string>("c", "the program ended while it worked on this event: exit code 3"));
  CHECK(b.out.died[1].first == "e");
  CHECK(b.answers({"7"}) == texts{R"({"got": 7})"});
}

TEST_CASE("an event that kills it only once passes the second time", "[exec]") {
  program_bench b(R"(
import sys, os
for line in sys.stdin:
    if "once" in line and not os.path.exists("seen"):
        open("seen", "w")
        raise ValueError("first time")
    print(line, end="")
)");
  CHECK(b.answers({"1", "\"once\"", "3"}) == texts{"1", "\"once\"", "3"});
  CHECK(b.out.died.empty());
}

TEST_CASE("a program that hangs is ended, with all that it started", "[exec]") {
  program_bench b(R"(
import sys, signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "1000"])
for line in sys.stdin:
    if "hang" in line: signal.pause()
    print(line, end="")
)",
                  ", timeout: 300ms, start_timeout: 300ms, grace: 100ms");
  CHECK(b.answers({"1", "\"hang\"", "3"}) == texts{"1", "3"});
  REQUIRE(b.out.died.size() == 1);
  CHECK_THAT(b.out.died[0].second, Contains("no answer within 300ms"));
}

TEST_CASE("a program that cannot work fails the flow, not its events", "[exec]") {
  program_bench b("import nosuch");
  CHECK_THROWS_WITH(b.answers({"1"}), Contains("before it read the event") && Contains("nosuch"));
  CHECK(b.out.died.empty());
}

TEST_CASE("a program that fails at every event fails the flow", "[exec]") {
  program_bench b("import sys\nfor line in sys.stdin: x", ", max_failures: 3");
  CHECK_THROWS_WITH(b.answers(texts(20, "1")), Contains("it must be the program") && Contains("NameError"));
}

TEST_CASE("a program that is not there keeps the flow from starting", "[exec]") {
  one_step b("exec: {run: [no-such-program-anywhere]}");
  auto opening = b.one->open();
  CHECK_THROWS_WITH(wait_for(b.flow.pool, std::move(opening)), Contains("no-such-program-anywhere"));
}

// The line too many is found as such, or as an answer that is not JSON.
TEST_CASE("a greeting is not taken for an answer", "[exec]") {
  program_bench b("import sys\nprint('hello')\nsys.stdout.flush()\nfor line in sys.stdin: print(line, end='')",
                  ", max_failures: 2");
  CHECK_THROWS_WITH(b.answers(texts(5, "1")), Contains("everything else to stderr"));
}

TEST_CASE("two answers to one line are not taken for two", "[exec]") {
  program_bench b("import sys\nfor line in sys.stdin: sys.stdout.write(line + line)");
  CHECK_THROWS_WITH((b.answers({"1", "2"}), b.answers({"3"}), b.answers({"4"})), Contains("answers no event"));
}

TEST_CASE("an answer can be too long", "[exec]") {
  program_bench b("import sys\nfor line in sys.stdin: print('\"' + 'x' * 100000 + '\"')", ", max_answer: 10kB");
  CHECK(b.answers({"1"}).empty());
  CHECK_THAT(b.reason(), Contains("longer than 10kB"));
}

TEST_CASE("a program that ends between two batches is started again", "[exec]") {
  program_bench b("import sys\nfor i in range(2): print(sys.stdin.readline(), end='')");
  for (int i = 0; i < 4; ++i) CHECK(b.answers({"1", "2"}) == texts{"1", "2"});
  CHECK(b.out.died.empty());
}

TEST_CASE("lines larger than a pipe, both ways at once", "[exec]") {
  program_bench b("import sys\nfor line in sys.stdin: print(line, end='')");
  const std::string big = "\"" + std::string(300'000, 'x') + "\"";
  CHECK(b.answers(texts(20, big)) == texts(20, big));
}

TEST_CASE("the whole event, environment and folder", "[exec]") {
  program_bench b(R"(
import sys, json, os
for line in sys.stdin:
    e = json.loads(line)
    print(json.dumps([e["id"], e["data"]["n"], os.environ["MODEL"], os.path.exists("program.py")]).join("[]"))
)",
                  ", send: cloudevent, environment: {MODEL: small}");
  CHECK(b.answers({R"({"n":1})"}) == texts{R"(["a", 1, "small", true])"});
}

TEST_CASE("a step that is thrown away ends its program, too", "[exec]") {
  program_bench b(upper, "", true);
  CHECK(b.answers({"1"}).size() == 1);
  b.restart();
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

}  // namespace test_exec_step
