// to: file - appends events to one file: NDJSON, CSV or plain lines.
//
// Exactly-once: a batch is one write and one fdatasync, and the file's length after it is the checkpoint.
// After a crash the file is cut back to the recorded length, because what stands behind it was never
// acknowledged and comes again. The file belongs to one writer at a time (flock). From open to close it
// carries the writer's name in an extended attribute, so that only the writer who left a tail cuts it off,
// and nobody cuts what was appended to a file that had been closed.
//
// Rotation happens before a batch is written, when all that stands in the file is acknowledged: it is renamed and the
// next one begins. The checkpoint also has the file's inode then, so that a crash between the two is seen. With
// `atomic` the file has a hidden name until it is rotated or closed: whoever sees it sees all of it.
#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/components/all.hpp"
#include "runtime/components/own_files.hpp"
#include "runtime/components/payload_check.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/records.hpp"

namespace penstock::runtime::components::file_sink {

namespace {

constexpr const char* writer_attribute = "user.penstock.writer";
constexpr std::size_t writer_name_limit = 256;

config::field rotate_field() {
  using config::field_type;
  return {.name = "rotate",
          .type = field_type::object,
          .doc = "Begin a new file now and then; the old one becomes NAME-20261231T235959000000Z.ENDING. Looked at when "
                 "events come.",
          .example = "{size: 100MiB, every: 1h, keep: 10}",
          .children = {{.name = "size",
                        .type = field_type::size,
                        .doc = "Before the file would be larger than this.",
                        .example = "100MiB",
                        .minimum = 1},
                       {.name = "every",
                        .type = field_type::duration,
                        .doc = "When so much time has passed since its first event.",
                        .example = "1h",
                        .minimum = 0.001},
                       {.name = "keep",
                        .type = field_type::integer,
                        .doc = "How many old files stay; the oldest are removed. Without it all do.",
                        .example = "10",
                        .minimum = 1}}};
}

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
                        "are. Line ends inside become spaces in both. csv: objects as rows under one header, values "
                        "that are objects or arrays as JSON.",
                 .fallback = "ndjson",
                 .choices = {"ndjson", "csv", "lines"}},
                {.name = "columns",
                 .type = field_type::list,
                 .doc = "csv: the fields to write, in this order; others are left out. Without it those of the file's "
                        "header or of the first event; an event with others is refused then.",
                 .example = "[order_id, total]",
                 .children = {{.name = "column", .type = field_type::string, .doc = "A field's name."}},
                 .single_allowed = true},
                rotate_field(),
                {.name = "atomic",
                 .type = field_type::boolean,
                 .doc = "Write to a hidden file that gets its name when it is rotated or the input ends; without "
                        "`rotate` (for jobs) it then replaces an older file.",
                 .fallback = "false"}},
           .shorthand = "path"},
      .examples = {"file: alerts.ndjson", "file: {path: out/messages.txt, format: lines}",
                   "file: {path: out/orders.csv, format: csv, columns: [order_id, total]}",
                   "file: {path: out/orders.ndjson, atomic: true, rotate: {size: 100MiB, every: 1h, keep: 10}}"},
  };
}

struct settings {
  std::string path;
  enum class form { ndjson, csv, lines } format = form::ndjson;
  std::vector<std::string> columns{};
  bool atomic = false;
  bool rotates = false;
  std::int64_t size = 0;      // bytes; 0: any
  std::int64_t every_us = 0;  // 0: never
  std::size_t keep = 0;       // 0: all
};

settings parse(const config::value& v) {
  settings s;
  s.path = v.at("path").get<std::string>();
  const std::string format = v.value("format", "ndjson");
  s.format = format == "csv" ? settings::form::csv : format == "lines" ? settings::form::lines : settings::form::ndjson;
  s.columns = v.value("columns", std::vector<std::string>{});
  if (!s.columns.empty() && s.format != settings::form::csv) throw std::runtime_error("columns are for format: csv");
  s.atomic = v.value("atomic", false);
  const auto rotate = v.find("rotate");
  if (rotate == v.end()) return s;
  s.rotates = true;
  s.size = rotate->value("size", std::int64_t{0});
  s.every_us = rotate->value("every", std::int64_t{0}) / 1000;
  s.keep = rotate->value("keep", std::size_t{0});
  if (s.size == 0 && s.every_us == 0) throw std::runtime_error("rotate needs size, every or both");
  return s;
}

void require_end(const settings& s, bool in_run) {
  if (s.atomic && !s.rotates && !in_run)
    throw std::runtime_error("atomic without rotate is for jobs: a flow's file would never get its name");
}

void check(const config::value& v, config::usage where) { require_end(parse(v), where.in_run); }

// A file open for appending, locked against other writers. Its calls block and throw std::runtime_error.
class output_file {
 public:
  explicit output_file(std::filesystem::path path) : path_(std::move(path)) {
    make_durable_folder(path_.parent_path());
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

  std::uint64_t inode() const {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) fail("cannot read");
    return info.st_ino;
  }

  // Its first record as CSV fields; none in an empty file.
  std::vector<std::string> header() const {
    std::string text;
    csv_reader reader(',');
    while (true) {
      const std::size_t before = text.size();
      text.resize(before + 4096);
      const ssize_t got = ::pread(fd_, text.data() + before, 4096, static_cast<off_t>(before));
      if (got < 0) fail("cannot read");
      text.resize(before + static_cast<std::size_t>(got));
      if (text.empty()) return {};
      if (reader.next(text, got == 0).taken > 0) return reader.fields;
    }
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

  // Gives it another name in the same folder, durably.
  void rename_to(const std::filesystem::path& name) {
    std::filesystem::rename(path_, name);
    path_ = name;
    sync_folder();
  }

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

// Events as CSV rows (RFC 4180) under one list of columns.
class csv_rows {
 public:
  explicit csv_rows(std::vector<std::string> given) : columns_(std::move(given)), given_(!columns_.empty()) {}

  bool known() const { return !columns_.empty(); }
  bool given() const { return given_; }
  void take_header(std::vector<std::string> columns) { columns_ = std::move(columns); }

  void append_header(std::string& out) const {
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) out += ',';
      append_csv_field(out, columns_[i], ',');
    }
    out += '\n';
  }

  // Returns why it cannot be a row, and appends nothing then. The event's JSON was checked.
  std::string append(std::string& out, const event& e) {
    const auto members = e.is_json() ? json_members(e.data) : std::nullopt;
    if (!members || members->empty()) return "a CSV row must be a JSON object with fields";
    if (!known()) {
      for (const json_member& m : *members) columns_.push_back(m.name);
    }
    std::vector<std::string> cells(columns_.size());
    std::vector<bool> filled(columns_.size(), false);
    for (const json_member& m : *members) {
      const auto at = std::find(columns_.begin(), columns_.end(), m.name);
      const auto column = static_cast<std::size_t>(at - columns_.begin());
      if (at == columns_.end()) {
        if (!given_) return "the file has no column '" + m.name + "'";
      } else if (!filled[column]) {  // the first of a repeated field counts
        filled[column] = true;
        cells[column] = cell(m.value);
      }
    }
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) out += ',';
      append_csv_field(out, cells[i], ',');
    }
    out += '\n';
    return {};
  }

 private:
  static std::string cell(std::string_view value) {
    if (value == "null") return {};
    if (std::optional<std::string> text = json_text(value)) return std::move(*text);
    return std::string(value);
  }

  std::vector<std::string> columns_;
  const bool given_;
};

class file_sink final : public blocking_sink {
 public:
  file_sink(settings s, const component_context& context)
      : blocking_sink(context),
        settings_(std::move(s)),
        path_(std::filesystem::absolute(context.workdir / settings_.path)),
        writer_(context.consumer.substr(0, writer_name_limit)),
        label_(context.label()),
        in_run_(context.run_context != nullptr),
        rows_(settings_.columns) {
    refuse_own_file(path_, context.services.topics);
  }

  std::string first_checkpoint() override { return checkpoint(); }

 private:
  void open_blocking(const std::string& checkpoint) override {
    require_end(settings_, in_run_);
    const config::value saved = checkpoint.empty() ? config::value::object() : config::value::parse(checkpoint);
    take_back(saved);
    begin_file();
    resume(saved);
    file_->begin_writing(writer_);
    read_header();
  }

  write_result write_blocking(const batch& events) override {
    write_result written;
    std::string text = rows_of(events, written);
    if (must_rotate(text.size())) rotate();
    if (file_->length() == 0) {
      began_us_ = to_micros(wall_now());
      if (settings_.format == settings::form::csv && !text.empty()) text = header() + text;
    }
    file_->append(text);
    written.checkpoint = checkpoint();
    return written;
  }

  void close_blocking() override {
    file_->finish_writing();
    if (settings_.atomic) {
      if (settings_.rotates && file_->length() > 0)
        put_away();
      else if (!settings_.rotates)
        file_->rename_to(path_);
    }
    file_.reset();
  }

  // ---- what is written ----

  std::string rows_of(const batch& events, write_result& written) {
    std::string text;
    if (settings_.format == settings::form::lines) {
      for (const event& e : events.events) append_line(text, e);
      return text;
    }
    written.refused = malformed_events(events);
    if (settings_.format == settings::form::ndjson) {
      for_each_accepted(events, written.refused, [&](const event& e) { append_ndjson(text, e); });
      return text;
    }
    std::vector<refused_event> refused;
    auto malformed = written.refused.begin();
    for (std::size_t i = 0; i < events.size(); ++i) {
      std::string reason;
      if (malformed != written.refused.end() && malformed->index == i)
        reason = std::move(malformed++->reason);
      else
        reason = rows_.append(text, events.events[i]);
      if (!reason.empty()) refused.push_back({i, std::move(reason)});
    }
    written.refused = std::move(refused);
    return text;
  }

  std::string header() const {
    std::string text;
    rows_.append_header(text);
    return text;
  }

  // Of a file that is continued.
  void read_header() {
    if (settings_.format != settings::form::csv) return;
    std::vector<std::string> there = file_->header();
    if (there.empty()) return;
    if (rows_.given() && there != settings_.columns)
      throw std::runtime_error(path_.string() + " has other columns than this definition");
    rows_.take_header(std::move(there));
  }

  // ---- which file ----

  // The name while it is written.
  std::filesystem::path working_path() const {
    if (!settings_.atomic) return path_;
    return path_.parent_path() / ("." + path_.filename().string() + ".part");
  }

  // NAME-TIME.ENDING, with the time to the microsecond, so that names sort as the files were made.
  std::filesystem::path rotated_path() const {
    for (timestamp at = wall_now();; at += std::chrono::microseconds{1}) {
      std::string time = format_time(at);
      std::erase_if(time, [](char c) { return c == '-' || c == ':' || c == '.'; });
      const std::filesystem::path to =
          path_.parent_path() / (path_.stem().string() + "-" + time + path_.extension().string());
      if (!std::filesystem::exists(to)) return to;
    }
  }

  void begin_file() { file_ = std::make_unique<output_file>(working_path()); }

  bool must_rotate(std::size_t more) const {
    const std::int64_t length = file_->length();
    if (!settings_.rotates || length == 0) return false;
    const bool full = settings_.size > 0 && length + static_cast<std::int64_t>(more) > settings_.size;
    const bool old = settings_.every_us > 0 && to_micros(wall_now()) - began_us_ >= settings_.every_us;
    return full || old;
  }

  void rotate() {
    file_->finish_writing();
    put_away();
    begin_file();
    file_->begin_writing(writer_);
  }

  void put_away() {
    file_->rename_to(rotated_path());
    if (settings_.keep == 0) return;
    std::vector<std::filesystem::path> old;
    for (const auto& entry : std::filesystem::directory_iterator(path_.parent_path())) {
      if (is_rotated(entry.path().filename().string())) old.push_back(entry.path());
    }
    std::sort(old.begin(), old.end());
    for (std::size_t i = 0; i + settings_.keep < old.size(); ++i) std::filesystem::remove(old[i]);
  }

  // NAME-20261121T180000000000Z.EXT: nobody else's files.
  bool is_rotated(const std::string& name) const {
    constexpr std::string_view stamp = "00000000T000000000000Z";
    const std::string before = path_.stem().string() + "-", after = path_.extension().string();
    if (name.size() != before.size() + stamp.size() + after.size()) return false;
    if (!name.starts_with(before) || !name.ends_with(after)) return false;
    return std::equal(stamp.begin(), stamp.end(), name.begin() + static_cast<std::ptrdiff_t>(before.size()),
                      [](char wanted, char c) { return wanted == '0' ? c >= '0' && c <= '9' : c == wanted; });
  }

  // ---- what the last commit knows ----

  std::string checkpoint() const {
    config::value c{{"path", path_.string()}, {"length", file_->length()}};
    if (settings_.rotates || settings_.atomic) c["inode"] = file_->inode();
    if (settings_.rotates) c["began"] = began_us_;
    return c.dump();
  }

  // A crash after the end of an atomic file, whose last commit was not the end for its owner: it is written on.
  void take_back(const config::value& saved) const {
    if (!settings_.atomic || settings_.rotates || saved.value("path", "") != path_.string()) return;
    struct stat info {};
    if (std::filesystem::exists(working_path()) || ::stat(path_.c_str(), &info) != 0) return;
    if (info.st_ino == saved.value("inode", std::uint64_t{0})) std::filesystem::rename(path_, working_path());
  }

  // The checkpoint of another path (the definition changed) says nothing about this file.
  void resume(const config::value& saved) {
    began_us_ = saved.value("began", to_micros(wall_now()));
    if (saved.value("path", "") != path_.string()) return;
    // Rotated after the last commit: nothing of this file is acknowledged.
    const bool another = saved.contains("inode") && saved.at("inode") != file_->inode();
    const auto recorded = another ? std::int64_t{0} : saved.value("length", std::int64_t{0});
    const std::int64_t length = file_->length();
    if (length == recorded) return;
    const std::optional<std::string> unfinished = file_->unfinished_writer();
    const bool ours = unfinished ? *unfinished == writer_ : !another;
    if (length > recorded && ours) {
      file_->cut(recorded);
    } else {
      spdlog::warn("{}: {} has {} bytes, {} when this writer left it: goes on at its end", label_, path_.string(), length,
                   recorded);
    }
  }

  const settings settings_;
  const std::filesystem::path path_;
  const std::string writer_;
  const std::string label_;  // in the log
  const bool in_run_;
  csv_rows rows_;
  std::int64_t began_us_ = 0;  // when the file's first event was written
  std::unique_ptr<output_file> file_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), check), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<file_sink>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::file_sink
