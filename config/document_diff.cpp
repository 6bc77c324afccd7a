#include "config/document_diff.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>

#include "config/place.hpp"

namespace penstock::config {
namespace {

// ---- values that differ ----

void compare(const value& before, const value& after, const std::string& path, std::vector<field_change>& out) {
  if (before.is_object() && after.is_object()) {
    for (const auto& [key, old] : before.items()) {
      const auto now = after.find(key);
      compare(old, now == after.end() ? no_value() : *now, path + "/" + pointer_part(key), out);
    }
    for (const auto& [key, now] : after.items()) {
      if (!before.contains(key)) compare(no_value(), now, path + "/" + pointer_part(key), out);
    }
  } else if (before.is_array() && after.is_array() && before.size() == after.size()) {
    for (std::size_t i = 0; i < before.size(); ++i) compare(before[i], after[i], path + "/" + std::to_string(i), out);
  } else if (before.is_discarded() != after.is_discarded() || before != after) {
    out.push_back({path, before, after});
  }
}

// ---- canonical text ----

constexpr std::array first_keys{"name", "description", "workdir", "max_active", "pools", "topics", "flows", "jobs"};
constexpr std::size_t longest_flow_list = 100;  // columns of [a, b, c]

bool plain(const std::string& text) {
  static const std::array<std::string_view, 11> words{"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"};
  if (text.empty() || text.size() > 60) return false;
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (!letter(text.front())) return false;
  for (const char c : text) {
    if (!letter(c) && !(c >= '0' && c <= '9') && c != '_' && c != '-' && c != '.' && c != '/') return false;
  }
  std::string small = text;
  std::transform(small.begin(), small.end(), small.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return std::find(words.begin(), words.end(), small) == words.end();
}

std::string quoted(const value& v) { return v.dump(-1, ' ', false, value::error_handler_t::replace); }

std::string scalar(const value& v) {
  if (!v.is_string()) return quoted(v);
  const auto& text = v.get_ref<const std::string&>();
  return plain(text) || (!text.empty() && text.size() < 20 && text.front() >= '1' && text.front() <= '9' && plain("x" + text) &&
                         text.find_first_not_of("0123456789.-") != std::string::npos && text.find_first_of("eExX_") == std::string::npos)
             ? text
             : quoted(v);
}

// A text that can stand as lines below `|`: so that a script differs line by line.
bool fits_block(const std::string& text) {
  if (text.find('\n') == std::string::npos || text.find_first_of("\t\r") != std::string::npos) return false;
  if (text.front() == ' ' || text.front() == '\n' || text.ends_with("\n\n")) return false;
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n'; });
}

class yaml_writer {
 public:
  std::string text;

  void object(const value& from, std::size_t depth, bool pipeline) {
    const auto entry = [&](const std::string& key, const value& v, bool by_name) {
      indent(depth);
      member(key, v, depth, by_name);
    };
    if (!pipeline) {
      for (const auto& [key, v] : from.items()) entry(key, v, false);
      return;
    }
    for (const char* key : first_keys) {
      const auto found = from.find(key);
      const std::string_view name(key);
      if (found != from.end()) entry(key, *found, name == "topics" || name == "flows" || name == "jobs");
    }
    for (const auto& [key, v] : from.items()) {
      if (std::find(first_keys.begin(), first_keys.end(), key) == first_keys.end()) entry(key, v, false);
    }
  }

 private:
  void indent(std::size_t depth) { text.append(depth * 2, ' '); }

  static bool short_list(const value& v) {
    if (!v.is_array()) return false;
    std::size_t width = 2;
    for (const value& item : v) {
      if (item.is_structured()) return false;
      width += scalar(item).size() + 2;
    }
    return width <= longest_flow_list;
  }

  void member(const std::string& key, const value& v, std::size_t depth, bool by_name) {
    text += scalar(value(key)) + ":";
    behind(v, depth, by_name);
  }

  // What follows "key:" or "-", with the line's end.
  void behind(const value& v, std::size_t depth, bool by_name) {
    if (v.is_object() && !v.empty()) {
      text += '\n';
      by_name ? sorted(v, depth + 1) : object(v, depth + 1, false);
    } else if (short_list(v)) {
      std::string items;
      for (const value& item : v) items += (items.empty() ? "" : ", ") + scalar(item);
      text += " [" + items + "]\n";
    } else if (v.is_array()) {
      text += '\n';
      for (const value& item : v) list_item(item, depth + 1);
    } else if (v.is_string() && fits_block(v.get_ref<const std::string&>())) {
      block(v.get_ref<const std::string&>(), depth + 1);
    } else {
      text += " " + scalar(v) + "\n";
    }
  }

  void list_item(const value& item, std::size_t depth) {
    indent(depth);
    text += '-';
    if (!item.is_object() || item.empty()) {
      behind(item, depth, false);
      return;
    }
    const char* before = " ";
    for (const auto& [key, v] : item.items()) {
      text += before;
      member(key, v, depth + 1, false);
      before = "";
      if (&v != &item.back()) indent(depth + 1);
    }
  }

  void sorted(const value& v, std::size_t depth) {
    std::map<std::string, const value*> by_name;
    for (const auto& [key, one] : v.items()) by_name.emplace(key, &one);
    for (const auto& [key, one] : by_name) {
      indent(depth);
      member(key, *one, depth, false);
    }
  }

  void block(const std::string& lines, std::size_t depth) {
    const bool ends = lines.ends_with('\n');
    text += ends ? " |\n" : " |-\n";
    std::size_t at = 0;
    while (at < lines.size()) {
      const std::size_t end = std::min(lines.find('\n', at), lines.size());
      if (end > at) indent(depth);
      text.append(lines, at, end - at).append("\n");
      at = end + 1;
    }
  }
};

// ---- unified diff ----

constexpr std::size_t context_lines = 3;
constexpr std::size_t most_cells = 4'000'000;  // of the table that finds the longest common subsequence

using lines = std::vector<std::string_view>;

lines lines_of(std::string_view text) {
  lines all;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    all.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return all;
}

struct edit {
  char kind;  // ' ', '-' or '+'
  std::string_view line;
};

// Of what lies between the equal beginnings and ends: a longest common subsequence, by the table of its lengths.
void middle(std::vector<edit>& out, const lines& a, const lines& b) {
  const std::size_t columns = b.size() + 1;
  if ((a.size() + 1) * columns > most_cells) {
    for (const auto line : a) out.push_back({'-', line});
    for (const auto line : b) out.push_back({'+', line});
    return;
  }
  std::vector<std::uint32_t> length((a.size() + 1) * columns);
  for (std::size_t i = a.size(); i-- > 0;) {
    for (std::size_t j = b.size(); j-- > 0;) {
      length[i * columns + j] = a[i] == b[j] ? length[(i + 1) * columns + j + 1] + 1
                                             : std::max(length[(i + 1) * columns + j], length[i * columns + j + 1]);
    }
  }
  std::size_t i = 0, j = 0;
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      out.push_back({' ', a[i++]});
      ++j;
    } else if (j == b.size() || (i < a.size() && length[(i + 1) * columns + j] >= length[i * columns + j + 1])) {
      out.push_back({'-', a[i++]});
    } else {
      out.push_back({'+', b[j++]});
    }
  }
}

std::vector<edit> edits_between(const lines& a, const lines& b) {
  std::size_t head = 0;
  while (head < a.size() && head < b.size() && a[head] == b[head]) ++head;
  std::size_t tail = 0;
  while (tail < a.size() - head && tail < b.size() - head && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) ++tail;
  std::vector<edit> all;
  for (std::size_t i = 0; i < head; ++i) all.push_back({' ', a[i]});
  const auto part = [&](const lines& of) {
    return lines(of.begin() + static_cast<std::ptrdiff_t>(head), of.end() - static_cast<std::ptrdiff_t>(tail));
  };
  middle(all, part(a), part(b));
  for (std::size_t i = a.size() - tail; i < a.size(); ++i) all.push_back({' ', a[i]});
  return all;
}

std::string range(std::size_t start, std::size_t count) {
  return std::to_string(count == 0 ? start : start + 1) + (count == 1 ? "" : "," + std::to_string(count));
}

}  // namespace

value no_value() { return value(value::value_t::discarded); }

std::vector<field_change> field_changes(const value& before, const value& after) {
  std::vector<field_change> all;
  compare(before, after, "", all);
  return all;
}

std::string canonical_text(const value& document) {
  if (!document.is_object()) return {};
  yaml_writer writer;
  writer.object(document, 0, true);
  return std::move(writer.text);
}

std::string unified_diff(std::string_view before, std::string_view after, std::string_view before_label,
                         std::string_view after_label) {
  const lines a = lines_of(before), b = lines_of(after);
  const std::vector<edit> edits = edits_between(a, b);
  std::string out;
  std::size_t old_line = 0, new_line = 0;  // of edits[at]
  for (std::size_t at = 0; at < edits.size();) {
    // The next hunk: from its first change, joined with all that are near enough to share their context.
    std::size_t first = at;
    while (first < edits.size() && edits[first].kind == ' ') ++first;
    if (first == edits.size()) break;
    std::size_t last = first, quiet = 0;
    for (std::size_t i = first; i < edits.size() && quiet <= 2 * context_lines; ++i) {
      quiet = edits[i].kind == ' ' ? quiet + 1 : 0;
      if (quiet == 0) last = i;
    }
    const std::size_t begin = std::max(at, first - std::min(first, context_lines));
    const std::size_t end = std::min(edits.size(), last + 1 + context_lines);
    for (; at < begin; ++at, ++old_line, ++new_line) {
    }
    std::string body;
    std::size_t removed = 0, added = 0;
    for (; at < end; ++at) {
      body.append(1, edits[at].kind).append(edits[at].line).append("\n");
      removed += edits[at].kind != '+' ? 1 : 0;
      added += edits[at].kind != '-' ? 1 : 0;
    }
    if (out.empty()) out.append("--- ").append(before_label).append("\n+++ ").append(after_label).append("\n");
    out += "@@ -" + range(old_line, removed) + " +" + range(new_line, added) + " @@\n" + body;
    old_line += removed;
    new_line += added;
  }
  return out;
}

}  // namespace penstock::config
