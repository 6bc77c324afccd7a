// A long-lived program that answers lines: for each line on its stdin it prints one line on its stdout, in their order.
// Or one that only speaks (hear) or only listens (tell); each program is used in one of the three ways.
//
// Lives on one strand, owned by one component; every call is made there, one at a time. A program is started by start()
// and is a group of its own; end() ends it (end of input, then SIGTERM and SIGCONT, then SIGKILL, to the group), and
// nothing of its group is left afterwards. It costs nothing while it is not asked. What it writes to stderr goes to the
// log; the last line of that is kept for messages.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

namespace penstock::runtime {

namespace asio = boost::asio;

struct line_program_options {
  std::string name;                                // of who asks, in the daemon's log
  std::vector<std::string> run;                    // the program and its arguments
  std::map<std::string, std::string> environment;  // all of it
  std::filesystem::path folder;                    // where it starts
  std::filesystem::path log;                       // for its stderr; empty: the daemon's log
  std::chrono::nanoseconds timeout{};              // for one answer
  std::chrono::nanoseconds start_timeout{};        // for the first answer after a start, when that is longer
  std::chrono::nanoseconds grace{};                // between end of input, SIGTERM and SIGKILL
  std::size_t in_flight = 100;                     // lines that wait for their answers at most
  std::size_t most_answer_bytes = 1 << 20;
  bool output_to_log = false;  // its stdout goes where its stderr goes: for tell()
};

class line_program {
 public:
  line_program(asio::any_io_executor strand, line_program_options options);
  ~line_program();  // what still runs is killed
  line_program(const line_program&) = delete;
  line_program& operator=(const line_program&) = delete;

  // Throws std::runtime_error when it cannot be started.
  void start();
  // It was started and has not ended, as far as is known.
  bool running() const;

  struct answers {
    std::vector<std::string> lines{};  // of the first lines asked, without newlines
    // Why there are fewer than asked; then the program was ended. Empty: all are there.
    std::string failure{};
    std::size_t sent = 0;       // lines that it may have seen
    bool at_hand = false;       // it had begun to read the first line that has no answer
    bool ever_answered = false; // this one, since its start
  };
  // Each line ends with its newline. `in_flight` of the options, or less.
  asio::awaitable<answers> ask(std::span<const std::string> lines, std::size_t in_flight);

  // What it prints by itself, as it comes: what the pipe holds at most, and nothing is read while nobody asks. No bytes:
  // interrupt() was called, nothing was there and it is `latest`, or `ended`: there will be no more; end() tells why.
  // What it has left in the pipe is heard after its exit, too.
  struct output {
    std::string bytes{};
    bool ended = false;
  };
  asio::awaitable<output> hear(std::chrono::steady_clock::time_point latest);
  void interrupt();
  // End of its input and SIGTERM, without waiting; hear() goes on to its last words.
  void ask_to_end();
  // SIGKILL to its group, without waiting; hear() goes on to what it has printed by then.
  void force_end();

  // Writes to one that answers nothing. Returns once its pipe has taken all; otherwise why not, and then it was ended. The
  // options' timeout is for each time that the pipe is full.
  asio::awaitable<std::string> tell(std::string text);

  struct ending {
    bool success = false;  // exit code 0
    std::string words{};   // "exit code 3 (its last line on stderr)"
  };
  asio::awaitable<ending> end();
  // One that has closed its output, or is in no state to go on: less patience before SIGTERM.
  asio::awaitable<ending> end_soon();
  // As end(), within a few seconds whatever the grace; does not throw.
  asio::awaitable<void> end_after_failure();

 private:
  struct life;  // from one start to its end
  const asio::any_io_executor strand_;
  const std::shared_ptr<const line_program_options> options_;
  std::shared_ptr<life> life_;
};

}  // namespace penstock::runtime
