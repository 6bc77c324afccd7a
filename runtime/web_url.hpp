// URLs of servers that a definition calls, over HTTP or WebSocket: checked, and taken apart. Pure, any thread.
//
// Strict where a URL says who is called: what is refused here libcurl or a name server would refuse later, with fewer words. A
// host is an IPv6 address in brackets, with a zone if need be (RFC 6874), or a name: RFC 3986's unreserved characters in parts
// that DNS allows (RFC 1035, section 2.3.4), as which all forms of an IPv4 address pass. Names beyond ASCII must be written in
// their xn-- form: libcurl would translate them by the locale, and the daemon sets none. A port is 1 to 65535; an empty one is
// the scheme's own. libcurl calls x for http:///x; here it names no host, as in RFC 9110, section 4.2.1.
//
// Lenient as libcurl is where a URL is only passed on: user, path, query and fragment may hold all but blanks and control
// characters. RFC 3986 wants {} [] | ^ ` " < > \, letters beyond ASCII and a % without its digits escaped; people write
// them as they are, above all in queries, and servers take them.
#pragma once

#include <string>
#include <string_view>

namespace penstock::runtime {

struct web_url {
  bool tls = false;
  bool user = false;   // a user, perhaps with a password, stands before the host
  std::string host;    // without the brackets of an IPv6 address, and its zone
  std::string zone;    // "eth0": of an IPv6 address that several networks may have; mostly empty
  std::string port;    // "80"
  std::string target;  // path and query

  std::string host_header() const;
};

// `scheme` is "ws" or "http"; the same with an s is with TLS. Capitals mean the same (RFC 3986, section 3.1). Throws
// std::runtime_error, "url 'SHOWN': why", which shows nothing else of the URL.
web_url parse_web_url(std::string_view url, std::string_view scheme, const std::string& shown);

// The same of a URL as it is written in a definition: what its secret references stand for is not known, so of one that has
// any only the scheme is checked.
void check_written_url(const std::string& written, std::string_view scheme);

}  // namespace penstock::runtime
