#include "runtime/record_file.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <stdexcept>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>

#include "config/time.hpp"

namespace penstock::runtime {

namespace {

constexpr std::int64_t block_size = 256 << 10;

}  // namespace

std::vector<config::field> record_fields() {
  using config::field_type;
  return {{.name = "format",
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
           .minimum = 1}};
}

record_format record_format::of(const config::value& v, const std::string& path) {
  const std::string ending = std::filesystem::path(path).extension().string();
  const std::string text = v.value("format", "");
  record_format f;
  if (text == "csv" || (text.empty() && ending == ".csv")) f.is = form::csv;
  if (text == "ndjson" || (text.empty() && (ending == ".ndjson" || ending == ".jsonl"))) f.is = form::ndjson;
  f.delimiter = delimiter_of(v.value("delimiter", "comma"));
  f.header = v.value("header", true);
  f.max_record = v.value("max_record", std::size_t{1} << 20);
  return f;
}

record_file::record_file(std::filesystem::path path, record_format format, std::string name, std::int64_t position,
                         std::int64_t offset, std::int64_t limit)
    : path_(std::move(path)),
      format_(format),
      name_(std::move(name)),
      limit_(limit),
      base_(position - offset),
      fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)),
      csv_(format.delimiter),
      header_due_(format.is == record_format::form::csv && format.header) {
  struct stat info {};
  if (fd_.get() < 0) fail("cannot open");
  if (::fstat(fd_.get(), &info) != 0) fail("cannot read");
  if (offset > info.st_size) {
    throw std::runtime_error(path_.string() + " has " + std::to_string(info.st_size) + " bytes, but " +
                             std::to_string(offset) + " were read before: it was replaced or cut");
  }
  fill();
  while (header_due_ && !take_header() && fill()) {
  }
  if (offset <= this->offset()) return;
  header_due_ = false;
  block_ = std::make_shared<const buffer>("");
  at_ = 0;
  block_offset_ = offset;
}

void record_file::fail(const char* doing) const {
  throw std::runtime_error(std::string(doing) + " " + path_.string() + ": " + std::generic_category().message(errno));
}

// What is left of the block, and more of the file behind it.
bool record_file::fill() {
  const std::int64_t from = read_to();
  const std::int64_t most = std::min(block_size, limit_ - from);
  if (most <= 0) return false;
  const std::size_t left = block_->text().size() - at_;
  check_length(left);
  std::string text;
  text.reserve(left + static_cast<std::size_t>(most) + padding);
  text = block_->text().substr(at_);
  text.resize(left + static_cast<std::size_t>(most));
  ssize_t got = 0;
  do {
    got = ::pread(fd_.get(), text.data() + left, static_cast<std::size_t>(most), from);
  } while (got < 0 && errno == EINTR);
  if (got < 0) fail("cannot read");
  if (got == 0) return false;
  text.resize(left + static_cast<std::size_t>(got));
  block_offset_ = offset();
  at_ = 0;
  block_ = std::make_shared<const buffer>(std::move(text));
  return true;
}

void record_file::check_length(std::size_t length) const {
  if (length <= format_.max_record) return;
  throw std::runtime_error(path_.string() + ": the record at byte " + std::to_string(offset()) +
                           " is longer than max_record, " +
                           format_size(static_cast<std::int64_t>(format_.max_record)) +
                           (format_.is == record_format::form::csv ? " (is a quote never closed?)" : ""));
}

record record_file::next_record() {
  if (offset() == 0 && block_->text().starts_with(byte_order_mark)) at_ = byte_order_mark.size();
  const std::string_view rest = block_->text().substr(at_);
  return format_.is == record_format::form::csv ? csv_.next(rest, whole_) : next_line(rest, whole_);
}

bool record_file::take_header() {
  const record header = next_record();
  if (header.taken == 0) return false;
  columns_ = csv_columns(csv_.fields);
  at_ += header.taken;
  header_due_ = false;
  return true;
}

batch record_file::cut(std::size_t most) {
  batch events;
  if (header_due_ && !take_header()) return events;
  events.adopt(block_);
  while (events.size() < most && at_ < block_->text().size()) {
    const record r = next_record();
    if (r.taken == 0) break;
    check_length(r.text.size());
    at_ += r.taken;
    if (r.text.empty() && format_.is != record_format::form::lines) continue;
    events.events.push_back(make_event(r, events));
  }
  return events;
}

event record_file::make_event(const record& r, batch& events) {
  using form = record_format::form;
  event e;
  e.position = position();
  e.id = events.keep(name_ + ":" + std::to_string(e.position));
  e.source = events.empty() ? events.keep(name_) : events.events.back().source;
  e.type = "event";
  e.time = wall_now();
  e.data = r.text;
  if (format_.is == form::lines) e.datacontenttype = "text/plain";
  if (!r.closed) {
    e.datacontenttype = "text/csv";
    e.fault = "a quote of this CSV record is never closed";
  }
  if (format_.is == form::csv && r.closed) {
    std::string object;
    columns_.append_object(object, csv_.fields);
    e.data = events.keep(object);
  }
  return e;
}

}  // namespace penstock::runtime
