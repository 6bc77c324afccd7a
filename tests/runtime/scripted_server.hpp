// An HTTP server for tests of components that are clients: it does as it is told and remembers what it was asked.
#pragma once

#include <arpa/inet.h>
#include <atomic>
#include <mutex>
#include <netinet/in.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace penstock::testing {

// A server that answers what it was told to, one connection after another, and keeps what it got. An answer is
// "STATUS", "STATUS\r\nHeader: value" or one of them with "\n\nBODY" behind; "hang up"; "silence" (until the end). When they
// are used up: 204.
class scripted_server {
 public:
  explicit scripted_server(std::vector<std::string> answers) : answers_(std::move(answers)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 8) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("cannot listen");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~scripted_server() {
    ::shutdown(listener_, SHUT_RDWR);
    if (connection_ >= 0) ::shutdown(connection_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }

  std::string url(const std::string& path = "/in") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    while (true) {
      const int accepted = ::accept(listener_, nullptr, nullptr);
      if (accepted < 0) return;
      connection_ = accepted;
      while (answer_one(accepted)) {
      }
      connection_ = -1;
      ::close(accepted);
    }
  }

  bool answer_one(int connection) {
    std::string request;
    std::size_t whole = std::string::npos;
    while (request.size() < whole) {
      char bytes[4096];
      const ssize_t got = ::recv(connection, bytes, sizeof bytes, 0);
      if (got <= 0) return false;
      request.append(bytes, static_cast<std::size_t>(got));
      const std::size_t end = request.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      const std::size_t length = request.find("Content-Length: ");
      whole = end + 4 + (length < end ? std::stoul(request.substr(length + 16)) : 0);
    }
    std::string answer = "204 No Content";
    {
      const std::lock_guard lock(mutex_);
      if (requests_.size() < answers_.size()) answer = answers_[requests_.size()];
      requests_.push_back(request);
    }
    if (answer == "hang up") return false;
    if (answer == "silence") return ::recv(connection, &request[0], 1, 0) > 0;
    const std::size_t split = answer.find("\n\n");
    const std::string plain = answer.starts_with("204") || answer.starts_with("304") ? "" : "because";
    const std::string body = split == answer.npos ? plain : answer.substr(split + 2);
    const std::string text = "HTTP/1.1 " + answer.substr(0, split) +
                             "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    return ::send(connection, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }

  std::vector<std::string> answers_;
  int listener_ = -1;
  std::atomic<int> connection_{-1};
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

}  // namespace penstock::testing
