// JSON taken apart without changing it: values are handed out as they are written, so that no number loses a digit and
// no text its escapes. Pure functions, any thread (each thread keeps its own parser).
//
// Texts given here are valid JSON (check_json) with `padding` readable bytes behind them, as every payload and every
// part of one has.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock::runtime {

enum class json_kind { object, list, string, number, boolean, null };

// Of a value without white space around it.
json_kind json_kind_of(std::string_view value);

struct json_member {
  std::string name;        // escapes resolved
  std::string_view value;  // as it is written, without white space around it
};

// The members of an object and the items of a list, one level deep, in their order. Nothing when it is none.
std::optional<std::vector<json_member>> json_members(std::string_view text);
std::optional<std::vector<std::string_view>> json_items(std::string_view text);
// What a JSON string says: `"a\n"` without quotes and escapes. Nothing when it is none.
std::optional<std::string> json_text(std::string_view value);

// The beginning of a text, for messages: at most `most` bytes, whole characters, with "…" where something is missing. Of
// what is not UTF-8 only ASCII is left.
std::string excerpt(std::string_view text, std::size_t most = 60);

// "a.b.c" as its parts. Nothing when one of them is empty.
std::optional<std::vector<std::string>> field_path(std::string_view dotted);

// An object whose fields can be looked at, replaced and taken away, inner ones by their path ({"a", "b"}), while all
// else keeps its bytes. Views the text that it was made from.
class json_tree {
 public:
  json_tree() { root_.open = true; }  // an object without fields
  // Nothing when the text is no JSON object.
  static std::optional<json_tree> of(std::string_view text);

  // Absent where the way does not lead through objects. The value as it was made or last set, whatever was changed
  // inside of it; valid until it is set again.
  std::optional<std::string_view> find(const std::vector<std::string>& path);
  // The value with what was changed inside of it; the field is gone.
  std::optional<std::string> take(const std::vector<std::string>& path);
  // Sets a field that may be absent, as may the objects on the way; false when something else is in the way.
  bool set(const std::vector<std::string>& path, std::string value);
  // Fields, where they stand, and what each is called from then on; all at once, absent ones left out.
  using new_name = std::pair<const std::vector<std::string>*, const std::string*>;
  void rename(const std::vector<new_name>& names);
  void remove(const std::vector<std::string>& path);

  void append_to(std::string& out) const;

 private:
  struct node {
    std::string name{};
    std::string_view text{};                // as it was written
    std::optional<std::string> replaced{};  // the value, when it was set
    bool open = false;                      // an object whose members are below
    std::vector<node> members{};
  };

  static bool open(node& n);
  static node* member(node& n, const std::string& name);
  node* at(const std::vector<std::string>& path, std::size_t depth);
  static void append(const node& n, std::string& out);

  node root_;
};

}  // namespace penstock::runtime
