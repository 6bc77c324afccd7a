// Fill-ins and references in the texts of a definition, and the names that expressions mention.
#include <string>

#include "config/fill_in.hpp"
#include "config/lua_mentions.hpp"
#include "config/secrets.hpp"
#include "runtime/run_expression.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

void try_input(std::string_view text) {
  using kind = config::text_part::kind;
  std::string together;
  bool closed = true, expressions = false;
  const auto parts = config::split_fill_ins(text);
  for (const auto& part : parts) {
    require(closed, "what is not closed comes last");
    closed = part.type != kind::unclosed;
    expressions = expressions || part.type == kind::expression;
    require(part.type != kind::text || !part.text.empty(), "no text is empty");
    together += part.type == kind::expression ? "${" + part.text + "}" : part.text;
  }
  require(together == text, "the parts are all of the text", together);
  const auto wrong = runtime::check_fill_ins(text);
  require(closed || wrong, "a fill-in that is not closed is refused");
  if (!wrong) {
    const std::string context = R"({"params":{"region":"eu","n":3},"run":{"id":"R1"},"tasks":{"a":{"state":"succeeded"}},"item":[1,{"x":null}],"item_index":0})";
    const auto filled = runtime::fill_in(text, context);
    if (!expressions) require(filled && *filled == text, "a text without fill-ins stays as it is");
    if (!filled) require(!filled.error().detail.empty(), "a refusal says why");
  }
  static_cast<void>(config::fill_in_slip(text));
  static_cast<void>(config::lua_slip(text));
  for (const auto& mention : config::lua_mentions(text)) require(text.find(mention.key) != text.npos || text.find('\\') != text.npos, "a mention is in the text", mention.key);
  const auto bad = config::check_references(text);
  if (config::is_secret_reference(text)) require(!bad, "a reference is a good one", bad.value_or(""));
  if (!bad && text.find("file:") == text.npos) {
    const auto resolved = config::resolve_secrets(text, {.secrets_dir = "/nonexistent", .credentials_dir = {}});
    if (text.find("${") == text.npos) require(resolved && *resolved == text, "a text without references stays as it is");
  }
}

}  // namespace penstock::fuzz
