// One file read record by record: NDJSON, CSV or plain lines. Each record becomes an event whose position grows with
// the byte offset after it, so that a restart goes on exactly there.
//
// Nothing is dropped: a line that is not JSON goes on as it stands, and the first step or sink that needs JSON makes it a
// dead letter; a CSV record whose quote is never closed has a fault (see event.hpp). Owned by one source; the calls marked so block, and belong
// on the blocking pool.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

#include "config/field.hpp"
#include "runtime/event.hpp"
#include "runtime/records.hpp"
#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

struct record_format {
  enum class form { ndjson, csv, lines };
  form is = form::lines;
  char delimiter = ',';
  bool header = true;
  std::size_t max_record = 1 << 20;  // bytes; a longer record throws

  // Of checked settings with `record_fields()`. Without `format` the ending of `path` decides.
  static record_format of(const config::value& settings, const std::string& path);
};

// The settings format, delimiter, header and max_record.
std::vector<config::field> record_fields();

class record_file {
 public:
  // Blocks. Opens it and goes to `offset`, but behind the header; what was read up to there has `position`. `name`: the
  // events' source. Throws
  // std::runtime_error when it cannot be read, or is shorter than `offset`. Nothing is read from `limit` on.
  record_file(std::filesystem::path path, record_format format, std::string name, std::int64_t position,
              std::int64_t offset, std::int64_t limit = std::numeric_limits<std::int64_t>::max());

  // Blocks. Reads on; false: there is no more now, or not before the limit.
  bool fill();
  // What has been read goes to the end: the last record needs no line end.
  void complete() { whole_ = true; }
  bool completed() const { return whole_; }
  // Up to `most` events of what has been read; none: it holds no whole record more.
  batch cut(std::size_t most);

  std::int64_t position() const { return base_ + offset(); }  // of the last record cut
  std::int64_t read_to() const { return block_offset_ + static_cast<std::int64_t>(block_->text().size()); }
  int descriptor() const { return fd_.get(); }

 private:
  std::int64_t offset() const { return block_offset_ + static_cast<std::int64_t>(at_); }
  void check_length(std::size_t length) const;
  record next_record();
  bool take_header();
  event make_event(const record& r, batch& events);
  [[noreturn]] void fail(const char* doing) const;

  const std::filesystem::path path_;
  const record_format format_;
  const std::string name_;
  const std::int64_t limit_;  // nothing is read from this offset on
  const std::int64_t base_;  // the position where the file begins; may be negative
  unique_fd fd_;
  csv_reader csv_;
  csv_columns columns_{};
  bool header_due_;
  bool whole_ = false;
  std::shared_ptr<const buffer> block_ = std::make_shared<const buffer>("");
  std::size_t at_ = 0;             // in the block: the next record begins here
  std::int64_t block_offset_ = 0;  // of the block in the file
};

}  // namespace penstock::runtime
