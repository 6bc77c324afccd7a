// The commands of the operator's client, one function each. Main thread; each returns the exit code.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "daemon/cli_client.hpp"

namespace penstock::cli {

enum exit_code : int {
  exit_ok = 0,
  exit_no = 1,           // it worked, and the answer is no: the run failed, the file is not valid, something would change
  exit_usage = 2,        // wrong arguments, or a file or folder of the command line that cannot be used
  exit_unreachable = 3,  // no answer from the daemon, or it stopped in the middle
  exit_refused = 4,      // the daemon will not, or knows no such name, or the definition to store is not valid
  exit_interrupted = 130,  // Ctrl-C, as shells say it
};

// Thrown by what takes pieces of a stream: it has what it wanted.
struct enough {};

// The whole text; - is stdin. Throws usage_error.
std::string read_file(const std::string& file);

struct surroundings {
  client& daemon;
  std::ostream& out;
  std::ostream& err;
  bool json = false;  // print the REST documents as they are
};

// Offline: every problem of every file, one line each; warnings go to `err` and leave the file valid.
int validate(const std::vector<std::string>& files, std::ostream& out, std::ostream& err, bool json);

// JSON Schema of definitions, for editors. Offline.
int schema(std::ostream& out);

// The files themselves, and all definition files below those that are folders, by name. Throws usage_error when a folder
// has none.
std::vector<std::string> definition_files(const std::vector<std::string>& given);
struct apply_options {
  std::vector<std::string> files{};
  bool dry_run = false;
  bool wait = false;  // until the flows are up; exit_no: one of them is not
};
int apply(const surroundings& with, const apply_options& options);
// exit_ok: nothing would change; exit_no: something would. `firings`: how many of each schedule are shown.
int plan(const surroundings& with, const std::vector<std::string>& files, int firings);

int get_pipelines(const surroundings& with);
int get_pipeline(const surroundings& with, const std::string& name, const std::string& format);  // "", "yaml" or "json"
int get_revisions(const surroundings& with, const std::string& name, int number);  // 0: the list
struct events_options {
  std::string topic{}, after{};
  int limit = 0;  // 0: the usual page, or when followed no end
  bool follow = false;
};
int get_events(const surroundings& with, const events_options& which);
int delete_pipeline(const surroundings& with, const std::string& name, bool yes);
int pause_or_resume(const surroundings& with, const std::string& name, bool pause);
int rollback(const surroundings& with, const std::string& name, int revision, bool dry_run);  // 0: the one before
int flows(const surroundings& with, const std::string& pipeline);                             // empty: of all
struct flow_options {
  std::string verb;  // show, start, stop or restart
  std::string pipeline{}, flow{};
  bool emit = false;
};
int flow_verb(const surroundings& with, const flow_options& which);
struct tap_options {
  std::string pipeline{}, flow{}, after{}, where{};
  int rate = 0, limit = 0;  // 0: the daemon's, no end
};
int tap(const surroundings& with, const tap_options& which);
struct changes_options {
  std::string pipeline{}, kind{}, after{};
  int limit = 0;  // 0: no end
};
int changes(const surroundings& with, const changes_options& which);

struct status_options {
  bool watch = false;
  double every = 2;  // seconds
};
// exit_no: something needs looking after.
int status(const surroundings& with, const status_options& options);

struct backup_options {
  std::string to{};
  bool logs = false, no_wait = false;
};
int backup(const surroundings& with, const backup_options& options);

struct trigger_options {
  std::string pipeline, job;
  std::vector<std::string> params{};  // NAME=VALUE
  std::string events{};               // file, or - for stdin; empty: none
  std::string idempotency_key{};
  bool wait = false;
};
int trigger(const surroundings& with, const trigger_options& options);

struct runs_options {
  std::string pipeline{}, job{}, state{}, since{}, until{}, cursor{};
  int limit = 20;
};
int runs(const surroundings& with, const runs_options& options);
int show_one_run(const surroundings& with, const std::string& id);
int cancel(const surroundings& with, const std::string& id);
int retry(const surroundings& with, const std::string& id, bool from_start, bool wait);

struct backfill_options {
  std::string pipeline, job;
  std::string from, to;
  std::vector<std::string> params{};  // NAME=VALUE
  bool again = false;
  bool dry_run = false;
  bool wait = false;
};
int backfill(const surroundings& with, const backfill_options& options);
int logs(const surroundings& with, const std::string& id, const std::string& task, bool follow);

int topics(const surroundings& with, const std::string& name);  // empty: all
int publish(const surroundings& with, const std::string& topic, const std::string& file);

int dead_letters(const surroundings& with, const std::string& pipeline, int limit, const std::string& cursor);
enum class settle { replay, discard };
struct settle_options {
  std::vector<std::string> ids{};  // empty: all, of `pipeline` when that is not empty
  std::string pipeline{};
  bool all = false;
};
int settle_dead_letters(const surroundings& with, settle how, const settle_options& which);

}  // namespace penstock::cli
