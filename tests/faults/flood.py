"""One pipeline floods the machine with events, with logs, with forks, while the flow of another is watched.

watch() sends one event after the other through a flow (topic to topic, both durable) and follows its output: the time from
the request to the event at the other end. The figures are printed, never asserted.
"""
import contextlib
import http.client
import json
import threading
import time

from penstock import ndjson, wait_until

WATCHED = """
name: watched
topics: {watched_in: {}, watched_out: {}}
flows:
  copy: {from: {topic: watched_in}, steps: [{map: {n: event.n}}], to: {topic: watched_out}}
"""
FLOOD = """
name: flood
topics: {flood_in: {max_bytes: 2GiB}, flood_out: {max_bytes: 2GiB}}
flows:
  busy: {from: {topic: flood_in}, steps: [{map: {n: event.n, text: event.text}}], to: {topic: flood_out}}
jobs:
  logs: {run: [sh, -c, "exec yes a line of output that nobody needs"], grace: 1s}
  forks: {run: [sh, -c, "while :; do for n in 1 2 3 4 5 6 7 8; do /bin/true & done; wait; done"], grace: 1s}
"""


def watch(daemon, count, pause=0.01):
    """The time that each of so many events took from end to end, in seconds."""
    after = daemon.topic("watched_out")["last_offset"] or 0
    stream = http.client.HTTPConnection(*daemon.address, timeout=60)
    stream.request("GET", f"/v1/topics/watched_out/events?follow=true&after={after}", headers={"Accept": "application/x-ndjson"})
    lines = stream.getresponse()
    took = []
    wait = threading.Event()
    for n in range(count):
        began = time.monotonic()
        daemon.publish("watched_in", [{"n": n}])
        event = json.loads(lines.readline())
        took.append(time.monotonic() - began)
        assert event["data"]["n"] == n, event
        wait.wait(pause)
    stream.close()
    return took


@contextlib.contextmanager
def events(daemon):
    stop = threading.Event()
    body = ndjson({"n": n, "text": "x" * 250} for n in range(1000))
    sent = [0]

    def post():
        while not stop.is_set():
            answer = daemon.request("POST", "/v1/topics/flood_in/events", body, {"Content-Type": "application/x-ndjson"})
            assert answer.status in (202, 429, 503), answer
            sent[0] += 1
    threads = [threading.Thread(target=post, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sent[0] > 4, "the flood")
    yield
    stop.set()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def run_of(daemon, job):
    runs = [daemon.trigger("flood", job).json["id"]]
    wait_until(lambda: daemon.run(runs[0])["state"] == "running", "the flood")
    yield
    for run in runs:
        daemon.cancel(run)
        daemon.wait_for_run(run)


KINDS = {"events": events, "logs": lambda daemon: run_of(daemon, "logs"), "forks": lambda daemon: run_of(daemon, "forks")}


def of(kind, daemon):
    return KINDS[kind](daemon)


class Row:
    HEAD = f"{'beside a flood of':<20}{'events':>8}{'p50':>10}{'p90':>10}{'p99':>10}{'worst':>10}"

    def __init__(self, kind, took):
        self.kind, self.took = kind, sorted(took)

    def __str__(self):
        def at(share):
            return self.took[min(len(self.took) - 1, int(share * len(self.took)))] * 1000
        return (f"{self.kind:<20}{len(self.took):>8}{at(.5):>7.1f} ms{at(.9):>7.1f} ms{at(.99):>7.1f} ms{at(1):>7.1f} ms")
