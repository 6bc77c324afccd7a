#include "daemon/logging.hpp"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

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

}  // namespace

void set_up_logging(const std::string& level, const std::string& format) {
  auto logger = spdlog::stderr_color_mt("penstock");
  if (format == "json") {
    logger->set_formatter(std::make_unique<json_formatter>());
  } else if (std::getenv("JOURNAL_STREAM")) {  // NOLINT(concurrency-mt-unsafe): journald adds the time itself
    logger->set_pattern("%l: %v");
  } else {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%-5l%$ %v");
  }
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace penstock::daemon
