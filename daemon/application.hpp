// The daemon put together: every long-lived object, made in order, taken down in reverse.
//
// Made and run on the control thread (main's). run() returns the exit code. Making something registers its end; the end of
// the whole runs those ends last to first, so a half-made application ends the same way as a whole one.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/api.hpp"
#include "daemon/service_manager.hpp"
#include "daemon/settings.hpp"
#include "daemon/worker_pool.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/component.hpp"
#include "runtime/registry.hpp"
#include "runtime/topic.hpp"
#include "runtime/subscribers.hpp"
#include "runtime/webhooks.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::daemon {

class application {
 public:
  explicit application(settings s);
  ~application();

  // 0: stopped as asked; 1: it could not start or something broke. Says why on the log.
  int run();

 private:
  boost::asio::awaitable<void> live();
  boost::asio::awaitable<void> start();
  boost::asio::awaitable<void> stop();
  boost::asio::awaitable<void> obey_signals();
  boost::asio::awaitable<void> reload();
  boost::asio::awaitable<void> lock_data_folder();
  void make_stores();
  std::vector<api::listen_address> listen();
  std::string reload_tls();
  void publish_address(const std::vector<api::listen_address>& listening);
  void check_tokens(const std::vector<api::listen_address>& wanted);

  const settings settings_;
  boost::asio::io_context control_{1};
  boost::asio::signal_set signals_;
  service_manager manager_;
  std::vector<std::function<void()>> endings_;  // of what has been made, to be called last to first

  const std::shared_ptr<runtime::commit_pause> commits_ = std::make_shared<runtime::commit_pause>();  // of all stores
  std::unique_ptr<worker_pool> store_thread_, writers_, flows_pool_, batch_pool_;
  std::unique_ptr<runtime::blocking_pool> blocking_;
  std::unique_ptr<runtime::topics> topics_;
  std::unique_ptr<runtime::flow_store> flow_store_;
  std::unique_ptr<runtime::webhooks> webhooks_;
  std::unique_ptr<runtime::subscribers> subscribers_;
  std::unique_ptr<runtime::services> services_;
  const runtime::registry components_ = runtime::make_registry();
  std::unique_ptr<scheduler::store> store_;
  std::unique_ptr<scheduler::supervisor> supervisor_;
  std::unique_ptr<api::api> api_;
  int exit_code_ = 0;
  bool started_ = false;      // flows and jobs, at least in part
  bool left_behind_ = false;  // something hangs that no thread can be freed from
};

}  // namespace penstock::daemon
