// to: tcp - each event as a line of JSON to a TCP or local (unix) socket.
//
// One connection for each life of the flow, made at the first write and again whenever the peer has closed it between two
// writes. A batch counts as safe once the kernel has taken all of it: TCP tells nobody whether the peer has read it, so
// what is on its way when the peer dies is lost, though nothing fails. What the peer sends back is thrown away; only that
// it closes is noticed, before a batch and once more after it. A peer that is away, closes or does not read makes the
// write fail; the delivery policy tries the whole batch again on a new connection, so the peer may see lines twice. When the
// flow fails, the connection is ended in the same order as at its end, so that what the kernel has taken arrives.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <linux/sockios.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <system_error>
#include <utility>
#include <vector>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <nlohmann/json.hpp>

#include "config/time.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/components/payload_check.hpp"
#include "runtime/pipe_io.hpp"
#include "runtime/socket_address.hpp"

namespace penstock::runtime::components::tcp_sink {

namespace {

using clock = std::chrono::steady_clock;
using descriptor = asio::posix::stream_descriptor;

constexpr auto patience_with_peer = std::chrono::seconds{2};  // to take the last lines, at the end
constexpr auto pause_of_looks = std::chrono::milliseconds{20};    // whether it has

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::sink,
      .name = "tcp",
      .doc = "Sends each event as a line of JSON over TCP or a local (unix) socket. There is no acknowledgement: lines that "
             "are on their way when the peer dies are lost.",
      .settings = {.name = "tcp",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "address",
                                 .type = field_type::string,
                                 .doc = "HOST:PORT, or unix:PATH, seen from the pipeline's folder.",
                                 .required = true,
                                 .example = "\"127.0.0.1:7000\""},
                                {.name = "timeout",
                                 .type = field_type::duration,
                                 .doc = "For connecting, and for each time that the peer does not read on.",
                                 .fallback = "10s",
                                 .minimum = 0.001}},
                   .shorthand = "address"},
      .examples = {"tcp: \"127.0.0.1:7000\"", "tcp: {address: \"unix:/run/collector.sock\", timeout: 2s}"},
  };
}

struct settings {
  socket_address to{};
  std::chrono::nanoseconds timeout{};
};

settings parse(const config::value& v) {
  settings s;
  s.to = socket_address::of(v.at("address").get<std::string>());
  if (s.to.is == socket_address::kind::udp) throw std::runtime_error("'" + s.to.text + "': lines are not sent by UDP");
  s.timeout = std::chrono::nanoseconds(v.value("timeout", std::int64_t{10'000'000'000}));
  return s;
}

class tcp_sink final : public sink {
 public:
  tcp_sink(settings s, const component_context& context)
      : settings_(std::move(s)), folder_(context.workdir), strand_(context.executor), pool_(context.services.blocking) {}

  asio::awaitable<void> open(const std::string&) override { co_return; }

  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    write_result written;
    written.refused = malformed_events(*events);
    std::string text;
    for_each_accepted(*events, written.refused, [&](const event& e) { append_ndjson(text, e); });
    if (text.empty()) co_return written;
    if (!socket_ || !peer_is_there()) co_await connect();
    co_await send(text);
    if (!peer_is_there()) fail("the peer has closed the connection");
    co_return written;
  }

  // What the peer says after this would make the kernel throw away what is still to be sent.
  asio::awaitable<void> close() override {
    if (!socket_) co_return;
    ::shutdown(socket_->native_handle(), SHUT_WR);
    const clock::time_point latest = clock::now() + patience_with_peer;
    bool waits = peer_is_there() && unsent() > 0;
    while (waits) {
      co_await wait_ready(socket_, descriptor::wait_read, std::min(latest, clock::now() + pause_of_looks));
      waits = peer_is_there() && unsent() > 0 && clock::now() < latest;
    }
    socket_.reset();
    co_return;
  }

  asio::awaitable<void> abandon() override {
    try {
      co_await close();
    } catch (const std::exception&) {
      socket_.reset();  // a wait was cancelled
    }
    co_return;
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw std::runtime_error(settings_.to.text + ": " + why); }

  clock::time_point latest() const { return later(clock::now(), settings_.timeout); }

  // Bytes that the peer's kernel has not taken; of which nobody tells.
  int unsent() const {
    int bytes = 0;
    ::ioctl(socket_->native_handle(), SIOCOUTQ, &bytes);
    return bytes;
  }

  // False: it has closed the connection, or that broke. What it says is thrown away.
  bool peer_is_there() const {
    char ignored[4096];
    for (int times = 0; times < 1000; ++times) {
      const ssize_t got = ::recv(socket_->native_handle(), ignored, sizeof ignored, MSG_DONTWAIT);
      if (got == 0) return false;
      if (got < 0 && errno != EINTR) return errno == EAGAIN;
    }
    return true;
  }

  asio::awaitable<void> connect() {
    socket_.reset();
    auto find = [this] { return resolve(settings_.to, folder_); };
    const std::vector<resolved_address> found = co_await pool_.run(std::move(find));
    std::string failure;
    for (const resolved_address& one : found) {
      try {
        socket_ = co_await connect_to(strand_, one, latest());
        co_return;
      } catch (const std::runtime_error& e) {
        failure = e.what();
      }
    }
    fail(failure);
  }

  asio::awaitable<void> send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(socket_->native_handle(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0) {
        text.remove_prefix(static_cast<std::size_t>(sent));
        continue;
      }
      const int failure = errno;
      if (failure == EINTR) continue;
      if (failure != EAGAIN) fail("the connection broke: " + std::generic_category().message(failure));
      const bool taken = co_await wait_ready(socket_, descriptor::wait_write, latest());
      if (!taken) fail("the peer has not read for " + format_duration(settings_.timeout));
    }
    co_return;
  }

  const settings settings_;
  const std::filesystem::path folder_;
  const asio::any_io_executor strand_;
  blocking_pool& pool_;
  std::shared_ptr<descriptor> socket_{};  // null: none yet
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), parse), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<tcp_sink>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::tcp_sink
