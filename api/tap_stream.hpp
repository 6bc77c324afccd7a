// A tap of a flow as a client sees it: server-sent events, one for each sample, until the client leaves or the flow is
// replaced.
//
// Control thread; sleeps until samples come. What was lost meanwhile (the rate, a slow client) is said in an event
// `lost`; a comment every 15 s keeps proxies from closing an idle stream.
#pragma once

#include <memory>
#include <string>

#include "api/http.hpp"
#include "runtime/tap.hpp"

namespace penstock::api {

class tap_stream final : public body_stream {
 public:
  tap_stream(std::shared_ptr<runtime::tap> from, interruption& end);

  asio::awaitable<std::string> next() override;

 private:
  std::shared_ptr<runtime::tap> tap_;
  interruption& end_;
  std::int64_t lost_told_ = 0;
  bool ended_ = false;
};

}  // namespace penstock::api
