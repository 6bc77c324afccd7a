"""Doing it again: retries by exit code and within a budget, a run repeated from where it failed, backfill, and the timeline
that tells what happened."""
import concurrent.futures
import json
import os

import pytest

from gate import WAIT, Gate, at
from penstock import wait_until


def shop(body):
    return "name: shop\njobs:\n  work:\n" + "".join(f"    {line}\n" for line in body.strip().splitlines())


def lines(daemon, file):
    path = daemon.work("shop") / file
    return path.read_text().split() if path.exists() else []


# ---- retry rules ----

@pytest.mark.parametrize("rule, codes, attempts", [
    ("exit_codes: [75, 111]", [75, 111, 0], 3),
    ("exit_codes: [75, 111]", [75, 2, 0], 2),
    ("exit_codes: 75", [1, 0], 1),
    ("not_exit_codes: [2]", [1, 75, 0], 3),
    ("not_exit_codes: [2, 64]", [1, 64, 0], 2),
])
def test_retries_by_exit_code(start_daemon, rule, codes, attempts):
    script = "; ".join(f"test $PENSTOCK_ATTEMPT != {n} || exit {code}" for n, code in enumerate(codes, start=1))
    daemon = start_daemon({"shop": shop(f"run: [sh, -c, \"{script}\"]\nretry: {{attempts: 5, backoff: 10ms, {rule}}}")})
    run = daemon.run_to_end("shop", "work")
    last = codes[attempts - 1]
    assert (run["state"], run["attempt"]) == ("succeeded" if last == 0 else "failed", attempts), run
    if last:
        assert run["reason"].startswith(f"task main: exit code {last}"), run["reason"]
        assert "not" in run["reason"] and "retried" in run["reason"], "it says why there was no other attempt"


def test_death_by_a_signal_has_no_exit_code_to_retry_by(start_daemon):
    daemon = start_daemon({"shop": shop("""
run: [sh, -c, "kill -SEGV $$"]
retry: {attempts: 3, backoff: 10ms, exit_codes: [75, 139]}
""")})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["attempt"]) == ("failed", 1)
    assert run["reason"].startswith("task main: killed by SIGSEGV"), run["reason"]


def test_a_retry_budget_is_shared_by_all_runs_of_the_job(start_daemon):
    daemon = start_daemon({"shop": shop("""
run: ["false"]
retry: {attempts: 10, backoff: 10ms, budget: {retries: 3, within: 1h}}
""")})
    first = daemon.run_to_end("shop", "work")
    second = daemon.run_to_end("shop", "work")
    assert [(run["state"], run["attempt"]) for run in (first, second)] == [("failed", 4), ("failed", 1)]
    for run in (first, second):
        assert run["reason"] == "task main: exit code 1; the retry budget of 3 in 1h is spent"


# ---- the same run once more ----

FAILS = """
tasks:
  extract: {run: [sh, -c, "echo extract >> order; echo rows=$RANDOM_LOOKING >> $PENSTOCK_OUTPUT"], environment: {RANDOM_LOOKING: "41"}}
  load: {run: [sh, -c, "echo load-${tasks.extract.output.rows} >> order; test -e mended"], needs: extract}
  report: {run: [sh, -c, "echo report >> order"], needs: load}
"""


def repeat(daemon, run_id, query="", expect=202):
    answer = daemon.post(f"/v1/runs/{run_id}/retry{query}")
    assert answer.status == expect, answer
    return answer


def test_a_repeated_run_goes_on_where_it_failed(start_daemon):
    daemon = start_daemon({"shop": shop(FAILS)})
    failed = daemon.run_to_end("shop", "work", {"params": {"day": "monday"}})
    assert (failed["state"], failed["reason"]) == ("failed", "task load: exit code 1")
    assert lines(daemon, "order") == ["extract", "load-41"]
    (daemon.work("shop") / "mended").touch()
    answer = repeat(daemon, failed["id"])
    assert answer.headers["location"] == f"/v1/runs/{answer.json['id']}"
    run = daemon.wait_for_run(answer.json["id"])
    assert (run["state"], run["retry_of"], run["params"]) == ("succeeded", failed["id"], {"day": "monday"})
    assert lines(daemon, "order") == ["extract", "load-41", "load-41", "report"], "what had succeeded was not done again"
    extract = run["tasks"][0]
    assert (extract["name"], extract["state"], extract["output"]) == ("extract", "succeeded", {"rows": "41"})
    assert daemon.run(failed["id"]) == failed, "the failed one stays as it was"


def test_a_repeated_run_from_the_start(start_daemon):
    daemon = start_daemon({"shop": shop(FAILS)})
    failed = daemon.run_to_end("shop", "work")
    (daemon.work("shop") / "mended").touch()
    (daemon.work("shop") / "order").unlink()
    run = daemon.wait_for_run(repeat(daemon, failed["id"], "?from=start").json["id"])
    assert (run["state"], run["retry_of"]) == ("succeeded", failed["id"])
    assert lines(daemon, "order") == ["extract", "load-41", "report"]
    repeat(daemon, failed["id"], "?from=middle", expect=400)
    repeat(daemon, "01ARZ3NDEKTSV4RRFFQ69G5FAV", expect=404)


def test_a_repeated_run_has_the_same_input_byte_by_byte(start_daemon):
    daemon = start_daemon({"shop": shop("""
run: [sh, -c, "cat > input-$PENSTOCK_RUN_ID; test -e mended"]
""") + """
  by_topic: {trigger: {topic: arrivals, max_events: 3}, run: [sh, -c, "cat > input-$PENSTOCK_RUN_ID; test -e mended"]}
topics: {arrivals: {retain: 1h}}
"""})
    body = ('{"events": [{"n":1,   "text":"gr\\u00f6\\u00dfer ü 中", "big": 12345678901234567890, "f": 1.10},'
            '\n {"e": 1e3, "empty": {}, "list": [ ] }, {"n": 3}]}').encode()
    for job in ("work", "by_topic"):
        if job == "work":
            answer = daemon.post("/v1/pipelines/shop/jobs/work/runs", body, {"Content-Type": "application/json"})
            failed = daemon.wait_for_run(answer.json["id"])
        else:
            daemon.publish("arrivals", [{"n": n, "text": "ü\\ \" \u0001"} for n in range(3)])
            failed, = daemon.wait_for_runs("shop", "by_topic", 1)
            daemon.publish("arrivals", [{"later": True}])
            daemon.wait_for_runs("shop", "by_topic", 2)
        assert failed["state"] == "failed"
        again = daemon.wait_for_run(repeat(daemon, failed["id"]).json["id"])
        texts = [(daemon.work("shop") / f"input-{run['id']}").read_bytes() for run in (failed, again)]
        assert texts[0] == texts[1]
        assert texts[0].count(b"\n") == again["input"]["events"] == 3


def test_a_run_that_has_not_ended_is_not_repeated(start_daemon):
    daemon = start_daemon({"shop": shop(f"run: [sh, -c, \"{WAIT}\"]")})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    repeat(daemon, run_id, expect=409)
    gate.open()
    daemon.wait_for_run(run_id)
    assert len(daemon.runs("shop")) == 1


# ---- backfill ----

HOURLY = """
name: shop
jobs:
  work:
    trigger: {cron: "0 * * * *"}
    run: [sh, -c, "echo $PENSTOCK_SCHEDULED_FOR $PENSTOCK_PARAM_KIND >> hours"]
    params: {kind: live}
    MORE
  plain: {run: ["true"]}
"""


def backfill(daemon, body, job="work", query="", expect=202):
    answer = daemon.post(f"/v1/pipelines/shop/jobs/{job}/backfill{query}", body)
    assert answer.status == expect, answer
    return answer.json


def test_backfill_makes_one_run_for_each_time(start_daemon):
    daemon = start_daemon({"shop": HOURLY.replace("MORE", "max_active: 2")})
    span = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z", "params": {"kind": "filled"}}
    assert backfill(daemon, span, query="?dry_run=true", expect=200) == {"made": 48, "existing": 0, "runs": []}
    assert daemon.runs("shop") == [], "a dry run makes nothing"
    made = backfill(daemon, span)
    assert (made["made"], made["existing"], len(set(made["runs"]))) == (48, 0, 48)
    runs = daemon.wait_for_runs("shop", "work", 48)
    assert {run["id"] for run in runs} == set(made["runs"])
    assert {(run["state"], run["trigger"]) for run in runs} == {("succeeded", "backfill")}
    wanted = [f"2026-01-{day:02}T{hour:02}:00:00.000000Z" for day in (1, 2) for hour in range(24)]
    assert sorted(run["scheduled_for"] for run in runs) == wanted
    seen = (daemon.work("shop") / "hours").read_text().splitlines()
    assert sorted(line.split()[0] for line in seen) == wanted
    assert {line.split()[1] for line in seen} == {"filled"}

    wider = {"from": "2025-12-31T22:00:00Z", "to": "2026-01-03T02:00:00Z"}
    more = backfill(daemon, wider)
    assert (more["made"], more["existing"], len(more["runs"])) == (4, 48, 4)
    daemon.wait_for_runs("shop", "work", 52)
    assert backfill(daemon, wider)["made"] == 0
    assert backfill(daemon, {**wider, "again": True})["made"] == 52


def test_backfill_keeps_to_its_limit_and_survives_a_crash(start_daemon):
    daemon = start_daemon({"shop": HOURLY.replace("MORE", "max_active: 3").replace("echo", f"{WAIT}; echo")})
    gate = Gate(daemon.work("shop"))
    made = backfill(daemon, {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"})
    wait_until(lambda: daemon.job("shop", "work")["running"] == 3, "three runs")
    assert daemon.job("shop", "work")["queued"] == 21
    daemon.kill9()
    gate.open()
    daemon.start()
    runs = daemon.wait_for_runs("shop", "work", 24)
    assert {run["id"] for run in runs} == set(made["runs"])
    assert {run["state"] for run in runs} == {"succeeded"}
    assert len(set(lines(daemon, "hours")) - {"live"}) == 24


def test_two_backfills_at_once_make_each_run_once(start_daemon):
    daemon = start_daemon({"shop": HOURLY.replace("MORE", "max_active: 1").replace("echo", f"{WAIT}; echo")})
    gate = Gate(daemon.work("shop"))
    span = {"from": "2025-01-01T00:00:00Z", "to": "2025-05-01T00:00:00Z"}
    hours = 120 * 24
    with concurrent.futures.ThreadPoolExecutor(3) as requests:
        asked = [requests.submit(daemon.post, "/v1/pipelines/shop/jobs/work/backfill", span) for _ in range(3)]
        answers = [one.result() for one in asked]
    assert {answer.status for answer in answers} <= {202, 409}, answers
    assert sum(answer.json["made"] for answer in answers if answer.status == 202) == hours
    for answer in answers:
        assert answer.status == 202 or "another request" in answer.json["detail"], answer
    job = daemon.job("shop", "work")
    assert job["queued"] + job["running"] == hours
    assert backfill(daemon, span)["made"] == 0, "nothing is locked out for ever"
    daemon.kill9()
    gate.open()


@pytest.mark.parametrize("body, status", [
    ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, 422),
    ({"from": "yesterday", "to": "2026-01-01T00:00:00Z"}, 422),
    ({"from": "2026-01-01T00:00:00Z"}, 422),
    ({"from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, 422),
    ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "form": 1}, 422),
    ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "params": {"kind": 7}}, 422),
])
def test_backfill_refuses_what_it_cannot_do(start_daemon, body, status):
    daemon = start_daemon({"shop": HOURLY.replace("MORE", "")})
    backfill(daemon, body, expect=status)
    backfill(daemon, {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}, job="plain", expect=409)
    backfill(daemon, {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}, job="walk", expect=404)
    assert daemon.runs("shop") == []


# ---- timeline ----

def told(run):
    timeline = run["timeline"]
    times = [at(entry["at"]) for entry in timeline]
    assert times == sorted(times)
    return [entry["what"] for entry in timeline], [entry["detail"] or "" for entry in timeline]


def test_the_timeline_tells_of_waiting_retrying_and_the_end(start_daemon):
    daemon = start_daemon({"shop": shop(f"""
run: [sh, -c, "{WAIT}; test $PENSTOCK_ATTEMPT = 2"]
retry: {{attempts: 2, backoff: 10ms}}
""")})
    gate = Gate(daemon.work("shop"))
    first, second = (daemon.trigger("shop", "work").json["id"] for _ in range(2))
    what, detail = told(daemon.run(second))
    assert what == ["queued"] and "made by a request" in detail[0], daemon.run(second)
    gate.open()
    for run_id in (first, second):
        daemon.wait_for_run(run_id)
    what, detail = told(daemon.run(first))
    assert what == ["running", "retrying", "running", "succeeded"], daemon.run(first)["timeline"]
    assert "made by a request" in detail[0] and "exit code 1" in detail[1] and "attempt 2" in detail[2]
    what, _ = told(daemon.run(second))
    assert what == ["queued", "running", "retrying", "running", "succeeded"]


def test_the_timeline_tells_of_interruptions_and_cancelling(start_daemon):
    daemon = start_daemon({"shop": shop(f"run: [sh, -c, \"{WAIT}\"]\ngrace: 1s")})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    daemon.kill9()
    daemon.start()
    wait_until(lambda: daemon.run(run_id)["state"] == "running", "it to run again")
    daemon.cancel(run_id)
    run = daemon.wait_for_run(run_id)
    gate.open()
    what, detail = told(run)
    assert what == ["running", "interrupted", "running", "cancelled"], run["timeline"]
    assert detail[-1] == "cancelled by request"
    assert json.dumps(run).count("interrupted") >= 1 and run["interruptions"] == 1


# ---- after a crash, what came first goes first ----

def test_events_that_wait_do_not_overtake_the_run_that_a_crash_has_cut_off(start_daemon, tmp_path):
    """Not even where the run waits for room at the next start, and the events are older than the run."""
    definition = """
name: shop
max_active: %d
topics: {orders: {}}
jobs:
  busy: {run: [cat, busy]}
  load: {trigger: {topic: orders, max_events: 1, max_wait: 1s}, run: [sh, -c, "cat >> seen; cat gate"]}
"""
    file = tmp_path / "shop.yaml"
    file.write_text(definition % 2)
    daemon = start_daemon(tmp_path)
    work = daemon.work("shop")
    work.mkdir(parents=True, exist_ok=True)
    os.mkfifo(work / "busy")
    os.mkfifo(work / "gate")
    busy = daemon.trigger("shop", "busy").json["id"]
    daemon.publish("orders", [{"n": 1}, {"n": 2}])
    def seen():
        file = work / "seen"
        return [json.loads(line)["n"] for line in file.read_text().splitlines()] if file.exists() else []

    wait_until(lambda: seen() == [1], "the first event in its program")
    daemon.kill9()
    file.write_text(definition % 1)
    daemon.start()
    first = daemon.runs("shop", "load")[0]
    assert first["state"] == "queued", first
    (work / "gate").unlink()
    (work / "gate").touch()
    daemon.cancel(busy)
    daemon.wait_for_runs("shop", "load", 2)
    assert seen() == [1, 1, 2]


def test_a_pause_between_attempts_keeps_its_place_across_a_crash(start_daemon):
    daemon = start_daemon({"shop": shop("""
run: [sh, -c, "echo $PENSTOCK_PARAM_WHO >> seen; exit $PENSTOCK_PARAM_CODE"]
retry: {attempts: 2, backoff: 1h}
""")})
    first = daemon.trigger("shop", "work", {"params": {"who": "a", "code": 1}}).json["id"]
    wait_until(lambda: daemon.run(first)["state"] == "retrying", "the pause")
    second = daemon.trigger("shop", "work", {"params": {"who": "b", "code": 0}}).json["id"]
    assert daemon.run(second)["waiting_reason"] == "another run of this job is active"
    daemon.kill9()
    daemon.start()
    assert daemon.run(first)["waiting_reason"].startswith("attempt 2 of 2 at")
    assert daemon.run(second)["waiting_reason"] == "another run of this job is active"
    assert lines(daemon, "seen") == ["a"]
    daemon.cancel(first)
    assert daemon.wait_for_run(second)["state"] == "succeeded"
    assert lines(daemon, "seen") == ["a", "b"]
