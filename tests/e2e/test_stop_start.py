"""SIGTERM under load drains in order; a start resumes where it stopped. Nothing is lost or doubled in SQLite."""
import http.client
import json
import threading

from penstock import PATIENCE, processes_with, wait_until

PIPELINE = """
name: shop
topics:
  arrivals: {dedupe: {key: event.n, within: 1h}}
  orders: {}
flows:
  clean:
    from: {topic: arrivals}
    steps:
      - map: {n: event.n, twice: event.n * 2}
    to: {topic: orders}
  direct:
    from: {topic: orders}
    to: {sqlite: {file: flow.db, table: orders, mode: append}}
  lines:
    from: {topic: orders}
    to: {file: {path: orders.ndjson}}
jobs:
  load:
    trigger: {topic: orders, max_events: 300, max_wait: 100ms}
    to: {sqlite: {file: job.db, table: orders, mode: append}}
"""
POSTS = 600
PER_POST = 10


class Publisher(threading.Thread):
    """Posts numbered events, each until it is confirmed."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.daemon_under_test = daemon
        self.up = threading.Event()
        self.up.set()
        self.progress = threading.Condition()
        self.posted = 0

    def run(self):
        connection = None
        for post in range(POSTS):
            body = "".join(json.dumps({"n": post * PER_POST + i}) + "\n" for i in range(PER_POST))
            status = None
            while status != 202:
                assert self.up.wait(PATIENCE)
                try:
                    connection = connection or self.daemon_under_test.connect(timeout=20)
                    connection.request("POST", "/v1/topics/arrivals/events", body,
                                       {"Content-Type": "application/x-ndjson"})
                    answer = connection.getresponse()
                    answer.read()
                    status = answer.status
                except (OSError, http.client.HTTPException, TypeError):
                    connection = None  # TypeError: the address is gone while it restarts
            with self.progress:
                self.posted += 1
                self.progress.notify_all()

    def wait_for(self, posts):
        with self.progress:
            assert self.progress.wait_for(lambda: self.posted >= posts, timeout=60), self.posted


def test_stops_under_load_lose_and_double_nothing(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    publisher = Publisher(daemon)
    publisher.start()
    for part in range(1, 6):
        publisher.wait_for(part * POSTS // 6)
        publisher.up.clear()
        assert daemon.stop() == 0, daemon.log_tail()
        daemon.start()
        publisher.up.set()
    publisher.wait_for(POSTS)
    daemon.wait_until_quiet("shop")
    total = POSTS * PER_POST
    wanted = [(n, 2 * n) for n in range(total)]
    for file in ("flow.db", "job.db"):
        assert daemon.rows("shop", file, "SELECT n, twice FROM orders ORDER BY n") == wanted, file
    lines = (daemon.work("shop") / "orders.ndjson").read_text().splitlines()
    assert sorted(json.loads(line)["n"] for line in lines) == list(range(total))
    assert daemon.dead_letters() == []
    assert all(run["state"] == "succeeded" for run in daemon.runs("shop", "load"))


def test_a_running_command_is_ended_and_its_run_resumed(start_daemon, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("drain_timeout: 2s\n")
    daemon = start_daemon({"shop": """
name: shop
jobs:
  prepare: {run: [mkfifo, gate]}
  long: {run: [sh, -c, "echo started; read line < gate"], grace: 1s}
"""}, args=["--config", settings])
    assert daemon.run_to_end("shop", "prepare")["state"] == "succeeded"
    run_id = daemon.trigger("shop", "long").json["id"]
    wait_until(lambda: "started" in daemon.logs(run_id), "the command to start")
    assert daemon.stop() == 0
    assert processes_with("PENSTOCK_RUN_ID=" + run_id) == []
    daemon.start()
    run = wait_until(lambda: (r := daemon.run(run_id))["state"] == "running" and r, "the run to run again")
    assert run["interruptions"] == 1
    assert run["attempt"] == 1, "an interruption is not a failed attempt"
    with open(daemon.work("shop") / "gate", "w", encoding="utf-8") as gate:
        print("go", file=gate)
    assert daemon.wait_for_run(run_id)["state"] == "succeeded"


def test_pause_survives_a_restart(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    assert daemon.post("/v1/pipelines/shop/pause").status in (200, 202, 204)
    daemon.publish("orders", [{"n": 1, "twice": 2}])
    daemon.restart()
    assert daemon.pipeline("shop")["paused"] is True
    assert {flow["state"] for flow in daemon.pipeline("shop")["flows"]} == {"paused"}
    assert daemon.runs("shop") == []
    assert daemon.post("/v1/pipelines/shop/resume").status in (200, 202, 204)
    daemon.wait_for_runs("shop", "load", 1)
    daemon.wait_until_quiet("shop")
    assert daemon.rows("shop", "flow.db", "SELECT n FROM orders") == [(1,)]


def test_the_same_port_again_directly_after_a_stop(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    for _ in range(5):
        host, port = daemon.address
        held = daemon.connect()
        held.request("GET", "/healthz")
        held.getresponse().read()
        assert daemon.stop() == 0
        daemon.start(listen=f"{host}:{port}")
    assert daemon.get("/readyz").status == 200


def test_an_idle_stop_is_quick(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    assert daemon.stop(timeout=5) == 0
    daemon.start()
