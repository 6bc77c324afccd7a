// What is posted to a hook, checked and read: the signature over the raw bytes, then the events of the body.
//
// One for each place that receives at a path: a flow's webhook source, a job's webhook trigger. Constant after
// construction; any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/error.hpp"
#include "config/field.hpp"
#include "runtime/event.hpp"
#include "runtime/webhooks.hpp"

namespace penstock::runtime {

class webhook_intake {
 public:
  // `path` ("/orders"): what events are said to come from, when they bring no source, is /hooks/orders. `signature`: a
  // checked value of config::signature_field(), or null: anyone may post. `reveal` puts secrets in the place of
  // references and throws when one has no value. Throws std::runtime_error for a path without its slash and for an
  // empty secret.
  webhook_intake(std::string path, const config::value& signature,
                 const std::function<std::string(const std::string&)>& reveal);

  // errc::unauthorized: signature missing or wrong, checked before anything is read and in constant time;
  // errc::malformed, errc::too_large: as read_events.
  result<batch> take(const delivery& d) const;

 private:
  struct rule;
  std::string source_;
  std::shared_ptr<const rule> signature_;  // null: anyone
};

}  // namespace penstock::runtime
