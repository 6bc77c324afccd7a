// Values to and from the rows of state.db, for store_writer and store_reader: binding in order, reading one
// or all rows, and the columns of each record beside the function that reads them. Functions of a statement;
// the thread is that of its connection.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "config/error.hpp"
#include "runtime/sqlite.hpp"
#include "scheduler/model.hpp"
#include "scheduler/store.hpp"

namespace penstock::scheduler::rows {

namespace sqlite = runtime::sqlite;

// ---- values to SQL ----

inline void put(sqlite::statement& s, int i, std::string_view v) { s.bind(i, v); }
inline void put(sqlite::statement& s, int i, timestamp v) { s.bind(i, to_micros(v)); }
inline void put(sqlite::statement& s, int i, run_state v) { s.bind(i, token(v)); }
inline void put(sqlite::statement& s, int i, trigger_kind v) { s.bind(i, token(v)); }
template <std::integral T>
void put(sqlite::statement& s, int i, T v) {
  s.bind(i, static_cast<std::int64_t>(v));
}
template <class T>
void put(sqlite::statement& s, int i, const std::optional<T>& v) {
  if (v) {
    put(s, i, *v);
  } else {
    s.bind_null(i);
  }
}

// Binds the parameters ?1, ?2, … in order. Texts must live until the statement has run.
template <class... Values>
sqlite::statement& with(sqlite::statement& s, const Values&... values) {
  int i = 0;
  (put(s, ++i, values), ...);
  return s;
}

// The statement's only row, read by `read` (statement -> value), or nothing.
template <class F, class T = std::invoke_result_t<F, const sqlite::statement&>>
std::optional<T> one(sqlite::statement& s, F read) {
  if (!s.step()) return std::nullopt;
  std::optional<T> value(read(s));
  s.reset();
  return value;
}

template <class F, class T = std::invoke_result_t<F, const sqlite::statement&>>
std::vector<T> all(sqlite::statement& s, F read) {
  std::vector<T> rows;
  while (s.step()) rows.push_back(read(s));
  return rows;
}

// ---- SQL to values ----

inline std::string text(const sqlite::statement& s, int column) { return std::string(s.text(column)); }
inline timestamp time(const sqlite::statement& s, int column) { return from_micros(s.integer(column)); }
std::optional<timestamp> time_or_null(const sqlite::statement& s, int column);
// Throws when the text is no state: the file is damaged.
run_state state_from(const sqlite::statement& s, int column);

inline std::string first_text(const sqlite::statement& s) { return text(s, 0); }
inline std::int64_t first_integer(const sqlite::statement& s) { return s.integer(0); }

// ---- records ----

std::string_view token(run_input::kind k);

extern const std::string run_columns;
// "SELECT … FROM runs " and what follows; its rows are read by run_from (which leaves out tasks, inline input
// and timeline).
std::string select_runs(std::string_view rest);
run_record run_from(const sqlite::statement& s);

// The tasks of run ?1, in no order; and in the definition's, with the instances behind.
inline const std::string select_tasks =
    "SELECT name, state, attempt, exit_code, reason, started_at, ended_at, output, item FROM tasks"
    " WHERE run = ?1";
inline const std::string select_tasks_in_order = select_tasks + " ORDER BY position";
task_record task_from(const sqlite::statement& s);

constexpr std::string_view alert_columns =
    "id, pipeline, job, run, revision, alert_index, kind, payload, created_at, attempts, failure";
alert_record alert_from(const sqlite::statement& s);

constexpr std::string_view claim_columns = "pipeline, job, trigger_key, path, stamp, run";
file_claim claim_from(const sqlite::statement& s);

// The request that was made under key ?2 in scope ?1, and what to answer when it comes again.
constexpr std::string_view select_request =
    "SELECT run, fingerprint FROM idempotency_keys WHERE scope = ?1 AND key = ?2";
result<store::created> answer_from(const sqlite::statement& s, const idempotency& once);

// ---- ids ----

// What every id made in the millisecond of `t` begins with (ULID: 48 bits of time as ten base-32 digits), and
// what compares less than each of them.
std::string id_prefix(timestamp t);

}  // namespace penstock::scheduler::rows
