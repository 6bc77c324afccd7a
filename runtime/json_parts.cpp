#include "runtime/json_parts.hpp"

#include <algorithm>
#include <new>

#include <simdjson.h>

#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "runtime/text.hpp"

namespace penstock::runtime {

namespace {

namespace ondemand = simdjson::ondemand;

// The thread's parser; what it returns is used up before it parses again.
class ondemand_parser {
 public:
  ondemand_parser() = default;
  ~ondemand_parser() {
    if (parser_.capacity() > kept_parser_capacity) parser_ = ondemand::parser{};
  }
  ondemand_parser(const ondemand_parser&) = delete;
  ondemand_parser& operator=(const ondemand_parser&) = delete;

  bool parse(std::string_view text, ondemand::document& document) {
    const simdjson::padded_string_view padded(text.data(), text.size(), text.size() + padding);
    const simdjson::error_code error = parser_.iterate(padded).get(document);
    if (error == simdjson::MEMALLOC) throw std::bad_alloc();
    return error == simdjson::SUCCESS;
  }

 private:
  static thread_local ondemand::parser parser_;
};

thread_local ondemand::parser ondemand_parser::parser_;

std::string_view raw(ondemand::value value) {
  std::string_view text;
  switch (value.type().value_unsafe()) {
    case ondemand::json_type::array: {
      ondemand::array list;
      if (value.get_array().get(list) || list.raw_json().get(text)) return {};
      break;
    }
    case ondemand::json_type::object: {
      ondemand::object object;
      if (value.get_object().get(object) || object.raw_json().get(text)) return {};
      break;
    }
    default:
      text = value.raw_json_token();
  }
  return trimmed(text);
}

}  // namespace

json_kind json_kind_of(std::string_view value) {
  switch (value.empty() ? 'n' : value.front()) {
    case '{':
      return json_kind::object;
    case '[':
      return json_kind::list;
    case '"':
      return json_kind::string;
    case 't':
    case 'f':
      return json_kind::boolean;
    case 'n':
      return json_kind::null;
    default:
      return json_kind::number;
  }
}

std::optional<std::vector<json_member>> json_members(std::string_view text) {
  text = trimmed(text);
  if (json_kind_of(text) != json_kind::object) return std::nullopt;
  std::vector<json_member> members;
  ondemand_parser parser;
  ondemand::document document;
  ondemand::object object;
  if (!parser.parse(text, document) || document.get_object().get(object)) return std::nullopt;
  for (auto field : object) {
    std::string_view name;
    ondemand::value value;
    if (field.unescaped_key().get(name) || field.value().get(value)) return std::nullopt;
    std::string kept(name);
    members.push_back({std::move(kept), raw(value)});
  }
  return members;
}

std::optional<std::vector<std::string_view>> json_items(std::string_view text) {
  text = trimmed(text);
  if (json_kind_of(text) != json_kind::list) return std::nullopt;
  std::vector<std::string_view> items;
  ondemand_parser parser;
  ondemand::document document;
  ondemand::array list;
  if (!parser.parse(text, document) || document.get_array().get(list)) return std::nullopt;
  for (auto item : list) {
    ondemand::value value;
    if (item.get(value)) return std::nullopt;
    items.push_back(raw(value));
  }
  return items;
}

std::optional<std::string> json_text(std::string_view value) {
  if (json_kind_of(value) != json_kind::string || value.size() < 2) return std::nullopt;
  const std::string_view inside = value.substr(1, value.size() - 2);
  if (inside.find('\\') == inside.npos) return std::string(inside);
  ondemand_parser parser;
  ondemand::document document;
  std::string_view text;
  if (!parser.parse(value, document) || document.get_string().get(text)) return std::nullopt;
  return std::string(text);
}

std::string excerpt(std::string_view text, std::size_t most) {
  const bool whole = text.size() <= most;
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  while (!whole && most > 0 && continues(text[most])) --most;
  std::string out(text.substr(0, most));
  if (!simdjson::validate_utf8(out.data(), out.size())) {
    for (char& c : out) c = is_ascii(c) ? c : '?';
  }
  return whole ? out : out + "…";
}

std::optional<std::vector<std::string>> field_path(std::string_view dotted) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t dot = dotted.find('.');
    if (dot == 0 || dotted.empty()) return std::nullopt;
    parts.emplace_back(dotted.substr(0, dot));
    if (dot == dotted.npos) return parts;
    dotted.remove_prefix(dot + 1);
  }
}

// ---- json_tree

std::optional<json_tree> json_tree::of(std::string_view text) {
  json_tree tree;
  tree.root_.text = trimmed(text);
  tree.root_.open = false;
  if (!open(tree.root_)) return std::nullopt;
  return tree;
}

// False when it is no object.
bool json_tree::open(node& n) {
  if (n.open) return true;
  if (n.replaced || json_kind_of(n.text) != json_kind::object) return false;
  auto members = json_members(n.text);
  if (!members) return false;
  n.open = true;
  n.members.reserve(members->size());
  for (json_member& m : *members) {
    node& made = n.members.emplace_back();
    made.name = std::move(m.name);
    made.text = m.value;
  }
  return true;
}

json_tree::node* json_tree::member(node& n, const std::string& name) {
  const auto found = std::find_if(n.members.begin(), n.members.end(), [&](const node& m) { return m.name == name; });
  return found == n.members.end() ? nullptr : &*found;
}

// What stands at the first `depth` parts of the path, or null.
json_tree::node* json_tree::at(const std::vector<std::string>& path, std::size_t depth) {
  node* n = &root_;
  for (std::size_t i = 0; i < depth && n; ++i) n = open(*n) ? member(*n, path[i]) : nullptr;
  return n;
}

std::optional<std::string_view> json_tree::find(const std::vector<std::string>& path) {
  const node* n = at(path, path.size());
  if (!n) return std::nullopt;
  return n->replaced ? std::string_view(*n->replaced) : n->text;
}

bool json_tree::set(const std::vector<std::string>& path, std::string value) {
  node* n = &root_;
  for (const std::string& name : path) {
    if (!open(*n)) return false;
    node* next = member(*n, name);
    if (!next) {
      next = &n->members.emplace_back();
      next->name = name;
      next->open = true;
    }
    n = next;
  }
  n->replaced = std::move(value);
  n->open = false;
  n->members.clear();
  return true;
}

void json_tree::rename(const std::vector<new_name>& names) {
  std::vector<node*> found;
  for (const auto& [path, name] : names) found.push_back(at(*path, path->size()));
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (found[i]) found[i]->name = *names[i].second;
  }
}

std::optional<std::string> json_tree::take(const std::vector<std::string>& path) {
  const node* n = at(path, path.size());
  if (!n) return std::nullopt;
  std::string value;
  append(*n, value);
  remove(path);
  return value;
}

void json_tree::remove(const std::vector<std::string>& path) {
  node* above = at(path, path.size() - 1);
  if (!above || !open(*above)) return;
  std::erase_if(above->members, [&](const node& m) { return m.name == path.back(); });
}

void json_tree::append_to(std::string& out) const { append(root_, out); }

void json_tree::append(const node& n, std::string& out) {
  if (!n.open) {
    out += n.replaced ? std::string_view(*n.replaced) : n.text;
    return;
  }
  out += '{';
  for (const node& m : n.members) {
    if (out.back() != '{') out += ',';
    append_json_string(out, m.name);
    out += ':';
    append(m, out);
  }
  out += '}';
}

}  // namespace penstock::runtime
