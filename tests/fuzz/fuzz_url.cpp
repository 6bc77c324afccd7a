// URLs: what is accepted, libcurl accepts too, and it calls the same host and port; what is refused is told without the URL.
// Input: a URL, one line.
#include <algorithm>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <strings.h>

#include "runtime/web_url.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

using curl_url = std::unique_ptr<CURLU, void (*)(CURLU*)>;

std::string part(const curl_url& of, CURLUPart which) {
  char* text = nullptr;
  const CURLUcode code = curl_url_get(of.get(), which, &text, CURLU_DEFAULT_PORT);
  const std::string out = code == CURLUE_OK ? text : "";
  curl_free(text);
  return out;
}

bool same_ipv6(const std::string& ours, const std::string& in_brackets) {
  in6_addr a{}, b{};
  const std::string theirs = in_brackets.substr(1, in_brackets.size() - 2);
  return ::inet_pton(AF_INET6, ours.substr(0, ours.find('%')).c_str(), &a) == 1 && ::inet_pton(AF_INET6, theirs.c_str(), &b) == 1 &&
         std::equal(std::begin(a.s6_addr), std::end(a.s6_addr), std::begin(b.s6_addr));
}

}  // namespace

void try_input(std::string_view text) {
  const std::string url(take_line(text));
  runtime::web_url ours;
  try {
    ours = runtime::parse_web_url(url, "http", "SHOWN");
  } catch (const std::runtime_error& refused) {
    const std::string_view why = refused.what();
    require(why.starts_with("url 'SHOWN': ") && why.size() > std::string_view("url 'SHOWN': ").size(), "a refusal says why", why);
    return;
  }
  require(ours.target.starts_with('/') && ours.target.find('#') == ours.target.npos, "a target is one", ours.target);
  const curl_url theirs(::curl_url(), curl_url_cleanup);
  const CURLUcode code = curl_url_set(theirs.get(), CURLUPART_URL, url.c_str(), 0);
  require(code == CURLUE_OK, "libcurl accepts it", url);
  require(part(theirs, CURLUPART_SCHEME) == (ours.tls ? "https" : "http"), "libcurl speaks the same", url);
  require(part(theirs, CURLUPART_PORT) == ours.port, "libcurl calls the same port", url);
  const std::string host = part(theirs, CURLUPART_HOST);
  const bool number = ours.host.front() >= '0' && ours.host.front() <= '9';  // 127.1 is 127.0.0.1 there
  const bool same = host.starts_with('[') ? same_ipv6(ours.host, host) : number || ::strcasecmp(host.c_str(), ours.host.c_str()) == 0;
  require(same, "libcurl calls the same host", url + " " + host);
}

}  // namespace penstock::fuzz
