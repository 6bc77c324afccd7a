#include <fstream>
#include <iterator>
#include <string>
#include <sys/resource.h>
#include <vector>

#include <catch2/catch.hpp>

#include "config/time.hpp"
#include "runtime/log_file.hpp"
#include "tests/runtime/file_size_limit.hpp"
#include "tests/temp_dir.hpp"

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

TEST_CASE("log file: the limit", "[log_file]") {
  temp_dir dir;
  const std::int64_t limit = 4096;
  const std::string output_line = GENERATE(std::string("y"), std::string(500, 'x'), std::string(5000, 'z'));
  std::int64_t given = 0, discarded = 0;
  {
    log_file log(dir / "log", limit);
    for (int i = 0; i < 5000; ++i) {
      log.write(i % 2 ? stream::out : stream::err, output_line + "\n");
      given += static_cast<std::int64_t>(output_line.size()) + 1;
    }
    CHECK(log.full());
    log.discard(10);
    log.note("the end");
    discarded = log.discarded_bytes() - 10;
  }
  const auto lines = lines_of(dir / "log");
  CHECK(std::filesystem::file_size(dir / "log") >= static_cast<std::uintmax_t>(limit));
  CHECK(std::filesystem::file_size(dir / "log") < limit + 200);
  CHECK(lines[lines.size() - 2].text.find("limit of 4KiB is reached") != std::string::npos);
  CHECK(lines.back().text == "the end");
  std::int64_t stored = 0;
  for (const auto& l : lines)
    if (l.from != '-') stored += static_cast<std::int64_t>(l.text.size()) + 1;
  CHECK(std::abs(given - discarded - stored) <= 1);  // the newline that ends a line cut at the limit

  // The next attempt finds it full: it adds nothing, not even a second line about the limit.
  const auto before = contents(dir / "log");
  log_file again(dir / "log", limit);
  again.write(stream::out, "more\n");
  again.write(stream::err, "unfinished");
  again.flush();
  CHECK(again.discarded_bytes() == 15);
  CHECK(contents(dir / "log") == before);
}

TEST_CASE("log file: a later attempt appends", "[log_file]") {
  temp_dir dir;
  for (const std::string attempt : {"first", "second"}) {
    log_file log(dir / "log", 4096);
    log.write(stream::out, attempt + "\n");
  }
  CHECK(texts_of(dir / "log") == texts{"o:first", "o:second"});
}

TEST_CASE("log file: moved, it goes on in the same file", "[log_file]") {
  temp_dir dir;
  log_file log(dir / "log", 4096);
  log.write(stream::out, "whole\nhal");
  log_file other(std::move(log));
  other.write(stream::out, "f\n");
  CHECK(texts_of(dir / "log") == texts{"o:whole", "o:half"});
}

TEST_CASE("log file: where none can be made, output is counted", "[log_file]") {
  temp_dir dir;
  std::ofstream(dir / "file") << "not a folder";
  log_file log(dir / "file" / "log", 4096);
  log.write(stream::out, "12345\n");
  log.note("nobody reads this");
  CHECK(log.full());
  CHECK(log.discarded_bytes() == 6);
}

TEST_CASE("log file: a write that fails is no failure of the run", "[log_file]") {
  temp_dir dir;
  log_file log(dir / "log", 1 << 20);
  log.write(stream::out, "fits\n");
  {
    const penstock::testing::file_size_limit full_disk(40);
    log.write(stream::out, std::string(1000, 'x') + "\n");
  }
  CHECK(log.full());
  CHECK(log.discarded_bytes() > 900);
  CHECK(contents(dir / "log").find(" o fits\n") != std::string::npos);
}
