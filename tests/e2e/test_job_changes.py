"""What happens to runs when the world around them changes: their definition is replaced or removed, they are cancelled, the
daemon dies while one waits for its next attempt."""
from datetime import datetime, timedelta, timezone

import pytest

from gate import WAIT, Gate, at
from penstock import processes_with, wait_until

GATED = f"""
name: shop
jobs:
  work: {{run: [sh, -c, "echo this is VERSION; {WAIT}"], retry: {{attempts: 2, backoff: 1s}}, grace: 1s}}
"""
OTHER = """
name: shop
jobs:
  other: {run: ["true"]}
"""


def gated(start_daemon):
    """A daemon, its gate, one run that runs and one that waits."""
    daemon = start_daemon({"shop": GATED.replace("VERSION", "one")})
    gate = Gate(daemon.work("shop"))
    running = daemon.trigger("shop", "work").json["id"]
    wait_until(lambda: "this is one" in daemon.logs(running), "the first run")
    waiting = daemon.trigger("shop", "work").json["id"]
    return daemon, gate, running, waiting


def test_runs_finish_on_the_revision_they_were_made_with(start_daemon):
    daemon, gate, running, waiting = gated(start_daemon)
    daemon.put("shop", GATED.replace("VERSION", "two"))
    later = daemon.trigger("shop", "work").json["id"]
    assert [daemon.run(run)["revision"] for run in (running, waiting, later)] == [1, 1, 2]
    assert daemon.run(running)["state"] == "running", "nothing is cut off by a change"
    assert [daemon.run(run)["state"] for run in (waiting, later)] == ["queued", "queued"]
    gate.open()
    for run_id, version in ((running, "one"), (waiting, "one"), (later, "two")):
        run = daemon.wait_for_run(run_id)
        assert (run["state"], run["attempt"]) == ("succeeded", 1), run
        assert f"this is {version}" in daemon.logs(run_id)
    spans = [(run["started_at"], run["ended_at"]) for run in map(daemon.run, (running, waiting, later))]
    assert all(ended <= started for (_, ended), (started, _) in zip(spans, spans[1:])), "one at a time, across revisions"


def test_runs_finish_on_their_revision_after_a_crash_too(start_daemon):
    daemon, gate, running, waiting = gated(start_daemon)
    daemon.put("shop", GATED.replace("VERSION", "two"))
    daemon.kill9()
    gate.open()
    daemon.start()
    for run_id in (running, waiting):
        run = daemon.wait_for_run(run_id)
        assert (run["state"], run["revision"]) == ("succeeded", 1), run
        assert "this is one" in daemon.logs(run_id) and "two" not in daemon.logs(run_id)


@pytest.mark.parametrize("how", ["the job", "the pipeline", "the pipeline, and a crash"])
def test_runs_finish_although_their_job_is_removed(start_daemon, how):
    daemon, gate, running, waiting = gated(start_daemon)
    if how == "the job":
        daemon.put("shop", OTHER)
    else:
        assert daemon.request("DELETE", "/v1/pipelines/shop").status in (200, 202, 204)
        assert daemon.get("/v1/pipelines/shop").status == 404
    assert daemon.trigger("shop", "work").status == 404, "nothing new is made"
    assert [daemon.run(run)["state"] for run in (running, waiting)] == ["running", "queued"]
    if "crash" in how:
        daemon.kill9()
        gate.open()
        daemon.start()
    else:
        gate.open()
    for run_id in (running, waiting):
        run = daemon.wait_for_run(run_id)
        assert (run["state"], run["revision"]) == ("succeeded", 1), run
        assert "this is one" in daemon.logs(run_id)
    assert {run["id"] for run in daemon.runs("shop", "work")} == {running, waiting}, "the history stays"


def test_a_removed_pipeline_can_come_back_while_its_runs_go_on(start_daemon):
    daemon, gate, running, waiting = gated(start_daemon)
    daemon.request("DELETE", "/v1/pipelines/shop")
    daemon.put("shop", GATED.replace("VERSION", "three"))
    fresh = daemon.trigger("shop", "work").json["id"]
    assert daemon.run(fresh)["revision"] == 2, "revisions go on where they were"
    gate.open()
    for run_id, version in ((running, "one"), (waiting, "one"), (fresh, "three")):
        assert daemon.wait_for_run(run_id)["state"] == "succeeded"
        assert f"this is {version}" in daemon.logs(run_id)


def test_cancelling_says_who_asked_and_what_was_done(start_daemon):
    daemon, gate, running, waiting = gated(start_daemon)
    third = daemon.trigger("shop", "work").json["id"]
    for run_id in (waiting, running):
        answer = daemon.cancel(run_id)
        assert answer.json["id"] == run_id
    queued, started = daemon.wait_for_run(waiting), daemon.wait_for_run(running)
    assert (queued["state"], queued["reason"]) == ("cancelled", "cancelled by request")
    assert queued["started_at"] is None and queued["attempt"] == 0
    assert [task["state"] for task in queued["tasks"]] == ["cancelled"]
    assert (started["state"], started["reason"]) == ("cancelled", "cancelled by request")
    assert started["tasks"][0]["reason"] == "cancelled; ended by SIGTERM"
    assert daemon.logs(waiting) == ""
    wait_until(lambda: daemon.run(third)["state"] == "running", "the third run in the place of the first")
    for run_id in (waiting, running):
        again = daemon.post(f"/v1/runs/{run_id}/cancel")
        assert again.status == 409, again
    gate.open()
    assert daemon.wait_for_run(third)["state"] == "succeeded"
    daemon.kill9()
    daemon.start()
    assert [daemon.run(run_id)["state"] for run_id in (running, waiting, third)] == ["cancelled", "cancelled", "succeeded"]
    assert processes_with("PENSTOCK_RUN_ID=" + running) == []


RETRIED = """
name: shop
jobs:
  work:
    run: [sh, -c, "date +%s.%N >> tries; exit CODE"]
    retry: {attempts: 4, backoff: BACKOFF}
"""


def tries(daemon):
    file = daemon.work("shop") / "tries"
    return [float(line) for line in file.read_text().split()] if file.exists() else []


def test_kill_9_in_the_middle_of_a_retry_pause(start_daemon):
    """The next attempt is made, once, not before its time, and counts as the second."""
    daemon = start_daemon({"shop": RETRIED.replace("CODE", "$((3 - $(wc -l < tries)))").replace("BACKOFF", "3s")})
    run_id = daemon.trigger("shop", "work").json["id"]
    before = wait_until(lambda: (run := daemon.run(run_id))["state"] == "retrying" and run, "the pause")
    assert before["waiting_reason"].startswith("attempt 2 of 4 at ")
    assert before["waiting_reason"].endswith(" after: task main: exit code 2")
    assert before["attempt"] == 1 and before["retry_at"]
    due = at(before["retry_at"])
    while datetime.now(timezone.utc) < due - timedelta(seconds=1):
        daemon.kill9()
        daemon.start()
    run = daemon.wait_for_run(run_id)
    times = tries(daemon)
    assert times[1] >= due.timestamp() - 0.001, "not before its time"
    assert (run["state"], run["attempt"], len(times)) == ("succeeded", 3, 3), run
    assert run["interruptions"] == 0, "a pause is no attempt that was cut off"


def test_retries_come_after_growing_pauses(start_daemon):
    daemon = start_daemon({"shop": RETRIED.replace("CODE", "7").replace("BACKOFF", "200ms..500ms")})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["attempt"]) == ("failed", 4)
    assert run["reason"] == "task main: exit code 7"
    times = tries(daemon)
    pauses = [later - earlier for earlier, later in zip(times, times[1:])]
    # Doubling up to the limit, less up to a half so that many do not come back together.
    for pause, (least, most) in zip(pauses, [(0.1, 0.2), (0.2, 0.4), (0.25, 0.5)]):
        assert least <= pause <= most + 2, pauses
    assert at(run["ended_at"]) - at(run["started_at"]) >= timedelta(seconds=0.55)


def test_a_pipeline_paused_during_a_retry_pause(start_daemon):
    """A pause of the pipeline does not lose the retry."""
    daemon = start_daemon({"shop": RETRIED.replace("CODE", "$((2 - $(wc -l < tries)))").replace("BACKOFF", "500ms")})
    run_id = daemon.trigger("shop", "work").json["id"]
    wait_until(lambda: daemon.run(run_id)["state"] == "retrying", "the pause")
    assert daemon.post("/v1/pipelines/shop/pause").status in (200, 202, 204)
    daemon.restart()
    assert daemon.post("/v1/pipelines/shop/resume").status in (200, 202, 204)
    run = daemon.wait_for_run(run_id)
    assert (run["state"], run["attempt"]) == ("succeeded", 2)
    assert len(tries(daemon)) == 2
