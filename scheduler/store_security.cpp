#include "scheduler/store_security.hpp"

#include <sstream>

#include "scheduler/store_rows.hpp"

namespace penstock::scheduler {

using namespace rows;

namespace {

constexpr int entries_between_prunes = 500;
// end_of()
const std::string token_end = "min(coalesce(revoked_at, expires_at), coalesce(expires_at, revoked_at))";

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text.append(text.empty() ? "" : " ").append(word);
  return text;
}

std::vector<std::string> split(std::string_view text) {
  std::istringstream in{std::string(text)};
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

token_record token_from(const sqlite::statement& s) {
  token_record t{.id = text(s, 0), .name = text(s, 1), .secret_sha256 = text(s, 2)};
  t.roles = parse_roles(split(s.text(3))).value();
  t.pipelines = split(s.text(4));
  t.created_at = time(s, 5);
  t.expires_at = time_or_null(s, 6);
  t.revoked_at = time_or_null(s, 7);
  t.last_used_at = time_or_null(s, 8);
  if (!s.is_null(9)) t.rate = request_rate{s.real(9), static_cast<int>(s.integer(10))};
  return t;
}

audit_record audit_record_from(const sqlite::statement& s) {
  return {.id = text(s, 0),
          .at = time(s, 1),
          .who = text(s, 2),
          .token = text(s, 3),
          .name = text(s, 4),
          .address = text(s, 5),
          .method = text(s, 6),
          .endpoint = text(s, 7),
          .target = text(s, 8),
          .pipeline = text(s, 9),
          .outcome = text(s, 10),
          .status = static_cast<int>(s.integer(11)),
          .request = text(s, 12),
          .detail = text(s, 13)};
}

constexpr std::string_view audit_columns =
    "id, at, who, token, name, address, method, endpoint, target, pipeline, outcome, status, request, detail";

}  // namespace

security_writer::security_writer(sqlite::connection& db)
    : add_token_(db,
                 "INSERT INTO tokens (id, name, secret_sha256, roles, pipelines, created_at, expires_at, revoked_at,"
                 " last_used_at, rate, burst) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"),
      forget_ended_(db, "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE " + token_end + " <= ?2 ORDER BY " + token_end +
                            " DESC, id DESC LIMIT -1 OFFSET ?1)"),
      revoke_(db, "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1"),
      used_(db, "UPDATE tokens SET last_used_at = ?2 WHERE id = ?1"),
      add_audit_(db, "INSERT INTO audit (" + std::string(audit_columns) +
                         ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"),
      prune_(db,
             "DELETE FROM audit WHERE (outcome = 'refused') = ?1 AND id <= (SELECT id FROM audit"
             " WHERE (outcome = 'refused') = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)") {}

void security_writer::add_token(const token_record& t) {
  const std::string roles = joined(t.roles.names()), pipelines = joined(t.pipelines);
  with(add_token_, t.id, t.name, t.secret_sha256, roles, pipelines, t.created_at, t.expires_at, t.revoked_at, t.last_used_at);
  if (t.rate) {
    add_token_.bind(10, t.rate->per_second).bind(11, std::int64_t{t.rate->burst});
  } else {
    add_token_.bind_null(10).bind(11, std::int64_t{0});
  }
  add_token_.run();
  with(forget_ended_, ended_tokens_kept, t.created_at).run();
}

void security_writer::revoke_token(const std::string& id, timestamp at) { with(revoke_, id, at).run(); }

void security_writer::token_used(const std::string& id, timestamp at) { with(used_, id, at).run(); }

void security_writer::add_audit(const audit_record& e, const audit_limits& keep) {
  with(add_audit_, e.id, e.at, e.who, e.token, e.name, e.address, e.method, e.endpoint, e.target, e.pipeline, e.outcome, e.status,
       e.request, e.detail)
      .run();
  if (until_prune_-- > 0) return;
  until_prune_ = entries_between_prunes;
  with(prune_, 0, keep.changes).run();
  with(prune_, 1, keep.refusals).run();
}

security_reader::security_reader(sqlite::connection& db)
    : tokens_(db,
              "SELECT id, name, secret_sha256, roles, pipelines, created_at, expires_at, revoked_at, last_used_at, rate,"
              " burst FROM tokens ORDER BY created_at, id"),
      audit_(db, "SELECT " + std::string(audit_columns) +
                     " FROM audit WHERE id < ?1 AND (?2 = '' OR token = ?2) AND (?3 = '' OR pipeline = ?3)"
                     " AND (?4 = '' OR outcome = ?4) AND (?5 IS NULL OR at >= ?5) AND (?6 IS NULL OR at < ?6)"
                     " ORDER BY id DESC LIMIT ?7") {}

std::vector<token_record> security_reader::tokens() { return all(tokens_, token_from); }

std::vector<audit_record> security_reader::audit(const audit_filter& f) {
  const std::string below = f.before_id.empty() ? "~" : f.before_id;  // "~" is beyond all ids
  return all(with(audit_, below, f.token, f.pipeline, f.outcome, f.since, f.until, f.limit), audit_record_from);
}

}  // namespace penstock::scheduler
