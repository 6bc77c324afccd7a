#include "api/problem.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "api/json.hpp"
#include "api/media.hpp"
#include "config/in_quotes.hpp"

namespace penstock::api {

namespace {

std::string_view type_of(errc code) {
  switch (code) {
    case errc::invalid:
      return "invalid";
    case errc::malformed:
      return "malformed";
    case errc::unauthorized:
      return "unauthorized";
    case errc::forbidden:
      return "forbidden";
    case errc::not_found:
      return "not_found";
    case errc::conflict:
      return "conflict";
    case errc::precondition_failed:
      return "precondition_failed";
    case errc::too_large:
      return "too_large";
    case errc::unsupported_media:
      return "unsupported_media";
    case errc::overloaded:
      return "overloaded";
    case errc::unavailable:
      return "unavailable";
  }
  return "internal";
}

// "not_found" -> "Not found"
std::string title_of(std::string_view type) {
  std::string title(type);
  std::replace(title.begin(), title.end(), '_', ' ');
  if (!title.empty() && title[0] >= 'a' && title[0] <= 'z')
    title[0] = static_cast<char>(title[0] - 'a' + 'A');
  return title;
}

response document_response(int status, std::string_view type, const std::string& detail,
                           const std::vector<problem>& problems) {
  json document{{"type", "/problems/" + std::string(type)},
                {"title", title_of(type)},
                {"status", status},
                {"detail", detail}};
  if (!problems.empty()) {
    json& errors = document["errors"] = json::array();
    for (const problem& p : problems) errors.push_back(to_json(p));
  }
  response r{.status = status, .content_type = "application/problem+json", .body = to_text(document) + "\n"};
  if (status >= 500) r.cause = detail;
  return r;
}

}  // namespace

int http_status(errc code) {
  switch (code) {
    case errc::invalid:
      return 422;
    case errc::malformed:
      return 400;
    case errc::unauthorized:
      return 401;
    case errc::forbidden:
      return 403;
    case errc::not_found:
      return 404;
    case errc::conflict:
      return 409;
    case errc::precondition_failed:
      return 412;
    case errc::too_large:
      return 413;
    case errc::unsupported_media:
      return 415;
    case errc::overloaded:
      return 429;
    case errc::unavailable:
      return 503;
  }
  return 500;
}

response problem_response(const error& e) {
  response r = document_response(http_status(e.code), type_of(e.code), e.detail, e.problems);
  const bool again = e.code == errc::overloaded || e.code == errc::unavailable;
  if (again || e.retry_after_s > 0)
    r.headers.emplace_back("Retry-After", std::to_string(std::max(1, e.retry_after_s)));
  // RFC 9110 section 11.6.1: a 401 names a scheme.
  if (e.code == errc::unauthorized) r.headers.emplace_back("WWW-Authenticate", "Signature");
  return r;
}

response not_acceptable(const request& r, std::span<const std::string_view> offers) {
  return problem_response(406, "not_acceptable",
                          "nothing of what Accept asks for (" + config::in_quotes(r.header_list("accept")) +
                              ") is made here; there is: " + media_list(offers));
}

response problem_response(int status, std::string_view token, std::string detail) {
  return document_response(status, token, detail, {});
}

}  // namespace penstock::api
