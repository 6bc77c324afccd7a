// What the parts of the Lua engine share about the call that is running: its budget and where its event is.
//
// One lua_context belongs to one engine, hence to one thread. Its address lies in the Lua state's extra
// space, so every C function of the sandbox finds it. Internal to the lua*.cpp files; everyone else includes
// runtime/lua.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "runtime/event.hpp"

struct lua_State;

namespace penstock::runtime {

class payload_document;

// What one call may still cost. Work is counted in ticks, 256 to a VM instruction; what C code does in one go
// (a pattern match, a copy, a sort) is charged in ticks as well, so no single instruction can hide unbounded
// work.
struct lua_budget {
  static constexpr std::int64_t ticks_per_instruction = 256;
  static constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();

  std::int64_t ticks = 0;
  std::int64_t most_ticks = std::numeric_limits<std::int64_t>::max();
  std::int64_t cpu_started = 0;  // thread CPU time, nanoseconds, at the first check of this call; 0: none yet
  std::size_t used_bytes = 0;    // held by the Lua state now
  std::size_t most_bytes = unlimited;  // beyond which the allocator refuses
  int refusals = 0;                    // of the allocator in this call; each one costs a full collection
};

struct lua_context {
  lua_budget budget;
  payload_document* document = nullptr;  // the engine's; constant
  const event* current = nullptr;        // during a call
  std::uint64_t generation = 0;          // of the parsed payload; views of an earlier one are dead
  std::vector<std::string> emitted;      // JSON texts that a script has handed out in this call
  std::size_t emitted_bytes = 0;
  const void* view_metatable = nullptr;   // identity of the metatable of views into the payload
  int view_metatable_reference = 0;       // where the registry has it
  const void* array_metatable = nullptr;  // identity of the metatable that marks a table as a JSON array
};

// The context of the engine that owns `state`.
lua_context& context_of(lua_State* state);

// Adds to the work done so far; raises a Lua error when the call's instruction limit is passed.
void charge(lua_State* state, std::int64_t ticks);

}  // namespace penstock::runtime
