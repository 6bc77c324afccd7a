// steps: sql - a SELECT over the events at hand: SQLite in memory, table `events`, each row of the result an event.
//
// `over: batch` works on each batch as it comes, `over: all` on everything until the input ends; what is collected is
// state, committed with the cursor. The statement may read the table and nothing else: no other statement, no file, no
// pragma, and so many steps of SQLite's machine at most. Result rows are events with the last event's attributes and
// position, and its id with "/0", "/1" … behind it. When the query fails, the batch's events are dead letters; over all
// events it fails the run.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <simdjson.h>
#include <sqlite3.h>

#include "runtime/components/all.hpp"
#include "runtime/components/bind_json.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/sqlite.hpp"

namespace penstock::runtime::components::sql_step {

namespace {

constexpr std::size_t most_columns = 1000;
constexpr int most_value_bytes = 64 << 20;
constexpr int progress_interval = 10'000;  // steps of SQLite's machine between two looks

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "sql",
      .doc = "Replaces the events by the rows of a SELECT over them. Table `events` has a column for each top-level field "
             "(booleans as 0 and 1, objects and lists as JSON text), and _id, _key, _time (RFC 3339) and _data.",
      .settings = {.name = "sql",
                   .type = field_type::object,
                   .doc = "",
                   .children =
                       {{.name = "select",
                         .type = field_type::string,
                         .doc = "One SELECT in SQLite's language. A field that no event has is NULL.",
                         .required = true,
                         .example = "SELECT avg(n) AS mean FROM events"},
                        {.name = "over",
                         .type = field_type::choice,
                         .doc = "batch: the events that are processed together, at most some hundreds, as they happened "
                                "to come. all: everything until the input ends, for jobs and for flows whose input ends.",
                         .fallback = "batch",
                         .choices = {"batch", "all"}},
                        {.name = "max_events",
                         .type = field_type::integer,
                         .doc = "all: more events than this make the run fail.",
                         .fallback = "100000",
                         .minimum = 1},
                        {.name = "max_bytes",
                         .type = field_type::size,
                         .doc = "all: more payload than this makes the run fail.",
                         .fallback = "64MiB",
                         .minimum = 1},
                        {.name = "max_rows",
                         .type = field_type::integer,
                         .doc = "A longer result is a failure of the query.",
                         .fallback = "100000",
                         .minimum = 1},
                        {.name = "max_steps",
                         .type = field_type::integer,
                         .doc = "Steps of SQLite's machine that a query may take (some 50 million a second).",
                         .fallback = "100000000",
                         .minimum = 1}},
                   .shorthand = "select"},
      .examples = {"sql: SELECT avg(n) AS mean FROM events",
                   "sql: {select: \"SELECT city, sum(total) AS total FROM events GROUP BY city ORDER BY city\", over: all}"},
      .state_settings = {"over"},
  };
}

// ---- the table ---------------------------------------------------------------------------------------------------

// SQLite's names are equal when they are so without regard to ASCII case.
struct name_less {
  using is_transparent = void;
  static char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
  bool operator()(std::string_view a, std::string_view b) const {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                        [](char x, char y) { return lower(x) < lower(y); });
  }
};
using columns = std::map<std::string, int, name_less>;  // name, number of its parameter

const std::vector<std::string> own_columns = {"_id", "_key", "_time", "_data"};

std::string identifier(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) {
    out += c;
    if (c == '"') out += c;
  }
  return out + "\"";
}

// The statement may look at tables and call functions; nothing else is allowed while it is prepared.
int allow_reading(void*, int action, const char* first, const char* second, const char*, const char*) {
  const std::string_view table = first ? first : "", function = second ? second : "";
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_READ:
      return table.starts_with("sqlite_") || table.starts_with("pragma_") ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_FUNCTION:
      return function == "load_extension" ? SQLITE_DENY : SQLITE_OK;
    default:
      return SQLITE_DENY;
  }
}

// A query over a table of its own in memory. One use at a time.
class event_query {
 public:
  explicit event_query(std::string select, std::size_t most_rows, std::int64_t most_steps)
      : select_(std::move(select)),
        most_rows_(most_rows),
        most_steps_(most_steps),
        db_(":memory:", sqlite::open_mode::read_write_create) {
    sqlite3* const db = db_.handle();
    // A name that is no column must not pass for a text.
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, nullptr);
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, most_value_bytes);
    sqlite3_progress_handler(db, progress_interval, look_at_steps, this);
    learn_columns();
  }
  event_query(const event_query&) = delete;
  event_query& operator=(const event_query&) = delete;

  // A JSON object for each row of the result. Throws sqlite::failure or std::runtime_error when the query fails.
  std::vector<std::string> rows_of(const std::vector<const event*>& events) {
    const columns names = make_table(events);
    fill(events, names);
    std::vector<std::string> rows = run();
    db_.execute("DROP TABLE events");
    return rows;
  }

 private:
  static int look_at_steps(void* self) {
    auto& query = *static_cast<event_query*>(self);
    query.steps_ += progress_interval;
    return query.reading_ && query.steps_ > query.most_steps_;
  }

  // Which fields the statement speaks of: they must be columns even if no event has them. SQLite names one at a time.
  void learn_columns() {
    constexpr std::string_view unknown = "no such column: ";
    while (true) {
      make_table({});
      try {
        prepared();
        db_.execute("DROP TABLE events");
        return;
      } catch (const sqlite::failure& f) {
        std::string_view name = f.what();
        if (!name.starts_with(unknown) || mentioned_.size() >= most_columns) throw std::runtime_error(f.what());
        name.remove_prefix(unknown.size());
        if (const std::size_t dot = name.rfind('.'); dot != name.npos) name.remove_prefix(dot + 1);
        if (!mentioned_.insert(std::string(name)).second) throw std::runtime_error(f.what());
      }
      db_.execute("DROP TABLE events");
    }
  }

  columns make_table(const std::vector<const event*>& events) {
    columns names;
    std::vector<std::string> ordered;
    const auto add = [&](std::string_view name) {
      if (names.size() >= most_columns || name.find('\0') != name.npos || names.contains(name)) return;
      ordered.emplace_back(name);
      names.emplace(ordered.back(), static_cast<int>(ordered.size()));
    };
    for (const std::string& name : own_columns) add(name);
    for (const std::string& name : mentioned_) add(name);
    for (const event* e : events) {
      for (const auto field : object_of(*e)) add(field.key);
    }
    std::string made;
    for (const std::string& name : ordered) made += (made.empty() ? "" : ", ") + identifier(name);
    db_.execute("DROP TABLE IF EXISTS events; CREATE TABLE events (" + made + ")");
    return names;
  }

  simdjson::dom::object object_of(const event& e) {
    return parser_.parse(e.data.data(), e.data.size(), false).get_object().value_unsafe();
  }

  void fill(const std::vector<const event*>& events, const columns& names) {
    std::string marks;
    for (std::size_t i = 0; i < names.size(); ++i) marks += marks.empty() ? "?" : ", ?";
    sqlite::transaction all(db_);
    sqlite::statement insert(db_, "INSERT INTO events VALUES (" + marks + ")");
    for (const event* e : events) {
      for (std::size_t i = 0; i < names.size(); ++i) insert.bind_null(static_cast<int>(i) + 1);
      std::vector<std::string> texts;  // that live until the row is written
      const simdjson::dom::object object = object_of(*e);
      texts.reserve(object.size() + 1);
      for (const auto field : object) {
        const auto column = names.find(field.key);
        if (column != names.end() && column->second > static_cast<int>(own_columns.size()))
          bind_json(insert, column->second, field.value, texts.emplace_back());
      }
      texts.push_back(format_time(e->time));
      insert.bind(1, e->id).bind(2, e->key).bind(3, std::string_view(texts.back())).bind(4, e->data);
      insert.run();
    }
    all.commit();
  }

  // ---- the statement

  struct finalizer {
    void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
  };
  using handle = std::unique_ptr<sqlite3_stmt, finalizer>;

  // Throws sqlite::failure with SQLite's words.
  handle prepared() {
    sqlite3_stmt* made = nullptr;
    const char* rest = nullptr;
    sqlite3_set_authorizer(db_.handle(), allow_reading, nullptr);
    const int code = sqlite3_prepare_v2(db_.handle(), select_.c_str(), static_cast<int>(select_.size()), &made, &rest);
    const std::string wrong = sqlite3_errmsg(db_.handle());
    sqlite3_set_authorizer(db_.handle(), nullptr, nullptr);
    handle statement(made);
    if ((code & 0xff) == SQLITE_AUTH) throw std::runtime_error("only a SELECT over the table `events` is possible here: " + wrong);
    if (code != SQLITE_OK) throw sqlite::failure(code, wrong);
    if (!statement) throw std::runtime_error("there is no statement");
    if (std::string_view(rest).find_first_not_of(" \t\r\n;") != std::string_view::npos)
      throw std::runtime_error("one statement only, not more behind it: " + excerpt(rest));
    if (!sqlite3_stmt_readonly(made) || sqlite3_stmt_isexplain(made) || sqlite3_column_count(made) == 0)
      throw std::runtime_error("only a SELECT is possible here");
    if (sqlite3_bind_parameter_count(made) > 0) throw std::runtime_error("there are no parameters (? or :name) here");
    check_names(made);
    return statement;
  }

  static void check_names(sqlite3_stmt* s) {
    std::set<std::string> names;
    for (int i = 0; i < sqlite3_column_count(s); ++i) {
      const std::string name = sqlite3_column_name(s, i);
      if (!names.insert(name).second)
        throw std::runtime_error("two columns of the result are named '" + name + "'; name them with AS");
    }
  }

  std::vector<std::string> run() {
    const handle statement = prepared();
    std::vector<std::string> rows;
    std::size_t bytes = 0;
    steps_ = 0;
    reading_ = true;
    int code = SQLITE_ROW;
    while ((code = sqlite3_step(statement.get())) == SQLITE_ROW && rows.size() <= most_rows_ &&
           bytes <= static_cast<std::size_t>(most_value_bytes)) {
      rows.push_back(row_of(statement.get()));
      bytes += rows.back().size();
    }
    reading_ = false;
    if (code == SQLITE_INTERRUPT)
      throw std::runtime_error("the query took more than max_steps, " + std::to_string(most_steps_));
    if (rows.size() > most_rows_) throw std::runtime_error("the result has more than max_rows, " + std::to_string(most_rows_));
    if (bytes > static_cast<std::size_t>(most_value_bytes)) throw std::runtime_error("the result is larger than 64MiB");
    if (code != SQLITE_DONE) throw std::runtime_error(sqlite3_errmsg(db_.handle()));
    return rows;
  }

  static std::string row_of(sqlite3_stmt* s) {
    std::string row = "{";
    for (int i = 0; i < sqlite3_column_count(s); ++i) {
      if (i > 0) row += ',';
      append_json_string(row, sqlite3_column_name(s, i));
      row += ':';
      append_value(row, s, i);
    }
    return row + "}";
  }

  static void append_value(std::string& row, sqlite3_stmt* s, int i) {
    const auto size = [&] { return static_cast<std::size_t>(sqlite3_column_bytes(s, i)); };
    switch (sqlite3_column_type(s, i)) {
      case SQLITE_INTEGER:
        row += std::to_string(sqlite3_column_int64(s, i));
        break;
      case SQLITE_FLOAT:
        append_number(row, sqlite3_column_double(s, i));
        break;
      case SQLITE_TEXT: {
        const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(s, i));
        append_json_string(row, {text, size()});
        break;
      }
      case SQLITE_BLOB: {
        const auto* bytes = static_cast<const unsigned char*>(sqlite3_column_blob(s, i));
        row += '"';
        for (std::size_t at = 0; at < size(); ++at) {
          row += "0123456789abcdef"[bytes[at] >> 4];
          row += "0123456789abcdef"[bytes[at] & 15];
        }
        row += '"';
        break;
      }
      default:
        row += "null";
    }
  }

  // The shortest text that reads back the same, recognisable as a float.
  static void append_number(std::string& row, double number) {
    if (!std::isfinite(number)) {
      row += "null";
      return;
    }
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, number).ptr;
    const std::string_view made(text, static_cast<std::size_t>(end - text));
    row += made;
    if (made.find_first_of(".e") == made.npos) row += ".0";
  }

  const std::string select_;
  const std::size_t most_rows_;
  const std::int64_t most_steps_;
  sqlite::connection db_;
  simdjson::dom::parser parser_;
  std::set<std::string, name_less> mentioned_;
  std::int64_t steps_ = 0;
  bool reading_ = false;  // our statement runs, not the filling of the table
};

// ---- the step ----------------------------------------------------------------------------------------------------

class sql_step final : public step {
 public:
  explicit sql_step(const config::value& v)
      : query_(v.at("select").get<std::string>(), v.at("max_rows").get<std::size_t>(),
               v.at("max_steps").get<std::int64_t>()),
        all_(v.at("over").get<std::string>() == "all"),
        most_events_(v.at("max_events").get<std::size_t>()),
        most_bytes_(v.at("max_bytes").get<std::size_t>()) {}

  void process(batch& events, step_output& out) override {
    std::erase_if(events.events, [&](const event& e) {
      const std::string wrong = fault_of(e);
      if (!wrong.empty()) out.dead(e, wrong);
      return !wrong.empty();
    });
    if (all_)
      collect(events);
    else
      query(events, out);
  }

  void finish(batch& events, step_output& out) override {
    if (!all_) return;
    batch all = std::exchange(collected_, batch{});
    for (const std::string& key : keys_) changes_.push_back({{}, key, std::nullopt});
    keys_.clear();
    bytes_ = 0;
    query(all, out);
    events.append(std::move(all));
  }

  // One entry for each collected event. Its key is the order of arrival and the position.
  void restore(const std::vector<state_entry>& entries) override {
    std::vector<const state_entry*> ordered;
    for (const state_entry& entry : entries) ordered.push_back(&entry);
    std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
    for (const state_entry* entry : ordered) {
      auto text = std::make_shared<const buffer>(entry->value);
      auto read = read_events(text, intake_format::cloudevent, {}, {.event_bytes = most_bytes_});
      const std::size_t slash = entry->key.find('/');
      if (!read || read->size() != 1 || slash == entry->key.npos)
        throw std::runtime_error("the stored event '" + entry->key + "' is damaged");
      read->events[0].position = std::stoll(entry->key.substr(slash + 1));
      bytes_ += read->events[0].data.size();
      arrived_ = std::stoll(entry->key) + 1;
      keys_.push_back(entry->key);
      collected_.append(std::move(*read));
    }
  }

  std::vector<state_change> changes() override { return std::exchange(changes_, {}); }

 private:
  static std::string fault_of(const event& e) {
    if (!e.is_json()) return "not JSON but " + std::string(e.datacontenttype);
    if (std::string wrong = check_json(e.data); !wrong.empty()) return wrong;
    return json_kind_of(e.data.substr(e.data.find_first_not_of(" \t\r\n"))) == json_kind::object ? "" : "not a JSON object";
  }

  void collect(batch& events) {
    for (const event& e : events.events) {
      bytes_ += e.data.size();
      if (collected_.size() >= most_events_)
        throw std::runtime_error("more than max_events, " + std::to_string(most_events_) + ", are to be collected");
      if (bytes_ > most_bytes_)
        throw std::runtime_error("more than max_bytes, " + format_size(static_cast<std::int64_t>(most_bytes_)) +
                                 ", are to be collected");
      std::string key = std::to_string(arrived_++);
      key = std::string(15 - std::min<std::size_t>(key.size(), 15), '0') + key + "/" + std::to_string(e.position);
      std::string value;
      append_cloudevent(value, e);
      changes_.push_back({{}, key, std::move(value)});
      keys_.push_back(std::move(key));
      collected_.events.push_back(collected_.copy(e));
    }
    events.events.clear();
  }

  void query(batch& events, step_output& out) {
    if (events.empty()) return;
    std::vector<const event*> given;
    for (const event& e : events.events) given.push_back(&e);
    std::vector<std::string> rows;
    try {
      rows = query_.rows_of(given);
    } catch (const std::exception& failure) {
      if (all_) throw;
      for (const event& e : events.events) out.dead(e, failure.what());
      events.events.clear();
      return;
    }
    const event last = events.events.back();
    events.events.clear();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      event& e = events.events.emplace_back(last);
      e.id = events.keep(std::string(last.id) + "/" + std::to_string(i));
      e.key = {};
      e.data = events.keep(rows[i]);
      e.datacontenttype = {};
    }
  }

  event_query query_;
  const bool all_;
  const std::size_t most_events_;
  const std::size_t most_bytes_;
  batch collected_;
  std::vector<std::string> keys_;  // of the collected events, in the store
  std::vector<state_change> changes_;
  std::size_t bytes_ = 0;
  std::int64_t arrived_ = 0;
};

// Over all: the result leaves at the end of the input.
sql_step check(const config::value& v, config::usage where) {
  if (v.at("over") == "all" && !where.input_ends)
    throw std::runtime_error("over: all waits for the end of the input, which never comes here; put a `window` before it "
                             "and use over: batch, or use it in a job");
  return sql_step(v);
}

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), check), registry::make_step([](const config::value& settings, const component_context&) {
          return std::make_unique<sql_step>(settings);
        }));
}

}  // namespace penstock::runtime::components::sql_step
