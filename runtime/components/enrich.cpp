// steps: enrich - adds to each event what a table or a server knows about its key.
//
// The payload keeps its bytes; the found JSON becomes one more field. Tables are files: a CSV file is held in memory, an
// SQLite file is asked with one prepared statement on a connection that cannot write; both are looked at again, at
// most once a second while events flow, and taken anew when they were replaced. A replacement that is broken or
// half written changes nothing: the old table goes on and the log says so once. A server is asked once for each
// key within the time that answers are kept. Each event's fate is its own; but after a crash the same event may find
// another answer, because tables change.
#include <algorithm>
#include <cctype>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <sqlite3.h>

#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/folder_watch.hpp"
#include "runtime/http_client.hpp"
#include "runtime/request_headers.hpp"
#include "runtime/json.hpp"
#include "runtime/json_field.hpp"
#include "runtime/lua.hpp"
#include "runtime/records.hpp"
#include "runtime/sqlite.hpp"

namespace penstock::runtime::components::enrich_step {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds first_pause{200};  // between two attempts at a server; then doubled
constexpr std::chrono::seconds longest_pause{5};
constexpr std::chrono::seconds patience{60};  // with one batch
constexpr std::size_t entry_bytes = 150;  // what an answer in the cache takes beside key and text

config::field look_field() {
  return {.name = "look",
          .type = config::field_type::duration,
          .doc = "Least time between two looks at whether the file was replaced; only while events flow.",
          .fallback = "1s"};
}

config::field csv_fields() {
  using config::field_type;
  return {.name = "csv",
          .type = field_type::object,
          .doc = "A CSV file with a header line, held in memory. Each row is an object of strings.",
          .children = {{.name = "file",
                        .type = field_type::string,
                        .doc = "The file; relative paths start in the pipeline's folder. Replace it by renaming.",
                        .required = true,
                        .example = "countries.csv"},
                       {.name = "column",
                        .type = field_type::string,
                        .doc = "The column that the key is looked up in; without it the first. Of several rows "
                               "with one key the last counts.",
                        .example = "code"},
                       {.name = "delimiter",
                        .type = field_type::choice,
                        .doc = "What stands between two fields.",
                        .fallback = "comma",
                        .choices = {"comma", "semicolon", "tab", "pipe"}},
                       {.name = "max_size",
                        .type = field_type::size,
                        .doc = "A larger file is refused.",
                        .fallback = "64MiB",
                        .minimum = 1},
                       look_field()},
          .shorthand = "file"};
}

config::field sqlite_fields() {
  using config::field_type;
  return {.name = "sqlite",
          .type = field_type::object,
          .doc = "A query on an SQLite file. Its first row becomes an object.",
          .children = {{.name = "file",
                        .type = field_type::string,
                        .doc = "The database; relative paths start in the pipeline's folder. Never written to.",
                        .required = true,
                        .example = "rates.db"},
                       {.name = "query",
                        .type = field_type::string,
                        .doc = "A SELECT with one `?`, which stands for the key (a text).",
                        .required = true,
                        .example = "\"SELECT name, rate FROM rates WHERE code = ?\""},
                       {.name = "timeout",
                        .type = field_type::duration,
                        .doc = "A query that takes longer fails: its event becomes a dead letter.",
                        .fallback = "5s",
                        .minimum = 0.001},
                       look_field()}};
}

config::field http_fields() {
  using config::field_type;
  return {.name = "http",
          .type = field_type::object,
          .doc = "A GET request. 404, 410 and 204 are misses; other answers but 2xx with JSON are failures.",
          .children =
              {{.name = "url",
                .type = field_type::string,
                .doc = "http:// or https://, with {key} where the key goes (percent-encoded); may hold secret "
                       "references. Redirects are not followed.",
                .required = true,
                .example = "\"https://customers.example/v1/{key}\""},
               {.name = "headers",
                .type = field_type::map,
                .doc = "Further request headers; values may hold secret references.",
                .example = "{Authorization: \"Bearer ${env:ALERTS_TOKEN}\"}",
                .children = {{.name = "value", .type = field_type::string, .doc = "The header's value."}}},
               {.name = "cache",
                .type = field_type::duration,
                .doc = "How long an answer is kept, also that there is none; 0s: not at all.",
                .fallback = "10m"},
               {.name = "max_cache",
                .type = field_type::size,
                .doc = "Memory for kept answers; beyond it the oldest are forgotten.",
                .fallback = "16MiB"},
               {.name = "max_answer",
                .type = field_type::size,
                .doc = "A longer answer is a failure.",
                .fallback = "64KiB",
                .minimum = 1},
               {.name = "timeout",
                .type = field_type::duration,
                .doc = "For one request, from connecting to the end of the answer.",
                .fallback = "5s",
                .minimum = 0.001},
               {.name = "attempts",
                .type = field_type::integer,
                .doc = "How often a key is asked for when the server fails (no answer, 408, 429, 5xx); after "
                       "the last its events become dead letters.",
                .fallback = "3",
                .minimum = 1,
                .maximum = 10}},
          .shorthand = "url"};
}

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "enrich",
      .doc = "Looks each event's key up in a CSV file, an SQLite file or at a server, and adds what it finds as a "
             "field. All other bytes of the payload, a JSON object, stay.",
      .settings =
          {.name = "enrich",
           .type = field_type::object,
           .doc = "",
           .children = {{.name = "from",
                         .type = field_type::object,
                         .doc = "Where to look.",
                         .required = true,
                         .example = "{csv: countries.csv}",
                         .children = {csv_fields(), sqlite_fields(), http_fields()},
                         .exactly_one = {"csv", "sqlite", "http"}},
                        {.name = "key",
                         .type = field_type::expression,
                         .doc = "What to look up. nil and the empty text are misses.",
                         .required = true,
                         .example = "event.country"},
                        {.name = "into",
                         .type = field_type::string,
                         .doc = "The field for what was found; one that is there already is replaced.",
                         .required = true,
                         .example = "country"},
                        {.name = "miss",
                         .type = field_type::choice,
                         .doc = "What becomes of an event whose key is not found: pass it on as it is, drop "
                                "it, or make it a dead letter.",
                         .fallback = "pass",
                         .choices = {"pass", "drop", "dead_letter"}}}},
      .examples = {"enrich: {from: {csv: countries.csv}, key: event.country, into: country_facts}",
                   "enrich: {from: {sqlite: {file: rates.db, query: \"SELECT name, rate FROM rates WHERE code = "
                   "?\"}}, key: event.currency, into: rate, miss: dead_letter}",
                   "enrich: {from: {http: {url: \"https://customers.example/v1/{key}\", cache: 10m, timeout: 5s}}, "
                   "key: event.customer, into: customer, miss: drop}"},
  };
}

// ---------------------------------------------------------------------------------------------------------------
// Where to look

struct finding {
  enum class kind { open, hit, miss, failed };
  kind is = kind::open;  // not looked up yet
  std::string text{};    // hit: JSON; failed: why
};
using findings = std::unordered_map<std::string, finding>;  // by key

// On the run's strand, one call at a time.
class lookup {
 public:
  virtual ~lookup() = default;
  virtual asio::awaitable<void> open() = 0;  // throws when nothing can be looked up
  // Leaves none open. Throws when it cannot go on.
  virtual asio::awaitable<void> find(findings& keys) = 0;
};

// A table that is a file: opened once, and again when it is another one.
class file_lookup : public lookup {
 public:
  file_lookup(const config::value& v, const component_context& context)
      : path_(std::filesystem::absolute(context.workdir / v.at("file").get<std::string>())),
        pool_(context.services.blocking),
        label_(context.label()),
        look_(v.at("look").get<std::int64_t>()) {}

  asio::awaitable<void> open() override {
    auto call = [this] { load(); };
    co_await pool_.run(std::move(call));
    looked_ = clock::now();
  }

 protected:
  // Takes the file as it is now, or throws and leaves the old one in use. Blocks.
  virtual void take() = 0;

  // Blocks; called when look_due().
  void look_again() {
    looked_ = clock::now();
    const std::string now = stamp_of(path_);
    if (now == stamp_ || now == refused_) return;
    try {
      load();
      refused_.reset();
    } catch (const std::exception& failure) {
      refused_ = now;
      spdlog::warn("{}: goes on with the old table: {}", label_, failure.what());
    }
  }
  bool look_due() const { return clock::now() - looked_ >= look_; }

  const std::filesystem::path path_;
  blocking_pool& pool_;

 private:
  void load() {
    const std::string before = stamp_of(path_);
    if (before.empty()) throw std::runtime_error(path_.string() + ": there is no such file");
    take();
    stamp_ = before;
  }

  const std::string label_;
  const std::chrono::nanoseconds look_;
  clock::time_point looked_{};
  std::string stamp_{};    // of the file in use
  std::optional<std::string> refused_{};  // of the last one, when it could not be used
};

class csv_lookup final : public file_lookup {
 public:
  csv_lookup(const config::value& v, const component_context& context)
      : file_lookup(v, context),
        column_(v.value("column", "")),
        delimiter_(delimiter_of(v.at("delimiter").get<std::string>())),
        max_size_(v.at("max_size").get<std::size_t>()) {}

  asio::awaitable<void> find(findings& keys) override {
    if (look_due()) {
      auto call = [this] { look_again(); };
      co_await pool_.run(std::move(call));
    }
    for (auto& [key, found] : keys) {
      const auto row = rows_.find(key);
      if (row == rows_.end())
        found.is = finding::kind::miss;
      else
        found = {finding::kind::hit, row->second};
    }
  }

 private:
  void take() override;
  std::string text() const;
  [[noreturn]] void refuse(const std::string& why) const { throw std::runtime_error(path_.string() + ": " + why); }

  const std::string column_;  // empty: the first
  const char delimiter_;
  const std::size_t max_size_;
  std::unordered_map<std::string, std::string> rows_;  // key: JSON object
};

std::string csv_lookup::text() const {
  const std::string before = stamp_of(path_);
  const std::uintmax_t size = std::filesystem::file_size(path_);
  if (size > max_size_) refuse("it is larger than max_size, " + format_size(static_cast<std::int64_t>(max_size_)));
  std::ifstream in(path_, std::ios::binary);
  std::string bytes(size, '\0');
  if (!in.read(bytes.data(), static_cast<std::streamsize>(size))) refuse("it cannot be read to its end");
  if (stamp_of(path_) != before) refuse("it changed while it was read");
  return bytes;
}

void csv_lookup::take() {
  const std::string bytes = text();
  std::string_view rest = bytes;
  if (rest.starts_with(byte_order_mark)) rest.remove_prefix(byte_order_mark.size());
  csv_reader reader(delimiter_);
  if (rest.empty()) refuse("it is empty; a header line is needed");
  rest.remove_prefix(reader.next(rest, true).taken);
  const std::vector<std::string> names = reader.fields;
  const csv_columns columns(names);
  const auto found = std::find(names.begin(), names.end(), column_);
  if (!column_.empty() && found == names.end()) refuse("it has no column '" + column_ + "'");
  const auto key = column_.empty() ? 0 : static_cast<std::size_t>(found - names.begin());

  std::unordered_map<std::string, std::string> rows;
  while (!rest.empty()) {
    const record row = reader.next(rest, true);
    if (!row.closed) refuse("a quote is never closed");
    rest.remove_prefix(row.taken);
    if (row.text.empty() || reader.fields.size() <= key) continue;
    std::string& object = rows[reader.fields[key]];
    object.clear();
    columns.append_object(object, reader.fields);
  }
  rows_ = std::move(rows);
}

// Without the tables only SQLite's grammar can be asked.
void check_syntax(const std::string& query) {
  const sqlite::connection nothing(":memory:", sqlite::open_mode::read_write_create);
  sqlite3_stmt* made = nullptr;
  const int code = sqlite3_prepare_v2(nothing.handle(), query.c_str(), -1, &made, nullptr);
  const std::string wrong = code == SQLITE_OK ? "" : sqlite3_errmsg(nothing.handle());
  sqlite3_finalize(made);
  const bool grammar = wrong.ends_with("syntax error") || wrong.starts_with("unrecognized token") || wrong == "incomplete input";
  if (grammar) throw std::runtime_error("query '" + query + "': " + wrong);
  const std::size_t begin = query.find_first_not_of(" \t\r\n");
  std::string word = query.substr(std::min(begin, query.size()), 6);
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::toupper(c); });
  const bool reads = word == "SELECT" || word.starts_with("WITH") || word == "VALUES" || word.starts_with("--") || word.starts_with("/*");
  if (!reads || query.find_first_of("?:@$") == query.npos)
    throw std::runtime_error("query '" + query + "' must be a SELECT with one ?");
}

class sqlite_lookup final : public file_lookup {
 public:
  sqlite_lookup(const config::value& v, const component_context& context)
      : file_lookup(v, context),
        query_(v.at("query").get<std::string>()),
        timeout_(v.at("timeout").get<std::int64_t>()) {}

  asio::awaitable<void> find(findings& keys) override {
    auto call = [this, &keys] {
      if (look_due()) look_again();
      for (auto& [key, found] : keys) found = ask(key);
    };
    co_await pool_.run(std::move(call));
  }

 private:
  struct table {
    sqlite::connection db;
    sqlite::statement query;
    clock::time_point deadline{};
  };

  void take() override {
    auto fresh = std::make_unique<table>();
    fresh->db = sqlite::connection(path_, sqlite::open_mode::read_only);
    fresh->query = sqlite::statement(fresh->db, query_);
    sqlite3_stmt* const query = fresh->query.handle();
    if (!query || sqlite3_column_count(query) == 0 || sqlite3_stmt_readonly(query) == 0 ||
        sqlite3_bind_parameter_count(query) != 1) {
      throw std::runtime_error("query '" + query_ + "' must be a SELECT with one ?");
    }
    const auto too_late = [](void* t) { return clock::now() > static_cast<table*>(t)->deadline ? 1 : 0; };
    sqlite3_progress_handler(fresh->db.handle(), 10'000, too_late, fresh.get());
    table_ = std::move(fresh);
  }

  finding ask(const std::string& key) {
    sqlite::statement& query = table_->query;
    table_->deadline = clock::now() + timeout_;
    try {
      query.bind(1, std::string_view(key));
      if (!query.step()) return {finding::kind::miss, {}};
      std::string object = row_object();
      query.reset();
      return {finding::kind::hit, std::move(object)};
    } catch (const sqlite::failure& failure) {
      query.reset();
      const int primary = failure.code() & 0xff;
      if (primary == SQLITE_INTERRUPT) return {finding::kind::failed, "the query took longer than its timeout"};
      // The query and the key do not fit (a function's error); all else is the database's trouble.
      if (primary == SQLITE_ERROR || primary == SQLITE_MISMATCH || primary == SQLITE_TOOBIG)
        return {finding::kind::failed, failure.what()};
      throw;
    }
  }

  std::string row_object() const {
    const sqlite::statement& row = table_->query;
    sqlite3_stmt* const handle = row.handle();
    std::string object = "{";
    for (int i = 0; i < sqlite3_column_count(handle); ++i) {
      if (i > 0) object += ',';
      append_json_string(object, sqlite3_column_name(handle, i));
      object += ':';
      switch (sqlite3_column_type(handle, i)) {
        case SQLITE_INTEGER:
          object += std::to_string(row.integer(i));
          break;
        case SQLITE_FLOAT:
          object += nlohmann::json(row.real(i)).dump();  // infinities become null
          break;
        case SQLITE_NULL:
          object += "null";
          break;
        default:
          append_json_string(object, row.text(i));
      }
    }
    return object + "}";
  }

  const std::string query_;
  const std::chrono::nanoseconds timeout_;
  std::unique_ptr<table> table_;
};

// Answers of a server: oldest first, bounded by age and memory.
class answer_cache {
 public:
  answer_cache(std::chrono::nanoseconds age, std::size_t bytes) : age_(age), most_(bytes) {}

  const finding* find(const std::string& key) {
    while (!order_.empty() && order_.front().second <= clock::now()) forget_oldest();
    const auto known = answers_.find(key);
    return known == answers_.end() ? nullptr : &known->second;
  }

  void add(const std::string& key, const finding& answer) {
    if (age_.count() == 0 || !answers_.emplace(key, answer).second) return;
    order_.emplace_back(key, clock::now() + age_);
    bytes_ += cost(key, answer);
    while (bytes_ > most_) forget_oldest();
  }

 private:
  static std::size_t cost(const std::string& key, const finding& answer) {
    return entry_bytes + 2 * key.size() + answer.text.size();
  }
  void forget_oldest() {
    const auto oldest = answers_.find(order_.front().first);
    bytes_ -= cost(oldest->first, oldest->second);
    answers_.erase(oldest);
    order_.pop_front();
  }

  const std::chrono::nanoseconds age_;
  const std::size_t most_;
  std::unordered_map<std::string, finding> answers_;
  std::deque<std::pair<std::string, clock::time_point>> order_;  // and when it is too old
  std::size_t bytes_ = 0;
};

// What stands before and behind the key. Throws when it has no place in the URL.
std::pair<std::string, std::string> around_key(const std::string& url, const std::string& shown) {
  constexpr std::string_view mark = "{key}";
  const std::size_t key = url.find(mark);
  if (key == url.npos) throw std::runtime_error("url '" + shown + "' must hold {key}");
  return {url.substr(0, key), url.substr(key + mark.size())};
}

class http_lookup final : public lookup {
 public:
  http_lookup(const config::value& v, const component_context& context)
      : pool_(context.services.blocking),
        executor_(context.executor),
        attempts_(v.at("attempts").get<int>()),
        cache_(std::chrono::nanoseconds{v.at("cache").get<std::int64_t>()}, v.at("max_cache").get<std::size_t>()) {
    const auto written = v.at("url").get<std::string>();
    request_.shown = without_query(written);
    const std::string url = context.reveal(written);
    std::tie(before_key_, after_key_) = around_key(url, request_.shown);
    require_http_url(before_key_ + "key" + after_key_, request_.shown);
    request_.headers = read_header_lines(v, context);
    request_.timeout = std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::nanoseconds{v.at("timeout").get<std::int64_t>()});
    request_.most_bytes = v.at("max_answer").get<std::size_t>();
  }

  asio::awaitable<void> open() override { co_return; }

  // In rounds. One ends early when no answer comes at all, so that a server that hangs costs one timeout a round; the
  // key that was asked for then is asked for last in the next, so that it cannot hold up the others. Each key has so many
  // attempts; where some were never asked for when patience ends, the server is down, and the events are held.
  asio::awaitable<void> find(findings& keys) override {
    round r;
    for (auto& [key, found] : keys) {
      if (const finding* known = cache_.find(key))
        found = *known;
      else
        r.left.push_back(&key);
    }
    asio::steady_timer pause(executor_);
    const auto patience_ends = std::chrono::steady_clock::now() + patience;
    for (int attempt = 1;; ++attempt) {
      auto call = [this, &r, &keys] { ask_all(r, keys); };
      co_await pool_.run(std::move(call));
      const bool over = std::chrono::steady_clock::now() >= patience_ends;
      std::erase_if(r.left, [&](const std::string* key) {
        const int asked = r.asked[key];
        if (over && asked == 0) throw std::runtime_error(r.failure);
        if (asked < attempts_ && !over) return false;
        keys[*key] = {finding::kind::failed, r.failure};
        return true;
      });
      if (r.left.empty()) break;
      pause.expires_after(pause_after(std::min(attempt, attempts_), r.asked_for));
      co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    }
    for (const auto& [key, found] : keys) {
      if (found.is != finding::kind::failed) cache_.add(key, found);
    }
  }

 private:
  struct round {
    std::deque<const std::string*> left{};  // not answered
    std::map<const std::string*, int> asked{};
    std::string failure{};                  // the last one
    std::chrono::nanoseconds asked_for{};   // by Retry-After
  };

  static std::chrono::nanoseconds pause_after(int attempt, std::chrono::nanoseconds asked_for) {
    return std::min<std::chrono::nanoseconds>(
        longest_pause, std::max<std::chrono::nanoseconds>(asked_for, first_pause * (1 << (attempt - 1))));
  }

  // Blocks.
  void ask_all(round& r, findings& keys) {
    if (!client_) client_ = std::make_unique<http_client>();
    r.asked_for = {};
    for (std::size_t open = r.left.size(); open > 0; --open) {
      const std::string* const key = r.left.front();
      r.left.pop_front();
      ++r.asked[key];
      http_answer answer;
      try {
        request_.url = before_key_ + percent_encoded(*key) + after_key_;
        answer = client_->send(request_);
      } catch (const std::exception& nothing) {
        r.failure = nothing.what();
        r.left.push_back(key);
        return;
      }
      if (answer.temporary()) {
        r.failure = request_.shown + ": " + answer.in_words();
        r.asked_for = std::max(r.asked_for, retry_after(answer.retry_after, wall_now()).value_or(r.asked_for));
        r.left.push_back(key);
      } else {
        keys[*key] = judge(std::move(answer));
      }
    }
  }

  finding judge(http_answer answer) const {
    if (answer.status == 404 || answer.status == 410 || answer.status == 204) return {finding::kind::miss, {}};
    const auto failed = [this](const std::string& why) {
      return finding{finding::kind::failed, request_.shown + ": " + why};
    };
    if (!answer.taken()) return failed(answer.in_words());
    if (answer.cut) {
      return failed("the answer is longer than max_answer, " +
                    format_size(static_cast<std::int64_t>(request_.most_bytes)));
    }
    const buffer body(std::move(answer.body));
    const std::string wrong = check_json(body.text());
    if (!wrong.empty()) return failed("the answer is " + wrong);
    return {finding::kind::hit, std::string(body.text())};
  }

  blocking_pool& pool_;
  const asio::any_io_executor executor_;
  const int attempts_;
  answer_cache cache_;
  http_request request_{};  // its url: of the key asked for last
  std::string before_key_, after_key_;
  std::unique_ptr<http_client> client_;  // made with the first request: an idle step costs nothing
};

std::unique_ptr<lookup> make_lookup(const config::value& from, const component_context& context) {
  if (from.contains("csv")) return std::make_unique<csv_lookup>(from.at("csv"), context);
  if (from.contains("sqlite")) return std::make_unique<sqlite_lookup>(from.at("sqlite"), context);
  return std::make_unique<http_lookup>(from.at("http"), context);
}

// What can be said of the settings without the files and secrets that they name.
void check(const config::value& v) {
  const config::value& from = v.at("from");
  if (from.contains("sqlite")) check_syntax(from.at("sqlite").at("query").get<std::string>());
  if (!from.contains("http")) return;
  check_request_headers(from.at("http"));
  const auto url = from.at("http").at("url").get<std::string>();
  if (url.find("${") != url.npos) return require_http_url(url);  // the key may have its place in a secret
  const auto [before, after] = around_key(url, url);
  require_http_url(before + "key" + after, url);
}

// ---------------------------------------------------------------------------------------------------------------

enum class on_miss { pass, drop, dead_letter };

class enrich_step final : public step {
 public:
  enrich_step(const config::value& v, const component_context& context)
      : key_(v.at("key").get<std::string>(), context.run_context.get()),
        into_(v.at("into").get<std::string>()),
        miss_(v.at("miss") == "drop"          ? on_miss::drop
              : v.at("miss") == "dead_letter" ? on_miss::dead_letter
                                              : on_miss::pass),
        lookup_(make_lookup(v.at("from"), context)) {}

  bool stateless() const override { return true; }
  bool waits() const override { return true; }
  void process(batch&, step_output&) override { throw std::logic_error("enrich waits: process_waiting()"); }

  asio::awaitable<void> open() override { co_await lookup_->open(); }

  asio::awaitable<void> process_waiting(batch& events, step_output& out) override {
    std::vector<lua_outcome<std::string>> keys;
    findings found;
    for (const event& e : events.events) {
      keys.push_back(key_.text_of(e));
      if (keys.back().failure.empty() && !keys.back().value.empty()) found.try_emplace(keys.back().value);
    }
    if (!found.empty()) co_await lookup_->find(found);
    std::size_t i = 0, kept = 0;
    for (event& e : events.events) {
      if (keep(events, e, keys[i++], found, out)) events.events[kept++] = e;
    }
    events.events.resize(kept);
  }

 private:
  // Adds the field; false: the event does not go on.
  bool keep(batch& events, event& e, lua_outcome<std::string>& key, const findings& all, step_output& out) const {
    const auto dies = [&](std::string reason) {
      out.dead(e, std::move(reason));
      return false;
    };
    if (!key.failure.empty()) return dies(std::move(key.failure));
    const auto found = all.find(key.value);
    if (found != all.end() && found->second.is == finding::kind::failed) return dies(found->second.text);
    if (found == all.end() || found->second.is == finding::kind::miss) {
      if (miss_ != on_miss::dead_letter) return miss_ == on_miss::pass;
      return dies(key.value.empty() ? "there is no key" : "nothing found for key '" + key.value + "'");
    }
    if (!e.is_json()) return dies("the payload is not JSON");
    std::string made;
    if (std::string wrong = append_with_field(made, e.data, into_, found->second.text); !wrong.empty())
      return dies(std::move(wrong));
    e.data = events.keep(made);
    return true;
  }

  const lua_expression key_;
  const std::string into_;
  const on_miss miss_;
  const std::unique_ptr<lookup> lookup_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), check), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<enrich_step>(settings, context);
        }));
}

}  // namespace penstock::runtime::components::enrich_step
