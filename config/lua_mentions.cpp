#include "config/lua_mentions.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "config/characters.hpp"
#include "config/field.hpp"
#include "config/in_quotes.hpp"

namespace penstock::config {
namespace {

constexpr std::array<std::string_view, 7> lua_variables{"event", "meta", "params", "run", "tasks", "item", "item_index"};

// Walks over the words and signs of a Lua text (Lua 5.4 manual, section 3.1), leaving out spaces, comments and
// strings.
class lua_reader {
 public:
  explicit lua_reader(std::string_view text) : text_(text) {}

  std::vector<lua_mention> mentions() {
    skip_space();
    while (at_ < text_.size() && !has_function_) {
      step();
      skip_space();
    }
    if (has_function_) found_.clear();
    if (has_function_) strangers_.clear();
    return std::move(found_);
  }

  // Other words into which the text looks with a dot, once mentions() has read it.
  const std::vector<std::string>& strangers() const { return strangers_; }

 private:
  char here(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

  void step() {
    const char c = here();
    if (begins_word(c)) {
      word();
    } else if (is_digit(c)) {
      // 0xff, 1e5, 3.14: up to the end of what could belong to it, but not into the dots of `1 ..`.
      while (is_word(here()) || (here() == '.' && here(1) != '.')) ++at_;
      member_ = false;
    } else if (c == '"' || c == '\'') {
      quoted();
      member_ = false;
    } else if (c == '[' && long_bracket()) {
      skip_long_bracket();
      member_ = false;
    } else if (c == '.' && here(1) == '.') {
      at_ += 2;
      member_ = false;
    } else {
      member_ = c == '.' || c == ':';
      ++at_;
    }
  }

  std::string_view read_word() {
    const std::size_t begin = at_;
    while (is_word(here())) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  void word() {
    const std::string_view name = read_word();
    const bool member = std::exchange(member_, false);
    if (name == "function") has_function_ = true;
    if (member) return;
    if (std::find(lua_variables.begin(), lua_variables.end(), name) == lua_variables.end()) {
      if (here() == '.' && begins_word(here(1))) strangers_.emplace_back(name);
      return;
    }
    const std::size_t behind = at_;
    skip_space();
    if (here() == '=' && here(1) != '=') return;  // a key in a table: {item = 1}
    lua_mention found{std::string(name), key()};
    at_ = behind;
    if (std::find(found_.begin(), found_.end(), found) == found_.end()) found_.push_back(std::move(found));
  }

  // The key that follows a variable, if it stands there in so many words.
  std::string key() {
    if (here() == '.' && here(1) != '.') {
      ++at_;
      skip_space();
      return begins_word(here()) ? std::string(read_word()) : std::string();
    }
    if (here() != '[' || long_bracket()) return {};
    ++at_;
    skip_space();
    if (here() != '"' && here() != '\'') return {};
    const std::size_t begin = at_ + 1;
    quoted();
    const std::string_view inside = text_.substr(begin, at_ - begin - 1);
    skip_space();
    const bool plain = here() == ']' && inside.find('\\') == inside.npos;
    return plain ? std::string(inside) : std::string();
  }

  void quoted() {
    const char quote = text_[at_++];
    while (at_ < text_.size() && text_[at_] != quote) at_ += text_[at_] == '\\' ? 2 : 1;
    at_ = std::min(at_ + 1, text_.size());
  }

  // The number of '=' in [[ or [==[, which begins a long string.
  std::optional<std::size_t> long_bracket() const {
    std::size_t level = 0;
    while (here(1 + level) == '=') ++level;
    return here(1 + level) == '[' ? std::optional(level) : std::nullopt;
  }

  void skip_long_bracket() {
    const std::string end = "]" + std::string(*long_bracket(), '=') + "]";
    const std::size_t close = text_.find(end, at_ + 2);
    at_ = close == text_.npos ? text_.size() : close + end.size();
  }

  void skip_space() {
    while (at_ < text_.size()) {
      const char c = here();
      if (c == ' ' || (c >= '\t' && c <= '\r')) {
        ++at_;
      } else if (c == '-' && here(1) == '-') {
        at_ += 2;
        if (here() == '[' && long_bracket()) {
          skip_long_bracket();
        } else {
          at_ = std::min(text_.find('\n', at_), text_.size());
        }
      } else {
        return;
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool member_ = false;  // the word to come stands behind a dot or colon
  bool has_function_ = false;
  std::vector<lua_mention> found_;
  std::vector<std::string> strangers_;
};

}  // namespace

std::vector<lua_mention> lua_mentions(std::string_view expression) { return lua_reader(expression).mentions(); }

std::optional<std::string> lua_slip(std::string_view expression) {
  lua_reader reader(expression);
  reader.mentions();
  for (const std::string& word : reader.strangers()) {
    const std::string meant = nearest(word, {lua_variables.begin(), lua_variables.end()});
    if (!meant.empty()) return "nothing is called " + in_quotes(word) + " here; did you mean '" + meant + "'?";
  }
  return std::nullopt;
}

}  // namespace penstock::config
