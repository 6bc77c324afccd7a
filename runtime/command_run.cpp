#include "runtime/command_run.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <exception>
#include <set>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "config/time.hpp"
#include "runtime/command_output.hpp"
#include "runtime/command_reason.hpp"
#include "runtime/json.hpp"
#include "runtime/log_file.hpp"
#include "runtime/output_file.hpp"
#include "runtime/pipe_io.hpp"
#include "runtime/run_limits.hpp"

namespace penstock::runtime {

namespace {

using clock = std::chrono::steady_clock;
using descriptor = asio::posix::stream_descriptor;

constexpr std::size_t input_events = 1000;      // at most so many in one write to stdin
constexpr auto patience_with_killed = std::chrono::seconds{10};
constexpr auto patience_with_unsure = std::chrono::seconds{1};
constexpr auto reap_interval = std::chrono::seconds{1};

std::string reason_of(std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return *e.what() ? e.what() : "it did not say why";
  } catch (...) {
    return "it did not say why";
  }
}

// By these a process that left its group is known again: they tell one run of one program from all others.
constexpr const char* marks[] = {"PENSTOCK_INSTANCE", "PENSTOCK_PIPELINE", "PENSTOCK_FLOW",
                                 "PENSTOCK_RUN_ID",   "PENSTOCK_TASK",     "PENSTOCK_ATTEMPT",
                                 "PENSTOCK_IDEMPOTENCY_KEY"};

std::vector<std::string> marks_in(const std::map<std::string, std::string>& environment) {
  std::vector<std::string> found;
  if (!environment.contains("PENSTOCK_RUN_ID") && !environment.contains("PENSTOCK_FLOW")) return found;
  for (const char* name : marks)
    if (const auto set = environment.find(name); set != environment.end())
      found.push_back(set->first + '=' + set->second);
  return found;
}

}  // namespace

// All members but the atomic ones belong to the strand. One coroutine, supervise(), decides; feed() and
// the two pump coroutines and the pidfd's handlers only report to it through flags and poke(). It outlives
// them all.
struct command_run::state : std::enable_shared_from_this<state> {
  state(asio::any_io_executor on, const registry& known, services& daemon, command_options what)
      : strand(std::move(on)),
        components(known),
        offered(daemon),
        options(std::move(what)),
        changed(strand, never),
        leader_exit(strand),
        in(strand),
        out(strand),
        err(strand),
        log(options.log, options.log_limit_bytes,
            options.continuous ? log_file::when_full::rotate : log_file::when_full::keep_ends, options.log_pause) {}

  static asio::awaitable<command_outcome> execute(std::shared_ptr<state> self);

  // Before there is a process.
  component_context context() const { return {offered, options.pipeline, options.consumer, options.workdir, strand}; }
  asio::awaitable<std::string> make_ready();
  void prepare_process();
  void make_pipes();
  process_start how_to_start() const;
  asio::awaitable<void> open_ends();
  std::string start();
  void start_pumps();

  // While there is one.
  asio::awaitable<void> supervise();
  asio::awaitable<void> wait_for_leader();
  asio::awaitable<void> end_rest_of_group();
  asio::awaitable<void> end_those_outside();
  asio::awaitable<std::vector<process>> those_outside();
  void signal_outside(const std::vector<process>& those, bool last_word);
  asio::awaitable<void> wait_for_member(process member, clock::time_point latest);
  asio::awaitable<void> finish_pumps();
  asio::awaitable<void> give_up(std::string trouble);
  bool told_to_end();
  void terminate();
  void force();
  void signal(int number);
  bool leader_moved() const;  // to a group that is not its own
  void stop_feeding();
  void watch(descriptor& exit, bool& ended);

  // stdin, stdout, stderr.
  void add_pump(asio::awaitable<void> pump, std::string command_outcome::*failure);
  void reap_now_and_then();
  asio::awaitable<void> feed();
  asio::awaitable<void> log_output(descriptor& from, log_file::stream as);
  asio::awaitable<void> emit_output();
  std::optional<std::size_t> log_chunk(descriptor& from, log_file::stream as, std::size_t most);
  asio::awaitable<void> emit_until_end();

  // Afterwards.
  void take_result();
  void describe();
  command_facts facts() const;
  void finish_log();
  command_outcome not_run(command_end end, std::string reason);
  command_outcome withdrawn();

  // Something changed that wait_for_change() may be waiting for. On the strand.
  void poke() { changed.cancel(); }
  asio::awaitable<void> wait_for_change(clock::time_point latest) {
    changed.expires_at(latest);
    co_await changed.async_wait(asio::as_tuple(asio::use_awaitable));
  }

  const asio::any_io_executor strand;
  const registry& components;
  services& offered;
  command_options options;
  std::atomic<bool> cancel_requested{false};
  std::atomic<int> shown_pid{0};  // 0: none

  // Made by make_ready(); gone when run() returns.
  std::optional<identity> user;              // absent: ours
  std::optional<run_limits> limits;
  std::unique_ptr<output_file> result_file;  // null: it has none
  unique_fd child_in, child_out, child_err;  // its ends of the pipes, until it has them
  std::filesystem::path folder;              // where the program starts
  std::unique_ptr<process_launch> waiting;   // its process, which the permit lets go; null: it is made when it may start

  asio::steady_timer changed;
  process leader;
  descriptor leader_exit, in, out, err;
  log_file log;
  std::unique_ptr<command_output> output;  // null: stdout goes to the log

  clock::time_point deadline = never;  // the timeout
  clock::time_point kill_at = never;   // set by terminate(): the end of the grace
  ending why = ending::by_itself;
  std::optional<process_end> last;  // how the leader ended
  bool leader_ended = false;
  bool leader_reaped = false;
  bool terminated = false;  // terminate() was called
  bool group_gone = false;
  bool feeding = false;
  int killed = 0;          // processes of its group that SIGKILL was sent to
  int killed_outside = 0;  // and others of it
  std::vector<std::string> own_marks;            // what those outside the group are known by; may be empty
  std::set<pid_t> beyond_reach;                  // of them: we may not signal them
  clock::time_point reaped_at = clock::now();
  int pumps = 0;   // child coroutines that have not returned
  command_outcome outcome;
};

command_run::command_run(asio::any_io_executor strand, const registry& components, services& offered,
                         command_options options)
    : state_(std::make_shared<state>(std::move(strand), components, offered, std::move(options))) {}

command_run::~command_run() = default;

asio::awaitable<command_outcome> command_run::run() {
  return asio::co_spawn(state_->strand, state::execute(state_), asio::use_awaitable);
}

std::optional<int> command_run::pid() const {
  const int pid = state_->shown_pid;
  return pid == 0 ? std::nullopt : std::optional(pid);
}

void command_run::cancel() {
  if (state_->cancel_requested.exchange(true)) return;
  asio::post(state_->strand, [s = state_] { s->poke(); });
}

asio::awaitable<command_outcome> command_run::state::execute(std::shared_ptr<state> self) {
  std::string trouble = co_await self->make_ready();
  if (self->options.permit && !co_await self->options.permit->wait()) co_return self->withdrawn();
  try {
    if (!self->waiting) {  // else it has been let go
      if (trouble.empty() && !self->cancel_requested) co_await self->open_ends();
      if (self->cancel_requested)
        co_return self->not_run(command_end::cancelled, "cancelled before it was started");
    }
    if (trouble.empty()) trouble = self->start();
  } catch (const std::exception& e) {
    trouble = e.what();
  }
  if (!trouble.empty()) co_return self->not_run(command_end::not_started, trouble);
  self->shown_pid = self->leader.pid;
  if (self->options.on_start) self->options.on_start();
  try {
    self->start_pumps();
    co_await self->supervise();
  } catch (const std::exception& e) {
    trouble = e.what();
  }
  if (!trouble.empty()) co_await self->give_up(std::move(trouble));
  self->shown_pid = 0;
  self->finish_log();
  self->limits.reset();
  reap_strays();
  co_return std::move(self->outcome);
}

// ---- before there is a process ------------------------------------------------------------------

// What can be undone without a trace: so it needs no permit. What went wrong, or nothing. A sink may be seen from outside, so a
// program that has one is not made to wait.
asio::awaitable<std::string> command_run::state::make_ready() {
  if (cancel_requested) co_return std::string();
  try {
    prepare_process();
    make_pipes();
    const process_start how = how_to_start();
    if (options.permit && !options.definition.to && process_launch::may_wait(how)) {
      if (options.input) co_await options.input->open(0);
      waiting = std::make_unique<process_launch>(how, options.permit.get());
    }
    co_return std::string();
  } catch (const std::exception& e) {
    co_return e.what();
  }
}

// Throws what keeps it from being started.
void command_run::state::prepare_process() {
  const config::process_settings& settings = options.definition.process;
  if (!settings.user.empty() || !settings.group.empty()) {
    auto found = find_identity(settings.user, settings.group);
    if (!found) throw std::runtime_error(found.error().detail);
    user = std::move(*found);
    if (!user->home.empty()) options.environment["HOME"] = user->home;
    if (!user->login.empty()) options.environment["USER"] = options.environment["LOGNAME"] = user->login;
  }
  for (const auto& [name, text] : options.definition.environment)
    options.environment.insert_or_assign(name, context().reveal(text));
  if (options.collects_output) {
    result_file = std::make_unique<output_file>(options.scratch, user ? &*user : nullptr);
    options.environment["PENSTOCK_OUTPUT"] = result_file->path();
  }
  own_marks = marks_in(options.environment);
  limits.emplace(settings.limits, settings.nice, options.cgroups, options.consumer);
  folder = settings.workdir.empty() ? options.workdir : options.workdir / settings.workdir;
}

void command_run::state::make_pipes() {
  const auto made = [] {
    auto pipe = make_pipe();
    if (!pipe) throw std::runtime_error(pipe.error().detail);
    return std::move(*pipe);
  };
  auto out_pipe = made(), err_pipe = made();
  child_out = std::move(out_pipe.write);
  child_err = std::move(err_pipe.write);
  hand_over(out_pipe.read, out);
  hand_over(err_pipe.read, err);
  if (!options.input) return;
  auto in_pipe = made();
  child_in = std::move(in_pipe.read);
  hand_over(in_pipe.write, in);
}

process_start command_run::state::how_to_start() const {
  const config::process_settings& settings = options.definition.process;
  return {.arguments = options.definition.run,
          .environment = options.environment,
          .folder = folder,
          .in = options.input ? child_in.get() : null_device(),
          .out = child_out.get(),
          .err = child_err.get(),
          .as = user ? &*user : nullptr,
          .umask = settings.umask,
          .nice = settings.nice,
          .io = settings.io,
          .limits = limits->of_each_process(),
          .cgroup = limits->group() ? limits->group()->procs() : -1};
}

// Its sink and its input.
asio::awaitable<void> command_run::state::open_ends() {
  if (options.definition.to) {
    output = std::make_unique<command_output>(components, context(), *options.definition.to, options.continuous);
    co_await output->open();
  }
  if (options.input) co_await options.input->open(0);
}

// What went wrong, or nothing.
std::string command_run::state::start() {
  if (!waiting) waiting = std::make_unique<process_launch>(how_to_start());
  auto started = waiting->finish();
  waiting.reset();
  for (unique_fd* end : {&child_in, &child_out, &child_err}) *end = unique_fd();
  if (!started) return started.error().detail;
  leader = std::move(*started);
  if (options.timeout) deadline = later(clock::now(), *options.timeout);

  boost::system::error_code failure;
  leader_exit.assign(leader.exit.get(), failure);
  if (failure) {
    kill_and_reap(leader.pid);
    return "cannot watch the program: " + failure.message();
  }
  leader.exit.release();
  return {};
}

void command_run::state::start_pumps() {
  watch(leader_exit, leader_ended);
  for (const auto& note : limits->notes()) log.note(note);
  if (options.input) {
    feeding = true;
    add_pump(feed(), &command_outcome::input_failure);
  }
  add_pump(output ? emit_output() : log_output(out, log_file::stream::out), &command_outcome::output_failure);
  add_pump(log_output(err, log_file::stream::err), &command_outcome::output_failure);
}

command_outcome command_run::state::not_run(command_end end, std::string reason) {
  if (options.input) options.input->stop_input();
  waiting.reset();
  log.note(reason);
  result_file.reset();
  limits.reset();
  outcome.end = end;
  outcome.reason = std::move(reason);
  return std::move(outcome);
}

command_outcome command_run::state::withdrawn() {
  if (options.input) options.input->stop_input();
  waiting.reset();
  result_file.reset();
  limits.reset();
  outcome.end = command_end::cancelled;
  return std::move(outcome);
}

// ---- while there is one -------------------------------------------------------------------------

asio::awaitable<void> command_run::state::supervise() {
  co_await wait_for_leader();
  stop_feeding();
  last = reap(leader.pid);
  leader_reaped = true;
  co_await end_rest_of_group();
  co_await end_those_outside();
  co_await finish_pumps();
  take_result();
  describe();
}

asio::awaitable<void> command_run::state::wait_for_leader() {
  while (!leader_ended && !told_to_end()) {
    log.catch_up();
    co_await wait_for_change(std::min(deadline, log.due()));
  }
  if (!leader_ended) terminate();
  while (!leader_ended) {
    if (clock::now() >= kill_at) force();
    co_await wait_for_change(kill_at);
  }
}

bool command_run::state::told_to_end() {
  if (cancel_requested) {
    why = ending::cancelled;
  } else if (!outcome.input_failure.empty()) {
    why = ending::input_failed;
  } else if (!outcome.output_failure.empty()) {
    why = ending::output_failed;
  } else if (clock::now() >= deadline) {
    why = ending::timed_out;
  }
  return why != ending::by_itself;
}

// After the leader was reaped, so that the group's existence depends on the others alone.
asio::awaitable<void> command_run::state::end_rest_of_group() {
  while (group_exists(leader.pid)) {
    if (!terminated) {
      terminate();
    } else if (clock::now() >= kill_at) {
      force();
    }
    auto rest = rest_of_group(leader.pid, most_left_behind);
    if (rest.empty()) break;
    for (auto& member : rest) co_await wait_for_member(std::move(member), kill_at);
  }
}

// They get their own grace: most of them were not told before. Rounds, because each may leave others behind.
asio::awaitable<void> command_run::state::end_those_outside() {
  auto those = co_await those_outside();
  if (those.empty()) co_return;
  log.note("it left " + processes(static_cast<int>(those.size())) + " behind outside its group: sending SIGTERM");
  const auto last_word_at = later(clock::now(), options.grace);
  const auto give_up_at = later(last_word_at, patience_with_killed);
  while (!those.empty() && clock::now() < give_up_at) {
    const bool last_word = clock::now() >= last_word_at;
    signal_outside(those, last_word);
    for (auto& one : those) co_await wait_for_member(std::move(one), last_word ? give_up_at : last_word_at);
    those = co_await those_outside();
    // The kernel's list of children may miss one while another leaves it (proc(5), task/TID/children): looked at twice.
    if (those.empty()) those = co_await those_outside();
  }
  if (!those.empty()) log.note(processes(static_cast<int>(those.size())) + " of it do not end, and are left alone");
}

asio::awaitable<std::vector<process>> command_run::state::those_outside() {
  std::vector<process> found;
  if (limits->group()) {
    found = limits->group()->members(most_left_behind);
  } else if (!own_marks.empty()) {
    auto adopted = adopted_with(own_marks, most_left_behind);
    const auto latest = clock::now() + patience_with_unsure;
    while (adopted.unsure && adopted.known.empty() && clock::now() < latest) {
      co_await wait_for_change(clock::now() + std::chrono::milliseconds{1});
      adopted = adopted_with(own_marks, most_left_behind);
    }
    found = std::move(adopted.known);
  }
  std::erase_if(found, [this](const process& one) { return beyond_reach.contains(one.pid); });
  co_return found;
}

void command_run::state::signal_outside(const std::vector<process>& those, bool last_word) {
  if (last_word) {
    outcome.forced = true;
    killed_outside += static_cast<int>(those.size());
    log.note("sending SIGKILL to " + processes(static_cast<int>(those.size())) + " outside its group");
    if (limits->group()) limits->group()->kill();
  }
  for (const auto& one : those) {
    const bool may = signal_process(one, last_word ? SIGKILL : SIGTERM);
    if (!last_word) signal_process(one, SIGCONT);
    if (!may && !limits->group()) beyond_reach.insert(one.pid);  // a group can be killed as a whole
  }
}

// Until it has ended or `latest`: it may have moved somewhere else, so nothing waits longer than that for it.
asio::awaitable<void> command_run::state::wait_for_member(process member, clock::time_point latest) {
  if (clock::now() >= latest || beyond_reach.contains(member.pid)) co_return;
  descriptor exit(strand);
  exit.assign(member.exit.get());
  member.exit.release();
  bool ended = false;
  watch(exit, ended);
  while (!ended && clock::now() < latest) co_await wait_for_change(latest);
  exit.cancel();
  while (!ended) co_await wait_for_change(never);
}

// `ended` must stay until it is true: when the process of the pidfd has exited, or the descriptor was
// cancelled.
void command_run::state::watch(descriptor& exit, bool& ended) {
  exit.async_wait(descriptor::wait_read, [self = shared_from_this(), &exit, &ended](boost::system::error_code failure) {
    // An event that the reactor still held for an earlier descriptor of the same number says nothing about this one.
    pollfd now{failure ? -1 : exit.native_handle(), POLLIN, 0};
    if (!failure && ::poll(&now, 1, 0) == 0) return self->watch(exit, ended);
    ended = true;
    self->poke();
  });
}

void command_run::state::terminate() {
  terminated = true;
  kill_at = later(clock::now(), options.grace);
  if (leader_reaped) {
    log.note("the program has ended, but left " + processes(count_group(leader.pid)) +
             " of its group behind: sending SIGTERM");
  } else {
    log.note(cause(facts()) + ": sending SIGTERM");
  }
  stop_feeding();
  signal(SIGTERM);
  signal(SIGCONT);  // a stopped process takes its SIGTERM only then
}

void command_run::state::force() {
  kill_at = never;
  killed = count_group(leader.pid) + (leader_moved() ? 1 : 0);
  if (killed > 0) {
    outcome.forced = true;
    log.note("sending SIGKILL to " + processes(killed) + " after " + format_duration(options.grace) +
             " grace");
  }
  signal(SIGCONT);
  signal(SIGKILL);
}

bool command_run::state::leader_moved() const {
  return !leader_reaped && ::getpgid(leader.pid) != leader.pid;
}

// To the whole group, and to the leader if it has moved to another one.
void command_run::state::signal(int number) {
  signal_group(leader.pid, number);
  if (leader_moved()) ::kill(leader.pid, number);
}

// All that the group wrote is in the pipes by now; whoever else still holds them open is not waited for.
asio::awaitable<void> command_run::state::finish_pumps() {
  group_gone = true;
  boost::system::error_code closed_already;
  out.cancel(closed_already);
  err.cancel(closed_already);
  while (pumps > 0) co_await wait_for_change(never);
}

// Watching failed (no descriptors, no memory, no /proc): nothing of it may stay, but grace is beyond our
// means.
asio::awaitable<void> command_run::state::give_up(std::string trouble) {
  outcome.forced = true;
  signal(SIGKILL);
  if (limits->group()) limits->group()->kill();
  stop_feeding();
  while (!leader_ended) co_await wait_for_change(never);
  if (!leader_reaped) last = reap(leader.pid);
  leader_reaped = true;
  reap_killed_group(leader.pid);
  co_await finish_pumps();
  describe();
  outcome.end = command_end::signalled;
  outcome.signal = SIGKILL;
  outcome.reason = "killed, because it could not be supervised: " + trouble;
}

// ---- stdin, stdout, stderr ----------------------------------------------------------------------

void command_run::state::add_pump(asio::awaitable<void> pump, std::string command_outcome::*failure) {
  asio::co_spawn(strand, std::move(pump), [self = shared_from_this(), failure](std::exception_ptr thrown) {
    if (thrown) self->outcome.*failure = reason_of(thrown);
    --self->pumps;
    if (thrown || self->leader_ended) self->poke();  // before that, nobody waits for a pump that is done
  });
  ++pumps;
}

void command_run::state::stop_feeding() {
  if (!std::exchange(feeding, false)) return;
  options.input->stop_input();
  boost::system::error_code ignored;
  in.close(ignored);
}

asio::awaitable<void> command_run::state::feed() {
  std::string lines;
  while (feeding) {
    const std::optional<batch> events = co_await options.input->read(input_events);
    if (!events) break;
    lines.clear();
    for (const auto& e : events->events) append_ndjson(lines, e);
    if (!feeding) co_return;
    const auto [failure, size] =
        co_await asio::async_write(in, asio::buffer(lines), asio::as_tuple(asio::use_awaitable));
    // The program has closed its stdin: it had enough.
    if (failure) break;
    if (!events->empty()) options.input->acknowledge(events->events.back().position);
  }
  stop_feeding();
}

asio::awaitable<void> command_run::state::log_output(descriptor& from, log_file::stream as) {
  while (!group_gone) {
    co_await from.async_wait(descriptor::wait_read, asio::as_tuple(asio::use_awaitable));
    if (group_gone) break;
    if (!log_chunk(from, as, pipe_bytes)) co_return from.close();
  }
  for (std::size_t left = waiting_bytes(from.native_handle()); left > 0;) {
    const auto got = log_chunk(from, as, left);
    if (!got || *got == 0) break;
    left -= *got;
  }
  from.close();
}

// How many bytes; nothing: end of file. One chunk for each readiness, so that a flood takes turns with all
// others.
std::optional<std::size_t> command_run::state::log_chunk(descriptor& from, log_file::stream as,
                                                         std::size_t most) {
  const pipe_read next = read_pipe(from.native_handle(), most);
  if (next.ended) return std::nullopt;
  const bool was_due = log.due() != never;
  log.write(as, next.bytes);
  if (!was_due && log.due() != never) poke();
  reap_now_and_then();
  return next.bytes.size();
}

// A program that runs for months may leave many orphans, which end as children of ours.
void command_run::state::reap_now_and_then() {
  const auto now = clock::now();
  if (now - reaped_at < reap_interval) return;
  reaped_at = now;
  reap_strays();
}

// When the sink fails, what is printed from then on goes to the log.
asio::awaitable<void> command_run::state::emit_output() {
  try {
    co_await emit_until_end();
  } catch (...) {
    outcome.output_failure = reason_of(std::current_exception());
  }
  if (outcome.output_failure.empty()) co_return;
  poke();
  co_await log_output(out, log_file::stream::out);
}

asio::awaitable<void> command_run::state::emit_until_end() {
  bool ended = false;
  while (!ended && !group_gone) {
    co_await out.async_wait(descriptor::wait_read, asio::as_tuple(asio::use_awaitable));
    if (group_gone) break;
    const pipe_read next = read_pipe(out.native_handle(), pipe_bytes);
    output->take(next.bytes);
    ended = next.ended;
    co_await output->deliver();
    reap_now_and_then();
  }
  for (std::size_t left = ended ? 0 : waiting_bytes(out.native_handle()); left > 0;) {
    const pipe_read next = read_pipe(out.native_handle(), left);
    if (next.bytes.empty()) break;
    output->take(next.bytes);
    left -= next.bytes.size();
    co_await output->deliver();
  }
  co_await output->finish();
}

// ---- afterwards ---------------------------------------------------------------------------------

void command_run::state::take_result() {
  if (!result_file) return;
  if (auto text = result_file->read()) {
    outcome.output = std::move(*text);
  } else {
    outcome.result_failure = text.error().detail;
  }
  result_file.reset();
}

void command_run::state::describe() {
  if (!last) {
    outcome.exit_code = -1;
  } else if (last->by_signal) {
    outcome.signal = last->number;
  } else {
    outcome.exit_code = last->number;
  }
  outcome.end = why == ending::cancelled   ? command_end::cancelled
                : why == ending::timed_out ? command_end::timed_out
                : outcome.signal != 0      ? command_end::signalled
                                           : command_end::exited;
  outcome.reason = reason(facts());
}

command_facts command_run::state::facts() const {
  command_facts all;
  all.why = why;
  all.last = last;
  all.timeout = options.timeout;
  all.grace = options.grace;
  if (last) all.limit_cause = limits->cause_of(*last, why == ending::by_itself && killed == 0);
  if (last) all.limit_remark = limits->remark_on(*last);
  all.input_failure = outcome.input_failure;
  all.output_failure = outcome.output_failure;
  all.result_failure = outcome.result_failure;
  all.killed = killed;
  all.killed_outside = killed_outside;
  return all;
}

void command_run::state::finish_log() {
  if (output && output->repeated_lines() > 0)
    log.note(std::to_string(output->repeated_lines()) + " lines were delivered by an earlier attempt");
  if (output && output->dead_lines() > 0)
    log.note(std::to_string(output->dead_lines()) + " lines of its output became dead letters");
  log.flush();
}

}  // namespace penstock::runtime
