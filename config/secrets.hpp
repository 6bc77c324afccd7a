// Secret references: ${env:NAME}, ${file:PATH} and ${secret:NAME}. Definitions hold references only; the
// value is looked up when a component is made, and lives only in that component. Pure but for reading the
// named source.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "config/error.hpp"

namespace penstock::config {

struct secret_sources {
  std::filesystem::path secrets_dir{};      // ${secret:NAME}: a file of that name here ...
  std::filesystem::path credentials_dir{};  // ... or here (systemd's $CREDENTIALS_DIRECTORY)
};

// True when the whole text is one well-formed reference.
bool is_secret_reference(std::string_view text);

// What is wrong with the first bad reference in the text: an unknown kind, a name that cannot be, a missing
// brace. Text that merely looks like a shell's ${NAME} or ${NAME:-default} is no reference and is left alone,
// as are ${dir} and fill-ins (fill_in.hpp). A reference cannot hold a fill-in: no parameter chooses what is read.
std::optional<std::string> check_references(std::string_view text);

// The text with each reference replaced by its value (one trailing newline of a file is dropped; a file of
// more than 64 KiB is refused). Values are not searched for references again. errc::invalid names the
// reference that has no value; never a value itself.
result<std::string> resolve_secrets(std::string_view text, const secret_sources& sources);

}  // namespace penstock::config
