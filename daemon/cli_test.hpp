// `penstock test`: runs the tests of definition files, offline. Main thread.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace penstock::cli {

struct test_options {
  std::vector<std::string> files{};  // or folders, searched through; - is stdin
  std::vector<std::string> names{};  // only tests whose name holds one of these; empty: all
  bool json = false;
};

// One line for each test, and what is wrong with those that fail; the totals come last. exit_ok: all passed; exit_no: some
// failed; exit_usage: there is a file that is no valid definition, or no test has such a name.
int test(const test_options& options, std::ostream& out);

}  // namespace penstock::cli
