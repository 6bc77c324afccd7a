// Files that arrive in real folders. The kernel queues a change before the call that made it returns, so after one turn
// of the io_context "it was told" and "it was not told" are both facts; nothing is waited for by the clock.
#include <fcntl.h>
#include <fstream>
#include <linux/capability.h>
#include <string>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include "runtime/folder_watch.hpp"
#include "runtime/inotify.hpp"
#include "runtime/unique_fd.hpp"
#include "tests/temp_dir.hpp"

namespace test_folder_watch {

using namespace penstock;
using namespace penstock::runtime;
using namespace std::chrono_literals;
using penstock::testing::temp_dir;
namespace fs = std::filesystem;

namespace {

using strings = std::vector<std::string>;

void write(const fs::path& file, const std::string& text = "x\n") { std::ofstream(file) << text; }

// A program that writes slowly.
class slow_writer {
 public:
  explicit slow_writer(const fs::path& file, int flags = O_CREAT | O_TRUNC)
      : fd_(::open(file.c_str(), O_WRONLY | O_CLOEXEC | flags, 0644)) {
    REQUIRE(fd_.get() >= 0);
  }
  void write(const std::string& text) const {
    REQUIRE(::write(fd_.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  void close() { fd_ = unique_fd(); }

 private:
  unique_fd fd_;
};

void set_mtime(const fs::path& file, timestamp t) {
  const auto us = to_micros(t);
  const timespec both[2] = {{us / 1'000'000, us % 1'000'000 * 1000}, {us / 1'000'000, us % 1'000'000 * 1000}};
  REQUIRE(::utimensat(AT_FDCWD, file.c_str(), both, 0) == 0);
}

struct bench {
  temp_dir dir;
  asio::io_context io;
  int told = 0;
  fs::path in = dir / "in";
  std::unique_ptr<folder_watch> watch;

  explicit bench(bool make_folder = true) {
    if (make_folder) fs::create_directory(in);
  }
  void start(const std::string& pattern = "*", nanoseconds settle = 0s) { start_at(in, pattern, settle); }
  void start_at(const fs::path& folder, const std::string& pattern = "*", nanoseconds settle = 0s) {
    watch = std::make_unique<folder_watch>(io.get_executor(), folder, pattern, settle, [this] { ++told; });
  }
  // Everything that was told up to now is taken in; how often `changed` was called for it.
  int turn() {
    const int before = told;
    do {
      io.restart();
    } while (io.poll() > 0);
    return told - before;
  }
  strings names(timestamp now = wall_now()) {
    strings out;
    for (const auto& file : watch->complete(now)) out.push_back(file.path.filename().string());
    return out;
  }
  strings arrived(timestamp now = wall_now()) {
    turn();
    return names(now);
  }
};

}  // namespace

TEST_CASE("folder: a slowly written file is not there before its close", "[folder_watch]") {
  bench b;
  b.start();
  slow_writer w(b.in / "a.csv");
  CHECK(b.turn() == 1);
  CHECK(b.names().empty());
  w.write("one\n");
  CHECK(b.arrived(wall_now() + 1h).empty());
  w.write("two\n");
  CHECK(b.turn() == 0);  // a writer at work is no news
  CHECK(b.names(wall_now() + 1h).empty());
  CHECK_FALSE(b.watch->next_check(wall_now()));
  w.close();
  CHECK(b.turn() == 1);
  const auto files = b.watch->complete(wall_now());
  REQUIRE(files.size() == 1);
  CHECK(files[0].path == b.in / "a.csv");
  CHECK(files[0].size == 8);
  CHECK(files[0].stamp == stamp_of(b.in / "a.csv"));
  CHECK(std::chrono::abs(wall_now() - files[0].modified) < 1min);
  CHECK(b.watch->complete(wall_now()).size() == 1);  // it stays as long as it is there
  CHECK(b.turn() == 0);
  CHECK_FALSE(b.watch->next_check(wall_now()));
}

TEST_CASE("folder: one that is being written when the watch begins waits for its close, too", "[folder_watch]") {
  bench b;
  slow_writer w(b.in / "slow");
  w.write("one\n");
  write(b.in / "whole");
  b.start();
  CHECK(b.names(wall_now() + 1h) == strings{"whole"});
  CHECK(b.turn() == 0);
  w.write("two\n");
  CHECK(b.arrived(wall_now() + 1h) == strings{"whole"});
  w.close();
  CHECK(b.turn() == 1);
  CHECK(b.names().size() == 2);
}

TEST_CASE("folder: two writers, and the first close is not the last", "[folder_watch]") {
  bench b;
  b.start();
  slow_writer one(b.in / "a"), two(b.in / "a", O_APPEND);
  one.write("1\n");
  one.close();
  CHECK(b.arrived(wall_now() + 1h).empty());
  two.write("2\n");
  two.close();
  CHECK(b.arrived() == strings{"a"});
}

TEST_CASE("folder: a complete file that is written again is not complete", "[folder_watch]") {
  bench b;
  write(b.in / "a");
  b.start();
  const auto before = b.watch->complete(wall_now());
  REQUIRE(before.size() == 1);
  slow_writer w(b.in / "a", O_APPEND);
  w.write("more\n");
  CHECK(b.turn() == 1);
  CHECK(b.names(wall_now() + 1h).empty());
  w.close();
  b.turn();
  const auto after = b.watch->complete(wall_now());
  REQUIRE(after.size() == 1);
  CHECK(after[0].stamp != before[0].stamp);
}

TEST_CASE("folder: files come by move, by link and by replacement, and go", "[folder_watch]") {
  bench b;
  b.start("*.csv");
  write(b.dir / "outside");
  CHECK(b.turn() == 0);
  fs::rename(b.dir / "outside", b.in / "moved.csv");
  CHECK(b.turn() == 1);
  CHECK(b.names() == strings{"moved.csv"});

  write(b.in / "new.csv.part");
  CHECK(b.turn() == 0);
  fs::rename(b.in / "new.csv.part", b.in / "new.csv");
  CHECK(b.arrived().size() == 2);

  write(b.dir / "elsewhere");
  fs::create_hard_link(b.dir / "elsewhere", b.in / "linked.csv");
  CHECK(b.arrived().size() == 3);

  const std::string before = stamp_of(b.in / "moved.csv");
  write(b.dir / "other", "other\n");
  fs::rename(b.dir / "other", b.in / "moved.csv");
  b.turn();
  for (const auto& file : b.watch->complete(wall_now())) {
    if (file.path.filename() == "moved.csv") CHECK(file.stamp != before);
    CHECK(file.stamp == stamp_of(file.path));
  }

  fs::remove(b.in / "new.csv");
  fs::rename(b.in / "linked.csv", b.dir / "away");
  CHECK(b.turn() == 0);  // nothing that could be taken
  CHECK(b.names() == strings{"moved.csv"});
  // Gone before it was told.
  write(b.in / "short.csv");
  fs::remove(b.in / "short.csv");
  CHECK(b.arrived() == strings{"moved.csv"});
  write(b.in / "short.csv");
  b.turn();
  fs::remove(b.in / "short.csv");
  CHECK(b.names().size() <= 2);
  CHECK(b.arrived() == strings{"moved.csv"});
}

TEST_CASE("folder: files made without a name, and shortened without a writer", "[folder_watch]") {
  bench b;
  b.start();
  const unique_fd nameless(::open(b.in.c_str(), O_TMPFILE | O_RDWR, 0644));
  if (nameless.get() >= 0) {
    REQUIRE(::write(nameless.get(), "abc", 3) == 3);
    const std::string self = "/proc/self/fd/" + std::to_string(nameless.get());
    REQUIRE(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, (b.in / "a").c_str(), AT_SYMLINK_FOLLOW) == 0);
    CHECK(b.arrived().empty());  // still open
  }
  write(b.in / "b", "long\n");
  CHECK(b.arrived() == strings{"b"});
  REQUIRE(::truncate((b.in / "b").c_str(), 1) == 0);
  CHECK(b.turn() == 1);
  REQUIRE(b.watch->complete(wall_now()).size() == 1);
  CHECK(b.watch->complete(wall_now())[0].size == 1);
}

TEST_CASE("folder: patterns and names that never match", "[folder_watch]") {
  CHECK(matches_arrival("*.csv", "a.csv"));
  CHECK_FALSE(matches_arrival("*.csv", "a.csv.gz"));
  CHECK_FALSE(matches_arrival("*", ".hidden"));
  CHECK(matches_arrival(".*", ".hidden"));
  for (const char* name : {"a.part", "a.tmp", "a~"}) CHECK_FALSE(matches_arrival("*", name));
  CHECK_FALSE(matches_arrival("a*", "a.tmp"));
  CHECK(matches_arrival("*.part", "a.part"));
  CHECK(matches_arrival("*~", "a~"));
  CHECK_FALSE(matches_arrival("*.part", "a.tmp"));
  CHECK(matches_arrival("orders-[0-9]?.json", "orders-12.json"));
  CHECK_FALSE(matches_arrival("orders-[0-9]?.json", "orders-1.json"));

  bench b;
  b.start("*.csv");
  fs::create_directory(b.in / "folder.csv");
  REQUIRE(::mkfifo((b.in / "fifo.csv").c_str(), 0600) == 0);
  b.turn();
  CHECK(b.names().empty());
  write(b.in / ".hidden.csv");
  write(b.in / "a.csv.tmp");
  write(b.in / "a.txt");
  CHECK(b.turn() == 0);
  b.start("*.csv");  // also when they are found
  CHECK(b.names().empty());
  fs::remove(b.in / "fifo.csv");
  write(b.in / "fifo.csv");
  CHECK(b.arrived() == strings{"fifo.csv"});
}

TEST_CASE("folder: a symbolic link counts when it leads to a file beside it", "[folder_watch]") {
  bench b;
  write(b.dir / "secret");
  b.start("*.csv");
  fs::create_symlink(b.dir / "secret", b.in / "out.csv");
  fs::create_symlink(b.in / "nothing", b.in / "lost.csv");
  fs::create_symlink("self.csv", b.in / "self.csv");
  fs::create_symlink("/dev/zero", b.in / "device.csv");
  CHECK(b.arrived().empty());
  slow_writer w(b.in / "data");
  w.write("1\n");
  fs::create_symlink("data", b.in / "link.csv");
  CHECK(b.arrived(wall_now() + 1h).empty());
  w.close();
  CHECK(b.turn() == 1);
  CHECK(b.names() == strings{"link.csv"});
  write(b.in / "data", "changed\n");
  CHECK(b.turn() == 1);
  CHECK(b.watch->complete(wall_now())[0].size == 8);
  fs::remove(b.in / "data");
  CHECK(b.arrived().empty());
}

TEST_CASE("folder: a file has to settle", "[folder_watch]") {
  bench b;
  set_mtime((write(b.in / "old"), b.in / "old"), wall_now() - 1h);
  b.start("*", 10s);
  CHECK(b.names() == strings{"old"});  // it has done so before

  write(b.in / "new");
  CHECK(b.turn() == 1);
  const timestamp now = wall_now();
  CHECK(b.names(now) == strings{"old"});
  auto next = b.watch->next_check(now);
  REQUIRE(next);
  CHECK(*next <= now + 10s);
  CHECK(*next > now + 5s);
  CHECK(b.names(*next - 1us) == strings{"old"});
  CHECK(b.names(*next) == strings{"old", "new"});
  CHECK_FALSE(b.watch->next_check(*next));

  // Every change begins it anew; one with an old mtime, too.
  write(b.in / "new", "again\n");
  set_mtime(b.in / "new", wall_now() - 2h);
  b.turn();
  CHECK(b.names(wall_now()) == strings{"old"});
  CHECK(b.names(wall_now() + 10s) == strings{"new", "old"});
}

TEST_CASE("folder: an mtime in the future does not hold a file for ever", "[folder_watch]") {
  bench b;
  set_mtime((write(b.in / "found"), b.in / "found"), wall_now() + 24h);
  b.start("*", 10s);
  set_mtime((write(b.in / "told"), b.in / "told"), wall_now() + 24h);
  const timestamp now = wall_now();
  CHECK(b.arrived(now).empty());
  CHECK(*b.watch->next_check(now) <= now + 10s);
  CHECK(b.names(now + 11s).size() == 2);
}

TEST_CASE("folder: a clock that is set back does not hold a file for ever", "[folder_watch]") {
  bench b;
  b.start("*", 10s);
  write(b.in / "a");
  const timestamp earlier = wall_now() - 24h;
  CHECK(b.arrived(earlier).empty());
  CHECK(*b.watch->next_check(earlier) <= earlier + 10s);
  CHECK(b.names(earlier + 11s) == strings{"a"});
}

TEST_CASE("folder: oldest first, then by name", "[folder_watch]") {
  bench b;
  b.start();
  const timestamp t = wall_now() - 1h;
  for (const char* name : {"d", "c", "b", "a"}) write(b.in / name);
  set_mtime(b.in / "a", t + 3us);
  set_mtime(b.in / "b", t + 1us);
  set_mtime(b.in / "c", t + 2us);
  set_mtime(b.in / "d", t + 1us);
  CHECK(b.arrived() == strings{"b", "d", "c", "a"});
}

TEST_CASE("folder: 10,000 files", "[folder_watch]") {
  bench b;
  for (int i = 0; i < 5000; ++i) write(b.in / ("before" + std::to_string(i)));
  b.start();
  CHECK(b.names().size() == 5000);
  for (int i = 0; i < 5000; ++i) write(b.in / ("after" + std::to_string(i)));
  CHECK(b.arrived().size() == 10'000);
  for (int i = 0; i < 5000; ++i) fs::remove(b.in / ("before" + std::to_string(i)));
  CHECK(b.arrived().size() == 5000);
}

TEST_CASE("folder: lost changes are made good by reading the folder", "[folder_watch]") {
  int limit = 0;
  std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> limit;
  if (limit <= 0 || limit > 100'000) {
    WARN("fs.inotify.max_queued_events is too large for this test");
    return;
  }
  bench b;
  write(b.in / "kept");
  write(b.in / "removed");
  b.start();
  slow_writer w(b.in / "slow");
  CHECK(b.arrived().size() == 2);
  write(b.dir / "0.tmp");
  const auto noise = [&](int i) { return b.in / (std::to_string(i % 2) + ".tmp"); };
  fs::rename(b.dir / "0.tmp", noise(0));
  for (int i = 0; i <= limit / 2; ++i) fs::rename(noise(i), noise(i + 1));  // two changes each time
  const std::string before = stamp_of(b.in / "kept");
  write(b.in / "lost");
  set_mtime(b.in / "lost", wall_now() - 1h);
  write(b.in / "kept", "changed\n");
  fs::remove(b.in / "removed");
  w.write("1\n");
  CHECK(b.turn() > 0);
  CHECK(b.names(wall_now() + 1h) == strings{"lost", "kept"});
  CHECK(stamp_of(b.in / "kept") != before);
  for (const auto& file : b.watch->complete(wall_now() + 1h)) CHECK(file.stamp == stamp_of(file.path));
  w.close();
  CHECK(b.arrived().size() == 3);
  write(b.in / "next");  // and it goes on
  CHECK(b.arrived().size() == 4);
}

TEST_CASE("folder: it may appear later, with all that leads to it", "[folder_watch]") {
  bench b(false);
  b.start_at(b.dir / "a" / "b" / "in");
  CHECK(b.names().empty());
  CHECK(b.watch->failure().empty());
  CHECK_FALSE(b.watch->next_check(wall_now()));
  fs::create_directory(b.dir / "other");
  CHECK(b.turn() == 0);
  SECTION("step by step") {
    fs::create_directory(b.dir / "a");
    b.turn();
    fs::create_directory(b.dir / "a" / "b");
    b.turn();
    fs::create_directory(b.dir / "a" / "b" / "in");
    CHECK(b.turn() > 0);
  }
  SECTION("at once") {
    fs::create_directories(b.dir / "a" / "b" / "in");
    CHECK(b.turn() > 0);
  }
  SECTION("moved there, with a file") {
    fs::create_directories(b.dir / "x" / "b" / "in");
    write(b.dir / "x" / "b" / "in" / "early");
    fs::rename(b.dir / "x", b.dir / "a");
    CHECK(b.arrived() == strings{"early"});
    fs::remove(b.dir / "a" / "b" / "in" / "early");
  }
  write(b.dir / "a" / "b" / "in" / "f");
  CHECK(b.arrived() == strings{"f"});
}

TEST_CASE("folder: it may be deleted and made again", "[folder_watch]") {
  bench b;
  b.start();
  write(b.in / "one");
  CHECK(b.arrived() == strings{"one"});
  for (int i = 0; i < 3; ++i) {
    fs::remove_all(b.in);
    if (i < 2) CHECK(b.arrived().empty());  // the last time both happen before it is told
    fs::create_directory(b.in);
    write(b.in / "two");
    CHECK(b.arrived() == strings{"two"});
  }
  // A file in its place.
  fs::remove_all(b.in);
  write(b.in);
  CHECK(b.arrived().empty());
  fs::remove(b.in);
  fs::create_directory(b.in);
  write(b.in / "three");
  CHECK(b.arrived() == strings{"three"});
}

TEST_CASE("folder: one that somebody still works in may be deleted and made again", "[folder_watch]") {
  bench b;
  b.start();
  const unique_fd inside(::open(b.in.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  fs::remove(b.in);
  CHECK(b.turn() == 1);
  fs::create_directory(b.in);
  write(b.in / "f");
  CHECK(b.arrived() == strings{"f"});
}

TEST_CASE("folder: it, or what it lies in, may be replaced by a move", "[folder_watch]") {
  bench b(false);
  fs::create_directories(b.dir / "a" / "in");
  b.start_at(b.dir / "a" / "in");
  write(b.dir / "a" / "in" / "one");
  CHECK(b.arrived() == strings{"one"});

  fs::rename(b.dir / "a" / "in", b.dir / "old");
  CHECK(b.arrived().empty());
  write(b.dir / "old" / "astray");
  CHECK(b.turn() == 0);
  fs::create_directory(b.dir / "a" / "in");
  write(b.dir / "a" / "in" / "two");
  CHECK(b.arrived() == strings{"two"});

  fs::create_directories(b.dir / "new" / "in");
  write(b.dir / "new" / "in" / "three");
  fs::rename(b.dir / "a", b.dir / "gone");
  fs::rename(b.dir / "new", b.dir / "a");
  CHECK(b.arrived() == strings{"three"});
}

TEST_CASE("folder: it may lie behind a symbolic link that is replaced", "[folder_watch]") {
  bench b(false);
  for (const char* release : {"1", "2"}) {
    fs::create_directories(b.dir / release / "in");
    write(b.dir / release / "in" / (std::string("of") + release));
  }
  fs::create_directory_symlink("1", b.dir / "current");
  b.start_at(b.dir / "current" / "in");
  CHECK(b.names() == strings{"of1"});
  CHECK(b.watch->complete(wall_now())[0].path == b.dir / "current" / "in" / "of1");
  fs::create_directory_symlink("2", b.dir / "next");
  CHECK(b.turn() == 0);
  fs::rename(b.dir / "next", b.dir / "current");
  CHECK(b.arrived() == strings{"of2"});
  write(b.dir / "1" / "in" / "late");
  CHECK(b.turn() == 0);
  fs::remove(b.dir / "current");
  fs::create_directory_symlink(b.dir / "current", b.dir / "current");
  CHECK(b.arrived().empty());
  CHECK_FALSE(b.watch->failure().empty());
}

TEST_CASE("folder: watches of one executor share a descriptor, and it goes with the last", "[folder_watch]") {
  const auto descriptors = [] {
    int count = 0;
    for (const auto& fd : fs::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      count += fs::read_symlink(fd.path(), gone).string().find("inotify") != std::string::npos;
    }
    return count;
  };
  const int before = descriptors();
  {
    bench b;
    std::vector<std::unique_ptr<folder_watch>> many;
    int told = 0;
    for (int i = 0; i < 300; ++i) {
      many.push_back(std::make_unique<folder_watch>(b.io.get_executor(), b.in, i % 2 ? "*.a" : "*.b", 0s,
                                                    [&] { ++told; }));
    }
    CHECK(descriptors() == before + 1);
    write(b.in / "x.a");
    b.turn();
    CHECK(told == 150);
    for (std::size_t i = 0; i < 300; ++i) CHECK(many[i]->complete(wall_now()).size() == i % 2);
    many.erase(many.begin() + 1, many.end());
    write(b.in / "x.b");
    b.turn();
    CHECK(told == 151);
    many.clear();
    CHECK(descriptors() == before);
    b.turn();
    write(b.in / "y.b");
    b.io.restart();
    CHECK(b.io.poll() == 0);
  }
  CHECK(descriptors() == before);
}

TEST_CASE("folder: no call comes after its end, and it may end inside its call", "[folder_watch]") {
  bench b;
  b.start();
  write(b.in / "a");
  b.watch.reset();
  CHECK(b.turn() == 0);

  int told = 0;
  std::unique_ptr<folder_watch> one, two;
  const auto end_both = [&] {
    ++told;
    one.reset();
    two.reset();
  };
  one = std::make_unique<folder_watch>(b.io.get_executor(), b.in, "*", 0s, end_both);
  two = std::make_unique<folder_watch>(b.io.get_executor(), b.in, "*", 0s, end_both);
  write(b.in / "b");
  b.turn();
  CHECK(told == 1);
  // A new one counts the kernel's watches from the beginning again.
  b.start("b");
  write(b.in / "b");
  CHECK(b.arrived() == strings{"b"});
}

TEST_CASE("folder: one that cannot be read is a failure, and is tried again", "[folder_watch]") {
  if (::geteuid() == 0) return;  // root may read everything
  bench b;
  fs::permissions(b.in, fs::perms::none);
  b.start();
  CHECK(b.names().empty());
  CHECK(b.watch->failure().find("Permission denied") != std::string::npos);
  CHECK(*b.watch->next_check(wall_now()) <= wall_now() + 1min);
  fs::permissions(b.in, fs::perms::owner_all);
  write(b.in / "a");
  CHECK(b.arrived() == strings{"a"});
  CHECK(b.watch->failure().empty());
}

TEST_CASE("folder: where the kernel does not say who writes, the close does", "[folder_watch]") {
  if (::geteuid() != 0) return;  // needs files of somebody else
  bench b;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct all[2], fewer[2];
  REQUIRE(::syscall(SYS_capget, &header, all) == 0);
  std::copy(all, all + 2, fewer);
  fewer[0].effective &= ~(1u << CAP_LEASE);
  const auto others = [&](const char* name) {
    slow_writer w(b.in / name);
    REQUIRE(::chown((b.in / name).c_str(), 65534, 65534) == 0);
    return w;
  };
  slow_writer found = others("found");
  REQUIRE(::syscall(SYS_capset, &header, fewer) == 0);
  b.start("*", 10s);
  slow_writer made = others("made");
  made.write("1\n");
  b.turn();
  CHECK(b.names(wall_now() + 5s).empty());
  CHECK(b.names(wall_now() + 20s) == strings{"found"});  // it has settled; more cannot be known
  CHECK_FALSE(b.watch->next_check(wall_now() + 20s));
  found.write("2\n");
  CHECK(b.turn() == 1);
  CHECK(b.names(wall_now() + 20s).empty());
  found.close();
  made.close();
  CHECK(b.turn() == 1);
  CHECK(b.names(wall_now() + 20s).size() == 2);
  REQUIRE(::syscall(SYS_capset, &header, all) == 0);
}

}  // namespace test_folder_watch
