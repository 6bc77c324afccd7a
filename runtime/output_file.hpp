// The file at $PENSTOCK_OUTPUT, in which a program leaves values for the tasks after it.
//
// Made empty before the program starts, read after its end, and deleted in any case. Owned by one command_run; its
// calls block for as long as a small file takes.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "config/error.hpp"
#include "runtime/identity.hpp"

namespace penstock::runtime {

class output_file {
 public:
  // In `folder`, which is made if need be (and may be passed through by anyone, but not listed); `owner` null: ours.
  // Throws std::runtime_error.
  output_file(const std::filesystem::path& folder, const identity* owner);
  ~output_file();
  output_file(const output_file&) = delete;
  output_file& operator=(const output_file&) = delete;

  const std::string& path() const { return path_; }
  // What stands in it, as parse_output() has it; nothing also when the program has deleted it.
  result<std::string> read() const;

 private:
  std::string path_;
};

// Those that a killed daemon has left in its folder, of whose programs none runs any more.
void remove_left_output_files(const std::filesystem::path& folder);

// A JSON object, or lines `name=value` (blank ones and those that begin with # are skipped; of two with the same name
// the later one counts; values are strings), as compact JSON; empty for nothing. At most 64 KiB. errc::too_large,
// errc::malformed: the text goes on "what it wrote to $PENSTOCK_OUTPUT ...".
result<std::string> parse_output(std::string_view text);

}  // namespace penstock::runtime
