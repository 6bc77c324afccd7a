#include "runtime/json.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include <nlohmann/json.hpp>
#include <simdjson.h>

#include "runtime/cloudevents.hpp"
#include "runtime/records.hpp"
#include "runtime/text.hpp"
#include "runtime/ulid.hpp"

namespace penstock::runtime {

namespace {

namespace dom = simdjson::dom;

static_assert(simdjson::SIMDJSON_PADDING <= padding, "payloads have too little padding for simdjson");

constexpr std::size_t first_capacity = 4 << 10;

// The thread's parser. What it returns is valid until the thread parses again, so nothing outlives one
// function here.
class dom_parser {
 public:
  explicit dom_parser(int depth) {
    // simdjson counts the document itself as a level (and an empty array or object as none).
    const auto levels = static_cast<std::size_t>(depth) + 1;
    if (parser_.max_depth() != levels && parser_.allocate(first_capacity, levels) != simdjson::SUCCESS)
      throw std::bad_alloc();
  }
  ~dom_parser() {
    if (parser_.capacity() > kept_parser_capacity) parser_ = dom::parser{};
  }
  dom_parser(const dom_parser&) = delete;
  dom_parser& operator=(const dom_parser&) = delete;

  // In place: `padding` readable bytes follow `text`.
  simdjson::error_code parse(std::string_view text, dom::element& root) {
    const simdjson::error_code error = parser_.parse(text.data(), text.size(), false).get(root);
    if (error == simdjson::MEMALLOC) throw std::bad_alloc();
    return error;
  }

 private:
  static thread_local dom::parser parser_;
};

thread_local dom::parser dom_parser::parser_;

// ---- what is wrong

// Where malformed JSON stops making sense, as a count of bytes read; 0: unknown. simdjson does not say, so
// the text is read again by a parser that does.
std::size_t fault_offset(std::string_view text) {
  const auto skip = [](int, nlohmann::json::parse_event_t, nlohmann::json&) { return false; };
  try {
    const auto ignored = nlohmann::json::parse(text.begin(), text.end(), skip);
  } catch (const nlohmann::json::parse_error& e) {
    return e.byte;
  } catch (const nlohmann::json::exception&) {
    return 0;  // a number out of range; that parser does not say where either
  }
  return 0;
}

std::string describe(simdjson::error_code error, std::string_view text, int depth) {
  switch (error) {
    case simdjson::DEPTH_ERROR:
      return "JSON nested more than " + std::to_string(depth) + " deep";
    case simdjson::UTF8_ERROR:
      return "not valid UTF-8";
    case simdjson::EMPTY:
      return "empty";
    case simdjson::NUMBER_ERROR:
      return "not valid JSON: a number is malformed or out of range";
    case simdjson::UNCLOSED_STRING:
      return "not valid JSON: a string is not closed";
    case simdjson::STRING_ERROR:
      return "not valid JSON: a string has a wrong escape";
    case simdjson::UNESCAPED_CHARS:
      return "not valid JSON: a control character in a string must be written as an escape";
    default:
      break;
  }
  if (text.starts_with(byte_order_mark)) return "a byte order mark comes first; send plain UTF-8";
  if (text.find('\0') != text.npos) return "not valid JSON: a NUL byte outside of a string";
  return "not valid JSON: a value, comma, colon or bracket is missing or misplaced";
}

struct fault {
  std::string what;
  std::size_t offset = 0;  // 1-based; 0: unknown
};

fault find_fault(simdjson::error_code error, std::string_view text, int depth) {
  const bool positioned = error != simdjson::DEPTH_ERROR && error != simdjson::EMPTY;
  return {describe(error, text, depth), positioned ? fault_offset(text) : 0};
}

// Nothing when `text` is JSON.
std::optional<fault> find_fault(std::string_view text, int depth) {
  if (text.empty()) return fault{"empty"};
  dom::element root;
  const simdjson::error_code error = dom_parser(depth).parse(text, root);
  if (!error) return std::nullopt;
  return find_fault(error, text, depth);
}

// ---- extents of JSON values, without looking at what is inside

// Behind the string that starts at `at`, or `end` when it is not closed.
const char* skip_string(const char* at, const char* end) {
  for (++at; at < end; ++at) {
    if (*at == '"') return at + 1;
    if (*at == '\\') ++at;
  }
  return end;
}

const char* skip_brackets(const char* at, const char* end) {
  int depth = 0;
  while (at < end) {
    switch (*at) {
      case '"':
        at = skip_string(at, end);
        continue;
      case '[':
      case '{':
        ++depth;
        break;
      case ']':
      case '}':
        if (--depth == 0) return at + 1;
        break;
      default:
        break;
    }
    ++at;
  }
  return end;
}

// Behind the value that starts at `at`. Of text that is not JSON it may return anything up to `end`; whoever
// uses it parses what lies between.
const char* skip_value(const char* at, const char* end) {
  if (at == end) return end;
  if (*at == '"') return skip_string(at, end);
  if (*at == '{' || *at == '[') return skip_brackets(at, end);
  while (at < end && !std::strchr(",]} \t\r\n", *at)) ++at;
  return at;
}

const char* skip_whitespace(const char* at, const char* end) {
  while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) ++at;
  return at;
}

// ---- base64 (RFC 4648, section 4)

constexpr std::string_view base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void append_base64(std::string& out, std::string_view bytes) {
  std::size_t i = 0;
  const auto digit = [&out](std::uint32_t bits) { out += base64_digits[bits & 63]; };
  const auto byte = [&bytes](std::size_t at) {
    return at < bytes.size() ? std::uint32_t{static_cast<unsigned char>(bytes[at])} : 0;
  };
  for (; i < bytes.size(); i += 3) {
    const std::uint32_t bits = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    digit(bits >> 18);
    digit(bits >> 12);
    i + 1 < bytes.size() ? digit(bits >> 6) : out.push_back('=');
    i + 2 < bytes.size() ? digit(bits) : out.push_back('=');
  }
}

std::array<std::int8_t, 256> make_base64_values() {
  std::array<std::int8_t, 256> values{};
  values.fill(-1);
  for (std::size_t i = 0; i < base64_digits.size(); ++i)
    values[static_cast<unsigned char>(base64_digits[i])] = static_cast<std::int8_t>(i);
  return values;
}

// Nothing when it is not base64. Padding may be missing, as some senders leave it out.
std::optional<std::string> decode_base64(std::string_view text) {
  static const std::array<std::int8_t, 256> values = make_base64_values();
  std::size_t length = text.size();
  if (length % 4 == 0) {
    for (int i = 0; i < 2 && length > 0 && text[length - 1] == '='; ++i) --length;
  }
  if (length % 4 == 1) return std::nullopt;
  std::string bytes;
  bytes.reserve(length * 3 / 4);
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text.substr(0, length)) {
    const std::int8_t value = values[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes += static_cast<char>(bits >> held & 0xFF);
  }
  return bytes;
}

// ---- intake

// One read_events call. Each add_* returns false after setting `failure_`.
class intake {
 public:
  intake(std::shared_ptr<const buffer> body, const event_defaults& defaults, const intake_limits& limits)
      : body_(std::move(body)), defaults_(defaults), limits_(limits) {
    made_.adopt(body_);
    source_ = made_.keep(defaults.source);
    type_ = made_.keep(defaults.type);
  }

  result<batch> read(intake_format format) {
    const std::string_view text = body_->text();
    if (text.starts_with(byte_order_mark))
      return error{errc::malformed, "the body starts with a byte order mark; send plain UTF-8"};
    if (!read_as(format, text)) return std::move(failure_);
    if (made_.empty()) return error{errc::malformed, "no events"};
    give_ids();
    return std::move(made_);
  }

 private:
  // Where an event stands in the body, for messages; both 1-based, 0: unknown.
  struct place {
    int line = 0;
    int item = 0;  // of an array
  };

  bool read_as(intake_format format, std::string_view text) {
    switch (format) {
      case intake_format::ndjson:
        return read_lines(text);
      case intake_format::cloudevent:
        return trimmed(text).empty() || add_cloudevent(trimmed(text), {});
      case intake_format::cloudevents_batch:
        return read_array(trimmed(text), &intake::add_cloudevent);
      case intake_format::json:
        break;
    }
    text = trimmed(text);
    if (text.empty()) return true;
    return text.front() == '[' ? read_array(text, &intake::add_payload) : add_payload(text, {});
  }

  bool read_lines(std::string_view text) {
    int line = 0;
    made_.events.reserve(std::min(limits_.events, text.size() / 128 + 1));
    while (!text.empty()) {
      ++line;
      const void* newline = std::memchr(text.data(), '\n', text.size());
      const std::size_t length =
          newline ? static_cast<std::size_t>(static_cast<const char*>(newline) - text.data()) : text.size();
      const std::string_view payload = trimmed(text.substr(0, length));
      if (!payload.empty() && !add_payload(payload, {line, 0})) return false;
      text.remove_prefix(std::min(text.size(), length + 1));
    }
    return true;
  }

  // `text` starts with a '[', or it is refused. Items are cut out by their brackets, then each is parsed by
  // itself: the array is JSON exactly when every item is and only commas stand between.
  bool read_array(std::string_view text, bool (intake::*add)(std::string_view, place)) {
    if (text.empty()) return true;
    if (text.front() != '[') return fail(errc::malformed, {}, "a batch is a JSON array of events");
    const char* const end = text.data() + text.size();
    const char* at = skip_whitespace(text.data() + 1, end);
    if (at < end && *at == ']') return ends_after(at, end, {});
    for (place where{0, 1};; ++where.item) {
      const char* const item_end = skip_value(at, end);
      if (item_end == at) return fail(errc::malformed, where, "not valid JSON: a value is missing");
      if (!(this->*add)({at, static_cast<std::size_t>(item_end - at)}, where)) return false;
      at = skip_whitespace(item_end, end);
      if (at == end) return fail(errc::malformed, where, "not valid JSON: the array is not closed");
      if (*at == ']') return ends_after(at, end, where);
      if (*at != ',') return fail(errc::malformed, where, "not valid JSON: a comma or ] is missing after it");
      at = skip_whitespace(at + 1, end);
    }
  }

  bool ends_after(const char* bracket, const char* end, place where) {
    return bracket + 1 == end || fail(errc::malformed, where, "not valid JSON: something follows the array");
  }

  bool add_payload(std::string_view payload, place where) {
    if (!has_room(payload.size(), where) || !is_json(payload, where)) return false;
    event& e = add_event();
    e.data = payload;
    return true;
  }

  event& add_event() {
    event& e = made_.events.emplace_back();
    e.source = source_;
    e.type = type_;
    e.time = defaults_.now;
    return e;
  }

  bool has_room(std::size_t size, place where) {
    if (size > limits_.event_bytes)
      return fail(errc::too_large, where,
                  "an event of " + std::to_string(size) + " bytes; the limit is " +
                      std::to_string(limits_.event_bytes));
    if (made_.size() >= limits_.events)
      return fail(errc::too_large, where, "more than " + std::to_string(limits_.events) + " events");
    return true;
  }

  bool is_json(std::string_view text, place where) {
    const std::optional<fault> wrong = find_fault(text, limits_.depth);
    return !wrong || fail(where, *wrong, text);
  }

  // With line and column in the body where the offset in `text`, a part of the body, is known.
  bool fail(place where, const fault& wrong, std::string_view text) {
    int column = 0;
    if (wrong.offset > 0) {
      const std::string_view before = body_->text().substr(
          0, static_cast<std::size_t>(text.data() - body_->text().data()) + wrong.offset - 1);
      const std::size_t newline = before.rfind('\n');
      where.line = static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1;
      column = static_cast<int>(before.size() - (newline == before.npos ? 0 : newline + 1)) + 1;
    }
    return fail(errc::malformed, where, wrong.what, column);
  }

  bool fail(errc code, place where, const std::string& what, int column = 0) {
    std::string at;
    const auto add = [&at](const char* name, int number) {
      if (number > 0) at += (at.empty() ? "" : ", ") + (name + std::to_string(number));
    };
    add("item ", where.item);
    add("line ", where.line);
    add("column ", column);
    problem p;
    if (where.item > 0) p.pointer = "/" + std::to_string(where.item - 1);
    p.line = where.line;
    p.column = column;
    p.detail = what;
    failure_ = error{code, at.empty() ? what : at + ": " + what, {p}};
    return false;
  }

  void give_ids() {
    const auto without =
        std::count_if(made_.events.begin(), made_.events.end(), [](const event& e) { return e.id.empty(); });
    if (without == 0) return;
    if (!defaults_.id.empty()) return give_ids_after(defaults_.id);
    char* id = made_.allocate(static_cast<std::size_t>(without) * ulid_size);
    for (event& e : made_.events) {
      if (!e.id.empty()) continue;
      make_ulid(defaults_.now, id);
      e.id = {id, ulid_size};
      id += ulid_size;
    }
  }

  // The same body gets the same ids again.
  void give_ids_after(std::string_view id) {
    std::int64_t n = 0;
    for (event& e : made_.events) {
      ++n;
      if (!e.id.empty()) continue;
      e.id = made_.keep(made_.size() == 1 ? std::string(id) : std::string(id) + "-" + std::to_string(n));
    }
  }

  // ---- CloudEvents 1.0.2, JSON event format

  struct members {
    std::string_view id, source, type, specversion, subject, time, datacontenttype, key;
    std::optional<dom::element> data;
    std::string_view raw_data;  // its JSON text in the body
    std::optional<std::string_view> data_base64;
  };

  bool add_cloudevent(std::string_view text, place where) {
    // What surrounds the payload is small; the payload is measured by itself below.
    if (text.size() > limits_.event_bytes * 2 + (64 << 10)) return has_room(text.size(), where);
    dom_parser parser(limits_.depth + 1);
    dom::element root;
    if (const simdjson::error_code wrong = parser.parse(text, root))
      return fail(where, find_fault(wrong, text, limits_.depth), text);
    dom::object fields;
    if (root.get(fields)) return fail(errc::malformed, where, "a CloudEvent is a JSON object");
    members m;
    return read_members(text, fields, m, where) && check_members(m, where) && add_from(m, where);
  }

  // Goes through the parsed object and its text side by side: simdjson gives the values, the text the
  // payload's bytes.
  bool read_members(std::string_view text, const dom::object& fields, members& m, place where) {
    const char* const end = text.data() + text.size();
    const char* at = text.data() + 1;
    for (const dom::key_value_pair field : fields) {
      at = skip_whitespace(at, end);
      at = skip_whitespace(skip_string(at, end), end);
      at = skip_whitespace(at + 1, end);  // behind the colon
      const char* const value_end = skip_value(at, end);
      if (field.key == "data") {
        m.data = field.value;
        m.raw_data = {at, static_cast<std::size_t>(value_end - at)};
      } else if (!read_attribute(field.key, field.value, m, where)) {
        return false;
      }
      at = skip_whitespace(value_end, end) + 1;  // behind the comma
    }
    return true;
  }

  // Attributes that are null count as absent; unknown ones are extensions and not kept.
  bool read_attribute(std::string_view name, const dom::element& value, members& m, place where) {
    std::string_view* slot = attribute(m, name);
    const bool payload = name == "data_base64";
    if ((!slot && !payload) || value.is_null()) return true;
    std::string_view text;
    if (value.get(text)) return fail(errc::malformed, where, "'" + std::string(name) + "' must be a string");
    if (payload) {
      m.data_base64 = text;
      return true;
    }
    const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
    if (std::any_of(text.begin(), text.end(), control))
      return fail(errc::malformed, where, "'" + std::string(name) + "' has a control character");
    *slot = text;
    return true;
  }

  static std::string_view* attribute(members& m, std::string_view name) {
    const std::pair<std::string_view, std::string_view*> known[] = {{"id", &m.id},
                                                                    {"source", &m.source},
                                                                    {"type", &m.type},
                                                                    {"time", &m.time},
                                                                    {"subject", &m.subject},
                                                                    {"specversion", &m.specversion},
                                                                    {"partitionkey", &m.key},
                                                                    {"datacontenttype", &m.datacontenttype}};
    for (const auto& [known_name, slot] : known) {
      if (name == known_name) return slot;
    }
    return nullptr;
  }

  bool check_members(const members& m, place where) {
    const std::pair<const char*, std::string_view> required[] = {
        {"specversion", m.specversion}, {"id", m.id}, {"source", m.source}, {"type", m.type}};
    for (const auto& [name, value] : required) {
      if (value.empty())
        return fail(errc::malformed, where, "'" + std::string(name) + "' is missing or empty");
    }
    if (m.specversion != "1.0") return fail(errc::malformed, where, "'specversion' must be \"1.0\"");
    if (m.data && m.data_base64) return fail(errc::malformed, where, "both 'data' and 'data_base64'");
    return true;
  }

  bool add_from(const members& m, place where) {
    std::optional<timestamp> time;
    if (!m.time.empty() && !(time = parse_time(m.time)))
      return fail(errc::malformed, where, "'time' is not an RFC 3339 time");
    event e;
    const std::string type = with_small_letters(m.datacontenttype);
    e.datacontenttype = type;
    std::string decoded;
    if (!read_data(m, e, decoded, where) || !has_room(e.data.size(), where)) return false;
    // Copies: attributes lie in the parser's memory. A payload that lies in the body stays there.
    const auto kept = [this](std::string_view text) {
      return text.empty() ? std::string_view() : made_.keep(text);
    };
    if (!m.data || e.data.data() != m.raw_data.data()) e.data = kept(e.data);
    e.id = kept(m.id);
    e.source = kept(m.source);
    e.type = kept(m.type);
    e.subject = kept(m.subject);
    e.key = kept(m.key);
    e.datacontenttype = kept(type);
    e.time = time.value_or(defaults_.now);
    made_.events.push_back(e);
    return true;
  }

  // Section 3.1.1 of the JSON event format: `data` is the JSON payload itself, or for other content types the
  // text of a string.
  bool read_data(const members& m, event& e, std::string& decoded, place where) {
    if (m.data) {
      const bool text = !e.is_json() && m.data->is_string();
      e.data = text ? m.data->get_string().value_unsafe() : m.raw_data;
      return true;
    }
    if (!m.data_base64) return true;
    std::optional<std::string> bytes = decode_base64(*m.data_base64);
    if (!bytes) return fail(errc::malformed, where, "'data_base64' is not base64");
    decoded = std::move(*bytes);
    e.data = decoded;
    if (!e.is_json()) return true;
    const simdjson::padded_string padded(decoded);
    dom::parser parser;  // the thread's holds the attributes
    if (parser.allocate(0, static_cast<std::size_t>(limits_.depth) + 1)) throw std::bad_alloc();
    if (const simdjson::error_code wrong = parser.parse(padded).error())
      return fail(
          errc::malformed, where,
          "'data_base64': " + describe(wrong, padded, limits_.depth) + " (or datacontenttype is missing)");
    return true;
  }

  const std::shared_ptr<const buffer> body_;
  const event_defaults& defaults_;
  const intake_limits& limits_;
  batch made_;
  std::string_view source_, type_;
  error failure_;
};

// ---- writing

// Payloads on one line: outside of strings JSON may have newlines, inside it cannot.
void append_on_one_line(std::string& out, std::string_view json) {
  const std::size_t start = out.size();
  out += json;
  if (json.find_first_of("\r\n") == json.npos) return;
  std::replace_if(
      out.begin() + static_cast<std::ptrdiff_t>(start), out.end(),
      [](char c) { return c == '\n' || c == '\r'; }, ' ');
}

void append_base64_string(std::string& out, std::string_view bytes) {
  out += '"';
  append_base64(out, bytes);
  out += '"';
}

bool is_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

// The length of the UTF-8 sequence at the start of `text` (RFC 3629, table in section 4); 0: none.
std::size_t utf8_sequence(std::string_view text) {
  for (std::size_t length = 1; length <= 4 && length <= text.size(); ++length) {
    if (is_utf8(text.substr(0, length))) return length;
  }
  return 0;
}

void append_escaped(std::string& out, std::string_view text) {
  static constexpr char hex[] = "0123456789abcdef";
  std::size_t written = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out += text.substr(written, i - written);
    written = i + 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        out += "\\u00";
        out += hex[c >> 4];
        out += hex[c & 15];
    }
  }
  out += text.substr(written);
}

// Most strings are short ASCII without quotes; for them one look at each byte is quicker than a call of
// simdjson.
bool is_short_and_plain(std::string_view text) {
  if (text.size() > 64) return false;
  for (const char c : text) {
    if (static_cast<signed char>(c) < 0x20 || c == '"' || c == '\\')
      return false;  // as signed numbers, bytes beyond ASCII are below 0x20, too
  }
  return true;
}

void append_member(std::string& out, std::string_view name, std::string_view value) {
  out += ",\"";
  out += name;
  out += "\":";
  append_json_string(out, value);
}

void append_data(std::string& out, const event& e) {
  if (e.data.empty()) return;
  if (e.is_json() && check_json(e.data).empty()) {
    out += ",\"data\":";
    append_on_one_line(out, e.data);
  } else if (!e.is_json() && is_utf8(e.data)) {
    append_member(out, "data", e.data);
  } else {
    out += ",\"data_base64\":";
    append_base64_string(out, e.data);
  }
}

}  // namespace

result<batch> read_events(std::shared_ptr<const buffer> body, intake_format format,
                          const event_defaults& defaults, const intake_limits& limits) {
  return intake(std::move(body), defaults, limits).read(format);
}

std::string check_json(std::string_view padded_text, int max_depth) {
  const std::optional<fault> wrong = find_fault(padded_text, max_depth);
  if (!wrong) return {};
  return wrong->offset > 0 ? wrong->what + ", at byte " + std::to_string(wrong->offset) : wrong->what;
}

void append_ndjson(std::string& out, const event& e) {
  if (e.is_json()) {
    if (e.data.empty())
      out += "null";
    else
      append_on_one_line(out, e.data);
  } else if (is_utf8(e.data)) {
    append_json_string(out, e.data);
  } else {
    append_base64_string(out, e.data);
  }
  out += '\n';
}

void append_cloudevent(std::string& out, const event& e) {
  out += "{\"specversion\":\"1.0\",\"id\":";
  append_json_string(out, e.id);
  append_member(out, "source", e.source);
  append_member(out, "type", e.type);
  append_member(out, "time", format_time(e.time));
  if (!e.subject.empty()) append_member(out, "subject", e.subject);
  if (!e.key.empty()) append_member(out, "partitionkey", e.key);
  append_member(out, "datacontenttype", e.datacontenttype.empty() ? "application/json" : e.datacontenttype);
  out += ",\"offset\":" + std::to_string(e.position);
  append_data(out, e);
  out += '}';
}

void append_json_string(std::string& out, std::string_view text) {
  if (append_utf8_json_string(out, text)) return;
  // Whatever comes in, what goes out is JSON.
  out += '"';
  while (!text.empty()) {
    const std::size_t length = utf8_sequence(text);
    if (length == 0)
      out += "\xEF\xBF\xBD";
    else
      append_escaped(out, text.substr(0, length));
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  out += '"';
}

bool append_utf8_json_string(std::string& out, std::string_view text) {
  const bool plain = is_short_and_plain(text);
  if (!plain && !is_utf8(text)) return false;
  out += '"';
  if (plain)
    out += text;
  else
    append_escaped(out, text);
  out += '"';
  return true;
}

}  // namespace penstock::runtime
