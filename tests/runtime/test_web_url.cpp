// URLs of servers: what is accepted and who is called then, what is refused and with which words. That libcurl takes what is
// accepted, and calls the same, is tried by tests/fuzz/fuzz_url.cpp.
#include <stdexcept>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/http_client.hpp"
#include "runtime/web_url.hpp"

namespace test_web_url {

using namespace penstock::runtime;

namespace {

// Empty: accepted.
std::string why_refused(const std::string& url) {
  try {
    require_http_url(url, "SHOWN");
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return {};
}

std::string of(std::size_t count, char c = 'a') { return std::string(count, c); }

struct accepted {
  std::string url;
  std::string host;
  std::string port;
  std::string target;
  bool user = false;
};

struct refused {
  std::string url;
  const char* why;
};

}  // namespace

TEST_CASE("URLs are taken apart as they should", "[url]") {
  const web_url plain = parse_web_url("ws://example.com", "ws", "U");
  CHECK((!plain.tls && !plain.user && plain.host == "example.com" && plain.port == "80" && plain.target == "/"));
  CHECK(plain.host_header() == "example.com");
  const web_url full = parse_web_url("https://[::1]:8443/a/b?c=d#e", "http", "U");
  CHECK((full.tls && full.host == "::1" && full.port == "8443" && full.target == "/a/b?c=d"));
  CHECK(full.host_header() == "[::1]:8443");
  CHECK(parse_web_url("WSS://h?x", "ws", "U").target == "/?x");
  for (const char* written : {"ws://[fe80::1%25eth0]:81", "ws://[fe80::1%eth0]:81"}) {
    const web_url near = parse_web_url(written, "ws", "U");
    CHECK((near.host == "fe80::1" && near.zone == "eth0"));
    CHECK(near.host_header() == "[fe80::1]:81");  // RFC 6874, section 3: the zone is nobody else's business
  }
  CHECK(parse_web_url("WSS://h?x", "ws", "U").tls);
  CHECK(parse_web_url("https://h:0443/", "http", "U").host_header() == "h");
  CHECK_THROWS_WITH(parse_web_url("http://h", "ws", "U"), "url 'U': must begin with ws:// or wss://");
}

TEST_CASE("URLs that people write are accepted", "[url][http]") {
  const std::string longest = of(63) + '.' + of(63) + '.' + of(63) + '.' + of(61);
  for (const accepted& a : std::vector<accepted>{
           {"http://localhost:9000/bulk", "localhost", "9000", "/bulk"},
           {"https://a.b-c.example/x/y?z=1&w=%20#f", "a.b-c.example", "443", "/x/y?z=1&w=%20"},
           {"http://my_service", "my_service", "80", "/"},
           {"http://a.example./", "a.example.", "80", "/"},
           {"http://xn--bcher-kva.example/", "xn--bcher-kva.example", "80", "/"},
           {"http://" + longest + "/", longest, "80", "/"},
           {"HTTP://A/", "A", "80", "/"},
           {"Https://a", "a", "443", "/"},
           {"http://a:/", "a", "80", "/"},
           {"http://a:00080?q", "a", "80", "/?q"},
           {"http://a:1", "a", "1", "/"},
           {"http://a:65535#f", "a", "65535", "/"},
           {"http://127.0.0.1:9/", "127.0.0.1", "9", "/"},
           {"http://127.1/", "127.1", "80", "/"},
           {"http://[::1]/", "::1", "80", "/"},
           {"http://[::ffff:1.2.3.4]:/", "::ffff:1.2.3.4", "80", "/"},
           {"http://[fe80::1%25eth0]:81/", "fe80::1", "81", "/"},
           {"http://[fe80::1%eth0]/", "fe80::1", "80", "/"},
           {"http://u@a/", "a", "80", "/", true},
           {"http://u:p:q@a:81/@b", "a", "81", "/@b", true},
           {"http://:p@a/", "a", "80", "/", true},
           {"http://a/@b", "a", "80", "/@b"},
           {"http://u%40x:p|^{w}\"\\%zz\xc3\xbc@a/", "a", "80", "/", true},
           // What RFC 3986 wants escaped.
           {"http://a/{b}|^`\"<>\\[c]", "a", "80", "/{b}|^`\"<>\\[c]"},
           {"http://a/?q=a|b&c[]={d}&e=\"<f>\"", "a", "80", "/?q=a|b&c[]={d}&e=\"<f>\""},
           {"http://a/\xc3\xbc?\xc3\xbc=\xff#\xc3\xbc", "a", "80", "/\xc3\xbc?\xc3\xbc=\xff"},
           {"http://a/%?%4%zz%00", "a", "80", "/%?%4%zz%00"},
           {"http://a/#b#c", "a", "80", "/"},
       }) {
    INFO(a.url);
    CHECK(why_refused(a.url) == "");
    const web_url parsed = parse_web_url(a.url, "http", "SHOWN");
    CHECK(parsed.host == a.host);
    CHECK(parsed.port == a.port);
    CHECK(parsed.target == a.target);
    CHECK(parsed.user == a.user);
  }
}

TEST_CASE("what is no URL of HTTP is refused, and the words are ours alone", "[url][http]") {
  const char* const scheme = "must begin with http:// or https://";
  const char* const blank = "holds a blank or a control character";
  const char* const no_host = "names no host";
  const char* const bad_host = "the host is neither a name nor an address";
  const char* const ascii = "the host has letters beyond ASCII; write it in its xn-- form";
  const char* const at = "the host holds an @; in a user or password it is written %40";
  const char* const port = "the port is no number from 1 to 65535 (an IPv6 address stands in [])";
  const char* const behind = "has something other than a port behind the ]";
  const char* const ipv6 = "what stands in [] is no IPv6 address";
  for (const refused& r : std::vector<refused>{
           {"", scheme},
           {"a", scheme},
           {"http", scheme},
           {"http:/a", scheme},
           {"http:a", scheme},
           {"http:\\\\a", scheme},
           {" http://a", scheme},
           {"ftp://a", scheme},
           {"ws://a", scheme},
           {"httpss://a", scheme},
           {"http://a b/", blank},
           {"http://a/ ", blank},
           {"http://a/b c", blank},
           {"http://a/?b c", blank},
           {"http://a/#b c", blank},
           {"http://u:p w@a/", blank},
           {"http://a/\n", blank},
           {"http://a\t/", blank},
           {"http://a/\x7f", blank},
           {"http://a/\x1f", blank},
           {std::string("http://a/\0b", 11), blank},
           {std::string("http://a\0/", 10), blank},
           {"http://", no_host},
           {"http:///x", no_host},
           {"http:////x", no_host},
           {"http://?x", no_host},
           {"http://#x", no_host},
           {"http://:80/", no_host},
           {"http://u:p@/", no_host},
           {"http://u@:80/", no_host},
           {"http://./", bad_host},
           {"http://a..b/", bad_host},
           {"http://.a/", bad_host},
           {"http://*.a/", bad_host},
           {"http://$HOST/", bad_host},
           {"http://{host}/", bad_host},
           {"http://a|b/", bad_host},
           {"http://a,b/", bad_host},
           {"http://a\\b/", bad_host},
           {"http://a%41/", bad_host},
           {"http://a%/", bad_host},
           {"http://]/", bad_host},
           {"http://" + of(64) + ".example/", bad_host},
           {"http://" + of(63) + '.' + of(63) + '.' + of(63) + '.' + of(62) + "/", bad_host},
           {"http://b\xc3\xbc" "cher.example/", ascii},
           {"http://a\xff/", ascii},
           {"http://a\xc2\xa0/", ascii},
           {"http://u:p@ss@a/", at},
           {"http://u@v@a/", at},
           {"http://u:%00@a/", "the user or password holds a %00"},
           {"http://a:0/", port},
           {"http://a:65536/", port},
           {"http://a:99999999999999999999/", port},
           {"http://a:x/", port},
           {"http://a:8x", port},
           {"http://a:-1/", port},
           {"http://a:+80/", port},
           {"http://a:80:80/", port},
           {"http://u:p/w@a/", port},
           {"http://::1/", port},
           {"http://::1]/", port},
           {"http://[::1]:x/", port},
           {"http://[::1", "has a [ without its ]"},
           {"http://[::1]80/", behind},
           {"http://[::1]x:80/", behind},
           {"http://[]/", ipv6},
           {"http://[:::1]/", ipv6},
           {"http://[12345::]/", ipv6},
           {"http://[a]/", ipv6},
           {"http://[127.0.0.1]/", ipv6},
           {"http://[v1.x]/", ipv6},
           {"http://[fe80::1%]/", ipv6},
           {"http://[fe80::1%2516bytesofazoneid]/", ipv6},
       }) {
    INFO(r.url);
    CHECK(why_refused(r.url) == std::string("url 'SHOWN': ") + r.why);
  }
}

TEST_CASE("of a URL with secret references only the scheme is known", "[url][http]") {
  for (const char* fine : {"${env:URL}", "${env:URL} /", "http://${secret:host}/", "HTTPS://${secret:user}@a:0/", "http://a"}) {
    INFO(fine);
    CHECK_NOTHROW(require_http_url(fine));
  }
  CHECK_THROWS_WITH(require_http_url("ftp://${env:HOST}"), "url 'ftp://${env:HOST}': must begin with http:// or https://");
  CHECK_THROWS_WITH(require_http_url("http://"), "url 'http://': names no host");
  CHECK_NOTHROW(check_written_url("wss://${env:HOST}", "ws"));
  CHECK_THROWS_WITH(check_written_url("http://${env:HOST}", "ws"), "url 'http://${env:HOST}': must begin with ws:// or wss://");
}

}  // namespace test_web_url
