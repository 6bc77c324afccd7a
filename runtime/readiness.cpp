#include "runtime/readiness.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <mutex>
#include <new>
#include <system_error>
#include <utility>

#include "config/time.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/libcurl.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

namespace {

using clock = std::chrono::steady_clock;

constexpr auto longest_look = std::chrono::milliseconds{10'000};  // of curl_multi_poll; a stop wakes it at once
constexpr std::int64_t probe_log_bytes = 1 << 20;

// In the middle of a sentence: "Connection refused" -> "connection refused", but "SSL connect error".
std::string in_sentence(std::string text) {
  if (text.size() > 1 && !std::isupper(static_cast<unsigned char>(text[1]))) {
    text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  }
  return text;
}

struct multi_cleanup {
  void operator()(CURLM* handle) const { curl().multi_cleanup(handle); }
};
struct easy_cleanup {
  void operator()(CURL* handle) const { curl().easy_cleanup(handle); }
};

// One request or connection: run() on a thread that may block (to load libcurl, too), everything else on the check's
// executor. Held by both, because the check may give up first.
class network_try {
 public:
  network_try(std::string url, bool only_connect, std::shared_ptr<wakeup> ended)
      : url_(std::move(url)), only_connect_(only_connect), ended_(std::move(ended)) {}

  void run() noexcept {
    try {
      outcome_ = given_up_ ? "stopped" : perform();
    } catch (const std::exception& e) {
      outcome_ = e.what();
    }
    const std::lock_guard lock(mutex_);
    finished_ = true;
    if (ended_) ended_->notify();
  }

  // From here on nobody is told, and run() returns as soon as it can.
  void give_up() {
    given_up_ = true;
    const std::lock_guard lock(mutex_);
    if (multi_) curl().multi_wakeup(multi_.get());
    ended_.reset();
  }

  bool finished() const {
    const std::lock_guard lock(mutex_);
    return finished_;
  }
  const std::string& outcome() const { return outcome_; }  // once finished

 private:
  std::string perform() {
    std::unique_ptr<CURLM, multi_cleanup> made(curl().multi_init());
    if (!made) throw std::bad_alloc();
    {
      const std::lock_guard lock(mutex_);
      multi_ = std::move(made);
    }
    const std::unique_ptr<CURL, easy_cleanup> easy(curl().easy_init());
    if (!easy) throw std::bad_alloc();
    CURL* const h = easy.get();
    curl().easy_setopt(h, CURLOPT_URL, url_.c_str());
    curl().easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl().easy_setopt(h, CURLOPT_PROXY, "");
    curl().easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl().easy_setopt(h, CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
    curl().easy_setopt(h, CURLOPT_CONNECT_ONLY, only_connect_ ? 1L : 0L);
    curl().easy_setopt(h, CURLOPT_HEADERFUNCTION, &network_try::take_header);
    curl().easy_setopt(h, CURLOPT_HEADERDATA, this);
    curl().easy_setopt(h, CURLOPT_WRITEFUNCTION, &network_try::take_body);
    easy_ = h;
    if (curl().multi_add_handle(multi_.get(), h) != CURLM_OK) return "libcurl cannot be used";
    const CURLcode code = transfer();
    curl().multi_remove_handle(multi_.get(), h);
    return judge(code);
  }

  CURLcode transfer() {
    int running = 1;
    while (!given_up_) {
      if (curl().multi_perform(multi_.get(), &running) != CURLM_OK) return CURLE_FAILED_INIT;
      if (running == 0) break;
      curl().multi_poll(multi_.get(), nullptr, 0, static_cast<int>(longest_look.count()), nullptr);
    }
    int left = 0;
    const CURLMsg* const message = curl().multi_info_read(multi_.get(), &left);
    return message ? message->data.result : CURLE_ABORTED_BY_CALLBACK;
  }

  std::string judge(CURLcode code) const {
    if (status_ >= 200 && status_ < 400) return {};
    if (status_ != 0) return "HTTP " + std::to_string(status_);
    if (code == CURLE_OK && only_connect_) return {};
    long number = 0;
    curl().easy_getinfo(easy_, CURLINFO_OS_ERRNO, &number);
    if (code == CURLE_COULDNT_CONNECT && number != 0) {
      return in_sentence(std::generic_category().message(static_cast<int>(number)));
    }
    return in_sentence(curl().easy_strerror(code));
  }

  // The answer's head is all that counts; its body may never end.
  static std::size_t take_header(char* line, std::size_t, std::size_t size, void* self) {
    auto& t = *static_cast<network_try*>(self);
    long status = 0;
    curl().easy_getinfo(t.easy_, CURLINFO_RESPONSE_CODE, &status);
    const bool blank = size > 0 && (line[0] == '\r' || line[0] == '\n');
    if (!blank || status < 200) return size;
    t.status_ = status;
    return 0;  // ends the transfer
  }
  static std::size_t take_body(char*, std::size_t, std::size_t, void*) { return 0; }

  const std::string url_;
  const bool only_connect_;
  std::unique_ptr<CURLM, multi_cleanup> multi_;  // from perform() on; set under the mutex
  CURL* easy_ = nullptr;  // while perform() runs
  long status_ = 0;
  std::string outcome_;
  std::atomic<bool> given_up_{false};
  mutable std::mutex mutex_;
  bool finished_ = false;
  std::shared_ptr<wakeup> ended_;  // null: nobody listens any more
};

}  // namespace

struct readiness_check::state {
  state(asio::any_io_executor e, config::readiness_probe p, readiness_surroundings a)
      : executor(std::move(e)), probe(std::move(p)), around(std::move(a)), woken(std::make_shared<wakeup>(executor)) {}

  static asio::awaitable<std::string> one_try(std::shared_ptr<state> s);
  static asio::awaitable<std::string> ask_network(std::shared_ptr<state> s, std::string url, bool only_connect);
  static asio::awaitable<std::string> ask_program(std::shared_ptr<state> s);
  static asio::awaitable<bool> until_ready(std::shared_ptr<state> s);
  command_options program() const;
  std::string no_answer() const { return "no answer within " + format_duration(probe.interval); }

  const asio::any_io_executor executor;
  const config::readiness_probe probe;
  const readiness_surroundings around;
  const std::shared_ptr<wakeup> woken;   // the end of a try, a stop
  std::shared_ptr<network_try> network;  // the last one; it may hang in a name lookup
  std::shared_ptr<command_run> command;  // while it runs
  bool stopped = false;
  std::string failure;
};

asio::awaitable<std::string> readiness_check::state::ask_network(std::shared_ptr<state> s, std::string url,
                                                                 bool only_connect) {
  if (s->network && !s->network->finished()) co_return s->no_answer();
  const auto asked = std::make_shared<network_try>(std::move(url), only_connect, s->woken);
  s->network = asked;
  // Also when this coroutine is destroyed with its executor.
  struct giving_up {
    network_try& asked;
    ~giving_up() { asked.give_up(); }
  } const at_the_end{*asked};
  s->around.offered.blocking.submit([asked] { asked->run(); });
  const auto deadline = clock::now() + s->probe.interval;
  while (!asked->finished() && !s->stopped) {
    const bool in_time = co_await s->woken->wait_until(deadline);
    if (!in_time) co_return s->no_answer();
  }
  co_return asked->finished() ? asked->outcome() : std::string();
}

command_options readiness_check::state::program() const {
  command_options options = around.command();
  options.definition.run = probe.run;
  options.definition.to.reset();
  options.consumer += "/ready";
  // By this its processes are told from those of the command, which has the same flow.
  options.environment["PENSTOCK_TASK"] = "ready";
  options.log.replace_filename(options.log.stem().string() + ".ready" + options.log.extension().string());
  options.log_limit_bytes = std::min(options.log_limit_bytes, probe_log_bytes);
  options.input.reset();
  options.continuous = false;
  options.collects_output = false;
  options.timeout = probe.interval;
  options.grace = {};  // it has had its time
  return options;
}

asio::awaitable<std::string> readiness_check::state::ask_program(std::shared_ptr<state> s) {
  s->command =
      std::make_shared<command_run>(s->around.strand, s->around.components, s->around.offered, s->program());
  const auto running = s->command;
  const command_outcome outcome = co_await running->run();
  s->command.reset();
  if (outcome.end == command_end::timed_out) co_return s->no_answer();
  if (outcome.ok()) co_return std::string();
  co_return outcome.reason.empty() ? "it failed" : outcome.reason;
}

asio::awaitable<std::string> readiness_check::state::one_try(std::shared_ptr<state> s) {
  if (!s->stopped) {
    try {
      if (!s->probe.http.empty()) {
        s->failure = co_await ask_network(s, s->probe.http, false);
      } else if (!s->probe.tcp.empty()) {
        s->failure = co_await ask_network(s, "http://" + s->probe.tcp, true);
      } else {
        s->failure = co_await ask_program(s);
      }
    } catch (const std::exception& e) {  // no thread, no memory, no descriptor
      s->failure = e.what();
    }
  }
  if (s->stopped) s->failure = "stopped";
  co_return s->failure;
}

asio::awaitable<bool> readiness_check::state::until_ready(std::shared_ptr<state> s) {
  const auto deadline = clock::now() + s->probe.timeout;
  for (;;) {
    const auto next = std::min(clock::now() + s->probe.interval, deadline);
    const std::string why_not = co_await one_try(s);
    if (why_not.empty()) co_return true;
    // A notification may be left over from the try.
    while (!s->stopped && clock::now() < next) co_await s->woken->wait_until(next);
    if (s->stopped) s->failure = "stopped";
    if (s->stopped || clock::now() >= deadline) co_return false;
  }
}

readiness_check::readiness_check(asio::any_io_executor executor, config::readiness_probe probe,
                                 readiness_surroundings around)
    : state_(std::make_shared<state>(std::move(executor), std::move(probe), std::move(around))) {}

readiness_check::~readiness_check() { stop(); }

asio::awaitable<std::string> readiness_check::probe_once() { return state::one_try(state_); }

asio::awaitable<bool> readiness_check::until_ready() { return state::until_ready(state_); }

void readiness_check::stop() {
  state_->stopped = true;
  if (state_->command) state_->command->cancel();
  state_->woken->notify();
}

const std::string& readiness_check::failure() const { return state_->failure; }

}  // namespace penstock::runtime
