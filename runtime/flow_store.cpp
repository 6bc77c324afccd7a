// See flow_store.hpp. Writes go through the commit queue's connection; reads have one of their own, under a
// mutex.
#include "runtime/flow_store.hpp"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include <boost/asio/strand.hpp>

#include "runtime/data_format.hpp"
#include "runtime/sqlite.hpp"

namespace penstock::runtime {
namespace {

constexpr std::string_view flow_schema = R"sql(
  CREATE TABLE consumers (
    consumer TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    sink TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE step_state (
    consumer TEXT NOT NULL,
    step TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (consumer, step, key)
  ) WITHOUT ROWID;
  CREATE TABLE dead_letters (
    id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    consumer TEXT NOT NULL,
    step TEXT NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at INTEGER NOT NULL,  -- microseconds since the epoch, as is event_time
    event_id TEXT NOT NULL,
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    datacontenttype TEXT NOT NULL,
    key TEXT NOT NULL,
    data BLOB NOT NULL,
    event_time INTEGER NOT NULL,
    position INTEGER NOT NULL,
    UNIQUE (consumer, step, event_id, position)
  );
  CREATE INDEX dead_letters_by_pipeline ON dead_letters (pipeline, id);
)sql";
constexpr std::string_view topics_of_letters = "ALTER TABLE dead_letters ADD COLUMN topic TEXT NOT NULL DEFAULT ''";
constexpr std::initializer_list<std::string_view> migrations{flow_schema, topics_of_letters};
const auto flow_format = static_cast<std::int64_t>(migrations.size());

constexpr std::string_view dead_letter_columns =
    "SELECT id, pipeline, consumer, step, reason, attempts, at, event_id, source, type, subject, "
    "datacontenttype, key, "
    "data, event_time, position, topic FROM dead_letters ";

// The prepared statements of the writing connection. Used on the queue's executor only.
struct flow_writer {
  explicit flow_writer(sqlite::connection& db)
      : set_cursor(db, "INSERT OR REPLACE INTO consumers VALUES (?1, ?2, ?3)"),
        set_state(db, "INSERT OR REPLACE INTO step_state VALUES (?1, ?2, ?3, ?4)"),
        remove_state(db, "DELETE FROM step_state WHERE consumer = ?1 AND step = ?2 AND key = ?3"),
        // IGNORE: a batch that is processed again after a crash brings the same dead letters under new ids.
        add_dead(db,
                 "INSERT OR IGNORE INTO dead_letters VALUES "
                 "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"),
        remove_dead(db, "DELETE FROM dead_letters WHERE id = ?1"),
        // ?2 and ?3 enclose every name below ?1.
        forget_cursors(db, "DELETE FROM consumers WHERE consumer = ?1 OR (consumer >= ?2 AND consumer < ?3)"),
        forget_state(db, "DELETE FROM step_state WHERE consumer = ?1 OR (consumer >= ?2 AND consumer < ?3)") {
  }

  sqlite::statement set_cursor, set_state, remove_state, add_dead, remove_dead, forget_cursors, forget_state;
};

struct flow_reader {
  explicit flow_reader(sqlite::connection opened)
      : db(std::move(opened)),
        // One statement, hence one snapshot: a commit meanwhile cannot mix old and new.
        checkpoint(
            db,
            "SELECT position, sink, step, key, value FROM consumers LEFT JOIN step_state USING (consumer) "
            "WHERE consumer = ?1 ORDER BY step, key"),
        find_state(db, "SELECT value FROM step_state WHERE consumer = ?1 AND step = ?2 AND key = ?3"),
        cursors(db, "SELECT consumer, position FROM consumers ORDER BY consumer"),
        count_dead(db, "SELECT count(*) FROM dead_letters"),
        find_dead(db, std::string(dead_letter_columns) + "WHERE id = ?1"),
        list_dead(db, std::string(dead_letter_columns) +
                          "WHERE id > ?1 AND (?2 = '' OR consumer = ?2) ORDER BY id LIMIT ?3"),
        list_dead_of_pipeline(db, std::string(dead_letter_columns) +
                                      "WHERE id > ?1 AND (?2 = '' OR consumer = ?2) AND pipeline = ?4 "
                                      "ORDER BY id LIMIT ?3") {}

  sqlite::connection db;
  sqlite::statement checkpoint, find_state, cursors, count_dead, find_dead, list_dead, list_dead_of_pipeline;
};

void write(flow_writer& to, const dead_letter& d) {
  to.add_dead.bind(1, d.id).bind(2, d.pipeline).bind(3, d.consumer).bind(4, d.step).bind(5, d.reason);
  to.add_dead.bind(6, std::int64_t{d.attempts})
      .bind(7, to_micros(d.at))
      .bind(8, d.event_id)
      .bind(9, d.source);
  to.add_dead.bind(10, d.type).bind(11, d.subject).bind(12, d.datacontenttype).bind(13, d.key);
  to.add_dead.bind_blob(14, d.data).bind(15, to_micros(d.event_time)).bind(16, d.position).bind(17, d.topic).run();
}

void write(flow_writer& to, const commit& c) {
  to.set_cursor.bind(1, c.consumer).bind(2, c.position).bind(3, c.sink).run();
  for (const state_change& change : c.steps) {
    sqlite::statement& row = change.value ? to.set_state : to.remove_state;
    row.bind(1, c.consumer).bind(2, change.step).bind(3, change.key);
    if (change.value) row.bind_blob(4, *change.value);
    row.run();
  }
  // First, because a replayed event that fails again may have the same identity as its old letter.
  for (const std::string& id : c.settled) to.remove_dead.bind(1, id).run();
  for (const dead_letter& d : c.dead) write(to, d);
}

void forget_in(flow_writer& to, const std::string& name) {
  const std::string from = name + "/", until = name + "0";  // '0' follows '/'
  for (sqlite::statement* const statement : {&to.forget_cursors, &to.forget_state}) {
    statement->bind(1, name).bind(2, from).bind(3, until).run();
  }
}

dead_letter read_dead_letter(const sqlite::statement& row) {
  dead_letter d;
  d.id = row.text(0);
  d.pipeline = row.text(1);
  d.consumer = row.text(2);
  d.step = row.text(3);
  d.reason = row.text(4);
  d.attempts = static_cast<int>(row.integer(5));
  d.at = from_micros(row.integer(6));
  d.event_id = row.text(7);
  d.source = row.text(8);
  d.type = row.text(9);
  d.subject = row.text(10);
  d.datacontenttype = row.text(11);
  d.key = row.text(12);
  d.data = row.blob(13);
  d.event_time = from_micros(row.integer(14));
  d.position = row.integer(15);
  d.topic = row.text(16);
  return d;
}

}  // namespace

struct flow_store::state {
  state(std::filesystem::path f, const asio::any_io_executor& executor, std::shared_ptr<commit_pause> pause)
      : file(std::move(f)), queue(asio::make_strand(executor), [this] { return open_writer(); }, {}, {}, std::move(pause)) {}

  sqlite::connection open_writer() {
    sqlite::connection db(file, sqlite::open_mode::read_write_create);
    sqlite::migrate(db, migrations);
    current = std::make_unique<flow_writer>(db);
    const std::lock_guard lock(reading);
    empty = false;
    return db;
  }

  // With `reading` held. Nothing: there is nothing to read.
  flow_reader* open_reader() {
    if (own || closed || empty) return own.get();
    empty = !std::filesystem::exists(file);
    if (empty) return nullptr;
    sqlite::connection db(file, sqlite::open_mode::read_only);
    const std::int64_t version = sqlite::schema_version(db);
    empty = version == 0;
    if (empty) return nullptr;
    sqlite::require_known_schema(db, flow_format);
    if (version < flow_format) {  // of an older penstock, and nothing has been written since
      sqlite::connection older(file, sqlite::open_mode::read_write_create);
      sqlite::migrate(older, migrations);
    }
    own = std::make_unique<flow_reader>(std::move(db));
    return own.get();
  }

  const std::filesystem::path file;

  std::mutex reading;
  std::unique_ptr<flow_reader> own;  // guarded by reading
  bool closed = false;               // guarded by reading
  bool empty = false;                // guarded by reading: it was, and nobody has opened it for writing since

  std::unique_ptr<flow_writer> current;  // since the file was opened for writing
  commit_queue queue;               // last: its destruction waits for work that uses the rest
};

flow_store::flow_store(std::filesystem::path file, asio::any_io_executor executor, std::shared_ptr<commit_pause> pause)
    : state_(std::make_unique<state>(std::move(file), executor, std::move(pause))) {}

flow_store::~flow_store() { close(); }

checkpoint flow_store::load(const std::string& consumer) {
  checkpoint found;
  const std::lock_guard lock(state_->reading);
  flow_reader* const from = state_->open_reader();
  if (!from) return found;
  sqlite::statement& row = from->checkpoint.bind(1, consumer);
  while (row.step()) {
    found.position = row.integer(0);
    found.sink = row.text(1);
    if (row.is_null(2)) continue;
    found.steps.push_back({std::string(row.text(2)), std::string(row.text(3)), std::string(row.blob(4))});
  }
  return found;
}

std::optional<std::string> flow_store::find_state(const std::string& consumer, const std::string& step,
                                                  const std::string& key) {
  const std::lock_guard lock(state_->reading);
  flow_reader* const from = state_->open_reader();
  std::optional<std::string> found;
  if (!from) return found;
  from->find_state.bind(1, consumer).bind(2, step).bind(3, key);
  while (from->find_state.step()) found = std::string(from->find_state.blob(0));
  return found;
}

asio::awaitable<void> flow_store::save(commit c) {
  state* const s = state_.get();
  auto shared = std::make_shared<const commit>(std::move(c));
  auto piece = [s, shared](sqlite::connection&) { write(*s->current, *shared); };
  co_await s->queue.run(std::move(piece));
}

asio::awaitable<void> flow_store::forget(std::string consumer_prefix) {
  state* const s = state_.get();
  if (consumer_prefix.ends_with('/')) consumer_prefix.pop_back();
  auto piece = [s, name = std::move(consumer_prefix)](sqlite::connection&) { forget_in(*s->current, name); };
  co_await s->queue.run(std::move(piece));
}

std::vector<dead_letter> flow_store::dead_letters(const dead_letter_filter& filter) {
  std::vector<dead_letter> found;
  const std::lock_guard lock(state_->reading);
  flow_reader* const from = state_->open_reader();
  if (!from) return found;
  sqlite::statement& row = filter.pipeline.empty() ? from->list_dead : from->list_dead_of_pipeline;
  const auto limit = static_cast<std::int64_t>(std::min<std::size_t>(filter.limit, INT64_MAX));
  row.bind(1, filter.after_id).bind(2, filter.consumer).bind(3, limit);
  if (!filter.pipeline.empty()) row.bind(4, filter.pipeline);
  while (row.step()) found.push_back(read_dead_letter(row));
  return found;
}

std::optional<dead_letter> flow_store::find_dead_letter(const std::string& id) {
  const std::lock_guard lock(state_->reading);
  flow_reader* const from = state_->open_reader();
  if (!from) return std::nullopt;
  std::optional<dead_letter> found;
  from->find_dead.bind(1, id);
  while (from->find_dead.step()) found = read_dead_letter(from->find_dead);
  return found;
}

std::int64_t flow_store::count_dead_letters() {
  const std::lock_guard lock(state_->reading);
  flow_reader* const from = state_->open_reader();
  std::int64_t count = 0;
  while (from && from->count_dead.step()) count = from->count_dead.integer(0);
  return count;
}

asio::awaitable<std::int64_t> flow_store::remove_dead_letters(std::vector<std::string> ids) {
  state* const s = state_.get();
  auto piece = [s, ids = std::move(ids)](sqlite::connection& db) {
    std::int64_t removed = 0;
    for (const std::string& id : ids) {
      s->current->remove_dead.bind(1, id).run();
      removed += db.changes();
    }
    return removed;
  };
  co_return co_await s->queue.run(std::move(piece));
}

std::vector<std::pair<std::string, std::int64_t>> flow_store::cursors() {
  std::vector<std::pair<std::string, std::int64_t>> found;
  const std::lock_guard lock(state_->reading);
  flow_reader* const from = state_->open_reader();
  if (!from) return found;
  while (from->cursors.step()) found.emplace_back(from->cursors.text(0), from->cursors.integer(1));
  return found;
}

std::int64_t known_flow_format() { return flow_format; }

std::optional<std::string> flow_store::trouble() const { return state_->queue.trouble(); }

asio::awaitable<void> flow_store::probe() { return state_->queue.probe(); }

void flow_store::close() {
  {
    const std::lock_guard lock(state_->reading);
    state_->closed = true;
    state_->own.reset();
  }
  state_->queue.close();
  state_->current.reset();
}

}  // namespace penstock::runtime
