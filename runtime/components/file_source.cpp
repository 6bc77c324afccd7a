// from: file - the records of one file, from its beginning (or where an earlier start stopped) to its end.
//
// Blocks are read on the blocking pool and cut into records on the strand. A record's position is the byte
// offset after it, so a restart goes on exactly there. Nothing is dropped: a line that is not JSON, or a CSV
// record whose quote is never closed, goes on as it stands, and the first step or sink that needs JSON makes
// it a dead letter.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/json.hpp"

namespace penstock::runtime::components {

namespace {

constexpr std::size_t block_size = 256 << 10;
constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "file",
      .doc = "The records of a file, once, to its end. Compressed files and growing files are not followed.",
      .settings =
          {.name = "file",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "path",
                 .type = field_type::string,
                 .doc = "The file; relative paths start in the pipeline's folder.",
                 .required = true,
                 .example = "orders.csv"},
                {.name = "format",
                 .type = field_type::choice,
                 .doc = "ndjson: a JSON value a line. csv (RFC 4180): each row becomes an object whose "
                        "values are strings; fields beyond the header are named column_N. lines: plain "
                        "text. Without it the file's ending decides (.ndjson, .jsonl, .csv), else lines.",
                 .choices = {"ndjson", "csv", "lines"}},
                {.name = "delimiter",
                 .type = field_type::choice,
                 .doc = "What stands between the fields of a CSV row.",
                 .fallback = "comma",
                 .choices = {"comma", "semicolon", "tab", "pipe"}},
                {.name = "header",
                 .type = field_type::boolean,
                 .doc = "The first CSV row names the fields; without it they are column_1, column_2, …",
                 .fallback = "true"},
                {.name = "max_record",
                 .type = field_type::size,
                 .doc = "A longer record stops the reading with an error.",
                 .fallback = "1MiB",
                 .minimum = 1}},
           .shorthand = "path"},
      .examples = {"file: orders.ndjson", "file: {path: export.csv, delimiter: semicolon}",
                   "file: {path: /var/log/app.log, format: lines}"},
      .bounded = true,
      .live = true,
  };
}

enum class file_format { ndjson, csv, lines };

struct settings {
  std::string path;
  file_format format;
  char delimiter;
  bool header;
  std::size_t max_record;
};

file_format format_of(const config::value& v, const std::string& path) {
  const std::string ending = std::filesystem::path(path).extension().string();
  const std::string text = v.value("format", "");
  if (text == "csv" || (text.empty() && ending == ".csv")) return file_format::csv;
  if (text == "ndjson" || (text.empty() && (ending == ".ndjson" || ending == ".jsonl")))
    return file_format::ndjson;
  return file_format::lines;
}

settings parse(const config::value& v) {
  settings s;
  s.path = v.at("path").get<std::string>();
  s.format = format_of(v, s.path);
  const std::string delimiter = v.value("delimiter", "comma");
  s.delimiter = delimiter == "tab" ? '\t' : delimiter == "semicolon" ? ';' : delimiter == "pipe" ? '|' : ',';
  s.header = v.value("header", true);
  s.max_record = v.value("max_record", std::size_t{1} << 20);
  return s;
}

// A file open for reading. Its calls block.
class input_file {
 public:
  explicit input_file(std::filesystem::path path) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fail("cannot open");
  }
  ~input_file() { ::close(fd_); }
  input_file(const input_file&) = delete;
  input_file& operator=(const input_file&) = delete;

  std::int64_t size() const {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) fail("cannot read");
    return info.st_size;
  }

  // Appends up to a block from `offset` on; false at the end of the file.
  bool read(std::int64_t offset, std::string& to) const {
    const std::size_t before = to.size();
    to.resize(before + block_size);
    ssize_t got = 0;
    do {
      got = ::pread(fd_, to.data() + before, block_size, offset);
    } while (got < 0 && errno == EINTR);
    to.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0) fail("cannot read");
    return got > 0;
  }

 private:
  [[noreturn]] void fail(const char* doing) const {
    throw std::runtime_error(std::string(doing) + " " + path_.string() + ": " +
                             std::generic_category().message(errno));
  }

  std::filesystem::path path_;
  int fd_ = -1;
};

// ---------------------------------------------------------------------------------------------------------------
// Records in text. `whole`: the text goes to the file's end, so its last record needs no line end.

// A record, and how much of the text it takes with its line end; taken = 0: the text ends before the record
// does.
struct record {
  std::string_view text{};
  std::size_t taken = 0;
  bool closed = true;  // csv: the quote that was opened is closed
};

record next_line(std::string_view text, bool whole) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos && !whole) return {};
  std::string_view line = text.substr(0, end);
  const std::size_t taken = std::min(line.size() + 1, text.size());
  if (line.ends_with('\r')) line.remove_suffix(1);
  return {line, taken};
}

// Reads CSV records (RFC 4180, section 2) and leaves the fields of the last one in `fields`. A quote opens
// only at the beginning of a field; what stands between a closing quote and the delimiter is taken as it is.
class csv_reader {
 public:
  explicit csv_reader(char delimiter) : delimiter_(delimiter) {}

  std::vector<std::string> fields{};

  record next(std::string_view text, bool whole) {
    fields.assign(1, {});
    at_ = state::field_start;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n' && at_ != state::quoted) return end_of(text.substr(0, i), i + 1);
      take(text[i]);
    }
    return whole ? end_of(text, text.size()) : record{};
  }

 private:
  enum class state { field_start, plain, quoted, quote_in_quoted };

  void take(char c) {
    if (at_ == state::quoted && c == '"') {
      at_ = state::quote_in_quoted;
    } else if (at_ == state::quoted) {
      fields.back() += c;
    } else if (c == delimiter_) {
      fields.emplace_back();
      at_ = state::field_start;
    } else if (c == '"' && at_ == state::field_start) {
      at_ = state::quoted;
    } else {
      fields.back() += c;
      at_ = c == '"' && at_ == state::quote_in_quoted ? state::quoted : state::plain;
    }
  }

  record end_of(std::string_view row, std::size_t taken) {
    if (at_ == state::plain && fields.back().ends_with('\r')) fields.back().pop_back();
    if (row.ends_with('\r')) row.remove_suffix(1);
    return {row, taken, at_ != state::quoted};
  }

  const char delimiter_;
  state at_ = state::field_start;
};

// ---------------------------------------------------------------------------------------------------------------

class file_source final : public source {
 public:
  file_source(settings s, const component_context& context)
      : settings_(std::move(s)),
        path_(context.workdir / settings_.path),
        pool_(context.services.blocking),
        csv_(settings_.delimiter) {}

  asio::awaitable<void> open(std::int64_t position) override {
    auto call = [this, position] { open_at(position); };
    co_await pool_.run(std::move(call));
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (!stopped_) {
      batch events = cut(most);
      if (!events.empty()) co_return std::move(events);
      if (at_end_) break;
      auto call = [this] { fill(); };
      co_await pool_.run(std::move(call));
    }
    co_return std::nullopt;
  }

  void stop_input() override { stopped_ = true; }

 private:
  void open_at(std::int64_t position);
  void fill();
  void check_length(std::size_t length) const;
  record next_record();
  void take_header();
  batch cut(std::size_t most);
  event make_event(const record& r, batch& events);
  std::string_view row_object(batch& events) const;

  const settings settings_;
  const std::filesystem::path path_;
  blocking_pool& pool_;
  std::unique_ptr<input_file> file_;
  csv_reader csv_;
  std::vector<std::string> columns_{};  // CSV: as JSON strings, quotes included
  std::shared_ptr<const buffer> block_ = std::make_shared<const buffer>("");
  std::size_t at_ = 0;             // in the block: the next record begins here
  std::int64_t block_offset_ = 0;  // of the block in the file
  bool at_end_ = false;            // the block goes to the file's end
  bool stopped_ = false;
};

void file_source::open_at(std::int64_t position) {
  file_ = std::make_unique<input_file>(path_);
  if (position > file_->size()) {
    throw std::runtime_error(path_.string() + " has " + std::to_string(file_->size()) + " bytes, but " +
                             std::to_string(position) + " were read before: it was replaced or cut");
  }
  fill();
  if (block_->text().starts_with(byte_order_mark)) at_ = byte_order_mark.size();
  if (settings_.format == file_format::csv && settings_.header) take_header();
  const std::int64_t begins = block_offset_ + static_cast<std::int64_t>(at_);
  if (position <= begins) return;
  block_ = std::make_shared<const buffer>("");
  at_ = 0;
  block_offset_ = position;
  at_end_ = false;
}

// What is left of the block, and more of the file behind it.
void file_source::fill() {
  std::string text;
  text.reserve(block_->text().size() - at_ + block_size + padding);
  text = block_->text().substr(at_);
  check_length(text.size());
  const std::int64_t offset = block_offset_ + static_cast<std::int64_t>(at_);
  at_end_ = !file_->read(offset + static_cast<std::int64_t>(text.size()), text);
  block_ = std::make_shared<const buffer>(std::move(text));
  block_offset_ = offset;
  at_ = 0;
}

void file_source::check_length(std::size_t length) const {
  if (length <= settings_.max_record) return;
  const std::int64_t offset = block_offset_ + static_cast<std::int64_t>(at_);
  throw std::runtime_error(path_.string() + ": the record at byte " + std::to_string(offset) +
                           " is longer than max_record, " +
                           format_size(static_cast<std::int64_t>(settings_.max_record)) +
                           (settings_.format == file_format::csv ? " (is a quote never closed?)" : ""));
}

record file_source::next_record() {
  const std::string_view rest = block_->text().substr(at_);
  return settings_.format == file_format::csv ? csv_.next(rest, at_end_) : next_line(rest, at_end_);
}

// An empty file has no header, and no rows that would need one.
void file_source::take_header() {
  record header = next_record();
  while (header.taken == 0 && !at_end_) {
    fill();
    header = next_record();
  }
  for (const std::string& name : csv_.fields) append_json_string(columns_.emplace_back(), name);
  at_ += header.taken;
}

// Up to `most` events from the block; none when it holds no whole record.
batch file_source::cut(std::size_t most) {
  batch events;
  events.adopt(block_);
  while (events.size() < most && at_ < block_->text().size()) {
    const record r = next_record();
    if (r.taken == 0) break;
    check_length(r.text.size());
    at_ += r.taken;
    if (r.text.empty() && settings_.format != file_format::lines) continue;
    events.events.push_back(make_event(r, events));
  }
  return events;
}

event file_source::make_event(const record& r, batch& events) {
  event e;
  e.position = block_offset_ + static_cast<std::int64_t>(at_);
  e.id = events.keep(settings_.path + ":" + std::to_string(e.position));
  e.source = events.empty() ? events.keep(settings_.path) : events.events.back().source;
  e.type = "event";
  e.time = wall_now();
  e.data = r.text;
  if (settings_.format == file_format::lines) e.datacontenttype = "text/plain";
  if (!r.closed) e.datacontenttype = "text/csv";
  if (settings_.format == file_format::csv && r.closed) e.data = row_object(events);
  return e;
}

std::string_view file_source::row_object(batch& events) const {
  std::string object = "{";
  for (std::size_t i = 0; i < csv_.fields.size(); ++i) {
    if (i > 0) object += ',';
    object += i < columns_.size() ? columns_[i] : "\"column_" + std::to_string(i + 1) + "\"";
    object += ':';
    append_json_string(object, csv_.fields[i]);
  }
  object += '}';
  return events.keep(object);
}

}  // namespace

void add_file_source(registry& r) {
  r.add(spec(), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<file_source>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components
