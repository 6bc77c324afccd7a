"""grace_period: a run stays open for events that follow closely, then ends gracefully and leaves no process."""
from datetime import datetime, timedelta

from penstock import processes_with, wait_until

PIPELINE = """
name: shop
topics: {arrivals: {}, copies: {}}
jobs:
  collect:
    trigger: {topic: arrivals, grace_period: 2s}
    run: [sh, -c, "cat; echo the input has ended >&2"]
    to: {topic: copies}
"""


def at(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_an_event_inside_the_grace_joins_the_run(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    daemon.publish("arrivals", [{"n": 1}])
    run = wait_until(lambda: next((r for r in daemon.runs("shop", "collect") if r["state"] == "running"), None),
                     "the run to be running")
    mark = "PENSTOCK_RUN_ID=" + run["id"]
    assert wait_until(lambda: processes_with(mark), "its process")
    daemon.publish("arrivals", [{"n": 2}])
    # The second event has gone through the same process while it is still open.
    daemon.wait_for_topic("copies", 2)
    assert daemon.run(run["id"])["state"] == "running"

    ended = daemon.wait_for_run(run["id"])
    assert ended["state"] == "succeeded"
    assert ended["input"]["events"] == 2
    assert processes_with(mark) == []
    assert "the input has ended" in daemon.logs(run["id"])
    last_event = at(daemon.events("arrivals")[-1]["time"])
    assert at(ended["ended_at"]) - last_event >= timedelta(seconds=1.9)
    assert len(daemon.runs("shop", "collect")) == 1

    daemon.publish("arrivals", [{"n": 3}])
    runs = daemon.wait_for_runs("shop", "collect", 2)
    assert runs[1]["input"]["events"] == 1
    assert [event["data"]["n"] for event in daemon.events("copies")] == [1, 2, 3]


def test_a_crash_while_the_run_is_open_loses_nothing(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    daemon.publish("arrivals", [{"n": 1}])
    daemon.wait_for_topic("copies", 1)
    daemon.publish("arrivals", [{"n": 2}])
    daemon.kill9()
    daemon.start()
    daemon.publish("arrivals", [{"n": 3}])
    daemon.wait_until_quiet("shop")
    runs = daemon.runs("shop", "collect")
    assert all(run["state"] == "succeeded" for run in runs), runs
    assert sum(run["input"]["events"] for run in runs) == 3
    # A command's output has no positions, so what a cut-off attempt had printed may stand twice; nothing is missing.
    assert {event["data"]["n"] for event in daemon.events("copies")} == {1, 2, 3}
    assert processes_with(str(daemon.data)) == [daemon.pid]


def test_max_events_closes_an_open_run_at_once(start_daemon):
    daemon = start_daemon({"shop": PIPELINE.replace("grace_period: 2s", "grace_period: 1h, max_events: 3")})
    daemon.publish("arrivals", [{"n": 1}])
    daemon.wait_for_topic("copies", 1)
    daemon.publish("arrivals", [{"n": 2}, {"n": 3}])
    run, = daemon.wait_for_runs("shop", "collect", 1)
    assert (run["state"], run["input"]["events"]) == ("succeeded", 3)
