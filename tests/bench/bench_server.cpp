// The floor under "one event per POST": a bare Beast server on one thread that reads each request whole and answers as penstockd
// answers a durable event, with the same head and as many bytes, but keeps nothing. Listens on a free port of 127.0.0.1, prints
// the number, and serves until its standard input ends.
#include <cstdio>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

// One connection; owns itself while an operation of it is under way.
class session : public std::enable_shared_from_this<session> {
 public:
  explicit session(tcp::socket socket) : socket_(std::move(socket)) { socket_.set_option(tcp::no_delay(true)); }

  void read() {
    request_ = {};
    http::async_read(socket_, buffer_, request_, [self = shared_from_this()](beast::error_code failure, std::size_t) {
      if (!failure) self->answer();
    });
  }

 private:
  void answer() {
    answer_ = {http::status::accepted, 11};
    answer_.set(http::field::server, "bare");
    answer_.set(http::field::content_type, "application/json");
    answer_.body() = R"({"accepted":1,"duplicates":0,"first_offset":1234567,"last_offset":1234567})";
    answer_.prepare_payload();
    http::async_write(socket_, answer_, [self = shared_from_this()](beast::error_code failure, std::size_t) {
      if (!failure) self->read();
    });
  }

  tcp::socket socket_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response<http::string_body> answer_;
};

void accept(tcp::acceptor& acceptor) {
  acceptor.async_accept([&acceptor](beast::error_code failure, tcp::socket socket) {
    if (!failure) std::make_shared<session>(std::move(socket))->read();
    if (acceptor.is_open()) accept(acceptor);
  });
}

}  // namespace

int main() {
  asio::io_context context(1);
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  std::printf("%d\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  accept(acceptor);
  asio::posix::stream_descriptor input(context, ::dup(STDIN_FILENO));
  char ignored = 0;
  input.async_read_some(asio::buffer(&ignored, 1), [&context](beast::error_code, std::size_t) { context.stop(); });
  context.run();
  return 0;
}
