// Fill-ins and what Lua expressions mention: both are read from text by hand, so both are tried with odd text.
#include <catch2/catch.hpp>

#include "config/fill_in.hpp"
#include "config/lua_mentions.hpp"

namespace penstock::config {
namespace {

using parts = std::vector<text_part>;
using mentions = std::vector<lua_mention>;

text_part text(std::string t) { return {text_part::kind::text, std::move(t)}; }
text_part lua(std::string t) { return {text_part::kind::expression, std::move(t)}; }
text_part open(std::string t) { return {text_part::kind::unclosed, std::move(t)}; }

}  // namespace

TEST_CASE("fill-ins are found, and nothing else", "[config][fill_in]") {
  CHECK(split_fill_ins("").empty());
  CHECK(split_fill_ins("a") == parts{text("a")});
  CHECK(split_fill_ins("${params.x}") == parts{lua("params.x")});
  CHECK(split_fill_ins("a${run.id}b${item}") == parts{text("a"), lua("run.id"), text("b"), lua("item")});
  CHECK(split_fill_ins("${item}${item[1]}") == parts{lua("item"), lua("item[1]")});
  CHECK(split_fill_ins("${tasks.a.output['}']}") == parts{lua("tasks.a.output['}']")});
  CHECK(split_fill_ins("${params.f{a = {1}}}}") == parts{lua("params.f{a = {1}}"), text("}")});
  CHECK(split_fill_ins(R"(${params["\"}"]}")") == parts{lua(R"(params["\"}"])"), text("\"")});
  CHECK(split_fill_ins("$${params}") == parts{text("$"), lua("params")});
  CHECK(split_fill_ins("a${params.x") == parts{text("a"), open("${params.x")});
  CHECK(split_fill_ins("${params.x '}") == parts{open("${params.x '}")});
  CHECK(split_fill_ins("${params[\"\\") == parts{open("${params[\"\\")});
}

TEST_CASE("references, folders and what a shell would write are text", "[config][fill_in]") {
  for (const char* other :
       {"${env:A}", "${dir}/x", "${HOME}", "${items}", "${item:-x}", "${#params.x}", "${ params.x}", "${param.x}",
        "$item", "${", "${}", "${item", "${run_id}", "${RUN.id}", "$(params.x)", "${${", "${parameters[1]}"}) {
    INFO(other);
    CHECK(split_fill_ins(other) == parts{text(other)});
  }
  CHECK(split_fill_ins("${env:A}-${params.x}-${dir}") == parts{text("${env:A}-"), lua("params.x"), text("-${dir}")});
}

TEST_CASE("slips of fill-ins are told from what a shell would write", "[config][fill_in]") {
  for (const char* slip : {"${parms.x}", "a ${HOME} ${taks.load.output}", "${Params.x}", "${param.x}", "${items.id",
                           "${env.HOME}", "${secret.api}", "${file.x}"}) {
    INFO(slip);
    CHECK(fill_in_slip(slip));
  }
  for (const char* other : {"", "${", "${params.x}", "${item_index}", "${parms}", "${parms:-x}", "${parms[1]}",
                            "${ parms.x}", "${user.home}", "${project.version}", "${parms.}", "${parms.1}",
                            "$parms.x", "$(parms.x)", "${env:A}", "${dir}/x", "${line.x}"}) {
    INFO(other);
    CHECK_FALSE(fill_in_slip(other));
  }
}

TEST_CASE("slips of Lua variables are found where something is looked up in them", "[config][fill_in]") {
  CHECK(lua_slip("evnt.total > 5") == "nothing is called 'evnt' here; did you mean 'event'?");
  for (const char* slip : {"Event.x", "event.x + parms.y", "#(task.a.output)"}) CHECK(lua_slip(slip));
  for (const char* fine : {"event.x", "x.evnt.y", "evnt", "evnt(1)", "'evnt.x'", "math.max(1, 2)", "string.rep('a', 2)",
                           "table.concat(event.x)", "utf8.len(event.x)", "evnt .. 'x'",
                           "(function(evnt) return evnt.x end)(event)"}) {
    INFO(fine);
    CHECK_FALSE(lua_slip(fine));
  }
}

TEST_CASE("mentions are read as Lua reads them", "[config][fill_in]") {
  CHECK(lua_mentions("params.region") == mentions{{"params", "region"}});
  CHECK(lua_mentions("params . region .. run.id") == mentions{{"params", "region"}, {"run", "id"}});
  CHECK(lua_mentions("tasks[\"a-b\"].output.n > 0") == mentions{{"tasks", "a-b"}});
  CHECK(lua_mentions("tasks[ 'a' ]") == mentions{{"tasks", "a"}});
  CHECK(lua_mentions("tasks[params.which]") == mentions{{"tasks", ""}, {"params", "which"}});
  CHECK(lua_mentions("tasks['a' .. 'b']") == mentions{{"tasks", ""}});
  CHECK(lua_mentions("tasks['a\\x41']") == mentions{{"tasks", ""}});
  CHECK(lua_mentions("#params.list + item") == mentions{{"params", "list"}, {"item", ""}});
  CHECK(lua_mentions("params.a + params.a + params.b") == mentions{{"params", "a"}, {"params", "b"}});
  CHECK(lua_mentions("1 ..params.a..'x'..item") == mentions{{"params", "a"}, {"item", ""}});
  CHECK(lua_mentions("item_index > 1") == mentions{{"item_index", ""}});
  CHECK(lua_mentions("item == item.x") == mentions{{"item", ""}, {"item", "x"}});
}

TEST_CASE("what only looks like a mention is none", "[config][fill_in]") {
  for (const char* none :
       {"", "event2.x", "'tasks.a'", "\"a \\\" tasks.a\"", "[[tasks.a]]", "[==[ ]] tasks.a ]==]", "1 -- tasks.a",
        "--[[ tasks.a ]] 1", "x.tasks.a", "x:tasks()", "{tasks = 1, item = 2}", "mytasks.a", "tasks2", "0xitem",
        "'", "\"\\", "[[", "--[[", "(function(item) return item end)(1)"}) {
    INFO(none);
    CHECK(lua_mentions(none).empty());
  }
  CHECK(lua_mentions("tasks[").size() == 1);
  CHECK(lua_mentions("tasks['").size() == 1);
  CHECK(lua_mentions("tasks.").size() == 1);
  CHECK(lua_mentions("tasks['a").size() == 1);
  CHECK(lua_mentions("{[tasks.a] = 1}") == mentions{{"tasks", "a"}});
}

TEST_CASE("odd texts are read to their end", "[config][fill_in]") {
  const std::string alphabet = "${}[]'\"\\.:=- itemtasksparamsrun\n";
  std::uint32_t state = 7;
  for (int i = 0; i < 20'000; ++i) {
    std::string odd = i % 2 ? "${params." : "";
    for (int n = 0; n < 24; ++n) {
      state = state * 1664525u + 1013904223u;
      odd += alphabet[(state >> 8) % alphabet.size()];
    }
    std::string again;
    for (const text_part& part : split_fill_ins(odd)) {
      again += part.type == text_part::kind::expression ? "${" + part.text + "}" : part.text;
      lua_mentions(part.text);
    }
    CHECK(again == odd);
  }
}

}  // namespace penstock::config
