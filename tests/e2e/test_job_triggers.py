"""The other things that start a run: a file that arrives, a signed webhook, one point in time, events that match, quiet after
a storm of events."""
import concurrent.futures
import datetime
import json
import os

import pytest

from gate import WAIT, Gate, at, let_time_pass
from penstock import signed, wait_until

FILES = """
name: shop
jobs:
  load:
    trigger: {file: {path: "inbox/*.csv", settle: 300ms, MORE}}
    run: [sh, -c, "cat $PENSTOCK_FILE >> loaded; cat >> events"]
"""


@pytest.fixture
def inbox(start_daemon):
    """inbox(more, ...): a daemon whose job takes files, and the folder they arrive in."""
    def start(more="move_to: done", text=FILES, exists=True):
        daemon = start_daemon()
        folder = daemon.work("shop") / "inbox"
        if exists:
            folder.mkdir(parents=True)
        daemon.put("shop", text.replace("MORE", more))
        return daemon, folder
    return start


def loaded(daemon):
    path = daemon.work("shop") / "loaded"
    return path.read_text() if path.exists() else ""


def test_a_file_that_is_moved_in(inbox):
    daemon, folder = inbox()
    (folder / "orders.tmp").write_text("1,2\n")
    (folder / "orders.tmp").rename(folder / "orders.csv")
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert (run["state"], run["trigger"], run["input"]["events"]) == ("succeeded", "file", 1), run
    assert loaded(daemon) == "1,2\n"
    event = json.loads((daemon.work("shop") / "events").read_text())
    assert (event["path"], event["name"], event["size"]) == (str(folder / "orders.csv"), "orders.csv", 4)
    wait_until((folder / "done" / "orders.csv").exists, "the file to be put away")
    assert not (folder / "orders.csv").exists()
    daemon.restart()
    assert len(daemon.runs("shop", "load")) == 1


def test_a_slowly_written_file_is_taken_once_complete(inbox):
    daemon, folder = inbox()
    with open(folder / "slow.csv", "w", encoding="utf-8") as file:
        for part in range(4):
            print(f"part {part}", file=file, flush=True)
            let_time_pass(0.6)  # longer than it has to settle: it is still open
            assert daemon.runs("shop", "load") == []
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["state"] == "succeeded"
    assert loaded(daemon).splitlines() == [f"part {n}" for n in range(4)]
    wait_until((folder / "done" / "slow.csv").exists, "the file to be put away")
    assert len(daemon.runs("shop", "load")) == 1


def test_what_does_not_match_and_what_was_there_before(inbox):
    daemon, folder = inbox(exists=False)
    assert daemon.runs("shop", "load") == []
    folder.mkdir()  # after the job began to look
    (folder / "notes.txt").write_text("not this")
    (folder / ".hidden.csv").write_text("not this either")
    (folder / "sub.csv").mkdir()
    daemon.stop()
    (folder / "early.csv").write_text("while it was down\n")
    daemon.start()
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["state"] == "succeeded"
    assert loaded(daemon) == "while it was down\n"
    wait_until((folder / "done" / "early.csv").exists, "the file to be put away")
    assert {path.name for path in folder.iterdir()} == {"notes.txt", ".hidden.csv", "sub.csv", "done"}


def test_each_of_many_files_is_taken_once(inbox):
    """So many, and so close to each other, that one is put away while others are looked at."""
    count = 400
    daemon, folder = inbox("move_to: done", text=FILES.replace("settle: 300ms", "settle: 10ms"))
    for n in range(count):
        (folder / f"{n}.csv").write_text(f"file {n}\n")
    done = folder / "done"
    wait_until(lambda: done.exists() and len(os.listdir(done)) == count, "all to be put away", timeout=60)
    (folder / "last.csv").write_text("the last\n")
    wait_until((done / "last.csv").exists, "the last one to be put away")
    assert sorted(loaded(daemon).splitlines()) == sorted([f"file {n}" for n in range(count)] + ["the last"])
    runs = daemon.wait_for_runs("shop", "load", count + 1)
    assert {run["state"] for run in runs} == {"succeeded"}


def test_several_files_in_one_run(inbox):
    daemon, folder = inbox("move_to: done, max_files: 3, max_wait: 1500ms", text=FILES.replace("cat $PENSTOCK_FILE >> loaded; ", ""))
    for n in range(5):
        (folder / f"{n}.csv").write_text(f"file {n}\n")
    runs = daemon.wait_for_runs("shop", "load", 2)
    assert [run["input"]["events"] for run in runs] == [3, 2], "as many as may be, then the rest after its wait"
    names = [json.loads(line)["name"] for line in (daemon.work("shop") / "events").read_text().splitlines()]
    assert sorted(names) == [f"{n}.csv" for n in range(5)]


def test_a_file_of_a_failed_run_goes_elsewhere_and_names_are_kept_apart(inbox):
    daemon, folder = inbox("move_to: done, move_failed_to: ../failed", text=FILES.replace("cat >> events", "! grep -q bad $PENSTOCK_FILE"))
    for text, state in (("good one\n", "succeeded"), ("bad one\n", "failed"), ("good two\n", "succeeded")):
        before = len(daemon.runs("shop", "load"))
        (folder / "orders.csv").write_text(text)
        run = daemon.wait_for_runs("shop", "load", before + 1)[-1]
        assert run["state"] == state, run
        wait_until(lambda: not (folder / "orders.csv").exists(), "the file to be put away")
    assert (folder.parent / "failed" / "orders.csv").read_text() == "bad one\n"
    assert sorted(path.read_text() for path in (folder / "done").iterdir()) == ["good one\n", "good two\n"], "none is overwritten"


def test_a_file_that_stays_counts_again_when_it_changes(inbox):
    daemon, folder = inbox("max_files: 1")
    (folder / "stock.csv").write_text("one\n")
    daemon.wait_for_runs("shop", "load", 1)
    daemon.restart()
    (folder / "other.csv").write_text("other\n")
    daemon.wait_for_runs("shop", "load", 2)
    assert loaded(daemon) == "one\nother\n", "what was taken is not taken again"
    (folder / "stock.csv").write_text("two\n")
    daemon.wait_for_runs("shop", "load", 3)
    assert loaded(daemon) == "one\nother\ntwo\n"


def test_a_file_is_deleted_when_that_is_asked_for(inbox):
    daemon, folder = inbox("remove: true")
    (folder / "orders.csv").write_text("x\n")
    daemon.wait_for_runs("shop", "load", 1)
    wait_until(lambda: not os.listdir(folder), "the file to be gone")


def test_a_crash_while_a_file_is_worked_on(inbox):
    daemon, folder = inbox(text=FILES.replace("cat $PENSTOCK_FILE", f"{WAIT}; cat $PENSTOCK_FILE") + "    grace: 1s\n")
    gate = Gate(daemon.work("shop"))
    (folder / "orders.csv").write_text("x\n")
    for _ in range(3):
        wait_until(lambda: daemon.job("shop", "load")["running"] == 1, "the run")
        daemon.kill9()
        daemon.start()
    gate.open()
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert (run["state"], run["interruptions"]) == ("succeeded", 3)
    assert loaded(daemon) == "x\n"
    wait_until((folder / "done" / "orders.csv").exists, "the file to be put away")


# ---- webhook ----

SECRET = "correct horse battery staple"
HOOK = """
name: shop
jobs:
  deploy:
    trigger: {webhook: {path: /deploy, signature: {header: X-Signature, secret: "${env:HOOK_SECRET}"}}}
    run: [sh, -c, "cat >> posted"]
  open: {trigger: {webhook: /open}, run: [sh, -c, "cat >> opened"]}
"""


def test_a_signed_webhook_makes_a_run_of_what_was_posted(start_daemon):
    daemon = start_daemon({"shop": HOOK}, env={"HOOK_SECRET": SECRET})
    body = b'{"ref": "main",  "text": "gr\xc3\xb6\xc3\x9fer"}'
    answer = daemon.request("POST", "/hooks/deploy", body, signed(SECRET, body, "X-Signature"))
    assert answer.status == 202, answer
    run, = daemon.wait_for_runs("shop", "deploy", 1)
    assert (run["state"], run["trigger"], run["input"]["events"]) == ("succeeded", "webhook", 1), run
    assert json.loads((daemon.work("shop") / "posted").read_text()) == {"ref": "main", "text": "größer"}
    for headers in ({}, {"X-Signature": "00" * 32}, signed("another secret", body, "X-Signature"),
                    signed(SECRET, body + b" ", "X-Signature")):
        assert daemon.request("POST", "/hooks/deploy", body, {"Content-Type": "application/json", **headers}).status == 401
    malformed = b'{"ref": '
    assert daemon.request("POST", "/hooks/deploy", malformed, signed(SECRET, malformed, "X-Signature")).status == 400
    assert len(daemon.runs("shop", "deploy")) == 1
    assert SECRET not in daemon.log.read_text()


def test_a_webhook_that_was_answered_is_kept(start_daemon):
    daemon = start_daemon({"shop": HOOK}, env={"HOOK_SECRET": SECRET})
    for n in range(20):
        assert daemon.request("POST", "/hooks/open", {"n": n}).status == 202
    daemon.kill9()
    daemon.start()
    assert {run["state"] for run in daemon.wait_for_runs("shop", "open", 20)} == {"succeeded"}
    assert {json.loads(line)["n"] for line in (daemon.work("shop") / "opened").read_text().splitlines()} == set(range(20))


def test_a_webhook_comes_and_goes_with_its_definition(start_daemon):
    daemon = start_daemon({"shop": HOOK}, env={"HOOK_SECRET": SECRET})
    other = "name: store\njobs: {deploy: {trigger: {webhook: /open}, run: [\"true\"]}}\n"
    refused = daemon.put("store", other, expect=(422,))
    assert "/open" in json.dumps(refused.json), "the path is taken, and by whom"
    assert daemon.request("DELETE", "/v1/pipelines/shop").status in (200, 202, 204)
    assert daemon.request("POST", "/hooks/open", {"n": 1}).status == 404
    daemon.put("store", other)
    assert daemon.request("POST", "/hooks/open", {"n": 1}).status == 202
    daemon.wait_for_runs("store", "deploy", 1)


# ---- at ----

def in_seconds(seconds):
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def once_at(time):
    return f"name: shop\njobs: {{work: {{trigger: {{at: \"{time}\"}}, run: [\"true\"]}}}}\n"


def test_at_a_time_once(start_daemon):
    time = in_seconds(1.5)
    daemon = start_daemon({"shop": once_at(time)})
    assert daemon.runs("shop") == []
    assert daemon.job("shop", "work")["next_firing"] == time
    run, = daemon.wait_for_runs("shop", "work", 1)
    assert (run["state"], run["trigger"], run["scheduled_for"]) == ("succeeded", "at", time)
    assert datetime.timedelta(0) <= at(run["created_at"]) - at(time) < datetime.timedelta(seconds=2)
    assert daemon.job("shop", "work")["next_firing"] is None
    daemon.restart()
    daemon.put("shop", once_at(time).replace("true", "/bin/true"))
    assert daemon.trigger("shop", "work", wait="20s").json["state"] == "succeeded"
    assert [run["trigger"] for run in daemon.runs("shop")] == ["at", "rest"], "once means once"


def test_a_time_that_passed_while_the_daemon_was_down(start_daemon):
    time = in_seconds(1)
    daemon = start_daemon({"shop": once_at(time)})
    daemon.kill9()
    let_time_pass(1.2)
    daemon.start()
    run, = daemon.wait_for_runs("shop", "work", 1)
    assert (run["state"], run["trigger"], run["scheduled_for"]) == ("succeeded", "at", time)


# ---- where, debounce ----

def topic_job(trigger):
    return f"""
name: shop
topics: {{arrivals: {{}}}}
jobs:
  load: {{trigger: {{topic: arrivals, {trigger}}}, run: [sh, -c, "cat >> seen"]}}
"""


def seen(daemon):
    path = daemon.work("shop") / "seen"
    return [json.loads(line)["n"] for line in path.read_text().splitlines()] if path.exists() else []


def test_where_chooses_the_events_that_count(start_daemon):
    daemon = start_daemon({"shop": topic_job("where: event.n % 10 == 0, max_events: 4")})
    daemon.publish("arrivals", [{"n": n} for n in range(1, 10)])
    daemon.publish("arrivals", [{"n": n} for n in range(10, 100)])
    wait_until(lambda: seen(daemon)[-1:] == [90], "all that count")
    daemon.wait_until_quiet("shop")
    runs = daemon.runs("shop", "load")
    assert {run["state"] for run in runs} == {"succeeded"}
    assert sum(run["input"]["events"] for run in runs) == 9
    assert max(run["input"]["events"] for run in runs) <= 4
    assert seen(daemon) == list(range(10, 100, 10))
    daemon.restart()
    daemon.publish("arrivals", [{"n": 100}])
    wait_until(lambda: seen(daemon)[-1] == 100, "the next one")
    assert seen(daemon) == list(range(10, 101, 10)), "none is passed over or taken twice"


def test_events_that_are_passed_over_are_no_backlog(start_daemon):
    """They start nothing, so nobody is behind."""
    daemon = start_daemon({"shop": topic_job("where: event.n > 1000")})
    daemon.publish("arrivals", [{"n": n} for n in range(50)])
    daemon.wait_until_quiet("shop")
    assert daemon.runs("shop") == []
    daemon.restart()
    daemon.wait_until_quiet("shop")
    daemon.publish("arrivals", [{"n": 1001}])
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert (run["state"], run["input"]["events"]) == ("succeeded", 1)
    assert seen(daemon) == [1001]


def test_where_that_fails_for_some_events_loses_none_silently(start_daemon):
    daemon = start_daemon({"shop": topic_job("where: event.deep.er > 1")})
    daemon.publish("arrivals", [{"n": 1}, {"n": 2, "deep": {"er": 5}}, {"n": 3, "deep": "flat"}])
    daemon.wait_until_quiet("shop")
    assert seen(daemon) == [2]
    assert daemon.get("/readyz").status == 200
    assert daemon.job("shop", "load")["expression_failures"] == 2


def test_the_cursor_that_is_shown_never_goes_back(start_daemon):
    daemon = start_daemon({"shop": topic_job("where: event.n > 1000, max_wait: 1h, max_events: 2")})

    def consumer():
        return daemon.topic("arrivals")["consumers"][0]
    daemon.publish("arrivals", [{"n": n} for n in range(50)])
    wait_until(lambda: consumer()["cursor"] == 50, "all to be passed over")
    daemon.publish("arrivals", [{"n": 1001}])
    assert (consumer()["cursor"], consumer()["lag"]) == (50, 1), "what was passed over is no backlog again"
    daemon.publish("arrivals", [{"n": 1}, {"n": 1002}])
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["input"]["events"] == 2
    wait_until(lambda: consumer()["cursor"] == 53, "the cursor behind them")
    assert seen(daemon) == [1001, 1002]


def test_of_two_pipelines_at_once_one_gets_the_path(start_daemon):
    daemon = start_daemon()
    for n in range(10):
        texts = [f"name: {name}{n}\njobs: {{build: {{trigger: {{webhook: /build{n}}}, run: [\"true\"]}}}}\n" for name in ("one", "two")]
        with concurrent.futures.ThreadPoolExecutor(2) as both:
            answers = list(both.map(lambda text: daemon.put(text.split()[1], text, expect=(201, 422)), texts))
        assert sorted(answer.status for answer in answers) == [201, 422], answers
        refused = next(answer for answer in answers if answer.status == 422)
        assert f"/build{n}" in json.dumps(refused.json)
        assert daemon.request("POST", f"/hooks/build{n}", {"n": n}).status == 202


def test_debounce_waits_for_quiet(start_daemon):
    daemon = start_daemon({"shop": topic_job("debounce: 700ms")})
    for n in range(8):
        daemon.publish("arrivals", [{"n": n}])
        let_time_pass(0.15)
        assert daemon.runs("shop") == []
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["input"]["events"] == 8
    quiet_since = at(daemon.events("arrivals")[-1]["time"])
    assert at(run["created_at"]) - quiet_since >= datetime.timedelta(seconds=0.69)
    assert seen(daemon) == list(range(8))


def test_debounce_waits_no_longer_than_max_wait(start_daemon):
    daemon = start_daemon({"shop": topic_job("debounce: 900ms, max_wait: 1s")})
    for n in range(10):
        daemon.publish("arrivals", [{"n": n}])
        let_time_pass(0.15)
    runs = wait_until(lambda: daemon.runs("shop", "load"), "a run in the middle of the storm")
    first = at(daemon.events("arrivals")[0]["time"])
    waited = at(runs[0]["created_at"]) - first
    assert datetime.timedelta(seconds=0.99) <= waited < datetime.timedelta(seconds=4), waited
    daemon.wait_until_quiet("shop")
    assert seen(daemon) == list(range(10))


def test_a_run_that_is_made_too_late_starts_nothing(start_daemon):
    """An `at` that was missed, of a job whose deadline has passed since."""
    text = "name: shop\njobs: {work: {trigger: {at: 2026-01-01T00:00:00Z}, deadline: 1m, run: [touch, ran]}}\n"
    daemon = start_daemon({"shop": text})
    run, = daemon.wait_for_runs("shop", "work", 1)
    assert run["state"] == "timed_out" and "its deadline of 1m has passed" in run["reason"]
    daemon.stop()
    assert not (daemon.work("shop") / "ran").exists()
    daemon.start()
    assert len(daemon.runs("shop", "work")) == 1
