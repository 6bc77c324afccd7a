#include "runtime/components/bind_json.hpp"

#include <simdjson.h>

#include <string_view>

namespace penstock::runtime::components {

void bind_json(sqlite::statement& s, int index, const simdjson::dom::element& value, std::string& text) {
  using type = simdjson::dom::element_type;
  switch (value.type()) {
    case type::INT64:
      s.bind(index, value.get_int64().value_unsafe());
      break;
    case type::BOOL:
      s.bind(index, std::int64_t{value.get_bool().value_unsafe()});
      break;
    case type::DOUBLE:
      s.bind(index, value.get_double().value_unsafe());
      break;
    case type::STRING:
      s.bind(index, value.get_string().value_unsafe());
      break;
    case type::NULL_VALUE:
      s.bind_null(index);
      break;
    case type::UINT64:
    case type::ARRAY:
    case type::OBJECT:
      text = simdjson::minify(value);
      s.bind(index, std::string_view(text));
      break;
  }
}

}  // namespace penstock::runtime::components
