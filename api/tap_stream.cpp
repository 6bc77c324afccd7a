#include "api/tap_stream.hpp"

#include <chrono>
#include <utility>

#include "api/sign_of_life.hpp"

namespace penstock::api {

tap_stream::tap_stream(std::shared_ptr<runtime::tap> from, interruption& end) : tap_(std::move(from)), end_(end) {
  end_.listen([tap = tap_] { tap->close(); });
}

asio::awaitable<std::string> tap_stream::next() {
  if (ended_) co_return std::string();
  const auto deadline = std::chrono::steady_clock::now() + longest_silence;
  const auto samples = co_await tap_->next(deadline);
  std::string text;
  for (const std::string& sample : samples) text.append("data: ").append(sample).append("\n\n");
  if (const auto lost = tap_->lost(); lost > lost_told_) {
    text += "event: lost\ndata: {\"events\":" + std::to_string(lost - lost_told_) + "}\n\n";
    lost_told_ = lost;
  }
  if (tap_->closed()) {
    ended_ = true;
    text += end_.raised() ? "event: end\ndata: {\"reason\":\"the daemon stops\"}\n\n"
                          : "event: end\ndata: {\"reason\":\"the flow was replaced or removed\"}\n\n";
  }
  if (text.empty()) text = ": still here\n\n";
  co_return text;
}

}  // namespace penstock::api
