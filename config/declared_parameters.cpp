#include "config/declared_parameters.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include <nlohmann/json.hpp>

#include "config/in_quotes.hpp"
#include "config/parameters.hpp"
#include "config/scalar.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

constexpr std::size_t most_compared = 1'000;  // choices; of more of them, doubles cost too long to find

parameter_type type_of(const node& written) {
  const value v = json_of(written);
  if (v.is_number_integer()) return parameter_type::integer;
  if (v.is_number()) return parameter_type::number;
  if (v.is_boolean()) return parameter_type::boolean;
  if (v.is_array()) return parameter_type::list;
  return v.is_object() ? parameter_type::object : parameter_type::string;
}

const node* default_of(const node& written) {
  if (written.type == node::kind::mapping) return written.find("default");
  return written.type == node::kind::null ? nullptr : &written;
}

const node* first_choice_of(const node& written) {
  const node* choices = written.find("choices");
  return choices && !choices->items.empty() ? &choices->items.front() : nullptr;
}

// Nothing when the type is written and is none.
std::optional<parameter_type> declared_type(const node& written) {
  if (const node* type = written.find("type")) return parse_parameter_type(type->text);
  if (const node* fallback = default_of(written)) return type_of(*fallback);
  if (const node* choice = first_choice_of(written)) return type_of(*choice);
  return parameter_type::string;
}

parameter bare(const std::string& name, parameter_type type) {
  parameter p;
  p.name = name;
  p.type = type;
  return p;
}

// As elsewhere, an unquoted number or boolean is taken for its text where a string belongs.
value value_in(const node& written, const parameter& p) {
  if (p.type == parameter_type::string && written.type == node::kind::scalar) return written.text;
  value v = json_of(written);
  return parameter_fault(bare(p.name, p.type), v) ? v : parameter_value(p, v);
}

std::optional<double> bound_of(const node& written, std::string_view key) {
  const node* bound = written.find(key);
  return bound ? number_of(*bound) : std::nullopt;
}

parameter parameter_of(const std::string& name, const node& written) {
  parameter p = bare(name, declared_type(written).value_or(parameter_type::string));
  if (const node* fallback = default_of(written)) p.fallback = value_in(*fallback, p);
  if (const node* choices = written.find("choices")) {
    for (const node& choice : choices->items) p.choices.push_back(value_in(choice, p));
  }
  p.minimum = bound_of(written, "minimum");
  p.maximum = bound_of(written, "maximum");
  if (const node* doc = written.find("doc")) p.doc = doc->text;
  return p;
}

// A misspelt 'default' is reported as such.
bool meant_default(const node& written) {
  return std::any_of(written.fields.begin(), written.fields.end(),
                     [](const node::entry& entry) { return nearest(entry.key, {"default"}) == "default"; });
}

class declaration_check {
 public:
  declaration_check(const place& where, const parameter& p, problem_list& problems)
      : where_(where), p_(p), problems_(problems) {}

  void check() {
    check_bounds();
    if (!sound_) return;
    check_choices();
    if (sound_) check_default();
  }

 private:
  void wrong(const place& at, std::string detail) {
    problems_.wrong_value(at, std::move(detail));
    sound_ = false;
  }

  void check_bounds() {
    const bool measured = p_.type != parameter_type::boolean && p_.type != parameter_type::object;
    for (const auto* key : {"minimum", "maximum"}) {
      look_at(where_, key, [&](const place& bound) {
        if (measured) return check_length(bound);
        problems_.wrong_key(bound, "'" + std::string(key) + "' goes with a number, a string or a list, not with " +
                                       (p_.type == parameter_type::object ? "an object" : "a boolean"));
        sound_ = false;
      });
    }
    if (!p_.minimum || !p_.maximum || *p_.minimum <= *p_.maximum) return;
    look_at(where_, "maximum", [this](const place& most) { wrong(most, "less than the minimum"); });
  }

  // The bound of a text or list counts its characters or items.
  void check_length(const place& bound) {
    const bool counts = p_.type == parameter_type::string || p_.type == parameter_type::list;
    const auto n = number_of(bound.what());
    if (!counts || !n || (*n >= 0 && *n == std::trunc(*n))) return;
    wrong(bound, p_.type == parameter_type::string ? "counts the characters of a string; expected a whole number from 0"
                                                   : "counts the items of a list; expected a whole number from 0");
  }

  void check_choices() {
    parameter any_choice = p_;
    any_choice.choices.clear();
    look_at(where_, "choices", [&](const place& choices) {
      for (std::size_t i = 0; i < choices.what().items.size(); ++i) {
        if (problems_.full()) return;
        const auto here = p_.choices.begin() + static_cast<std::ptrdiff_t>(i);
        if (auto fault = parameter_fault(any_choice, *here)) {
          wrong(choices.item(i), "the choice " + *fault);
        } else if (i < most_compared && std::find(p_.choices.begin(), here, *here) != here) {
          wrong(choices.item(i), "this choice is named twice");
        }
      }
    });
  }

  void check_default() {
    const auto check_it = [this](const place& fallback) {
      if (fallback.what().type == node::kind::null) {
        wrong(fallback, "nothing stands here; leave 'default' out when the parameter must be given");
      } else if (auto fault = parameter_fault(p_, *p_.fallback)) {
        wrong(fallback, "the default " + *fault);
      }
    };
    if (where_.what().type == node::kind::mapping) {
      look_at(where_, "default", check_it);
    } else if (p_.fallback) {
      check_it(where_);
    }
  }

  const place& where_;
  const parameter& p_;
  problem_list& problems_;
  bool sound_ = true;  // one slip is one problem
};

}  // namespace

void check_declared_parameters(const place& params, bool has_trigger, problem_list& problems) {
  std::map<std::string, std::string> variables;  // and whose they are
  for_each_entry(params, [&](const std::string& name, const place& where) {
    if (problems.full()) return;
    const auto [taken, is_new] = variables.emplace(parameter_variable(name), name);
    if (!is_new) {
      problems.wrong_key(where, in_quotes(name) + " and " + in_quotes(taken->second) +
                                    " would both be the environment variable " + taken->first);
    }
    if (!declared_type(where.what())) return;  // the records have told
    const parameter p = parameter_of(name, where.what());
    declaration_check(where, p, problems).check();
    if (has_trigger && !p.fallback && !meant_default(where.what())) {
      problems.wrong_key(where, in_quotes(name) + " has no default, and the job's trigger gives no parameters");
    }
  });
}

std::vector<parameter> declared_parameters(const node& params) {
  std::vector<parameter> out;
  for (const auto& entry : params.fields) out.push_back(parameter_of(entry.key, entry.value));
  return out;
}

void complete_parameter(value& checked, const parameter& declared) {
  checked["type"] = token(declared.type);
  if (declared.fallback) checked["default"] = *declared.fallback;
  if (!declared.choices.empty()) checked["choices"] = declared.choices;
}

}  // namespace penstock::config
