#include "runtime/topic_readers.hpp"

namespace penstock::runtime {

namespace {

constexpr int most_readers = 2;

}  // namespace

topic_reader::topic_reader(sqlite::connection opened)
    : db(std::move(opened)),
      events(db,
             "SELECT offset, received, time, id, type, source, subject, datacontenttype, key, data FROM events "
             "WHERE offset > ?1 AND offset <= ?2 ORDER BY offset LIMIT ?3"),
      received(db, "SELECT received FROM events WHERE offset >= ?1 ORDER BY offset LIMIT 1"),
      last(db, select_last_offset),
      producer(db, "SELECT position FROM producers WHERE name = ?1"),
      summary(db,
              "SELECT (SELECT min(offset) FROM events), duplicates, "
              "max(last_offset, coalesce((SELECT max(offset) FROM events), 0)), "
              "((SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)) * "
              "(SELECT page_size FROM pragma_page_size) "
              "FROM counters") {}

topic_readers::topic_readers(std::filesystem::path file) : file_(std::move(file)) {}

std::unique_ptr<topic_reader> topic_readers::open(sqlite::open_mode mode) const {
  if (!std::filesystem::exists(file_)) return nullptr;
  sqlite::connection db(file_, mode);
  db.leave_log();  // the next writer folds it: after a crash, a look at each of thousands of topics would be a fold of each
  if (sqlite::schema_version(db) == 0) return nullptr;
  sqlite::require_known_schema(db, topic_format);
  db.execute(topic_cache_size);
  return std::make_unique<topic_reader>(std::move(db));
}

void topic_readers::hold(bool held) {
  std::unique_lock lock(mutex_);
  held_ = held;
  if (!held) return returned_.notify_all();
  returned_.wait(lock, [this] { return none_lent(); });
}

bool topic_readers::has_log() const {
  return std::filesystem::exists(file_.string() + "-wal") || std::filesystem::exists(file_.string() + "-journal");
}

void topic_readers::rest() {
  const std::lock_guard lock(mutex_);
  open_ -= static_cast<int>(idle_.size());
  idle_.clear();
}

void topic_readers::close() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  returned_.notify_all();
  returned_.wait(lock, [this] { return none_lent(); });
  idle_.clear();
  open_ = 0;
}

topic_readers::lease::lease(topic_readers& owner, after_use after) : owner_(owner) {
  std::unique_lock lock(owner_.mutex_);
  owner_.returned_.wait(lock, [this] {
    if (owner_.closed_) return true;
    return !owner_.held_ && (!owner_.idle_.empty() || owner_.open_ < most_readers);
  });
  if (owner_.closed_) return;
  if (!owner_.idle_.empty()) {
    taken_ = std::move(owner_.idle_.back());
    owner_.idle_.pop_back();
    return;
  }
  ++owner_.open_;
  lock.unlock();
  try {
    taken_ = owner_.open(sqlite::open_mode::read_only);
  } catch (...) {
    give_up();
    throw;
  }
  if (!taken_) give_up();
  close_after_ = after == after_use::close_if_new;
}

topic_readers::lease::~lease() {
  if (!taken_) return;
  if (close_after_) {
    taken_.reset();
    give_up();
    return;
  }
  taken_->events.reset();  // a read that stopped early must not hold on to its snapshot
  const std::lock_guard lock(owner_.mutex_);
  owner_.idle_.push_back(std::move(taken_));
  owner_.returned_.notify_all();
}

void topic_readers::lease::give_up() {
  const std::lock_guard lock(owner_.mutex_);
  --owner_.open_;
  owner_.returned_.notify_all();
}

}  // namespace penstock::runtime
