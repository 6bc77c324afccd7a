#include "config/parameters.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "config/in_quotes.hpp"
#include "config/place.hpp"

namespace penstock::config {
namespace {

constexpr std::array<std::pair<parameter_type, std::string_view>, 6> tokens{
    {{parameter_type::string, "string"},
     {parameter_type::integer, "integer"},
     {parameter_type::number, "number"},
     {parameter_type::boolean, "boolean"},
     {parameter_type::list, "list"},
     {parameter_type::object, "object"}}};

// A value of JSON takes anything, so the result must be told which of the two it gets.
result<value> fine(value v) { return result<value>(boost::system::in_place_value, std::move(v)); }

std::string shown(const value& v) {
  constexpr std::size_t most = 60;
  const std::string text = v.dump(-1, ' ', false, value::error_handler_t::replace);
  if (text.size() <= most) return text;
  std::size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not inside a character
  return text.substr(0, end) + "…";
}

// A number without a fraction that fits in 64 bits with a sign, however it was written.
std::optional<std::int64_t> integer_in(const value& v) {
  constexpr double beyond = 9223372036854775808.0;  // 2^63
  if (v.is_number_unsigned()) {
    const auto n = v.get<std::uint64_t>();
    return n <= INT64_MAX ? std::optional(static_cast<std::int64_t>(n)) : std::nullopt;
  }
  if (v.is_number_integer()) return v.get<std::int64_t>();
  if (!v.is_number_float()) return std::nullopt;
  const double n = v.get<double>();
  if (!(n >= -beyond && n < beyond) || n != std::trunc(n)) return std::nullopt;
  return static_cast<std::int64_t>(n);
}

bool fits(parameter_type type, const value& v) {
  switch (type) {
    case parameter_type::string:
      return v.is_string();
    case parameter_type::integer:
      return integer_in(v).has_value();
    case parameter_type::number:
      return v.is_number() && std::isfinite(v.get<double>());
    case parameter_type::boolean:
      return v.is_boolean();
    case parameter_type::list:
      return v.is_array();
    case parameter_type::object:
      return v.is_object();
  }
  throw std::logic_error("unknown parameter type");
}

std::string with_article(parameter_type type) {
  const bool vowel = type == parameter_type::integer || type == parameter_type::object;
  return (vowel ? "an " : "a ") + std::string(token(type));
}

std::size_t characters_of(const std::string& utf8) {
  return static_cast<std::size_t>(std::count_if(
      utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string number_text(double n) {
  const bool whole = std::abs(n) < 1e15 && n == std::trunc(n);
  return whole ? std::to_string(static_cast<std::int64_t>(n)) : value(n).dump();
}

std::optional<std::string> bound_fault(const parameter& p, const value& v) {
  if (!p.minimum && !p.maximum) return std::nullopt;
  std::string what = "must be ";
  double amount = 0;
  if (v.is_string()) {
    amount = static_cast<double>(characters_of(v.get_ref<const std::string&>()));
    what = "its number of characters must be ";
  } else if (v.is_array()) {
    amount = static_cast<double>(v.size());
    what = "its number of items must be ";
  } else if (v.is_number()) {
    amount = v.get<double>();
  } else {
    return std::nullopt;
  }
  const bool low = p.minimum && amount < *p.minimum;
  const bool high = p.maximum && amount > *p.maximum;
  if (!low && !high) return std::nullopt;
  if (p.minimum && p.maximum) {
    what += "from " + number_text(*p.minimum) + " to " + number_text(*p.maximum);
  } else {
    what += low ? "at least " + number_text(*p.minimum) : "at most " + number_text(*p.maximum);
  }
  return what + ", not " + number_text(amount);
}

std::optional<std::string> choice_fault(const parameter& p, const value& v) {
  constexpr std::size_t shown_choices = 12;
  const bool possible = std::find(p.choices.begin(), p.choices.end(), v) != p.choices.end();
  if (p.choices.empty() || possible) return std::nullopt;
  std::string all;
  for (std::size_t i = 0; i < std::min(p.choices.size(), shown_choices); ++i) {
    all += (i ? ", " : "") + shown(p.choices[i]);
  }
  return "must be one of " + all + (p.choices.size() > shown_choices ? ", …" : "") + ", not " + shown(v);
}

std::vector<std::string> names_of(const std::vector<parameter>& params) {
  std::vector<std::string> out;
  for (const parameter& p : params) out.push_back(p.name);
  return out;
}

class parameter_check {
 public:
  parameter_check(const job& of, const value& given) : job_(of), given_(given), names_(names_of(of.params)) {}

  result<value> outcome() {
    for (const auto& [name, v] : given_.items()) look_for_unknown(name);
    value out = value::object();
    for (const parameter& p : job_.params) take(p, out);
    if (problems_.empty()) return fine(std::move(out));
    const problem& first = problems_.front();
    return error{.code = errc::invalid, .detail = first.pointer + ": " + first.detail, .problems = problems_};
  }

 private:
  void wrong(const std::string& name, std::string detail) {
    if (problems_.size() >= problem_list::most) return;
    problems_.push_back({.pointer = "/params/" + pointer_part(name), .detail = std::move(detail)});
  }

  void look_for_unknown(const std::string& name) {
    if (std::find(names_.begin(), names_.end(), name) != names_.end()) return;
    if (problems_.size() >= problem_list::most) return;
    if (names_.empty()) {
      wrong(name, "unknown parameter " + in_quotes(name) + "; the job takes none");
      return;
    }
    meant_.push_back(nearest(name, names_));
    wrong(name, "unknown parameter " + in_quotes(name) + "; " + suggestion(name, names_));
  }

  void take(const parameter& p, value& out) {
    const auto found = given_.find(p.name);
    if (found == given_.end()) {
      // One slip is one problem: what is meant by a misspelt name is not missing.
      const bool meant = std::find(meant_.begin(), meant_.end(), p.name) != meant_.end();
      if (p.fallback) {
        out[p.name] = *p.fallback;
      } else if (!meant) {
        wrong(p.name, "is missing: " + with_article(p.type) + (p.doc.empty() ? "" : " (" + p.doc + ")"));
      }
      return;
    }
    if (auto fault = parameter_fault(p, *found)) {
      wrong(p.name, *fault);
    } else {
      out[p.name] = parameter_value(p, *found);
    }
  }

  const job& job_;
  const value& given_;
  std::vector<std::string> names_;
  std::vector<std::string> meant_;
  std::vector<problem> problems_;
};

}  // namespace

std::string parameter_variable(std::string_view name) {
  std::string out = "PENSTOCK_PARAM_";
  for (const char c : name) {
    const bool lower = c >= 'a' && c <= 'z';
    const bool kept = (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    out += lower ? static_cast<char>(c - 'a' + 'A') : kept ? c : '_';
  }
  return out;
}

std::string_view token(parameter_type type) {
  for (const auto& [known, word] : tokens) {
    if (known == type) return word;
  }
  throw std::logic_error("unknown parameter type");
}

std::optional<parameter_type> parse_parameter_type(std::string_view word) {
  for (const auto& [type, known] : tokens) {
    if (known == word) return type;
  }
  return std::nullopt;
}

std::optional<std::string> parameter_fault(const parameter& declared, const value& given) {
  if (!fits(declared.type, given)) return "must be " + with_article(declared.type) + ", not " + shown(given);
  if (auto fault = bound_fault(declared, given)) return fault;
  return choice_fault(declared, given);
}

value parameter_value(const parameter& declared, const value& given) {
  return declared.type == parameter_type::integer ? value(integer_in(given).value()) : given;
}

result<value> check_parameters(const job& of, const value& given) {
  static const value none = value::object();
  const value& params = given.is_null() ? none : given;
  if (!params.is_object()) {
    const std::string detail = "must be an object, not " + shown(params);
    const problem found{"/params", 0, 0, detail};
    return error{.code = errc::invalid, .detail = "/params: " + detail, .problems = {found}};
  }
  if (of.free_params) return fine(params);
  return parameter_check(of, params).outcome();
}

}  // namespace penstock::config
