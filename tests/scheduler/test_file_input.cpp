// What a file trigger tells a run of its files, and where they are found again after they were put away.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "scheduler/file_input.hpp"
#include "tests/temp_dir.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using penstock::testing::temp_dir;

namespace {

namespace fs = std::filesystem;

runtime::arrived_file write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
  runtime::arrived_file file;
  file.path = path;
  file.size = static_cast<std::int64_t>(text.size());
  file.modified = std::chrono::floor<std::chrono::microseconds>(
      std::chrono::file_clock::to_sys(fs::last_write_time(path)));
  return file;
}

std::vector<config::trigger> moving(const std::string& done, const std::string& failed) {
  config::file_trigger by_file;
  by_file.move_to = done;
  by_file.move_failed_to = failed;
  config::topic_trigger other;
  return {other, by_file};
}

}  // namespace

TEST_CASE("file input: the one file of an input", "[file_input]") {
  const temp_dir dir;
  const auto one = file_event(write(dir / "in/a \"b\".csv", "x"));
  const auto two = file_event(write(dir / "in/c.csv", "y"));
  CHECK(only_file(one) == (dir / "in/a \"b\".csv").string());
  CHECK(only_file(one + two).empty());
  CHECK(only_file("").empty());
  CHECK(only_file(R"({"path":"/etc/passwd"})").empty());
  CHECK(only_file(R"({"path":1,"name":"a","size":1,"modified":"now"})").empty());
}

TEST_CASE("file input: a file that was put away is found where it is", "[file_input]") {
  const temp_dir dir;
  write(dir / "in/done/a.csv", "an earlier one");
  const auto event = file_event(write(dir / "in/a.csv", "a"));
  const auto triggers = moving("done", "../failed");
  CHECK(with_present_paths(event, triggers) == event);

  const auto away = free_name(dir / "in/done", "a.csv");
  CHECK(away == dir / "in/done/a-2.csv");
  fs::rename(dir / "in/a.csv", away);
  CHECK(only_file(with_present_paths(event, triggers)) == away.string());
  CHECK(with_present_paths(event, moving("", "../failed")) == event);

  write(dir / "in/a.csv", "another");  // has taken its name since
  CHECK(only_file(with_present_paths(event, triggers)) == away.string());

  fs::create_directories(dir / "failed");
  fs::rename(away, dir / "failed/a.csv");
  CHECK(only_file(with_present_paths(event, triggers)) == (dir / "failed/a.csv").string());

  fs::remove(dir / "failed/a.csv");
  CHECK(with_present_paths(event, triggers) == event);
}

TEST_CASE("file input: of many lines only those of files that moved change", "[file_input]") {
  const temp_dir dir;
  const auto stays = file_event(write(dir / "in/stays.csv", "1"));
  const auto moves = file_event(write(dir / "in/moves.csv", "22"));
  fs::create_directories(dir / "in/done");
  fs::rename(dir / "in/moves.csv", dir / "in/done/moves.csv");
  const std::string plain = "{\"n\":  1e2}\nnot even JSON\n";
  const auto now = with_present_paths(plain + stays + moves, moving("done", ""));
  CHECK(now.starts_with(plain + stays));
  CHECK(only_file(now.substr(plain.size() + stays.size())) == (dir / "in/done/moves.csv").string());
}
