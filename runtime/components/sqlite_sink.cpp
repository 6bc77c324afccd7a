// to: sqlite - rows of a table: each event is a JSON object whose top-level fields are the columns.
//
// Exactly-once for events that have positions: table penstock_positions keeps, for each producer, the highest
// position in the transaction that stores the rows, and which events of that transaction were refused, so
// that after a crash they are refused again instead of being taken for stored. A row that SQLite will not
// take is refused alone; the rest is stored.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <simdjson.h>
#include <sqlite3.h>

#include "runtime/components/all.hpp"
#include "runtime/components/bind_json.hpp"
#include "runtime/components/own_files.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/sqlite.hpp"

namespace penstock::runtime::components::sqlite_sink {

namespace {

constexpr std::size_t statements_limit = 64;  // prepared ones kept, one for each set of fields
constexpr std::int64_t run_memory_s = 30LL * 24 * 3600;

// `refused`: JSON list of [position, how many of that position came before it, reason]; of the last
// transaction.
constexpr std::string_view positions_table = R"sql(
  CREATE TABLE IF NOT EXISTS penstock_positions (
    producer TEXT PRIMARY KEY, position INTEGER NOT NULL, refused TEXT NOT NULL, written_at INTEGER NOT NULL
  ) WITHOUT ROWID
)sql";

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::sink,
      .name = "sqlite",
      .doc =
          "Writes events as rows of an SQLite table: each top-level field is a column; booleans become 0 and "
          "1, nested "
          "values JSON text. Exactly once where the source has positions.",
      .settings =
          {.name = "sqlite",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "file",
                 .type = field_type::string,
                 .doc = "The database; relative paths start in the pipeline's folder. Made when missing.",
                 .required = true,
                 .example = "orders.db"},
                {.name = "table",
                 .type = field_type::string,
                 .doc = "The table.",
                 .required = true,
                 .example = "orders"},
                {.name = "mode",
                 .type = field_type::choice,
                 .doc = "append: a new row an event. upsert: a row with the same key is changed in the "
                        "fields that the event has.",
                 .fallback = "append",
                 .choices = {"append", "upsert"}},
                {.name = "key",
                 .type = field_type::list,
                 .doc = "upsert: the columns that tell rows apart. An existing table must have them as its "
                        "primary key or under a unique index.",
                 .example = "[order_id]",
                 .children = {{.name = "column", .type = field_type::string, .doc = "A column's name."}},
                 .single_allowed = true},
                {.name = "create",
                 .type = field_type::boolean,
                 .doc = "Make the table from the first event, and columns when fields first appear. "
                        "Otherwise events with unknown fields are refused.",
                 .fallback = "true"},
                {.name = "columns",
                 .type = field_type::map,
                 .doc = "Types of columns that are made; without it the first value decides.",
                 .example = "{total: real}",
                 .children = {{.name = "type",
                               .type = field_type::choice,
                               .doc = "SQLite's type.",
                               .choices = {"integer", "real", "text", "numeric", "blob"}}}}}},
      .examples = {"sqlite: {file: orders.db, table: orders}",
                   "sqlite: {file: orders.db, table: orders, mode: upsert, key: [order_id]}",
                   "sqlite: {file: orders.db, table: orders, columns: {order_id: text, total: real}}"},
  };
}

struct settings {
  std::string file;
  std::string table;
  bool upsert;
  std::vector<std::string> key;
  bool create;
  std::map<std::string, std::string> columns;
};

settings parse(const config::value& v) {
  settings s{v.at("file").get<std::string>(),
             v.at("table").get<std::string>(),
             v.value("mode", "append") == "upsert",
             v.value("key", std::vector<std::string>{}),
             v.value("create", true),
             v.value("columns", std::map<std::string, std::string>{})};
  if (s.upsert && s.key.empty())
    throw std::runtime_error("mode: upsert needs key: which columns tell rows apart");
  return s;
}

// ---------------------------------------------------------------------------------------------------------------

// SQLite's names are equal when they are so without regard to ASCII case.
struct name_less {
  using is_transparent = void;
  static char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
  bool operator()(std::string_view a, std::string_view b) const {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                        [](char x, char y) { return lower(x) < lower(y); });
  }
};
using name_set = std::set<std::string, name_less>;

std::string identifier(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) {
    out += c;
    if (c == '"') out += c;
  }
  return out + "\"";
}

// "a", "b", … with `each` applied to every name.
template <class Names, class F>
std::string listed(const Names& names, F each) {
  std::string out;
  for (const auto& name : names) {
    if (!out.empty()) out += ", ";
    out += each(name);
  }
  return out;
}

struct cell {
  std::string_view name;
  simdjson::dom::element value;
};
using row = std::vector<cell>;

const char* type_for(const simdjson::dom::element& value) {
  using type = simdjson::dom::element_type;
  switch (value.type()) {
    case type::INT64:
    case type::BOOL:
      return "INTEGER";
    case type::DOUBLE:
      return "REAL";
    case type::NULL_VALUE:
      return "";  // no type: what comes later is stored as it is
    default:
      return "TEXT";
  }
}

// The event cannot be a row; what() says why. Never leaves this file.
class unfit : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a statement's failure says about the row rather than about the database.
bool is_rows_fault(const sqlite::failure& f) {
  const int primary = f.code() & 0xff;
  return primary == SQLITE_CONSTRAINT || primary == SQLITE_MISMATCH || primary == SQLITE_TOOBIG;
}

// The table as the database has it now, and the statements that write to it.
class table_writer {
 public:
  table_writer(sqlite::connection& db, const settings& s) : db_(db), settings_(s) {}

  // After a failure that is_rows_fault().
  unfit refusal() const {
    const bool wrong_key = (sqlite3_extended_errcode(db_.handle()) & 0xff) == SQLITE_MISMATCH;
    return unfit("table '" + settings_.table + "' refuses the row: " + sqlite3_errmsg(db_.handle()) +
                 (wrong_key ? " (its INTEGER PRIMARY KEY takes whole numbers only)" : ""));
  }

  // At the beginning of a transaction: another writer may have changed the table.
  void look_again() {
    name_set now;
    sqlite::statement info(db_, "SELECT name FROM pragma_table_xinfo(?1)");
    info.bind(1, std::string_view(settings_.table));
    while (info.step()) now.emplace(info.text(0));
    if (now != columns_) statements_.clear();
    columns_ = std::move(now);
  }

  // Throws unfit when the row is not acceptable, sqlite::failure when the database fails.
  void write(const row& cells) {
    if (cells.empty()) throw unfit("the object has no fields");
    check_key(cells);
    sqlite::statement& statement = statement_for(cells);
    texts_.resize(cells.size());
    for (std::size_t i = 0; i < cells.size(); ++i) {
      bind_json(statement, static_cast<int>(i) + 1, cells[i].value, texts_[i]);
    }
    try {
      statement.run();
    } catch (const sqlite::failure& f) {
      if (!is_rows_fault(f)) throw;
      throw refusal();
    }
  }

 private:
  void check_key(const row& cells) const {
    if (!settings_.upsert) return;
    for (const std::string& key : settings_.key) {
      const auto found =
          std::find_if(cells.begin(), cells.end(), [&](const cell& c) { return c.name == key; });
      // SQLite takes NULLs for different from each other, so such rows would never meet.
      if (found == cells.end() || found->value.is_null()) throw unfit("key '" + key + "' is missing or null");
    }
  }

  // Rows of the same fields share one; the first of them makes what is missing in the table.
  sqlite::statement& statement_for(const row& cells) {
    fields_.clear();
    for (const cell& c : cells) fields_.append(c.name).push_back('\0');
    if (const auto found = statements_.find(fields_); found != statements_.end()) return found->second;
    check_names(cells);
    if (columns_.empty()) {
      create_table(cells);
    } else {
      add_columns(cells);
    }
    if (statements_.size() >= statements_limit) statements_.clear();
    return statements_.emplace(fields_, sqlite::statement(db_, insert_sql(cells))).first->second;
  }

  static void check_names(const row& cells) {
    std::set<std::string_view, name_less> names;
    for (const cell& c : cells) {
      if (!names.insert(c.name).second) throw unfit("column '" + std::string(c.name) + "' is there twice");
    }
  }

  std::string declared(const cell& c) const {
    const auto chosen = settings_.columns.find(std::string(c.name));
    const std::string type = chosen == settings_.columns.end() ? type_for(c.value) : chosen->second;
    return identifier(c.name) + (type.empty() ? "" : " " + type);
  }

  void create_table(const row& cells) {
    if (!settings_.create) throw std::runtime_error("there is no table '" + settings_.table + "'");
    std::string sql = "CREATE TABLE " + identifier(settings_.table) + " (" +
                      listed(cells, [this](const cell& c) { return declared(c); });
    if (settings_.upsert) sql += ", PRIMARY KEY (" + listed(settings_.key, identifier) + ")";
    change_schema(sql + ")");
    for (const cell& c : cells) columns_.emplace(c.name);
  }

  void add_columns(const row& cells) {
    row missing;
    for (const cell& c : cells) {
      if (!columns_.contains(c.name)) missing.push_back(c);
    }
    if (missing.empty()) return;
    if (!settings_.create) throw unfit("the table has no column '" + std::string(missing.front().name) + "'");
    // Before anything is changed: each ALTER TABLE costs more than the one before.
    const int limit = sqlite3_limit(db_.handle(), SQLITE_LIMIT_COLUMN, -1);
    if (columns_.size() + missing.size() > static_cast<std::size_t>(limit)) {
      throw unfit("with it the table would have more than " + std::to_string(limit) + " columns");
    }
    for (const cell& c : missing) {
      change_schema("ALTER TABLE " + identifier(settings_.table) + " ADD COLUMN " + declared(c));
      columns_.emplace(c.name);
    }
  }

  // SQLITE_ERROR here means that the statement makes no sense: too many columns, a name that cannot be one.
  void change_schema(const std::string& sql) {
    try {
      db_.execute(sql);
    } catch (const sqlite::failure& f) {
      if ((f.code() & 0xff) != SQLITE_ERROR) throw;
      throw refusal();
    }
  }

  std::string insert_sql(const row& cells) const {
    const auto name = [](const cell& c) { return identifier(c.name); };
    const auto place = [](const cell&) { return std::string("?"); };
    std::string sql = "INSERT INTO " + identifier(settings_.table) + " (" + listed(cells, name) +
                      ") VALUES (" + listed(cells, place) + ")";
    if (!settings_.upsert) return sql;
    row others;
    for (const cell& c : cells) {
      if (std::find(settings_.key.begin(), settings_.key.end(), c.name) == settings_.key.end())
        others.push_back(c);
    }
    sql += " ON CONFLICT (" + listed(settings_.key, identifier) + ") DO ";
    if (others.empty()) return sql + "NOTHING";
    return sql + "UPDATE SET " + listed(others, [](const cell& c) {
             return identifier(c.name) + " = excluded." + identifier(c.name);
           });
  }

  sqlite::connection& db_;
  const settings& settings_;
  name_set columns_;  // empty: there is no table
  std::unordered_map<std::string, sqlite::statement> statements_;
  std::string fields_;              // key of statements_, reused
  std::vector<std::string> texts_;  // what the running statement's cells point to
};

// ---------------------------------------------------------------------------------------------------------------

// How far a producer's events are stored, and which of the last transaction were refused.
class producer_memory {
 public:
  producer_memory(sqlite::connection& db, std::string producer) : db_(db), producer_(std::move(producer)) {}

  void load() {
    sqlite::statement query(db_, "SELECT position, refused FROM penstock_positions WHERE producer = ?1");
    query.bind(1, std::string_view(producer_));
    known_ = query.step();
    committed_ = highest_ = known_ ? query.integer(0) : 0;
    before_.clear();
    now_ = nlohmann::json::array();
    place_ = {0, 0};
    if (!known_) return;
    for (const auto& entry : nlohmann::json::parse(query.text(1))) {
      before_.emplace(std::pair(entry.at(0).get<std::int64_t>(), entry.at(1).get<std::int64_t>()),
                      entry.at(2).get<std::string>());
    }
  }

  enum class fate { unknown, stored, refused };

  // Called for each event in order.
  fate look_up(const event& e) {
    place_ = {e.position, place_.first == e.position ? place_.second + 1 : 0};
    if (e.position == 0 || e.position > committed_) return fate::unknown;
    return before_.contains(place_) ? fate::refused : fate::stored;
  }
  // Of the event looked up last.
  const std::string& reason() const { return before_.at(place_); }

  void stored(const event& e) { highest_ = std::max(highest_, e.position); }
  void refused(const event& e, const std::string& reason) {
    if (e.position == 0) return;
    highest_ = std::max(highest_, e.position);
    now_.push_back({place_.first, place_.second, reason});
  }

  // In the same transaction as the rows.
  void save(std::int64_t now_s) {
    if (highest_ == committed_) return;
    if (!known_) forget_old_runs(now_s);
    const std::string refused = now_.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    sqlite::statement put(db_, "INSERT OR REPLACE INTO penstock_positions VALUES (?1, ?2, ?3, ?4)");
    put.bind(1, std::string_view(producer_))
        .bind(2, highest_)
        .bind(3, std::string_view(refused))
        .bind(4, now_s)
        .run();
  }

 private:
  // A run's producer never comes again once the run has ended; without this there would be a row for every
  // run ever made.
  void forget_old_runs(std::int64_t now_s) {
    sqlite::statement gone(
        db_, "DELETE FROM penstock_positions WHERE written_at < ?1 AND producer NOT LIKE '%/flow/%'");
    gone.bind(1, now_s - run_memory_s).run();
  }

  sqlite::connection& db_;
  const std::string producer_;
  bool known_ = false;
  std::int64_t committed_ = 0;
  std::int64_t highest_ = 0;
  std::pair<std::int64_t, std::int64_t> place_{};  // position, and which of that position
  std::map<std::pair<std::int64_t, std::int64_t>, std::string> before_;
  nlohmann::json now_;
};

class sqlite_sink final : public blocking_sink {
 public:
  sqlite_sink(settings s, const component_context& context)
      : blocking_sink(context),
        settings_(std::move(s)),
        path_(context.workdir / settings_.file),
        producer_(context.consumer) {
    refuse_own_file(path_, context.services.topics);
  }

 private:
  void open_blocking(const std::string&) override {
    make_durable_folder(path_.parent_path());
    open_database();
    table_.emplace(db_, settings_);
    memory_.emplace(db_, producer_);
  }

  // One at a time: two connections that turn the same new file to WAL at once both hold what the other needs,
  // and SQLite tells one of them `busy` without waiting.
  void open_database() {
    static std::mutex one_at_a_time;
    const std::lock_guard lock(one_at_a_time);
    db_ = sqlite::connection(path_, sqlite::open_mode::read_write_create);
    db_.execute(positions_table);
  }

  write_result write_blocking(const batch& events) override {
    write_result written;
    sqlite::transaction transaction(db_);
    table_->look_again();
    memory_->load();
    for (std::size_t i = 0; i < events.size(); ++i) store(events.events[i], i, written);
    memory_->save(to_micros(wall_now()) / 1'000'000);
    transaction.commit();
    parser_ =
        simdjson::dom::parser{};  // it grows with the largest event, and the next batch may be long in coming
    return written;
  }

  void close_blocking() override {
    memory_.reset();
    table_.reset();
    db_ = {};
  }

  void store(const event& e, std::size_t index, write_result& written) {
    using fate = producer_memory::fate;
    const fate before = memory_->look_up(e);
    if (before == fate::stored) {
      ++written.duplicates;
      return;
    }
    std::string reason = before == fate::refused ? memory_->reason() : insert(e);
    if (reason.empty()) {
      memory_->stored(e);
    } else {
      memory_->refused(e, reason);
      written.refused.push_back({index, std::move(reason)});
    }
  }

  // Empty, or why the event cannot be a row.
  std::string insert(const event& e) {
    if (e.data.empty()) return "there is no data";
    simdjson::dom::element document;
    if (const auto failure = parser_.parse(e.data.data(), e.data.size(), false).get(document)) {
      return std::string("not JSON: ") + simdjson::error_message(failure);
    }
    simdjson::dom::object object;
    if (document.get(object) != simdjson::SUCCESS) return "not a JSON object";
    row cells;
    for (const auto field : object) cells.push_back({field.key, field.value});
    try {
      table_->write(cells);
    } catch (const unfit& u) {
      return u.what();
    }
    return {};
  }

  const settings settings_;
  const std::filesystem::path path_;
  const std::string producer_;
  simdjson::dom::parser parser_;
  sqlite::connection db_;
  std::optional<table_writer> table_;      // uses db_, as does ...
  std::optional<producer_memory> memory_;  // ... this
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), parse), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<sqlite_sink>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::sqlite_sink
