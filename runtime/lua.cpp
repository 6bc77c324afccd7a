#include "runtime/lua.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <new>
#include <time.h>
#include <unordered_map>

#include <lua.hpp>

#include "runtime/json.hpp"
#include "runtime/lua_context.hpp"
#include "runtime/lua_json.hpp"
#include "runtime/lua_sandbox.hpp"
#include "runtime/lua_text.hpp"

namespace penstock::runtime {

namespace {

constexpr lua_limits limits{};
// Compiled chunks kept, and how long their texts may be together (a run's parameters stand in some of them).
constexpr std::size_t most_chunks = 10'000;
constexpr std::size_t most_chunk_bytes = 32 << 20;
// Instructions between two looks at the budget.
constexpr int hook_interval = 1'000;
// Refused allocations in one call beyond which every further one is refused: each costs a full collection.
constexpr int most_refusals = 20;
// A full collection follows a call that leaves more than this (or twice what the last one left).
constexpr std::size_t collect_from = 4 << 20;
constexpr std::size_t most_emitted = 10'000;
constexpr std::size_t most_message = 1'000;
constexpr std::size_t fields_per_group = 100;

// Values that stay at the bottom of the engine's stack.
constexpr int root_view = 1, meta_view = 2, environment = 3, script_metatable = 4, bottom = 4;

std::atomic<std::uint64_t> next_epoch{1};

// ---- limits

void* allocate(void* budget_of_engine, void* block, std::size_t old_size, std::size_t new_size) {
  lua_budget& budget = *static_cast<lua_budget*>(budget_of_engine);
  if (!block) old_size = 0;  // then Lua passes the kind of object here
  if (new_size == 0) {
    std::free(block);
    budget.used_bytes -= old_size;
    return nullptr;
  }
  if (new_size > old_size) {
    const bool too_much = budget.used_bytes + (new_size - old_size) > budget.most_bytes;
    if (too_much) ++budget.refusals;
    if (too_much || budget.refusals > most_refusals) return nullptr;
    budget.ticks += static_cast<std::int64_t>(new_size);
  }
  void* grown = std::realloc(block, new_size);
  if (grown) budget.used_bytes += new_size - old_size;
  return grown;
}

std::int64_t thread_cpu_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

// Called by Lua every hook_interval instructions.
void count_instructions(lua_State* state, lua_Debug*) {
  lua_budget& budget = context_of(state).budget;
  const std::int64_t now = thread_cpu_time();
  if (budget.cpu_started == 0) budget.cpu_started = now;
  if (now - budget.cpu_started > limits.cpu_ms * 1'000'000) {
    budget.ticks = budget.most_ticks + 1;  // so that pcall cannot catch it
    luaL_error(state, "CPU time limit of %d ms reached", static_cast<int>(limits.cpu_ms));
  }
  charge(state, hook_interval * lua_budget::ticks_per_instruction);
}

// Only real exhaustion gets here: limits are in force inside protected calls alone.
int out_of_memory(lua_State*) { throw std::bad_alloc(); }

// ---- what is wrong

std::string limited(std::string text) {
  if (text.size() > most_message) text.resize(most_message);
  return text;
}

// Splits "NAME:LINE: what" into line and what; 0 when the message has no such prefix.
int take_line(std::string_view name, std::string& message) {
  const std::string start = std::string(name) + ":";
  if (message.compare(0, start.size(), start) != 0) return 0;
  std::size_t at = start.size();
  int line = 0;
  while (at < message.size() && std::isdigit(static_cast<unsigned char>(message[at])))
    line = line * 10 + (message[at++] - '0');
  if (message.compare(at, 2, ": ") != 0) return 0;
  message.erase(0, at + 2);
  return line;
}

std::string with_line(std::string_view name, std::string message) {
  const int line = take_line(name, message);
  const bool one_line = name == "expression" && line <= 1;
  return line > 0 && !one_line ? "line " + std::to_string(line) + ": " + message : message;
}

std::string with_hint(std::string message, std::string_view text) {
  if (text.find("!=") != text.npos) return message + "; \"not equal\" is written ~= in Lua";
  if (text.find("&&") != text.npos || text.find("||") != text.npos)
    return message + "; write `and` and `or` for && and || in Lua";
  return message;
}

// ---- meta

void push_attribute(lua_State* state, std::string_view text) {
  if (text.empty())
    lua_pushnil(state);
  else
    lua_pushlstring(state, text.data(), text.size());
}

int meta_index(lua_State* state) {
  std::size_t length = 0;
  const char* text = luaL_checklstring(state, 2, &length);
  const std::string_view name(text, length);
  const event* e = context_of(state).current;
  if (!e) return luaL_error(state, "there is no event");
  if (name == "id") {
    push_attribute(state, e->id);
  } else if (name == "source") {
    push_attribute(state, e->source);
  } else if (name == "type") {
    push_attribute(state, e->type);
  } else if (name == "subject") {
    push_attribute(state, e->subject);
  } else if (name == "key") {
    push_attribute(state, e->key);
  } else if (name == "topic") {
    push_attribute(state, e->topic);
  } else if (name == "datacontenttype") {
    push_attribute(state, e->datacontenttype.empty() ? "application/json" : e->datacontenttype);
  } else if (name == "time") {
    push_attribute(state, format_time(e->time));
  } else if (name == "position") {
    if (e->position == 0)
      lua_pushnil(state);
    else
      lua_pushinteger(state, e->position);
  } else {
    return luaL_error(
        state, "meta has no '%s'; it has id source type subject time key topic position datacontenttype", text);
  }
  return 1;
}

int meta_newindex(lua_State* state) { return luaL_error(state, "meta is read-only"); }

void push_meta(lua_State* state) {
  lua_newuserdatauv(state, 0, 0);
  const luaL_Reg methods[] = {{"__index", meta_index}, {"__newindex", meta_newindex}, {nullptr, nullptr}};
  luaL_newlib(state, methods);
  lua_setmetatable(state, -2);
}

// ---- scripts

int emit(lua_State* state) {
  luaL_checkany(state, 1);
  lua_context& context = context_of(state);
  if (context.emitted.size() >= most_emitted)
    return luaL_error(state, "more than %d events emitted", static_cast<int>(most_emitted));
  std::string text, failure;
  const bool written = append_lua_value(state, 1, text, limits.memory_bytes - context.emitted_bytes, failure);
  if (!written) return luaL_error(state, "emit: %s", failure.c_str());
  charge(state, static_cast<std::int64_t>(text.size()) * 8);
  if (text.size() > limits.memory_bytes - context.emitted_bytes)
    return luaL_error(state, "emit: the events are too large");
  context.emitted_bytes += text.size();
  context.emitted.push_back(std::move(text));
  return 0;
}

void push_script_event(lua_State* state) {
  const lua_context& context = context_of(state);
  const event& e = *context.current;
  if (!e.is_json()) {
    lua_pushlstring(state, e.data.data(), e.data.size());
    return;
  }
  std::string failure;
  if (context.document->push_table(state, e.data, failure)) return;
  lua_pushlstring(state, failure.data(), failure.size());
  lua_error(state);
}

// Emits the value on top of the stack unless it means "drop".
void emit_result(lua_State* state, bool returned) {
  if (!lua_toboolean(state, -1)) return;
  if (returned && lua_type(state, -1) != LUA_TTABLE)
    luaL_error(state, "a script returns a table, nil, false or nothing, not a %s", luaL_typename(state, -1));
  lua_pushcfunction(state, emit);
  lua_insert(state, -2);
  lua_call(state, 1, 0);
}

// Runs one script, protected. Arguments: the chunk, `meta`, and the metatable of its environment.
int run_script(lua_State* state) {
  constexpr int chunk = 1, meta = 2, metatable = 3, globals = 4;
  lua_newtable(state);
  push_script_event(state);
  lua_setfield(state, globals, "event");
  lua_pushvalue(state, meta);
  lua_setfield(state, globals, "meta");
  lua_pushcfunction(state, emit);
  lua_setfield(state, globals, "emit");
  lua_pushvalue(state, metatable);
  lua_setmetatable(state, globals);
  lua_pushvalue(state, globals);
  lua_setupvalue(state, chunk, 1);
  lua_pushvalue(state, chunk);
  lua_call(state, 0, LUA_MULTRET);
  const bool returned = lua_gettop(state) > globals;
  if (returned)
    lua_settop(state, globals + 1);
  else
    lua_getfield(state, globals, "event");
  emit_result(state, returned);
  return 0;
}

// ---- the engine

// One Lua state with its sandbox, its parsed payload and its compiled chunks. Used by its thread only, one
// call at a time; made at the thread's first use of Lua and gone with the thread.
class engine {
 public:
  static engine& of_this_thread() {
    thread_local engine instance;
    return instance;
  }

  engine();
  ~engine() { lua_close(state_); }
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;

  lua_State* state() { return state_; }
  lua_context& context() { return context_; }

  // Pushes the function, or returns false with the reason.
  bool push_compiled(const lua_chunk& chunk, std::string& failure);
  // Compiles without keeping anything; what is wrong, or empty.
  std::string compile(const char* name, const std::string& source);
  bool push_event(const event& e, bool wanted, std::string& failure);
  // Calls the function below `arguments` values within the limits.
  bool call(int arguments, int results, bool can_loop, std::string& failure);
  // After every use: nothing of the event remains.
  void settle();

 private:
  void drop_chunks();
  std::string failure_of(int status);

  lua_context context_;
  payload_document document_;
  lua_State* state_;
  std::unordered_map<std::string, int> chunks_;
  std::size_t chunk_bytes_ = 0;  // of the texts that are keys there
  std::uint64_t epoch_ = next_epoch++;
  std::size_t collect_at_ = collect_from;
};

engine::engine() : state_(lua_newstate(allocate, &context_.budget)) {
  if (!state_) throw std::bad_alloc();
  lua_context* shared = &context_;
  std::memcpy(lua_getextraspace(state_), &shared, sizeof shared);
  lua_atpanic(state_, out_of_memory);
  context_.document = &document_;
  lua_checkstack(state_, 2 * static_cast<int>(fields_per_group) + 50);

  document_.open_views(state_);
  push_meta(state_);
  open_sandbox(state_);
  lua_newtable(state_);
  lua_rotate(state_, -3, -1);  // the real library becomes __index of every script's environment
  lua_setfield(state_, -2, "__index");
  if (lua_gettop(state_) != bottom) throw std::logic_error("the Lua engine's stack is not as laid out");
}

bool engine::push_compiled(const lua_chunk& chunk, std::string& failure) {
  if (chunk.epoch != epoch_) {
    const std::string key = chunk.name + ("\n" + chunk.source);
    auto found = chunks_.find(key);
    if (found == chunks_.end()) {
      failure = compile(chunk.name, chunk.source);
      if (!failure.empty()) return false;
      if (chunks_.size() >= most_chunks || chunk_bytes_ + key.size() > most_chunk_bytes) drop_chunks();
      chunk_bytes_ += key.size();
      found = chunks_.emplace(key, luaL_ref(state_, LUA_REGISTRYINDEX)).first;
    }
    chunk.epoch = epoch_;
    chunk.reference = found->second;
  }
  lua_rawgeti(state_, LUA_REGISTRYINDEX, chunk.reference);
  return true;
}

std::string engine::compile(const char* name, const std::string& source) {
  lua_budget& budget = context_.budget;
  budget.refusals = 0;
  budget.most_bytes = budget.used_bytes + limits.memory_bytes;
  // "t": text only, because forged bytecode can do anything.
  const int status =
      luaL_loadbufferx(state_, source.data(), source.size(), (std::string("=") + name).c_str(), "t");
  budget.most_bytes = lua_budget::unlimited;
  budget.refusals = 0;
  return status == LUA_OK ? std::string() : failure_of(status);
}

void engine::drop_chunks() {
  for (const auto& [text, reference] : chunks_) luaL_unref(state_, LUA_REGISTRYINDEX, reference);
  chunks_.clear();
  chunk_bytes_ = 0;
  epoch_ = next_epoch++;
  lua_gc(state_, LUA_GCCOLLECT);
}

bool engine::push_event(const event& e, bool wanted, std::string& failure) {
  context_.current = &e;
  if (wanted && e.is_json()) return document_.push_view(state_, e.data, root_view, failure);
  if (!wanted) {
    lua_pushnil(state_);
    return true;
  }
  document_.forget();
  lua_pushlstring(state_, e.data.data(), e.data.size());
  return true;
}

bool engine::call(int arguments, int results, bool can_loop, std::string& failure) {
  lua_budget& budget = context_.budget;
  budget.ticks = 0;
  budget.most_ticks = limits.instructions * lua_budget::ticks_per_instruction;
  budget.cpu_started = 0;
  budget.refusals = 0;
  budget.most_bytes = budget.used_bytes + limits.memory_bytes;
  if (can_loop) lua_sethook(state_, count_instructions, LUA_MASKCOUNT, hook_interval);
  const int status = lua_pcall(state_, arguments, results, 0);
  if (can_loop) lua_sethook(state_, nullptr, 0, 0);
  budget.most_ticks = std::numeric_limits<std::int64_t>::max();
  budget.most_bytes = lua_budget::unlimited;
  budget.refusals = 0;
  if (status != LUA_OK) failure = failure_of(status);
  return status == LUA_OK;
}

std::string engine::failure_of(int status) {
  if (status == LUA_ERRMEM) return "memory limit of " + format_size(limits.memory_bytes) + " reached";
  if (lua_type(state_, -1) == LUA_TSTRING) return limited(lua_tostring(state_, -1));
  return std::string("an error that is a ") + luaL_typename(state_, -1) + " value";
}

void engine::settle() {
  lua_settop(state_, bottom);
  document_.close(state_);
  context_.current = nullptr;
  context_.emitted.clear();
  context_.emitted_bytes = 0;
  if (context_.budget.used_bytes > collect_at_) {
    lua_gc(state_, LUA_GCCOLLECT);
    collect_at_ = std::max(collect_from, 2 * context_.budget.used_bytes);
  }
}

// One use of the thread's engine, settled whatever happens.
class engine_use {
 public:
  engine_use() : lua(engine::of_this_thread()), state(lua.state()) {}
  ~engine_use() { lua.settle(); }
  engine_use(const engine_use&) = delete;
  engine_use& operator=(const engine_use&) = delete;

  // Runs an expression or mapping; its results are on the stack. Without results nothing is run, only parsed.
  bool evaluate(const lua_chunk& chunk, const event& e, int results, std::string& failure) {
    if (results == 0) return lua.push_event(e, chunk.reads_event, failure);
    if (!lua.push_compiled(chunk, failure) || !lua.push_event(e, chunk.reads_event, failure)) return false;
    lua_pushvalue(state, meta_view);
    return lua.call(2, results, chunk.can_loop, failure);
  }

  engine& lua;
  lua_State* const state;
};

// ---- texts

// `event` and `meta` are locals, which is quicker than globals. Without a function literal an expression has
// no loop.
constexpr std::string_view locals = "local event, meta = ... ", returns = "return ";

std::string with_locals(std::string_view text, const std::string* run_context) {
  return std::string(locals) + run_locals(text, run_context) + std::string(returns) + std::string(text);
}

lua_chunk expression_chunk(std::string source, bool reads_event, std::string_view text) {
  return {"expression", std::move(source), reads_event, mentions(text, "function")};
}

// The expression over parts of the payload (or over the payload alone), on the first line as all others.
lua_chunk scoped_chunk(std::string_view text, lua_scope scope) {
  if (scope == lua_scope::event)
    return expression_chunk(with_locals(text, nullptr), mentions(text, "event"), text);
  if (scope == lua_scope::payload)
    return expression_chunk("local event = ... return " + std::string(text), mentions(text, "event"), text);
  std::string names, values;
  for (const std::string name : {"params", "run", "tasks", "item", "item_index", "event"}) {
    if (!mentions(text, name)) continue;
    names += (names.empty() ? "" : ", ") + name;
    values += (values.empty() ? "event." : ", event.") + name;
  }
  if (names.empty()) return expression_chunk(std::string(returns) + std::string(text), false, text);
  return expression_chunk("local event = ... local " + names + " = " + values + " return " + std::string(text), true, text);
}

}  // namespace

lua_context& context_of(lua_State* state) {
  lua_context* context = nullptr;
  std::memcpy(&context, lua_getextraspace(state), sizeof context);
  return *context;
}

void charge(lua_State* state, std::int64_t ticks) {
  lua_budget& budget = context_of(state).budget;
  budget.ticks += ticks;
  if (budget.ticks > budget.most_ticks)
    luaL_error(state, "instruction limit of %I reached", static_cast<LUAI_UACINT>(limits.instructions));
}

std::optional<std::string> check_lua(std::string_view text, bool chunk) {
  engine_use use;
  if (chunk) {
    const std::string wrong = use.lua.compile("script", std::string(text));
    if (wrong.empty()) return std::nullopt;
    return with_hint(with_line("script", wrong), text);
  }
  const std::string wrong = use.lua.compile("expression", with_locals(text, nullptr));
  if (!wrong.empty()) return with_hint(with_line("expression", wrong), text);
  // `return a, b` and `return` are statements, too; between parentheses only one expression stands.
  if (!use.lua.compile("expression", "return (\n" + std::string(text) + "\n)").empty())
    return "not a single expression";
  return std::nullopt;
}

// ---- expressions

lua_expression::lua_expression(std::string text, const std::string* run_context)
    : text_(std::move(text)),
      chunk_(expression_chunk(with_locals(text_, run_context), mentions(text_, "event"), text_)) {}

lua_expression::lua_expression(std::string text, lua_scope scope)
    : text_(std::move(text)), chunk_(scoped_chunk(text_, scope)) {}

lua_outcome<bool> lua_expression::truth(const event& e) const {
  lua_outcome<bool> outcome;
  engine_use use;
  if (use.evaluate(chunk_, e, 1, outcome.failure))
    outcome.value = lua_toboolean(use.state, -1);
  else
    outcome.failure = with_line(chunk_.name, std::move(outcome.failure));
  return outcome;
}

lua_outcome<std::string> lua_expression::text_of(const event& e) const {
  lua_outcome<std::string> outcome;
  engine_use use;
  if (!use.evaluate(chunk_, e, 1, outcome.failure)) {
    outcome.failure = with_line(chunk_.name, std::move(outcome.failure));
    return outcome;
  }
  switch (lua_type(use.state, -1)) {
    case LUA_TNIL:
      break;
    case LUA_TBOOLEAN:
      outcome.value = lua_toboolean(use.state, -1) ? "true" : "false";
      break;
    case LUA_TNUMBER:
    case LUA_TSTRING: {
      std::size_t length = 0;
      const char* text = lua_tolstring(use.state, -1, &length);
      outcome.value.assign(text, length);
      break;
    }
    case LUA_TLIGHTUSERDATA:
      break;
    default:
      outcome.failure = "a text or number is needed here, not a table or function";
  }
  return outcome;
}

lua_outcome<std::string> lua_expression::json_of(const event& e) const {
  lua_outcome<std::string> outcome;
  engine_use use;
  const bool done = use.evaluate(chunk_, e, 1, outcome.failure) &&
                    append_lua_value(use.state, -1, outcome.value, limits.memory_bytes, outcome.failure);
  if (done) return outcome;
  return {{}, with_line(chunk_.name, std::move(outcome.failure))};
}

lua_outcome<std::optional<std::string>> lua_expression::text_or_json_of(const event& e) const {
  lua_outcome<std::optional<std::string>> outcome;
  engine_use use;
  if (!use.evaluate(chunk_, e, 1, outcome.failure)) {
    outcome.failure = with_line(chunk_.name, std::move(outcome.failure));
    return outcome;
  }
  const int type = lua_type(use.state, -1);
  if (type == LUA_TNIL || type == LUA_TLIGHTUSERDATA) return outcome;
  std::string& text = outcome.value.emplace();
  if (type != LUA_TSTRING && append_lua_value(use.state, -1, text, limits.memory_bytes, outcome.failure)) return outcome;
  if (type == LUA_TSTRING || type == LUA_TNUMBER) {  // bytes as they are; NaN and infinities as Lua writes them
    std::size_t length = 0;
    const char* bytes = lua_tolstring(use.state, -1, &length);
    text.assign(bytes, length);
    outcome.failure.clear();
  } else {
    outcome.value.reset();
  }
  return outcome;
}

payload_hold::payload_hold() { engine::of_this_thread().context().document->hold(); }
payload_hold::~payload_hold() { engine::of_this_thread().context().document->release(); }

std::vector<std::string> evaluate_keys(const std::string& expression, const batch& events) {
  const lua_expression key(expression);
  std::vector<std::string> keys;
  keys.reserve(events.size());
  for (const event& e : events.events) keys.push_back(key.text_of(e).value);
  return keys;
}

// ---- mappings

lua_mapping::part lua_mapping::make_part(const std::vector<field>& fields, bool with_plain,
                                         const std::string* run_context) {
  part made{{"map", {}, false, false}, {}, {}};
  std::string values;
  int line = 1;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const field& f = fields[i];
    made.chunk.reads_event = made.chunk.reads_event || mentions(f.expression, "event");
    if (!f.path.empty() && !with_plain) continue;
    made.chunk.can_loop = made.chunk.can_loop || mentions(f.expression, "function");
    values += (made.fields.empty() ? "(\n" : "), (\n") + f.expression + "\n";
    made.fields.push_back(i);
    made.lines.push_back(++line);
    line += static_cast<int>(std::count(f.expression.begin(), f.expression.end(), '\n')) + 1;
  }
  if (!made.fields.empty()) values += ")";
  made.chunk.source = with_locals(values, run_context);
  return made;
}

lua_mapping::lua_mapping(std::vector<std::pair<std::string, std::string>> fields, const std::string* run_context) {
  for (std::size_t from = 0; from < fields.size(); from += fields_per_group) {
    group g;
    for (std::size_t i = from; i < std::min(fields.size(), from + fields_per_group); ++i) {
      auto& [name, expression] = fields[i];
      std::string prefix = i == 0 ? "{" : ",";
      append_json_string(prefix, name);
      std::vector<std::string> path = plain_path(expression);
      g.fields.push_back({std::move(name), std::move(expression), prefix + ":", std::move(path)});
    }
    g.computed = make_part(g.fields, false, run_context);
    g.all = make_part(g.fields, true, run_context);
    groups_.push_back(std::move(g));
  }
}

lua_mapping::outcome lua_mapping::append_fields(const group& g, const part& computed, const event& e,
                                                std::string& out, std::string& failure) {
  engine_use use;
  const int count = static_cast<int>(computed.fields.size());
  if (!use.evaluate(computed.chunk, e, count, failure)) {
    const int line = take_line(computed.chunk.name, failure);
    std::size_t at = computed.lines.size();
    while (at > 0 && computed.lines[at - 1] > line) --at;
    if (at > 0) failure = g.fields[computed.fields[at - 1]].name + ": " + failure;
    return outcome::failed;
  }
  int result = 0;
  for (std::size_t i = 0; i < g.fields.size(); ++i) {
    const field& f = g.fields[i];
    out += f.prefix;
    const bool from_lua = result < count && computed.fields[static_cast<std::size_t>(result)] == i;
    if (!from_lua) {
      if (!use.lua.context().document->append_field(f.path, out)) return outcome::not_plain;
    } else if (!append_lua_value(use.state, result++ - count, out, limits.memory_bytes, failure)) {
      failure = f.name + ": " + failure;
      return outcome::failed;
    }
  }
  return outcome::done;
}

lua_outcome<bool> lua_mapping::apply(const event& e, std::string& out) const {
  const std::size_t start = out.size();
  for (const group& g : groups_) {
    const std::size_t group_start = out.size();
    std::string failure;
    outcome done = append_fields(g, g.computed, e, out, failure);
    if (done == outcome::not_plain) {
      // Lua says what it means to go through something that is not an object.
      out.resize(group_start);
      done = append_fields(g, g.all, e, out, failure);
    }
    if (done != outcome::done) {
      out.resize(start);
      return {false, std::move(failure)};
    }
  }
  out += groups_.empty() ? "{}" : "}";
  return {true, {}};
}

// ---- scripts

lua_script::lua_script(std::string text, const std::string* run_context)
    : chunk_{"script", run_locals(text, run_context) + text, true, true} {}

lua_outcome<std::vector<std::string>> lua_script::run(const event& e) const {
  lua_outcome<std::vector<std::string>> outcome;
  engine_use use;
  lua_State* const state = use.state;
  if (!use.lua.push_compiled(chunk_, outcome.failure)) {
    outcome.failure = with_line(chunk_.name, std::move(outcome.failure));
    return outcome;
  }
  const int chunk = lua_gettop(state);
  use.lua.context().current = &e;
  lua_pushcfunction(state, run_script);
  lua_pushvalue(state, chunk);
  lua_pushvalue(state, meta_view);
  lua_pushvalue(state, script_metatable);
  if (use.lua.call(3, 0, chunk_.can_loop, outcome.failure))
    outcome.value = std::move(use.lua.context().emitted);
  else
    outcome.failure = with_line(chunk_.name, std::move(outcome.failure));
  // The compiled chunk must not keep this call's globals alive.
  lua_pushvalue(state, environment);
  lua_setupvalue(state, chunk, 1);
  return outcome;
}

}  // namespace penstock::runtime
