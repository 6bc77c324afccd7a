// Paths and queries of requests: decoded without ever leaving their place, and what we encode is read as it was.
#include <string>
#include <vector>

#include "api/http.hpp"
#include "api/parameters.hpp"
#include "api/router.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

api::router make_router() {
  api::router all;
  int index = 0;
  for (const char* pattern : {"/v1/pipelines", "/v1/pipelines/{name}", "/v1/pipelines/{name}/flows/{flow}", "/v1/topics/{topic}/events",
                              "/v1/runs/{id}/logs", "/hooks/{path...}", "/healthz"}) {
    all.add(index++ % 2 == 0 ? api::http_method::get : api::http_method::post, pattern);
  }
  return all;
}

void try_path(std::string_view path) {
  static const api::router all = make_router();
  for (const auto method : {api::http_method::get, api::http_method::post, api::http_method::options}) {
    std::vector<api::path_parameter> parameters;
    const api::router::match found = all.find(method, path, parameters);
    require((found.what == api::router::outcome::found) == found.detail.empty(), "a refusal says why");
    if (found.what != api::router::outcome::found) continue;
    for (const auto& p : parameters) {
      require(!p.value.empty() && p.value.find('\0') == std::string::npos, "a parameter is a name");
      require(p.value != "." && p.value != "..", "nobody sees a step out of a folder");
      require(("/" + p.value + "/").find("/../") == std::string::npos, "nobody sees a step out of a folder", p.value);
      require(p.name == "path" || p.value.find('/') == std::string::npos, "%2F never separates", p.value);
    }
  }
}

void try_cursor(std::string_view text) {
  require(api::base64url_decode(api::base64url(text)) == text, "base64url is read as it is written");
  if (const auto bytes = api::base64url_decode(text)) require(api::base64url(*bytes) == text, "there is one base64url of each text");
  api::request r;
  r.query = {{"cursor", std::string(text)}, {"limit", "7"}};
  const auto page = api::read_page(r, "runs");
  if (page && !text.empty()) require(api::make_cursor("runs", page->after) == text, "a cursor is one that was made here");
  if (text.empty()) return;
  r.query = {{"cursor", api::make_cursor("runs", text)}};
  const auto made = api::read_page(r, "runs");
  require(made && made->after == text, "a cursor is read as it was made");
}

}  // namespace

void try_input(std::string_view text) {
  require(api::percent_decode(api::percent_encode(text)) == text, "what is encoded is read as it was");
  const std::size_t mark = text.find('?');
  try_path(text.substr(0, mark));
  if (mark != text.npos) {
    if (const auto query = api::parse_query(text.substr(mark + 1))) {
      std::string again;
      for (const auto& q : *query) again += (again.empty() ? "" : "&") + api::percent_encode(q.name) + "=" + api::percent_encode(q.value);
      const auto same = api::parse_query(again);
      require(same && same->size() == query->size(), "a query is read as it is written", again);
      for (std::size_t i = 0; i < query->size(); ++i) {
        require((*same)[i].name == (*query)[i].name && (*same)[i].value == (*query)[i].value, "a query is read as it is written", again);
      }
    }
  }
  try_cursor(text);
}

}  // namespace penstock::fuzz
