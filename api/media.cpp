#include "api/media.hpp"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "api/http.hpp"

namespace penstock::api {

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

int quality_of(std::string_view parameters) {
  while (!parameters.empty()) {
    const std::string_view one = trimmed(parameters.substr(0, parameters.find(';')));
    parameters.remove_prefix(std::min(parameters.size(), parameters.find(';') == parameters.npos ? parameters.size() : parameters.find(';') + 1));
    if (one.size() < 3 || (one[0] != 'q' && one[0] != 'Q') || one[1] != '=') continue;
    double value = 1;
    const auto [end, failure] = std::from_chars(one.data() + 2, one.data() + one.size(), value, std::chars_format::fixed);
    if (failure != std::errc{} || end != one.data() + one.size() || !(value >= 0) || value > 1) return 1000;
    return static_cast<int>(value * 1000 + 0.5);
  }
  return 1000;
}

namespace {

// 3: exactly this type, 2: its kin (+json), 1: its family, 0: anything; -1: another.
int closeness(std::string_view range, std::string_view offer) {
  if (range == offer || (is_yaml(range) && is_yaml(offer))) return 3;
  if (range == json_type && is_json(offer)) return 2;
  if (range == "*/*") return 0;
  const bool family = range.ends_with("/*") && offer.starts_with(range.substr(0, range.size() - 1));
  return family ? 1 : -1;
}

struct wish {
  int closeness = -1, quality = 0, place = 0;
};

// The most exact range that the offer falls under decides about it.
wish wish_for(std::string_view accept, std::string_view offer) {
  wish best;
  for (int place = 0; !accept.empty(); ++place) {
    const std::string_view range = accept.substr(0, accept.find(','));
    accept.remove_prefix(std::min(accept.size(), range.size() + 1));
    const std::size_t parameters = range.find(';');
    const int close = closeness(bare_type(range), offer);
    if (close <= best.closeness) continue;
    best = {close, parameters == range.npos ? 1000 : quality_of(range.substr(parameters + 1)), place};
  }
  return best;
}

}  // namespace

std::string bare_type(std::string_view content_type) {
  return lower(trimmed(content_type.substr(0, content_type.find(';'))));
}

bool is_yaml(std::string_view bare) {
  return bare == yaml_type || bare == "application/x-yaml" || bare == "text/yaml" || bare == "text/x-yaml";
}

bool is_json(std::string_view bare) { return bare == json_type || bare == "text/json" || bare.ends_with("+json"); }

bool says_nothing(std::string_view bare) {
  return bare.empty() || bare == "application/x-www-form-urlencoded" || bare == "text/plain" || bare == "application/octet-stream";
}

std::optional<std::string_view> best_offer(std::string_view accept, std::span<const std::string_view> offers) {
  if (trimmed(accept).empty()) return offers.front();
  std::optional<std::string_view> best;
  std::tuple<int, int, int> highest;
  for (const std::string_view offer : offers) {
    const wish w = wish_for(accept, bare_type(offer));
    if (w.closeness < 0 || w.quality == 0) continue;
    const std::tuple rank(w.quality, w.closeness, -w.place);
    if (best && rank <= highest) continue;
    best = offer;
    highest = rank;
  }
  return best;
}

std::string media_list(std::span<const std::string_view> types) {
  std::string list;
  for (const std::string_view type : types) {
    if (!list.empty()) list += ", ";
    list += type.substr(0, type.find(';'));
  }
  return list;
}

}  // namespace penstock::api
