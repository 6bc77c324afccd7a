// A penstockd under measurement: its own process, with a data folder of its own, stopped and waited for at the end. And the
// little that all measurements of it need. Used by one thread, except where it says otherwise.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/api/http_client.hpp"

namespace penstock::testing {

inline std::int64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

// The value below which `part` (0 to 1) of the values lie; the nearest one that was seen.
inline double quantile(std::vector<double> values, double part) {
  if (values.empty()) throw std::logic_error("nothing was measured");
  const auto last = static_cast<double>(values.size() - 1);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(part * last + 0.5);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// Programs lie beside the benchmark, unless it is told another folder.
inline std::filesystem::path own_folder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path(); }

inline pid_t spawn(const std::vector<std::string>& arguments, const std::string& output = {}) {
  std::vector<char*> pointers;
  for (const auto& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  if (!output.empty()) {
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  }
  pid_t pid = 0;
  const int failure = ::posix_spawn(&pid, pointers[0], output.empty() ? nullptr : &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) throw std::runtime_error("cannot start " + arguments[0]);
  return pid;
}

// `body` as a request that keeps its connection.
inline std::string http_request(const std::string& method, const std::string& path, const std::string& body = {},
                                const std::string& type = "application/json") {
  return method + " " + path + " HTTP/1.1\r\nHost: bench\r\nContent-Type: " + type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

class measured_daemon {
 public:
  // `settings` and `pipeline` are YAML; the pipeline's name is `bench`. Ready when this returns.
  measured_daemon(const std::filesystem::path& program, std::filesystem::path folder, const std::string& settings,
                  const std::string& pipeline)
      : folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "settings.yaml") << settings;
    pid_ = spawn({program, "--config", folder_ / "settings.yaml", "--data", folder_ / "data", "--listen", "127.0.0.1:0"},
                 folder_ / "log");
    try {
      await_port();
      client connection = connect();
      while (connection.call(http_request("GET", "/readyz")).status != 200) pause();
      expect(connection.call(http_request("PUT", "/v1/pipelines/bench", pipeline, "application/yaml")), 201);
    } catch (...) {
      stop();
      throw;
    }
  }
  ~measured_daemon() { stop(); }
  measured_daemon(const measured_daemon&) = delete;
  measured_daemon& operator=(const measured_daemon&) = delete;

  // Any thread.
  client connect() const { return client(port_); }

  // Any thread. The answer's body, of which the status must be `status`.
  static nlohmann::json expect(const reply& answer, int status) {
    if (answer.status != status) {
      throw std::runtime_error(answer.status == 0 ? "penstockd did not answer"
                                                  : "penstockd answered " + answer.head + answer.body);
    }
    return nlohmann::json::parse(answer.body);
  }

  // CPU time of its own threads so far, in seconds.
  double cpu_seconds() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0, system = 0;
    fields >> user >> system;
    return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

  // Between two looks at something that the daemon does.
  static void pause(std::int64_t ms = 2) { ::poll(nullptr, 0, static_cast<int>(ms)); }

 private:
  void await_port() {
    for (int tries = 0; tries < 10'000; ++tries) {
      std::string where;
      std::ifstream(folder_ / "data" / "listen") >> where;
      if (const auto colon = where.rfind(':'); colon != where.npos && colon + 1 < where.size()) {
        port_ = static_cast<std::uint16_t>(std::stoi(where.substr(colon + 1)));
        return;
      }
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
        pid_ = 0;
        break;
      }
      pause();
    }
    throw std::runtime_error("penstockd did not start; see " + (folder_ / "log").string());
  }

  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }

  std::filesystem::path folder_;
  pid_t pid_ = 0;
  std::uint16_t port_ = 0;
};

}  // namespace penstock::testing
