// The clock itself is not set here: that would disturb the whole machine. What can be seen is what the kernel was asked
// for, that nothing wakes meanwhile, and that nothing is left afterwards.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <catch2/catch.hpp>

#include "runtime/clock_watch.hpp"

namespace test_clock_watch {

using namespace penstock::runtime;

namespace {

// What the kernel says of our timers that a set clock cancels (proc(5), fdinfo of a timerfd): "settime flags" is octal
// TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, clock 0 is CLOCK_REALTIME.
int armed_watches() {
  int count = 0;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ifstream in(fd.path());
    std::stringstream text;
    text << in.rdbuf();
    const std::string info = text.str();
    const bool far = info.find("it_value: (0, 0)") == std::string::npos;
    const bool wall = info.find("clockid: 0\n") != std::string::npos;
    count += far && wall && info.find("settime flags: 03\n") != std::string::npos;
  }
  return count;
}

}  // namespace

TEST_CASE("clock_watch: is armed for a set clock, and does not wake else", "[clock_watch]") {
  const int before = armed_watches();
  asio::io_context io;
  int told = 0;
  {
    clock_watch watch(io.get_executor(), [&] { ++told; });
    CHECK(armed_watches() == before + 1);
    CHECK(io.poll() == 0);
    io.restart();
    CHECK(io.poll() == 0);
    CHECK(told == 0);
  }
  CHECK(armed_watches() == before);
  io.restart();
  io.run();  // nothing is left that it would wait for
  CHECK(told == 0);
}

TEST_CASE("clock_watch: many come and go", "[clock_watch]") {
  const int before = armed_watches();
  asio::io_context io;
  for (int i = 0; i < 2000; ++i) {
    clock_watch watch(io.get_executor(), [] { FAIL("nobody set the clock"); });
    if (i % 3 == 0) io.poll();
    io.restart();
  }
  CHECK(armed_watches() == before);
}

}  // namespace test_clock_watch
