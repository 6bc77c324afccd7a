// The daemon around a command_run, for its tests: real programs (mostly /bin/sh), real pipes, and a look at the machine
// afterwards: after each test no child of this process may exist. Waiting is for states only: a program says through
// a FIFO where it is.
#pragma once

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <mutex>
#include <signal.h>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/command_run.hpp"
#include "runtime/topic.hpp"
#include "runtime/wakeup.hpp"
#include "runtime/subscribers.hpp"
#include "runtime/webhooks.hpp"
#include "tests/temp_dir.hpp"

namespace penstock::testing {

using namespace penstock::runtime;
using namespace std::chrono_literals;

// What the test's sink has taken, and how it should behave.
struct sink_record {
  std::mutex mutex;
  std::vector<std::string> ids, payloads;
  std::vector<std::int64_t> positions;
  std::string opened_with = "never";
  bool closed = false;
  std::string fail_at;  // a payload that makes it fail
  std::string refuse;   // a payload that it refuses
};

class recording_sink : public sink {
 public:
  explicit recording_sink(sink_record& record) : record_(record) {}
  asio::awaitable<void> open(const std::string& checkpoint) override {
    record_.opened_with = checkpoint;
    co_return;
  }
  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    std::lock_guard lock(record_.mutex);
    for (const event& e : events->events)
      if (e.data == record_.fail_at) throw std::runtime_error("the other side is down");
    write_result written;
    for (std::size_t i = 0; i < events->size(); ++i) {
      const event& e = events->events[i];
      if (!record_.refuse.empty() && e.data == record_.refuse) {
        written.refused.push_back({i, "not wanted"});
        continue;
      }
      record_.ids.emplace_back(e.id);
      record_.payloads.emplace_back(e.data);
      record_.positions.push_back(e.position);
    }
    written.checkpoint = "after " + std::to_string(record_.payloads.size());
    co_return written;
  }
  asio::awaitable<void> close() override {
    record_.closed = true;
    co_return;
  }

 private:
  sink_record& record_;
};

// `count` events of `bytes` each; then the end, or (endless) it waits until it is stopped.
class made_source : public source {
 public:
  struct record {
    std::int64_t acknowledged = 0;
    bool opened = false;
    std::promise<void> stopped;
    bool stopped_already = false;
  };
  made_source(record& r, const asio::any_io_executor& strand, std::int64_t count, std::size_t bytes)
      : record_(r), count_(count), payload_(bytes - 2, 'x'), wakeup_(std::make_shared<wakeup>(strand)) {
    payload_ = '"' + payload_ + '"';
  }
  made_source& endless() {
    endless_ = true;
    return *this;
  }
  made_source& failing() {
    failing_ = true;
    return *this;
  }

  asio::awaitable<void> open(std::int64_t) override {
    record_.opened = true;
    co_return;
  }
  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    if (next_ > count_ && failing_) throw std::runtime_error("the topic is gone");
    while (next_ > count_ && endless_ && !record_.stopped_already) co_await wakeup_->wait();
    if (next_ > count_ || record_.stopped_already) co_return std::nullopt;
    batch made;
    for (std::size_t i = 0; i < most && next_ <= count_; ++i, ++next_) {
      event e;
      e.id = made.keep(std::to_string(next_));
      e.data = made.keep(payload_);
      e.position = next_;
      made.events.push_back(e);
    }
    co_return made;
  }
  void acknowledge(std::int64_t position) override { record_.acknowledged = position; }
  void stop_input() override {
    if (!std::exchange(record_.stopped_already, true)) record_.stopped.set_value();
    wakeup_->notify();
  }

 private:
  record& record_;
  std::int64_t count_, next_ = 1;
  std::string payload_;
  std::shared_ptr<wakeup> wakeup_;
  bool endless_ = false, failing_ = false;
};

// A FIFO: the test reads what a program wrote into it, and the other way round.
class fifo {
 public:
  explicit fifo(std::filesystem::path path) : path_(std::move(path)) {
    REQUIRE(::mkfifo(path_.c_str(), 0600) == 0);
  }
  std::string path() const { return path_.string(); }
  std::string read_line() const {
    std::ifstream in(path_);
    std::string line;
    std::getline(in, line);
    return line;
  }
  void let_go() const { std::ofstream(path_) << "go\n"; }

 private:
  std::filesystem::path path_;
};

inline bool no_children() { return ::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD; }

inline std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The daemon around a run.
class world {
 public:
  world()
      : topics_(dir / "topics", asio::make_strand(pool_)),
        flows_(dir / "flows.db", asio::make_strand(pool_)) {
    adopt_orphans();
    ::signal(SIGPIPE, SIG_IGN);
    std::filesystem::create_directories(dir / "work");
    config::component_spec spec;
    spec.kind = config::component_kind::sink;
    spec.name = "recording";
    components.add(std::move(spec),
                   registry::make_sink([this](const config::value&, const component_context&) {
                     return std::make_unique<recording_sink>(sunk);
                   }));
  }
  ~world() {
    CHECK(no_children());
    flows_.close();
    topics_.close();
    pool_.join();
  }

  command_options sh(const std::string& script) {
    command_options options;
    options.definition.run = {"/bin/sh", "-c", script};
    options.pipeline = "p";
    options.consumer = "p/run/R/main";
    options.workdir = dir / "work";
    options.environment = {{"PATH", "/usr/local/bin:/usr/bin:/bin"}};
    options.log = dir / "logs" / "R" / "main.log";
    options.grace = 10s;
    return options;
  }
  command_options sh_to_sink(const std::string& script) {
    auto options = sh(script);
    options.definition.to = config::component_use{"recording", "to", {}};
    return options;
  }
  // A strand for a run and its source.
  asio::any_io_executor strand() { return asio::make_strand(pool_); }
  std::shared_ptr<command_run> make(command_options options, asio::any_io_executor on = {}) {
    return std::make_shared<command_run>(on ? on : strand(), components, offered, std::move(options));
  }
  std::future<command_outcome> start(command_run& run) {
    return asio::co_spawn(pool_, run.run(), asio::use_future);
  }
  command_outcome run(command_options options, asio::any_io_executor on = {}) {
    auto made = make(std::move(options), on);
    return start(*made).get();
  }
  std::string log(const std::string& task = "main") { return read_file(dir / "logs" / "R" / (task + ".log")); }

  temp_dir dir;
  registry components;
  sink_record sunk;

 private:
  asio::thread_pool pool_{2};
  runtime::topics topics_;
  webhooks webhooks_;
  subscribers subscribers_;
  blocking_pool blocking_{2};

 public:
  flow_store flows_;
  services offered{topics_, flows_, webhooks_, subscribers_, blocking_, {}};
};

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
inline bool group_is_gone(const std::string& pid) { return ::kill(-std::stoi(pid), 0) == -1 && errno == ESRCH; }

inline std::string write_file(const std::filesystem::path& file, const std::string& text, mode_t mode) {
  std::ofstream(file) << text;
  ::chmod(file.c_str(), mode);
  return file.string();
}

}  // namespace penstock::testing
