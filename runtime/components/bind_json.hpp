// A JSON value as a parameter of an SQLite statement: scalars with their types, truth as 1 and 0, null as NULL; lists,
// objects and integers beyond SQLite's as their text.
#pragma once

#include <string>

#include "runtime/sqlite.hpp"

namespace simdjson::dom {
class element;
}

namespace penstock::runtime::components {

// `text` keeps what is made for the statement until it has run.
void bind_json(sqlite::statement& s, int index, const simdjson::dom::element& value, std::string& text);

}  // namespace penstock::runtime::components
