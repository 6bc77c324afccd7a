#include "daemon/cli_tokens.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>
#include <set>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <nlohmann/json.hpp>

#include "api/resource_text.hpp"
#include "config/time.hpp"
#include "daemon/cli_ask.hpp"
#include "runtime/unique_fd.hpp"
#include "scheduler/audit_desk.hpp"
#include "scheduler/store.hpp"
#include "scheduler/token_book.hpp"

namespace penstock::cli {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;

// ---- without a daemon ----

// Has been one's data folder, or can become it.
bool is_for_a_daemon(const fs::path& folder) {
  if (fs::exists(folder / "state.db")) return true;
  static const std::set<fs::path> of_a_daemon{"lost+found", "lock", "listen", "secrets", "topics", "flows.db", "flows.db-wal", "flows.db-shm",
                                              "logs", "work", "tmp", scheduler::token_book::mark_name};
  return std::all_of(fs::directory_iterator(folder), {}, [](const fs::directory_entry& entry) {
    return of_a_daemon.contains(entry.path().filename());
  });
}

// The data folder of a daemon that is down: held by its lock, so that none starts meanwhile.
class offline_folder {
 public:
  explicit offline_folder(const fs::path& data) : data_(data) {
    if (!fs::is_directory(data)) throw usage_error("there is no folder " + data.string() + "; one that a daemon is going to use must be made first");
    if (!is_for_a_daemon(data)) throw usage_error(data.string() + " is no data folder of a daemon: it holds other things, and no state.db");
    const fs::path file = data / "lock";
    lock_ = runtime::unique_fd(::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    if (lock_.get() < 0) throw usage_error("data folder " + data.string() + " cannot be written to");
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
      throw usage_error("a daemon works in the data folder " + data.string() + ": ask it, without --data");
    }
    store_ = std::make_unique<scheduler::store>(data / "state.db", thread_.get_executor());
    tokens_ = std::make_unique<scheduler::token_book>(*store_, scheduler::token_rule::automatic, data / scheduler::token_book::mark_name);
  }

  ~offline_folder() {
    tokens_.reset();
    store_.reset();
    give_to_owner();
  }
  offline_folder(const offline_folder&) = delete;
  offline_folder& operator=(const offline_folder&) = delete;

  scheduler::token_book& tokens() { return *tokens_; }

  template <class T>
  T wait_for(asio::awaitable<T> work) {
    auto done = asio::co_spawn(io_, std::move(work), asio::use_future);
    io_.restart();
    io_.run();
    return done.get();
  }

  void write_down(std::string what) {
    scheduler::audit_desk desk(io_.get_executor(), *store_, {});
    wait_for(desk.add({.who = "offline", .target = "penstock token --data", .outcome = "done", .detail = std::move(what)}));
  }

 private:
  // What root has made here must stay within reach of the daemon, whose folder this is.
  void give_to_owner() const {
    struct stat folder{};
    if (::geteuid() != 0 || ::stat(data_.c_str(), &folder) != 0) return;
    for (const char* name : {"lock", "state.db", "state.db-wal", "state.db-shm", scheduler::token_book::mark_name}) {
      const fs::path file = data_ / name;
      struct stat now{};
      if (::lstat(file.c_str(), &now) != 0 || now.st_uid == folder.st_uid) continue;
      if (::lchown(file.c_str(), folder.st_uid, folder.st_gid) != 0) std::cerr << "penstock: " << file << " stays root's: the daemon may not be able to use it\n";
    }
  }

  const fs::path data_;
  runtime::unique_fd lock_;
  asio::io_context io_;
  asio::thread_pool thread_{1};
  std::unique_ptr<scheduler::store> store_;
  std::unique_ptr<scheduler::token_book> tokens_;
};

template <class T>
T value_or_usage(result<T> r) {
  if (!r) throw usage_error(r.error().detail);
  return *std::move(r);
}

scheduler::token_record wish_of(const token_options& options) {
  scheduler::token_record wish;
  wish.name = options.name;
  wish.roles = value_or_usage(scheduler::parse_roles(options.roles));
  wish.pipelines = options.pipelines;
  if (!options.expires_in.empty()) {
    const auto length = parse_duration(options.expires_in);
    if (!length) throw usage_error("--expires-in " + options.expires_in + ": expected a duration such as 90d");
    wish.expires_at = wall_now() + std::chrono::duration_cast<std::chrono::microseconds>(*length);
  }
  if (options.rate > 0) wish.rate = scheduler::request_rate{options.rate, options.burst > 0 ? options.burst : std::max(1, static_cast<int>(options.rate))};
  return wish;
}

document shown(const scheduler::token_record& t) {
  document d{{"id", t.id}, {"name", t.name}, {"state", token(state_of(t, wall_now()))}, {"roles", t.roles.names()}, {"pipelines", t.pipelines}};
  d["created_at"] = format_time(t.created_at);
  d["expires_at"] = t.expires_at ? document(format_time(*t.expires_at)) : document(nullptr);
  d["last_used_at"] = t.last_used_at ? document(format_time(*t.last_used_at)) : document(nullptr);
  return d;
}

document create_offline(const token_options& options) {
  auto wish = wish_of(options);
  offline_folder folder(options.data);
  const auto made = value_or_usage(folder.wait_for(folder.tokens().create(std::move(wish), false)));
  folder.write_down("token " + made.record.id + " (" + made.record.name + ") made");
  document d = shown(made.record);
  d["token"] = made.text;
  return d;
}

// ---- with one ----

// Such a token may make the pipeline, so it is good for something; more likely the name is misspelt.
void warn_of_unknown(const surroundings& with, const std::vector<std::string>& pipelines) {
  for (const std::string& name : pipelines) {
    if (with.daemon.send({.path = pipeline_path(name)}).status != 404) continue;
    with.err << "penstock: there is no pipeline '" << name << "' yet: the token is good for nothing else\n";
  }
}

document create_online(const surroundings& with, const token_options& options) {
  document body{{"name", options.name}, {"roles", options.roles}};
  if (!options.pipelines.empty()) body["pipelines"] = options.pipelines;
  if (!options.expires_in.empty()) body["expires_in"] = options.expires_in;
  if (options.rate > 0) body["rate"] = document{{"per_second", options.rate}};
  if (options.rate > 0 && options.burst > 0) body["rate"]["burst"] = options.burst;
  return ask(with, {.method = "POST", .path = "/v1/tokens", .body = body.dump(), .headers = {"Content-Type: application/json"}});
}

std::string words_of(const document& object, const char* member, const char* none) {
  std::string text;
  for (const document& one : object.value(member, document::array())) text.append(text.empty() ? "" : ",").append(one.get<std::string>());
  return text.empty() ? none : text;
}

// What is asked of a folder can fail in many ways, and each is about the folder that was named.
template <class Work>
document offline(const std::string& data, Work work) {
  try {
    return work();
  } catch (const std::system_error& broken) {
    throw usage_error("the data folder " + data + " cannot be used: " + broken.code().message());
  } catch (const usage_error&) {
    throw;
  } catch (const std::exception& broken) {
    throw usage_error("the data folder " + data + " cannot be used: " + broken.what());
  }
}

document list_offline(const std::string& data) {
  offline_folder folder(data);
  document all = document::array();
  for (const auto& one : folder.tokens().list()) all.push_back(shown(one));
  return {{"items", std::move(all)}};
}

}  // namespace

int create_token(const surroundings& with, const token_options& options) {
  return guarded(with, [&] {
    const document made = options.data.empty() ? create_online(with, options) : offline(options.data, [&] { return create_offline(options); });
    if (options.data.empty()) warn_of_unknown(with, options.pipelines);
    if (with.json) {
      with.out << made.dump(2) << '\n';
      return exit_ok;
    }
    with.out << made.at("token").get<std::string>() << '\n';
    with.err << "token " << word(made, "id") << " for " << word(made, "name") << ": " << words_of(made, "roles", "-") << " in "
             << words_of(made, "pipelines", "all pipelines") << ", expires " << word(made, "expires_at")
             << ". It is shown only now: keep it in a file, and give that to --token-file or put it into PENSTOCK_TOKEN.\n";
    return exit_ok;
  });
}

int list_tokens(const surroundings& with, const token_options& options) {
  return guarded(with, [&] {
    const document list = options.data.empty() ? ask_all(with, "/v1/tokens") : offline(options.data, [&] { return list_offline(options.data); });
    if (with.json) {
      with.out << list.dump(2) << '\n';
      return exit_ok;
    }
    with.out << api::tokens_text(list);
    return exit_ok;
  });
}

int revoke_token(const surroundings& with, const token_options& options) {
  const auto whole = scheduler::parse_token(options.id);  // given instead of its id
  const std::string id = whole ? std::string(whole->id) : options.id;
  return guarded(with, [&] {
    if (options.data.empty()) {
      ask(with, {.method = "DELETE", .path = "/v1/tokens/" + encode(id)});
    } else {
      offline(options.data, [&] {
        offline_folder folder(options.data);
        value_or_usage(folder.wait_for(folder.tokens().revoke(id, true)));
        folder.write_down("token " + id + " revoked");
        return document();
      });
    }
    with.err << "token " << id << " is revoked\n";
    return exit_ok;
  });
}

int show_caller(const surroundings& with) {
  return guarded(with, [&] {
    const document me = ask(with, {.path = "/v1/token"});
    if (with.json) {
      with.out << me.dump(2) << '\n';
      return exit_ok;
    }
    if (!me.at("token").is_object()) {
      with.out << (word(me, "who") == "socket" ? "let in by the socket's file, as admin\n" : "nobody is asked for a token\n");
      return exit_ok;
    }
    const document& t = me.at("token");
    with.out << "token " << word(t, "id") << " for " << word(t, "name") << ": " << words_of(t, "roles", "-") << " in "
             << words_of(t, "pipelines", "all pipelines") << ", expires " << word(t, "expires_at") << '\n';
    return exit_ok;
  });
}

namespace {

// A filter that matches nothing may name what is not there: then the refusal says so.
void check_names(const surroundings& with, const audit_options& options) {
  if (!options.pipeline.empty()) ask(with, {.path = pipeline_path(options.pipeline)});
  if (options.token.empty()) return;
  const document all = ask_all(with, "/v1/tokens");
  std::string alike;
  for (const document& one : items_of(all)) {
    if (word(one, "id") == options.token) return;
    if (word(one, "name") == options.token) alike += (alike.empty() ? "" : ", ") + word(one, "id");
  }
  throw not_found("there is no token " + options.token + (alike.empty() ? "" : "; a token of that name has the id " + alike));
}

}  // namespace

int audit(const surroundings& with, const audit_options& options) {
  return guarded(with, [&] {
    const document list = ask(with, {.path = "/v1/audit" + query({{"token", options.token},
                                                                  {"pipeline", options.pipeline},
                                                                  {"outcome", options.outcome},
                                                                  {"since", options.since},
                                                                  {"until", options.until},
                                                                  {"cursor", options.cursor},
                                                                  {"limit", std::to_string(options.limit)}})});
    if (items_of(list).empty()) check_names(with, options);
    if (with.json) {
      with.out << list.dump(2) << '\n';
      return exit_ok;
    }
    with.out << api::audit_text(list, api::asked_by::option);
    return exit_ok;
  });
}

std::string token_from(const std::string& file, const std::function<void(const std::string&)>& warn) {
  std::string text;
  if (!file.empty()) {
    text = read_file(file);
    struct stat kept {};
    const bool shared = file != "-" && ::stat(file.c_str(), &kept) == 0 && S_ISREG(kept.st_mode) && (kept.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    if (shared) warn("others on this machine can get at the token in " + file + ": chmod 600 " + file);
  } else if (const char* given = std::getenv("PENSTOCK_TOKEN")) {  // NOLINT(concurrency-mt-unsafe): one thread
    text = given;
  }
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  while (!text.empty() && is_space(text.back())) text.pop_back();
  if (!file.empty() && text.empty()) throw usage_error("there is no token in " + file);
  // Perhaps a proxy's and not one of ours; but it must fit on one line of a header.
  const bool fits = std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (!fits) throw usage_error(std::string(file.empty() ? "PENSTOCK_TOKEN" : file) + " is not a token: one looks like pst_ID_SECRET");
  return text;
}

}  // namespace penstock::cli
