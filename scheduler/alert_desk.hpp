// Delivers alerts: each is a row of the store until its sink has taken it.
//
// Control thread; owned by the supervisor. Deliveries run on strands of the batch pool, each by itself, so that one sink
// that hangs delays no other alert. A delivery that fails is tried again with growing pauses; after the last try the alert
// is a dead letter. At least once: a crash between the sink's answer and the row's removal delivers it again, with the
// same event id.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "runtime/wakeup.hpp"
#include "scheduler/pipeline_set.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class alert_desk {
 public:
  alert_desk(surroundings& around, pipeline_set& pipelines)
      : around_(around), pipelines_(pipelines), delivered_(std::make_shared<runtime::wakeup>(around.where.control)) {}

  asio::awaitable<void> run();  // until stop()
  void stop();
  // After stop(): returns when no delivery is on its way any more, or `patience` has passed.
  asio::awaitable<void> finish(std::chrono::nanoseconds patience);
  int on_their_way() const { return on_their_way_; }

 private:
  asio::awaitable<void> deliver(alert_record alert);
  asio::awaitable<void> hand_over(const alert_record& alert);
  asio::awaitable<void> bury(const alert_record& alert, std::string reason);
  std::shared_ptr<const pipeline_revision> revision_of(const alert_record& alert) const;

  surroundings& around_;
  pipeline_set& pipelines_;
  std::map<std::string, timestamp> not_before_;  // by alert id: being delivered, or to be tried again then
  const std::shared_ptr<runtime::wakeup> delivered_;  // or not: one less is on its way
  int on_their_way_ = 0;
  bool stopping_ = false;
};

}  // namespace penstock::scheduler
