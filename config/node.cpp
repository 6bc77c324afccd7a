// The only file that knows yaml-cpp. yaml-cpp reads the text and calls tree_builder for each thing it finds;
// the tree, the aliases and all limits are ours, so no document can make yaml-cpp expand or recurse without
// bound.
#include "config/node.hpp"

#include <algorithm>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include <nlohmann/json.hpp>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "config/in_quotes.hpp"
#include "config/place.hpp"

namespace penstock::config {
namespace {

// The text as given and as handed to yaml-cpp, and the way back from a place in the latter to line and
// column.
//
// The two differ in a byte order mark, and in JSON's surrogate pairs: yaml-cpp refuses \ud83d\ude00, which
// JSON (RFC 8259 section 7) prescribes for characters beyond the basic plane, so it gets \U0001f600 instead.
class source_text {
 public:
  explicit source_text(std::string_view given);

  const std::string& for_parser() const { return parsed_; }
  mark at(std::size_t parsed_offset) const;
  mark at(const YAML::Mark& m) const { return at(m.pos < 0 ? 0 : static_cast<std::size_t>(m.pos)); }
  mark before_empty_item(const YAML::Mark& next) const;
  std::optional<mark> tab_in_indentation(mark where) const;
  std::string_view from(const YAML::Mark& m) const {
    return std::string_view(parsed_).substr(std::min(parsed_.size(), static_cast<std::size_t>(m.pos)));
  }

 private:
  void copy_with_pairs_joined(std::string_view json);
  std::string_view line(int number) const;

  std::string_view given_;
  std::string parsed_;
  std::vector<std::size_t> joined_;  // where in parsed_ a pair was joined, which made it two bytes shorter
  std::vector<std::size_t> line_starts_;    // in given_
  std::vector<std::size_t> continuations_;  // bytes of given_ that continue a character
};

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

source_text::source_text(std::string_view given) : given_(given) {
  if (given_.starts_with(byte_order_mark)) given_.remove_prefix(byte_order_mark.size());
  line_starts_.push_back(0);
  for (std::size_t i = 0; i < given_.size(); ++i) {
    if (given_[i] == '\n') line_starts_.push_back(i + 1);
    if ((given_[i] & 0xC0) == 0x80) continuations_.push_back(i);
  }
  const std::size_t first = given_.find_first_not_of(" \t\r\n");
  const bool may_be_json = first != given_.npos && (given_[first] == '{' || given_[first] == '[');
  if (may_be_json && given_.find("\\u") != given_.npos && nlohmann::json::accept(given_)) {
    copy_with_pairs_joined(given_);
  } else {
    parsed_ = given_;
  }
}

// The value of "\uXXXX" at `at`, or 0 when that is not what stands there.
unsigned escaped_unit(std::string_view text, std::size_t at) {
  if (text.size() < at + 6 || text.substr(at, 2) != "\\u") return 0;
  unsigned unit = 0;
  for (char c : text.substr(at + 2, 4)) {
    const bool digit = c >= '0' && c <= '9';
    unit = unit * 16 + static_cast<unsigned>(digit ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return unit;
}

void source_text::copy_with_pairs_joined(std::string_view json) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::size_t i = 0;
  while (i < json.size()) {
    if (json[i] != '\\') {
      parsed_ += json[i++];
      continue;
    }
    const unsigned high = escaped_unit(json, i);
    if (high < 0xD800 || high > 0xDBFF) {
      parsed_ += json.substr(i, 2);
      i += 2;
      continue;
    }
    // Valid JSON text: the low half follows.
    const unsigned character = 0x10000 + ((high - 0xD800) << 10) + (escaped_unit(json, i + 6) - 0xDC00);
    parsed_ += "\\U";
    for (int shift = 28; shift >= 0; shift -= 4) parsed_ += digits[(character >> shift) & 0xF];
    joined_.push_back(parsed_.size() - 10);
    i += 12;
  }
}

std::string_view source_text::line(int number) const {
  const auto index = static_cast<std::size_t>(number) - 1;
  const std::size_t end = index + 1 < line_starts_.size() ? line_starts_[index + 1] - 1 : given_.size();
  return given_.substr(line_starts_[index], end - line_starts_[index]);
}

mark source_text::at(std::size_t parsed_offset) const {
  const auto joined_before =
      std::lower_bound(joined_.begin(), joined_.end(), parsed_offset) - joined_.begin();
  const std::size_t offset =
      std::min(given_.size(), parsed_offset + 2 * static_cast<std::size_t>(joined_before));
  const auto next_line = std::upper_bound(line_starts_.begin(), line_starts_.end(), offset);
  const std::size_t begin = *(next_line - 1);
  // Columns count characters, as editors do.
  const auto not_counted = std::lower_bound(continuations_.begin(), continuations_.end(), offset) -
                           std::lower_bound(continuations_.begin(), continuations_.end(), begin);
  return mark{static_cast<int>(next_line - line_starts_.begin()),
              static_cast<int>(offset - begin) - static_cast<int>(not_counted) + 1};
}

// yaml-cpp reports an empty list item at whatever follows it. The item is the last thing on the line above
// (its dash).
mark source_text::before_empty_item(const YAML::Mark& next) const {
  const mark follows = at(next);
  const std::string_view before = line(follows.line).substr(0, static_cast<std::size_t>(follows.column) - 1);
  if (before.find_first_not_of(' ') != before.npos) return follows;
  for (int number = follows.line - 1; number > 0; --number) {
    const std::string_view text = line(number);
    const std::size_t last = text.substr(0, text.find('#')).find_last_not_of(" \t\r");
    if (last != text.npos) return mark{number, static_cast<int>(last) + 1};
  }
  return follows;
}

// A tab that indents this line or the one above, which is what most often confuses YAML.
std::optional<mark> source_text::tab_in_indentation(mark where) const {
  for (int number = where.line; number > 0 && number > where.line - 2; --number) {
    const std::string_view text = line(number);
    const std::size_t tab = text.substr(0, text.find_first_not_of(" \t")).find('\t');
    if (tab != text.npos) return mark{number, static_cast<int>(tab) + 1};
  }
  return std::nullopt;
}

// The first byte that is not part of a well-formed UTF-8 character (RFC 3629), or that is a control
// character, which neither YAML nor JSON allows; npos when there is none.
std::size_t first_bad_byte(std::string_view text) {
  const auto continuation = [&text](std::size_t i, unsigned low, unsigned high) {
    const unsigned byte = i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
    return byte >= low && byte <= high;
  };
  std::size_t i = 0;
  while (i < text.size()) {
    const unsigned lead = static_cast<unsigned char>(text[i]);
    const bool control = lead < 0x20 && lead != '\t' && lead != '\n' && lead != '\r';
    std::size_t length = 0;
    if (lead < 0x80) length = control ? 0 : 1;
    if (lead >= 0xC2 && lead <= 0xDF) length = 2;
    if (lead >= 0xE0 && lead <= 0xEF) length = 3;
    if (lead >= 0xF0 && lead <= 0xF4) length = 4;
    if (length == 0) return i;
    // The second byte's range rules out overlong forms, surrogates and what lies beyond U+10FFFF.
    const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (length > 1 && !continuation(i + 1, low, high)) return i;
    for (std::size_t k = 2; k < length; ++k) {
      if (!continuation(i + k, 0x80, 0xBF)) return i;
    }
    i += length;
  }
  return text.npos;
}

// Of text that begins with a quote: none closes it. yaml-cpp takes the end of the text for one, where a line ends before it, and
// so swallows all that follows a quote that was forgotten.
bool is_unclosed(std::string_view quoted) {
  const char quote = quoted.front();
  for (std::size_t i = 1; i < quoted.size(); ++i) {
    const bool doubled = quote == '\'' && quoted.substr(i).starts_with("\'\'");
    if (doubled || (quote == '"' && quoted[i] == '\\')) {
      ++i;
    } else if (quoted[i] == quote) {
      return false;
    }
  }
  return true;
}

// Stops the reading; thrown through yaml-cpp's parser and caught in read_document.
struct refusal {
  mark at;
  std::string pointer;
  std::string detail;
};

class tree_builder final : public YAML::EventHandler {
 public:
  tree_builder(const source_text& source, const node_limits& limits) : source_(source), limits_(limits) {}

  document take() { return std::move(out_); }
  std::string pointer() const;

  void OnDocumentStart(const YAML::Mark& m) override;
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& m, YAML::anchor_t anchor) override;
  void OnAlias(const YAML::Mark& m, YAML::anchor_t anchor) override;
  void OnScalar(const YAML::Mark& m, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override;
  void OnSequenceStart(const YAML::Mark& m, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(node::kind::sequence, m, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& m, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(node::kind::mapping, m, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  // What an anchored value costs to repeat.
  struct cost {
    std::size_t nodes = 0, bytes = 0;
    int height = 1;  // levels of sequences and mappings, this one included
  };
  struct anchored {
    node value;
    cost to_repeat;
  };
  // A sequence or mapping that is not yet closed.
  struct frame {
    node value;
    YAML::anchor_t anchor = YAML::NullAnchor;
    cost inside;
    bool has_key = false;     // mapping: the key is read, its value comes next
    bool drop_value = false;  // the key is a duplicate or not allowed
    std::string key;
    mark key_at;
    std::unordered_map<std::string, int> lines_of_keys;
  };

  [[noreturn]] void refuse(mark at, const std::string& detail) const { throw refusal{at, pointer(), detail}; }
  bool expects_key() const {
    return !frames_.empty() && frames_.back().value.type == node::kind::mapping && !frames_.back().has_key;
  }
  void complain(mark at, const std::string& where, const std::string& detail) {
    out_.problems.push_back(problem{where, at.line, at.column, detail});
  }
  bool means_text(const std::string& tag, mark at);
  void open(node::kind kind, const YAML::Mark& m, const std::string& tag, YAML::anchor_t anchor);
  void close();
  void take_key(std::string key, mark at, bool plain);
  void take_bad_key(mark at, const std::string& detail);
  void keep(node&& value, YAML::anchor_t anchor, cost c);
  void charge(const cost& c, mark at);

  const source_text& source_;
  const node_limits limits_;
  document out_;
  int skipped_levels_ = 0;  // > 0: inside a list or mapping that stands where a key should be
  mark skipped_from_;
  bool started_ = false;
  std::vector<frame> frames_;
  std::unordered_map<YAML::anchor_t, anchored> anchors_;
  std::size_t nodes_ = 0;           // in the tree and kept for anchors
  std::size_t repeated_bytes_ = 0;  // text kept for anchors and repeated by aliases
};

std::string tree_builder::pointer() const {
  std::string out;
  for (const frame& f : frames_) {
    if (f.value.type == node::kind::sequence) out += "/" + std::to_string(f.value.items.size());
    if (f.has_key) out += "/" + pointer_part(f.key);
  }
  return out;
}

void tree_builder::OnDocumentStart(const YAML::Mark& m) {
  if (!started_) {
    started_ = true;
    return;
  }
  const bool another = source_.from(m).starts_with("---");
  refuse(source_.at(m), another ? "a second document begins here; a text holds one document"
                                : "unexpected text after the end of the document");
}

void tree_builder::charge(const cost& c, mark at) {
  nodes_ += c.nodes;
  repeated_bytes_ += c.bytes;
  if (nodes_ > limits_.nodes) {
    refuse(at, "more than " + std::to_string(limits_.nodes) + " values, aliases expanded");
  }
  if (repeated_bytes_ > limits_.bytes) {
    refuse(at, "aliases repeat more than " + std::to_string(limits_.bytes) + " bytes of text");
  }
}

// True when the tag makes a text of any scalar; complains about tags that have no meaning here.
bool tree_builder::means_text(const std::string& tag, mark at) {
  constexpr std::string_view core = "tag:yaml.org,2002:";
  if (tag.empty() || tag == "?") return false;
  if (tag == "!") return true;  // what yaml-cpp says of quoted and block scalars
  const std::string_view name = tag.starts_with(core) ? std::string_view(tag).substr(core.size()) : "";
  if (name == "str") return true;
  const bool harmless = name == "int" || name == "float" || name == "bool" || name == "seq" || name == "map";
  if (!harmless) complain(at, pointer(), "the tag " + in_quotes(tag) + " has no meaning here; remove it");
  return false;
}

void tree_builder::take_key(std::string key, mark at, bool plain) {
  frame& top = frames_.back();
  const auto [first, is_new] = top.lines_of_keys.emplace(key, at.line);
  top.key = std::move(key);
  top.key_at = at;
  top.has_key = true;
  top.drop_value = false;
  if (!is_new) {
    top.drop_value = true;
    complain(
        at, pointer(),
        "duplicate key " + in_quotes(top.key) + "; the first is on line " + std::to_string(first->second));
  } else if (plain && top.key == "<<") {
    top.drop_value = true;
    complain(at, pointer(), "merge keys ('<<') are not part of YAML 1.2; write the keys out");
  }
}

// The value that follows is read and forgotten.
void tree_builder::take_bad_key(mark at, const std::string& detail) {
  complain(at, pointer(), detail);
  frame& top = frames_.back();
  top.key.clear();
  top.key_at = at;
  top.has_key = true;
  top.drop_value = true;
}

void tree_builder::keep(node&& value, YAML::anchor_t anchor, cost c) {
  if (anchor != YAML::NullAnchor) {
    charge(c, value.at);  // the copy
    anchors_.insert_or_assign(anchor, anchored{value, c});
  }
  if (frames_.empty()) {
    out_.root = std::move(value);
    return;
  }
  frame& top = frames_.back();
  top.inside.nodes += c.nodes;
  top.inside.bytes += c.bytes;
  top.inside.height = std::max(top.inside.height, c.height + 1);
  if (top.value.type == node::kind::sequence) {
    top.value.items.push_back(std::move(value));
    return;
  }
  if (!top.drop_value) {
    top.value.fields.push_back(node::entry{std::move(top.key), top.key_at, std::move(value)});
  }
  top.has_key = false;
}

void tree_builder::OnNull(const YAML::Mark& m, YAML::anchor_t anchor) {
  if (skipped_levels_ > 0) return;
  if (expects_key()) {
    take_bad_key(source_.at(m), "a key is missing here");
    return;
  }
  node value;
  value.at = source_.at(m);
  if (!frames_.empty() && frames_.back().has_key) value.at = frames_.back().key_at;
  const bool in_list = !frames_.empty() && frames_.back().value.type == node::kind::sequence;
  const std::string_view written = source_.from(m);
  const bool spelled_out = written.starts_with('~') || written.starts_with('n') || written.starts_with('N');
  if (in_list && !spelled_out) value.at = source_.before_empty_item(m);
  charge(cost{.nodes = 1, .bytes = 0, .height = 0}, value.at);
  keep(std::move(value), anchor, cost{.nodes = 1, .bytes = 0, .height = 0});
}

void tree_builder::OnScalar(const YAML::Mark& m, const std::string& tag, YAML::anchor_t anchor,
                            const std::string& text) {
  if (skipped_levels_ > 0) return;
  const mark at = source_.at(m);
  const bool quoted_text = means_text(tag, at);
  const std::string_view written = source_.from(m);
  if ((written.starts_with('"') || written.starts_with('\'')) && is_unclosed(written))
    throw refusal{at, pointer(), "the quote that opens here is never closed"};
  charge(cost{.nodes = 1, .bytes = 0, .height = 0}, at);
  if (expects_key()) {
    if (anchor != YAML::NullAnchor) complain(at, pointer(), "a key cannot have an anchor");
    take_key(text, at, !quoted_text);
    return;
  }
  node value;
  value.type = node::kind::scalar;
  value.at = at;
  value.text = text;
  value.quoted = quoted_text;
  keep(std::move(value), anchor, cost{.nodes = 1, .bytes = text.size(), .height = 0});
}

void tree_builder::OnAlias(const YAML::Mark& m, YAML::anchor_t anchor) {
  if (skipped_levels_ > 0) return;
  const mark at = source_.at(m);
  if (expects_key()) {
    take_bad_key(at, "an alias cannot stand for a key");
    return;
  }
  const auto found = anchors_.find(anchor);
  if (found == anchors_.end()) refuse(at, "this alias stands inside the value it names");
  const anchored& target = found->second;
  charge(target.to_repeat, at);
  if (static_cast<int>(frames_.size()) + target.to_repeat.height > limits_.depth) {
    refuse(at, "nested more than " + std::to_string(limits_.depth) + " levels deep");
  }
  node value = target.value;
  value.at = at;
  keep(std::move(value), YAML::NullAnchor, target.to_repeat);
}

void tree_builder::open(node::kind kind, const YAML::Mark& m, const std::string& tag, YAML::anchor_t anchor) {
  const mark at = source_.at(m);
  if (static_cast<int>(frames_.size()) + skipped_levels_ >= limits_.depth) {
    refuse(at, "nested more than " + std::to_string(limits_.depth) + " levels deep");
  }
  if (skipped_levels_ > 0 || expects_key()) {
    if (skipped_levels_++ == 0) skipped_from_ = at;
    return;
  }
  means_text(tag, at);
  charge(cost{.nodes = 1, .bytes = 0, .height = 0}, at);
  frame f;
  f.value.type = kind;
  f.value.at = at;
  f.anchor = anchor;
  f.inside.nodes = 1;
  frames_.push_back(std::move(f));
}

void tree_builder::close() {
  if (skipped_levels_ > 0) {
    if (--skipped_levels_ == 0) take_bad_key(skipped_from_, "a key must be a text, not a list or mapping");
    return;
  }
  frame done = std::move(frames_.back());
  frames_.pop_back();
  keep(std::move(done.value), done.anchor, done.inside);
}

error unreadable(mark at, std::string pointer, std::string detail) {
  error e;
  e.code = errc::malformed;
  e.detail = detail;
  e.problems.push_back(problem{std::move(pointer), at.line, at.column, std::move(detail)});
  return e;
}

// What usually lies behind yaml-cpp's terse messages.
std::string explained(const std::string& message, bool tab) {
  std::string out = "not valid YAML: " + message;
  if (tab) return out + "; indent with spaces, not with tabs";
  if (message.find("illegal map value") != message.npos) {
    return out + "; a text that holds ': ' must be in quotes";
  }
  return out;
}

std::optional<error> refused_before_reading(std::string_view text, const node_limits& limits) {
  if (text.size() > limits.bytes) {
    return unreadable(mark{}, "",
                      "the text has " + std::to_string(text.size()) + " bytes; the limit is " +
                          std::to_string(limits.bytes));
  }
  const std::size_t bad = first_bad_byte(text);
  if (bad == text.npos) return std::nullopt;
  const bool control = static_cast<unsigned char>(text[bad]) < 0x20;
  const source_text up_to_there(text.substr(0, bad));
  return unreadable(up_to_there.at(bad), "",
                    control ? "a control character stands here" : "the text is not valid UTF-8");
}

}  // namespace

const node* node::find(std::string_view key) const {
  for (const entry& e : fields) {
    if (e.key == key) return &e.value;
  }
  return nullptr;
}

result<document> read_document(std::string_view text, const node_limits& limits) {
  if (auto refused = refused_before_reading(text, limits)) return *refused;
  const source_text source(text);
  tree_builder builder(source, limits);
  try {
    std::istringstream stream(source.for_parser());
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const refusal& r) {
    return unreadable(r.at, r.pointer, r.detail);
  } catch (const YAML::Exception& e) {
    const mark at = source.at(e.mark);
    const auto tab = source.tab_in_indentation(at);
    return unreadable(tab.value_or(at), builder.pointer(), explained(e.msg, tab.has_value()));
  }
  return builder.take();
}

result<node> parse_document(std::string_view text, const node_limits& limits) {
  auto read = read_document(text, limits);
  if (!read) return read.error();
  if (read->problems.empty()) return std::move(read->root);
  error e;
  e.code = errc::malformed;
  e.detail = read->problems.front().detail;
  e.problems = std::move(read->problems);
  return e;
}

}  // namespace penstock::config
