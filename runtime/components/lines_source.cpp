// from: lines - listens at an address; each line that anybody sends there is an event.
//
// Everything happens on the flow's strand while events are asked for: sockets say that there is something to read (the
// kernel's notice, no polling), and read() takes it from them by turns, a share of lines from each. While the flow is busy
// nothing is read, so a TCP or local sender stands still once the kernel's buffers are full, and datagrams are dropped by
// the kernel, which the log counts. Of a connection at most 64 KiB and one line are held. Nobody tells a sender what
// became of its lines: what was received and is not safe yet is lost when the flow fails or the daemon is killed. Stopped,
// the source takes what has arrived by then, and ends.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <netinet/in.h>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "config/time.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/line_input.hpp"
#include "runtime/pipe_io.hpp"
#include "runtime/socket_address.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime::components::lines_source {

namespace {

using clock = std::chrono::steady_clock;
using descriptor = asio::posix::stream_descriptor;

constexpr std::size_t chunk_bytes = 64 * 1024;    // read at once; no datagram is larger
constexpr std::size_t share = 100;                // lines of one connection before it is another's turn
constexpr int most_turns = 1000;                  // before others on this thread have theirs
constexpr int most_last_datagrams = 10'000;       // that are taken after a stop
constexpr auto pause_of_warnings = std::chrono::seconds{10};
constexpr auto pause_without_descriptors = std::chrono::seconds{1};

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "lines",
      .doc = "Lines that are sent to a TCP, UDP or local (unix) socket. Senders get no answer; those of TCP and local sockets "
             "are slowed down while the flow is busy.",
      .settings =
          {.name = "lines",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "listen",
                 .type = field_type::string,
                 .doc = "HOST:PORT for TCP, udp:HOST:PORT, or unix:PATH, seen from the pipeline's folder.",
                 .required = true,
                 .example = "\"127.0.0.1:7000\""},
                {.name = "format",
                 .type = field_type::choice,
                 .doc = "ndjson: a JSON value a line. text: plain text.",
                 .fallback = "ndjson",
                 .choices = {"ndjson", "text"}},
                {.name = "max_line",
                 .type = field_type::size,
                 .doc = "A longer line becomes a dead letter with its beginning.",
                 .fallback = "1MiB",
                 .minimum = 1},
                {.name = "max_connections",
                 .type = field_type::integer,
                 .doc = "Further ones wait until one of these is closed.",
                 .fallback = "100",
                 .minimum = 1,
                 .maximum = 10000},
                {.name = "idle",
                 .type = field_type::duration,
                 .doc = "A connection that sends nothing for so long is closed; without it none is.",
                 .example = "5m",
                 .minimum = 0.001},
                {.name = "insecure",
                 .type = field_type::boolean,
                 .doc = "Listen at an address that other machines reach. Nobody is asked who they are, and nothing is "
                        "encrypted.",
                 .fallback = "false"}},
           .shorthand = "listen"},
      .examples = {"lines: \"127.0.0.1:7000\"", "lines: {listen: \"unix:orders.sock\", format: text}",
                   "lines: {listen: \"udp:127.0.0.1:7001\", max_line: 8KiB}",
                   "lines: {listen: \"0.0.0.0:7000\", insecure: true, idle: 5m, max_connections: 1000}"},
      .bounded = false,
      .live = true,
  };
}

struct settings {
  socket_address listen{};
  bool ndjson = true;
  std::size_t max_line = 1 << 20;
  std::size_t max_connections = 100;
  std::optional<std::chrono::nanoseconds> idle{};
  bool insecure = false;
};

void require_safe(const settings& s, const resolved_address& at) {
  if (s.insecure || !at.reaches_beyond()) return;
  throw std::runtime_error(s.listen.text + " can be reached from other machines, and nobody would be asked who they are: that "
                           "needs `insecure: true`");
}

settings parse(const config::value& v) {
  settings s;
  s.listen = socket_address::of(v.at("listen").get<std::string>());
  s.ndjson = v.value("format", "ndjson") == "ndjson";
  s.max_line = v.value("max_line", std::size_t{1} << 20);
  s.max_connections = v.value("max_connections", std::size_t{100});
  if (v.contains("idle")) s.idle = std::chrono::nanoseconds(v.at("idle").get<std::int64_t>());
  s.insecure = v.value("insecure", false);
  if (const auto at = resolve_number(s.listen)) require_safe(s, *at);
  return s;
}

// ---- sockets that say when there is something to read ------------------------------------------------------------

// What is ready, in its order. Handlers hold it, so it may outlive the source.
struct connection;
struct readiness {
  std::shared_ptr<wakeup> woken;
  std::deque<std::shared_ptr<connection>> turns;  // each at most once
  bool listener = true;                           // the listening socket, or that for datagrams
};

struct connection : std::enable_shared_from_this<connection> {
  connection(asio::any_io_executor strand, unique_fd fd, std::shared_ptr<const line_rules> rules, std::string from)
      : socket(strand), lines(std::move(rules)), sender(std::move(from)) {
    socket.assign(fd.get());
    fd.release();
  }

  // In what is ready, unless it is there.
  void queue(readiness& all) {
    if (!std::exchange(queued, true)) all.turns.push_back(shared_from_this());
  }
  // There once it has something to read.
  void wait(const std::shared_ptr<readiness>& all) {
    waits = true;
    auto told = [self = shared_from_this(), all](boost::system::error_code closed) {
      self->waits = false;
      if (closed) return;
      self->queue(*all);
      all->woken->notify();
    };
    socket.async_wait(descriptor::wait_read, std::move(told));
  }

  descriptor socket;
  line_input lines;
  const std::string sender;
  clock::time_point heard = clock::now();
  std::optional<std::size_t> left{};  // bytes that are still taken; nothing: no limit
  bool queued = false, waits = false;
};

char* chunk() {
  thread_local const auto buffer = std::make_unique_for_overwrite<char[]>(chunk_bytes);
  return buffer.get();
}

// ---- the source ------------------------------------------------------------------------------------------------------

class lines_source final : public source {
 public:
  lines_source(settings s, const component_context& context)
      : settings_(std::move(s)),
        name_(context.label()),
        folder_(context.workdir),
        strand_(context.executor),
        pool_(context.services.blocking),
        rules_(std::make_shared<const line_rules>(line_rules{settings_.ndjson, settings_.max_line, "/" + context.consumer})),
        ready_(std::make_shared<readiness>()) {
    ready_->woken = std::make_shared<wakeup>(context.executor);
  }

  // Handlers that wait hold what they wait for until it is closed.
  ~lines_source() override {
    close_listener();
    while (!connections_.empty()) {
      const std::shared_ptr<connection> one = *connections_.begin();
      remove(one);
    }
    ready_->turns.clear();
  }

  asio::awaitable<void> open(std::int64_t) override {
    auto find = [this] { return resolve(settings_.listen, folder_); };
    const std::vector<resolved_address> found = co_await pool_.run(std::move(find));
    require_safe(settings_, found.front());
    if (!stopped_) open_listener(found.front());
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (true) {
      batch events;
      if (datagrams()) {
        receive(events, most);
      } else {
        accept();
        take_turns(events, most);
      }
      append_lost(events, *rules_, std::exchange(lost_, {}));
      if (!events.empty()) co_return std::move(events);
      if (stopped_ && !something_ready()) break;
      if (something_ready()) {
        co_await asio::post(strand_, asio::use_awaitable);
        continue;
      }
      const clock::time_point latest = close_idle(most);
      if (latest == never) {
        co_await ready_->woken->wait();
      } else {
        co_await ready_->woken->wait_until(latest);
      }
    }
    if (torn_ > 0) spdlog::warn("{}: {} connections were in the middle of a line at the stop", name_, torn_);
    co_return std::nullopt;
  }

  void stop_input() override {
    if (std::exchange(stopped_, true)) return;
    ready_->listener = true;  // for a last look
    if (!datagrams()) {
      accept();
      close_listener();
    }
    for (const auto& one : connections_) {
      one->left = waiting_bytes(one->socket.native_handle());
      one->queue(*ready_);
    }
    ready_->woken->notify();
  }

 private:
  std::size_t taken(const batch& events) const { return events.size() + lost_.size(); }  // by this read()
  bool datagrams() const { return settings_.listen.is == socket_address::kind::udp; }
  bool may_accept() const {
    return listener_ && ready_->listener && connections_.size() < settings_.max_connections && clock::now() >= accept_again_;
  }
  bool something_ready() const {
    if (!ready_->turns.empty()) return true;
    return datagrams() ? listener_ && ready_->listener : may_accept();
  }

  void open_listener(const resolved_address& at);
  void close_listener();
  void wait_for_listener();
  void accept();
  void take_turns(batch& events, std::size_t most);
  bool take_turn(connection& one, batch& events, std::size_t most);
  void remove(const std::shared_ptr<connection>& one);
  clock::time_point close_idle(std::size_t most);
  void receive(batch& events, std::size_t most);
  void count_dropped(const msghdr& message);

  const settings settings_;
  const std::string name_;  // in the log
  const std::filesystem::path folder_;
  const asio::any_io_executor strand_;
  blocking_pool& pool_;
  const std::shared_ptr<const line_rules> rules_;
  const std::shared_ptr<readiness> ready_;

  std::shared_ptr<descriptor> listener_{};  // null: closed
  std::filesystem::path socket_path_{};     // of a local one, to be removed
  ino_t socket_inode_ = 0;
  clock::time_point accept_again_{};
  bool said_full_ = false;
  std::set<std::shared_ptr<connection>> connections_;
  std::vector<lost_line> lost_;  // by this read()
  int torn_ = 0;              // connections, by the stop
  int last_datagrams_ = 0;    // taken since the stop
  std::uint32_t dropped_ = 0; // datagrams, by the kernel, as far as was said
  clock::time_point say_dropped_{};  // not before
  bool stopped_ = false;
};

void lines_source::open_listener(const resolved_address& at) {
  unique_fd made = listen_at(at, settings_.listen);
  if (settings_.listen.is == socket_address::kind::local) {
    struct stat info {};
    socket_path_ = folder_ / settings_.listen.path;
    if (::stat(socket_path_.c_str(), &info) == 0) socket_inode_ = info.st_ino;
  }
  const int on = 1;
  if (datagrams()) ::setsockopt(made.get(), SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
  listener_ = std::make_shared<descriptor>(strand_);
  listener_->assign(made.get());
  made.release();
  resolved_address bound;
  bound.size = sizeof bound.storage;
  ::getsockname(listener_->native_handle(), reinterpret_cast<sockaddr*>(&bound.storage), &bound.size);
  spdlog::info("{}: listens at {}", name_, socket_path_.empty() ? bound.text() : socket_path_.string());
}

void lines_source::close_listener() {
  if (!listener_) return;
  // Removed only while it is ours: another program may have taken it over.
  struct stat info {};
  const bool there = !socket_path_.empty() && ::lstat(socket_path_.c_str(), &info) == 0;
  if (there && info.st_ino == socket_inode_) ::unlink(socket_path_.c_str());
  boost::system::error_code ignored;
  listener_->close(ignored);
  listener_.reset();
}

void lines_source::wait_for_listener() {
  ready_->listener = false;
  auto told = [all = ready_, listener = listener_](boost::system::error_code closed) {
    if (closed) return;
    all->listener = true;
    all->woken->notify();
  };
  listener_->async_wait(descriptor::wait_read, std::move(told));
}

// ---- connections -------------------------------------------------------------------------------------------------------

void lines_source::accept() {
  while (may_accept()) {
    resolved_address from;
    from.size = sizeof from.storage;
    unique_fd made(::accept4(listener_->native_handle(), reinterpret_cast<sockaddr*>(&from.storage), &from.size,
                             SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (made.get() >= 0) {
      const auto one = std::make_shared<connection>(strand_, std::move(made), rules_, from.text());
      connections_.insert(one);
      one->queue(*ready_);
    } else if (errno == EAGAIN) {
      wait_for_listener();
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      spdlog::warn("{}: cannot take another connection: {}", name_, std::generic_category().message(errno));
      accept_again_ = clock::now() + pause_without_descriptors;
    }  // else: that one has gone already
  }
  const bool full = connections_.size() >= settings_.max_connections;
  if (full && !said_full_) spdlog::warn("{}: {} connections (max_connections); further ones wait", name_, connections_.size());
  said_full_ = full;
}

void lines_source::take_turns(batch& events, std::size_t most) {
  for (int turn = 0; turn < most_turns && !ready_->turns.empty() && taken(events) < most; ++turn) {
    const std::shared_ptr<connection> one = std::move(ready_->turns.front());
    ready_->turns.pop_front();
    one->queued = false;
    if (!connections_.contains(one)) continue;
    const bool stays = take_turn(*one, events, std::min(share, most - taken(events)));
    std::vector<lost_line> lost = one->lines.take_lost();
    std::move(lost.begin(), lost.end(), std::back_inserter(lost_));
    if (!stays) remove(one);
  }
}

// Some lines that are there, or some more bytes; `most` counts lost lines, too. False: it is over.
bool lines_source::take_turn(connection& one, batch& events, std::size_t most) {
  if (one.lines.cut(events, most, one.sender) == most) {
    one.queue(*ready_);
    return true;
  }
  const bool no_more = one.left == std::size_t{0};  // but it may have ended there
  const std::size_t size = no_more ? 1 : std::min(chunk_bytes, one.left.value_or(chunk_bytes));
  const ssize_t got = ::recv(one.socket.native_handle(), chunk(), size, MSG_DONTWAIT | (no_more ? MSG_PEEK : 0));
  if (no_more && got != 0) {
    torn_ += one.lines.in_a_line() ? 1 : 0;
    return false;
  }
  if (got > 0) {
    one.heard = clock::now();
    one.lines.add({chunk(), static_cast<std::size_t>(got)});
    if (one.left) *one.left -= static_cast<std::size_t>(got);
    one.queue(*ready_);
    return true;
  }
  if (got == 0) {
    one.lines.finish();
    one.lines.cut(events, most, one.sender);
    return false;
  }
  const int failure = errno;
  if (failure == EAGAIN || failure == EINTR) {
    if (one.left) one.left = 0;  // there is less than was said
    if (one.left) one.queue(*ready_);
    if (!one.left && !one.waits) one.wait(ready_);
    return true;
  }
  one.lines.break_off("the connection broke before the whole line had come: " + std::generic_category().message(failure));
  return false;
}

void lines_source::remove(const std::shared_ptr<connection>& one) {
  boost::system::error_code ignored;
  one->socket.close(ignored);
  connections_.erase(one);
}

// When to look again.
clock::time_point lines_source::close_idle(std::size_t most) {
  const clock::time_point now = clock::now();
  clock::time_point next = never;
  if (listener_ && accept_again_ > now) next = accept_again_;
  if (!settings_.idle) return next;
  for (auto at = connections_.begin(); at != connections_.end() && lost_.size() < most;) {
    const std::shared_ptr<connection> one = *at++;
    const clock::time_point until = later(one->heard, *settings_.idle);
    if (until > now) {
      next = std::min(next, until);
      continue;
    }
    if (waiting_bytes(one->socket.native_handle()) > 0) continue;  // its turn is about to come
    one->lines.break_off("the connection was idle before the whole line had come");
    std::vector<lost_line> lost = one->lines.take_lost();
    std::move(lost.begin(), lost.end(), std::back_inserter(lost_));
    remove(one);
    next = now;  // for the lost line, and because another one may wait for its place
  }
  return next;
}

// ---- datagrams ---------------------------------------------------------------------------------------------------------

void lines_source::receive(batch& events, std::size_t most) {
  for (int turn = 0; turn < most_turns && listener_ && ready_->listener && taken(events) < most; ++turn) {
    resolved_address from;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(std::uint32_t))];
    iovec bytes{chunk(), chunk_bytes};
    msghdr message{};
    message.msg_name = &from.storage;
    message.msg_namelen = sizeof from.storage;
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(listener_->native_handle(), &message, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (stopped_ && (got < 0 || ++last_datagrams_ >= most_last_datagrams)) close_listener();
    if (got < 0 && listener_) wait_for_listener();
    if (got <= 0) continue;
    from.size = message.msg_namelen;
    count_dropped(message);
    line_input lines(rules_);
    lines.add({chunk(), static_cast<std::size_t>(got)});
    lines.finish();
    lines.cut(events, chunk_bytes, from.text());
    std::vector<lost_line> lost = lines.take_lost();
    std::move(lost.begin(), lost.end(), std::back_inserter(lost_));
  }
}

void lines_source::count_dropped(const msghdr& message) {
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SO_RXQ_OVFL) return;
  std::uint32_t dropped = 0;
  std::memcpy(&dropped, CMSG_DATA(header), sizeof dropped);
  if (dropped == dropped_ || clock::now() < say_dropped_) return;
  spdlog::warn("{}: {} datagrams were dropped, because they came faster than the flow takes them", name_, dropped - dropped_);
  dropped_ = dropped;
  say_dropped_ = clock::now() + pause_of_warnings;
}

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), parse), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<lines_source>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::lines_source
