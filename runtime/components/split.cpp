// steps: split - makes many events of one: each item of a list becomes an event's payload.
//
// The new events have the attributes and the position of the one that they come from, and its id with "/0", "/1" …
// behind it, so that the same ids come again when the batch is repeated. Items keep the text that they have in the
// payload. Stateless.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::split_step {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "split",
      .doc = "Makes an event of each item of a list. An empty list drops the event; what is no list makes it a dead "
             "letter.",
      .settings = {.name = "split",
                   .type = field_type::object,
                   .doc = "",
                   .children =
                       {{.name = "items",
                         .type = field_type::expression,
                         .doc = "What gives the list.",
                         .required = true,
                         .example = "event.items"},
                        {.name = "into",
                         .type = field_type::string,
                         .doc = "The field that the item goes into. Without it an item that is an object gives its own "
                                "fields, and any other item is the whole payload.",
                         .example = "item"},
                        {.name = "keep",
                         .type = field_type::map,
                         .doc = "Further fields of each new event, of expressions over the event that is split. A field "
                                "of the item with the same name gives way to it.",
                         .example = "{order_id: event.id}",
                         .children = {{.name = "field",
                                       .type = field_type::expression,
                                       .doc = "The field's value.",
                                       .example = "event.id"}}},
                        {.name = "max_items",
                         .type = field_type::integer,
                         .doc = "An event with a longer list becomes a dead letter.",
                         .fallback = "100000",
                         .minimum = 1}},
                   .shorthand = "items"},
      .examples = {"split: event.items", "split: {items: event.items, keep: {order_id: event.id}}",
                   "split: {items: event.items, into: item, keep: {order_id: event.id}}"},
  };
}

// New events of one take at most so much memory, so that a long list with much to keep does not take all of it.
constexpr std::size_t most_bytes = 64 << 20;

std::vector<std::pair<std::string, std::string>> fields_of(const config::value& settings) {
  std::vector<std::pair<std::string, std::string>> fields;
  const config::value kept = settings.value("keep", config::value::object());
  const bool wrapped = settings.contains("into");
  for (const auto& [name, expression] : kept.items()) {
    if (wrapped && name == settings.at("into").get_ref<const std::string&>())
      throw std::runtime_error("keep: '" + name + "' is the field that the item goes into");
    fields.emplace_back(name, expression.get<std::string>());
  }
  return fields;
}

// The way to a field where the expression is nothing else (`event.order.items`), else nothing.
std::optional<std::vector<std::string>> plain_path(std::string_view expression) {
  constexpr std::string_view start = "event.";
  const auto may_stand = [](char c) { return c == '.' || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (!expression.starts_with(start) || !std::all_of(expression.begin(), expression.end(), may_stand)) return std::nullopt;
  return field_path(expression.substr(start.size()));
}

class split_step final : public step {
 public:
  split_step(const config::value& settings, const std::string* run_context)
      : items_(settings.at("items").get<std::string>(), run_context),
        path_(plain_path(items_.text())),
        into_(settings.value("into", "")),
        most_items_(settings.at("max_items").get<std::size_t>()) {
    if (auto fields = fields_of(settings); !fields.empty()) keep_.emplace(std::move(fields), run_context);
  }

  void process(batch& events, step_output& out) override {
    std::vector<event> made;
    made.reserve(events.size());
    for (const event& e : events.events) {
      const std::size_t before = made.size();
      if (std::string failure = split(e, events, made); !failure.empty()) {
        made.resize(before);
        out.dead(e, std::move(failure));
      }
    }
    events.events = std::move(made);
  }

  bool stateless() const override { return true; }

 private:
  // Appends the new events to `made`. Returns what is wrong.
  std::string split(const event& e, batch& memory, std::vector<event>& made) const {
    std::string failure;
    const std::string_view list = list_of(e, memory, failure);
    if (!failure.empty()) return "items: " + failure;
    const auto items = json_items(list);
    if (!items) return "items: a list is needed here, not " + excerpt(list);
    if (items->size() > most_items_)
      return "items: a list of " + std::to_string(items->size()) + "; max_items is " + std::to_string(most_items_);

    std::string kept;
    if (keep_ && !items->empty()) {
      lua_outcome<bool> mapped = keep_->apply(e, kept);
      if (!mapped.failure.empty()) return "keep: " + mapped.failure;
    }
    const std::string_view beside = kept.empty() ? std::string_view() : memory.keep(kept);
    const auto fields = beside.empty() ? std::nullopt : json_members(beside);
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < items->size(); ++i) {
      const std::optional<std::string> payload = payload_of((*items)[i], fields);
      if (!payload)
        return "keep: item " + std::to_string(i) + " is no object that could have further fields; give it one with `into`";
      bytes += payload->size();
      if (bytes > most_bytes) return "the new events would be larger than 64MiB";
      event& item = made.emplace_back(e);
      item.id = memory.keep(std::string(e.id) + "/" + std::to_string(i));
      item.data = memory.keep(*payload);
      item.datacontenttype = {};
    }
    return {};
  }

  // As JSON. A plain field is taken as it stands, without Lua.
  std::string_view list_of(const event& e, batch& memory, std::string& failure) const {
    if (path_ && e.is_json()) {
      if (failure = check_json(e.data); !failure.empty()) return {};
      std::optional<json_tree> payload = json_tree::of(e.data);
      return (payload ? payload->find(*path_) : std::nullopt).value_or("null");
    }
    lua_outcome<std::string> list = items_.json_of(e);
    failure = std::move(list.failure);
    if (list.value == "{}") return memory.keep("[]");  // to Lua its own empty list is an empty table
    return memory.keep(list.value);
  }

  std::optional<std::string> payload_of(std::string_view item, const std::optional<std::vector<json_member>>& fields) const {
    if (into_.empty() && !fields) return std::string(item);
    std::optional<json_tree> tree = into_.empty() ? json_tree::of(item) : json_tree();
    if (!tree) return std::nullopt;
    if (!into_.empty()) tree->set({into_}, std::string(item));
    if (fields) {
      for (const json_member& field : *fields) tree->set({field.name}, std::string(field.value));
    }
    std::string payload;
    tree->append_to(payload);
    return payload;
  }

  const lua_expression items_;
  const std::optional<std::vector<std::string>> path_;  // items_ as a plain field
  const std::string into_;
  const std::size_t most_items_;
  std::optional<lua_mapping> keep_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), fields_of), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<split_step>(settings, context.run_context.get());
        }));
}

}  // namespace penstock::runtime::components::split_step
