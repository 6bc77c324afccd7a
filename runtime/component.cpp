// What the component contracts need in code: secrets in settings, and the hop of a blocking sink to a
// blocking thread.
#include "runtime/component.hpp"

#include <stdexcept>
#include <utility>

#include "runtime/blocking_pool.hpp"

namespace penstock::runtime {

std::string component_context::reveal(const std::string& text) const {
  result<std::string> revealed = config::resolve_secrets(text, services.secrets);
  if (!revealed) throw std::runtime_error(revealed.error().detail);
  return std::move(*revealed);
}

std::string component_context::label() const {
  const std::string who = consumer.substr(0, consumer.find('@'));
  return step.empty() ? who : who + " " + step;
}

asio::awaitable<void> blocking_sink::open(const std::string& checkpoint) {
  auto call = [this, kept = checkpoint] { open_blocking(kept); };
  co_await pool_.run(std::move(call));
}

asio::awaitable<write_result> blocking_sink::write(std::shared_ptr<const batch> events) {
  auto call = [this, events] { return write_blocking(*events); };
  co_return co_await pool_.run(std::move(call));
}

asio::awaitable<void> blocking_sink::close() {
  auto call = [this] { close_blocking(); };
  co_await pool_.run(std::move(call));
}

}  // namespace penstock::runtime
