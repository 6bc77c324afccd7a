// HTTP/1 text to a `request`, on Beast's parser: strict where two readers could disagree about where a
// message ends.
//
// One object reads one message; its session feeds it. Headers are kept as views into request::head, so a
// request costs no allocation per header; fields that come after the body (trailers) are dropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/beast/http/basic_parser.hpp>

#include "api/http.hpp"

namespace penstock::api {

class request_parser final : public boost::beast::http::basic_parser<true> {
 public:
  // Where a header stands in request::head.
  struct place {
    std::size_t name, name_size, value, value_size;
  };

  // `places` is working memory, which the owner keeps from message to message. A target beyond `target_bytes` fails with
  // http::error::header_limit.
  request_parser(request& out, std::vector<place>& places, std::uint32_t header_bytes, std::size_t target_bytes);

  // From now on a body beyond `bytes` fails with http::error::body_limit, before it is stored.
  void limit_body_to(std::size_t bytes) { body_limit_bytes_ = bytes; }
  // How many Host headers there were: HTTP/1.1 wants exactly one.
  int hosts() const { return hosts_; }
  // After header_limit: it was reached within the request line. `unread` is what the parser has left: a head that came in pieces
  // is not looked into before its end.
  bool target_too_long(std::string_view unread) const {
    return target_size_ > 0 ? target_size_ > target_bytes_ : unread.substr(0, target_bytes_).find('\n') == unread.npos;
  }
  bool head_done() const { return is_header_done(); }
  bool whole() const { return is_done(); }

 private:
  using field = boost::beast::http::field;
  using verb = boost::beast::http::verb;
  using string_view = boost::beast::string_view;
  using error_code = boost::beast::error_code;

  void on_request_impl(verb method, string_view name, string_view target, int version,
                       error_code& ec) override;
  void on_response_impl(int, string_view, int, error_code&) override {}
  void on_field_impl(field name, string_view text, string_view value, error_code& ec) override;
  void on_header_impl(error_code& ec) override;
  void on_body_init_impl(const boost::optional<std::uint64_t>& length, error_code& ec) override;
  std::size_t on_body_impl(string_view bytes, error_code& ec) override;
  void on_chunk_header_impl(std::uint64_t, string_view, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t remain, string_view bytes, error_code& ec) override;
  void on_finish_impl(error_code&) override {}

  std::size_t keep(string_view text);

  request& out_;
  std::vector<place>& places_;
  const std::size_t target_bytes_;
  std::size_t target_size_ = 0;
  std::size_t body_limit_bytes_ = 0;
  std::size_t expected_body_ = 0;
  int hosts_ = 0;
  bool length_given_ = false;
  bool in_body_ = false;
};

}  // namespace penstock::api
