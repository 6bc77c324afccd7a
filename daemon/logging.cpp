#include "daemon/logging.hpp"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cstdlib>

#include "config/time.hpp"
#include "runtime/json.hpp"

namespace penstock::daemon {

namespace {

// {"time":"…","level":"info","message":"…"}
class json_formatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& msg, spdlog::memory_buf_t& out) override {
    std::string line = R"({"time":")" +
                       format_time(std::chrono::time_point_cast<std::chrono::microseconds>(msg.time)) + R"(","level":")";
    const auto level = spdlog::level::to_string_view(msg.level);
    line.append(level.data(), level.size());
    line += R"(","message":)";
    runtime::append_json_string(line, {msg.payload.data(), msg.payload.size()});
    line += "}\n";
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<json_formatter>(); }
};

// What another formatter makes, with the priority before it (sd-daemon(3)): journald takes it off and keeps it, so that
// `journalctl -p warning` finds what it should.
class journal_formatter final : public spdlog::formatter {
 public:
  explicit journal_formatter(std::unique_ptr<spdlog::formatter> text) : text_(std::move(text)) {}
  void format(const spdlog::details::log_msg& msg, spdlog::memory_buf_t& out) override {
    const char mark[] = {'<', priority_of(msg.level), '>'};
    out.append(mark, mark + sizeof mark);
    text_->format(msg, out);
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<journal_formatter>(text_->clone()); }

 private:
  static char priority_of(spdlog::level::level_enum level) {
    switch (level) {
      case spdlog::level::critical:
        return '2';
      case spdlog::level::err:
        return '3';
      case spdlog::level::warn:
        return '4';
      case spdlog::level::info:
        return '6';
      default:
        return '7';
    }
  }
  std::unique_ptr<spdlog::formatter> text_;
};

// JOURNAL_STREAM is inherited by whatever a service starts, also with its stderr elsewhere: it names device and inode of the
// journal's stream (systemd.exec(5)).
bool stderr_is_the_journal() {
  const char* const named = std::getenv("JOURNAL_STREAM");  // NOLINT(concurrency-mt-unsafe): before any thread
  struct stat about {};
  return named != nullptr && ::fstat(2, &about) == 0 &&
         named == std::to_string(about.st_dev) + ":" + std::to_string(about.st_ino);
}

}  // namespace

void set_up_logging(const std::string& level, const std::string& format) {
  auto logger = spdlog::stderr_color_mt("penstock");
  const bool journal = stderr_is_the_journal();
  std::unique_ptr<spdlog::formatter> formatter;
  if (format == "json") {
    formatter = std::make_unique<json_formatter>();
  } else {
    // journald keeps time and level itself
    formatter = std::make_unique<spdlog::pattern_formatter>(journal ? "%v" : "%Y-%m-%d %H:%M:%S.%e %^%-5l%$ %v");
  }
  if (journal) formatter = std::make_unique<journal_formatter>(std::move(formatter));
  logger->set_formatter(std::move(formatter));
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace penstock::daemon
