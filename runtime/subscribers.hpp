// Live streams of events to whoever is connected: where the sink `subscribers` meets GET /v1/streams/NAME.
//
// A stream has one ring of messages in memory: the last `keep` events and what a subscriber has not had yet, at most `size`
// bytes in all. Each subscriber is a place in it, so publishing costs the same for one as for a thousand and waits for
// nobody: a subscriber that falls behind the ring is told so and ends; one that comes back in time goes on after the last
// event it saw. A stream is there while somebody holds it (a flow that is defined to feed it, a sink at work), and may have
// several feeders. Thread-safe; owned by the daemon; subscribers read on the control thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/error.hpp"
#include "runtime/event.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class live_stream;

struct stream_limits {
  std::size_t events = 1000;    // kept for those who come back; at least one
  std::size_t bytes = 4 << 20;  // of all that is kept

  bool operator==(const stream_limits&) const = default;
};

struct stream_message {
  std::int64_t number;                      // 1, 2, … in its stream, since the daemon's start
  std::shared_ptr<const std::string> text;  // one line of JSON
};

// What a subscriber gets next.
struct stream_piece {
  enum class ending { none, overrun, closed };
  bool gap = false;  // events are missing before these: those after the one it saw last are not kept any more
  std::vector<stream_message> messages{};
  ending end = ending::none;  // behind these nothing comes; overrun: it fell behind the ring
};

// One connected reader; dropping it ends it. On its reader's executor, but for close().
class subscriber {
 public:
  ~subscriber();
  subscriber(const subscriber&) = delete;
  subscriber& operator=(const subscriber&) = delete;

  // Waits for the first message, no later than `deadline`; all empty then. Not more than about 64 KiB at once.
  asio::awaitable<stream_piece> next(std::chrono::steady_clock::time_point deadline);
  void close();  // any thread: next() ends
  // The id by which a client goes on after the event of that number.
  std::string id_of(std::int64_t number) const;

 private:
  friend class subscribers;
  friend class live_stream;
  subscriber(std::shared_ptr<live_stream> of, std::string_view last_id, asio::any_io_executor reader);

  const std::shared_ptr<live_stream> stream_;
  const std::shared_ptr<wakeup> woken_;
  // Guarded by the stream's mutex:
  std::int64_t next_ = 0;  // number
  bool gap_ = false;
  bool closed_ = false;
};

class subscribers {
 public:
  struct listing {
    std::string name;
    std::int64_t subscribers = 0;
    std::int64_t events = 0;  // published since the start
  };

  // The stream of that name is there as long as what is returned, with the largest limits of those who hold it now (what is
  // too much then goes with the next events). When the last holder goes, its subscribers are closed.
  std::shared_ptr<live_stream> hold(const std::string& name, stream_limits limits);
  // not_found: no such stream; the detail names the nearest. `last_id`: of the last event seen; empty: begins with what
  // comes next.
  result<std::shared_ptr<subscriber>> subscribe(const std::string& name, std::string_view last_id, asio::any_io_executor reader);
  std::vector<listing> list();  // by name

 private:
  struct holding;
  struct share;
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<holding>, std::less<>> streams_;
};

// One stream. Made by subscribers::hold().
class live_stream {
 public:
  live_stream();

  // Any thread; waits for no reader. Each event is a message: one line of JSON; what is not JSON is a JSON string.
  void publish(const batch& events);

 private:
  friend class subscriber;
  friend class subscribers;

  void add_wish(stream_limits wish);
  void drop_wish(stream_limits wish);
  void choose_limits();  // with the lock held
  void join(subscriber& one, std::string_view last_id);
  void leave(subscriber& one);
  bool take(subscriber& one, stream_piece& out);  // false: nothing yet
  void close();
  void trim();
  std::int64_t first() const { return last_ - static_cast<std::int64_t>(ring_.size()) + 1; }

  const std::string stamp_;  // in ids: a stream of the same name that is made later has another
  std::mutex mutex_;         // guards what follows
  std::vector<stream_limits> wishes_;  // of the holders
  stream_limits limits_{1, 0};         // the largest of them
  std::deque<std::shared_ptr<const std::string>> ring_;
  std::size_t ring_bytes_ = 0;
  std::int64_t last_ = 0;  // number of the newest event
  std::vector<subscriber*> readers_;
  bool closed_ = false;
};

}  // namespace penstock::runtime
