#include "runtime/output_file.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <stdexcept>
#include <stdlib.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "config/time.hpp"
#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "runtime/text.hpp"
#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t most_bytes = 64 * 1024;
constexpr std::string_view name_begins = "output-";
constexpr std::string_view blanks = " \t\r\n";

error malformed(std::string why) { return {errc::malformed, std::move(why)}; }

result<std::string> parse_object(std::string_view text) {
  std::string padded(text);
  padded.append(padding, '\0');
  if (const auto wrong = check_json({padded.data(), text.size()}); !wrong.empty())
    return malformed("is not a JSON object: " + wrong);
  const auto object = nlohmann::json::parse(text, nullptr, false);
  if (!object.is_object()) return malformed("is not a JSON object");
  return object.dump();
}

bool is_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
}

result<std::string> parse_lines(std::string_view text) {
  nlohmann::json object = nlohmann::json::object();
  for (int number = 1; !text.empty(); ++number) {
    const auto line_end = text.find('\n');
    std::string_view line = text.substr(0, line_end);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.find_first_not_of(blanks) == std::string_view::npos || line.front() == '#') continue;
    const auto equals = line.find('=');
    const std::string where = "has a line " + std::to_string(number) + " that ";
    if (equals == std::string_view::npos || !is_name(line.substr(0, equals)))
      return malformed(where + "is not name=value (a name has letters, digits, '_', '-' and '.')");
    std::string checked;
    if (!append_utf8_json_string(checked, line.substr(equals + 1))) return malformed(where + "is not UTF-8");
    object[std::string(line.substr(0, equals))] = line.substr(equals + 1);
  }
  return object.empty() ? std::string() : object.dump();
}

}  // namespace

result<std::string> parse_output(std::string_view text) {
  if (text.size() > most_bytes)
    return error{errc::too_large, "is longer than " + format_size(static_cast<std::int64_t>(most_bytes))};
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return std::string();
  return text[first] == '{' ? parse_object(text) : parse_lines(text);
}

void remove_left_output_files(const fs::path& folder) {
  std::error_code ignored;
  for (fs::directory_iterator at(folder, ignored), end; at != end && !ignored; at.increment(ignored)) {
    std::error_code stays;
    if (at->path().filename().string().starts_with(name_begins)) fs::remove(at->path(), stays);
  }
}

output_file::output_file(const fs::path& folder, const identity* owner) {
  if (fs::create_directories(folder)) ::chmod(folder.c_str(), 0711);
  path_ = (folder / name_begins).string() + "XXXXXX";
  const unique_fd file(::mkostemp(path_.data(), O_CLOEXEC));
  if (file.get() < 0) throw std::runtime_error("cannot make a file in " + folder.string() + ": " + error_words(errno));
  if (!owner || owner->is_ours || ::fchown(file.get(), owner->uid, owner->gid) == 0) return;
  const int why = errno;
  ::unlink(path_.c_str());
  throw std::runtime_error("cannot give " + path_ + " to its user: " + error_words(why));
}

output_file::~output_file() { ::unlink(path_.c_str()); }

// The program may have put anything in its place, so nothing is followed and nothing is waited for.
result<std::string> output_file::read() const {
  const unique_fd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0 && errno == ENOENT) return std::string();
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) return malformed("cannot be read: " + error_words(errno));
  if (!S_ISREG(status.st_mode)) return malformed("is not a file any more");
  // Nobody whom we could end writes to it any more. One byte more than allowed is read, which is how parse_output() knows.
  std::string text(std::min(static_cast<std::size_t>(status.st_size), most_bytes + 1), '\0');
  std::size_t size = 0;
  for (ssize_t got; size < text.size(); size += static_cast<std::size_t>(got)) {
    got = ::read(file.get(), text.data() + size, text.size() - size);
    if (got < 0) return malformed("cannot be read: " + error_words(errno));
    if (got == 0) break;
  }
  text.resize(size);
  return parse_output(text);
}

}  // namespace penstock::runtime
