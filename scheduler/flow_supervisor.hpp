// Keeps one flow alive: starts it, restarts it with backoff when it fails, drains it when asked.
//
// Control thread; owned by its live pipeline through shared_ptr (its coroutine keeps it alive until it has ended). The flow
// itself runs on a strand of the flow pool. One coroutine at a time runs the loop, so a start never races a stop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "runtime/command_run.hpp"
#include "runtime/dataflow_run.hpp"
#include "runtime/readiness.hpp"
#include "runtime/subscribers.hpp"
#include "scheduler/pipeline_revision.hpp"
#include "scheduler/policy.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

// The path under /hooks that the flow receives at, or empty.
std::string hook_path(const config::flow& flow);

std::vector<std::string> topics_read_by(const config::flow& flow);
// How far the flow has read a topic, by what is stored of it; `cursors` are the flow store's. Blocks briefly.
std::int64_t stored_offset(runtime::flow_store& flows, const pipeline_revision& revision, const config::flow& flow,
                           const std::string& topic, const std::map<std::string, std::int64_t>& cursors);
// Whether what is stored of the flow is about the input that it has now, and not of one before its definition was changed.
bool has_read_its_input(runtime::flow_store& flows, const config::catalog& components, const pipeline_revision& revision,
                        const config::flow& flow);

// What becomes of open windows and the like when a flow stops: kept for its next start, or emitted, for there is none.
enum class unfinished_work { keep, emit };

class flow_supervisor : public std::enable_shared_from_this<flow_supervisor> {
 public:
  flow_supervisor(surroundings& around, std::shared_ptr<const pipeline_revision> revision, const std::string& name);
  ~flow_supervisor();

  // Does nothing when it is alive already; one that still drains starts again when it has ended. `before` is a flow
  // that this one replaces: it starts when that has ended, so that the two never write beside each other. `held`: a
  // dataflow opens all that it needs, and reads and stores nothing before release().
  void start(std::shared_ptr<flow_supervisor> before = nullptr, bool held = false);
  void release();
  // Stops the input, lets what is inside finish, and ends in `end_state`. What steps are still working out is kept for
  // the next start, or emitted. False: `limit` passed first; the flow is left to end by itself.
  asio::awaitable<bool> stop(std::chrono::nanoseconds limit, flow_state end_state, unfinished_work what = unfinished_work::keep);

  // Waits until a start has come to something, no later than `deadline`: true when the flow is at work, false when it
  // failed (reason()); nothing when it is still starting.
  asio::awaitable<std::optional<bool>> came_up(std::chrono::steady_clock::time_point deadline);
  bool at_work() const { return state_ == flow_state::running; }
  bool alive() const { return alive_ && !stopping_; }
  const std::string& reason() const { return reason_; }

  flow_view view() const;
  // Samples of what passes a point: a step's name, "from" or "to". invalid: it has no such point, or runs a command.
  result<std::shared_ptr<runtime::tap>> listen(runtime::tap_options options) const;
  const std::string& consumer() const { return consumer_; }
  bool reads_topic(const std::string& topic) const;
  // The offset up to which it has read that topic. Blocks briefly.
  std::int64_t read_up_to(const std::string& topic, std::int64_t cursor) const;

  // Puts dead events through steps and sink again. unavailable: the flow is not running.
  asio::awaitable<result<std::int64_t>> replay(runtime::batch events, std::vector<std::string> dead_letter_ids);

 private:
  struct ending {
    bool failed = false;
    std::string reason;
  };

  asio::awaitable<void> keep_alive(std::shared_ptr<flow_supervisor> before);
  asio::awaitable<ending> run_once();
  std::shared_ptr<runtime::dataflow_run> make_dataflow();
  asio::awaitable<ending> run_dataflow();
  asio::awaitable<ending> run_command(const config::command& definition);
  runtime::command_options command_options(const config::command& definition) const;
  asio::awaitable<void> await_readiness(std::shared_ptr<runtime::command_run> running,
                                        std::shared_ptr<runtime::readiness_check> check);
  std::string trouble() const;
  void become(flow_state next, std::string reason = {});
  std::function<void()> running_when_called();

  surroundings& around_;
  const std::shared_ptr<const pipeline_revision> revision_;
  const config::flow& definition_;  // of the revision
  const std::string consumer_;
  const std::shared_ptr<runtime::dataflow_counters> counters_;
  const std::shared_ptr<runtime::flow_taps> taps_;
  const std::vector<std::shared_ptr<runtime::live_stream>> streams_;  // there also while the flow does not run

  flow_state state_ = flow_state::stopped;
  std::string reason_;
  timestamp since_{};
  std::optional<timestamp> next_start_;
  int restarts_ = 0;
  restart_state backoff_;

  bool alive_ = false;     // keep_alive() is on its way
  bool held_ = false;
  bool stopping_ = false;
  flow_state end_state_ = flow_state::stopped;  // of the stop that is under way
  bool start_again_ = false;  // start() was called while it drained
  std::shared_ptr<runtime::dataflow_run> dataflow_;  // while it runs
  std::shared_ptr<runtime::command_run> command_;    // while it runs
  std::shared_ptr<runtime::readiness_check> ready_;  // while it is awaited
  std::string not_ready_;                            // why it is ended for not being ready in time
  std::shared_ptr<runtime::wakeup> asked_;           // wakes a backoff
  std::shared_ptr<runtime::wakeup> ended_;           // wakes stop()
  std::vector<std::shared_ptr<runtime::wakeup>> successors_;  // and those that wait for its end to start
  std::shared_ptr<runtime::wakeup> changed_;         // wakes came_up()
};

}  // namespace penstock::scheduler
