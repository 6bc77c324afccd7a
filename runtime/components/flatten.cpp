// steps: flatten - brings nested objects and lists to one level: {"a":{"b":1},"l":[2]} becomes {"a_b":1,"l_0":2}.
//
// Values keep their text; empty objects and lists stay what they are. Two fields that would get the same name, and a
// result of more than 16 MiB (deep nesting makes long names), are dead letters. Stateless.
#include <memory>
#include <set>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"

namespace penstock::runtime::components::flatten_step {

namespace {

constexpr std::size_t most_bytes = 16 << 20;

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "flatten",
      .doc = "Brings nested objects and lists to one level, as tables want it. The items of a list are numbered from 0.",
      .settings = {.name = "flatten",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "separator",
                                 .type = field_type::string,
                                 .doc = "What stands between the names of the levels.",
                                 .fallback = "_",
                                 .example = "\".\""}},
                   .shorthand = "separator"},
      .examples = {"flatten: {}", "flatten: {separator: \".\"}"},
  };
}

class flatten_step final : public step {
 public:
  explicit flatten_step(const config::value& settings) : separator_(settings.at("separator").get<std::string>()) {}

  void process(batch& events, step_output& out) override {
    std::size_t kept = 0;
    for (event& e : events.events) {
      flat made;
      std::string wrong = e.is_json() ? check_json(e.data) : "not JSON but " + std::string(e.datacontenttype);
      if (wrong.empty()) {
        const auto members = json_members(e.data);
        wrong = members ? add_object("", *members, made) : "not a JSON object";
      }
      if (!wrong.empty()) {
        out.dead(e, std::move(wrong));
        continue;
      }
      e.data = events.keep("{" + made.text + "}");
      e.datacontenttype = {};
      events.events[kept++] = e;
    }
    events.events.resize(kept);
  }

  bool stateless() const override { return true; }

 private:
  struct flat {
    std::string text;
    std::set<std::string> names;
  };

  // These return what is wrong.
  std::string add_object(const std::string& prefix, const std::vector<json_member>& members, flat& to) const {
    for (const json_member& member : members) {
      if (std::string wrong = add(prefix + member.name, member.value, to); !wrong.empty()) return wrong;
    }
    return {};
  }

  std::string add(const std::string& name, std::string_view value, flat& to) const {
    if (const auto members = json_members(value); members && !members->empty())
      return add_object(name + separator_, *members, to);
    if (const auto items = json_items(value); items && !items->empty()) {
      for (std::size_t i = 0; i < items->size(); ++i) {
        if (std::string wrong = add(name + separator_ + std::to_string(i), (*items)[i], to); !wrong.empty()) return wrong;
      }
      return {};
    }
    if (!to.names.insert(name).second) return "two fields would be named '" + excerpt(name) + "'";
    if (!to.text.empty()) to.text += ',';
    append_json_string(to.text, name);
    to.text += ':';
    to.text += value;
    return to.text.size() > most_bytes ? "the flat object would be larger than 16MiB" : "";
  }

  const std::string separator_;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context&) {
          return std::make_unique<flatten_step>(settings);
        }));
}

}  // namespace penstock::runtime::components::flatten_step
