#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <sys/resource.h>
#include <vector>

#include <catch2/catch.hpp>

#include "config/time.hpp"
#include "runtime/log_file.hpp"
#include "tests/runtime/file_size_limit.hpp"
#include "tests/temp_dir.hpp"

namespace test_log_file {

using penstock::runtime::log_file;
using stream = log_file::stream;
using penstock::testing::temp_dir;

namespace {

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct line {
  std::string time, text;
  char from = 0;
};

// The file's lines, each checked for its form.
std::vector<line> lines_of(const std::filesystem::path& file) {
  std::vector<line> lines;
  std::ifstream in(file, std::ios::binary);
  for (std::string text; std::getline(in, text);) {
    const auto space = text.find(' ');
    REQUIRE(space != std::string::npos);
    REQUIRE(penstock::parse_time(text.substr(0, space)));
    REQUIRE(text.size() >= space + 3);
    REQUIRE(text[space + 2] == ' ');
    lines.push_back({text.substr(0, space), text.substr(space + 3), text[space + 1]});
  }
  return lines;
}

std::vector<std::string> texts_of(const std::filesystem::path& file) {
  std::vector<std::string> texts;
  for (auto& l : lines_of(file)) texts.push_back(l.from + (":" + l.text));
  return texts;
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("log file: without output there is no file", "[log_file]") {
  temp_dir dir;
  { log_file log(dir / "runs" / "1" / "main.log", 1000); }
  CHECK_FALSE(std::filesystem::exists(dir / "runs"));
}

TEST_CASE("log file: lines, whatever pieces they come in", "[log_file]") {
  temp_dir dir;
  const auto file = dir / "runs" / "1" / "main.log";
  {
    log_file log(file, 1 << 20);
    log.write(stream::out, "one\ntw");
    log.write(stream::err, "bad ");
    log.write(stream::out, "o\n\nthree");
    log.write(stream::err, "news\n");
    CHECK(texts_of(file) == texts{"o:one", "o:two", "o:", "e:bad news"});
    log.note("by Penstock");
    log.flush();
    CHECK(texts_of(file).back() == "o:three");
    log.flush();
    log.write(stream::out, "four");
    log.write(stream::out, "");
  }  // the destructor keeps the last line
  CHECK(texts_of(file) == texts{"o:one", "o:two", "o:", "e:bad news", "-:by Penstock", "o:three", "o:four"});
}

TEST_CASE("log file: bytes stay as they are", "[log_file]") {
  temp_dir dir;
  const std::string odd("\xff\xfe\0\r\x1b[31mred", 13);
  {
    log_file log(dir / "log", 1 << 20);
    log.write(stream::out, odd + "\n");
  }
  CHECK(texts_of(dir / "log") == texts{"o:" + odd});
}

TEST_CASE("log file: a long line is cut into pieces and nothing of it is lost", "[log_file]") {
  temp_dir dir;
  std::string text;
  for (int i = 0; text.size() < 200'000; ++i) text += std::to_string(i) + ",";
  const std::size_t chunk = GENERATE(1000u, 65536u, 200'006u);
  {
    log_file log(dir / "log", 10 << 20);
    for (std::size_t at = 0; at < text.size(); at += chunk) log.write(stream::out, text.substr(at, chunk));
    log.write(stream::out, "\nnext\n");
  }
  std::string joined;
  const auto lines = lines_of(dir / "log");
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
    CHECK(lines[i].text.size() <= 64 * 1024);
    joined += lines[i].text;
  }
  CHECK(joined == text);
  CHECK(lines.back().text == "next");
  CHECK(lines.size() == 5);
}

TEST_CASE("log file: a line of exactly 64 KiB is one line", "[log_file]") {
  temp_dir dir;
  {
    log_file log(dir / "log", 10 << 20);
    log.write(stream::out, std::string(64 * 1024, 'x'));
    log.write(stream::out, "\n");
  }
  CHECK(lines_of(dir / "log").size() == 1);
}

TEST_CASE("log file: at the limit the beginning stays, and the end comes at the end", "[log_file]") {
  temp_dir dir;
  const std::int64_t limit = 4096;
  const std::string output_line = GENERATE(std::string("y"), std::string(500, 'x'), std::string(5000, 'z'));
  const int count = 5000;
  std::int64_t given = 0, discarded = 0;
  {
    log_file log(dir / "log", limit);
    for (int i = 0; i < count; ++i) {
      const std::string text = std::to_string(i) + output_line + "\n";
      log.write(stream::out, text);
      given += static_cast<std::int64_t>(text.size());
    }
    log.note("it is about to end");
    log.flush();
    discarded = log.discarded_bytes();
  }
  const auto lines = texts_of(dir / "log");
  CHECK(std::filesystem::file_size(dir / "log") >= static_cast<std::uintmax_t>(limit));
  CHECK(std::filesystem::file_size(dir / "log") < 2 * limit + 2 * output_line.size() + 400);
  CHECK(lines.front() == "o:0" + output_line);
  // Of a line longer than the limit, the end.
  const bool cut = output_line.size() > 4096;
  CHECK(lines.back() == (cut ? "o:…" + output_line.substr(output_line.size() - 4095) : "o:4999" + output_line));
  std::int64_t stored = 0;
  texts notes;
  int last = -1, gaps = 0;
  for (const auto& l : lines) {
    if (l[0] == '-') {
      notes.push_back(l);
      continue;
    }
    stored += static_cast<std::int64_t>(l.size()) - 2 + 1;
    if (l.substr(2).starts_with("…")) {
      stored -= 3;  // which stand for its beginning
      continue;
    }
    const int number = std::stoi(l.substr(2));
    if (number != last + 1) ++gaps;
    last = number;
  }
  CHECK(given == stored + discarded);
  CHECK(gaps == (cut ? 0 : 1));
  REQUIRE(notes.size() == 3);
  CHECK(notes[0] == "-:the log's limit of 4KiB is reached: of further output only the last is stored, at the end");
  CHECK(notes[1] == "-:it is about to end");
  CHECK(std::regex_match(notes[2], std::regex("-:.* of output were not stored; the last lines follow")));
}

TEST_CASE("log file: the last words on stderr are kept, whatever comes on stdout", "[log_file]") {
  temp_dir dir;
  {
    log_file log(dir / "log", 4096);
    for (int i = 0; i < 2000; ++i) {
      log.write(stream::out, std::string(100, 'x') + "\n");
      if (i % 500 == 499) log.write(stream::err, "trouble " + std::to_string(i) + "\n");
      if (i == 1998) log.write(stream::err, "fatal\n");
    }
  }
  const auto lines = texts_of(dir / "log");
  CHECK(std::count(lines.begin(), lines.end(), "e:fatal") == 1);
  CHECK(std::count(lines.begin(), lines.end(), "e:trouble 499") == 1);
  CHECK(lines[lines.size() - 2] == "o:" + std::string(100, 'x'));
  CHECK(lines.back() == "e:trouble 1999");
  CHECK(std::filesystem::file_size(dir / "log") < 2 * 4096 + 400);
}

TEST_CASE("log file: what is a little over the limit is stored whole", "[log_file]") {
  temp_dir dir;
  texts expected;
  {
    log_file log(dir / "log", 1000);
    for (int i = 0; i < 40; ++i) {
      log.write(stream::out, "line " + std::to_string(i) + "\n");
      expected.push_back("o:line " + std::to_string(i));
      if (i == 10) log.write(stream::err, "begun before, ");
    }
    log.write(stream::err, "ended after");
    expected.push_back("e:begun before, ended after");
  }
  auto found = texts_of(dir / "log");
  std::erase_if(found, [](const std::string& l) { return l[0] == '-'; });
  CHECK(found == expected);
  CHECK(contents(dir / "log").find("not stored") == std::string::npos);
}

TEST_CASE("log file: a later attempt that finds it full keeps its last lines, too", "[log_file]") {
  temp_dir dir;
  for (const std::string attempt : {"first ", "second "}) {
    log_file log(dir / "log", 1000);
    for (int i = 0; i < 1000; ++i) log.write(stream::out, attempt + std::to_string(i) + "\n");
  }
  const auto lines = texts_of(dir / "log");
  CHECK(lines.front() == "o:first 0");
  CHECK(std::count(lines.begin(), lines.end(), "o:first 999") == 1);
  CHECK(lines.back() == "o:second 999");
  CHECK(std::filesystem::file_size(dir / "log") < 3500);
}

TEST_CASE("log file: much output beyond the limit is read at the price of a copy", "[log_file]") {
  temp_dir dir;
  log_file log(dir / "log", 1 << 20);
  std::string chunk;
  while (chunk.size() < 65536) chunk += "y\n";
  for (int i = 0; i < 10'000; ++i) log.write(stream::out, chunk);
  log.flush();
  CHECK(log.discarded_bytes() > 600 << 20);
  CHECK(std::filesystem::file_size(dir / "log") < (1 << 20) + (64 << 10) + 400);
}

TEST_CASE("log file: rotated, the newest lines are in the file and the ones before beside it", "[log_file]") {
  temp_dir dir;
  const auto file = dir / "flow.log", older = dir / "flow.log.1";
  log_file log(file, 1000, log_file::when_full::rotate, std::chrono::nanoseconds{0});
  int last = -1;
  for (int i = 0; i < 500; ++i) {
    log.write(stream::out, "line " + std::to_string(i) + "\nhal");
    log.write(stream::out, "f\n");
    texts lines = std::filesystem::exists(older) ? texts_of(older) : texts{};
    for (auto& l : texts_of(file)) lines.push_back(l);
    REQUIRE(lines.size() >= 2);
    REQUIRE(lines.back() == "o:half");
    REQUIRE(lines[lines.size() - 2] == "o:line " + std::to_string(i));
    REQUIRE(std::filesystem::file_size(file) < 1100);
    last = i;
  }
  CHECK(last == 499);
  CHECK(std::filesystem::file_size(older) >= 1000);
  CHECK(log.discarded_bytes() == 0);
}

TEST_CASE("log file: full from before, it is rotated at the first line", "[log_file]") {
  temp_dir dir;
  std::ofstream(dir / "flow.log") << std::string(2000, 'x') << "\n";
  log_file log(dir / "flow.log", 1000, log_file::when_full::rotate);
  log.write(stream::out, "new\n");
  CHECK(texts_of(dir / "flow.log") == texts{"o:new"});
  CHECK(std::filesystem::file_size(dir / "flow.log.1") == 2001);
}

TEST_CASE("log file: one that is filled too soon is rotated later, with the last lines", "[log_file]") {
  temp_dir dir;
  const auto file = dir / "flow.log";
  {
    log_file log(file, 1000, log_file::when_full::rotate, std::chrono::hours{1});
    CHECK(log.due() == std::chrono::steady_clock::time_point::max());
    for (int i = 0; i < 1000; ++i) log.write(stream::out, "line " + std::to_string(i) + "\n");
    CHECK(log.due() > std::chrono::steady_clock::now() + std::chrono::minutes{50});
    CHECK(log.due() < std::chrono::steady_clock::now() + std::chrono::minutes{70});
    log.catch_up();  // too early
    const auto waiting = texts_of(file);
    CHECK(waiting.back() == "-:the log's limit of 1kB is reached too soon: output waits here, and only the last of it is "
                            "stored");
    CHECK(texts_of(dir / "flow.log.1").front() == "o:line 0");
  }
  const auto lines = texts_of(file);
  CHECK(lines.back() == "o:line 999");
  CHECK(std::regex_match(lines.front(), std::regex("-:.* of output were not stored; the last lines follow")));
}

TEST_CASE("log file: the tail", "[log_file]") {
  temp_dir dir;
  const auto file = dir / "log";
  using penstock::runtime::log_tail;
  CHECK(log_tail(file, 100).empty());
  std::ofstream(file, std::ios::binary) << "one\ntwo\nthree\n";
  CHECK(log_tail(file, 100) == "one\ntwo\nthree\n");
  CHECK(log_tail(file, 14) == "one\ntwo\nthree\n");
  CHECK(log_tail(file, 13) == "two\nthree\n");
  CHECK(log_tail(file, 10) == "two\nthree\n");
  CHECK(log_tail(file, 9) == "three\n");
  CHECK(log_tail(file, 6) == "three\n");
  CHECK(log_tail(file, 4) == "ree\n");  // better than nothing
  CHECK(log_tail(file, 0).empty());
  CHECK(log_tail(dir.path(), 10).empty());
}

TEST_CASE("log file: a later attempt appends", "[log_file]") {
  temp_dir dir;
  for (const std::string attempt : {"first", "second"}) {
    log_file log(dir / "log", 4096);
    log.write(stream::out, attempt + "\n");
  }
  CHECK(texts_of(dir / "log") == texts{"o:first", "o:second"});
}

TEST_CASE("log file: where none can be made, output is counted", "[log_file]") {
  temp_dir dir;
  std::ofstream(dir / "file") << "not a folder";
  log_file log(dir / "file" / "log", 4096);
  log.write(stream::out, "12345\n");
  log.note("nobody reads this");
  log.write(stream::err, "and the start of a line");
  log.flush();
  CHECK(log.discarded_bytes() == 29);
}

TEST_CASE("log file: a write that fails is no failure of the run", "[log_file]") {
  temp_dir dir;
  log_file log(dir / "log", 1 << 20);
  log.write(stream::out, "fits\n");
  {
    const penstock::testing::file_size_limit full_disk(40);
    log.write(stream::out, std::string(1000, 'x') + "\n");
  }
  CHECK(log.discarded_bytes() > 900);
  log.write(stream::out, "lost, too\n");
  CHECK(log.discarded_bytes() > 909);
  CHECK(contents(dir / "log").find(" o fits\n") != std::string::npos);
}

TEST_CASE("log file: goes on when the disk works again, and says what is missing", "[log_file]") {
  temp_dir dir;
  log_file log(dir / "log", 1 << 20, log_file::when_full::keep_ends, std::chrono::nanoseconds{0});
  log.write(stream::out, "before\n");
  {
    const penstock::testing::file_size_limit full_disk(100);
    log.write(stream::out, std::string(1000, 'x') + "\n");
    log.write(stream::out, "lost\n");
  }
  const auto missing = log.discarded_bytes();
  CHECK(missing > 900);
  log.write(stream::out, "after\n");
  CHECK(log.discarded_bytes() == missing);
  const auto lines = texts_of(dir / "log");
  REQUIRE(lines.size() == 4);
  CHECK(lines.front() == "o:before");
  CHECK(lines[1].starts_with("o:xxx"));
  CHECK(lines[2].starts_with("-:"));
  CHECK(lines[2].find(" of output are missing here: the log could not be written") != std::string::npos);
  CHECK(lines.back() == "o:after");
}

}  // namespace test_log_file
