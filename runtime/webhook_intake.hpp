// What is posted to a hook, checked and read: the signature over the raw bytes, then the events of the body, and nothing
// twice that was accepted once.
//
// One for each place that receives at a path: a flow's webhook source, a job's webhook trigger. Constant after
// construction; any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "config/error.hpp"
#include "config/field.hpp"
#include "runtime/event.hpp"
#include "runtime/replay_memory.hpp"
#include "runtime/webhook_signature.hpp"
#include "runtime/webhooks.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class webhook_intake {
 public:
  struct posted {
    batch events;
    std::string id;  // what its sender calls the delivery; empty: nothing, or it may come again under the same one
  };
  // Makes the events safe.
  using onward = std::function<asio::awaitable<result<delivery_answer>>(posted)>;

  // `path` ("/orders"): what events are said to come from, when they bring no source, is /hooks/orders. `signature`: a
  // checked value of config::signature_field(), or null: anyone may post. `reveal` puts secrets in the place of
  // references and throws when one has no value. Throws std::runtime_error for a path without its slash and for a
  // secret that is empty or cannot be one of its scheme.
  webhook_intake(std::string path, const config::value& signature,
                 const std::function<std::string(const std::string&)>& reveal);

  // errc::unauthorized: signature missing, wrong or too old, checked before anything is read and in constant time;
  // errc::forbidden: there is none to check, and the delivery is not trusted;
  // errc::malformed, errc::too_large: as read_events.
  result<batch> take(const delivery& d, timestamp now = wall_now()) const;

  // The same, and `go_on` with what was read, unless the delivery was accepted before: then the answer says so. What was
  // refused here or by `go_on` may come again. errc::unavailable and errc::overloaded, too: as replay_memory::begin.
  // The caller keeps this alive.
  asio::awaitable<result<delivery_answer>> receive(delivery d, std::shared_ptr<replay_memory> seen, onward go_on,
                                                   timestamp now = wall_now()) const;

 private:
  result<verified_delivery> verify(const delivery& d, timestamp now) const;
  result<batch> read(const delivery& d, const std::string& id, timestamp now) const;

  std::string source_;
  std::shared_ptr<const signature_rule> signature_;  // null: anyone
  std::vector<std::string> keys_;
};

}  // namespace penstock::runtime
