// A YAML (or JSON) document as a tree that remembers where everything stood. The only file that knows
// yaml-cpp is node.cpp. Plain values, any thread; a node owns its children.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/error.hpp"

namespace penstock::config {

// Where something stands in the text; both 1-based.
struct mark {
  int line = 1;
  int column = 1;
  bool operator==(const mark&) const = default;
};

struct node {
  enum class kind { null, scalar, sequence, mapping };
  struct entry;

  kind type = kind::null;
  mark at;
  std::string text;           // of a scalar
  bool quoted = false;        // a quoted scalar is always a string, never a number or boolean
  std::vector<node> items;    // of a sequence
  std::vector<entry> fields;  // of a mapping, in the order written; keys are unique

  const node* find(std::string_view key) const;
};

struct node::entry {
  std::string key;
  mark at;  // of the key
  node value;
};

// What a document may cost to read. Aliases are expanded, so the limits count what they expand to.
struct node_limits {
  std::size_t bytes = 1 << 20;  // of the text, and again of all text that aliases repeat
  std::size_t nodes = 100'000;  // keys count, too
  int depth = 64;
};

// A tree, and what is wrong with the text although it can be read on: duplicate keys (the first one counts),
// keys that are no text, merge keys, tags. Kept apart so that a checker can report these together with what
// it finds itself.
struct document {
  node root;
  std::vector<problem> problems{};
};

// The whole document, or `malformed` with the position of what stopped the reading: syntax, several
// documents, invalid UTF-8, or a document beyond its limits. Scalars follow YAML 1.2; JSON is read as JSON.
result<document> read_document(std::string_view text, const node_limits& limits = {});

// The same for readers with no problems of their own to add: a duplicate key is `malformed`, too.
result<node> parse_document(std::string_view text, const node_limits& limits = {});

}  // namespace penstock::config
