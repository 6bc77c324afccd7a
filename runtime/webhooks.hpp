// Where HTTP meets the webhook source: paths under /hooks/ and who takes what is posted there.
//
// api/ calls deliver() on the control thread; the webhook source of the flow that claims the path registers a
// receiver on its strand. The receiver checks the signature on the raw bytes, queues the events and answers
// once they are safe downstream. A path that is spoken for, but whose receiver is just starting or being replaced,
// holds its sender for a moment rather than send it away. Thread-safe; owned by the daemon.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include <boost/asio/awaitable.hpp>

#include "config/error.hpp"
#include "runtime/event.hpp"
#include "runtime/replay_memory.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

// One HTTP request to a hook. Header names are lower-case.
struct delivery {
  std::map<std::string, std::string> headers;
  std::shared_ptr<const buffer> body;
  bool trusted = true;  // its sender may post also where no signature says who it is
};

struct delivery_answer {
  std::int64_t accepted = 0;  // events safe downstream
  bool duplicate = false;     // the delivery was accepted before; nothing was done now
};

class webhooks {
 public:
  // Runs on the control thread; may suspend until the events are safe.
  // unauthorized: signature missing or wrong; forbidden: there is none to check, and the delivery is not trusted;
  // malformed: body unreadable; overloaded: the queue is full; unavailable: the flow failed before the events were safe
  // (the sender should try again).
  using receiver = std::function<asio::awaitable<result<delivery_answer>>(delivery)>;

  // Claims a path ("/orders"). errc::conflict: another flow has it. Released with the token.
  result<std::shared_ptr<void>> claim(const std::string& path, receiver take);
  // not_found: nobody claims the path (detail names the nearest); unavailable: it is reserved, and no receiver came
  // within opening_patience.
  asio::awaitable<result<delivery_answer>> deliver(std::string path, delivery d);

  // How long a delivery waits for the receiver of a reserved path.
  static constexpr std::chrono::seconds opening_patience{1};

  // A receiver that is defined, though it may not run right now: its path answers 503 instead of 404.
  void reserve(const std::string& path);
  void unreserve(const std::string& path);

  // What was accepted at the path lately, by whatever receives there: it outlives flows and jobs that are replaced.
  std::shared_ptr<replay_memory> replays(const std::string& path);

 private:
  struct token;
  result<std::shared_ptr<receiver>> find(const std::string& path);
  asio::awaitable<result<std::shared_ptr<receiver>>> await_receiver(std::string path);
  void release(const std::string& path);
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<receiver>> receivers_;
  std::map<std::string, int> reserved_;
  std::map<std::string, std::shared_ptr<replay_memory>> replays_;
  std::set<std::shared_ptr<wakeup>> waiting_;  // deliveries that wait for some receiver
};

}  // namespace penstock::runtime
