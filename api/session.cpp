#include "api/session.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <spdlog/spdlog.h>

#include "api/gzip.hpp"
#include "api/problem.hpp"
#include "config/field.hpp"
#include "config/in_quotes.hpp"
#include "runtime/event.hpp"
#include "runtime/machine_failure.hpp"
#include "runtime/random.hpp"
#include "runtime/ulid.hpp"

namespace penstock::api {

namespace http = boost::beast::http;

namespace {

constexpr std::size_t head_piece = 4 << 10;   // read at once while waiting for a request
constexpr std::size_t body_piece = 64 << 10;  // and while reading a body
constexpr std::size_t small_body =
    64 << 10;  // of a refused request: read and dropped, so the connection lives on
constexpr std::size_t joined_body = 16 << 10;  // of a response: sent in one piece with its head
constexpr std::size_t most_pipelined = 64 << 10;
constexpr int retry_machine_s = 5;  // after a full disk
constexpr std::size_t worth_packing = 1 << 10;  // of a response: sent in gzip to who takes it
constexpr std::chrono::milliseconds last_chance{250};  // for a new connection's first request when the server stops
constexpr std::string_view end_of_chunks = "0\r\n\r\n";
constexpr const char* all_methods = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

bool fit_for_a_log(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           std::string_view("-_.:/+=~@").find(c) != std::string_view::npos;
  });
}

// No control character of a value reaches the wire: a header cannot end early.
void add_header(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ");
  for (const char c : value) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  out += "\r\n";
}

void advance(std::array<asio::const_buffer, 3>& data, std::size_t bytes) {
  for (asio::const_buffer& piece : data) {
    const std::size_t taken = std::min(bytes, piece.size());
    piece += taken;
    bytes -= taken;
  }
}

// 501 and 505 are answers to what a client did: nothing is wrong inside, so the log need not tell.
response not_known(int status, std::string_view type, const std::string& detail) {
  response r = problem_response(status, type, detail);
  r.cause.clear();
  return r;
}

std::string chunk_head(std::size_t size) { return fmt::format("{:x}\r\n", size); }

}  // namespace

session::session(std::shared_ptr<server_core> core, connection::socket accepted, asio::ssl::context* tls)
    : core_(std::move(core)),
      socket_(std::move(accepted), tls),
      watch_ended_(std::make_shared<runtime::wakeup>(core_->executor)) {
  request_.interrupted = interruption([this] { watch(); });
  request_.trusted_peer = socket_.is_local();
  if (!request_.trusted_peer) request_.peer = socket_.peer();
  core_->enter(*this);
}

session::~session() {
  release_body();
  core_->leave(*this);
}

void session::start() {
  asio::co_spawn(core_->executor, run(shared_from_this()), [](std::exception_ptr failure) {
    if (!failure) return;
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      spdlog::error("connection: {}", e.what());
    }
  });
}

void session::stop() {
  boost::system::error_code ignored;
  // Who has just connected is about to send a request.
  if (stage_ == stage::idle && first_) {
    deadline_in(last_chance);
  } else if (stage_ == stage::idle) {
    socket_.cancel(ignored);
  }
  request_.interrupted.raise();
  if (held_back_) held_back_->notify();
}

void session::cut_off() {
  boost::system::error_code ignored;
  socket_.close(ignored);
  request_.interrupted.raise();
  if (held_back_) held_back_->notify();
}

session::clock::time_point session::check_deadline(clock::time_point now) {
  if (deadline_ <= now) {
    no_deadline();
    timed_out_ = true;
    boost::system::error_code ignored;
    socket_.cancel(ignored);
  }
  return deadline_;
}

session::clock::time_point session::deadline_in(std::chrono::milliseconds time) {
  const clock::time_point now = clock::now();
  deadline_ = now + time;
  core_->expect_by(deadline_);
  return now;
}

// ---- one connection, request by request ----

asio::awaitable<void> session::run(std::shared_ptr<session> self) {
  bool open = true;
  if (self->socket_.is_tls()) open = co_await self->shake_hands();
  while (open) open = co_await self->serve_one();
  co_await self->linger();
}

asio::awaitable<bool> session::shake_hands() {
  deadline_in(core_->options.header_timeout);
  const connection::handshake_end end = co_await socket_.handshake();
  no_deadline();
  unread_ = end == connection::handshake_end::http_instead;
  co_return end == connection::handshake_end::done;
}

asio::awaitable<bool> session::serve_one() {
  const clock::time_point started = begin_request();
  const read_end head = co_await read(&request_parser::head_done);
  if (head == read_end::closed || (head == read_end::timed_out && stage_ == stage::idle)) co_return false;
  first_ = false;
  response reply;
  if (head == read_end::complete) {
    reply = co_await answer();
  } else {
    reply = refusal(head);
  }
  no_deadline();
  if (holds_back(reply)) co_await hold_back();
  if (!reply.stream && !reply.messages) co_await choose_coding(reply);
  std::shared_ptr<websocket_line> line;
  if (reply.messages) line = co_await become_websocket(reply);
  core_->count(route_, request_.method, reply.status);
  log(reply, started);
  if (line) {
    co_await serve_websocket(line, *reply.messages);
    co_return false;
  }
  sending now = begin_sending(reply);
  // Nearly always the socket takes all of it at once, and then nobody has to wait.
  bool sent = write_now(now.data);
  if (sent && (now.streams || asio::buffer_size(now.data) > 0)) sent = co_await send_rest(reply, now);
  if (watching_) co_await end_watch();
  co_return sent&& now.keep && !gone_ &&
      !core_->stopping;  // a stream may have outlived the moment of the stop
}

// A refusal costs nearly what serving costs: when there are many, whoever comes again at once would leave no time for the others.
// So they are told about as late as they were to come again, and not all at once. Unless that would keep others from connecting.
bool session::holds_back(const response& reply) {
  const bool has_room = core_->sessions.size() + core_->options.connections / 16 < core_->options.connections;
  return reply.status == 429 && !core_->stopping && has_room && core_->prompt_refusals.take(clock::now());
}

asio::awaitable<void> session::hold_back() {
  release_body();
  request_.body = {};
  const auto delay = core_->options.refusal_delay * runtime::random_between(0.5, 1.5);
  held_back_ = std::make_shared<runtime::wakeup>(core_->executor);
  co_await held_back_->wait_until(clock::now() + std::chrono::duration_cast<clock::duration>(delay));
  held_back_.reset();
}

session::clock::time_point session::begin_request() {
  release_body();
  request_.clear();
  if (request_.body.capacity() > body_piece) request_.body = {};
  if (buffer_.size() == 0 && buffer_.capacity() > head_piece) buffer_ = {};
  parser_.emplace(request_, places_, static_cast<std::uint32_t>(core_->options.header_bytes), core_->options.target_bytes);
  route_ = nullptr;
  const bool started = buffer_.size() > 0;
  stage_ = started ? stage::head : stage::idle;
  if (core_->stopping && !started) return deadline_in(last_chance);
  return deadline_in(started || first_ ? core_->options.header_timeout : core_->options.idle_timeout);
}

asio::awaitable<response> session::answer() {
  stage_ = stage::busy;
  std::optional<response> refused = check_head();
  if (refused) co_return std::move(*refused);
  if (!parser_->whole()) {
    bool finished = false;
    read_end body = feed(&request_parser::whole, finished);
    if (!finished) body = co_await read_body();
    if (body != read_end::complete) co_return refusal(body);
  }
  no_deadline();
  if (packed_body_ && !request_.body.empty()) {
    refused = co_await unpack_body();
    if (refused) co_return std::move(*refused);
  }
  std::string cause, machine;
  try {
    co_return co_await route_->handle(request_);
  } catch (const std::exception& e) {
    cause = e.what();
    machine = runtime::machine_failure(std::current_exception());
  }
  response r = machine.empty() ? problem_response(500, "internal", "this failed inside; the daemon's log says why")
                               : problem_response(error{errc::unavailable, "this cannot be done now: " + machine, {}, retry_machine_s});
  r.cause = std::move(cause);
  co_return r;
}

asio::awaitable<session::read_end> session::read_body() {
  // RFC 9110 section 10.1.1: the client waits for this before it sends; not when it has begun already.
  if (request_.version == 11 && request_.body.empty() && !request_.header_value("expect").empty()) {
    const std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    const pieces data{asio::buffer(go_on)};
    const bool sent = co_await write(data);
    if (!sent) co_return read_end::closed;
  }
  stage_ = stage::body;
  deadline_in(core_->options.body_timeout);
  const read_end body = co_await read(&request_parser::whole);
  stage_ = stage::busy;
  co_return body;
}

// In slices, and never more than may be held: a small body can hide a huge one.
asio::awaitable<std::optional<response>> session::unpack_body() {
  const std::string packed = std::exchange(request_.body, {});
  gzip_unpacker unpacker(packed, request_.body, body_limit_, runtime::padding);
  for (;;) {
    const gzip_unpacker::state now = unpacker.go_on();
    if (now == gzip_unpacker::state::broken)
      co_return problem_response(error{errc::malformed, "the body is not what Content-Encoding says: gzip, whole"});
    if (now == gzip_unpacker::state::too_large)
      co_return problem_response(error{errc::too_large, "unpacked, the body has more than " + std::to_string(body_limit_) + " bytes"});
    if (!hold_body(packed.size() + request_.body.size()))
      co_return problem_response(error{errc::unavailable, "too many large requests at once", {}, 1});
    if (now == gzip_unpacker::state::done) break;
    co_await let_others_work();
  }
  co_return std::nullopt;
}

asio::awaitable<void> session::let_others_work() { co_await asio::post(core_->executor, asio::use_awaitable); }

// ---- reading ----

asio::awaitable<session::read_end> session::read(bool (request_parser::*reached)() const) {
  for (;;) {
    read_end end = read_end::complete;
    const auto room = take_and_make_room(reached, end);
    if (!room) co_return end;
    const auto [failure, bytes] = co_await socket_.async_read_some(*room, as_result);
    if (timed_out_) co_return read_end::timed_out;
    if (failure) co_return read_end::closed;
    buffer_.commit(bytes);
    if (stage_ == stage::idle) {
      stage_ = stage::head;
      deadline_in(core_->options.header_timeout);
    }
  }
}

// Gives the parser what has come, and returns where more may come; nothing: `end` says why there is no more. What memory does
// not suffice for is dropped and refused as what is too much at once.
std::optional<asio::mutable_buffer> session::take_and_make_room(bool (request_parser::*reached)() const, read_end& end) {
  try {
    bool finished = false;
    end = feed(reached, finished);
    if (finished) return std::nullopt;
    return buffer_.prepare(stage_ == stage::body ? body_piece : head_piece);
  } catch (const std::bad_alloc&) {
    request_.body = {};
    failure_ = {};
    end = read_end::bad;
    return std::nullopt;
  }
}

// Gives the parser what is in the buffer. `finished`: it has reached what was wanted, or failed.
session::read_end session::feed(bool (request_parser::*reached)() const, bool& finished) {
  finished = true;
  while (buffer_.size() > 0 && !begins_last_chunk()) {
    boost::system::error_code failure;
    buffer_.consume(parser_->put(buffer_.data(), failure));
    if (failure == http::error::need_more) {
      // The parser limits the head; of a chunk's own head and of trailers it would wait for the end without
      // limit.
      if (buffer_.size() <= core_->options.header_bytes) break;
      failure = http::error::header_limit;
    }
    failure_ = failure;
    if (failure || !hold_body(request_.body.size())) return read_end::bad;
    if (((*parser_).*reached)()) return read_end::complete;
  }
  finished = false;
  return read_end::complete;
}

// The chunk of size 0 has begun, and is not all there. Beast's parser counts on having the whole of it once it has seen its size: a
// program that is built with assertions would end there. Waiting is no loss, since more must come.
bool session::begins_last_chunk() const {
  if (!parser_->head_done() || !parser_->chunked() || buffer_.size() >= end_of_chunks.size()) return false;
  const std::string_view unread(static_cast<const char*>(buffer_.data().data()), buffer_.size());
  return unread.starts_with("0") || unread.starts_with("\r\n0");
}

// Counts the body's memory; false when all connections together hold too much. Who sends to a hook without a token may be
// anybody until the signature of the whole body was looked at: all of them together get half of the room.
bool session::hold_body(std::size_t bytes) {
  if (bytes <= held_body_) return true;
  const std::size_t more = bytes - held_body_;
  const std::size_t most = core_->options.bodies_in_memory;
  if (core_->body_bytes + more > most || (stranger_ && core_->stranger_bytes + more > most / 2)) return false;
  core_->body_bytes += more;
  if (stranger_) core_->stranger_bytes += more;
  held_body_ += more;
  return true;
}

void session::release_body() {
  const std::size_t held = std::exchange(held_body_, 0);
  core_->body_bytes -= held;
  if (std::exchange(stranger_, false)) core_->stranger_bytes -= held;
}

// ---- what a request must be before its handler sees it ----

std::optional<response> session::check_head() {
  const std::string_view id = request_.header_value("x-request-id");
  if (fit_for_a_log(id)) {
    request_.id = id;
  } else {
    request_.id.resize(runtime::ulid_size);
    runtime::make_ulid(wall_now(), request_.id.data());
  }
  std::optional<response> refused = check_message();
  if (refused) {
    refused_ = true;
    return refused;
  }
  refused = find_route();
  if (!refused && core_->admit) refused = core_->admit(request_, route_->rules);
  if (!refused && route_->rules.needs == access::signed_body && !request_.token && !request_.trusted_peer) {
    stranger_ = true;
    core_->stranger_bytes += held_body_;  // what came with the head
  }
  if (!refused) refused = check_query();
  if (!refused) refused = check_body();
  if (refused) skip_arrived_body();
  return refused;
}

std::optional<response> session::check_message() {
  if (request_.version == 11 && parser_->hosts() != 1) {
    return problem_response(400, "malformed",
                            "an HTTP/1.1 request has exactly one Host header");  // RFC 9112 3.2
  }
  const std::string_view coding = request_.header_value("transfer-encoding");
  if (!coding.empty() && (request_.version == 10 || !same_letters(coding, "chunked"))) {
    return not_known(501, "not_supported",
                            "the only transfer coding known here is chunked, in HTTP/1.1");
  }
  return std::nullopt;
}

response session::options(const std::string& allow) const {
  response r{.status = 204};
  r.headers.emplace_back("Allow", allow);
  return r;
}

std::optional<response> session::find_route() {
  if (request_.method == http_method::other)
    return not_known(501, "not_supported", std::string("the methods known here are ") + all_methods);
  if (request_.path == "*") {
    if (request_.method == http_method::options) return options(all_methods);
    return problem_response(error{errc::malformed, "* is a target of OPTIONS only"});
  }
  const router::match found = core_->paths.find(request_.method, request_.path, request_.parameters);
  switch (found.what) {
    case router::outcome::found:
      route_ = &core_->routes[found.index];
      return std::nullopt;
    case router::outcome::not_found:
      return problem_response(error{errc::not_found, found.detail});
    case router::outcome::bad_path:
      return problem_response(error{errc::malformed, found.detail});
    case router::outcome::method_not_allowed:
      break;
  }
  if (request_.method == http_method::options) return options(found.allow);
  response r = problem_response(405, "method_not_allowed", found.detail);
  r.headers.emplace_back("Allow", found.allow);
  return r;
}

std::optional<response> session::check_query() {
  if (request_.query_text.empty()) return std::nullopt;
  auto parsed = parse_query(request_.query_text);
  if (!parsed) return problem_response(error{errc::malformed, "the query is not percent-encoded properly"});
  request_.query = std::move(*parsed);
  if (route_->rules.any_query) return std::nullopt;
  const std::vector<std::string>& known = route_->rules.query;
  for (auto q = request_.query.begin(); q != request_.query.end(); ++q) {
    if (std::find(known.begin(), known.end(), q->name) == known.end()) {
      std::string detail = "unknown query parameter " + config::in_quotes(q->name) + "; ";
      detail += known.empty() ? "this path takes none" : config::suggestion(q->name, known);
      return problem_response(error{errc::malformed, detail});
    }
    if (std::any_of(request_.query.begin(), q, [&](const query_parameter& o) { return o.name == q->name; })) {
      return problem_response(error{errc::malformed, "query parameter " + q->name + " is given twice"});
    }
  }
  return std::nullopt;
}

std::optional<response> session::check_body() {
  const endpoint_rules& rules = route_->rules;
  const std::size_t limit = rules.takes_events ? core_->options.event_body_bytes : core_->options.body_bytes;
  body_limit_ = limit;
  parser_->limit_body_to(limit);
  const auto length = parser_->content_length();
  if (length && *length > limit) {
    return problem_response(error{errc::too_large, "the body has " + std::to_string(*length) +
                                                       " bytes; the limit here is " + std::to_string(limit)});
  }
  if (rules.body_required && !length && !parser_->chunked()) {
    return problem_response(411, "length_required",
                            "a body is needed here, with Content-Length or in chunks");
  }
  if (auto refused = check_coding()) return refused;
  const std::string_view expect = request_.header_value("expect");
  if (!expect.empty() && !same_letters(expect, "100-continue")) {
    return problem_response(417, "expectation_failed", "the only expectation known here is 100-continue");
  }
  return std::nullopt;
}

std::optional<response> session::check_coding() {
  const std::string_view coding = request_.header_value("content-encoding");
  packed_body_ = same_letters(coding, "gzip") || same_letters(coding, "x-gzip");
  if (packed_body_ || coding.empty() || same_letters(coding, "identity")) return std::nullopt;
  response r = problem_response(error{errc::unsupported_media, "of content codings only gzip is read here, once"});
  r.headers.emplace_back("Accept-Encoding", "gzip");  // RFC 9110 section 15.5.16
  return r;
}

response session::refusal(read_end why) {
  refused_ = true;
  if (why == read_end::timed_out)
    return problem_response(408, "request_timeout", "the request came too slowly");
  if (why == read_end::closed) {
    gone_ = true;
    return problem_response(400, "malformed", "the connection ended within the request");
  }
  if (!failure_) return problem_response(error{errc::unavailable, "too many large requests at once", {}, 1});
  if (failure_ == http::error::body_limit)
    return problem_response(error{errc::too_large, "the body is too large"});
  const std::string_view unread(static_cast<const char*>(buffer_.data().data()), buffer_.size());
  if (failure_ == http::error::header_limit && parser_->target_too_long(unread)) {
    return problem_response(414, "target_too_long",
                            "the request line's target is longer than " + std::to_string(core_->options.target_bytes) + " bytes");
  }
  if (failure_ == http::error::header_limit) {
    return problem_response(
        431, "header_too_large",
        "the header is larger than " + std::to_string(core_->options.header_bytes) + " bytes");
  }
  if (failure_ == http::error::bad_version) {
    return not_known(505, "version_not_supported", "this server speaks HTTP/1.1 and HTTP/1.0");
  }
  return problem_response(400, "malformed", "not an HTTP request: " + failure_.message());
}

// A refused request's body is dropped when it is here already, so that the connection can go on. It is not
// waited for: the client may wait for the refusal.
void session::skip_arrived_body() {
  parser_->limit_body_to(small_body);
  bool finished = parser_->whole();
  if (!finished) feed(&request_parser::whole, finished);
}

// ---- writing ----

bool session::may_keep_open() const {
  return !core_->stopping && !refused_ && !gone_ && parser_->head_done() && parser_->whole() &&
         parser_->keep_alive();
}

void session::write_head(const response& reply, bool keep, bool chunked) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(reply.status));
  out_.clear();
  out_.append("HTTP/1.1 ").append(std::to_string(reply.status)).append(" ");
  out_.append(reason.data(), reason.size()).append("\r\nDate: ").append(core_->date()).append("\r\n");
  const bool no_content = reply.status == 204 || reply.status == 304;
  if (!no_content) out_.append("Content-Type: ").append(reply.content_type).append("\r\n");
  if (chunked) {
    out_ += "Transfer-Encoding: chunked\r\n";
  } else if (!no_content && !reply.stream) {
    out_.append("Content-Length: ").append(std::to_string(reply.body.size())).append("\r\n");
  }
  for (const auto& [name, value] : reply.headers) add_header(out_, name, value);
  if (!request_.id.empty()) out_.append("X-Request-Id: ").append(request_.id).append("\r\n");
  out_ += "X-Content-Type-Options: nosniff\r\n";
  if (!keep) {
    out_ += "Connection: close\r\n";
  } else if (request_.version == 10) {
    out_ += "Connection: keep-alive\r\n";
  }
  out_ += "\r\n";
}

// Large enough answers go in gzip to who takes it. What is read depends on that wish, also where this once it makes no
// difference: a cache has to know it of a small body, and of a 304 that stands for a large one.
asio::awaitable<void> session::choose_coding(response& reply) {
  const bool large = std::max(reply.body.size(), reply.unsent) >= worth_packing;
  const bool reads = request_.method == http_method::get || request_.method == http_method::head;
  if (!large && !(reads && (reply.status == 200 || reply.status == 304))) co_return;
  name_wish(reply);
  if (!large || !accepts_gzip(request_.header_value("accept-encoding"))) co_return;
  if (reply.status == 304) {
    mark_packed(reply);
  } else {
    co_await pack(reply);
  }
}

void session::mark_packed(response& reply) const {
  for (auto& [name, value] : reply.headers) {
    if (name == "ETag") value = packed_etag(value);
  }
}

void session::name_wish(response& reply) const {
  const auto varies = std::find_if(reply.headers.begin(), reply.headers.end(), [](const auto& h) { return h.first == "Vary"; });
  if (varies != reply.headers.end()) {
    varies->second += ", Accept-Encoding";
  } else {
    reply.headers.emplace_back("Vary", "Accept-Encoding");
  }
}

// In slices, at the fastest level, so that nobody else waits long.
asio::awaitable<void> session::pack(response& reply) {
  gzip_packer packer(reply.body);
  while (!packer.go_on()) co_await let_others_work();
  std::string packed = packer.take();
  if (packed.size() >= reply.body.size()) co_return;
  reply.body = std::move(packed);
  mark_packed(reply);
  reply.headers.emplace_back("Content-Encoding", "gzip");
}

session::sending session::begin_sending(const response& reply) {
  const bool body_wanted = request_.method != http_method::head && reply.status != 204 && reply.status != 304;
  sending now;
  now.streams = reply.stream && body_wanted;
  now.chunked = now.streams && request_.version == 11;
  now.keep = may_keep_open() && (!now.streams || now.chunked);
  unread_ = !now.keep && (refused_ || !parser_->whole() || buffer_.size() > 0);
  write_head(reply, now.keep, now.chunked);
  std::string_view body;
  if (body_wanted && !now.streams) body = reply.body;
  if (body.size() <= joined_body) {
    out_ += body;
    body = {};
  }
  now.data = {asio::buffer(out_), asio::buffer(body)};
  return now;
}

asio::awaitable<bool> session::send_rest(response& reply, sending now) {
  bool sent = co_await write(now.data);
  if (sent && now.streams) sent = co_await send_stream(*reply.stream, now.chunked);
  co_return sent;
}

asio::awaitable<bool> session::send_stream(body_stream& stream, bool chunked) {
  for (;;) {
    const std::string bytes = co_await stream.next();
    if (gone_) co_return false;
    if (bytes.empty()) break;
    const std::string size = chunked ? chunk_head(bytes.size()) : std::string();
    const std::string_view end = chunked ? "\r\n" : "";
    const pieces data{asio::buffer(size), asio::buffer(bytes), asio::buffer(end)};
    const bool sent = co_await write(data);
    if (!sent) co_return false;
  }
  if (!chunked) co_return true;
  const std::string_view last = "0\r\n\r\n";
  const pieces data{asio::buffer(last)};
  co_return co_await write(data);
}

// Null: it did not, and `reply` is what to answer instead.
asio::awaitable<std::shared_ptr<websocket_line>> session::become_websocket(response& reply) {
  if (watching_) co_await end_watch();
  if (buffer_.size() > 0) {
    refused_ = true;
    reply = problem_response(400, "malformed", "a client sends nothing before the answer to its handshake (RFC 6455, section 4.1)");
    co_return nullptr;
  }
  std::shared_ptr<websocket_line> line;
  if (!gone_) line = co_await accept_websocket(socket_, request_);
  if (line) co_return line;
  boost::system::error_code ignored;
  socket_.close(ignored);
  reply = refusal(read_end::closed);
  co_return nullptr;
}

// What the socket takes without waiting; `data` is then what is left. False: the connection is broken.
bool session::write_now(pieces& data) {
  boost::system::error_code failure;
  const std::size_t taken = socket_.write_some(data, failure);
  if (failure) return failure == asio::error::would_block || failure == asio::error::try_again;
  advance(data, taken);
  return true;
}

asio::awaitable<bool> session::write(pieces data) {
  if (!write_now(data)) co_return false;
  while (asio::buffer_size(data) > 0) {
    deadline_in(core_->options.body_timeout);
    const auto [failed, bytes] = co_await socket_.async_write_some(data, as_result);
    no_deadline();
    if (failed) co_return false;
    advance(data, bytes);
  }
  co_return true;
}

// Closing while bytes are unread would make the kernel send a reset, which can overtake the response; so they
// are read and dropped for a while (RFC 9112 section 9.6).
asio::awaitable<void> session::linger() {
  if (socket_.is_tls() || unread_) deadline_in(core_->stopping ? last_chance : core_->options.linger_timeout);
  timed_out_ = false;
  co_await socket_.end_sending();
  if (unread_ && !gone_ && !timed_out_) co_await socket_.drop_input(timed_out_);
  co_return;
}

void session::log(const response& reply, clock::time_point started) const {
  if (!reply.cause.empty()) {
    spdlog::warn("{} {} answered {}: {} (request {})", token(request_.method), request_.target, reply.status,
                 reply.cause, request_.id);
  } else if (spdlog::should_log(spdlog::level::debug)) {
    const auto lasted = std::chrono::duration_cast<std::chrono::microseconds>(clock::now() - started);
    spdlog::debug("{} {} answered {} in {} us (request {})", token(request_.method), request_.target,
                  reply.status, lasted.count(), request_.id);
  }
}

// ---- noticing that the client leaves while its request is worked on ----

void session::watch() {
  if (watching_ || buffer_.size() >= most_pipelined) return;
  watching_ = true;
  socket_.async_read_some(buffer_.prepare(head_piece),
                          [self = shared_from_this()](boost::system::error_code failure, std::size_t bytes) {
                            self->watched(failure, bytes);
                          });
}

void session::watched(boost::system::error_code failure, std::size_t bytes) {
  watching_ = false;
  if (!failure) buffer_.commit(bytes);
  if (watch_ends_) return watch_ended_->notify();
  if (!failure) return watch();
  if (failure == asio::error::operation_aborted) return;
  gone_ = true;
  request_.interrupted.raise();
}

asio::awaitable<void> session::end_watch() {
  watch_ends_ = true;
  boost::system::error_code ignored;
  socket_.cancel(ignored);
  while (watching_) co_await watch_ended_->wait();
  watch_ends_ = false;
}

}  // namespace penstock::api
