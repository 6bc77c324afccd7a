#include "runtime/run_expression.hpp"

#include <utility>

#include "config/fill_in.hpp"

namespace penstock::runtime {

namespace {

using config::text_part;

// The context as an event that owns its memory.
class context_event {
 public:
  explicit context_event(const std::string& context) { event_.data = owner_.keep(context.empty() ? "{}" : context); }
  const event& get() const { return event_; }

 private:
  batch owner_;
  event event_;
};

lua_outcome<std::string> or_empty(lua_outcome<std::optional<std::string>> found) {
  return {std::move(found.value).value_or(std::string()), std::move(found.failure)};
}

std::string as_written(const text_part& fill) { return "${" + fill.text + "}"; }

}  // namespace

run_expression::run_expression(std::string text)
    : over_context_(text, lua_scope::run), over_event_(std::move(text), lua_scope::payload) {}

lua_outcome<bool> run_expression::truth(const std::string& context) const {
  return over_context_.truth(context_event(context).get());
}

lua_outcome<std::string> run_expression::json(const std::string& context) const {
  return over_context_.json_of(context_event(context).get());
}

lua_outcome<std::optional<std::string>> run_expression::text_if_any(const std::string& context) const {
  return over_context_.text_or_json_of(context_event(context).get());
}

lua_outcome<std::string> run_expression::text(const std::string& context) const {
  return or_empty(text_if_any(context));
}

lua_outcome<std::string> run_expression::text(const event& e) const {
  return or_empty(over_event_.text_or_json_of(e));
}

result<std::string> fill_in(std::string_view text, const std::string& context,
                            const std::function<std::string(const std::string&)>& of_plain) {
  std::string filled;
  for (const text_part& part : config::split_fill_ins(text)) {
    switch (part.type) {
      case text_part::kind::text: filled += of_plain ? of_plain(part.text) : part.text; break;
      case text_part::kind::unclosed: return error{errc::invalid, part.text + " is not closed"};
      case text_part::kind::expression: {
        const auto found = run_expression(part.text).text_if_any(context);
        if (!found.failure.empty()) return error{errc::invalid, as_written(part) + ": " + found.failure};
        if (!found.value) return error{errc::invalid, as_written(part) + " has no value"};
        filled += *found.value;
        break;
      }
    }
  }
  return filled;
}

std::optional<std::string> check_fill_ins(std::string_view text) {
  for (const text_part& part : config::split_fill_ins(text)) {
    if (part.type == text_part::kind::unclosed) return part.text + " is not closed";
    if (part.type != text_part::kind::expression) continue;
    if (const auto wrong = check_lua(part.text, false)) return as_written(part) + ": " + *wrong;
  }
  return std::nullopt;
}

}  // namespace penstock::runtime
