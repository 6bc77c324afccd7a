"""on_overlap: what becomes of a run that is asked for while another of its job runs. Four rules, four recorded outcomes."""
import pytest

from penstock import processes_with, wait_until


def start_two(daemon):
    first = daemon.trigger("shop", "work").json["id"]
    wait_until(lambda: "ready" in daemon.logs(first), "the first run to run")
    second = daemon.trigger("shop", "work")
    assert second.status == 202, second
    return first, second.json["id"]


@pytest.fixture
def shop(start_daemon):
    def start(rule):
        return start_daemon({"shop": f"""
name: shop
jobs:
  work:
    run: [sh, -c, "echo ready; tail -f /dev/null"]
    on_overlap: {rule}
    grace: 1s
"""})
    return start


def test_queue(shop):
    daemon = shop("queue")
    first, second = start_two(daemon)
    waiting = daemon.run(second)
    assert waiting["state"] == "queued"
    assert waiting["waiting_reason"], "a waiting run says why"
    assert waiting["started_at"] is None
    job = daemon.job("shop", "work")
    assert (job["running"], job["queued"]) == (1, 1)
    daemon.cancel(first)
    assert daemon.wait_for_run(first)["state"] == "cancelled"
    wait_until(lambda: daemon.run(second)["state"] == "running", "the second run to run")
    daemon.cancel(second)
    assert daemon.wait_for_run(second)["state"] == "cancelled"


def test_queued_runs_keep_their_order_over_a_crash(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work: {run: [sh, -c, "echo $PENSTOCK_PARAM_N >> order; test $PENSTOCK_PARAM_N != 0 || tail -f /dev/null"], grace: 1s}
"""})
    work = daemon.work("shop")
    ids = [daemon.trigger("shop", "work", {"params": {"n": n}}).json["id"] for n in range(6)]
    wait_until((work / "order").exists, "the first run to run")
    daemon.kill9()
    (work / "order").unlink()
    daemon.start()
    wait_until((work / "order").exists, "the first run to run again")
    daemon.cancel(ids[0])
    for run_id in ids[1:]:
        assert daemon.wait_for_run(run_id)["state"] == "succeeded"
    assert (work / "order").read_text().split() == ["0", "1", "2", "3", "4", "5"]


def test_the_start_of_a_queued_run_outlives_a_crash(shop):
    """It is stored while the run goes on: soon after it, and with the number of the attempt that a crash cuts off."""
    daemon = shop("queue")
    first, second = start_two(daemon)
    daemon.cancel(first)
    wait_until(lambda: [r["id"] for r in daemon.runs("shop", state="running")] == [second], "the store to say running")
    daemon.kill9()
    daemon.start()
    wait_until(lambda: daemon.run(second)["state"] == "running", "the second run to run again")
    assert daemon.run(second)["interruptions"] == 1
    told = [entry["what"] for entry in daemon.run(second)["timeline"]]
    assert told == ["queued", "running", "interrupted", "running"]
    daemon.cancel(second)
    assert daemon.wait_for_run(second)["state"] == "cancelled"


def test_short_runs_from_the_queue_tell_their_whole_story(start_daemon):
    daemon = start_daemon({"shop": "name: shop\njobs: {work: {run: [/bin/true]}}\n"})
    ids = [daemon.trigger("shop", "work").json["id"] for _ in range(30)]
    runs = [daemon.wait_for_run(run_id) for run_id in ids]
    for run in runs:
        assert (run["state"], run["attempt"]) == ("succeeded", 1)
        assert run["created_at"] <= run["started_at"] <= run["ended_at"]
        assert [entry["what"] for entry in run["timeline"]][-2:] == ["running", "succeeded"]
        if run["timeline"][0]["what"] == "queued":
            assert run["timeline"][1]["detail"] == "attempt 1"
    for before, after in zip(runs, runs[1:]):
        assert before["ended_at"] <= after["started_at"], "one at a time, in order"


def test_skip(shop):
    daemon = shop("skip")
    first, second = start_two(daemon)
    skipped = daemon.wait_for_run(second)
    assert skipped["state"] == "skipped"
    assert skipped["reason"]
    assert skipped["started_at"] is None
    assert daemon.run(first)["state"] == "running"
    daemon.cancel(first)


def test_allow(shop):
    daemon = shop("allow")
    first, second = start_two(daemon)
    wait_until(lambda: "ready" in daemon.logs(second), "the second run to run as well")
    assert {daemon.run(run_id)["state"] for run_id in (first, second)} == {"running"}
    for run_id in (first, second):
        daemon.cancel(run_id)


def test_replace(shop):
    daemon = shop("replace")
    first, second = start_two(daemon)
    replaced = daemon.wait_for_run(first)
    assert replaced["state"] == "cancelled"
    assert "replaced" in replaced["reason"] or second in replaced["reason"], replaced
    assert processes_with("PENSTOCK_RUN_ID=" + first) == []
    wait_until(lambda: daemon.run(second)["state"] == "running", "the second run to run")
    daemon.cancel(second)


def test_a_full_queue_asks_to_come_back(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work: {run: [tail, -f, /dev/null], queue_limit: 2, grace: 1s}
"""})
    ids = []
    for _ in range(3):
        answer = daemon.trigger("shop", "work")
        assert answer.status == 202, answer
        ids.append(answer.json["id"])
    refused = daemon.trigger("shop", "work")
    assert refused.status == 429, refused
    assert int(refused.headers["retry-after"]) >= 1
    for run_id in reversed(ids):
        daemon.cancel(run_id)
        assert daemon.wait_for_run(run_id)["state"] == "cancelled"
    assert len(daemon.runs("shop")) == 3


def test_a_schedule_faster_than_its_work_never_overlaps(start_daemon):
    """Work longer than the interval: back to back, one at a time."""
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work:
    trigger: {every: 50ms}
    run: [sh, -c, "mkdir lock || exit 1; head -c 3000000 /dev/urandom | sha256sum > sum; rmdir lock"]
    on_overlap: queue
    queue_limit: 3
"""})
    runs = wait_until(lambda: len(found := [r for r in daemon.runs("shop") if r["state"] == "succeeded"]) >= 5 and found,
                      "five runs")
    assert not [run for run in daemon.runs("shop") if run["state"] == "failed"]
    spans = sorted((run["started_at"], run["ended_at"]) for run in runs)
    assert all(ended <= started for (_, ended), (started, _) in zip(spans, spans[1:]))
