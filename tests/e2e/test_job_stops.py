"""What a stop or a start of the daemon does for runs and alerts in the middle of something: a stop waits for nothing that cannot
end, and who failed at a start is told of like any other."""
import contextlib
import datetime
import http.server
import signal
import sqlite3
import threading

from gate import WAIT, Gate, at
from penstock import FINAL, wait_until
from test_job_alerts import listener, shop  # noqa: F401: a fixture


def change_state(daemon, *statements):
    """Of a daemon that does not run."""
    with contextlib.closing(sqlite3.connect(daemon.data / "state.db")) as state, state:
        for statement in statements:
            state.execute(statement)


def test_a_stop_waits_for_no_run_that_begins_to_pause(start_daemon):
    daemon = start_daemon({"shop": f"""
name: shop
jobs:
  work: {{run: [sh, -c, "touch started; {WAIT}; false"], retry: {{attempts: 3, backoff: 1h}}}}
"""})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    wait_until((daemon.work("shop") / "started").exists, "the run")
    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping:" in daemon.log.read_text(), "the stop to begin")
    gate.open()
    assert daemon._ended() == 0
    assert "was interrupted" not in daemon.log.read_text(), "it ended its attempt, and nothing had to be forced"
    daemon.start()
    run = daemon.run(run_id)
    assert run["state"] not in FINAL and run["retry_at"], run
    assert (run["attempt"], run["interruptions"]) == (1, 0)
    daemon.cancel(run_id)
    assert daemon.wait_for_run(run_id)["state"] == "cancelled"


class Deaf:
    """A web server that takes what is posted to it and never answers."""

    def __init__(self):
        self.asked, self.end = threading.Event(), threading.Event()
        deaf = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                deaf.asked.set()
                deaf.end.wait()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d/alerts" % self.server.server_address[1]


def test_a_stop_does_not_wait_for_an_alert_that_nobody_takes(start_daemon, listener):  # noqa: F811
    deaf = Deaf()
    daemon = start_daemon({"shop": f"""
name: shop
jobs:
  work:
    run: ["false"]
    alerts: {{on: [failure], to: {{http: {{url: "{deaf.url}", timeout: 10m}}}}}}
"""})
    run = daemon.run_to_end("shop", "work")
    assert deaf.asked.wait(30), "the alert is on its way"
    assert daemon.stop(timeout=30) == 0
    assert "alerts were not taken in time" in daemon.log.read_text()
    deaf.end.set()
    deaf.server.shutdown()
    change_state(daemon, f"UPDATE revisions SET text = replace(text, '{deaf.url}', '{listener.url}')")
    daemon.start()
    alert, = listener.wait_for(1)
    assert alert["run"] == run["id"], "it is delivered after the next start"


AFTER = """
name: store
jobs:
  follow: {trigger: {after: {job: work, pipeline: shop, outcome: failed}}, run: ["true"]}
"""


def test_a_run_that_fails_at_a_start_is_told_of_and_followed(start_daemon, listener):  # noqa: F811
    daemon = start_daemon({"shop": shop(listener, f"run: [sh, -c, \"{WAIT}\"]"), "store": AFTER})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    wait_until(lambda: daemon.run(run_id)["state"] == "running", "the run")
    daemon.kill9()
    gate.open()
    change_state(daemon, "UPDATE runs SET interruptions = 1000")
    daemon.start()
    run = daemon.wait_for_run(run_id)
    assert run["state"] == "failed" and "interrupted" in run["reason"], run
    alert, = listener.wait_for(1)
    assert (alert["run"], alert["state"], alert["reason"]) == (run_id, "failed", run["reason"])
    follower, = daemon.wait_for_runs("store", "follow", 1)
    assert (follower["state"], follower["upstream_run"]) == ("succeeded", run_id)


def test_a_run_whose_definition_is_gone_is_followed_too(start_daemon, listener):  # noqa: F811
    daemon = start_daemon({"shop": shop(listener, f"run: [sh, -c, \"{WAIT}\"]"), "store": AFTER})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    assert daemon.request("DELETE", "/v1/pipelines/shop").status in (200, 202, 204)
    daemon.kill9()
    gate.open()
    change_state(daemon, "DELETE FROM revisions WHERE pipeline = 'shop'")
    daemon.start()
    run = daemon.wait_for_run(run_id)
    assert (run["state"], run["reason"]) == ("failed", "its definition is gone"), run
    follower, = daemon.wait_for_runs("store", "follow", 1)
    assert (follower["state"], follower["upstream_run"]) == ("succeeded", run_id)


def test_more_missed_times_than_one_portion(start_daemon):
    minutes = 1500
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work: {trigger: {cron: "* * * * *", missed: all}, run: ["true"], on_overlap: allow, queue_limit: 5000}
"""})
    wait_until(lambda: daemon.job("shop", "work")["next_firing"], "the trigger to be watched")
    daemon.kill9()
    change_state(daemon, "DELETE FROM runs",
                 f"UPDATE schedules SET fired = fired / 60000000 * 60000000 - {minutes} * 60000000")
    daemon.start()
    runs = wait_until(lambda: len(found := daemon.runs("shop", "work")) >= minutes and all(
        run["state"] in FINAL for run in found) and found, "all to be made up for", timeout=120)
    assert {run["state"] for run in runs} == {"succeeded"}
    times = sorted(at(run["scheduled_for"]) for run in runs)
    pauses = {later - earlier for earlier, later in zip(times, times[1:])}
    assert pauses == {datetime.timedelta(minutes=1)}, "each once, and none left out"
