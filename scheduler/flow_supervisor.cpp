#include "scheduler/flow_supervisor.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <spdlog/spdlog.h>

#include "config/kept_state.hpp"
#include "config/in_quotes.hpp"
#include "runtime/base_environment.hpp"
#include "runtime/topics_read.hpp"
#include "runtime/webhooks.hpp"
#include "scheduler/background.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;

const config::component_use* source_of(const config::flow& flow) {
  const auto* dataflow = std::get_if<config::dataflow>(&flow.does);
  return dataflow && dataflow->from ? &*dataflow->from : nullptr;
}

std::string setting(const config::component_use& use, const char* key) {
  const auto found = use.settings.find(key);
  return found != use.settings.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::int64_t offset_in(runtime::flow_store& flows, const config::flow& flow, const std::string& consumer,
                       const std::string& topic, std::int64_t cursor) {
  if (source_of(flow)->component == "topic") return cursor;
  return runtime::offset_read(flows, consumer, cursor, topic).value_or(0);
}

// The name under which positions are kept, by the flow and by its sink. A pipeline that was removed and made anew has
// other names: what an earlier life has read and written means nothing to it.
std::string consumer_name(const pipeline_revision& revision, const config::flow& flow) {
  return revision.name + "/flow/" + flow.name + "@" + revision.life;
}

// The streams that a flow feeds: subscribers wait for a flow that is paused or starts again.
std::vector<std::shared_ptr<runtime::live_stream>> hold_streams(const config::flow& flow, runtime::subscribers& door) {
  std::vector<std::shared_ptr<runtime::live_stream>> held;
  const runtime::stream_limits at_least{.events = 1, .bytes = 0};  // the sink says what is kept
  const auto hold = [&](const config::component_use& to) {
    if (to.component == "subscribers") held.push_back(door.hold(setting(to, "name"), at_least));
  };
  const auto* command = std::get_if<config::command>(&flow.does);
  if (command && command->to) hold(*command->to);
  const auto* dataflow = std::get_if<config::dataflow>(&flow.does);
  if (!dataflow) return held;
  if (dataflow->to) hold(*dataflow->to);
  for (const config::component_use& output : dataflow->outputs) hold(output);
  return held;
}

// For programs that a flow starts, whether it is one or its components do. Any thread.
runtime::program_surroundings programs_of(const supervisor_options& options, const pipeline_revision& revision,
                                          const config::flow& flow) {
  auto environment = runtime::base_environment(options.instance, revision.name);
  environment["PENSTOCK_FLOW"] = flow.name;
  return {std::move(environment), options.data / "logs" / ("flow-" + revision.name) / (flow.name + ".log")};
}

}  // namespace

std::vector<std::string> topics_read_by(const config::flow& flow) {
  const auto* from = source_of(flow);
  if (from && from->component == "topic") return {setting(*from, "topic")};
  if (from && from->component == "topics") return from->settings.at("topics").get<std::vector<std::string>>();
  return {};
}

std::int64_t stored_offset(runtime::flow_store& flows, const pipeline_revision& revision, const config::flow& flow,
                           const std::string& topic, const std::map<std::string, std::int64_t>& cursors) {
  const auto at = cursors.find(consumer_name(revision, flow));
  return at == cursors.end() ? 0 : offset_in(flows, flow, at->first, topic, at->second);
}

bool has_read_its_input(runtime::flow_store& flows, const config::catalog& components, const pipeline_revision& revision,
                        const config::flow& flow) {
  const auto stored = flows.find_state(consumer_name(revision, flow), runtime::engine_state, runtime::input_key);
  return !stored || *stored == config::input_of(*source_of(flow), components);
}

std::string hook_path(const config::flow& flow) {
  const auto* from = source_of(flow);
  return from && from->component == "webhook" ? setting(*from, "path") : std::string();
}

flow_supervisor::flow_supervisor(surroundings& around, std::shared_ptr<const pipeline_revision> revision,
                                 const std::string& name)
    : around_(around),
      revision_(std::move(revision)),
      definition_(revision_->definition->flows.at(name)),
      consumer_(consumer_name(*revision_, definition_)),
      counters_(std::make_shared<runtime::dataflow_counters>()),
      taps_(std::make_shared<runtime::flow_taps>()),
      streams_(hold_streams(definition_, around.offered.subscribers)),
      since_(wall_now()),
      asked_(std::make_shared<runtime::wakeup>(around.where.control)),
      ended_(std::make_shared<runtime::wakeup>(around.where.control)),
      changed_(std::make_shared<runtime::wakeup>(around.where.control)) {
  if (const auto path = hook_path(definition_); !path.empty()) around_.offered.webhooks.reserve(path);
}

flow_supervisor::~flow_supervisor() {
  taps_->close();
  if (const auto path = hook_path(definition_); !path.empty()) around_.offered.webhooks.unreserve(path);
}

bool flow_supervisor::reads_topic(const std::string& topic) const {
  const auto read = topics_read_by(definition_);
  return std::find(read.begin(), read.end(), topic) != read.end();
}

std::int64_t flow_supervisor::read_up_to(const std::string& topic, std::int64_t cursor) const {
  return offset_in(around_.offered.flows, definition_, consumer_, topic, cursor);
}

void flow_supervisor::become(flow_state next, std::string reason) {
  const std::string name = revision_->name + "/" + definition_.name;
  if (reason.empty()) {
    spdlog::info("flow {}: {}", name, token(next));
  } else if (next == flow_state::backing_off || next == flow_state::failed) {
    spdlog::warn("flow {}: {}: {}", name, token(next), reason);
  } else {
    spdlog::info("flow {}: {}: {}", name, token(next), reason);
  }
  around_.changes.add({.kind = "flow",
                       .pipeline = revision_->name,
                       .name = definition_.name,
                       .state = std::string(token(next)),
                       .reason = reason});
  state_ = next;
  reason_ = std::move(reason);
  since_ = wall_now();
  changed_->notify();
}

asio::awaitable<std::optional<bool>> flow_supervisor::came_up(steady::time_point deadline) {
  const auto self = shared_from_this();
  while (state_ == flow_state::starting) {
    if (!co_await changed_->wait_until(deadline)) co_return std::nullopt;
  }
  co_return state_ != flow_state::backing_off && state_ != flow_state::failed;
}

// For the strand that the flow runs on.
std::function<void()> flow_supervisor::running_when_called() {
  return [control = around_.where.control, self = weak_from_this()] {
    asio::post(control, [self] {
      const auto still = self.lock();
      const bool runs = still && (still->dataflow_ || still->command_);
      if (runs && still->state_ == flow_state::starting) still->become(flow_state::running);
    });
  };
}

void flow_supervisor::release() {
  held_ = false;
  if (dataflow_) dataflow_->release();
}

void flow_supervisor::start(std::shared_ptr<flow_supervisor> before, bool held) {
  start_again_ = alive_ && stopping_;
  if (alive_) return;
  alive_ = true;
  held_ = held;
  stopping_ = false;
  asked_ = std::make_shared<runtime::wakeup>(around_.where.control);
  ended_ = std::make_shared<runtime::wakeup>(around_.where.control);
  become(flow_state::starting);
  in_background(around_.where.control, "flow " + consumer_, keep_alive(std::move(before)));
}

asio::awaitable<bool> flow_supervisor::stop(std::chrono::nanoseconds limit, flow_state end_state, unfinished_work what) {
  const auto self = shared_from_this();
  if (alive_) {
    stopping_ = true;
    start_again_ = false;
    end_state_ = end_state;
    become(flow_state::draining);
    if (dataflow_) dataflow_->request_drain(what == unfinished_work::emit);
    if (command_) command_->cancel();
    asked_->notify();
    const auto deadline = steady::now() + std::chrono::duration_cast<steady::duration>(limit);
    while (alive_) {
      if (!co_await ended_->wait_until(deadline)) co_return false;
    }
    co_return true;
  }
  if (state_ != end_state) become(end_state);
  co_return true;
}

asio::awaitable<void> flow_supervisor::keep_alive(std::shared_ptr<flow_supervisor> before) {
  const auto self = shared_from_this();
  if (before && before->alive_) {  // its stop() has given up waiting
    bool over = false;
    const auto turn = asked_;
    before->successors_.push_back(turn);
    while (!over) {  // also when this one is stopped meanwhile: it must not seem gone while that one still writes
      co_await turn->wait();
      over = std::find(before->successors_.begin(), before->successors_.end(), turn) == before->successors_.end();
    }
  }
  before.reset();
  while (!stopping_) {
    if (state_ != flow_state::starting) become(flow_state::starting);
    const auto started = steady::now();
    ending end;
    try {
      end = co_await run_once();
    } catch (const std::exception& e) {
      dataflow_.reset();
      command_.reset();
      end = {true, e.what()};
    }
    if (stopping_) break;
    if (!end.failed) {
      become(flow_state::stopped, end.reason);
      break;
    }
    const auto pause = restart_pause(backoff_, steady::now() - started);
    ++restarts_;
    next_start_ = wall_now() + std::chrono::duration_cast<std::chrono::microseconds>(pause);
    become(flow_state::backing_off, end.reason);
    const auto deadline = steady::now() + std::chrono::duration_cast<steady::duration>(pause);
    co_await asked_->wait_until(deadline);
    next_start_.reset();
  }
  alive_ = false;
  if (stopping_) become(end_state_);  // also when its stop() has given up waiting
  ended_->notify();
  for (const auto& next : std::exchange(successors_, {})) next->notify();
  if (start_again_) start();
}

asio::awaitable<flow_supervisor::ending> flow_supervisor::run_once() {
  if (std::holds_alternative<config::dataflow>(definition_.does)) return run_dataflow();
  return run_command(std::get<config::command>(definition_.does));
}

std::shared_ptr<runtime::dataflow_run> flow_supervisor::make_dataflow() {
  runtime::dataflow_options options;
  options.pipeline = revision_->name;
  options.consumer = consumer_;
  options.workdir = revision_->workdir;
  options.definition = {revision_, &std::get<config::dataflow>(definition_.does)};
  options.counters = counters_;
  options.taps = taps_;
  options.programs = [&ours = around_.options, revision = revision_, &flow = definition_] {
    return programs_of(ours, *revision, flow);
  };
  options.pool = around_.where.flows;
  options.held = held_;
  options.on_open = running_when_called();
  return std::make_shared<runtime::dataflow_run>(asio::make_strand(around_.where.flows), around_.components, around_.offered,
                                                 std::move(options));
}

asio::awaitable<flow_supervisor::ending> flow_supervisor::run_dataflow() {
  const auto running = dataflow_ = make_dataflow();
  const auto outcome = co_await running->run();
  dataflow_.reset();
  switch (outcome.end) {
    case runtime::dataflow_end::failed: co_return ending{true, outcome.reason};
    case runtime::dataflow_end::drained: co_return ending{false, "drained"};
    case runtime::dataflow_end::input_ended: break;
  }
  co_return ending{false, "its input has ended"};
}

runtime::command_options flow_supervisor::command_options(const config::command& definition) const {
  auto programs = programs_of(around_.options, *revision_, definition_);
  runtime::command_options options;
  options.definition = definition;
  options.pipeline = revision_->name;
  options.consumer = consumer_;
  options.workdir = revision_->workdir;
  options.environment = std::move(programs.environment);
  options.log = std::move(programs.log);
  options.log_limit_bytes = around_.options.max_log_bytes;
  options.cgroups = around_.options.cgroups.get();
  options.continuous = true;
  options.grace = definition_.grace;
  return options;
}

asio::awaitable<flow_supervisor::ending> flow_supervisor::run_command(const config::command& definition) {
  const asio::any_io_executor strand = asio::make_strand(around_.where.flows);
  auto options = command_options(definition);
  if (!definition_.ready) options.on_start = running_when_called();
  command_ = std::make_shared<runtime::command_run>(strand, around_.components, around_.offered, std::move(options));
  const auto running = command_;
  not_ready_.clear();
  std::shared_ptr<runtime::readiness_check> check;
  if (definition_.ready) {
    runtime::readiness_surroundings around{around_.components, around_.offered, strand,
                                           [this, self = shared_from_this(), definition] { return command_options(definition); }};
    check = std::make_shared<runtime::readiness_check>(around_.where.control, *definition_.ready, std::move(around));
    ready_ = check;
    in_background(around_.where.control, "readiness of " + consumer_, await_readiness(running, check));
  }
  const auto outcome = co_await running->run();
  if (check) check->stop();
  ready_.reset();
  command_.reset();
  if (!not_ready_.empty()) co_return ending{true, not_ready_};
  // A command that is to be always live has failed whenever it ends by itself, also with exit code 0.
  co_return ending{true, outcome.ok() ? "it ended with exit code 0" : outcome.reason};
}

// It is `starting` until its probe says that it is ready; one that is not ready in time is ended, and started again.
asio::awaitable<void> flow_supervisor::await_readiness(std::shared_ptr<runtime::command_run> running,
                                                       std::shared_ptr<runtime::readiness_check> check) {
  const auto self = shared_from_this();
  const bool ready = co_await check->until_ready();
  if (command_ != running || stopping_) co_return;
  ready_.reset();
  if (ready) {
    become(flow_state::running);
    co_return;
  }
  not_ready_ = "it was not ready within " + format_duration(definition_.ready->timeout) + ": " + check->failure();
  running->cancel();
}

// Why it does not get on, though it has neither ended nor failed. Empty: it does.
std::string flow_supervisor::trouble() const {
  if (ready_ && !ready_->failure().empty()) return "not ready yet: " + ready_->failure();
  if (state_ != flow_state::running && state_ != flow_state::draining) return {};  // what it leaves behind says nothing any more
  if (std::string why = counters_->sink_trouble.text(); !why.empty()) return why;
  return counters_->source_trouble.text();
}

flow_view flow_supervisor::view() const {
  flow_view v;
  v.name = definition_.name;
  v.state = state_;
  v.reason = trouble();
  if (v.reason.empty()) v.reason = reason_;
  v.since = since_;
  v.next_start = next_start_;
  v.restarts = restarts_;
  v.kind = std::holds_alternative<config::dataflow>(definition_.does) ? "dataflow" : "command";
  v.received = counters_->received.load();
  v.emitted = counters_->emitted.load();
  v.filtered = counters_->filtered.load();
  v.dead = counters_->dead.load();
  v.duplicates = counters_->duplicates.load();
  v.late = counters_->late.load();
  v.redelivered = counters_->redelivered.load();
  for (const auto& step : counters_->steps) {
    v.steps.push_back({.name = step->name,
                       .received = step->received.load(),
                       .emitted = step->emitted.load(),
                       .filtered = step->filtered.load(),
                       .dead = step->dead.load(),
                       .duplicates = step->duplicates.load(),
                       .late = step->late.load(),
                       .batches = step->batches.load(),
                       .busy = std::chrono::nanoseconds(step->busy_ns.load())});
  }
  if (command_) v.pid = command_->pid();
  if (const auto at = counters_->last_event_us.load(); at != 0) v.last_event_at = from_micros(at);
  return v;
}

result<std::shared_ptr<runtime::tap>> flow_supervisor::listen(runtime::tap_options options) const {
  const auto* dataflow = std::get_if<config::dataflow>(&definition_.does);
  if (!dataflow) return error{errc::invalid, "flow " + definition_.name + " is a command: no events pass through it here"};
  std::vector<std::string> points{"from"};
  for (const auto& step : dataflow->steps) points.push_back(step.name);
  points.push_back("to");
  if (std::find(points.begin(), points.end(), options.after) == points.end()) {
    return error{errc::invalid, "flow " + definition_.name + " has no point '" + options.after + "'; " +
                                    config::suggestion(options.after, points)};
  }
  return taps_->listen(std::move(options), around_.where.control);
}

asio::awaitable<result<std::int64_t>> flow_supervisor::replay(runtime::batch events, std::vector<std::string> dead_letter_ids) {
  const auto running = dataflow_;
  if (!running) {
    co_return error{errc::unavailable, "flow " + definition_.name + " is " + std::string(token(state_))};
  }
  co_return co_await running->replay(std::move(events), std::move(dead_letter_ids));
}

}  // namespace penstock::scheduler
