"""What tasks tell each other and decide by: $PENSTOCK_OUTPUT, fill-ins, `if`, `for_each`, `allow_failure`, typed parameters."""
import json
import re
import urllib.parse

import pytest

from gate import WAIT, Gate, most_at_once
from penstock import wait_until


def printed(daemon, run, task=None):
    log = daemon.logs(run["id"], urllib.parse.quote(task) if task else None)
    return [re.sub(r"^\S+ [oe-] ", "", line) for line in log.splitlines()]


def states(run):
    return {task["name"]: task["state"] for task in run["tasks"]}


def task(run, name):
    return next(one for one in run["tasks"] if one["name"] == name)


DECIDING = """
name: shop
jobs:
  work:
    tasks:
      extract: {run: [sh, -c, "echo rows=ROWS >> $PENSTOCK_OUTPUT; echo 'note=a = b c' >> $PENSTOCK_OUTPUT"]}
      many: {run: [touch, many], needs: extract, if: tonumber(tasks.extract.output.rows) > 100}
      few:
        run: [sh, -c, "echo \\"$0 of ${tasks.extract.output.rows}, twice $TWICE\\"", "${tasks.extract.output.note}"]
        environment: {TWICE: "${tasks.extract.output.rows * 2}"}
        needs: extract
        if: tonumber(tasks.extract.output.rows) <= 100
      after_many: {run: [touch, after_many], needs: many}
      report: {run: [touch, report], needs: [many, few], if: "true"}
"""


def test_a_task_decides_by_what_another_has_found(start_daemon):
    daemon = start_daemon({"shop": DECIDING.replace("ROWS", "5")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    assert task(run, "extract")["output"] == {"rows": "5", "note": "a = b c"}
    assert states(run) == {"extract": "succeeded", "many": "skipped", "few": "succeeded", "after_many": "skipped",
                           "report": "succeeded"}
    assert task(run, "many")["reason"] == "its condition does not hold"
    assert task(run, "after_many")["reason"] == "its need 'many' was skipped"
    assert printed(daemon, run, "few") == ["a = b c of 5, twice 10"]
    assert not (daemon.work("shop") / "many").exists()
    daemon.put("shop", DECIDING.replace("ROWS", "500"))
    other = daemon.run_to_end("shop", "work")
    assert states(other) == {"extract": "succeeded", "many": "succeeded", "few": "skipped", "after_many": "succeeded",
                             "report": "succeeded"}


def test_outputs_survive_a_crash_in_the_middle_of_the_run(start_daemon):
    daemon = start_daemon({"shop": f"""
name: shop
jobs:
  work:
    tasks:
      extract: {{run: [sh, -c, "echo once >> extracted; echo rows=7 >> $PENSTOCK_OUTPUT"]}}
      gated: {{run: [sh, -c, "echo ready; {WAIT}"], needs: extract}}
      load: {{run: [echo, "got ${{tasks.extract.output.rows}}"], needs: gated}}
    grace: 1s
"""})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    wait_until(lambda: "ready" in daemon.logs(run_id, "gated"), "the second task")
    daemon.kill9()
    gate.open()
    daemon.start()
    run = daemon.wait_for_run(run_id)
    assert run["state"] == "succeeded", run
    assert printed(daemon, run, "load") == ["got 7"]
    assert (daemon.work("shop") / "extracted").read_text() == "once\n"


def test_output_as_json_and_as_nonsense(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  good:
    tasks:
      make: {run: [sh, -c, "echo '{\\"rows\\": 12, \\"names\\": [\\"a\\", \\"b\\"]}' > $PENSTOCK_OUTPUT"]}
      use: {run: [echo, "${tasks.make.output.rows + 1} ${tasks.make.output.names[2]}"], needs: make}
  bad: {run: [sh, -c, "echo 'no name, no value' > $PENSTOCK_OUTPUT"]}
  huge: {run: [sh, -c, "(printf name=; head -c 100000 /dev/zero | tr '\\\\0' x) > $PENSTOCK_OUTPUT"]}
  missing:
    tasks:
      make: {run: ["true"]}
      use: {run: [echo, "got ${tasks.make.output.rows}"], needs: make}
"""})
    run = daemon.run_to_end("shop", "good")
    assert run["state"] == "succeeded", run
    assert task(run, "make")["output"] == {"rows": 12, "names": ["a", "b"]}
    assert printed(daemon, run, "use") == ["13 b"]
    for job in ("bad", "huge"):
        run = daemon.run_to_end("shop", job)
        assert run["state"] == "failed"
        assert "what it wrote to $PENSTOCK_OUTPUT" in run["reason"], run["reason"]
    run = daemon.run_to_end("shop", "missing")
    assert run["state"] == "failed", "what is not there is not filled in with nothing"
    assert run["reason"].startswith("task use: ") and "rows" in run["reason"], run["reason"]


def test_if_sees_failures_and_allow_failure_forgives_them(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work:
    tasks:
      risky: {run: [sh, -c, "exit 3"]}
      cleanup: {run: [touch, cleaned], needs: risky, if: tasks.risky.state == 'failed' and tasks.risky.exit_code == 3}
      never: {run: [touch, never], needs: risky}
  forgiving:
    tasks:
      risky: {run: [sh, -c, "exit 3"], allow_failure: true}
      next: {run: [touch, next], needs: risky}
  confused:
    tasks:
      first: {run: ["true"]}
      second: {run: [touch, second], needs: first, if: tasks.first.output.rows.deep > 1}
"""})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["reason"]) == ("failed", "task risky: exit code 3"), "cleaning up does not mend it"
    assert states(run) == {"risky": "failed", "cleanup": "succeeded", "never": "skipped"}
    assert task(run, "never")["reason"] == "its need 'risky' failed"
    run = daemon.run_to_end("shop", "forgiving")
    assert run["state"] == "succeeded", run
    assert states(run) == {"risky": "failed", "next": "succeeded"}
    assert task(run, "risky")["reason"] == "exit code 3"
    run = daemon.run_to_end("shop", "confused")
    assert run["state"] == "failed"
    assert run["reason"].startswith("task second: if: "), run["reason"]
    assert not (daemon.work("shop") / "second").exists()


# ---- for_each ----

def test_one_instance_for_each_item(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work:
    tasks:
      list: {run: [sh, -c, "echo '{\\"files\\": [\\"a.csv\\", \\"b c.csv\\", \\"$(x)\\"]}' > $PENSTOCK_OUTPUT"]}
      load:
        run: [sh, -c, "echo \\"$PENSTOCK_ITEM_INDEX $PENSTOCK_ITEM $0\\"; echo size=${#PENSTOCK_ITEM} >> $PENSTOCK_OUTPUT", "${item}"]
        needs: list
        for_each: tasks.list.output.files
      fixed: {run: [echo, "${item.name} is ${item.n + 1}"], for_each: [{name: x, n: 1}, {name: y, n: 2}]}
      report: {run: [echo, "${tasks.load.output[2].size} and ${tasks.load.output[3].size}"], needs: [load, fixed]}
"""})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    items = {one["name"]: one["item"] for one in run["tasks"] if one["item"] is not None}
    assert items == {"load[0]": "a.csv", "load[1]": "b c.csv", "load[2]": "$(x)",
                     "fixed[0]": {"name": "x", "n": 1}, "fixed[1]": {"name": "y", "n": 2}}
    assert [printed(daemon, run, f"load[{n}]") for n in range(3)] == [["0 a.csv a.csv"], ["1 b c.csv b c.csv"], ["2 $(x) $(x)"]]
    assert [printed(daemon, run, f"fixed[{n}]") for n in range(2)] == [["x is 2"], ["y is 3"]]
    assert printed(daemon, run, "report") == ["7 and 4"]
    assert states(run)["load"] == states(run)["fixed"] == "succeeded"


def test_fan_out_keeps_to_max_parallel_and_ends_with_the_last(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work:
    tasks:
      part: {run: [sh, -c, "head -c 500000 /dev/urandom | sha256sum"], for_each: "params.items", max_parallel: 3}
      after: {run: [touch, after], needs: part}
    params: {items: {type: list}}
"""})
    run = daemon.wait_for_run(daemon.trigger("shop", "work", {"params": {"items": list(range(40))}}).json["id"], timeout=60)
    assert run["state"] == "succeeded", run
    parts = [one for one in run["tasks"] if one["item"] is not None]
    assert len(parts) == 40
    assert most_at_once(parts) == 3
    assert task(run, "after")["started_at"] >= max(part["ended_at"] for part in parts)
    assert [part["item"] for part in parts] == list(range(40))
    empty = daemon.wait_for_run(daemon.trigger("shop", "work", {"params": {"items": []}}).json["id"])
    assert empty["state"] == "succeeded" and states(empty) == {"part": "succeeded", "after": "succeeded"}


def test_a_failing_instance_fails_its_task_and_a_retry_repeats_only_it(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work:
    tasks:
      part:
        run: [sh, -c, "echo $PENSTOCK_ITEM >> done; test $PENSTOCK_ITEM != 2 -o $PENSTOCK_ATTEMPT = LUCKY"]
        for_each: [1, 2, 3]
      after: {run: [touch, after], needs: part}
    retry: {attempts: 2, backoff: 10ms}
"""})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "failed"
    assert run["reason"].startswith("task part: 1 of 3 instances did not succeed, first part[1]"), run["reason"]
    assert task(run, "part[1]")["reason"] == "exit code 1"
    assert states(run)["after"] == "skipped"
    assert sorted((daemon.work("shop") / "done").read_text().split()) == ["1", "2", "2", "3"]
    daemon.put("shop", daemon.get("/v1/pipelines/shop", {"Accept": "application/yaml"}).text.replace("LUCKY", "2"))
    (daemon.work("shop") / "done").unlink()
    lucky = daemon.run_to_end("shop", "work")
    assert (lucky["state"], lucky["attempt"]) == ("succeeded", 2), lucky
    assert sorted((daemon.work("shop") / "done").read_text().split()) == ["1", "2", "2", "3"]


@pytest.mark.parametrize("items", ["params.nothing", "'text'", "7", "params.broken.deeper"])
def test_what_is_no_list(start_daemon, items):
    daemon = start_daemon({"shop": f"""
name: shop
jobs: {{work: {{tasks: {{part: {{run: ["true"], for_each: "{items}"}}}}}}}}
"""})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "failed"
    assert run["reason"].startswith("task part: for_each: "), run["reason"]


def test_a_crash_during_a_fan_out_repeats_only_what_had_not_succeeded(start_daemon):
    daemon = start_daemon({"shop": f"""
name: shop
jobs:
  work:
    tasks:
      part:
        run: [sh, -c, "echo $PENSTOCK_ITEM >> done; test $PENSTOCK_ITEM -lt 3 || {WAIT}"]
        for_each: [1, 2, 3, 4, 5]
        max_parallel: 1
    grace: 1s
"""})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    done = daemon.work("shop") / "done"
    wait_until(lambda: done.exists() and done.read_text().split() == ["1", "2", "3"], "the third instance")
    daemon.kill9()
    gate.open()
    daemon.start()
    run = daemon.wait_for_run(run_id)
    assert run["state"] == "succeeded", run
    assert done.read_text().split() == ["1", "2", "3", "3", "4", "5"]
    assert len(run["tasks"]) == 6


# ---- parameters ----

TYPED = """
name: shop
topics: {out: {}}
jobs:
  work:
    params:
      n: {type: integer, default: 3, minimum: 1, maximum: 10}
      region: {choices: [eu, us], default: eu}
      day: {doc: the day to load}
      ratio: {type: number, default: 0.5}
      full: false
      files: {type: list, default: [a, b]}
      options: {type: object, default: {deep: {er: 1}}}
    run: [sh, -c, "env; echo \\"as argument: $0\\"", "${params.n + 1} ${params.region} ${params.files[1]} ${params.options.deep.er}"]
    environment: {FILLED: "${params.day}/${params.full}"}
  flowing:
    params: {least: {type: integer, default: 2}}
    steps:
      - filter: event.n >= params.least
      - map: {n: event.n, least: params.least, run: run.id}
    to: {topic: out}
"""


def test_parameters_reach_arguments_environment_and_expressions(start_daemon):
    daemon = start_daemon({"shop": TYPED})
    run = daemon.run_to_end("shop", "work", {"params": {"day": "2026-11-21", "n": 7.0}})
    assert run["state"] == "succeeded", run
    assert run["params"] == {"n": 7, "region": "eu", "day": "2026-11-21", "ratio": 0.5, "full": False, "files": ["a", "b"],
                             "options": {"deep": {"er": 1}}}
    lines = printed(daemon, run)
    assert "as argument: 8 eu a 1" in lines
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert seen["FILLED"] == "2026-11-21/false"
    assert (seen["PENSTOCK_PARAM_N"], seen["PENSTOCK_PARAM_REGION"], seen["PENSTOCK_PARAM_FULL"]) == ("7", "eu", "false")
    assert json.loads(seen["PENSTOCK_PARAM_FILES"]) == ["a", "b"]
    assert json.loads(seen["PENSTOCK_PARAM_OPTIONS"]) == {"deep": {"er": 1}}
    flowing = daemon.run_to_end("shop", "flowing", {"params": {"least": 4}, "events": [{"n": n} for n in range(6)]})
    assert flowing["state"] == "succeeded", flowing
    assert [event["data"] for event in daemon.events("out")] == [
        {"n": n, "least": 4, "run": flowing["id"]} for n in (4, 5)]


@pytest.mark.parametrize("given, wrong", [
    ({"day": "x", "n": "many"}, {"/params/n": 'must be an integer, not "many"'}),
    ({"day": "x", "n": 3.5}, {"/params/n": "must be an integer, not 3.5"}),
    ({"day": "x", "n": 11}, {"/params/n": "must be from 1 to 10, not 11"}),
    ({"day": "x", "region": "mars"}, {"/params/region": 'must be one of "eu", "us", not "mars"'}),
    ({"day": "x", "full": "yes"}, {"/params/full": 'must be a boolean, not "yes"'}),
    ({"day": 7}, {"/params/day": "must be a string, not 7"}),
    ({"day": "x", "files": {"a": 1}}, {"/params/files": 'must be a list, not {"a":1}'}),
    ({}, {"/params/day": "is missing: a string (the day to load)"}),
    ({"n": None, "dya": "x"}, {"/params/n": "must be an integer, not null", "/params/dya": "'day'"}),
])
def test_wrong_parameters_are_named_all_at_once(start_daemon, given, wrong):
    daemon = start_daemon({"shop": TYPED})
    answer = daemon.trigger("shop", "work", {"params": given})
    assert answer.status == 422, answer
    assert answer.headers["content-type"] == "application/problem+json"
    found = {problem["pointer"]: problem["detail"] for problem in answer.json["errors"]}
    assert set(found) == set(wrong), found
    for pointer, detail in wrong.items():
        assert detail in found[pointer], found
    assert daemon.runs("shop") == []


def test_a_parameter_is_data_and_never_a_program(start_daemon):
    """What looks like a reference, a fill-in, shell or Lua in a parameter's value stays text."""
    daemon = start_daemon({"shop": TYPED + """
  plain: {params: {text: {}}, run: [printf, "%s", "<${params.text}>"], environment: {COPY: "${params.text}"}}
"""}, env={"SHOP_TOKEN": "hush-hush"})
    for text in ("${env:SHOP_TOKEN}", "${params.text}", "$(id)", "`id`", "'; os.exit() --", "]]..x..[[", "ü 中 \\ \" %s %n", "a\nb"):
        run = daemon.run_to_end("shop", "plain", {"params": {"text": text}})
        assert run["state"] == "succeeded", run
        assert "\n".join(printed(daemon, run)) == f"<{text}>"
    assert "hush-hush" not in daemon.get("/v1/runs").text


def test_defaults_that_do_not_fit_are_refused(start_daemon):
    daemon = start_daemon()
    answer = daemon.put("shop", """
name: shop
jobs:
  work:
    run: ["true", "${params.regoin}"]
    params: {n: {type: integer, default: three}, region: {choices: [eu, us], default: mars}}
""", expect=(422,))
    details = {problem["pointer"]: problem["detail"] for problem in answer.json["errors"]}
    assert 'must be an integer, not "three"' in details["/jobs/work/params/n/default"], details
    assert 'must be one of "eu", "us"' in details["/jobs/work/params/region/default"], details
    assert any("regoin" in detail and "region" in detail for detail in details.values()), details
