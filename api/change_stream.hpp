// The changes of state as a client follows them: server-sent events until the client leaves or the daemon stops.
//
// Control thread; sleeps until something changes, but says something every 15 s, for proxies. An id is LIFE-NUMBER
// (change_log.hpp). Where a client's place is no longer kept it is told so by an event `gap`, and all that is kept follows.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/context.hpp"
#include "api/http.hpp"
#include "config/error.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::api {

class change_stream final : public body_stream {
 public:
  struct options {
    std::string after{};     // an id; empty: from now on
    std::string pipeline{};  // only its; empty: all
    std::string kind{};      // only these; empty: all
    std::shared_ptr<const scheduler::token_record> reader{};  // only of pipelines that it reaches; null: all
  };

  change_stream(context& c, const options& wanted, interruption& end);

  asio::awaitable<std::string> next() override;

 private:
  bool wanted(const scheduler::change& one) const;
  std::string take();

  context& context_;
  const options options_;
  interruption& end_;
  const std::shared_ptr<runtime::wakeup> wake_;
  std::int64_t seen_ = 0;
  std::string preface_;  // to be sent first
  bool ended_ = false;
};

// Has it the form of an id?
bool is_change_id(std::string_view text);

}  // namespace penstock::api
