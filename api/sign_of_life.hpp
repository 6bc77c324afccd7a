// How long a stream of server-sent events stays silent at most before it sends a comment, for proxies and for clients that ask
// themselves whether it still lives.
#pragma once

#include <chrono>

namespace penstock::api {

inline constexpr std::chrono::seconds longest_silence{15};

}  // namespace penstock::api
