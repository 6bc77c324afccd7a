// Sends one request again and again to a server on 127.0.0.1, over connections that are kept, and says what came back.
//
// Closed loop (no --rate): each connection sends its next request when the last one is answered: how many a second there can be.
// Open loop (--rate N): requests are due at fixed times, whether earlier ones were answered or not; one that is due while all
// connections wait for an answer waits for the first that gets free. Latency counts from when a request was due, so a server
// that stalls is charged for everyone who would have come meanwhile (no coordinated omission). With --when-busy drop such a
// request is not sent and counted as `unsent`, as a client does that has a bounded pool of connections and will not wait: then
// what waits is what the server has taken, no more than one request a connection.
//
// One thread. What was begun in the warm-up is not counted. Ends a second after the time is over even if answers are missing:
// those are `unanswered`, and so are requests that waited for a connection in vain. Only loopback.
//
// Usage: bench_load --port N [--method POST] [--path /] [--type application/json] [--body TEXT | --body-file FILE]
//                   [--connections 64] [--rate N [--when-busy wait|drop]] [--seconds 2] [--warm-up 0.5]
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include "tests/bench/figures.hpp"

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using clock_type = std::chrono::steady_clock;
using moment = clock_type::time_point;

struct options {
  std::uint16_t port = 0;
  std::string method = "POST", path = "/", type = "application/json", body;
  int connections = 64;
  double rate = 0, seconds = 2, warm_up = 0.5;
  bool drop = false;
};

clock_type::duration duration(double seconds) {
  return std::chrono::duration_cast<clock_type::duration>(std::chrono::duration<double>(seconds));
}

// What was counted, of requests that were due after the warm-up.
struct tally {
  std::int64_t due = 0, unsent = 0;
  std::map<int, std::int64_t> answers;  // by status
  std::vector<double> latencies;        // microseconds, of those with a status below 400
  std::vector<double> refused;          // of the others
};

class load;

// One kept connection. Owned by `load`; asks it for the next request when it is free.
class connection {
 public:
  connection(asio::io_context& context, load& owner) : socket_(context), owner_(owner) {}
  void open(std::uint16_t port);
  void send(moment due);

 private:
  void read();
  bool take_answer();
  void broken(const error_code& failure);

  tcp::socket socket_;
  load& owner_;
  moment due_{};
  std::string unread_;
  std::array<char, 16384> bytes_{};
};

class load {
 public:
  explicit load(const options& chosen) : chosen_(chosen), timer_(context_), end_(context_) {
    request_ = chosen.method + " " + chosen.path + " HTTP/1.1\r\nHost: bench\r\nContent-Type: " + chosen.type +
               "\r\nContent-Length: " + std::to_string(chosen.body.size()) + "\r\n\r\n" + chosen.body;
    for (int i = 0; i < chosen.connections; ++i) {
      connections_.push_back(std::make_unique<connection>(context_, *this));
      connections_.back()->open(chosen.port);
    }
  }

  void run() {
    begin_ = clock_type::now();
    counted_from_ = begin_ + duration(chosen_.warm_up);
    until_ = counted_from_ + duration(chosen_.seconds);
    if (chosen_.rate > 0) interval_ = duration(1 / chosen_.rate);
    for (auto& one : connections_) idle_.push_back(one.get());
    if (chosen_.rate > 0) {
      next_due_ = begin_;
      tick();
    } else {
      for (auto* one : std::exchange(idle_, {})) free(*one);
    }
    end_.expires_at(until_ + std::chrono::seconds(chosen_.rate > 0 ? 1 : 5));
    end_.async_wait([this](const error_code& stopped) {
      if (!stopped) context_.stop();
    });
    context_.run();
  }

  const std::string& request() const { return request_; }
  const tally& seen() const { return seen_; }
  std::int64_t broken_connections() const { return broken_; }

  void answered(int status, moment due) {
    if (due < counted_from_ || due >= until_) return;
    const auto now = clock_type::now();
    if (chosen_.rate <= 0 && now >= until_) return;  // a closed loop counts what is over in its time
    ++seen_.answers[status];
    (status < 400 ? seen_.latencies : seen_.refused)
        .push_back(std::chrono::duration<double, std::micro>(now - due).count());
  }

  void free(connection& one) {
    if (chosen_.rate <= 0) {
      const auto now = clock_type::now();
      if (now < until_) return one.send(now);
    } else if (!waiting_.empty()) {
      one.send(waiting_.front());
      waiting_.pop_front();
      return;
    }
    idle_.push_back(&one);
    stop_if_done();
  }

  void lost() {
    ++broken_;
    stop_if_done();
  }

 private:
  // Nothing is due any more, and every connection is idle or lost.
  void stop_if_done() {
    const bool all_due = chosen_.rate <= 0 || next_due_ >= until_;
    if (all_due && std::ssize(idle_) + broken_ == std::ssize(connections_)) context_.stop();
  }

  // Everything that is due by now goes to a free connection, or waits for one.
  void tick() {
    const auto now = clock_type::now();
    for (; next_due_ <= now && next_due_ < until_; next_due_ += interval_) {
      const bool counted = next_due_ >= counted_from_;
      if (counted) ++seen_.due;
      if (idle_.empty() && chosen_.drop) {
        if (counted) ++seen_.unsent;
      } else if (idle_.empty()) {
        waiting_.push_back(next_due_);
      } else {
        auto* one = idle_.back();
        idle_.pop_back();
        one->send(next_due_);
      }
    }
    if (next_due_ >= until_) return stop_if_done();
    timer_.expires_at(next_due_);
    timer_.async_wait([this](const error_code& stopped) {
      if (!stopped) tick();
    });
  }

  const options chosen_;
  asio::io_context context_{1};
  asio::steady_timer timer_, end_;
  std::string request_;
  std::vector<std::unique_ptr<connection>> connections_;
  std::vector<connection*> idle_;
  std::deque<moment> waiting_;
  moment begin_{}, counted_from_{}, until_{}, next_due_{};
  clock_type::duration interval_{};
  tally seen_;
  std::int64_t broken_ = 0;
};

void connection::open(std::uint16_t port) {
  socket_.connect({asio::ip::address_v4::loopback(), port});
  socket_.set_option(tcp::no_delay(true));
}

void connection::send(moment due) {
  due_ = due;
  asio::async_write(socket_, asio::buffer(owner_.request()), [this](const error_code& failure, std::size_t) {
    if (failure) return broken(failure);
    read();
  });
}

void connection::read() {
  socket_.async_read_some(asio::buffer(bytes_), [this](const error_code& failure, std::size_t size) {
    if (failure) return broken(failure);
    unread_.append(bytes_.data(), size);
    if (take_answer()) return owner_.free(*this);
    read();
  });
}

// True when a whole answer was there.
bool connection::take_answer() {
  const auto head_end = unread_.find("\r\n\r\n");
  if (head_end == unread_.npos) return false;
  std::size_t length = 0;
  if (const auto at = unread_.find("Content-Length: "); at < head_end)
    std::from_chars(unread_.data() + at + 16, unread_.data() + head_end, length);
  if (unread_.size() < head_end + 4 + length) return false;
  int status = 0;
  std::from_chars(unread_.data() + 9, unread_.data() + 12, status);
  unread_.erase(0, head_end + 4 + length);
  owner_.answered(status, due_);
  return true;
}

void connection::broken(const error_code&) { owner_.lost(); }

double quantile(std::vector<double>& values, double part) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

void print(const options& chosen, tally seen, std::int64_t broken) {
  using penstock::testing::print_line;
  std::int64_t good = 0, bad = 0;
  for (const auto& [status, count] : seen.answers) {
    (status < 400 ? good : bad) += count;
    print_line("status_" + std::to_string(status), static_cast<double>(count), "requests");
  }
  print_line("accepted", static_cast<double>(good) / chosen.seconds, "requests/s");
  print_line("refused", static_cast<double>(bad) / chosen.seconds, "requests/s");
  if (chosen.rate > 0) print_line("unanswered", static_cast<double>(seen.due - seen.unsent - good - bad), "requests");
  if (chosen.drop) print_line("unsent", static_cast<double>(seen.unsent), "requests");
  print_line("broken", static_cast<double>(broken), "connections");
  for (auto* values : {&seen.latencies, &seen.refused}) {
    if (values->empty()) continue;
    const std::string prefix = values == &seen.latencies ? "" : "refused_";
    for (const auto& [name, part] : {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"most", 1.0}})
      print_line(prefix + name, quantile(*values, part), "us");
  }
}

std::string content_of(const char* file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::runtime_error(std::string("cannot read ") + file);
  return {std::istreambuf_iterator<char>(in), {}};
}

double number(const std::string& option, const char* text) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end != '\0') throw std::runtime_error(option + " wants a number");
  return value;
}

options read_options(int argc, char** argv) {
  options chosen;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string word = argv[i];
    const char* value = argv[i + 1];
    if (word == "--port") {
      chosen.port = static_cast<std::uint16_t>(std::atoi(value));
    } else if (word == "--method") {
      chosen.method = value;
    } else if (word == "--path") {
      chosen.path = value;
    } else if (word == "--type") {
      chosen.type = value;
    } else if (word == "--body") {
      chosen.body = value;
    } else if (word == "--body-file") {
      chosen.body = content_of(value);
    } else if (word == "--connections") {
      chosen.connections = static_cast<int>(std::clamp(number(word, value), 1.0, 1000.0));
    } else if (word == "--rate") {
      chosen.rate = std::clamp(number(word, value), 0.0, 1e6);
    } else if (word == "--when-busy") {
      chosen.drop = value == std::string("drop");
      if (!chosen.drop && value != std::string("wait")) throw std::runtime_error("--when-busy is wait or drop");
    } else if (word == "--seconds") {
      chosen.seconds = std::clamp(number(word, value), 0.01, 60.0);
    } else if (word == "--warm-up") {
      chosen.warm_up = std::clamp(number(word, value), 0.0, 10.0);
    } else {
      throw std::runtime_error("unknown option " + word);
    }
  }
  if (argc % 2 == 0 || chosen.port == 0) throw std::runtime_error("options come in pairs, and --port is needed");
  return chosen;
}

}  // namespace

int main(int argc, char** argv) try {
  const options chosen = read_options(argc, argv);
  load all(chosen);
  all.run();
  print(chosen, all.seen(), all.broken_connections());
  return 0;
} catch (const std::exception& e) {
  std::cerr << "bench_load: " << e.what() << "\n";
  return 1;
}
