// A live feed of a server, kept up: connects, reads messages into a bounded buffer, and connects again with growing pauses
// when the connection ends. What kind of feed it is, its subclass says (websocket_source.cpp, sse_source.cpp).
//
// Lives on its source's strand, with all its methods. Its coroutine holds it by shared_ptr and ends soon after stop(), so
// the source may go first. What always holds: when the buffer is full nothing is read, so the server feels it; messages come
// out in the order they came in; a failure is logged once until the feed is back.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/time.hpp"
#include "runtime/event.hpp"
#include "runtime/trouble_note.hpp"
#include "runtime/wakeup.hpp"
#include "runtime/web_stream.hpp"

namespace penstock::runtime {

struct feed_settings {
  std::string name;   // of the consumer: after a slash, the events' source
  std::string label;  // of the flow, in logs
  std::string shown;  // the URL as written, without its query
  web_url url;        // with secrets
  std::chrono::nanoseconds first_pause{}, longest_pause{};  // before connecting again
  std::chrono::nanoseconds idle{};                          // silence after which a connection is taken for dead
  std::size_t most_bytes = 0;                               // of one message
  std::shared_ptr<trouble_note> trouble{};                  // says why there is no connection; never null
};

class live_feed : public std::enable_shared_from_this<live_feed> {
 public:
  live_feed(feed_settings settings, asio::any_io_executor executor, blocking_pool& pool);
  virtual ~live_feed() = default;

  void start();
  // What has come, at most `most` events; waits for the first. Nothing: stopped, and everything was taken. Throws when the
  // server refused in a way that needs a person.
  asio::awaitable<std::optional<batch>> take(std::size_t most);
  // The id that came with the last event taken.
  const std::string& taken_id() const { return taken_id_; }
  // Takes in nothing more.
  void stop();

 protected:
  struct message {
    std::string data{}, id{}, type{}, content_type{};  // empty: none, the default
    std::string feed_id{};                             // to go on after, see taken_id()
    std::string fault{};                               // see event.hpp
  };

  // Connecting again would not help: the flow fails with this.
  struct refused_for_good : std::runtime_error {
    using runtime_error::runtime_error;
  };

  // One connection that has just been made, to its end; returns or throws why it ended. When it returns no operation
  // needs the feed any more; one that still needs the stream holds it.
  virtual asio::awaitable<std::string> attend(std::shared_ptr<web_stream> connection) = 0;

  // For attend():
  void established() { settings_.trouble->clear(); }  // the server has agreed: what comes now are messages
  asio::awaitable<bool> room();  // waits while the buffer is full; false: stopped
  void came(message m);
  std::string too_long() const;  // the fault of a message beyond most_bytes
  void begin_with_pause(std::chrono::milliseconds pause);  // as the server asks; not less than the settings say
  // Throws what an answer other than the wanted one means.
  [[noreturn]] static void refuse(unsigned status);

  const feed_settings settings_;
  const asio::any_io_executor executor_;
  blocking_pool& pool_;  // for looking up names
  bool stopped_ = false;

 private:
  static constexpr std::size_t most_waiting = 1000;
  static constexpr std::size_t most_waiting_bytes = 8 << 20;
  static std::size_t size_of(const message& m);
  static asio::awaitable<void> run(std::shared_ptr<live_feed> self);
  asio::awaitable<std::string> attend_one();
  asio::awaitable<void> pause();
  void append(batch& to, message&& m) const;

  const std::shared_ptr<wakeup> arrived_;  // for take()
  const std::shared_ptr<wakeup> go_on_;    // for the feed's own coroutine: room, or stopped
  std::deque<message> waiting_;
  std::size_t waiting_bytes_ = 0;  // see size_of()
  std::shared_ptr<web_stream> connection_;  // while there is one
  std::string refused_{};                   // for good
  std::string taken_id_{};
  std::chrono::nanoseconds first_pause_;
  int failures_ = 0;      // connections in a row that brought nothing
  bool told_ = false;     // of a failure, since something came
};

}  // namespace penstock::runtime
