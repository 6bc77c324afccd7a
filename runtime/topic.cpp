// See topic.hpp.
//
// The file: `events` has one row an event; what is usual (type "event", source "/topics/NAME", JSON, time =
// received) is stored as NULL. Retention deletes from the front only, so the offsets kept are always dense;
// because it may delete everything, it leaves the last offset in `counters` first. The last offset is
// therefore the greater of the two.
#include "runtime/topic.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <boost/asio/strand.hpp>

#include "runtime/data_format.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/lua.hpp"
#include "runtime/sqlite.hpp"
#include "runtime/topic_readers.hpp"

namespace penstock::runtime {
namespace {

using std::chrono::microseconds;

constexpr std::size_t pending_limit = 64 << 20;  // bytes waiting for the writer, per topic
constexpr int pending_retry_s = 1;
constexpr int full_retry_s = 10;        // retention has to make room first
constexpr std::int64_t slice = 10'000;  // rows that retention removes in one transaction
constexpr auto producer_memory = std::chrono::days(30);
constexpr std::uintmax_t wal_limit = 64 << 20;  // bytes of the write-ahead log
constexpr int page_bytes =
    8192;  // large batches are written a tenth faster than with 4096, single events as fast
constexpr std::int64_t unknown = -1;
constexpr std::size_t reserve_limit = 1000;  // events that a read makes room for at once
constexpr std::string_view default_type = "event";

constexpr std::string_view topic_schema = R"sql(
  CREATE TABLE events (
    offset INTEGER PRIMARY KEY,
    received INTEGER NOT NULL,  -- microseconds since the epoch, like all times here
    time INTEGER,               -- NULL: as received
    id TEXT NOT NULL,
    type TEXT,                  -- NULL: "event"
    source TEXT,                -- NULL: "/topics/NAME"
    subject TEXT NOT NULL,
    datacontenttype TEXT,       -- NULL: JSON
    key TEXT NOT NULL,
    data BLOB NOT NULL
  );
  CREATE TABLE dedupe (
    key TEXT PRIMARY KEY,
    received INTEGER NOT NULL  -- of the event that was stored
  ) WITHOUT ROWID;
  CREATE INDEX dedupe_by_age ON dedupe (received);
  CREATE TABLE producers (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    updated INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE counters (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    last_offset INTEGER NOT NULL,  -- as of the last retention
    duplicates INTEGER NOT NULL,
    dedupe_key TEXT                -- the expression that the keys in `dedupe` are values of; NULL: none yet
  );
  INSERT INTO counters VALUES (1, 0, 0, NULL);
)sql";

// What the writing connection has prepared, and the last offset inside its open transaction. Used on the
// queue's executor only.
struct topic_writer {
  explicit topic_writer(sqlite::connection& db)
      : insert(db, "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"),
        // Refuses (changes nothing) when the key was stored after ?3.
        remember_key(db,
                     "INSERT INTO dedupe VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET received = ?2 "
                     "WHERE received <= ?3"),
        last(db, select_last_offset),
        dedupe_key(db, "SELECT dedupe_key FROM counters"),
        set_dedupe_key(db, "UPDATE counters SET dedupe_key = ?1"),
        forget_keys(db, "DELETE FROM dedupe"),
        count_duplicates(db, "UPDATE counters SET duplicates = duplicates + ?1"),
        producer(db, "SELECT position FROM producers WHERE name = ?1"),
        set_producer(db, "INSERT OR REPLACE INTO producers VALUES (?1, ?2, ?3)"),
        pages(db, "PRAGMA page_count"),
        free_pages(db, "PRAGMA freelist_count"),
        first(db, "SELECT min(offset) FROM events"),
        first_young(db,
                    "SELECT offset FROM events WHERE received >= ?1 AND offset < ?2 ORDER BY offset LIMIT 1"),
        keep_last(db, "UPDATE counters SET last_offset = ?1"),
        remove_events(db, "DELETE FROM events WHERE offset < ?1"),
        remove_keys(db,
                    "DELETE FROM dedupe WHERE key IN "
                    "(SELECT key FROM dedupe WHERE received <= ?1 ORDER BY received LIMIT ?2)"),
        remove_producers(db, "DELETE FROM producers WHERE updated < ?1"),
        fold_log(db, "PRAGMA wal_checkpoint(TRUNCATE)"),
        last_offset(one_integer(last)) {
    sqlite::statement size(db, "PRAGMA page_size");
    page_size = one_integer(size);
    // Each table and index has a page even when it is empty, and so has the schema itself.
    sqlite::statement roots(db, "SELECT 1 + count(*) FROM sqlite_schema WHERE rootpage > 0");
    empty_pages = one_integer(roots);
  }

  // What rows take on disk; an empty topic takes nothing.
  std::int64_t used_bytes() {
    return (one_integer(pages) - one_integer(free_pages) - empty_pages) * page_size;
  }

  sqlite::statement insert, remember_key, last, dedupe_key, set_dedupe_key, forget_keys, count_duplicates,
      producer, set_producer, pages, free_pages, first, first_young, keep_last, remove_events, remove_keys,
      remove_producers, fold_log;
  std::int64_t last_offset;
  std::int64_t page_size = 0;    // constant after construction, as is ...
  std::int64_t empty_pages = 0;  // ... this
};

// Those who want to know of commits. Shared with the tokens, which may outlive the topic.
struct listeners {
  // The mutex is recursive because a listener may let go of its own token.
  struct listener {
    std::recursive_mutex calling;
    bool wanted = true;
    std::function<void(std::int64_t)> call;
  };

  std::mutex mutex;
  std::vector<std::shared_ptr<listener>> all;

  void notify(std::int64_t offset) {
    std::vector<std::shared_ptr<listener>> now;
    {
      const std::lock_guard lock(mutex);
      now = all;
    }
    for (const auto& one : now) {
      const std::lock_guard lock(one->calling);
      if (one->wanted) one->call(offset);
    }
  }

  void remove(const std::shared_ptr<listener>& gone) {
    {
      const std::lock_guard lock(gone->calling);
      gone->wanted = false;
    }
    const std::lock_guard lock(mutex);
    std::erase(all, gone);
  }
};

// The place in the queue that an append takes until it is durable or has failed.
class reservation {
 public:
  reservation(std::atomic<std::size_t>& pending, std::size_t bytes) : pending_(pending), bytes_(bytes) {
    pending_ += bytes_;
  }
  ~reservation() { pending_ -= bytes_; }
  reservation(const reservation&) = delete;
  reservation& operator=(const reservation&) = delete;

 private:
  std::atomic<std::size_t>& pending_;
  std::size_t bytes_;
};

std::size_t cost_of(const batch& events) { return events.payload_bytes() + events.size() * sizeof(event); }

// A row's texts, copied into the batch with one allocation; the payload comes last, because padding follows
// it.
template <std::size_t N>
std::array<std::string_view, N> copy_together(batch& to, const std::array<std::string_view, N>& parts) {
  std::size_t size = 0;
  for (const auto part : parts) size += part.size();
  char* next = to.allocate(size);
  std::array<std::string_view, N> copies;
  for (std::size_t i = 0; i < N; ++i) {
    if (!parts[i].empty()) std::memcpy(next, parts[i].data(), parts[i].size());
    copies[i] = {next, parts[i].size()};
    next += parts[i].size();
  }
  return copies;
}

// NULL in the place of what is usual keeps rows small.
void bind_unless(sqlite::statement& row, int index, std::string_view text, std::string_view usual) {
  if (text == usual) {
    row.bind_null(index);
  } else {
    row.bind(index, text);
  }
}

// One append on its way through the queue.
struct pending_append {
  std::shared_ptr<const batch> events;
  std::shared_ptr<const config::topic> rules;
  std::vector<std::string> keys;  // with a dedupe rule: one an event; empty: never a duplicate
  std::string producer;
  timestamp received{};
};

// What one transaction of retention did.
struct removed_slice {
  std::int64_t events = 0;
  bool more = false;
};

// Turns rows into events. Sources and types repeat from row to row; such views are shared.
class row_reader {
 public:
  row_reader(batch& out, std::string_view topic_name) : out_(out) {
    type_ = default_type_ = out.keep(default_type);
    default_source_ = out.keep(std::string("/topics/").append(topic_name));
    topic_ = default_source_.substr(default_source_.size() - topic_name.size());
    source_ = default_source_;
  }

  event read(const sqlite::statement& row) {
    event e;
    e.position = row.integer(0);
    e.topic = topic_;
    e.time = from_micros(row.integer(row.is_null(2) ? 1 : 2));
    e.type = type_ = shared(row, 4, type_, default_type_);
    e.source = source_ = shared(row, 5, source_, default_source_);
    const auto copies =
        copy_together<5>(out_, {row.text(3), row.text(6), row.text(7), row.text(8), row.blob(9)});
    e.id = copies[0];
    e.subject = copies[1];
    e.datacontenttype = copies[2];
    e.key = copies[3];
    e.data = copies[4];
    return e;
  }

 private:
  std::string_view shared(const sqlite::statement& row, int column, std::string_view last,
                          std::string_view usual) {
    if (row.is_null(column)) return usual;
    const std::string_view text = row.text(column);
    return text == last ? last : out_.keep(text);
  }

  batch& out_;
  std::string_view topic_, default_type_, default_source_, type_, source_;
};

}  // namespace

struct topic::state {
  state(config::topic d, std::filesystem::path f, const asio::any_io_executor& writers, std::shared_ptr<commit_pause> p)
      : definition(std::make_shared<const config::topic>(std::move(d))),
        file(std::move(f)),
        log(file.string() + "-wal"),
        source("/topics/" + definition->name),
        pause(std::move(p)),
        readers(file),
        queue(
            asio::make_strand(writers), [this] { return open_writer(); }, [this] { publish(); },
            [this] {
              if (current) current->last_offset = last_offset;
            },
            pause) {}

  // --- writing: on the queue's executor

  sqlite::connection open_writer();
  void publish();
  void bound_log();
  // Nothing: the topic is full.
  std::optional<append_result> store(sqlite::connection& db, const pending_append& a);
  append_result store_events(sqlite::connection& db, const pending_append& a);
  void use_dedupe_key(const std::string& expression);
  bool is_duplicate(sqlite::connection& db, const pending_append& a, std::size_t index);
  void insert(const event& e, timestamp received);
  removed_slice remove_slice(sqlite::connection& db, timestamp now, std::int64_t keep_after);
  std::int64_t remove_old_events(timestamp older_than, std::int64_t keep_after);
  std::int64_t remove_old_keys(sqlite::connection& db, timestamp stored_by);

  // --- reading: any thread

  topic_status read_status();
  void rest();
  std::int64_t known_last_offset();

  std::shared_ptr<const config::topic> rules() {
    const std::lock_guard lock(definition_mutex);
    return definition;
  }

  std::mutex definition_mutex;
  std::shared_ptr<const config::topic> definition;  // guarded by definition_mutex; never null
  const std::filesystem::path file;
  const std::filesystem::path log;
  const std::string source;  // what events have that name no other
  const std::shared_ptr<commit_pause> pause;  // may be null

  std::atomic<std::int64_t> last_offset{unknown};  // committed
  std::atomic<std::size_t> pending{0};             // bytes in the queue
  std::size_t places = 0;                          // taken by requests; control thread
  std::atomic<bool> used{false};                   // since the last retention
  std::shared_ptr<listeners> told = std::make_shared<listeners>();

  topic_readers readers;

  std::mutex status_mutex;
  topic_status status;                    // guarded by status_mutex; as after ...
  std::int64_t status_commits = unknown;  // ... so many commits; likewise guarded
  std::atomic<std::int64_t> commits{0};   // since this object was made

  std::unique_ptr<topic_writer> current;  // since the file was opened for writing
  commit_queue queue;               // last: its destruction waits for work that uses the rest
};

// ---------------------------------------------------------------------------------------------------------------
// Writing

sqlite::connection topic::state::open_writer() {
  readers.writer_opens();
  const std::shared_ptr<void> opened(nullptr, [this](void*) { readers.writer_opens(); });
  make_durable_folder(file.parent_path());
  sqlite::connection db(file, sqlite::open_mode::read_write_create, page_bytes);
  db.execute(topic_cache_size);
  sqlite::migrate(db, {topic_schema});
  current = std::make_unique<topic_writer>(db);
  // More was given away than the file knows of: it is another one, which was made since.
  const std::int64_t known = last_offset;
  if (known != unknown && known > current->last_offset) {
    current->keep_last.bind(1, known).run();
    current->last_offset = known;
  }
  last_offset = current->last_offset;
  return db;
}

void topic::state::publish() {
  ++commits;
  bound_log();
  if (current->last_offset == last_offset) return;
  last_offset = current->last_offset;
  told->notify(current->last_offset);
}

// The write-ahead log starts over only at a moment without readers; with several busy ones there may be none
// for hours. When it has grown large, the next reads wait until it is folded into the file.
void topic::state::bound_log() {
  if (pause && pause->viewed) return;
  std::error_code missing;
  const std::uintmax_t size = std::filesystem::file_size(log, missing);
  if (missing || size <= wal_limit) return;
  readers.without_readers([this] {
    try {
      current->fold_log.run();
    } catch (const sqlite::failure&) {
      // A full disk, most likely: the log keeps everything, and the next commit tries again.
    }
  });
}

std::optional<append_result> topic::state::store(sqlite::connection& db, const pending_append& a) {
  if (a.rules->max_bytes && current->used_bytes() >= *a.rules->max_bytes) return std::nullopt;
  const std::int64_t before = current->last_offset;
  try {
    return store_events(db, a);
  } catch (...) {
    current->last_offset = before;
    throw;
  }
}

append_result topic::state::store_events(sqlite::connection& db, const pending_append& a) {
  append_result result;
  std::int64_t committed = 0;
  if (!a.producer.empty()) committed = one_integer(current->producer.bind(1, a.producer));
  std::int64_t highest = committed;
  if (a.rules->dedupe) use_dedupe_key(a.rules->dedupe->key);

  const std::int64_t before = current->last_offset;
  for (std::size_t i = 0; i < a.events->size(); ++i) {
    const event& e = a.events->events[i];
    if (!a.producer.empty() && e.position > 0) {
      if (e.position <= committed) {
        ++result.skipped;
        continue;
      }
      highest = std::max(highest, e.position);
    }
    if (is_duplicate(db, a, i)) {
      ++result.duplicates;
      continue;
    }
    insert(e, a.received);
  }
  result.accepted = current->last_offset - before;
  if (result.accepted > 0) {
    result.first_offset = before + 1;
    result.last_offset = current->last_offset;
  }
  if (result.duplicates > 0) current->count_duplicates.bind(1, result.duplicates).run();
  if (highest > committed) {
    current->set_producer.bind(1, a.producer).bind(2, highest).bind(3, to_micros(a.received)).run();
  }
  return result;
}

// Keys made by another expression say nothing about those of this one.
void topic::state::use_dedupe_key(const std::string& expression) {
  const bool same = current->dedupe_key.step() && current->dedupe_key.text(0) == expression;
  current->dedupe_key.reset();
  if (same) return;
  current->forget_keys.run();
  current->set_dedupe_key.bind(1, expression).run();
}

bool topic::state::is_duplicate(sqlite::connection& db, const pending_append& a, std::size_t index) {
  if (a.keys.empty() || a.keys[index].empty()) return false;
  const timestamp window_start =
      a.received - std::chrono::duration_cast<microseconds>(a.rules->dedupe->within);
  current->remember_key.bind(1, a.keys[index])
      .bind(2, to_micros(a.received))
      .bind(3, to_micros(window_start))
      .run();
  return db.changes() == 0;
}

void topic::state::insert(const event& e, timestamp received) {
  sqlite::statement& row = current->insert;
  row.bind(1, current->last_offset + 1).bind(2, to_micros(received));
  if (e.time == received || e.time == timestamp{}) {
    row.bind_null(3);
  } else {
    row.bind(3, to_micros(e.time));
  }
  bind_unless(row, 5, e.type, default_type);
  bind_unless(row, 6, e.source, source);
  bind_unless(row, 8, e.datacontenttype, {});
  row.bind(4, e.id).bind(7, e.subject).bind(9, e.key).bind_blob(10, e.data).run();
  ++current->last_offset;
}

removed_slice topic::state::remove_slice(sqlite::connection& db, timestamp now, std::int64_t keep_after) {
  const auto rule = rules();
  removed_slice done;
  if (rule->retain) {
    done.events =
        remove_old_events(now - std::chrono::duration_cast<microseconds>(*rule->retain), keep_after);
  }
  const auto within = rule->dedupe ? rule->dedupe->within : nanoseconds{0};
  const std::int64_t keys = remove_old_keys(db, now - std::chrono::duration_cast<microseconds>(within));
  current->remove_producers.bind(1, to_micros(now - producer_memory)).run();
  done.more = done.events == slice || keys == slice;
  return done;
}

std::int64_t topic::state::remove_old_events(timestamp older_than, std::int64_t keep_after) {
  const std::int64_t first = one_integer(current->first);
  if (first == 0) return 0;
  std::int64_t until = std::min({keep_after, current->last_offset, first + slice - 1}) + 1;
  if (until <= first) return 0;
  const std::int64_t young = one_integer(current->first_young.bind(1, to_micros(older_than)).bind(2, until));
  if (young != 0) until = young;
  if (until == first) return 0;
  current->keep_last.bind(1, current->last_offset).run();
  current->remove_events.bind(1, until).run();
  return until - first;
}

std::int64_t topic::state::remove_old_keys(sqlite::connection& db, timestamp stored_by) {
  current->remove_keys.bind(1, to_micros(stored_by)).bind(2, slice).run();
  return db.changes();
}

// ---------------------------------------------------------------------------------------------------------------
// Reading

// Closes what is open until it is needed again, so that files are open for busy topics only.
void topic::state::rest() {
  readers.rest();
  queue.rest([this] { current.reset(); });
}

std::int64_t topic::state::known_last_offset() {
  std::int64_t known = last_offset;
  if (known != unknown) return known;
  const std::int64_t found = readers.ask_once([](topic_reader& from) { return one_integer(from.last); });
  // A writer that was opened meanwhile knows better.
  return last_offset.compare_exchange_strong(known, found) ? found : known;
}

// What does not change between commits is read once.
topic_status topic::state::read_status() {
  const std::lock_guard lock(status_mutex);
  const std::int64_t as_of = commits;
  if (status_commits == as_of) return status;
  const std::int64_t known = std::max<std::int64_t>(last_offset, 0);
  const auto ask = [](topic_reader& from) {
    std::optional<topic_status> now;
    sqlite::statement& row = from.summary;
    if (row.step()) {
      now.emplace();
      now->first_offset = row.integer(0);
      now->duplicates = row.integer(1);
      now->last_offset = row.integer(2);
      now->bytes = row.integer(3);
    }
    row.reset();
    return now;
  };
  std::optional<topic_status> found;
  if (const auto seen = readers.ask_at_rest(ask)) {
    found = *seen;
  } else if (const auto from = readers.open(sqlite::open_mode::read_only)) {  // its own: those who read events may keep theirs long
    found = ask(*from);
  }
  if (!found) {
    topic_status none;
    none.last_offset = known;
    return none;
  }
  status = *found;
  status.last_offset = std::max(status.last_offset, known);
  status.events = status.first_offset > 0 ? status.last_offset - status.first_offset + 1 : 0;
  status_commits = as_of;
  return status;
}

// ---------------------------------------------------------------------------------------------------------------

class topic::subscription {
 public:
  subscription(std::shared_ptr<listeners> list, std::function<void(std::int64_t)> call)
      : list_(std::move(list)), own_(std::make_shared<listeners::listener>()) {
    own_->call = std::move(call);
    const std::lock_guard lock(list_->mutex);
    list_->all.push_back(own_);
  }
  ~subscription() { list_->remove(own_); }
  subscription(const subscription&) = delete;
  subscription& operator=(const subscription&) = delete;

 private:
  std::shared_ptr<listeners> list_;
  std::shared_ptr<listeners::listener> own_;
};

topic::topic(config::topic definition, std::filesystem::path file, asio::any_io_executor writers,
             std::shared_ptr<commit_pause> pause)
    : name_(definition.name),
      state_(std::make_unique<state>(std::move(definition), std::move(file), writers, std::move(pause))) {}

topic::~topic() { close(); }

asio::awaitable<result<append_result>> topic::append(std::shared_ptr<const batch> events,
                                                     append_options options) {
  const auto self = shared_from_this();
  state* const s = state_.get();
  if (events->empty()) co_return append_result{};

  const std::size_t bytes = cost_of(*events);
  s->used = true;
  const reservation reserved(s->pending, bytes);
  if (s->pending > pending_limit && s->pending != bytes) {
    co_return error{
        errc::overloaded, "topic '" + name_ + "' has too much waiting to be written", {}, pending_retry_s};
  }
  auto a = std::make_shared<pending_append>();
  a->rules = s->rules();
  if (a->rules->dedupe) a->keys = evaluate_keys(a->rules->dedupe->key, *events);
  a->events = std::move(events);
  a->producer = std::move(options.producer);
  a->received = options.received.value_or(wall_now());

  auto piece = [s, a](sqlite::connection& db) { return s->store(db, *a); };
  std::optional<append_result> stored;
  try {
    stored = co_await s->queue.run(std::move(piece));
  } catch (const commit_queue::closed&) {
    co_return error{errc::unavailable, "topic '" + name_ + "' is closed"};
  }
  if (!stored) {
    co_return error{errc::overloaded, "topic '" + name_ + "' has reached its max_bytes", {}, full_retry_s};
  }
  co_return *stored;
}

batch topic::read(std::int64_t after, std::size_t limit, std::int64_t until, std::size_t max_bytes) {
  batch out;
  const std::int64_t last = std::min(until, state_->known_last_offset());
  if (limit == 0 || after >= last) return out;
  state_->used = true;
  const topic_readers::lease from(state_->readers, topic_readers::after_use::keep_open);
  if (!from) return out;
  const auto most = static_cast<std::size_t>(last - std::max<std::int64_t>(after, 0));
  out.events.reserve(std::min({limit, most, reserve_limit}));
  const auto rows_limit = static_cast<std::int64_t>(std::min<std::size_t>(limit, INT64_MAX));
  sqlite::statement& row = from->events.bind(1, after).bind(2, until).bind(3, rows_limit);
  row_reader rows(out, name_);
  std::size_t payload = 0;
  while (row.step()) {
    out.events.push_back(rows.read(row));
    payload += out.events.back().data.size();
    if (payload >= max_bytes) break;
  }
  return out;
}

std::int64_t topic::last_offset() { return state_->known_last_offset(); }

void topic::require_reached(std::int64_t position) {
  const std::int64_t last = position > 0 ? last_offset() : 0;
  if (position <= last) return;
  throw std::runtime_error("read up to offset " + std::to_string(position) + " before, but topic '" + name_ + "' ends at " +
                           std::to_string(last) + ": it is an older copy, or was made anew");
}

waiting_place topic::take_place(std::size_t most) { return waiting_place(state_->places, most); }

void topic::go_on_after(std::int64_t offset) {
  if (last_offset() >= offset) return;
  state_->last_offset = offset;
  ++state_->commits;  // what status() remembers is out of date
}

std::optional<timestamp> topic::received_at(std::int64_t offset) {
  const std::int64_t received = state_->readers.ask_once([&](topic_reader& from) { return one_integer(from.received.bind(1, offset)); });
  if (received == 0) return std::nullopt;
  return from_micros(received);
}

std::int64_t topic::producer_position(const std::string& producer) {
  return state_->readers.ask_once([&](topic_reader& from) { return one_integer(from.producer.bind(1, producer)); });
}

topic_status topic::status() {
  topic_status now = state_->read_status();
  now.name = name_;
  return now;
}

std::int64_t known_topic_format() { return topic_format; }

std::optional<std::string> topic::trouble() const { return state_->queue.trouble(); }

asio::awaitable<void> topic::probe() {
  const auto self = shared_from_this();
  co_await state_->queue.probe();
}

std::shared_ptr<topic::subscription> topic::subscribe(std::function<void(std::int64_t)> listener) {
  return std::make_shared<subscription>(state_->told, std::move(listener));
}

void topic::redefine(config::topic definition) {
  auto changed = std::make_shared<const config::topic>(std::move(definition));
  const std::lock_guard lock(state_->definition_mutex);
  state_->definition = std::move(changed);
}

asio::awaitable<std::int64_t> topic::retain(timestamp now, std::int64_t keep_after) {
  const auto self = shared_from_this();
  state* const s = state_.get();
  std::int64_t removed = 0;
  if (!std::filesystem::exists(s->file)) co_return removed;
  removed_slice done{.events = 0, .more = true};
  while (done.more) {
    auto piece = [s, now, keep_after](sqlite::connection& db) {
      return s->remove_slice(db, now, keep_after);
    };
    try {
      done = co_await s->queue.run(std::move(piece));
    } catch (const commit_queue::closed&) {
      co_return removed;  // the topic was removed meanwhile
    }
    removed += done.events;
  }
  if (!s->used.exchange(false)) s->rest();
  co_return removed;
}

void topic::close() {
  // Readers first: the writer, closing last, folds the write-ahead log into the file.
  state_->readers.close();
  state_->queue.close();
  state_->current.reset();
}

// ---------------------------------------------------------------------------------------------------------------

topics::topics(std::filesystem::path folder, asio::any_io_executor writer_pool, std::shared_ptr<commit_pause> pause)
    : folder_(std::move(folder)), writer_pool_(std::move(writer_pool)), pause_(std::move(pause)) {}

topics::~topics() { close(); }

std::shared_ptr<topic> topics::declare(const config::topic& definition) {
  const std::lock_guard lock(mutex_);
  auto& known = topics_[definition.name];
  if (known) {
    known->redefine(definition);
  } else {
    known = std::make_shared<topic>(definition, folder_ / (definition.name + ".db"), writer_pool_, pause_);
  }
  return known;
}

std::shared_ptr<topic> topics::find(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto found = topics_.find(name);
  return found == topics_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<topic>> topics::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<topic>> list;
  list.reserve(topics_.size());
  for (const auto& [name, one] : topics_) list.push_back(one);
  return list;
}

std::vector<std::string> topics::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> list;
  list.reserve(topics_.size());
  for (const auto& [name, one] : topics_) list.push_back(name);
  return list;
}

void topics::remove(const std::string& name) {
  // Locked to the end: a topic of that name declared meanwhile must not meet the old file.
  const std::lock_guard lock(mutex_);
  const auto found = topics_.find(name);
  if (found == topics_.end()) return;
  found->second->close();
  topics_.erase(found);
  for (const char* const suffix : {".db", ".db-wal", ".db-shm"})
    std::filesystem::remove(folder_ / (name + suffix));
}

void topics::hold_still(const std::function<void()>& act) const {
  const std::lock_guard lock(mutex_);
  act();
}

void topics::close() {
  for (const auto& one : all()) one->close();
}

}  // namespace penstock::runtime
