"""Broken definitions: each gives the exact place, over REST and with `penstock validate` alike, and leaves nothing.

In each text the mark § stands before the character where the problem is; the tests take it out and expect its line and
column. One text may have several problems: all come at once, sorted by place.
"""
import json
import re

import pytest

from penstock import EXAMPLES, ROOT, Daemon, penstock, remove_folder, scratch_folder, wait_until

MARK = "§"


class Broken:
    def __init__(self, name, text, pointer, *words, status=422):
        self.name = name
        self.places = []
        lines = []
        for number, line in enumerate(text.split("\n"), start=1):
            while MARK in line:
                self.places.append((number, line.index(MARK) + 1))
                line = line.replace(MARK, "", 1)
            lines.append(line)
        self.text = "\n".join(lines)
        self.pointers = pointer if isinstance(pointer, list) else [pointer]
        self.words = words
        self.status = status


def job(rest):
    return f"name: p\ntopics: {{t: {{}}}}\njobs:\n  j:\n{rest}"


def flow(rest):
    return f"name: p\ntopics: {{t: {{}}}}\nflows:\n  f:\n{rest}"


BROKEN = [
    # keys
    Broken("unknown_top_key", "name: p\n§flow:\n  f: {}\n", "/flow", "unknown key 'flow'", "'flows'"),
    Broken("unknown_key_in_flow", flow("    §form: {topic: t}\n    to: drop\n"), "/flows/f/form", "'from'"),
    Broken("unknown_key_far_from_all", flow("    from: {topic: t}\n    to: drop\n    §zzzzzzzz: 1\n"), "/flows/f/zzzzzzzz",
           "unknown key"),
    Broken("unknown_key_in_settings", flow("    from: {topic: t}\n    to: {file: {path: x, §pth: y}}\n"),
           "/flows/f/to/file/pth", "'path'"),
    Broken("key_twice", "name: p\ntopics: {t: {}}\n§name: q\n", "/name", "name"),
    Broken("missing_name", "§topics: {t: {}}\n", "", "'name' is missing"),
    Broken("missing_setting", flow("    from: {topic: t}\n    to: {§file: {format: ndjson}}\n"), "/flows/f/to/file",
           "'path'"),
    Broken("missing_to", flow("    from: {topic: t}\n").replace("  f:", "  §f:"), "/flows/f", "'to' is missing"),
    Broken("empty_flow", "name: p\nflows:\n  §f: {}\n", "/flows/f", "from"),
    Broken("empty_job", "name: p\njobs:\n  §j: {}\n", "/jobs/j", "run"),
    # names
    Broken("name_with_capitals", "name: §MyShop\n", "/name", "is not a name"),
    Broken("name_of_a_topic", "name: p\ntopics:\n  §Or ders: {}\n", "/topics/Or ders", "is not a name"),
    Broken("name_is_a_list", "name: §[p]\n", "/name"),
    # values
    Broken("duration_without_unit", "name: p\ntopics: {t: {retain: §7}}\n", "/topics/t/retain", "unit"),
    Broken("duration_of_unknown_unit", "name: p\ntopics: {t: {retain: §7y}}\n", "/topics/t/retain"),
    Broken("negative_duration", job("    trigger: {every: §-5s}\n    run: [x]\n"), "/jobs/j/trigger/every"),
    Broken("zero_interval", job("    trigger: {every: §0s}\n    run: [x]\n"), "/jobs/j/trigger/every", "at least"),
    Broken("size_without_unit", "name: p\ntopics: {t: {max_bytes: §lots}}\n", "/topics/t/max_bytes", "64MiB|10GiB"),
    Broken("not_a_number", job("    trigger: {topic: t, max_events: §many}\n    run: [x]\n"), "/jobs/j/trigger/max_events",
           "a whole number"),
    Broken("number_out_of_range", job("    trigger: {topic: t, max_events: §0}\n    run: [x]\n"),
           "/jobs/j/trigger/max_events"),
    Broken("quoted_number", job("    run: [x]\n    retry: {attempts: §\"3\"}\n"), "/jobs/j/retry/attempts", "number"),
    Broken("range_backwards", job("    run: [x]\n    retry: {attempts: 3, backoff: §5m..10s}\n"), "/jobs/j/retry/backoff",
           "backwards"),
    Broken("impossible_choice", job("    run: [x]\n    on_overlap: §que\n"), "/jobs/j/on_overlap", "'queue'"),
    Broken("run_is_a_text", job("    run: §python3 x.py\n"), "/jobs/j/run", "a list"),
    Broken("run_is_empty", job("    §run: []\n"), "/jobs/j/run", "at least 1"),
    Broken("list_for_mapping", "name: p\nflows: §[a, b]\n", "/flows", "a mapping"),
    Broken("nothing_where_a_value_belongs", "name: p\ndescription: x\n§workdir:\n", "/workdir"),
    # expressions
    Broken("lua_syntax", flow("    from: {topic: t}\n    steps:\n      - filter: §event.total >\n    to: drop\n"),
           "/flows/f/steps/0/filter", "Lua"),
    Broken("lua_statement_as_expression",
           flow("    from: {topic: t}\n    steps:\n      - map: {a: §\"local x = 1\"}\n    to: drop\n"),
           "/flows/f/steps/0/map/a", "Lua"),
    Broken("lua_in_dedupe", "name: p\ntopics: {t: {dedupe: {key: §\"event.(\"}}}\n", "/topics/t/dedupe/key", "Lua"),
    # components
    Broken("unknown_source", flow("    from: {§kafkaa: {}}\n    to: drop\n"), "/flows/f/from/kafkaa", "unknown source"),
    Broken("unknown_step", flow("    from: {topic: t}\n    steps:\n      - §fliter: event.x\n    to: drop\n"),
           "/flows/f/steps/0/fliter", "'filter'"),
    Broken("unknown_sink", flow("    from: {topic: t}\n    to: {§sqllite: {}}\n"), "/flows/f/to/sqllite", "'sqlite'"),
    Broken("a_step_as_sink", flow("    from: {topic: t}\n    to: {§filter: event.x}\n"), "/flows/f/to/filter",
           "that is a step"),
    Broken("two_steps_in_one_item",
           flow("    from: {topic: t}\n    steps:\n      - filter: event.x\n        §map: {a: event.a}\n    to: drop\n"),
           "/flows/f/steps/0/map", "only one"),
    Broken("an_endless_source_in_a_job", job("    from: {§webhook: /x}\n    to: drop\n"), "/jobs/j/from/webhook",
           "never ends"),
    # secrets
    Broken("a_secret_in_clear",
           flow("    from: {webhook: {path: /x, signature: {header: H, secret: §hunter2}}}\n    to: drop\n"),
           "/flows/f/from/webhook/signature/secret", "reference"),
    Broken("a_bad_reference", job("    run: [x, §\"${envv:A}\"]\n"), "/jobs/j/run/1", "env"),
    # triggers
    Broken("cron_with_too_few_fields", job("    trigger: {cron: §\"* * *\"}\n    run: [x]\n"), "/jobs/j/trigger/cron"),
    Broken("cron_out_of_range", job("    trigger: {cron: §\"61 * * * *\"}\n    run: [x]\n"), "/jobs/j/trigger/cron", "61"),
    Broken("cron_that_never_comes", job("    trigger: {cron: §\"0 0 30 2 *\"}\n    run: [x]\n"), "/jobs/j/trigger/cron"),
    Broken("unknown_time_zone", job("    trigger: {cron: \"0 6 * * *\", timezone: §Europe/Madird}\n    run: [x]\n"),
           "/jobs/j/trigger/timezone", "Europe/Madrid"),
    Broken("two_triggers_in_one", job("    trigger: {topic: t, §every: 5m}\n    run: [x]\n"), "/jobs/j/trigger/every",
           "exclude"),
    Broken("a_key_of_another_trigger", job("    trigger: {every: 5m, §max_events: 5}\n    run: [x]\n"),
           "/jobs/j/trigger/max_events", "topic"),
    Broken("after_a_job_that_is_not_there", job("    trigger: {after: §k}\n    run: [x]\n"), "/jobs/j/trigger/after",
           "no job 'k'"),
    Broken("jobs_that_start_each_other",
           "name: p\njobs:\n  a: {trigger: {after: §b}, run: [x]}\n  b: {trigger: {after: a}, run: [x]}\n",
           "/jobs/a/trigger/after", "a -> b"),
    # tasks
    Broken("needs_an_unknown_task", job("    tasks:\n      one: {run: [x]}\n      two: {run: [x], needs: [§onne]}\n"),
           "/jobs/j/tasks/two/needs/0", "'one'"),
    Broken("needs_in_a_circle",
           job("    tasks:\n      a: {run: [x], needs: §b}\n      b: {run: [x], needs: [a]}\n"),
           "/jobs/j/tasks/a/needs", "a -> b"),
    Broken("run_beside_tasks", job("    §run: [x]\n    tasks: {a: {run: [x]}}\n"), "/jobs/j/run", "exclude"),
    Broken("steps_beside_run", job("    run: [x]\n    §steps: [{filter: event.x}]\n"), "/jobs/j/steps"),
    Broken("environment_of_the_daemon", job("    run: [x]\n    environment: {§PENSTOCK_RUN_ID: a}\n"),
           "/jobs/j/environment/PENSTOCK_RUN_ID"),
    # several at once
    Broken("three_problems",
           "name: p\ntopics:\n  t: {retain: §7}\n§flow: {}\njobs:\n  j:\n    run: [x]\n    on_overlap: §never\n",
           ["/topics/t/retain", "/flow", "/jobs/j/on_overlap"]),
    # not YAML, or not one document
    Broken("bad_indentation", "name: p\ntopics:\n  t: {}\n §u: {}\n", None, status=400),
    Broken("unclosed_bracket", "name: p\ntopics: {t: {}\n", None, status=400),
    Broken("tab", "name: p\ntopics:\n§\tt: {}\n", None, "tab", status=400),
    Broken("two_documents", "name: p\n---\nname: q\n", None, status=400),
    Broken("not_utf8", b"name: p\ndescription: \xff\n".decode("latin-1"), None, status=400),
    Broken("a_list", "§- name: p\n", ""),
    Broken("a_word", "§hello\n", ""),
    Broken("empty", "", ""),
]


def encoded(broken):
    return broken.text.encode("latin-1" if broken.name == "not_utf8" else "utf-8")


@pytest.fixture(scope="module")
def live():
    """One daemon for all broken texts: it must also outlive them all."""
    daemon = Daemon(scratch_folder()).start()
    yield daemon
    assert daemon.stop() == 0
    remove_folder(daemon.folder)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_over_rest(live, broken):
    answer = live.request("PUT", "/v1/pipelines/p", encoded(broken), {"Content-Type": "application/yaml"})
    assert answer.status == broken.status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    errors = answer.json["errors"]
    if broken.places:
        assert sorted((error["line"], error["column"]) for error in errors) == sorted(broken.places), errors
    else:
        assert all(error["line"] >= 1 and error["column"] >= 1 for error in errors), errors
    if broken.pointers != [None]:
        assert [error["pointer"] for error in errors] == broken.pointers, errors
    for word in broken.words:
        assert any(choice in error["detail"] for error in errors for choice in word.split("|")), (word, errors)
    assert live.get("/v1/pipelines/p").status == 404, "nothing of a bad definition is stored"
    assert live.get_json("/v1/topics")["items"] == []


def test_offline():
    folder = scratch_folder()
    files = []
    for broken in BROKEN:
        file = folder / f"{broken.name}.yaml"
        file.write_bytes(encoded(broken))
        files.append(file)
    finished = penstock("validate", *files)
    assert finished.returncode == 1, finished.stderr
    lines = finished.stdout.splitlines()
    misses = []
    for broken, file in zip(BROKEN, files):
        said = [line for line in lines if line.startswith(f"{file}:")]
        assert said, broken.name
        for (line, column), pointer in zip(broken.places, broken.pointers):
            place = f"{file}:{line}:{column}: " + (f"{pointer}: " if pointer else "")
            if not any(one.startswith(place) for one in said):
                misses.append((place, said))
    assert not misses
    as_json = json.loads(penstock("validate", "--json", *files).stdout)
    assert len(as_json) == len(BROKEN)
    assert not any(entry["valid"] for entry in as_json)
    remove_folder(folder)


def bomb(levels=20):
    lines = ["name: p", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * 10) + "]")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("text", [
    bomb(),
    "name: p\ndescription: &a [*a]\n",
    "name: p\n" + "topics: " + "{a: " * 10_000 + "}" * 10_000,
    "name: p\ndescription: " + "[" * 100_000,
    "name: p\ntopics: {" + ", ".join(f"t{n}: {{}}" for n in range(200_000)) + "}",
    "name: p\ndescription: " + "x" * (3 << 20),
    "? " * 20_000,
    "- " * 20_000,
    "name: p\ndescription: !!binary |\n  gA==\n",
    "name: p\n<<: {description: merged}\n",
], ids=["alias_bomb", "alias_of_itself", "deep_mappings", "deep_lists", "many_nodes", "long_text", "question_marks",
        "dashes", "tag", "merge_key"])
def test_texts_that_are_meant_to_hurt(live, text):
    answer = live.request("PUT", "/v1/pipelines/p", text, {"Content-Type": "application/yaml"}, timeout=20)
    assert answer.status in (400, 413, 422), answer
    assert live.get("/v1/pipelines/p").status == 404
    assert live.get("/readyz").status == 200


GOOD = """# a comment that is kept
name: shop
description: first
topics: {orders: {retain: 7d, dedupe: {key: event.id, within: 24h}}}
flows:
  copy: {from: {topic: orders}, to: drop}
"""


def test_put_get_etag_and_if_match(start_daemon):
    daemon = start_daemon()
    created = daemon.put("shop", GOOD, expect=(201,))
    etag = created.headers["etag"]
    assert created.json["revision"] == 1
    shown = daemon.get("/v1/pipelines/shop")
    assert shown.headers["etag"] == etag
    assert shown.json["definition"]["topics"]["orders"]["retain"] == "7d"
    assert daemon.get("/v1/pipelines/shop", {"Accept": "application/yaml"}).text == GOOD

    assert daemon.put("shop", GOOD, expect=(200,)).json["revision"] == 1, "the same text is no new revision"
    second = daemon.put("shop", GOOD.replace("first", "second"), expect=(200,), headers={"If-Match": etag})
    assert second.json["revision"] == 2
    assert second.headers["etag"] != etag
    daemon.put("shop", GOOD.replace("first", "third"), expect=(412,), headers={"If-Match": etag})
    daemon.put("shop", GOOD, expect=(412,), headers={"If-None-Match": "*"})
    assert daemon.pipeline("shop")["description"] == "second"

    daemon.kill9()
    daemon.start()
    assert daemon.pipeline("shop")["revision"] == 2
    assert daemon.post("/v1/pipelines", GOOD, {"Content-Type": "application/yaml"}).status == 409
    assert daemon.request("DELETE", "/v1/pipelines/shop").status in (200, 202, 204)
    wait_until(lambda: daemon.get("/v1/pipelines/shop").status == 404, "the pipeline to be gone")
    assert daemon.post("/v1/pipelines", GOOD, {"Content-Type": "application/yaml"}).status == 201


def test_json_is_as_good_as_yaml(start_daemon):
    daemon = start_daemon()
    definition = {"name": "shop", "topics": {"orders": {}}, "flows": {"f": {"from": {"topic": "orders"}, "to": "drop"}}}
    answer = daemon.request("PUT", "/v1/pipelines/shop", definition)
    assert answer.status == 201, answer
    daemon.put("other", json.dumps(definition), expect=(409, 422))


def test_dry_run_says_what_would_change_and_stores_nothing(start_daemon):
    daemon = start_daemon()
    answer = daemon.put("shop", GOOD, expect=(200,), query="?dry_run=true")
    assert "copy" in answer.text
    assert daemon.get("/v1/pipelines/shop").status == 404
    daemon.put("shop", GOOD)
    changed = GOOD.replace("to: drop", "to: {topic: copies}").replace("topics: {", "topics: {copies: {}, ")
    answer = daemon.put("shop", changed, expect=(200,), query="?dry_run=true")
    assert "copies" in answer.text and "copy" in answer.text
    assert daemon.pipeline("shop")["revision"] == 1
    daemon.put("shop", "name: shop\nflow: {}\n", expect=(422,), query="?dry_run=true")


def test_a_bad_revision_leaves_the_old_one_running(start_daemon):
    daemon = start_daemon({"shop": GOOD})
    wait_until(lambda: daemon.flow("shop", "copy")["state"] == "running", "the flow")
    daemon.put("shop", GOOD.replace("to: drop", "too: drop"), expect=(422,))
    assert daemon.flow("shop", "copy")["state"] == "running"
    assert daemon.pipeline("shop")["revision"] == 1


def test_a_folder_with_two_good_files_and_a_broken_one(start_daemon):
    folder = scratch_folder()
    (folder / "one.yaml").write_text("name: one\ntopics: {a: {}}\n")
    (folder / "two.json").write_text('{"name": "two", "topics": {"b": {}}}')
    (folder / "broken.yaml").write_text("name: broken\ntopcs: {c: {}}\n")
    (folder / "notes.txt").write_text("not a definition")
    daemon = start_daemon(folder)
    assert sorted(p["name"] for p in daemon.get_json("/v1/pipelines")["items"]) == ["one", "two"]
    assert daemon.get("/readyz").status == 200
    place = f"{folder / 'broken.yaml'}:2:1"
    assert place in daemon.log.read_text()
    listed = daemon.get("/v1/pipelines").text
    assert "broken.yaml" in listed and "topcs" in listed

    (folder / "broken.yaml").write_text("name: broken\ntopics: {c: {}}\n")
    (folder / "one.yaml").write_text("name: one\ntopics: {a: {}, d: {}}\n")
    daemon.reload()
    wait_until(lambda: len(daemon.get_json("/v1/pipelines")["items"]) == 3, "the third pipeline")
    wait_until(lambda: daemon.pipeline("one")["revision"] == 2, "the changed one")
    assert daemon.pipeline("two")["revision"] == 1
    remove_folder(folder)


def test_every_example_is_valid():
    files = sorted(EXAMPLES.glob("*/*.yaml"))
    assert files
    finished = penstock("validate", *files)
    assert finished.returncode == 0, finished.stdout


def test_every_definition_in_the_readme_is_valid(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found += re.findall(r"<<'YAML'\n(.*?)^YAML$", text, re.DOTALL | re.MULTILINE)
    assert len(found) >= 2
    for number, definition in enumerate(found):
        file = tmp_path / f"{number}.yaml"
        file.write_text(definition, encoding="utf-8")
        finished = penstock("validate", file)
        assert finished.returncode == 0, finished.stdout
