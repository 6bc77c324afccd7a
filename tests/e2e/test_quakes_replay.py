"""The example on real input: a week of earthquakes through webhook, topic, alerts, loads and summaries.

The second test kills the daemon with SIGKILL twenty times at random moments (seeded) during the replay, each time just
after an event was confirmed, and starts it again; a sender repeats only what was not confirmed. The figures at the end
must be those of the quiet replay: nothing that was confirmed is lost, and nothing is doubled.
"""
import http.client
import json
import os
import queue
import random
import subprocess
import sys
import threading

import pytest

from penstock import EXAMPLES, PATIENCE, signed

QUAKES = EXAMPLES / "quakes"
SECRET = "a-secret-for-this-test"
KILLS = 20
SEED = int(os.environ.get("PENSTOCK_TEST_SEED", 20180207))

sys.path.insert(0, str(QUAKES))
import check  # noqa: E402
import expected  # noqa: E402


@pytest.fixture
def quakes(start_daemon):
    return start_daemon(QUAKES, env={"QUAKES_SECRET": SECRET})


def posts():
    """The bodies to post: every line, every tenth one twice."""
    for number, line in enumerate((QUAKES / "earthquakes.ndjson").read_bytes().splitlines(), start=1):
        yield line
        if number % 10 == 0:
            yield line


def assert_final_figures(daemon):
    daemon.wait_until_quiet("quakes", timeout=90)
    found, doubled = check.found(daemon.work("quakes"))
    assert found == expected.expected()
    assert doubled == 0
    assert daemon.dead_letters() == []

    by_id = {quake["id"]: quake for quake in map(json.loads, posts())}
    rows = daemon.rows("quakes", "quakes.db", "SELECT id, magnitude, place, longitude, depth_km FROM quakes")
    assert len(rows) == len(by_id)
    for quake_id, magnitude, place, longitude, depth in rows:
        quake = by_id[quake_id]
        wanted = (quake["mag"], quake["place"], quake["longitude"], quake["depth_km"])
        assert (magnitude, place, longitude, depth) == pytest.approx(wanted)

    for flow in daemon.pipeline("quakes")["flows"]:
        assert flow["state"] == "running", flow
        at_rest = flow["emitted"] + flow["filtered"] + flow["dead"] + flow["duplicates"]
        assert flow["received"] == at_rest, flow
    assert all(run["state"] == "succeeded" for run in daemon.runs("quakes", "load"))
    loaded = sum(run["input"]["events"] for run in daemon.runs("quakes", "load"))
    assert loaded == found["rows"], "each event belongs to exactly one load"


def test_a_quiet_replay(quakes):
    replay = subprocess.run(
        [sys.executable, str(QUAKES / "replay.py"), "--url", "http://%s:%d" % quakes.address],
        env={**os.environ, "QUAKES_SECRET": SECRET}, capture_output=True, text=True, timeout=120)
    assert replay.returncode == 0, replay.stdout + replay.stderr
    assert_final_figures(quakes)

    assert quakes.topic("quakes")["duplicates"] == 170
    loads = quakes.runs("quakes", "load")
    assert all(run["input"]["events"] <= 200 for run in loads)
    summaries = quakes.runs("quakes", "by_day")
    assert {run["upstream_run"] for run in summaries} == {run["id"] for run in loads}
    count = quakes.run_to_end("quakes", "count")
    assert "1707 rows" in quakes.logs(count["id"])


class Replay:
    """Senders that know no daemon, only an address that may be gone for a while."""

    def __init__(self, daemon, connections=6):
        self.daemon = daemon
        self.work = queue.Queue()
        self.up = threading.Event()
        self.confirmed = 0
        self.refused = []
        self.changed = threading.Condition()
        for body in posts():
            self.work.put(body)
        self.total = self.work.qsize()
        self.up.set()
        self.threads = [threading.Thread(target=self.send_all, daemon=True) for _ in range(connections)]
        for thread in self.threads:
            thread.start()

    def send_all(self):
        connection = None
        while True:
            try:
                body = self.work.get_nowait()
            except queue.Empty:
                return
            status = None
            while status is None or status == 503:
                assert self.up.wait(PATIENCE)
                try:
                    connection = connection or self.daemon.connect(timeout=20)
                    connection.request("POST", "/hooks/quakes", body, signed(SECRET, body))
                    answer = connection.getresponse()
                    answer.read()
                    status = answer.status
                except (OSError, http.client.HTTPException, TypeError):
                    connection = None  # not confirmed: again (TypeError: the address is gone while it restarts)
            with self.changed:
                self.confirmed += 1
                if status >= 300:
                    self.refused.append(status)
                self.changed.notify_all()

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: self.confirmed >= count, timeout=90), self.confirmed


def test_twenty_kills_during_the_replay(quakes):
    dice = random.Random(SEED)
    replay = Replay(quakes)
    moments = sorted(dice.sample(range(10, replay.total - 10), KILLS))
    for moment in moments:
        replay.wait_for(moment)
        threading.Event().wait(dice.uniform(0, 0.03))  # the random moment is what is tested
        replay.up.clear()
        quakes.kill9()
        quakes.start()
        replay.up.set()
    replay.wait_for(replay.total)
    assert replay.refused == []
    assert_final_figures(quakes)
    assert quakes.restart()
    assert_final_figures(quakes)


def test_a_kill_directly_after_the_answer(start_daemon):
    """One connection, and nothing but the kill between the 202 and the end of the process."""
    daemon = start_daemon({"kept": "name: kept\ntopics: {kept: {}}\n"})
    confirmed = []
    for number in range(10):
        answer = daemon.publish("kept", [{"n": number}])
        daemon.kill9()
        confirmed.append(answer["last_offset"])
        daemon.start()
    assert confirmed == list(range(1, 11))
    assert [event["data"]["n"] for event in daemon.events("kept")] == list(range(10))
