#include "daemon/application.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "config/time.hpp"
#include "daemon/thread_priority.hpp"
#include "runtime/cgroup.hpp"
#include "runtime/data_format.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/flow_store.hpp"
#include "runtime/process.hpp"
#include "runtime/unique_fd.hpp"

namespace penstock::daemon {

namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;

constexpr std::size_t writer_threads = 2;      // commits wait for the disk, so more would not help
constexpr std::size_t most_blocking_calls = 64;
constexpr std::chrono::seconds patience_with_lock{2};

// " (process 123)" of an open lock file, where it says so and that process lives.
std::string holder_of(int lock) {
  char text[24] = {};
  const ssize_t got = ::pread(lock, text, sizeof text - 1, 0);
  pid_t pid = 0;
  if (got <= 0 || std::from_chars(text, text + got, pid).ec != std::errc() || pid <= 0) return {};
  return ::kill(pid, 0) == 0 || errno == EPERM ? " (process " + std::to_string(pid) + ")" : "";
}

scheduler::token_rule token_rule_of(const std::string& auth) {
  if (auth == "tokens") return scheduler::token_rule::always;
  return auth == "none" ? scheduler::token_rule::never : scheduler::token_rule::automatic;
}

// An exception's text; that of the file system's says what and where, and nothing of the library.
std::string in_words(const std::exception& e) {
  const auto* failure = dynamic_cast<const fs::filesystem_error*>(&e);
  return failure ? failure->path1().string() + ": " + failure->code().message() : e.what();
}

// What is stored is nobody else's business. The folder itself stays open, and what pipelines work in is open to who knows the
// way: only root can run commands as other users, and those start there.
void keep_private(const fs::path& data) {
  std::error_code ignored;  // where the system knows no permissions, nothing can be kept
  for (const char* folder : {"topics", "logs", "work"}) {
    const bool passed_through = std::string_view(folder) == "work" && ::geteuid() == 0;
    const auto pass = passed_through ? fs::perms::group_exec | fs::perms::others_exec : fs::perms::none;
    if (runtime::make_durable_folder(data / folder)) {
      fs::permissions(data / folder, fs::perms::owner_all | pass, ignored);
    } else if (!fs::is_symlink(data / folder, ignored)) {  // what an administrator has opened to a group, or put elsewhere, stays so
      fs::permissions(data / folder, fs::perms::others_all & ~pass, fs::perm_options::remove, ignored);
    }
  }
  for (const char* name : {"state.db", "flows.db"}) {
    const runtime::unique_fd made(::open((data / name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    fs::permissions(data / name, fs::perms::owner_read | fs::perms::owner_write, ignored);
  }
}

// As many as wanted, but never so many that no descriptor is left for topics, logs and programs.
std::size_t connection_limit(std::int64_t wanted) {
  constexpr std::int64_t spare_at_least = 64;
  struct rlimit files {};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) return static_cast<std::size_t>(wanted);
  const auto most = static_cast<std::int64_t>(files.rlim_cur);
  const std::int64_t room = std::max<std::int64_t>(most - std::max(spare_at_least, most / 4), 1);
  if (wanted <= room) return static_cast<std::size_t>(wanted);
  spdlog::warn("max_connections is {}, but the process may open only {} files: {} connections are served at once; start it with "
               "more (LimitNOFILE= of its unit, ulimit -n)", wanted, most, room);
  return static_cast<std::size_t>(room);
}

fs::path credentials_folder() {
  const char* folder = std::getenv("CREDENTIALS_DIRECTORY");  // NOLINT(concurrency-mt-unsafe): before any thread
  return folder ? folder : "";
}

}  // namespace

application::application(settings s)
    : settings_(std::move(s)), signals_(control_, SIGTERM, SIGINT, SIGHUP), manager_(control_.get_executor()) {}

application::~application() = default;

int application::run() {
  asio::co_spawn(control_, live(), [this](std::exception_ptr failure) {
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      spdlog::critical("{}", in_words(e));
      exit_code_ = 1;
    }
    signals_.cancel();
    manager_.stop_watchdog();
    if (left_behind_) control_.stop();  // it would wait for what hangs
  });
  control_.run();
  for (; !endings_.empty(); endings_.pop_back()) endings_.back()();
  if (left_behind_) {
    // A thread hangs in a call that nothing can end. All that was accepted is on disk.
    spdlog::shutdown();
    std::_Exit(exit_code_);
  }
  return exit_code_;
}

asio::awaitable<void> application::live() {
  std::exception_ptr failure;
  try {
    co_await start();
    co_await obey_signals();
  } catch (...) {
    failure = std::current_exception();
  }
  co_await stop();
  if (failure) std::rethrow_exception(failure);
}

asio::awaitable<void> application::start() {
  try {
    runtime::make_durable_folder(settings_.data);
  } catch (const fs::filesystem_error& e) {
    throw std::runtime_error("the data folder " + settings_.data.string() + " cannot be made: " + e.code().message());
  }
  std::error_code failure;
  const bool watched = settings_.pipelines.empty() || fs::is_directory(settings_.pipelines, failure);
  if (!watched) throw std::runtime_error("the folder of definitions " + settings_.pipelines.string() + " is not there, or is no folder");
  co_await lock_data_folder();
  const bool first_start = !fs::exists(settings_.data / "state.db");
  runtime::refuse_without_state(settings_.data);
  runtime::refuse_newer_formats(settings_.data);
  runtime::take_up_backup(settings_.data);
  keep_private(settings_.data);
  make_stores();
  spdlog::info("data folder {}{}", fs::absolute(settings_.data).string(), first_start ? ", a new one" : "");

  scheduler::supervisor_options options;
  options.data = fs::absolute(settings_.data);
  options.instance = store_->instance();
  options.drain_timeout = settings_.drain_timeout;
  options.commits = commits_;
  options.max_active_runs = settings_.max_active_runs;
  options.max_waiting_requests = static_cast<std::size_t>(settings_.max_waiting_requests);
  options.priority_ageing = settings_.priority_ageing;
  if (auto groups = runtime::cgroup_tree::of_this_process()) {
    options.cgroups = std::move(*groups);
  } else {
    spdlog::info("memory and processors of commands cannot be limited by control groups: {}", groups.error().detail);
  }
  options.max_log_bytes = settings_.max_log_bytes;
  options.keep_runs = settings_.keep_runs;
  options.keep_for = std::chrono::duration_cast<std::chrono::hours>(settings_.keep_runs_for);
  options.tokens = token_rule_of(settings_.auth);
  options.keep_audit = {.changes = settings_.keep_audit, .refusals = settings_.keep_audit / 10};
  const scheduler::executors where{control_.get_executor(), flows_pool_->executor(), batch_pool_->executor()};
  supervisor_ = std::make_unique<scheduler::supervisor>(where, *store_, *services_, components_, options);

  api::server_options limits;
  limits.connections = connection_limit(settings_.max_connections);
  limits.waiting_requests = static_cast<std::size_t>(settings_.max_waiting_requests);
  limits.event_body_bytes = static_cast<std::size_t>(settings_.max_body_bytes);
  api_ = std::make_unique<api::api>(control_.get_executor(), *supervisor_, *services_, components_, limits);
  const auto listening = listen();  // health is answered from here on, the rest when all is live

  started_ = true;
  co_await supervisor_->start(settings_.pipelines);
  if (!settings_.pipelines.empty()) co_await supervisor_->follow_folder(settings_.pipelines);
  api_->set_ready();
  publish_address(listening);
  std::string shown;
  for (const api::listen_address& one : listening) shown += (shown.empty() ? "" : ", ") + one.shown();
  spdlog::info("penstockd {} is ready, listening on {}", PENSTOCK_VERSION, shown);
  manager_.ready("listening on " + shown);
}

// Those of the settings, or those that systemd has made. Throws std::runtime_error naming the address or the file.
std::vector<api::listen_address> application::listen() {
  check_tokens(listen_addresses(settings_).value());
  std::vector<api::listen_address> all;
  if (!settings_.tls.certificate.empty()) api_->use_tls(api::make_tls_context(settings_.tls));
  if (!settings_.inherited.empty()) spdlog::info("systemd hands over {} sockets: 'listen' is not looked at", settings_.inherited.size());
  for (const inherited_socket& one : settings_.inherited) all.push_back(api_->inherit(one.fd, one.tls));
  for (const std::string& text : settings_.listen)
    all.push_back(api_->listen(api::parse_listen_address(text).value(), settings_.unix_socket));
  for (const api::listen_address& one : all) {
    if (!one.tls && !one.stays_here()) spdlog::warn("{} is not encrypted: whoever is on the way can read all that is sent, tokens, too", one.shown());
  }
  return all;
}

// New connections get the new certificate. What cannot be used changes nothing: then it is returned what is wrong.
std::string application::reload_tls() {
  if (settings_.tls.certificate.empty()) return {};
  try {
    api_->use_tls(api::make_tls_context(settings_.tls));
    return {};
  } catch (const std::exception& e) {
    return in_words(e) + "; the certificate that was in use stays";
  }
}

// Refuses to open the door to the network while nobody could be told from anybody, and says on the log who is asked.
void application::check_tokens(const std::vector<api::listen_address>& wanted) {
  const auto& tokens = supervisor_->tokens();
  const bool keeper = tokens.has_keeper(wall_now());
  bool reaches_beyond = false;
  for (const api::listen_address& where : wanted) {
    if (const auto fine = check_listening(settings_, where, keeper); !fine) throw std::runtime_error(fine.error().detail);
    reaches_beyond = reaches_beyond || !where.stays_here();
  }
  if (tokens.lost()) {
    spdlog::error("the state.db of {} knows no token, and requests needed one here before: it was emptied or replaced. {} Put the one "
                  "of a backup in its place, or make an admin token with 'penstock token create --data {}' while the daemon is down, or "
                  "remove {} if nobody is to be asked any more",
                  settings_.data.string(), tokens.asked() ? "The door stays shut." : "With auth: none nobody is asked.", settings_.data.string(),
                  (settings_.data / scheduler::token_book::mark_name).string());
  } else if (!tokens.asked()) {
    spdlog::info("nobody is asked for a token{}", reaches_beyond ? ", and other machines can reach this one" : "");
  } else if (!keeper) {
    spdlog::warn("every request needs a token, and no admin token is good: make one with 'penstock token create --data {}' while "
                 "the daemon is down", settings_.data.string());
  } else {
    spdlog::info("every request needs a token");
  }
}

// DATA/lock holds the process id of who has it. One that was killed a moment ago may still be ending.
asio::awaitable<void> application::lock_data_folder() {
  const auto file = settings_.data / "lock";
  const int fd = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) throw std::runtime_error("data folder " + settings_.data.string() + " cannot be written to");
  endings_.emplace_back([fd] { ::close(fd); });
  const auto give_up = std::chrono::steady_clock::now() + patience_with_lock;
  asio::steady_timer pause(control_);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() >= give_up) {
      throw std::runtime_error("another penstockd" + holder_of(fd) + " works in the data folder " + settings_.data.string());
    }
    pause.expires_after(std::chrono::milliseconds(20));
    co_await pause.async_wait(asio::use_awaitable);
  }
  const std::string mine = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, mine.data(), mine.size(), 0) < 0)
    spdlog::debug("the process id is not in {}: {}", file.string(), std::generic_category().message(errno));
  co_return;
}

// Executors first, then what runs on them; the endings close the stores before their threads.
void application::make_stores() {
  const auto made = [this](auto& pool, const char* name, std::size_t threads, worker_pool::priority p) {
    pool = std::make_unique<worker_pool>(name, threads, p);
    endings_.emplace_back([this, raw = pool.get()] {
      if (!left_behind_) raw->finish();
    });
  };
  using priority = worker_pool::priority;
  const bool first = settings_.realtime && go_first(control_rank);  // this thread, the control thread
  if (settings_.realtime && !first)
    spdlog::warn("realtime: the kernel refuses it ({}); the unit needs LimitRTPRIO={} and RestrictRealtime=no",
                 std::generic_category().message(errno), control_rank);
  made(store_thread_, "store", 1, first ? priority::control : priority::normal);
  made(writers_, "topic-writer", writer_threads, first ? priority::control : priority::normal);
  made(flows_pool_, "flow", static_cast<std::size_t>(settings_.flow_threads), first ? priority::live : priority::normal);
  made(batch_pool_, "batch", static_cast<std::size_t>(settings_.batch_threads), priority::low);
  blocking_ = std::make_unique<runtime::blocking_pool>(most_blocking_calls);

  topics_ = std::make_unique<runtime::topics>(settings_.data / "topics", writers_->executor(), commits_);
  endings_.emplace_back([this] { topics_->close(); });
  flow_store_ = std::make_unique<runtime::flow_store>(settings_.data / "flows.db", writers_->executor(), commits_);
  endings_.emplace_back([this] { flow_store_->close(); });
  webhooks_ = std::make_unique<runtime::webhooks>();
  subscribers_ = std::make_unique<runtime::subscribers>();
  const config::secret_sources secrets{settings_.secrets.empty() ? settings_.data / "secrets" : settings_.secrets,
                                       credentials_folder()};
  services_ = std::make_unique<runtime::services>(
      runtime::services{*topics_, *flow_store_, *webhooks_, *subscribers_, *blocking_, secrets});
  store_ = std::make_unique<scheduler::store>(settings_.data / "state.db", store_thread_->executor(), commits_);
  endings_.emplace_back([this] { store_->close(); });
}

// DATA/listen holds HOST:PORT while the daemon serves: scripts find a port that the system chose. It is the first that speaks
// plain HTTP; without one the first address as it is written in the settings.
void application::publish_address(const std::vector<api::listen_address>& listening) {
  const auto plain = std::find_if(listening.begin(), listening.end(), [](const auto& one) { return !one.tls && !one.is_unix(); });
  const auto file = settings_.data / "listen";
  const auto draft = settings_.data / "listen.new";
  std::ofstream(draft) << (plain != listening.end() ? plain->host_and_port() : listening.front().shown()) << "\n";
  fs::rename(draft, file);
  endings_.emplace_back([file] {
    std::error_code ignored;
    fs::remove(file, ignored);
  });
}

asio::awaitable<void> application::obey_signals() {
  for (;;) {
    const int signal = co_await signals_.async_wait(asio::use_awaitable);
    if (signal != SIGHUP) break;
    co_await reload();
  }
}

asio::awaitable<void> application::reload() {
  manager_.reloading();
  spdlog::info("reloading the definitions of {}{}; other settings are read at a start only",
               settings_.pipelines.empty() ? "no folder" : settings_.pipelines.string(), settings_.tls.certificate.empty() ? "" : " and the certificate");
  std::string wrong = reload_tls();
  if (!wrong.empty()) spdlog::error("reload: {}", wrong);
  try {
    if (!settings_.pipelines.empty()) co_await supervisor_->load_folder(settings_.pipelines);
  } catch (const std::exception& e) {
    spdlog::error("reload: {}", in_words(e));
    wrong += (wrong.empty() ? "" : "; ") + in_words(e);
  }
  supervisor_->audit().note({.who = "signal",
                             .target = settings_.pipelines.string(),
                             .outcome = wrong.empty() ? "done" : "failed",
                             .detail = "reload by SIGHUP" + (wrong.empty() ? "" : ": " + wrong)});
  manager_.ready("reloaded");
}

// Drains in order: no new requests that change something, then flows and runs, then the connections.
asio::awaitable<void> application::stop() {
  if (!supervisor_) co_return;  // the start failed before there was anything to stop
  manager_.stopping("draining");
  if (started_) spdlog::info("stopping: flows drain, runs get up to {}", format_duration(settings_.drain_timeout));
  signals_.remove(SIGHUP);
  signals_.async_wait([this](const boost::system::error_code& cancelled, int) {
    if (cancelled) return;
    spdlog::warn("told to stop a second time: leaving at once; what was accepted is on disk");
    runtime::kill_orphans(store_->instance());
    spdlog::shutdown();
    std::_Exit(1);
  });
  if (api_) api_->announce_stop();
  const auto report = co_await supervisor_->stop();
  for (const auto& sentence : report.forced) spdlog::warn("forced: {}", sentence);
  left_behind_ = report.hangs;
  if (report.hangs) {  // a flow that hangs may have programs of its own
    const int killed = runtime::kill_orphans(store_->instance());
    if (killed > 0) spdlog::warn("forced: {} processes were ended", killed);
  }
  if (api_) {
    const auto cut_off = co_await api_->stop(std::chrono::seconds(5));
    if (cut_off > 0) spdlog::warn("forced: {} connections were cut off", cut_off);
  }
  if (started_) spdlog::info("stopped");
}

}  // namespace penstock::daemon
