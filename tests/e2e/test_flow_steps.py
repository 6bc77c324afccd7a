"""Steps through the real binary: routes, splits, fields, alerts, SQL, and programs as steps, crashes of all included."""
import textwrap

from penstock import processes_with, wait_until

ORDERS = """
name: shop
topics: {arrivals: {}, big: {}, eu: {}, lines: {}}
flows:
  sort:
    from: {topic: arrivals}
    steps:
      - cast: {total: number}
      - route: {big: event.total > 5000, eu: event.region == 'eu'}
      - split: {items: event.items, keep: {order_id: event.id}}
      - rename: {sku: article}
      - flatten: {}
    outputs: {big: {topic: big}, eu: {topic: eu}}
    to: {topic: lines}
"""


def test_orders_go_their_ways_and_become_lines(start_daemon):
    daemon = start_daemon({"shop": ORDERS})
    daemon.publish("arrivals", [
        {"id": 1, "total": "9000", "region": "eu", "items": []},
        {"id": 2, "total": "10.50", "region": "eu", "items": []},
        {"id": 3, "total": "7", "region": "us", "items": [{"sku": "a", "n": 2}, {"sku": "b", "at": {"shelf": 7}}]},
        {"id": 4, "total": "seven", "region": "us", "items": []},
        {"id": 5, "total": "7", "region": "us", "items": []},
        {"id": 6, "total": "7", "region": "us"},
    ])
    lines = daemon.wait_for_topic("lines", 2)
    assert [line["data"] for line in lines] == [{"article": "a", "n": 2, "order_id": 3},
                                                {"article": "b", "at_shelf": 7, "order_id": 3}]
    assert [line["id"].rsplit("/", 1)[1] for line in lines] == ["0", "1"]
    assert [e["data"]["id"] for e in daemon.wait_for_topic("big", 1)] == [1]
    assert [e["data"] for e in daemon.wait_for_topic("eu", 1)] == [{"id": 2, "total": 10.5, "region": "eu", "items": []}]
    letters = wait_until(lambda: len(found := daemon.dead_letters("shop")) == 2 and found, "two dead letters")
    reasons = {letter["event"]["data"]["id"]: letter["reason"] for letter in letters}
    assert "'total'" in reasons[4] and "seven" in reasons[4]
    assert "a list is needed" in reasons[6]


def test_a_route_without_a_place_is_refused(daemon):
    answer = daemon.put("shop", ORDERS.replace("eu: {topic: eu}", "au: {topic: eu}"), expect=(422,))
    assert "'eu'" in answer.text


def test_250_hits_are_one_alert_also_after_a_crash(start_daemon):
    daemon = start_daemon({"watch": """
name: watch
topics: {hits: {}, seen: {}, alerts: {}}
flows:
  watch:
    from: {topic: hits}
    steps:
      - name: errors
        alert: {when: event.status >= 500, threshold: 100, within: 60s, key: event.host}
    outputs: {alerts: {topic: alerts}}
    to: {topic: seen}
"""})
    hits = [{"status": 500, "host": "web1"} for _ in range(250)]
    daemon.publish("hits", hits[:90])
    daemon.wait_for_topic("seen", 90)
    daemon.kill9()
    daemon.start()
    daemon.publish("hits", hits[90:])
    daemon.wait_for_topic("seen", 250)
    alert, = daemon.wait_for_topic("alerts", 1)
    assert alert["data"]["alert"] == "errors"
    assert alert["data"]["key"] == "web1"
    assert alert["data"]["count"] == 100
    assert alert["data"]["sample"] == {"status": 500, "host": "web1"}


MEAN = """
name: numbers
topics: {numbers: {}, means: {}}
jobs:
  mean:
    trigger: {topic: numbers, max_events: 10, max_wait: 10s}
    steps:
      - sql: {select: SELECT avg(n) AS mean FROM events, over: all}
    to: {topic: means}
"""


def test_the_mean_of_ten_events(start_daemon):
    daemon = start_daemon({"numbers": MEAN})
    daemon.publish("numbers", [{"n": n * 10} for n in range(10)])
    mean, = daemon.wait_for_topic("means", 1)
    assert mean["data"] == {"mean": 45.0}
    run, = daemon.wait_for_runs("numbers", "mean", 1)
    assert run["state"] == "succeeded"


def test_sql_that_is_no_select_is_refused(daemon):
    wrong = MEAN.replace("SELECT avg(n) AS mean FROM events", "DROP TABLE events")
    answer = daemon.put("numbers", wrong, expect=(422,))
    problem, = answer.json["errors"]
    assert problem["pointer"] == "/jobs/mean/steps/0/sql"
    assert "SELECT" in problem["detail"]


PROGRAM = textwrap.dedent("""
    import json, os, sys
    for line in sys.stdin:
        event = json.loads(line)
        if event.get("poison"):
            print("poisoned", file=sys.stderr)
            os._exit(7)
        print(json.dumps({"n": event["n"], "twice": event["n"] * 2, "of": [os.environ.get("PENSTOCK_" + name) for name in ("PIPELINE", "FLOW", "INSTANCE")]}))
""")

SCORES = """
name: scores
topics: {in: {}, out: {}}
flows:
  score:
    from: {topic: in}
    steps:
      - name: program
        exec: {run: [python3, score.py], timeout: 20s}
    to: {topic: out}
"""


def with_program(start_daemon, text=PROGRAM):
    daemon = start_daemon()
    daemon.work("scores").mkdir(parents=True)
    (daemon.work("scores") / "score.py").write_text(text)
    daemon.put("scores", SCORES)
    return daemon


def test_a_python_program_as_a_step_and_its_crash(start_daemon):
    daemon = with_program(start_daemon)
    daemon.publish("in", [{"n": n, "poison": n == 4} for n in range(10)])
    events = daemon.wait_for_topic("out", 9)
    assert [e["data"]["n"] for e in events] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    instance = events[0]["data"]["of"][2]
    assert instance
    assert all(e["data"] == {"n": e["data"]["n"], "twice": 2 * e["data"]["n"], "of": ["scores", "score", instance]} for e in events)
    letter, = wait_until(lambda: daemon.dead_letters("scores"), "the dead letter")
    assert letter["step"] == "program"
    assert letter["event"]["data"]["n"] == 4
    assert "exit code 7" in letter["reason"] and "poisoned" in letter["reason"]
    assert "poisoned" in (daemon.data / "logs" / "flow-scores" / "score.log").read_text()
    assert daemon.flow("scores", "score")["state"] == "running"


def test_no_program_outlives_its_flow(start_daemon):
    daemon = with_program(start_daemon)
    daemon.publish("in", [{"n": 1}])
    daemon.wait_for_topic("out", 1)
    assert processes_with("PENSTOCK_PIPELINE=scores")
    assert daemon.post("/v1/pipelines/scores/flows/score/stop").status in (200, 202)
    wait_until(lambda: not processes_with("PENSTOCK_PIPELINE=scores"), "the program to be gone")
    assert daemon.post("/v1/pipelines/scores/flows/score/start").status in (200, 202)
    daemon.publish("in", [{"n": 2}])
    daemon.wait_for_topic("out", 2)
    daemon.kill9()  # its standard input ends
    wait_until(lambda: not processes_with("PENSTOCK_PIPELINE=scores"), "the program to be gone after the crash")
    daemon.start()
    daemon.publish("in", [{"n": 3}])
    events = daemon.wait_for_topic("out", 3)
    assert [e["data"]["n"] for e in events] == [1, 2, 3]
    assert daemon.stop() == 0
    assert not processes_with("PENSTOCK_PIPELINE=scores")


def test_a_program_that_cannot_start_is_no_loss(start_daemon):
    daemon = with_program(start_daemon, "import nosuch\n")
    daemon.publish("in", [{"n": n} for n in range(3)])
    flow = wait_until(lambda: (f := daemon.flow("scores", "score"))["state"] == "backing_off" and f, "the flow to back off")
    assert "nosuch" in flow["reason"], flow
    assert daemon.dead_letters("scores") == []
    (daemon.work("scores") / "score.py").write_text(PROGRAM)
    events = daemon.wait_for_topic("out", 3, timeout=60)
    assert [e["data"]["n"] for e in events] == [0, 1, 2]
