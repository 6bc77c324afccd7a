"""A flow's life through the real binary: stop and start, replacement under load, taps, outputs, a sink that is down."""
import http.client
import http.server
import json
import threading

import pytest

from penstock import ndjson, wait_until

SORT = """
name: shop
topics: {orders: {}, small: {}, big: {}, rest: {}}
flows:
  sort:
    from: {topic: orders}
    steps:
      - map: {n: event.n, round: "0"}
        name: mark
      - route: {big: event.n >= 1000, small: event.n < 10}
    to: {topic: rest}
    outputs:
      big: {topic: big}
      small: {topic: small}
"""


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": SORT})


def numbers(daemon, topic):
    return [event["data"]["n"] for event in daemon.events(topic)]


def test_outputs_get_what_was_sent_to_them(shop):
    shop.publish("orders", [{"n": n} for n in (1, 50, 2000, 5, 60)])
    shop.wait_for_topic("rest", 2)
    shop.wait_for_topic("big", 1)
    shop.wait_for_topic("small", 2)
    wait_until(lambda: shop.flow("shop", "sort")["received"] == 5, "the batch to be settled")
    assert (numbers(shop, "small"), numbers(shop, "rest"), numbers(shop, "big")) == ([1, 5], [50, 60], [2000])
    flow = shop.flow("shop", "sort")
    assert (flow["received"], flow["emitted"], flow["dead"]) == (5, 5, 0)
    assert [(step["name"], step["received"], step["emitted"]) for step in flow["steps"]] == [("mark", 5, 5), ("route_2", 5, 5)]
    metrics = shop.get("/metrics").text
    assert 'penstock_step_events_received_total{pipeline="shop",flow="sort",step="mark"} 5' in metrics


def test_an_output_that_nobody_feeds_is_refused(shop):
    answer = shop.request("PUT", "/v1/pipelines/shop", SORT.replace("small: {topic: small}", "smal: {topic: small}").encode())
    assert answer.status == 422
    details = [error["detail"] for error in answer.json["errors"]]
    assert any("no step sends anything to 'smal'; did you mean 'small'" in detail for detail in details), details
    assert any("sends events to 'small'" in detail for detail in details), details


def test_stop_start_and_restart(shop):
    path = "/v1/pipelines/shop/flows/sort/"
    stopped = shop.post(path + "stop")
    assert (stopped.status, stopped.json["state"]) == (200, "stopped")
    shop.publish("orders", [{"n": 20}])
    assert shop.post(path + "stop").json["state"] == "stopped", "again is no error"
    assert shop.post(path + "start").status == 200
    shop.wait_for_topic("rest", 1)
    assert shop.post(path + "restart").status == 200
    shop.publish("orders", [{"n": 30}])
    shop.wait_for_topic("rest", 2)
    assert shop.post(path.replace("sort", "sorte") + "stop").status == 404
    shop.post("/v1/pipelines/shop/pause")
    assert shop.post(path + "start").status == 409


def test_replacement_under_load_loses_and_doubles_nothing(shop):
    total, batch = 6000, 50
    failures = []

    def produce():
        try:
            for first in range(0, total, batch):
                shop.publish("orders", [{"n": 100 + n % 100, "id": n} for n in range(first, first + batch)])
        except Exception as failure:  # a thread's failure must not go unseen
            failures.append(failure)

    producer = threading.Thread(target=produce)
    producer.start()
    for round_number in range(1, 40):
        shop.put("shop", SORT.replace('round: "0"', f'round: "{round_number}"'))
    producer.join()
    assert not failures
    shop.wait_for_topic("rest", total)
    shop.wait_until_quiet("shop")
    assert shop.topic("rest")["events"] == total
    assert numbers(shop, "rest") == [100 + n % 100 for n in range(total)]


# ---- taps ----


class Tap:
    """Reads server-sent events from a tap, line by line."""

    def __init__(self, daemon, query):
        self.connection = daemon.connect()
        self.connection.request("GET", "/v1/pipelines/shop/flows/sort/tap?" + query)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.getheader("content-type") == "text/event-stream"

    def samples(self, count):
        found = []
        while len(found) < count:
            line = self.answer.readline().decode()
            assert line, "the stream has ended"
            if line.startswith("data: ") and '"after"' in line:
                found.append(json.loads(line[6:]))
        return found

    def close(self):
        self.connection.close()


def test_a_tap_shows_what_passes_a_point(shop):
    tap = Tap(shop, "after=mark&where=event.n%3E500")
    shop.publish("orders", [{"n": 1}, {"n": 700}, {"n": 800}])
    samples = tap.samples(2)
    assert [sample["data"]["n"] for sample in samples] == [700, 800]
    assert all(sample["after"] == "mark" and sample["id"] and sample["time"] for sample in samples)
    tap.close()


def test_a_slow_reader_of_a_tap_slows_nothing(shop):
    tap = Tap(shop, "after=from&rate=10000")
    for first in range(0, 20000, 1000):
        shop.publish("orders", [{"n": 100, "pad": "x" * 300, "id": n} for n in range(first, first + 1000)])
    shop.wait_for_topic("rest", 20000)
    tap.close()


def test_what_a_tap_cannot_show_is_said(shop):
    def refused(query):
        return shop.get("/v1/pipelines/shop/flows/sort/tap?" + query)

    answer = refused("after=marc")
    assert answer.status == 422 and "did you mean 'mark'" in answer.text
    answer = refused("where=event.n%20%3E%3E")
    assert answer.status == 400 and "where" in answer.text
    assert refused("rate=0").status == 400


# ---- a sink that is down ----

DELIVERY = """
name: shop
topics: {orders: {}}
flows:
  sort:
    from: {topic: orders}
    to: {http: {url: "http://127.0.0.1:PORT/", timeout: 2s}}
    delivery: {attempts: 3, backoff: 10ms..20ms, then: dead_letter}
"""


class Down(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies += 1
        self.send_response(503 if self.server.down else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Down)
    server.down, server.bodies = True, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_what_a_sink_never_takes_becomes_dead_letters_and_can_be_replayed(start_daemon, receiver):
    daemon = start_daemon({"shop": DELIVERY.replace("PORT", str(receiver.server_port))})
    daemon.publish("orders", [{"n": 1}, {"n": 2}])
    wait_until(lambda: len(daemon.dead_letters("shop")) == 2, "the dead letters")
    assert {letter["attempts"] for letter in daemon.dead_letters("shop")} == {3}
    assert daemon.flow("shop", "sort")["redelivered"] >= 2
    receiver.down = False
    assert daemon.post("/v1/dead-letters/replay", {"all": True}).status == 200
    wait_until(lambda: not daemon.dead_letters("shop"), "the dead letters to be gone")


# ---- a revision that does not start ----

TWO = """
name: shop
topics: {orders: {}, seen: {}EXTRA}
flows:
  copy:
    from: {topic: orders}
    steps: [{map: {n: event.n, mark: "MARK"}}]
    to: COPY_TO
  keep:
    from: {topic: orders}
    to: {sqlite: {file: FILE, table: orders, mode: append}}
  tool: {run: [PROGRAM, -f, /dev/null]}
"""


def two(mark="1", copy_to="{topic: seen}", file="orders.db", program="tail", extra=""):
    return (TWO.replace("MARK", mark).replace("COPY_TO", copy_to).replace("FILE", file)
            .replace("PROGRAM", program).replace("EXTRA", extra))


def refused(daemon, text):
    answer = daemon.request("PUT", "/v1/pipelines/shop", text.encode())
    assert answer.status == 422, answer
    return answer.json


def test_a_revision_whose_flow_does_not_start_leaves_the_old_one_running(start_daemon):
    daemon = start_daemon({"shop": two()})
    wait_until(lambda: {f["state"] for f in daemon.pipeline("shop")["flows"]} == {"running"}, "the flows to run")
    answer = refused(daemon, two(mark="2", file="/proc/none/orders.db", extra=", more: {}"))
    assert "revision 1 goes on" in answer["detail"] and "flow keep" in answer["detail"]
    assert [error["pointer"] for error in answer["errors"]] == ["/flows/keep"]
    assert "/proc/none" in answer["errors"][0]["detail"], "it says why"
    answer = refused(daemon, two(mark="3", program="/nowhere/tail"))
    assert answer["errors"][0]["pointer"] == "/flows/tool" and "/nowhere/tail" in answer["errors"][0]["detail"]

    assert daemon.pipeline("shop")["revision"] == 1
    wait_until(lambda: {f["state"] for f in daemon.pipeline("shop")["flows"]} == {"running"}, "the old ones to run again")
    daemon.publish("orders", [{"n": 1}])
    daemon.wait_for_topic("seen", 1)
    assert daemon.events("seen")[0]["data"] == {"n": 1, "mark": 1}
    wait_until(lambda: daemon.rows("shop", "orders.db", "SELECT n FROM orders") == [(1,)], "the row")
    daemon.kill9()
    daemon.start()
    assert daemon.pipeline("shop")["revision"] == 1


REFUSED = """
name: shop
topics: {a: {}, b: {}, kept: {}, once: {}}
flows:
  at_least_once:
    from: {topic: FROM}
    to: {command: {run: [sh, -c, 'while read -r line; do echo "$line" >> taken; echo ok; done']}}
  once:
    from: {topic: a}
    steps: [{dedupe: KEY, name: seen}]
    to: {topic: once}
  sums:
    from: {topic: a}
    steps: [{window: {tumbling: 1h, time: event.t, key: event.k, aggregates: {n: count, total: {sum: event.n}}, lateness: LATE}}]
    to: {topic: kept}
  stopped: {from: {topic: a}, to: DROP}
  breaks: {from: {topic: a}, to: {file: {path: FILE}}}
"""
GOOD = {"FROM": "a", "KEY": "event.id", "LATE": "0s", "DROP": "drop", "FILE": "out.ndjson"}


def with_changes(**changes):
    text = REFUSED
    for word, value in {**GOOD, **changes}.items():
        text = text.replace(word, value)
    return text


def test_a_refused_revision_has_read_and_stored_nothing(start_daemon):
    """Its flows were open: they would have read other topics, forgotten what steps keep, and started what was stopped."""
    daemon = start_daemon({"shop": with_changes()})
    running = {"at_least_once", "once", "sums", "breaks"}
    wait_until(lambda: {f["name"] for f in daemon.pipeline("shop")["flows"] if f["state"] == "running"} >= running, "all to run")
    daemon.post("/v1/pipelines/shop/flows/stopped/stop")
    daemon.publish("a", [{"id": n, "n": n, "k": "x", "t": "2026-01-01T00:00:00Z"} for n in range(5)])
    daemon.publish("b", [{"id": 100 + n, "n": n} for n in range(5)])
    daemon.wait_for_topic("once", 5)
    taken = daemon.work("shop") / "taken"
    wait_until(lambda: taken.exists() and len(taken.read_text().splitlines()) == 5, "the program to have all")
    for _ in range(3):
        answer = refused(daemon, with_changes(FROM="b", KEY="event.n", LATE="1h", DROP="stdout", FILE="/proc/none/out"))
        assert [error["pointer"] for error in answer["errors"]] == ["/flows/breaks"]
        wait_until(lambda: {f["name"] for f in daemon.pipeline("shop")["flows"] if f["state"] == "running"} == running,
                   "the old ones to run again, and the stopped one to stay so")
    daemon.publish("a", [{"id": n, "n": n, "k": "x", "t": "2026-01-01T00:00:00Z"} for n in (3, 4, 5)])
    daemon.publish("a", [{"id": 9, "n": 0, "k": "y", "t": "2026-01-01T05:00:00Z"}])
    assert [e["data"]["id"] for e in daemon.wait_for_topic("once", 7)] == [0, 1, 2, 3, 4, 5, 9]
    window, = daemon.wait_for_topic("kept", 1)
    assert (window["data"]["n"], window["data"]["total"]) == (8, 0 + 1 + 2 + 3 + 4 + 3 + 4 + 5)
    wait_until(lambda: len(taken.read_text().splitlines()) == 9, "the program to have the new ones")
    assert [json.loads(line)["id"] for line in taken.read_text().splitlines()] == [0, 1, 2, 3, 4, 3, 4, 5, 9]


def test_a_flow_that_did_not_run_anyway_may_be_replaced_by_one_that_does_not_either(start_daemon):
    daemon = start_daemon({"shop": two(file="/proc/none/a.db")})
    wait_until(lambda: daemon.flow("shop", "keep")["state"] == "backing_off", "the flow to fail")
    daemon.put("shop", two(file="/proc/none/b.db"))
    assert daemon.pipeline("shop")["revision"] == 2
    daemon.put("shop", two())
    wait_until(lambda: daemon.flow("shop", "keep")["state"] == "running", "the repaired flow to run")


def test_a_paused_pipeline_takes_any_revision(start_daemon):
    daemon = start_daemon({"shop": two()})
    daemon.post("/v1/pipelines/shop/pause")
    daemon.put("shop", two(file="/proc/none/a.db"))
    assert daemon.pipeline("shop")["revision"] == 2
    assert daemon.flow("shop", "keep")["state"] == "paused"


def test_revisions_that_do_not_start_lose_and_double_nothing_under_load(start_daemon):
    daemon = start_daemon({"shop": two()})
    wait_until(lambda: {f["state"] for f in daemon.pipeline("shop")["flows"]} == {"running"}, "the flows to run")
    for round_number in range(20):
        daemon.publish("orders", [{"n": 100 * round_number + i} for i in range(100)])
        answer = refused(daemon, two(mark=str(2 + round_number), file="/proc/none/a.db"))
        assert answer["errors"][0]["pointer"] == "/flows/keep"
        wait_until(lambda: daemon.flow("shop", "keep")["state"] == "running", "the old flow to run again")
    daemon.wait_for_topic("seen", 2000)
    wait_until(lambda: daemon.rows("shop", "orders.db", "SELECT count(*) FROM orders") == [(2000,)], "all rows")
    seen = [event["data"]["n"] for event in daemon.events("seen")]
    assert seen == list(range(2000))
    assert daemon.rows("shop", "orders.db", "SELECT n FROM orders ORDER BY rowid") == [(n,) for n in range(2000)]


# ---- what a new revision does to what steps keep ----

KEEPS = """
name: shop
topics: {orders: {}, once: {}}
flows:
  dedupe:
    from: {topic: orders}
    steps:
      - dedupe: event.n
        name: seen
    to: {topic: once}
"""


def test_the_plan_says_what_steps_will_forget(start_daemon):
    daemon = start_daemon({"shop": KEEPS})
    daemon.publish("orders", [{"n": 1, "id": 1}])
    daemon.wait_for_topic("once", 1)
    other_key = KEEPS.replace("dedupe: event.n", "dedupe: event.id")
    plan = daemon.put("shop", other_key, query="?dry_run=true").json
    assert [warning["detail"] for warning in plan["warnings"]] == [
        "flow dedupe, step seen: what it had kept does not fit its new settings; it starts empty"]
    same_key = KEEPS.replace("to: {topic: once}", "to: {topic: {topic: once, key: event.id}}")
    assert daemon.put("shop", same_key, query="?dry_run=true").json["warnings"] == []
    daemon.put("shop", same_key)
    daemon.publish("orders", [{"n": 1, "id": 2}, {"n": 2, "id": 2}])
    daemon.wait_for_topic("once", 2)
    daemon.put("shop", other_key)
    daemon.kill9()
    daemon.start()
    daemon.publish("orders", [{"n": 2, "id": 3}, {"n": 9, "id": 3}])
    daemon.wait_for_topic("once", 3)
    assert [event["data"]["id"] for event in daemon.events("once")] == [1, 2, 3]
