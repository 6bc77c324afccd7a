// to: stdout - one line of NDJSON an event on the daemon's standard output.
//
// Lines of several flows never mix: one lock for the process, held while a batch is written. On the blocking
// pool, because whoever reads the pipe may be slow.
#include <cerrno>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/payload_check.hpp"

namespace penstock::runtime::components::stdout_sink {

namespace {

config::component_spec spec() {
  return {
      .kind = config::component_kind::sink,
      .name = "stdout",
      .doc = "Writes events as NDJSON to the daemon's standard output (under systemd: its journal).",
      .settings = {.name = "stdout", .type = config::field_type::object, .doc = ""},
      .examples = {"stdout", "stdout: {}"},
  };
}

void write_all(std::string_view text) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      throw std::runtime_error("cannot write to standard output: " + std::generic_category().message(errno));
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

class stdout_sink final : public blocking_sink {
 public:
  using blocking_sink::blocking_sink;

 private:
  void open_blocking(const std::string&) override {}

  write_result write_blocking(const batch& events) override {
    write_result written;
    written.refused = malformed_events(events);
    std::string text;
    for_each_accepted(events, written.refused, [&](const event& e) { append_ndjson(text, e); });
    write_all(text);
    return written;
  }
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_sink([](const config::value&, const component_context& context) {
          return std::make_unique<stdout_sink>(context);
        }));
}

}  // namespace penstock::runtime::components::stdout_sink
