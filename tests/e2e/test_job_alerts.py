"""Alerts: somebody else's server is told of a run that failed or is late, once it is durable, and again until it listens."""
import http.server
import json
import threading

import pytest

from gate import WAIT, Gate, at
from penstock import wait_until


class Listener:
    """A web server that keeps what is posted to it, and answers with the next of `answers`, then with 204."""

    def __init__(self):
        self.told, self.answers, self.lock = [], [], threading.Lock()
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with listener.lock:
                    answer = listener.answers.pop(0) if listener.answers else 204
                    listener.told.append((answer, json.loads(body)))
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d/alerts" % self.server.server_address[1]

    def taken(self):
        with self.lock:
            return [alert for answer, alert in self.told if answer < 300]

    def wait_for(self, count):
        found = wait_until(lambda: len(self.taken()) >= count and self.taken(), f"{count} alerts")
        assert len(found) == count, found
        return found


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


def shop(listener, body, alert="on: [failure]"):
    return f"""
name: shop
jobs:
  work:
    {body}
    alerts: {{{alert}, to: {{http: "{listener.url}"}}}}
"""


def test_a_failed_run_is_told_with_its_reason_and_the_end_of_its_log(start_daemon, listener):
    daemon = start_daemon({"shop": shop(listener, "run: [sh, -c, \"(seq 5000; echo the disk is full) >&2; exit 4\"]")})
    run = daemon.run_to_end("shop", "work")
    alert, = listener.wait_for(1)
    assert {name: alert[name] for name in ("alert", "pipeline", "job", "run", "state", "reason", "task", "trigger")} == {
        "alert": "failure", "pipeline": "shop", "job": "work", "run": run["id"], "state": "failed",
        "reason": "task main: exit code 4", "task": "main", "trigger": "rest"}
    assert at(alert["ended_at"]) == at(run["ended_at"])
    tail = alert["log_tail"]
    assert "the disk is full" in tail and "5000" in tail
    assert len(tail) < 10_000 and not tail.startswith("1\n")


def test_only_failures_are_told_and_only_final_ones(start_daemon, listener):
    daemon = start_daemon({"shop": shop(listener, """run: [sh, -c, "case $PENSTOCK_PARAM_DO in hang) tail -f /dev/null;; twice) test $PENSTOCK_ATTEMPT = 2;; *) $PENSTOCK_PARAM_DO;; esac"]
    timeout: 500ms
    grace: 1s
    retry: {attempts: 2, backoff: 10ms}""")})
    for do, state in (("true", "succeeded"), ("twice", "succeeded"), ("hang", "timed_out"), ("false", "failed")):
        assert daemon.run_to_end("shop", "work", {"params": {"do": do}})["state"] == state
    assert {alert["state"] for alert in listener.wait_for(2)} == {"timed_out", "failed"}, "each by itself, in no order"
    cancelled = daemon.trigger("shop", "work", {"params": {"do": "hang"}}).json["id"]
    daemon.cancel(cancelled)
    daemon.wait_for_run(cancelled)
    daemon.run_to_end("shop", "work", {"params": {"do": "false"}})
    assert [alert["state"] for alert in listener.wait_for(3)] == ["timed_out", "failed", "failed"]


def test_who_does_not_listen_is_told_again(start_daemon, listener):
    listener.answers = [500, 503]
    daemon = start_daemon({"shop": shop(listener, "run: [\"false\"]")})
    run = daemon.run_to_end("shop", "work")
    alert, = listener.wait_for(1)
    assert alert["run"] == run["id"]
    assert [answer for answer, _ in listener.told] == [500, 503, 204]
    assert daemon.dead_letters() == []


def test_an_alert_survives_a_crash(start_daemon, listener):
    listener.answers = [503] * 1000
    daemon = start_daemon({"shop": shop(listener, "run: [\"false\"]")})
    run = daemon.run_to_end("shop", "work")
    wait_until(lambda: listener.told, "a first try")
    daemon.kill9()
    with listener.lock:
        listener.answers = []
    daemon.start()
    alert, = listener.wait_for(1)
    assert alert["run"] == run["id"]


def test_an_alert_of_a_run_that_a_removed_pipeline_left_behind(start_daemon, listener):
    daemon = start_daemon({"shop": shop(listener, f"run: [sh, -c, \"{WAIT}; false\"]")})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    assert daemon.request("DELETE", "/v1/pipelines/shop").status in (200, 202, 204)
    gate.open()
    assert daemon.wait_for_run(run_id)["state"] == "failed"
    assert listener.wait_for(1)[0]["run"] == run_id


def test_a_late_run_is_told_once_while_it_goes_on(start_daemon, listener):
    daemon = start_daemon({"shop": shop(listener, f"run: [sh, -c, \"{WAIT}\"]", "on: [late], late_after: 600ms")})
    gate = Gate(daemon.work("shop"))
    first, second = (daemon.trigger("shop", "work").json["id"] for _ in range(2))
    alerts = {alert["run"]: alert for alert in listener.wait_for(2)}
    assert {alert["alert"] for alert in alerts.values()} == {"late"}
    assert (alerts[first]["state"], alerts[second]["state"]) == ("running", "queued"), "late is late, also while it waits"
    assert alerts[second]["reason"] == "another run of this job is active"
    daemon.restart()
    gate.open()
    for run_id in (first, second):
        assert daemon.wait_for_run(run_id)["state"] == "succeeded"
    assert len(listener.taken()) == 2, "once each"
    quick = daemon.run_to_end("shop", "work")
    assert quick["id"] not in {alert["run"] for alert in listener.taken()}
