#include "api/request_parser.hpp"

#include <algorithm>

#include <boost/beast/http/error.hpp>

#include "runtime/event.hpp"

namespace penstock::api {

namespace http = boost::beast::http;

namespace {

// A body that says it will be long gets its memory in one piece only after it has shown this much of itself.
constexpr std::size_t trusted_bytes = 1 << 20;

http_method method_of(http::verb v) {
  switch (v) {
    case http::verb::get:
      return http_method::get;
    case http::verb::head:
      return http_method::head;
    case http::verb::post:
      return http_method::post;
    case http::verb::put:
      return http_method::put;
    case http::verb::delete_:
      return http_method::del;
    case http::verb::patch:
      return http_method::patch;
    case http::verb::options:
      return http_method::options;
    default:
      return http_method::other;
  }
}

// RFC 9112 section 3.2.2: a server accepts the absolute form. Nothing: it is neither that nor a path nor "*".
std::optional<std::string_view> path_of(std::string_view target, std::string_view& authority) {
  if (target.starts_with('/') || target == "*") return target;
  const std::size_t scheme = target.find("://");
  if (scheme == std::string_view::npos) return std::nullopt;
  const std::string_view name = target.substr(0, scheme);
  if (!same_letters(name, "http") && !same_letters(name, "https")) return std::nullopt;
  const std::string_view rest = target.substr(scheme + 3);
  const std::size_t path = rest.find_first_of("/?");
  authority = rest.substr(0, path);
  if (authority.empty() || (path != std::string_view::npos && rest[path] == '?')) return std::nullopt;
  return path == std::string_view::npos ? "/" : rest.substr(path);
}

// Where the value begins in the line that begins with `name`, if it does: a value that was folded over lines (RFC 9112 section
// 5.2) lies elsewhere, for Beast has put it together.
bool on_one_line(std::string_view name, std::string_view value) {
  const char* at = name.data() + name.size() + 1;
  while (*at == ' ' || *at == '\t') ++at;
  return value.empty() ? *at == '\r' && at[2] != ' ' && at[2] != '\t' : at == value.data();
}

}  // namespace

request_parser::request_parser(request& out, std::vector<place>& places, std::uint32_t header_bytes,
                               std::size_t target_bytes)
    : out_(out), places_(places), target_bytes_(target_bytes) {
  places_.clear();
  header_limit(header_bytes);
  body_limit(boost::none);  // the route decides, once it is known: limit_body_to
}

std::size_t request_parser::keep(string_view text) {
  out_.head.append(text.data(), text.size());
  return out_.head.size() - text.size();
}

void request_parser::on_request_impl(verb method, string_view, string_view target, int version, error_code& ec) {
  out_.method = method_of(method);
  out_.version = version;
  target_size_ = target.size();
  if (target_size_ > target_bytes_) {
    ec = http::error::header_limit;
    return;
  }
  keep(target);
}

void request_parser::on_field_impl(field name, string_view text, string_view value, error_code& ec) {
  if (in_body_) return;
  if (!on_one_line({text.data(), text.size()}, {value.data(), value.size()})) {
    ec = http::error::bad_obs_fold;
    return;
  }
  if (name == field::host) ++hosts_;
  if (name == field::content_length &&
      (std::exchange(length_given_, true) || value.find(',') != value.npos)) {
    ec = http::error::multiple_content_length;
    return;
  }
  const std::size_t name_at = keep(text);
  places_.push_back({name_at, text.size(), keep(value), value.size()});
}

// `head` grows no more: now the views may be made.
void request_parser::on_header_impl(error_code& ec) {
  const std::string_view head = out_.head;
  for (const place& p : places_) {
    out_.headers.push_back({head.substr(p.name, p.name_size), head.substr(p.value, p.value_size)});
  }
  out_.target = head.substr(0, target_size_);
  std::string_view authority;
  const auto path = path_of(out_.target, authority);
  // An authority that differs from Host is one that somebody on the way may have gone by.
  if (!path || (!authority.empty() && !same_letters(authority, out_.header_value("host")))) {
    ec = http::error::bad_target;
    return;
  }
  const std::string_view origin = *path;
  const std::size_t mark = origin.find('?');
  out_.path = origin.substr(0, mark);
  if (mark != std::string_view::npos) out_.query_text = origin.substr(mark + 1);
  in_body_ = true;
}

void request_parser::on_body_init_impl(const boost::optional<std::uint64_t>& length, error_code&) {
  expected_body_ = length ? static_cast<std::size_t>(*length) : 0;
}

std::size_t request_parser::on_body_impl(string_view bytes, error_code& ec) {
  std::string& body = out_.body;
  const std::size_t size = body.size() + bytes.size();
  if (size > body_limit_bytes_) {
    ec = http::error::body_limit;
    return 0;
  }
  if (const std::size_t needed = size + runtime::padding; needed > body.capacity()) {
    const std::size_t known = size > trusted_bytes ? expected_body_ : std::min(expected_body_, trusted_bytes);
    const std::size_t grown = expected_body_ > 0 ? 0 : 2 * body.capacity();
    body.reserve(std::max({needed, known + runtime::padding, grown}));
  }
  body.append(bytes.data(), bytes.size());
  return bytes.size();
}

std::size_t request_parser::on_chunk_body_impl(std::uint64_t, string_view bytes, error_code& ec) {
  return on_body_impl(bytes, ec);
}

}  // namespace penstock::api
