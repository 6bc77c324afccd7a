"""GET /v1/changes: each change of state as it comes, followed, filtered, taken up again."""
import json
import os

import pytest

from penstock import wait_until

SHOP = """
name: shop
topics: {orders: {}, seen: {}}
flows: {copy: {from: {topic: orders}, to: {topic: seen}}}
jobs:
  work: {run: [sh, -c, "exit $PENSTOCK_PARAM_CODE"], params: {code: {type: integer, default: 0}}}
  picky: {run: [sh, -c, "cat gate"], on_overlap: skip, grace: 1s}
  again: {run: [sh, -c, "test $PENSTOCK_ATTEMPT = 2"], retry: {attempts: 2, backoff: 1ms..1ms}}
"""


class Follower:
    """Reads server-sent events, one at a time."""

    def __init__(self, daemon, query="", last_event_id=None):
        self.connection = daemon.connect(timeout=20)
        self.connection.request("GET", "/v1/changes" + query, headers={"Last-Event-ID": last_event_id} if last_event_id else {})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.headers["content-type"].startswith("text/event-stream")
        self.last = None
        self.first_comment = None
        if not last_event_id and "after=" not in query:
            self.first_comment = self.answer.readline().decode().strip()

    def next(self):
        """(event, data) of the next one that is no comment."""
        event, data = None, None
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            if line.startswith("id: "):
                self.last = line[4:]
            elif line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: "):
                data = json.loads(line[6:])
            elif not line and event:
                return event, data

    def states_of(self, run):
        """Of the run until its end."""
        seen = []
        while not seen or seen[-1] not in ("succeeded", "failed", "skipped", "cancelled", "timed_out"):
            event, data = self.next()
            if event == "run" and data["run"] == run:
                seen.append(data["state"])
        return seen

    def close(self):
        self.connection.close()


@pytest.fixture
def shop(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    wait_until(lambda: daemon.flow("shop", "copy")["state"] == "running", "the flow to run")
    return daemon


def test_runs_are_told_from_their_making_to_their_end(shop):
    follower = Follower(shop, "?kind=run")
    run = shop.trigger("shop", "work").json["id"]
    assert follower.states_of(run) == ["running", "succeeded"]
    failed = shop.trigger("shop", "work", {"params": {"code": 3}}).json["id"]
    event, data = follower.next()
    while data["state"] != "failed":
        event, data = follower.next()
    assert (event, data["run"], data["job"], data["pipeline"]) == ("run", failed, "work", "shop")
    assert "exit code 3" in data["reason"] and data["at"].endswith("Z")
    assert shop.run(failed)["state"] == "failed", "what is told has happened"
    again = shop.trigger("shop", "again").json["id"]
    assert follower.states_of(again) == ["running", "retrying", "running", "succeeded"]
    follower.close()


def test_a_waiting_and_a_skipped_run(shop):
    follower = Follower(shop, "?kind=run")
    os.mkfifo(shop.work("shop") / "gate")
    first = shop.trigger("shop", "picky").json["id"]
    second = shop.trigger("shop", "picky").json["id"]
    assert follower.states_of(second) == ["skipped"]
    shop.cancel(first)
    assert follower.states_of(first)[-1] == "cancelled"
    runs = [shop.trigger("shop", "work").json["id"] for _ in range(20)]
    told = {run: [] for run in runs}
    while any("succeeded" not in states for states in told.values()):
        _, data = follower.next()
        told[data["run"]].append(data["state"])
    assert {tuple(states) for states in told.values()} <= {("running", "succeeded"), ("queued", "running", "succeeded")}
    follower.close()


def test_flows_and_pipelines(shop):
    follower = Follower(shop, "?pipeline=shop")
    shop.post("/v1/pipelines/shop/pause")
    told = [follower.next() for _ in range(3)]
    assert [(event, data["state"]) for event, data in told] == [("flow", "draining"), ("flow", "paused"), ("pipeline", "paused")]
    assert told[0][1]["flow"] == "copy"
    shop.post("/v1/pipelines/shop/resume")
    assert {(event, data["state"]) for event, data in [follower.next() for _ in range(3)]} == {
        ("flow", "starting"), ("pipeline", "resumed"), ("flow", "running")}
    shop.put("shop", SHOP.replace("to: {topic: seen}", "to: drop"))
    states = []
    while ("pipeline", "replaced") not in states:
        event, data = follower.next()
        states.append((event, data["state"]))
    shop.request("DELETE", "/v1/pipelines/shop")
    while ("pipeline", "removed") not in states:
        event, data = follower.next()
        states.append((event, data["state"]))
    follower.close()


def test_it_goes_on_where_it_was(shop):
    follower = Follower(shop, "?kind=run")
    assert follower.first_comment.startswith(": from ")
    runs = [shop.run_to_end("shop", "work")["id"] for _ in range(3)]
    follower.states_of(runs[0])
    place = follower.last
    follower.close()
    for again in (Follower(shop, last_event_id=place), Follower(shop, "?after=" + place)):
        assert again.states_of(runs[1])[-1] == "succeeded"
        assert again.states_of(runs[2])[-1] == "succeeded"
        again.close()


def test_a_place_of_another_life_is_a_gap(shop):
    shop.run_to_end("shop", "work")
    follower = Follower(shop, "?kind=run")
    run = shop.run_to_end("shop", "work")["id"]
    follower.states_of(run)
    place = follower.last
    shop.kill9()
    shop.start()
    later = Follower(shop, last_event_id=place)
    event, data = later.next()
    assert event == "gap" and place in data["reason"]
    later.close()


def test_some_hundred_changes_are_kept(shop):
    follower = Follower(shop, "?kind=run")
    follower.states_of(shop.run_to_end("shop", "work")["id"])
    place = follower.last
    follower.close()
    for _ in range(60):
        shop.post("/v1/pipelines/shop/pause")
        shop.post("/v1/pipelines/shop/resume")
    again = Follower(shop, "?kind=pipeline&after=" + place)
    assert [again.next()[1]["state"] for _ in range(120)] == ["paused", "resumed"] * 60
    again.close()


def test_the_end_of_the_daemon_is_told(shop):
    follower = Follower(shop)
    shop.process.terminate()
    event, data = follower.next()
    while event != "end":
        event, data = follower.next()
    assert "stops" in data["reason"]
    assert shop._ended() == 0


def test_what_is_wrong_is_said(shop):
    assert shop.get("/v1/changes?after=7").status == 400
    assert shop.get("/v1/changes", {"Last-Event-ID": "x-1"}).status == 400
    answer = shop.get("/v1/changes?kind=flows")
    assert answer.status == 400 and "flow" in answer.text
