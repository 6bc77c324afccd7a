"""Many triggers at once: what was accepted is executed, once; what is too much is refused in so many words."""
import collections
import http.client
import json
import threading

from gate import WAIT, Gate
from penstock import FINAL, wait_until

BURST = 10_000


def in_threads(count, work):
    """work(n) in `count` threads; the first failure of any is raised."""
    failures = []

    def guarded(n):
        try:
            work(n)
        except Exception as failure:  # it must reach the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def ended(daemon, pipeline, job):
    return daemon.job(pipeline, job)["runs"].get("succeeded", 0)


def test_ten_thousand_events_make_ten_thousand_runs(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
topics: {arrivals: {}, copies: {}}
jobs:
  work: {trigger: {topic: arrivals, max_events: 1}, to: {topic: copies}, on_overlap: allow}
"""})
    senders = 8

    def send(sender):
        for batch in range(sender, BURST // 50, senders):
            daemon.publish("arrivals", [{"n": batch * 50 + i} for i in range(50)])

    in_threads(senders, send)
    wait_until(lambda: ended(daemon, "shop", "work") == BURST, f"{BURST} runs", timeout=180)
    daemon.wait_until_quiet("shop", timeout=60)
    runs = daemon.runs("shop", "work")
    assert len(runs) == BURST
    assert {(run["state"], run["attempt"], run["input"]["events"]) for run in runs} == {("succeeded", 1, 1)}
    assert sorted(run["input"]["first_offset"] for run in runs) == list(range(1, BURST + 1))
    assert sorted(event["data"]["n"] for event in daemon.events("copies")) == list(range(BURST))
    assert daemon.dead_letters() == []


def test_ten_thousand_requests_against_a_queue_of_five_hundred(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
topics: {counted: {}}
jobs:
  work:
    run: [sh, -c, "WAIT; echo \\"{\\\\\\"run\\\\\\": \\\\\\"$PENSTOCK_RUN_ID\\\\\\"}\\""]
    to: {topic: counted}
    queue_limit: 500
""".replace("WAIT", WAIT)})
    gate = Gate(daemon.work("shop"))
    answers, accepted, lock = collections.Counter(), [], threading.Lock()

    def ask(_):
        connection = daemon.connect()
        mine, ids = collections.Counter(), []
        for _ in range(BURST // 8):
            connection.request("POST", "/v1/pipelines/shop/jobs/work/runs", b"{}", {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = json.loads(response.read())
            mine[response.status] += 1
            if response.status == 202:
                ids.append(body["id"])
                continue
            assert response.status == 429, body
            assert int(response.headers["Retry-After"]) >= 1
            assert response.headers["Content-Type"] == "application/problem+json"
            assert body["detail"] == "job work has 500 runs waiting, its queue_limit"
        with lock:
            answers.update(mine)
            accepted.extend(ids)

    in_threads(8, ask)
    assert answers == {202: 501, 429: BURST - 501}, "one runs, five hundred wait"
    runs = daemon.runs("shop", "work")
    assert sorted(run["id"] for run in runs) == sorted(accepted), "what was accepted is there, what was refused is not"
    assert collections.Counter(run["state"] for run in runs) == {"running": 1, "queued": 500}
    assert all(run["waiting_reason"] for run in runs if run["state"] == "queued")

    gate.open()
    wait_until(lambda: ended(daemon, "shop", "work") == 501, "all that was accepted", timeout=120)
    assert sorted(event["data"]["run"] for event in daemon.events("counted")) == sorted(accepted), "each executed once"
    assert daemon.trigger("shop", "work", wait="30s").json["state"] == "succeeded", "there is room again"


def test_a_burst_is_not_lost_in_a_crash(start_daemon):
    """Every request that was answered 202 before the kill has its run after it, and no other has."""
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work: {run: ["true"], on_overlap: allow, queue_limit: 100000}
"""})
    accepted, lock, enough = [], threading.Lock(), threading.Event()

    def ask(sender):
        connection = daemon.connect(timeout=10)
        for n in range(5000):
            try:
                connection.request("POST", "/v1/pipelines/shop/jobs/work/runs", json.dumps({"params": {"n": n}}),
                                   {"Content-Type": "application/json", "Idempotency-Key": f"{sender}-{n}"})
                response = connection.getresponse()
                body = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError):
                return  # the kill
            assert response.status == 202, body
            with lock:
                accepted.append((f"{sender}-{n}", n, body["id"]))
                if len(accepted) >= 1000:
                    enough.set()

    senders = threading.Thread(target=in_threads, args=(6, ask))
    senders.start()
    assert enough.wait(60)
    daemon.kill9()
    senders.join()
    daemon.start()

    def all_ended():
        runs = daemon.runs("shop", "work")
        return all(run["state"] in FINAL for run in runs) and runs

    runs = {run["id"]: run for run in wait_until(all_ended, "all runs to have ended", timeout=120)}
    assert {run["state"] for run in runs.values()} == {"succeeded"}
    assert {run_id for _, _, run_id in accepted} <= set(runs)
    assert len(runs) - len(accepted) <= 6, "beyond those, at most the requests that were under way"
    key, n, run_id = accepted[-1]
    again = daemon.trigger("shop", "work", {"params": {"n": n}}, headers={"Idempotency-Key": key})
    assert again.json["id"] == run_id, "asked again by somebody who does not know, it is the same run"


def test_available_now(start_daemon):
    """A run takes what waits when it starts. What comes while it works is the next run's."""
    daemon = start_daemon({"shop": """
name: shop
topics: {arrivals: {}}
jobs:
  prepare: {run: [mkfifo, gate]}
  load: {trigger: {topic: arrivals}, run: [sh, -c, "wc -l >> counts; read word < gate"]}
"""})
    assert daemon.run_to_end("shop", "prepare")["state"] == "succeeded"
    assert daemon.post("/v1/pipelines/shop/pause").status in (200, 202, 204)
    for part in range(10):
        daemon.publish("arrivals", [{"n": part * 100 + i} for i in range(100)])
    assert daemon.runs("shop", "load") == []
    daemon.post("/v1/pipelines/shop/resume")
    counts = daemon.work("shop") / "counts"
    wait_until(lambda: counts.exists() and counts.read_text(), "the first run to have read its input")
    daemon.publish("arrivals", [{"n": 1000 + i} for i in range(100)])
    run, = daemon.runs("shop", "load")
    assert (run["state"], run["input"]["events"]) == ("running", 1000), "it is not given more"

    gate = daemon.work("shop") / "gate"
    gate.write_text("go\n")
    wait_until(lambda: len(daemon.runs("shop", "load")) == 2, "the second run")
    gate.write_text("go\n")
    first, second = daemon.wait_for_runs("shop", "load", 2)
    assert [(run["input"]["first_offset"], run["input"]["last_offset"]) for run in (first, second)] == [(1, 1000), (1001, 1100)]
    assert counts.read_text().split() == ["1000", "100"]
    assert first["ended_at"] <= second["started_at"]
