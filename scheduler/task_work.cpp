#include "scheduler/task_work.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "config/parameters.hpp"
#include "runtime/base_environment.hpp"
#include "runtime/run_expression.hpp"
#include "scheduler/file_input.hpp"
#include "scheduler/run_context.hpp"

namespace penstock::scheduler {

namespace {

std::string as_text(const nlohmann::json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

// The one file that a file trigger handed to the run, or to the run that it repeats; empty: there is none.
std::string file_of(const run_record& run) {
  const bool may_be = run.trigger == trigger_kind::file || !run.retry_of.empty();
  return may_be && run.input.events == 1 && !run.input.ndjson.empty() ? only_file(run.input.ndjson) : std::string();
}

// A run may have ten thousand tasks, and each of them gets a copy.
run_record without_tasks(const run_record& run) {
  run_record copy;
  copy.id = run.id;
  copy.pipeline = run.pipeline;
  copy.job = run.job;
  copy.revision = run.revision;
  copy.trigger = run.trigger;
  copy.attempt = run.attempt;
  copy.scheduled_for = run.scheduled_for;
  copy.upstream_run = run.upstream_run;
  copy.priority = run.priority;
  copy.overlap_key = run.overlap_key;
  copy.params = run.params;
  copy.trace = run.trace;
  copy.created_at = run.created_at;
  return copy;
}

}  // namespace

task_work::task_work(surroundings& around, std::shared_ptr<const pipeline_revision> revision, const run_record& run,
                     const config::job& job, const config::task& definition, const task_record& task, beginning begins)
    : around_(around),
      strand_(asio::make_strand(around.where.batch)),
      permit_(begins == beginning::when_permitted ? std::make_shared<runtime::start_permit>(strand_) : nullptr),
      revision_(std::move(revision)),
      run_(without_tasks(run)),
      file_(file_of(run)),
      definition_(definition),
      grace_(job.grace),
      task_(task) {
  const auto* command = std::get_if<config::command>(&definition.does);
  if (!command) return;
  command_line_ = *command;
  try {
    fill_in(run);
  } catch (const std::exception& e) {
    trouble_ = e.what();
  }
}

// Now, because outputs of other tasks are looked up in the run. A secret that stands beside a fill-in is filled in here
// too: later, a parameter's value could name one.
void task_work::fill_in(const run_record& run) {
  const auto filled = [this, &run](const std::string& text, const std::function<std::string(const std::string&)>& of_plain) {
    if (text.find("${") == std::string::npos) return text;  // nearly all, and the context takes time to put together
    auto done = runtime::fill_in(text, task_context(run, text, &task_), of_plain);
    if (!done) throw std::runtime_error(done.error().detail);
    return std::move(*done);
  };
  for (auto& argument : command_line_.run) argument = filled(argument, {});
  const auto reveal = [this](const std::string& plain) {
    auto value = config::resolve_secrets(plain, around_.offered.secrets);
    if (!value) throw std::runtime_error(value.error().detail);
    return std::move(*value);
  };
  for (const auto& [name, text] : command_line_.environment) filled_environment_[name] = filled(text, reveal);
  command_line_.environment.clear();
}

void task_work::cancel() {
  cancelled_ = true;
  if (dataflow_) dataflow_->request_drain();
  asio::post(strand_, [self = shared_from_this()] {
    if (self->command_) self->command_->cancel();
  });
}

asio::awaitable<task_record> task_work::run(task_input input) {
  const auto self = shared_from_this();
  try {
    if (const auto* dataflow = std::get_if<config::dataflow>(&definition_.does)) {
      co_await run_dataflow(*dataflow, std::move(input));
    } else {
      if (!trouble_.empty()) throw std::runtime_error(trouble_);
      co_await run_command(self, std::move(input));
    }
  } catch (const std::exception& e) {
    task_.state = run_state::failed;
    task_.reason = e.what();
  }
  task_.ended_at = wall_now();
  co_return task_;
}

asio::awaitable<void> task_work::run_dataflow(const config::dataflow& what, task_input input) {
  runtime::dataflow_options options;
  options.pipeline = run_.pipeline;
  options.consumer = consumer();
  options.workdir = revision_->workdir;
  options.definition = {revision_, &what};
  options.counters = std::make_shared<runtime::dataflow_counters>();
  options.pool = around_.where.batch;
  // Asked on the strand while run() waits for the end, so we live, and what is read of us does not change meanwhile.
  options.programs = [this] { return runtime::program_surroundings{environment(), log_file()}; };
  options.run_context = std::make_shared<const std::string>(run_context(run_));
  if (!what.from) {
    options.input = input(strand_);
    if (!options.input) options.input = runtime::make_empty_source();
  }
  dataflow_ = std::make_shared<runtime::dataflow_run>(strand_, around_.components, around_.offered, std::move(options));
  if (cancelled_) dataflow_->request_drain();
  const auto outcome = co_await dataflow_->run();
  leaves_positions_ = outcome.has_checkpoint;
  switch (outcome.end) {
    case runtime::dataflow_end::input_ended: task_.state = run_state::succeeded; break;
    case runtime::dataflow_end::drained:
      task_.state = run_state::cancelled;
      task_.reason = "stopped before the end of its input";
      break;
    case runtime::dataflow_end::failed:
      task_.state = run_state::failed;
      task_.reason = outcome.reason;
      break;
  }
}

std::map<std::string, std::string> task_work::environment() const {
  auto all = runtime::base_environment(around_.options.instance, run_.pipeline);
  all["PENSTOCK_JOB"] = run_.job;
  all["PENSTOCK_RUN_ID"] = run_.id;
  all["PENSTOCK_TASK"] = task_.name;
  all["PENSTOCK_ATTEMPT"] = std::to_string(run_.attempt);
  all["PENSTOCK_IDEMPOTENCY_KEY"] = run_.id + "/" + task_.name;
  all["TRACEPARENT"] = traceparent_of_task(run_, task_.name);
  if (!run_.trace.tracestate.empty()) all["TRACESTATE"] = run_.trace.tracestate;
  if (!run_.upstream_run.empty()) all["PENSTOCK_UPSTREAM_RUN"] = run_.upstream_run;
  if (run_.scheduled_for) all["PENSTOCK_SCHEDULED_FOR"] = format_time(*run_.scheduled_for);
  if (!file_.empty()) all["PENSTOCK_FILE"] = file_;
  if (!task_.item.empty()) {
    all["PENSTOCK_ITEM"] = as_text(nlohmann::json::parse(task_.item));
    const auto bracket = task_.name.find('[');
    all["PENSTOCK_ITEM_INDEX"] = task_.name.substr(bracket + 1, task_.name.size() - bracket - 2);
  }
  const auto params = nlohmann::json::parse(run_.params);
  for (const auto& [name, value] : params.items()) all[config::parameter_variable(name)] = as_text(value);
  for (const auto& [name, text] : filled_environment_) all[name] = text;
  return all;
}

std::filesystem::path task_work::log_file() const {
  return around_.options.data / "logs" / run_.id / (task_.name + ".log");
}

asio::awaitable<void> task_work::run_command(std::shared_ptr<task_work> self, task_input input) {
  leaves_positions_ = command_line_.to.has_value();
  auto source = input(strand_);
  const auto outcome = co_await asio::co_spawn(strand_, execute(std::move(self), std::move(source)), asio::use_awaitable);
  if (outcome.end == runtime::command_end::exited) task_.exit_code = outcome.exit_code;
  task_.output = outcome.output;
  task_.reason = outcome.reason;
  for (const auto& failure : {outcome.input_failure, outcome.output_failure}) {
    if (!failure.empty()) task_.reason = failure;
  }
  if (outcome.ok()) {
    task_.state = run_state::succeeded;
  } else if (outcome.end == runtime::command_end::timed_out) {
    task_.state = run_state::timed_out;
  } else if (outcome.end == runtime::command_end::cancelled) {
    task_.state = run_state::cancelled;
  } else {
    task_.state = run_state::failed;
  }
}

// On the strand, which has it alive as long as it runs.
asio::awaitable<runtime::command_outcome> task_work::execute(std::shared_ptr<task_work> self,
                                                             std::unique_ptr<runtime::source> input) {
  runtime::command_options options;
  options.definition = command_line_;
  options.pipeline = run_.pipeline;
  options.consumer = consumer();
  options.workdir = revision_->workdir;
  options.log = log_file();
  options.log_limit_bytes = around_.options.max_log_bytes;
  options.input = std::move(input);
  options.permit = permit_;
  options.timeout = definition_.timeout;
  options.grace = grace_;
  options.environment = environment();
  options.collects_output = true;
  options.scratch = around_.options.scratch();
  options.cgroups = around_.options.cgroups.get();
  command_ = std::make_shared<runtime::command_run>(strand_, around_.components, around_.offered, std::move(options));
  if (cancelled_) command_->cancel();
  auto outcome = co_await command_->run();
  (void)self;
  co_return outcome;
}

}  // namespace penstock::scheduler
