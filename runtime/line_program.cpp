#include "runtime/line_program.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <optional>
#include <poll.h>
#include <stdexcept>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "config/time.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/log_file.hpp"
#include "runtime/pipe_io.hpp"
#include "runtime/process.hpp"

namespace penstock::runtime {

namespace {

using clock = std::chrono::steady_clock;
using descriptor = asio::posix::stream_descriptor;

constexpr std::int64_t program_log_limit = 16LL << 20;   // bytes; then the file is rotated
constexpr int lines_in_daemon_log = 20;          // of one life
constexpr std::size_t most_last_words = 300;     // bytes
constexpr auto patience_after_failure = std::chrono::seconds{3};  // for what it has read
constexpr auto patience_with_exit = std::chrono::seconds{1};  // of one that has closed its output

// Then every later answer would be taken for that of another line.
[[noreturn]] void unasked(std::string_view text) {
  throw std::runtime_error("the program printed something that answers no event: " + excerpt(text.substr(0, text.find('\n'))) +
                           " (print one line for each event, and everything else to stderr)");
}

}  // namespace

// Handlers of its descriptors hold it and do no more than note what happened and poke(), so nothing runs beside the
// coroutine that asks or ends.
struct line_program::life : std::enable_shared_from_this<life> {
  life(asio::any_io_executor strand, std::shared_ptr<const line_program_options> o)
      : options(std::move(o)), changed(strand, never), exit(strand), in(strand), out(strand), err(strand) {
    if (!options->log.empty()) log.emplace(options->log, program_log_limit, log_file::when_full::rotate);
  }

  void start();
  asio::awaitable<answers> ask(std::span<const std::string> lines, std::size_t in_flight);
  asio::awaitable<output> hear(clock::time_point latest);
  asio::awaitable<bool> tell(std::string text);
  asio::awaitable<void> end(std::chrono::nanoseconds patience, std::chrono::nanoseconds grace);
  void ask_to_end();
  void kill_now();

  void check_nothing_waits();
  void write_more(std::span<const std::string> lines, std::size_t answered, std::size_t in_flight);
  bool read_more(std::size_t asked, answers& got);
  std::string trouble(const answers& got) const;
  std::string how_it_ended() const;
  ending how() const;
  asio::awaitable<void> wait_for_exit(clock::time_point latest);
  asio::awaitable<void> end_rest_of_group(std::chrono::nanoseconds grace);
  void close_pipes();

  bool has_exited();
  void watch_exit();
  void watch_err();
  void watch(descriptor& d, descriptor::wait_type what, bool& watched);
  void take_err(std::string_view bytes);
  void take_err_line(std::string_view line);
  void read_err_to_end();

  void poke() { changed.cancel(); }
  asio::awaitable<void> wait_for_change(clock::time_point latest) {
    changed.expires_at(latest);
    co_await changed.async_wait(asio::as_tuple(asio::use_awaitable));
  }

  // Why there is no answer to the line at hand.
  enum class stop { none, ended, late, too_long };

  const std::shared_ptr<const line_program_options> options;
  asio::steady_timer changed;
  descriptor exit, in, out, err;
  pid_t pid = 0;  // 0: none, or reaped
  std::optional<process_end> last{};
  bool exited = false;
  bool in_watched = false, out_watched = false;
  bool out_ended = false;  // end of file
  bool interrupted = false;
  bool ever_answered = false;

  stop stopped = stop::none;
  bool in_broken = false;       // it has closed its stdin

  // What is under way: the lines of one ask().
  std::size_t sent_lines = 0;   // written in full
  std::size_t line_offset = 0;  // of the next one, written already
  std::size_t written = 0;      // bytes in all, since the start
  std::size_t head_begins = 0;  // byte at which the first line without an answer begins
  std::string partial{};        // of an answer

  std::optional<log_file> log{};
  std::string err_line{}, last_words{};
  int daemon_log_lines = 0;
};

// ---- start -------------------------------------------------------------------------------------------------------

void line_program::life::start() {
  auto in_pipe = make_pipe();
  auto out_pipe = make_pipe();
  auto err_pipe = make_pipe();
  for (const auto* made : {&in_pipe, &out_pipe, &err_pipe})
    if (!*made) throw std::runtime_error(made->error().detail);
  hand_over(in_pipe->write, in);
  out_ended = options->output_to_log;
  if (!out_ended) hand_over(out_pipe->read, out);
  hand_over(err_pipe->read, err);
  auto started = start_process({.arguments = options->run,
                                .environment = options->environment,
                                .folder = options->folder,
                                .in = in_pipe->read.get(),
                                .out = (out_ended ? err_pipe : out_pipe)->write.get(),
                                .err = err_pipe->write.get()});
  if (!started) throw std::runtime_error(started.error().detail);
  pid = started->pid;
  boost::system::error_code failure;
  exit.assign(started->exit.get(), failure);
  if (failure) {
    kill_and_reap(std::exchange(pid, 0));
    throw std::runtime_error("cannot watch the program: " + failure.message());
  }
  started->exit.release();
  watch_exit();
  watch_err();
}

// Also before the reactor has said so.
bool line_program::life::has_exited() {
  pollfd now{exit.native_handle(), POLLIN, 0};
  exited = exited || ::poll(&now, 1, 0) > 0;
  return exited;
}

void line_program::life::watch_exit() {
  exit.async_wait(descriptor::wait_read, [self = shared_from_this()](boost::system::error_code failure) {
    if (failure) return;
    // An event that the reactor still held for an earlier descriptor of the same number says nothing about this one.
    if (!self->has_exited()) return self->watch_exit();
    self->poke();
  });
}

void line_program::life::watch(descriptor& d, descriptor::wait_type what, bool& watched) {
  if (watched || !d.is_open()) return;
  watched = true;
  d.async_wait(what, [self = shared_from_this(), &watched](boost::system::error_code) {
    watched = false;
    self->poke();
  });
}

// ---- stderr ------------------------------------------------------------------------------------------------------

void line_program::life::watch_err() {
  err.async_wait(descriptor::wait_read, [self = shared_from_this()](boost::system::error_code failure) {
    if (failure || !self->err.is_open()) return;
    const pipe_read next = read_pipe(self->err.native_handle());
    self->take_err(next.bytes);
    if (!next.ended) self->watch_err();
  });
}

void line_program::life::take_err(std::string_view bytes) {
  if (log) {
    log->catch_up();
    log->write(log_file::stream::err, bytes);
  }
  while (!bytes.empty()) {
    const std::size_t newline = bytes.find('\n');
    if (err_line.size() < pipe_bytes) err_line += bytes.substr(0, newline);
    if (newline == bytes.npos) return;
    take_err_line(err_line);
    err_line.clear();
    bytes.remove_prefix(newline + 1);
  }
}

void line_program::life::take_err_line(std::string_view line) {
  if (line.find_first_not_of(" \t\r") == line.npos) return;
  last_words = excerpt(line, most_last_words);
  if (log || daemon_log_lines > lines_in_daemon_log) return;
  if (++daemon_log_lines > lines_in_daemon_log)
    spdlog::info("{}: it says more on stderr, which is not shown", options->name);
  else
    spdlog::info("{}: {}", options->name, last_words);
}

void line_program::life::read_err_to_end() {
  for (std::size_t left = err.is_open() ? waiting_bytes(err.native_handle()) : 0; left > 0;) {
    const pipe_read next = read_pipe(err.native_handle());
    if (next.bytes.empty()) break;
    take_err(next.bytes);
    left -= std::min(left, next.bytes.size());
  }
  take_err_line(std::exchange(err_line, {}));
  if (log) log->flush();
}

// ---- questions and answers -----------------------------------------------------------------------------------------

asio::awaitable<line_program::answers> line_program::life::ask(std::span<const std::string> lines,
                                                               std::size_t in_flight) {
  answers got;
  check_nothing_waits();
  sent_lines = line_offset = 0;
  head_begins = written;
  const auto patience = [this] {
    return later(clock::now(), ever_answered ? options->timeout : std::max(options->timeout, options->start_timeout));
  };
  auto latest = patience();
  while (got.lines.size() < lines.size()) {
    write_more(lines, got.lines.size(), in_flight);
    const std::size_t before = got.lines.size();
    const bool had_exited = exited;
    const bool read = read_more(lines.size(), got);
    for (std::size_t i = before; i < got.lines.size(); ++i) head_begins += lines[i].size();
    if (got.lines.size() > before) {
      ever_answered = true;
      latest = patience();
      continue;
    }
    if (stopped == stop::none && !read && (out_ended || had_exited)) stopped = stop::ended;
    if (stopped == stop::none && clock::now() >= latest) stopped = stop::late;
    if (stopped != stop::none) break;
    watch(out, descriptor::wait_read, out_watched);
    const bool may_send = sent_lines < lines.size() && sent_lines - got.lines.size() < in_flight;
    if (may_send && !in_broken) watch(in, descriptor::wait_write, in_watched);
    co_await wait_for_change(latest);
  }
  got.ever_answered = ever_answered;
  got.sent = std::min(sent_lines + (line_offset > 0 ? 1 : 0), lines.size());
  const std::size_t unread = waiting_bytes(in.native_handle());  // also when nobody reads there any more
  got.at_hand = written - std::min(unread, written) > head_begins;
  co_return got;
}

void line_program::life::check_nothing_waits() {
  while (out.is_open() && waiting_bytes(out.native_handle()) > 0) {
    const pipe_read next = read_pipe(out.native_handle());
    if (next.bytes.empty()) break;
    partial += next.bytes;
    if (partial.size() > pipe_bytes) break;
  }
  if (!partial.empty()) unasked(partial);
}

void line_program::life::write_more(std::span<const std::string> lines, std::size_t answered, std::size_t in_flight) {
  while (!in_broken && sent_lines < lines.size() && sent_lines - answered < in_flight) {
    const std::string& line = lines[sent_lines];
    const auto put = ::write(in.native_handle(), line.data() + line_offset, line.size() - line_offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) return;
    if (put < 0) {  // what it still answers counts
      in_broken = true;
      return;
    }
    written += static_cast<std::size_t>(put);
    line_offset += static_cast<std::size_t>(put);
    if (line_offset < line.size()) continue;
    line_offset = 0;
    ++sent_lines;
  }
}

// False when nothing was there.
bool line_program::life::read_more(std::size_t asked, answers& got) {
  if (out_ended) return false;
  const pipe_read next = read_pipe(out.native_handle());
  out_ended = next.ended;
  std::string_view bytes = next.bytes;
  while (!bytes.empty()) {
    if (got.lines.size() == std::min(asked, sent_lines)) unasked(bytes);
    const std::size_t newline = bytes.find('\n');
    partial += bytes.substr(0, newline);
    if (partial.size() > options->most_answer_bytes) stopped = stop::too_long;
    if (newline == bytes.npos || stopped != stop::none) break;
    got.lines.push_back(std::exchange(partial, {}));
    bytes.remove_prefix(newline + 1);
  }
  return !next.bytes.empty();
}

std::string line_program::life::how_it_ended() const {
  if (!last) return "its exit status was lost";
  return last->by_signal ? signal_name(last->number) : "exit code " + std::to_string(last->number);
}

// After its end.
std::string line_program::life::trouble(const answers& got) const {
  const std::string said = last_words.empty() ? "" : " (" + last_words + ")";
  switch (stopped) {
    case stop::none:
      return {};
    case stop::too_long:
      return "the program's answer is longer than " + format_size(static_cast<std::int64_t>(options->most_answer_bytes));
    case stop::late: {
      const auto patience = got.ever_answered ? options->timeout : std::max(options->timeout, options->start_timeout);
      return "the program gave no answer within " + format_duration(patience) +
             (got.at_hand ? "; does it flush its output after each line?" : "; it has not even read the event") + said;
    }
    case stop::ended:
      break;
  }
  const std::string when = got.at_hand ? "while it worked on this event: " : "before it read the event: ";
  return "the program ended " + when + how_it_ended() + said;
}

line_program::ending line_program::life::how() const {
  return {last && !last->by_signal && last->number == 0, how_it_ended() + (last_words.empty() ? "" : " (" + last_words + ")")};
}

// ---- one that only speaks, one that only listens -----------------------------------------------------------------

asio::awaitable<line_program::output> line_program::life::hear(clock::time_point latest) {
  output heard;
  while (!std::exchange(interrupted, false)) {
    heard.ended = out_ended;
    if (heard.ended) break;
    const bool had_exited = has_exited();
    const pipe_read next = read_pipe(out.native_handle());
    heard.bytes = next.bytes;
    // What it has started may print on after its exit: that does not count. All that it left in the pipe is one chunk.
    out_ended = next.ended || had_exited;
    if (!heard.bytes.empty()) break;
    if (out_ended) continue;
    if (clock::now() >= latest) break;
    watch(out, descriptor::wait_read, out_watched);
    co_await wait_for_change(latest);
  }
  co_return heard;
}

// False: `stopped` says why.
asio::awaitable<bool> line_program::life::tell(std::string text) {
  std::size_t told = 0;
  auto latest = later(clock::now(), options->timeout);
  while (told < text.size() && stopped == stop::none) {
    const auto put = exited ? -1 : ::write(in.native_handle(), text.data() + told, text.size() - told);
    if (put > 0) {
      told += static_cast<std::size_t>(put);
      latest = later(clock::now(), options->timeout);
    } else if (exited || (errno != EAGAIN && errno != EINTR)) {
      stopped = stop::ended;
    } else if (clock::now() >= latest) {
      stopped = stop::late;
    } else {
      watch(in, descriptor::wait_write, in_watched);
      co_await wait_for_change(latest);
    }
  }
  co_return stopped == stop::none;
}

// ---- end -----------------------------------------------------------------------------------------------------------

asio::awaitable<void> line_program::life::wait_for_exit(clock::time_point latest) {
  while (!exited && clock::now() < latest) {
    // So that a full pipe does not keep it from ending.
    while (!out_ended && out.is_open() && clock::now() < latest) {
      const pipe_read rest = read_pipe(out.native_handle());
      out_ended = rest.ended;
      if (rest.bytes.empty()) break;
    }
    if (!out_ended) watch(out, descriptor::wait_read, out_watched);
    co_await wait_for_change(latest);
  }
  co_return;
}

asio::awaitable<void> line_program::life::end(std::chrono::nanoseconds patience, std::chrono::nanoseconds grace) {
  if (pid == 0) co_return;
  boost::system::error_code ignored;
  in.close(ignored);
  co_await wait_for_exit(later(clock::now(), patience));
  if (!exited) {
    signal_group(pid, SIGTERM);
    signal_group(pid, SIGCONT);  // a stopped process takes its SIGTERM only then
    co_await wait_for_exit(later(clock::now(), grace));
  }
  if (!exited) {
    signal_group(pid, SIGKILL);
    co_await wait_for_exit(never);
  }
  last = reap(pid);
  co_await end_rest_of_group(grace);
  pid = 0;
  reap_strays();
  read_err_to_end();
  close_pipes();
  co_return;
}

// What it has started and not ended itself.
asio::awaitable<void> line_program::life::end_rest_of_group(std::chrono::nanoseconds grace) {
  if (!group_exists(pid)) co_return;
  signal_group(pid, SIGTERM);
  signal_group(pid, SIGCONT);
  const auto latest = later(clock::now(), grace);
  std::vector<process> rest = rest_of_group(pid, most_left_behind);
  for (process& one : rest) {
    auto member = std::make_shared<descriptor>(changed.get_executor());
    member->assign(one.exit.get());
    one.exit.release();
    bool gone = false;
    auto told = [self = shared_from_this(), member, &gone](boost::system::error_code) {
      gone = true;
      self->poke();
    };
    member->async_wait(descriptor::wait_read, std::move(told));
    while (!gone && clock::now() < latest) co_await wait_for_change(latest);
    member->cancel();
    while (!gone) co_await wait_for_change(never);
  }
  signal_group(pid, SIGKILL);
  reap_killed_group(pid);
  co_return;
}

void line_program::life::ask_to_end() {
  boost::system::error_code ignored;
  in.close(ignored);
  if (pid == 0) return;
  signal_group(pid, SIGTERM);
  signal_group(pid, SIGCONT);
}

// For one that nobody can wait for.
void line_program::life::kill_now() {
  if (pid != 0) kill_and_reap(std::exchange(pid, 0));
  close_pipes();
}

void line_program::life::close_pipes() {
  boost::system::error_code ignored;
  for (descriptor* d : {&exit, &in, &out, &err}) d->close(ignored);
}

// ---- the program, life after life ------------------------------------------------------------------------------------

line_program::line_program(asio::any_io_executor strand, line_program_options options)
    : strand_(std::move(strand)), options_(std::make_shared<const line_program_options>(std::move(options))) {}

line_program::~line_program() {
  if (life_) life_->kill_now();
}

void line_program::start() {
  if (life_) life_->kill_now();
  auto next = std::make_shared<life>(strand_, options_);
  next->start();
  life_ = std::move(next);
}

bool line_program::running() const { return life_ && !life_->has_exited(); }

asio::awaitable<line_program::answers> line_program::ask(std::span<const std::string> lines, std::size_t in_flight) {
  const std::shared_ptr<life> asked = life_;
  answers got = co_await asked->ask(lines, std::min(in_flight, options_->in_flight));
  if (asked->stopped == life::stop::none) co_return got;
  // One that has closed its output is about to exit; one that hangs is not.
  const bool about_to_exit = asked->stopped == life::stop::ended;
  const std::chrono::nanoseconds patience = about_to_exit ? patience_with_exit : std::chrono::seconds{0};
  co_await asked->end(patience, options_->grace);
  got.failure = asked->trouble(got);
  life_.reset();
  co_return got;
}

asio::awaitable<line_program::output> line_program::hear(std::chrono::steady_clock::time_point latest) {
  const std::shared_ptr<life> heard = life_;
  if (!heard) co_return output{{}, true};
  co_return co_await heard->hear(latest);
}

void line_program::interrupt() {
  if (!life_) return;
  life_->interrupted = true;
  life_->poke();
}

void line_program::ask_to_end() {
  if (life_) life_->ask_to_end();
}

asio::awaitable<std::string> line_program::tell(std::string text) {
  const std::shared_ptr<life> told = life_;
  const bool done = co_await told->tell(std::move(text));
  if (done) co_return std::string();
  const bool late = told->stopped == life::stop::late;
  const ending how = co_await end_soon();
  if (late) co_return "the program has not read its input for " + format_duration(options_->timeout);
  co_return "the program has ended: " + how.words;
}

asio::awaitable<line_program::ending> line_program::end() {
  const std::shared_ptr<life> ending_life = std::exchange(life_, nullptr);
  if (!ending_life) co_return ending{};
  co_await ending_life->end(options_->grace, options_->grace);
  co_return ending_life->how();
}

asio::awaitable<line_program::ending> line_program::end_soon() {
  const std::shared_ptr<life> ending_life = std::exchange(life_, nullptr);
  if (!ending_life) co_return ending{};
  co_await ending_life->end(std::min<std::chrono::nanoseconds>(options_->grace, patience_with_exit), options_->grace);
  co_return ending_life->how();
}

asio::awaitable<void> line_program::end_after_failure() {
  const std::shared_ptr<life> ending_life = std::exchange(life_, nullptr);
  if (!ending_life) co_return;
  const std::chrono::nanoseconds patience = std::min<std::chrono::nanoseconds>(options_->grace, patience_after_failure);
  const std::chrono::nanoseconds grace = std::min<std::chrono::nanoseconds>(options_->grace, patience_with_exit);
  bool ended = false;
  try {
    co_await ending_life->end(patience, grace);
    ended = true;
  } catch (const std::exception& e) {
    spdlog::warn("{}: cannot wait for the program's end: {}", options_->name, e.what());
  }
  if (!ended) ending_life->kill_now();
  co_return;
}

void line_program::force_end() {
  if (life_ && life_->pid != 0) signal_group(life_->pid, SIGKILL);
}

}  // namespace penstock::runtime
