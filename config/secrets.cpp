#include "config/secrets.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "config/characters.hpp"
#include "config/fill_in.hpp"
#include "config/in_quotes.hpp"

namespace penstock::config {
namespace {

constexpr std::string_view folder_reference =
    "${dir}";  // replaced by whoever knows the folder; never a secret
constexpr std::uintmax_t largest_secret_file = 64 * 1024;

const std::vector<std::string>& kinds() {
  static const std::vector<std::string> all{"env", "file", "secret"};
  return all;
}

// ${kind:name} as it stands in a text.
struct reference {
  std::size_t begin = 0, end = 0;  // the text from '$' to behind '}'
  bool closed = false;
  std::string_view kind, name;
};

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }

// The end of a reference's name: the next '}' that does not belong to a ${dir} inside.
std::size_t end_of_name(std::string_view text, std::size_t from) {
  while (from < text.size() && text[from] != '}') {
    from += text.substr(from).starts_with(folder_reference) ? folder_reference.size() : 1;
  }
  return from;
}

// Looks at the "${" at `begin`: the reference there, or nothing when it is a shell's affair (or ${dir}). The
// kind is lower case and what follows the colon can begin a name; ${NAME:-default} and ${name:0:3} are none.
std::optional<reference> reference_at(std::string_view text, std::size_t begin) {
  std::size_t colon = begin + 2;
  while (colon < text.size() && is_lower(text[colon])) ++colon;
  if (colon == begin + 2 || colon == text.size() || text[colon] != ':') return std::nullopt;
  reference out;
  out.begin = begin;
  out.kind = text.substr(begin + 2, colon - begin - 2);
  const bool known = std::find(kinds().begin(), kinds().end(), out.kind) != kinds().end();
  const char first = colon + 1 < text.size() ? text[colon + 1] : '}';
  if (!known && !begins_word(first) && first != '/') return std::nullopt;
  const std::size_t brace = end_of_name(text, colon + 1);
  out.closed = brace < text.size();
  out.end = out.closed ? brace + 1 : brace;
  out.name = text.substr(colon + 1, brace - colon - 1);
  return out;
}

std::optional<reference> next_reference(std::string_view text, std::size_t from) {
  for (std::size_t at = text.find("${", from); at != text.npos; at = text.find("${", at + 2)) {
    if (auto found = reference_at(text, at)) return found;
  }
  return std::nullopt;
}

bool is_environment_name(std::string_view name) {
  return !name.empty() && begins_word(name.front()) && std::all_of(name.begin(), name.end(), is_word);
}

bool is_file_name(std::string_view name) {
  const auto allowed = [](char c) { return is_word(c) || c == '.' || c == '-'; };
  return !name.empty() && name.front() != '.' && std::all_of(name.begin(), name.end(), allowed);
}

// Whoever gives a run its parameters must not choose the file that is read.
bool holds_another(std::string_view name) {
  for (std::size_t at = name.find("${"); at != name.npos; at = name.find("${", at + 2)) {
    if (!name.substr(at).starts_with(folder_reference)) return true;
  }
  return false;
}

std::optional<std::string> fault_of(const reference& r, std::string_view text) {
  const std::string shown(text.substr(r.begin, std::min<std::size_t>(r.end - r.begin, 60)));
  if (!r.closed) return "the reference '" + shown + "' has no closing brace";
  if (is_fill_in_variable(r.kind)) {
    return "'" + shown + "' is no reference; a value is filled in with a dot: ${" + std::string(r.kind) + ".NAME}";
  }
  if (std::find(kinds().begin(), kinds().end(), r.kind) == kinds().end()) {
    return "unknown kind of reference '" + std::string(r.kind) + "' in '" + shown + "'; " +
           suggestion(r.kind, kinds());
  }
  if (holds_another(r.name)) {
    return "'" + shown + "' holds another ${...}; where a secret comes from is written out";
  }
  if (r.kind == "env" && !is_environment_name(r.name)) {
    return "'" + shown + "' names no environment variable; write ${env:NAME}";
  }
  if (r.kind == "secret" && !is_file_name(r.name)) {
    return "'" + shown + "' names no secret; write ${secret:NAME} with letters, digits, '_', '-' and '.'";
  }
  if (r.kind == "file" && !r.name.starts_with('/') && !r.name.starts_with(folder_reference)) {
    return "'" + shown + "' needs an absolute path, or one that begins with ${dir}";
  }
  return std::nullopt;
}

error missing(const reference& r, const std::string& why) {
  return error{errc::invalid, "${" + std::string(r.kind) + ":" + std::string(r.name) + "}: " + why};
}

result<std::string> read_secret_file(const reference& r, const std::filesystem::path& path) {
  std::error_code failed;
  // A pipe or a device could block or never end.
  if (!std::filesystem::is_regular_file(path, failed)) return missing(r, "there is no such file");
  const std::uintmax_t size = std::filesystem::file_size(path, failed);
  if (!failed && size > largest_secret_file) return missing(r, "the file is larger than 64 KiB");
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (size > 0) content << file.rdbuf();
  if (!file) return missing(r, "the file cannot be read");
  std::string value = content.str();
  if (value.ends_with('\n')) value.pop_back();
  if (value.ends_with('\r') && value.size() < content.str().size()) value.pop_back();  // a line end of Windows
  return value;
}

result<std::string> value_of(const reference& r, const secret_sources& sources) {
  const std::string name(r.name);
  if (r.kind == "env") {
    // Nothing in this program ever changes the environment, so reading it needs no lock.
    const char* value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe)
    if (!value) return missing(r, "the environment variable is not set");
    return std::string(value);
  }
  if (r.kind == "file") return read_secret_file(r, name);
  for (const auto& folder : {sources.secrets_dir, sources.credentials_dir}) {
    std::error_code ignored;
    if (!folder.empty() && std::filesystem::exists(folder / name, ignored)) {
      return read_secret_file(r, folder / name);
    }
  }
  return missing(r, "there is no secret of that name");
}

}  // namespace

bool is_secret_reference(std::string_view text) {
  const auto found = next_reference(text, 0);
  return found && found->begin == 0 && found->end == text.size() && !fault_of(*found, text);
}

std::optional<std::string> check_references(std::string_view text) {
  std::size_t at = 0;
  while (const auto found = next_reference(text, at)) {
    if (auto fault = fault_of(*found, text)) return fault;
    at = found->end;
  }
  return std::nullopt;
}

result<std::string> resolve_secrets(std::string_view text, const secret_sources& sources) {
  std::string out;
  std::size_t at = 0;
  while (const auto found = next_reference(text, at)) {
    if (auto fault = fault_of(*found, text)) return error{errc::invalid, *fault};
    auto secret = value_of(*found, sources);
    if (!secret) return secret;
    out.append(text, at, found->begin - at).append(*secret);
    at = found->end;
  }
  return out.append(text, at);
}

}  // namespace penstock::config
