// Is a supervised command ready? Asks until it is: by an HTTP request, a TCP connection or a program.
//
// Made by whoever started the command, used on one executor that runs one thing at a time. HTTP (also https) and TCP go
// through libcurl on the blocking pool, at most one thread for each check; a program is a command_run. A try takes
// `interval` at most; beyond that only a name lookup may hold its thread, and then no other try is made meanwhile. No
// proxy is used and no redirect followed. When a call returns nothing of it runs any more, but such a lookup.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "runtime/command_run.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

struct readiness_surroundings {
  const registry& components;
  services& offered;
  asio::any_io_executor strand;  // for the program of a `run` probe
  // How the command itself is started: the program of a `run` probe has its user, folder, environment and limits. It
  // has no input, its output goes to a log of its own beside (NAME.ready.log), and PENSTOCK_TASK is "ready" for it.
  std::function<command_options()> command;
};

class readiness_check {
 public:
  readiness_check(asio::any_io_executor executor, config::readiness_probe probe, readiness_surroundings around);
  ~readiness_check();  // stops
  readiness_check(const readiness_check&) = delete;
  readiness_check& operator=(const readiness_check&) = delete;

  // One call at a time, awaited on the executor. None of them throws for what the other side does.

  // Empty: it is ready. Else why not: "connection refused", "HTTP 503", "exit code 1", "no answer within 1s".
  asio::awaitable<std::string> probe_once();
  // Tries at once, then every `interval`. False: not ready within `timeout`, or stopped; failure() says which.
  asio::awaitable<bool> until_ready();

  // On the executor: what is awaited comes to its end now, and all later calls at once.
  void stop();
  // What the last try said; "stopped" after stop().
  const std::string& failure() const;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::runtime
