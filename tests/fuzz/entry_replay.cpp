// The program of a target where there is no libFuzzer: tries each input that it is given, and some changed ones of each.
//
// usage: fuzz_NAME [--changes N] FILE|FOLDER ...
//
// Which changes follows from the input alone, so a second run is the same as the first. When an input ends the program, its
// name is said last, and which change of it that was.
#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <unistd.h>

#include "tests/fuzz/target.hpp"

// So that what the sanitizers find is told like everything else.
extern "C" const char* __asan_default_options();
extern "C" const char* __ubsan_default_options();
extern "C" const char* __asan_default_options() { return "abort_on_error=1:handle_abort=0"; }
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:abort_on_error=1"; }

namespace {

namespace fs = std::filesystem;

std::array<char, 4096> at_work{};  // said by the handler of signals

void say_what_was_tried(int signal) {
  const auto ignored = ::write(STDERR_FILENO, at_work.data(), std::strlen(at_work.data()));
  static_cast<void>(ignored);
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

void try_one(const std::string& name, int change, const std::string& text) {
  if (change == 0) {
    std::snprintf(at_work.data(), at_work.size(), "ended by the input %s\n", name.c_str());
  } else {
    std::snprintf(at_work.data(), at_work.size(), "ended by the input %s, changed for the %d. time\n", name.c_str(), change);
  }
  // Memory of exactly that size: one byte beyond is found.
  const auto bytes = std::make_unique<char[]>(text.size());
  text.copy(bytes.get(), text.size());
  penstock::fuzz::try_input({bytes.get(), text.size()});
}

// Cut short, a part taken out or repeated, a byte replaced or put in: what fuzzers do first.
std::string changed(std::string text, std::minstd_rand& chance) {
  if (text.empty()) return text;
  const std::size_t at = chance() % text.size();
  const std::size_t size = 1 + chance() % std::min<std::size_t>(text.size() - at, 32);
  constexpr std::string_view telling("\0\n\r \"'\\{}[],:;%*-0\x7f\x80\xff", 21);
  const char byte = telling[chance() % telling.size()];
  switch (chance() % 5) {
    case 0: text.resize(at); break;
    case 1: text.erase(at, size); break;
    case 2: text.insert(at, text.substr(at, size)); break;
    case 3: text[at] = byte; break;
    default: text.insert(at, 1, byte); break;
  }
  return text;
}

void try_file(const fs::path& file, int changes) {
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  try_one(file.string(), 0, text);
  std::minstd_rand chance(static_cast<unsigned>(text.size() + 1));
  for (int change = 1; change <= changes; ++change) try_one(file.string(), change, changed(text, chance));
}

}  // namespace

int main(int count, char** arguments) {
  int changes = 0;
  std::vector<fs::path> files;
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--changes" && i + 1 < count) {
      const std::string_view number = arguments[++i];
      std::from_chars(number.data(), number.data() + number.size(), changes);
    } else if (fs::is_directory(argument)) {
      for (const auto& entry : fs::recursive_directory_iterator(argument)) {
        if (entry.is_regular_file()) files.push_back(entry.path());
      }
    } else {
      files.emplace_back(argument);
    }
  }
  std::sort(files.begin(), files.end());
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, say_what_was_tried);
  for (const fs::path& file : files) try_file(file, changes);
  std::printf("%zu inputs, each changed %d times\n", files.size(), changes);
  return files.empty() ? 1 : 0;
}
