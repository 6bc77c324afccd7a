// Tokens and the audit log in state.db: the statements, for those who write (store thread) and those who look (control
// thread). Owned by store, beside store_writer and store_reader; rules and decisions are in token.hpp.
#pragma once

#include <string>
#include <vector>

#include "runtime/sqlite.hpp"
#include "scheduler/store.hpp"

namespace penstock::scheduler {

namespace sqlite = runtime::sqlite;

// Each call is one piece of a transaction of the store's queue.
class security_writer {
 public:
  explicit security_writer(sqlite::connection& db);

  void add_token(const token_record& t);  // and forgets what was revoked long ago
  void revoke_token(const std::string& id, timestamp at);
  void token_used(const std::string& id, timestamp at);
  void add_audit(const audit_record& entry, const audit_limits& keep);

 private:
  sqlite::statement add_token_, forget_ended_, revoke_, used_, add_audit_, prune_;
  int until_prune_ = 0;  // entries
};

class security_reader {
 public:
  explicit security_reader(sqlite::connection& db);

  std::vector<token_record> tokens();                         // by age
  std::vector<audit_record> audit(const audit_filter& wanted);  // newest first

 private:
  sqlite::statement tokens_, audit_;
};

}  // namespace penstock::scheduler
