// Bodies in the coding gzip (RFC 9110 section 8.4.1.3): who wants one, packing, unpacking. On zlib.
//
// Plain objects for one body each, used by a session on the control thread. Both work in slices, each bounded to about half a
// millisecond, so that the thread can do other things in between; unpacking never makes more than it is allowed to.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct z_stream_s;

namespace penstock::api {

// True when the Accept-Encoding header names gzip (or * while gzip is not named) with a quality above zero and not below that
// of identity where that is given (RFC 9110 section 12.5.3).
bool accepts_gzip(std::string_view accept_encoding);

// The ETag of the packed variant of what has `etag` (RFC 9110 section 8.8.3.3), and back, also in a list of them: a client may
// send either in If-Match and If-None-Match.
std::string packed_etag(std::string_view etag);
std::string plain_etag(std::string_view etags);

class gzip_packer {
 public:
  // `text` outlives the packer. Throws std::bad_alloc.
  explicit gzip_packer(std::string_view text);
  ~gzip_packer();
  // One slice more; true when all is packed.
  bool go_on();
  std::string take() { return std::move(packed_); }

 private:
  std::unique_ptr<z_stream_s> stream_;
  std::string_view rest_;
  std::string packed_;
};

class gzip_unpacker {
 public:
  enum class state { going_on, done, broken, too_large };

  // `packed` and `into` outlive the unpacker. `into` gets at most `limit` bytes, and `room_after` of capacity behind them; one
  // byte more when there were more.
  gzip_unpacker(std::string_view packed, std::string& into, std::size_t limit, std::size_t room_after);
  ~gzip_unpacker();
  // One slice more.
  state go_on();

 private:
  std::unique_ptr<z_stream_s> stream_;
  std::string_view rest_;  // not yet shown to the stream
  std::string& out_;
  const std::size_t limit_;
  const std::size_t room_after_;
  bool filled_ = false;           // the last slice: there may be more without further input
  int members_ = 0;
  bool between_members_ = false;  // RFC 1952 section 2.2: one may follow another
};

}  // namespace penstock::api
