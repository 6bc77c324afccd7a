#include "api/gzip.hpp"

#include <algorithm>
#include <new>
#include <optional>

#include <zlib.h>

#include "api/http.hpp"
#include "api/media.hpp"

namespace penstock::api {

namespace {

constexpr std::size_t packed_at_once = 32 << 10;     // bytes of text in a slice
constexpr std::size_t read_at_once = 64 << 10;       // packed bytes that go into a slice
constexpr std::size_t unpacked_at_once = 128 << 10;  // bytes that come out of one
constexpr int fastest = 1;                           // level: JSON gets about 5 times smaller at 150 MB/s
constexpr int with_gzip_header = 15 + 16;            // window bits, as zlib.h has it
constexpr int usual_memory = 8;
constexpr int most_members = 1000;
constexpr std::string_view packed_mark = "-gzip\"";  // the end of a packed variant's ETag

// Of "gzip;q=0.5": 500.
int quality_of_item(std::string_view item) {
  const std::size_t parameters = item.find(';');
  return parameters == std::string_view::npos ? quality_of({}) : quality_of(item.substr(parameters + 1));
}

void point_at(z_stream& stream, std::string_view text) {
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
}

}  // namespace

bool accepts_gzip(std::string_view accept_encoding) {
  std::optional<int> gzip, any, identity;
  while (!accept_encoding.empty()) {
    const std::string_view item = accept_encoding.substr(0, accept_encoding.find(','));
    accept_encoding.remove_prefix(std::min(accept_encoding.size(), item.size() + 1));
    const std::string_view coding = trimmed(item.substr(0, item.find(';')));
    if (same_letters(coding, "gzip") || same_letters(coding, "x-gzip")) gzip = quality_of_item(item);
    if (coding == "*") any = quality_of_item(item);
    if (same_letters(coding, "identity")) identity = quality_of_item(item);
  }
  const int wish = gzip ? *gzip : any.value_or(0);
  return wish > 0 && wish >= identity.value_or(0);
}

gzip_packer::gzip_packer(std::string_view text) : stream_(std::make_unique<z_stream>()), rest_(text) {
  if (::deflateInit2(stream_.get(), fastest, Z_DEFLATED, with_gzip_header, usual_memory, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::bad_alloc();
  packed_.reserve(text.size() / 4 + 64);
}

gzip_packer::~gzip_packer() { ::deflateEnd(stream_.get()); }

bool gzip_packer::go_on() {
  const std::string_view slice = rest_.substr(0, packed_at_once);
  rest_.remove_prefix(slice.size());
  point_at(*stream_, slice);
  const int mode = rest_.empty() ? Z_FINISH : Z_NO_FLUSH;
  do {
    const std::size_t before = packed_.size();
    packed_.resize(before + slice.size() / 2 + 64);
    stream_->next_out = reinterpret_cast<Bytef*>(packed_.data() + before);
    stream_->avail_out = static_cast<uInt>(packed_.size() - before);
    ::deflate(stream_.get(), mode);
    packed_.resize(packed_.size() - stream_->avail_out);
  } while (stream_->avail_out == 0);
  return rest_.empty();
}

gzip_unpacker::gzip_unpacker(std::string_view packed, std::string& into, std::size_t limit, std::size_t room_after)
    : stream_(std::make_unique<z_stream>()), rest_(packed), out_(into), limit_(limit), room_after_(room_after) {
  if (::inflateInit2(stream_.get(), with_gzip_header) != Z_OK) throw std::bad_alloc();
}

gzip_unpacker::~gzip_unpacker() { ::inflateEnd(stream_.get()); }

gzip_unpacker::state gzip_unpacker::go_on() {
  if (stream_->avail_in == 0 && !filled_) {
    if (rest_.empty()) return between_members_ ? state::done : state::broken;
    const std::string_view slice = rest_.substr(0, read_at_once);
    rest_.remove_prefix(slice.size());
    point_at(*stream_, slice);
  }
  if (std::exchange(between_members_, false)) {
    if (++members_ > most_members) return state::broken;  // empty ones cost time and add no bytes
    ::inflateReset(stream_.get());
  }
  const std::size_t before = out_.size();
  const std::size_t room = std::min(unpacked_at_once, limit_ - before + 1);  // one byte more than allowed shows a body too large
  if (const std::size_t needed = before + room + room_after_; needed > out_.capacity())
    out_.reserve(std::max(needed, std::min(2 * before, limit_) + room_after_ + 1));
  out_.resize(before + room);
  stream_->next_out = reinterpret_cast<Bytef*>(out_.data() + before);
  stream_->avail_out = static_cast<uInt>(room);
  const int end = ::inflate(stream_.get(), Z_NO_FLUSH);
  filled_ = stream_->avail_out == 0 && end != Z_STREAM_END;
  out_.resize(before + room - stream_->avail_out);
  if (end != Z_OK && end != Z_STREAM_END && end != Z_BUF_ERROR) return state::broken;
  if (out_.size() > limit_) return state::too_large;
  between_members_ = end == Z_STREAM_END;
  if (filled_ || stream_->avail_in > 0 || !rest_.empty()) return state::going_on;
  return between_members_ ? state::done : state::broken;
}

std::string packed_etag(std::string_view etag) {
  if (!etag.ends_with('"')) return std::string(etag);
  return std::string(etag.substr(0, etag.size() - 1)).append(packed_mark);
}

std::string plain_etag(std::string_view etags) {
  std::string plain;
  for (std::size_t mark = 0; (mark = etags.find(packed_mark)) != std::string_view::npos;) {
    plain.append(etags.substr(0, mark)).append("\"");
    etags.remove_prefix(mark + packed_mark.size());
  }
  return plain.append(etags);
}

}  // namespace penstock::api
