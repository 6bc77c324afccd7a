// Expressions and scripts: sandboxed Lua 5.4 with an instruction and a memory limit per call.
//
// Each thread has one engine (thread_local), shared by all flows that run there, so an idle flow costs no Lua
// state. Compiled chunks are cached per engine by their text (at most 10,000 and 32 MiB). Expressions keep nothing
// between calls: globals written by a script are gone when it returns, and an expression cannot write any.
// lua.hpp is the only door to Lua.
//
// What a text sees, beside the library (lua_sandbox.hpp):
//
// - event, the payload. JSON: fields are read lazily from the parsed document, as `event.customer.id` or
//   `event.items[1]`, with #, pairs and ipairs; null reads as nil; integers stay integers (float beyond 64
//   signed bits); read-only. Not JSON: the raw bytes as a string. Empty: nil. Malformed JSON: the call fails.
//   A text that does not mention `event` does not parse the payload. In a script it is a table to be changed.
// - meta, with id source type subject time (RFC 3339) key position datacontenttype. Absent ones are nil.
// - params and run, of the run that it belongs to: tables, made anew for each call and only for a text that mentions
//   them. In a flow both are nil.
//
// Payloads are parsed at most once per call, and once for several calls while a payload_hold lives.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/event.hpp"

namespace penstock::runtime {

struct lua_limits {
  std::int64_t instructions = 1'000'000;  // per call; long work inside library functions is charged as well
  std::size_t memory_bytes = 16 << 20;    // per call, above what the engine itself holds
  std::int64_t cpu_ms = 1'000;            // of the thread; a backstop that ordinary texts never see
};

// What is wrong with the text as an expression (chunk = false) or a script (chunk = true), or nothing. Any
// thread.
std::optional<std::string> check_lua(std::string_view text, bool chunk);

// The outcome of one call. `failure` empty: it worked.
template <class T>
struct lua_outcome {
  T value{};
  std::string failure{};  // the Lua message, with line for scripts; limits say so in words
};

// A text to compile, and where the engine that ran it last keeps it compiled. For the classes below.
struct lua_chunk {
  const char* name;  // in messages: "expression", "map" or "script"
  std::string source;
  bool reads_event;  // it mentions `event`
  bool can_loop;     // it may run long in Lua code, so instructions must be counted
  mutable std::uint64_t epoch = 0;
  mutable int reference = 0;
};

// What the names in an expression stand for.
enum class lua_scope {
  event,    // `event` and `meta`
  payload,  // `event` alone
  run,      // the payload is a run's context, and params, run, tasks, item, item_index and event are its fields
};

// Constructors of the three classes below: syntax was checked with check_lua before. `run_context` is the JSON
// {"params":…,"run":…}, needed during construction only; null in a flow. They throw std::invalid_argument when the text
// mentions params or run and the context is not JSON.

// A compiled expression, e.g. `event.total > 5000`. Cheap to copy; usable on any thread, one at a time.
class lua_expression {
 public:
  explicit lua_expression(std::string text, const std::string* run_context = nullptr);
  lua_expression(std::string text, lua_scope scope);
  const std::string& text() const { return text_; }

  lua_outcome<bool> truth(const event& e) const;  // nil and false are false, as in Lua
  // As text: strings as they are, integers and floats in Lua's notation, nil as empty; tables are a failure.
  lua_outcome<std::string> text_of(const event& e) const;
  // The value as JSON, as a mapping writes it.
  lua_outcome<std::string> json_of(const event& e) const;
  // Strings as they are, all else as JSON; nothing where it is nil.
  lua_outcome<std::optional<std::string>> text_or_json_of(const event& e) const;

 private:
  std::string text_;
  lua_chunk chunk_;
};

// An ordered list of (field, expression): builds one JSON object for each event.
class lua_mapping {
 public:
  explicit lua_mapping(std::vector<std::pair<std::string, std::string>> fields,
                       const std::string* run_context = nullptr);
  // Appends the JSON object to `out`, untouched on failure. nil is written as null; integers as integers,
  // floats always recognisable as floats (2.0); objects and arrays of the event with the values they have.
  // Strings that are not UTF-8, NaN and infinities are failures. The failure names the field.
  lua_outcome<bool> apply(const event& e, std::string& out) const;

 private:
  // `event.a.b` is a plain field: {"a", "b"}. It is copied from the parsed payload without Lua.
  struct field {
    std::string name, expression;
    std::string prefix;             // `{"name":` or `,"name":`
    std::vector<std::string> path;  // empty: not plain
  };
  // Some of a group's fields, compiled as one chunk that returns them all.
  struct part {
    lua_chunk chunk;
    std::vector<std::size_t> fields;
    std::vector<int> lines;  // where in the chunk each of them starts
  };
  // Up to 100 fields (a Lua function has some 250 registers).
  struct group {
    std::vector<field> fields;
    part computed;  // those that are not plain
    part all;       // for payloads in which a plain field's way does not lead through objects
  };
  enum class outcome { done, failed, not_plain };

  static part make_part(const std::vector<field>& fields, bool with_plain, const std::string* run_context);
  static outcome append_fields(const group& g, const part& computed, const event& e, std::string& out,
                               std::string& failure);

  std::vector<group> groups_;
};

// A script: `event` is a table it may change (JSON null is the value `null`, arrays stay arrays even when
// empty). Returns a table (the new event), nil or false (drop), or nothing at all (the changed `event` goes
// on); `emit(value)` adds further events, in order, before it.
class lua_script {
 public:
  explicit lua_script(std::string text, const std::string* run_context = nullptr);
  // The payloads to emit, as JSON texts.
  lua_outcome<std::vector<std::string>> run(const event& e) const;

 private:
  lua_chunk chunk_;
};

// While one lives, a payload that a call on this thread has parsed is used by the next call for the same bytes. The bytes of
// all events that are looked at meanwhile must stay where and as they are: batches only grow. Made and gone on one thread,
// without suspending between.
class payload_hold {
 public:
  payload_hold();
  ~payload_hold();
  payload_hold(const payload_hold&) = delete;
  payload_hold& operator=(const payload_hold&) = delete;
};

// One key per event: the expression's text, empty where it is nil or fails.
std::vector<std::string> evaluate_keys(const std::string& expression, const batch& events);

}  // namespace penstock::runtime
