"""Files that grow and arrive, servers that are asked and told, tables that change: through the real daemon and its crashes."""
import http.server
import json
import os
import sqlite3
import threading

import pytest

from penstock import wait_until


class Server:
    """A web server whose answers the test chooses: {path: (status, headers, body)}; 404 otherwise. It keeps what is asked and posted."""

    def __init__(self):
        self.pages, self.asked, self.posted, self.failures, self.lock = {}, [], [], [], threading.Lock()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with server.lock:
                    server.asked.append((self.path, dict(self.headers)))
                    status, headers, body = server.pages.get(self.path, (404, {}, b""))
                if headers.get("ETag") and self.headers.get("If-None-Match") == headers["ETag"]:
                    status, body = 304, b""
                self.answer(status, headers, body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with server.lock:
                    status, headers = server.failures.pop(0) if server.failures else (200, {})
                    if status == 200:
                        server.posted.append(json.loads(body))
                self.answer(status, headers, b"")

            def answer(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]

    def show(self, path, value, status=200, **headers):
        with self.lock:
            self.pages[path] = (status, {name.replace("_", "-"): text for name, text in headers.items()},
                                json.dumps(value).encode())


@pytest.fixture
def server():
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def data(events):
    return [event["data"] for event in events]


def test_events_are_enriched_from_all_three_places_and_a_table_is_replaced(start_daemon, server):
    server.show("/c/7", {"name": "Ana"})
    daemon = start_daemon()
    work = daemon.work("shop")
    work.mkdir(parents=True, exist_ok=True)
    (work / "countries.csv").write_text("code,name\nES,Spain\n")
    with sqlite3.connect(work / "rates.db") as rates:
        rates.execute("CREATE TABLE rates (code TEXT, rate REAL)")
        rates.execute("INSERT INTO rates VALUES ('EUR', 1.5)")
    daemon.put("shop", f"""
name: shop
topics: {{orders: {{}}, out: {{}}}}
flows:
  f:
    from: {{topic: orders}}
    steps:
      - enrich: {{from: {{csv: {{file: countries.csv, look: 0s}}}}, key: event.country, into: country_facts}}
      - enrich: {{from: {{sqlite: {{file: rates.db, query: "SELECT rate FROM rates WHERE code = ?"}}}}, key: event.currency, into: rate}}
      - enrich: {{from: {{http: "{server.url}/c/{{key}}"}}, key: event.customer, into: customer_facts, miss: dead_letter}}
    to: {{topic: out}}
""")
    daemon.publish("orders", [{"country": "ES", "currency": "EUR", "customer": 7}, {"customer": 8}])
    found = data(daemon.wait_for_topic("out", 1))
    assert found == [{"country": "ES", "currency": "EUR", "customer": 7, "country_facts": {"code": "ES", "name": "Spain"},
                      "rate": {"rate": 1.5}, "customer_facts": {"name": "Ana"}}]
    letter, = wait_until(lambda: daemon.dead_letters("shop"), "the dead letter")
    assert "nothing found for key '8'" in letter["reason"]

    (work / "new.csv").write_text("code,name\nES,España\n")
    os.rename(work / "new.csv", work / "countries.csv")
    daemon.publish("orders", [{"country": "ES", "customer": 7}])
    assert data(daemon.wait_for_topic("out", 2))[1]["country_facts"]["name"] == "España"
    assert sorted(path for path, _ in server.asked) == ["/c/7", "/c/8"]  # the answer was kept


def test_a_log_is_followed_through_rotations_and_crashes(start_daemon):
    daemon = start_daemon({"logs": """
name: logs
topics: {lines: {}}
flows:
  tail:
    from: {file: {path: app.log, format: lines, follow: true}}
    steps: [{map: {line: event}}]
    to: {topic: lines}
"""})
    log = daemon.work("logs") / "app.log"
    written = 0

    def write(count):
        nonlocal written
        with open(log, "a", encoding="utf-8") as file:
            for _ in range(count):
                written += 1
                file.write(f"line {written}\n")

    write(10)
    daemon.wait_for_topic("lines", 10)
    for rotation in range(4):
        write(5)
        if rotation % 2:
            daemon.kill9()
        os.rename(log, f"{log}.{rotation}")
        write(5)
        if rotation % 2:
            daemon.start()
        daemon.wait_for_topic("lines", written)
    assert [line["line"] for line in data(daemon.events("lines"))] == [f"line {n + 1}" for n in range(written)]


def test_files_of_a_folder_become_rows_and_are_moved(start_daemon):
    daemon = start_daemon({"inbox": """
name: inbox
flows:
  load:
    from: {folder: {path: "in/*.csv", done: done, settle: 10ms}}
    to: {file: {path: out/rows.csv, format: csv, columns: [b, a]}}
"""})
    work = daemon.work("inbox")
    (work / "in").mkdir(parents=True)
    for number in range(3):
        (work / "in" / "half").write_text(f"a,b\n{number},\"x,{number}\"\n")
        os.rename(work / "in" / "half", work / "in" / f"{number}.csv")
        wait_until(lambda: (work / "in" / "done" / f"{number}.csv").exists(), f"file {number} to be put away")
        if number == 1:
            daemon.kill9()
            daemon.start()
    assert (work / "out" / "rows.csv").read_text() == 'b,a\n"x,0",0\n"x,1",1\n"x,2",2\n'


def test_a_poll_brings_what_is_new_and_survives_a_failing_server(start_daemon, server):
    server.show("/rates", [{"n": 1}, {"n": 2}], ETag='"1"')
    daemon = start_daemon({"rates": f"""
name: rates
topics: {{rates: {{}}}}
flows:
  poll:
    from: {{http_poll: {{url: "{server.url}/rates", every: 50ms}}}}
    to: {{topic: rates}}
"""})
    daemon.wait_for_topic("rates", 2)
    server.show("/rates", {}, status=503)
    asked = len(server.asked)
    wait_until(lambda: len(server.asked) > asked + 1, "two more polls")
    server.show("/rates", {"n": 3}, ETag='"2"')
    assert [event["n"] for event in data(daemon.wait_for_topic("rates", 3))] == [1, 2, 3]
    asked = len(server.asked)
    wait_until(lambda: len(server.asked) > asked + 3, "more polls of what is unchanged")
    daemon.restart()
    asked = len(server.asked)
    wait_until(lambda: len(server.asked) > asked + 1, "polls after the restart")
    assert daemon.topic("rates")["events"] == 3


def test_a_sink_sends_batches_and_holds_what_a_busy_server_refuses(start_daemon, server):
    server.failures = [(503, {"Retry-After": "0"}), (429, {})]
    daemon = start_daemon({"bulk": f"""
name: bulk
topics: {{orders: {{}}}}
flows:
  send:
    from: {{topic: orders}}
    to: {{http: {{url: "{server.url}/in", batch: {{events: 10}}}}}}
"""})
    daemon.publish("orders", [{"n": n} for n in range(35)])
    wait_until(lambda: sum(map(len, server.posted)) >= 35, "all events at the server")
    assert [event["n"] for batch in server.posted for event in batch] == list(range(35))
    assert max(map(len, server.posted)) <= 10
    assert not daemon.dead_letters("bulk")
