// The file of --config: what is wrong is told with its place, and the same text means the same.
#include "daemon/settings.hpp"

#include <string>

#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

void try_input(std::string_view text) {
  const auto first = daemon::parse_settings(text);
  if (!first) {
    require(!first.error().detail.empty() || !first.error().problems.empty(), "a refusal says why");
    for (const problem& p : first.error().problems) require(!p.detail.empty(), "a problem says what is wrong");
    return;
  }
  const auto again = daemon::parse_settings(text);
  require(again && again->listen == first->listen && again->max_body_bytes == first->max_body_bytes, "the same text means the same");
  require(!first->listen.empty(), "there is an address to listen on");
  static_cast<void>(daemon::check(*first));
  if (const auto addresses = daemon::listen_addresses(*first)) {
    for (const auto& where : *addresses) static_cast<void>(daemon::check_listening(*first, where, false));
  }
}

}  // namespace penstock::fuzz
