// Tokens and the audit log in the store: what is written comes back whole, also after a restart, and does not grow for ever.
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "scheduler/audit_desk.hpp"
#include "scheduler/token_book.hpp"
#include "tests/scheduler/store_control.hpp"
#include "tests/scheduler/token_wish.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

namespace {

const token_bucket::clock::time_point steady{1h};

audit_record an_entry(int number, const std::string& outcome = "done") {
  const timestamp at = noon + std::chrono::milliseconds(number);
  return {.id = runtime::make_ulid(at), .at = at, .who = "token", .target = std::to_string(number), .outcome = outcome};
}

std::vector<std::string> targets(const std::vector<audit_record>& entries) {
  std::vector<std::string> all;
  for (const auto& e : entries) all.push_back(e.target);
  return all;
}

}  // namespace

TEST_CASE("tokens: one comes back whole after a restart, without its secret", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  token_record wish = a_wish("grafana's", {"read", "ingest"});
  wish.pipelines = {"a", "b"};
  wish.expires_at = wall_now() + 1h;
  wish.rate = request_rate{0.5, 7};
  std::string text;
  token_record before;
  {
    token_book book(*c.operator->(), token_rule::automatic);
    const auto made = c.await(book.create(wish, true)).value();
    text = made.text;
    before = made.record;
  }
  c.reopen();
  token_book book(*c.operator->(), token_rule::automatic);
  REQUIRE(book.list().size() == 1);
  CHECK(book.list()[0] == before);
  CHECK(book.check(text, wall_now(), steady).what == token_book::verdict::good);
  CHECK(dump(c).find(std::string(parse_token(text)->secret)) == std::string::npos);
}

TEST_CASE("tokens: the first one must be able to make others, and the last such one stays", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  token_book book(*c.operator->(), token_rule::automatic);
  CHECK_FALSE(book.asked());
  CHECK(c.await(book.create(a_wish("reader", {"read"}), false)).error().code == errc::conflict);
  auto scoped = a_wish("scoped", {"admin"});
  scoped.pipelines = {"shop"};
  CHECK(c.await(book.create(scoped, false)).error().code == errc::conflict);
  CHECK_FALSE(book.asked());

  const auto first = c.await(book.create(a_wish("first", {"admin"}), false)).value();
  CHECK(book.asked());
  c.await(book.create(a_wish("reader", {"read"}), false)).value();
  CHECK(c.await(book.revoke(first.record.id, false)).error().code == errc::conflict);
  CHECK(book.check(first.text, wall_now(), steady).what == token_book::verdict::good);
  const auto second = c.await(book.create(a_wish("second", {"admin"}), false)).value();
  CHECK(c.await(book.revoke(first.record.id, false)).has_value());
  CHECK(c.await(book.revoke(first.record.id, false)).has_value());  // once more is no error
  CHECK(book.check(first.text, wall_now(), steady).what == token_book::verdict::revoked);
  CHECK(c.await(book.revoke("nobody", false)).error().code == errc::not_found);
  CHECK(c.await(book.revoke(second.record.id, true)).has_value());
  CHECK(book.asked());  // the door does not open again
  c.reopen();
  CHECK(token_book(*c.operator->(), token_rule::automatic).asked());
}

TEST_CASE("tokens: when one is asked for", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  CHECK(token_book(*c.operator->(), token_rule::always).asked());
  token_book never(*c.operator->(), token_rule::never);
  c.await(never.create(a_wish("admin", {"admin"}), false)).value();
  CHECK_FALSE(never.asked());
  CHECK(token_book(*c.operator->(), token_rule::automatic).asked());
}

TEST_CASE("tokens: strange texts, other secrets, old and fast ones", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  token_book book(*c.operator->(), token_rule::automatic);
  auto wish = a_wish("admin", {"admin"});
  wish.rate = request_rate{1, 2};
  wish.expires_at = noon + 1h;
  const auto made = c.await(book.create(wish, true)).value();
  const auto other = make_token({}, noon);
  using verdict = token_book::verdict;
  CHECK(book.check("", noon, steady).what == verdict::unknown);
  CHECK(book.check(other.text, noon, steady).what == verdict::unknown);
  const std::string mixed = "pst_" + made.record.id + other.text.substr(14);
  REQUIRE(parse_token(mixed));
  CHECK(book.check(mixed, noon, steady).what == verdict::unknown);  // a known id says nothing
  CHECK_FALSE(book.check(mixed, noon, steady).token);
  CHECK(book.check(made.text, *wish.expires_at, steady).what == verdict::expired);
  CHECK(book.check(made.text, noon, steady).what == verdict::good);
  CHECK(book.check(made.text, noon, steady).what == verdict::good);
  const auto third = book.check(made.text, noon, steady);
  CHECK(third.what == verdict::too_fast);
  CHECK(third.wait == 1s);
}

TEST_CASE("tokens: uses are stored to the minute", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  {
    token_book book(*c.operator->(), token_rule::automatic);
    const auto made = c.await(book.create(a_wish("admin", {"admin"}), false)).value();
    book.check(made.text, noon + 61s, steady);
    book.check(made.text, noon + 62s, steady);
    CHECK(book.list()[0].last_used_at == noon + 60s);
  }
  c.reopen();
  CHECK(token_book(*c.operator->(), token_rule::automatic).list()[0].last_used_at == noon + 60s);
}

TEST_CASE("tokens: what was revoked is forgotten when a thousand others were, but never the last of it", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  c.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
            " INSERT INTO tokens SELECT 'old' || i, 'x', '', 'read', '', i, NULL, i, NULL, NULL, 0 FROM n");
  c.reopen();
  token_book book(*c.operator->(), token_rule::automatic);
  c.await(book.create(a_wish("admin", {"admin"}), false)).value();
  CHECK(c.ask("SELECT count(*) FROM tokens") == "1001");
  CHECK(c.ask("SELECT min(revoked_at) FROM tokens") == "201");
}

TEST_CASE("tokens: what has expired is forgotten like what was revoked, in memory, too", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  c.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
            " INSERT INTO tokens SELECT 'old' || i, 'x', '', 'read', '', i, 2 * i, iif(i % 2, NULL, i), NULL, NULL, 0 FROM n");
  c.reopen();
  token_book book(*c.operator->(), token_rule::automatic);
  CHECK(book.list().size() == 1200);
  c.await(book.create(a_wish("admin", {"admin"}), false)).value();
  CHECK(book.list().size() == 1001);
  CHECK(c.ask("SELECT count(*) FROM tokens") == "1001");
  for (const token_record& one : book.list()) CHECK(c.ask("SELECT count(*) FROM tokens WHERE id = '" + one.id + "'") == "1");
  CHECK(book.asked());
}

TEST_CASE("tokens: those that have expired are not counted as too many", "[tokens]") {
  const temp_dir dir;
  control c(dir / "state.db");
  c.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
            " INSERT INTO tokens SELECT 'old' || i, 'x', '', 'read', '', i, 2 * i, NULL, NULL, NULL, 0 FROM n");
  c.reopen();
  token_book book(*c.operator->(), token_rule::automatic);
  CHECK(c.await(book.create(a_wish("admin", {"admin"}), false)).has_value());
}

TEST_CASE("tokens: the door stays shut when the store is lost", "[tokens]") {
  const temp_dir dir;
  const auto mark = dir / token_book::mark_name;
  {
    control c(dir / "state.db");
    token_book book(*c.operator->(), token_rule::automatic, mark);
    CHECK_FALSE(book.asked());
    CHECK_FALSE(std::filesystem::exists(mark));
    c.await(book.create(a_wish("admin", {"admin"}), false)).value();
    CHECK(std::filesystem::exists(mark));
  }
  control other(dir / "another.db");
  token_book book(*other.operator->(), token_rule::automatic, mark);
  CHECK(book.lost());
  CHECK(book.asked());
  CHECK_FALSE(token_book(*other.operator->(), token_rule::never, mark).asked());
  other.await(book.create(a_wish("admin", {"admin"}), true)).value();
  token_book again(*other.operator->(), token_rule::automatic, mark);
  CHECK_FALSE(again.lost());
  std::filesystem::remove(mark);
  CHECK(token_book(*other.operator->(), token_rule::automatic, mark).asked());
  CHECK(std::filesystem::exists(mark));  // of a folder from before there was such a file
}

TEST_CASE("audit: an entry comes back whole, newest first, by filter and page", "[audit]") {
  const temp_dir dir;
  control c(dir / "state.db");
  boost::asio::io_context quiet;  // its timer never fires: entries are written with one that is awaited
  audit_desk desk(quiet.get_executor(), *c.operator->(), {});
  const audit_record whole{.id = runtime::make_ulid(noon), .at = noon, .who = "token", .token = "t1", .name = "n", .address = "::1", .method = "PUT",
                           .endpoint = "/v1/pipelines/{name}", .target = "/v1/pipelines/p", .pipeline = "p", .outcome = "failed",
                           .status = 422, .request = "r", .detail = "d"};
  c.await(desk.add(whole));
  for (int i = 1; i <= 4; ++i) c.await(desk.add(an_entry(i)));
  const auto all = desk.list({});
  REQUIRE(targets(all) == std::vector<std::string>{"4", "3", "2", "1", "/v1/pipelines/p"});
  CHECK(all[4].id == whole.id);
  CHECK(all[4].token == "t1");
  CHECK(all[4].name == "n");
  CHECK(all[4].address == "::1");
  CHECK(all[4].method == "PUT");
  CHECK(all[4].endpoint == whole.endpoint);
  CHECK(all[4].pipeline == "p");
  CHECK(all[4].outcome == "failed");
  CHECK(all[4].status == 422);
  CHECK(all[4].request == "r");
  CHECK(all[4].detail == "d");
  CHECK(targets(desk.list({.token = "t1"})).size() == 1);
  CHECK(targets(desk.list({.pipeline = "p"})).size() == 1);
  CHECK(targets(desk.list({.outcome = "done"})).size() == 4);
  CHECK(targets(desk.list({.since = noon + 2ms, .until = noon + 4ms})) == std::vector<std::string>{"3", "2"});
  CHECK(targets(desk.list({.before_id = all[1].id, .limit = 2})) == std::vector<std::string>{"2", "1"});
}

TEST_CASE("audit: so many are kept, and refusals drive out no changes", "[audit]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const audit_limits keep{.changes = 20, .refusals = 5};
  for (int i = 0; i < 30; ++i) c.await(c->add_audit(an_entry(i), keep));
  for (int i = 30; i < 1100; ++i) c->note_audit({an_entry(i, "refused")}, keep);
  c.reopen();
  c.await(c->add_audit(an_entry(1100), keep));  // the first of a start looks at all
  CHECK(c.ask("SELECT count(*) FROM audit WHERE outcome = 'refused'") == "5");
  CHECK(c.ask("SELECT count(*) FROM audit WHERE outcome = 'done'") == "20");
  CHECK(c.ask("SELECT target FROM audit ORDER BY id DESC LIMIT 1") == "1100");
}

TEST_CASE("audit: floods of refusals and of failures are counted, not written, each apart", "[audit]") {
  const temp_dir dir;
  control c(dir / "state.db");
  boost::asio::io_context quiet;  // its timer never fires: entries are written with one that is awaited
  audit_desk desk(quiet.get_executor(), *c.operator->(), {});
  for (const std::string outcome : {"refused", "failed"}) {
    for (int i = 0; i < 5000; ++i) desk.note_some(an_entry(i, outcome), steady);
    desk.note_some(an_entry(5000, outcome), steady + 1s);
  }
  c.await(desk.add(an_entry(5001)));
  for (const std::string outcome : {"refused", "failed"}) {
    const auto all = desk.list({.outcome = outcome, .limit = 1000});
    REQUIRE(all.size() == 101);
    CHECK(all[0].detail.find("(and 4900 " + outcome + " before that are not listed)") != std::string::npos);
  }
}

TEST_CASE("audit: long texts are cut between characters", "[audit]") {
  const temp_dir dir;
  control c(dir / "state.db");
  boost::asio::io_context quiet;  // its timer never fires: entries are written with one that is awaited
  audit_desk desk(quiet.get_executor(), *c.operator->(), {});
  auto entry = an_entry(1);
  entry.target = "x";
  for (int i = 0; i < 1000; ++i) entry.target += "é";
  c.await(desk.add(entry));
  const auto kept = desk.list({})[0].target;
  CHECK(kept.size() < 510);
  CHECK(kept.ends_with("é..."));
}
