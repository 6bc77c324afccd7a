"""A daemon whose flows have no input sleeps: they stay `running`, and no thread of it wakes up meanwhile.

Method: the kernel counts, for each thread, how often it gave up the processor voluntarily (proc(5), status,
voluntary_ctxt_switches). A thread that wakes up for whatever reason and waits again adds one. Over five seconds the sum
over all threads must not change.
"""
import pathlib
import threading
import time

from penstock import signed, wait_until

INTERVAL = 5  # seconds: the measurement itself
SECRET = "idle"

PIPELINE = """
name: idle
topics: {orders: {retain: 1h, dedupe: {key: event.id, within: 1h}}, copies: {}}
flows:
  hook:
    from: {webhook: {path: /idle, signature: {header: X-Signature, secret: "${env:IDLE_SECRET}"}}}
    to: {topic: orders}
  live:
    from: {topic: orders}
    steps: [{filter: event.id > 0}]
    to: {topic: copies}
  program: {run: [tail, -f, /dev/null], grace: 1s}
jobs:
  load:
    trigger: {topic: copies, max_events: 500, max_wait: 5m}
    to: {sqlite: {file: orders.db, table: orders, mode: upsert, key: [id]}}
  yearly: {trigger: {cron: "0 0 1 1 *"}, run: ["true"]}
"""


def wakeups(pid):
    total = 0
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def settle(pid):
    """Until nothing has happened for a second: what start-up and the last request left to do is done."""
    pause = threading.Event()
    deadline = time.monotonic() + 30
    before = wakeups(pid)
    while time.monotonic() < deadline:
        pause.wait(1)
        now = wakeups(pid)
        if now == before:
            return
        before = now


def assert_no_wakeups(daemon):
    settle(daemon.pid)
    before = wakeups(daemon.pid)
    threading.Event().wait(INTERVAL)
    assert wakeups(daemon.pid) - before == 0


def test_flows_without_input_stay_running_and_nothing_wakes_up(start_daemon):
    daemon = start_daemon({"idle": PIPELINE}, env={"IDLE_SECRET": SECRET})
    wait_until(lambda: all(flow["state"] == "running" for flow in daemon.pipeline("idle")["flows"]), "running flows")
    assert_no_wakeups(daemon)
    flows = daemon.pipeline("idle")["flows"]
    assert {flow["name"]: flow["state"] for flow in flows} == {"hook": "running", "live": "running",
                                                               "program": "running"}
    assert all(flow["restarts"] == 0 for flow in flows)

    # The next event passes at once, through both flows ...
    body = b'{"id": 1}'
    began = time.monotonic()
    answer = daemon.request("POST", "/hooks/idle", body, signed(SECRET, body, "X-Signature"))
    assert answer.status in (200, 202), answer
    daemon.wait_for_topic("copies", 1)
    assert time.monotonic() - began < 2
    # ... and with a micro-batch waiting for its five minutes, it is quiet again.
    assert_no_wakeups(daemon)


def test_an_empty_daemon_sleeps(daemon):
    assert_no_wakeups(daemon)
