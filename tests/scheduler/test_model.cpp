// The words and the table of legal transitions, spelled out once more: a change of either has to be made
// twice.
#include <array>
#include <string>

#include <catch2/catch.hpp>

#include "scheduler/model.hpp"

using namespace penstock;
using namespace penstock::scheduler;

namespace {

constexpr std::array all_run_states{run_state::queued,    run_state::running, run_state::retrying,
                                    run_state::succeeded, run_state::failed,  run_state::cancelled,
                                    run_state::timed_out, run_state::skipped};

}  // namespace

TEST_CASE("tokens are the words of the contract, and read back", "[model]") {
  std::string words;
  for (const auto s : all_run_states) {
    words += std::string(token(s)) + " ";
    CHECK(parse_run_state(token(s)) == s);
  }
  CHECK(words == "queued running retrying succeeded failed cancelled timed_out skipped ");

  words.clear();
  for (const auto s : {flow_state::starting, flow_state::running, flow_state::backing_off, flow_state::paused,
                       flow_state::draining, flow_state::stopped, flow_state::failed}) {
    words += std::string(token(s)) + " ";
  }
  CHECK(words == "starting running backing_off paused draining stopped failed ");

  words.clear();
  for (const auto k : {trigger_kind::topic, trigger_kind::cron, trigger_kind::every, trigger_kind::at,
                       trigger_kind::after, trigger_kind::file, trigger_kind::webhook, trigger_kind::backfill,
                       trigger_kind::rest}) {
    words += std::string(token(k)) + " ";
    CHECK(parse_trigger_kind(token(k)) == k);
  }
  CHECK(words == "topic cron every at after file webhook backfill rest ");
}

TEST_CASE("words that are no tokens are nothing", "[model]") {
  for (const auto* text : {"", "Queued", "queued ", "run", "timed-out", "starting"}) {
    CHECK_FALSE(parse_run_state(text));
    CHECK_FALSE(parse_trigger_kind(text));
  }
}

TEST_CASE("the table of transitions", "[model]") {
  // Rows: from; columns: to; both in the order of the enum.
  const std::array<std::string, 8> table{
      ".x..xxxx",  // queued
      "x.xxxxx.",  // running
      "xx..xxx.",  // retrying
      "........",  // succeeded
      "........",  // failed
      "........",  // cancelled
      "........",  // timed_out
      "........",  // skipped
  };
  for (std::size_t from = 0; from < all_run_states.size(); ++from) {
    for (std::size_t to = 0; to < all_run_states.size(); ++to) {
      INFO(token(all_run_states[from]) << " -> " << token(all_run_states[to]));
      CHECK(may_become(all_run_states[from], all_run_states[to]) == (table[from][to] == 'x'));
    }
  }
}

TEST_CASE("final states are those that nothing follows, and each can be reached", "[model]") {
  for (const auto from : all_run_states) {
    bool leads_on = false;
    bool reached = false;
    for (const auto other : all_run_states) {
      leads_on = leads_on || may_become(from, other);
      reached = reached || may_become(other, from);
    }
    CHECK(is_final(from) == !leads_on);
    CHECK(reached);
  }
}
