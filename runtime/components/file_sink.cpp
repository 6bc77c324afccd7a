// to: file - appends a line an event to one file.
//
// Exactly-once: a batch is one write and one fdatasync, and the file's length after it is the checkpoint.
// After a crash the file is cut back to the recorded length, because what stands behind it was never
// acknowledged and comes again. The file belongs to one writer at a time (flock). From open to close it
// carries the writer's name in an extended attribute, so that only the writer who left a tail cuts it off,
// and nobody cuts what was appended to a file that had been closed.
#include <fcntl.h>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/components/all.hpp"
#include "runtime/components/payload_check.hpp"

namespace penstock::runtime::components {

namespace {

constexpr const char* writer_attribute = "user.penstock.writer";
constexpr std::size_t writer_name_limit = 256;

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::sink,
      .name = "file",
      .doc =
          "Appends events to a file, one a line, exactly once. One flow or run writes to a file at a time.",
      .settings =
          {.name = "file",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "path",
                 .type = field_type::string,
                 .doc = "The file; relative paths start in the pipeline's folder. Made with its folders "
                        "when missing; an existing file is continued.",
                 .required = true,
                 .example = "alerts.ndjson"},
                {.name = "format",
                 .type = field_type::choice,
                 .doc = "ndjson: JSON as it is, other payloads as a JSON string. lines: payloads as they "
                        "are. Line ends inside become spaces in both.",
                 .fallback = "ndjson",
                 .choices = {"ndjson", "lines"}}},
           .shorthand = "path"},
      .examples = {"file: alerts.ndjson", "file: {path: out/messages.txt, format: lines}"},
  };
}

struct settings {
  std::string path;
  bool lines;
};

settings parse(const config::value& v) {
  return {v.at("path").get<std::string>(), v.value("format", "ndjson") == "lines"};
}

// A file open for appending, locked against other writers. Its calls block and throw std::runtime_error.
class output_file {
 public:
  explicit output_file(std::filesystem::path path) : path_(std::move(path)) {
    std::filesystem::create_directories(path_.parent_path());
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd_ < 0) fail("cannot open");
    try {
      lock();
      sync_folder();
    } catch (...) {
      ::close(fd_);
      throw;
    }
  }
  ~output_file() { ::close(fd_); }
  output_file(const output_file&) = delete;
  output_file& operator=(const output_file&) = delete;

  std::int64_t length() const {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) fail("cannot read the length of");
    return info.st_size;
  }

  void cut(std::int64_t to_length) const {
    if (::ftruncate(fd_, to_length) != 0) fail("cannot cut");
    if (::fdatasync(fd_) != 0) fail("cannot sync");
  }

  // All of it durable, or (on a full disk) nothing of it left.
  void append(std::string_view text) const {
    const std::int64_t before = length();
    try {
      write_all(text);
      if (::fdatasync(fd_) != 0) fail("cannot sync");
    } catch (...) {
      // A failure here leaves a tail that the next open() cuts off.
      static_cast<void>(!::ftruncate(fd_, before));
      throw;
    }
  }

  // Who had the file open last and did not close it; empty: nobody. Nothing: this file system cannot tell.
  std::optional<std::string> unfinished_writer() const {
    char name[writer_name_limit];
    const ssize_t size = ::fgetxattr(fd_, writer_attribute, name, sizeof name);
    if (size >= 0) return std::string(name, static_cast<std::size_t>(size));
    return errno == ENODATA ? std::optional<std::string>("") : std::nullopt;
  }

  // As far as the file system can.
  void begin_writing(const std::string& name) const {
    if (::fsetxattr(fd_, writer_attribute, name.data(), name.size(), 0) == 0 && ::fsync(fd_) != 0)
      fail("cannot sync");
  }
  void finish_writing() const { static_cast<void>(::fremovexattr(fd_, writer_attribute)); }

 private:
  void lock() const {
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
    if (errno == EWOULDBLOCK)
      throw std::runtime_error("another flow, run or program is writing to " + path_.string());
    fail("cannot lock");
  }

  // A new file's name must survive a crash as well as its content.
  void sync_folder() const {
    const int folder = ::open(path_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    static_cast<void>(::fsync(folder));
    ::close(folder);
  }

  void write_all(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t written = ::write(fd_, text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("cannot write to");
      text.remove_prefix(static_cast<std::size_t>(written));
    }
  }

  [[noreturn]] void fail(const char* doing) const {
    throw std::runtime_error(std::string(doing) + " " + path_.string() + ": " +
                             std::generic_category().message(errno));
  }

  std::filesystem::path path_;
  int fd_ = -1;
};

void append_line(std::string& out, const event& e) {
  const std::size_t begin = out.size();
  out += e.data;
  std::replace(out.begin() + static_cast<std::ptrdiff_t>(begin), out.end(), '\n', ' ');
  out += '\n';
}

class file_sink final : public blocking_sink {
 public:
  file_sink(settings s, const component_context& context)
      : blocking_sink(context),
        settings_(std::move(s)),
        path_(std::filesystem::absolute(context.workdir / settings_.path)),
        writer_(context.consumer.substr(0, writer_name_limit)) {}

  std::string first_checkpoint() override { return checkpoint(); }

 private:
  void open_blocking(const std::string& checkpoint) override {
    file_ = std::make_unique<output_file>(path_);
    if (!checkpoint.empty()) resume(config::value::parse(checkpoint));
    file_->begin_writing(writer_);
  }

  write_result write_blocking(const batch& events) override {
    write_result written;
    std::string text;
    if (settings_.lines) {
      for (const event& e : events.events) append_line(text, e);
    } else {
      written.refused = malformed_events(events);
      for_each_accepted(events, written.refused, [&](const event& e) { append_ndjson(text, e); });
    }
    file_->append(text);
    written.checkpoint = checkpoint();
    return written;
  }

  void close_blocking() override {
    file_->finish_writing();
    file_.reset();
  }

  std::string checkpoint() const {
    return config::value{{"path", path_.string()}, {"length", file_->length()}}.dump();
  }

  // The checkpoint of another path (the definition changed) says nothing about this file.
  void resume(const config::value& saved) {
    if (saved.value("path", "") != path_.string()) return;
    const auto recorded = saved.value("length", std::int64_t{0});
    const std::int64_t length = file_->length();
    if (length == recorded) return;
    const std::optional<std::string> unfinished = file_->unfinished_writer();
    if (length > recorded && (!unfinished || *unfinished == writer_)) {
      file_->cut(recorded);
    } else {
      spdlog::warn("{} has {} bytes, {} when this writer left it: goes on at its end", path_.string(), length,
                   recorded);
    }
  }

  const settings settings_;
  const std::filesystem::path path_;
  const std::string writer_;
  std::unique_ptr<output_file> file_;
};

}  // namespace

void add_file_sink(registry& r) {
  r.add(spec(), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<file_sink>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components
