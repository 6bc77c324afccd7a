"""Live feeds in and out: subscribers over server-sent events and WebSockets, and the clients of both, through the real daemon."""
import base64
import hashlib
import http.server
import json
import os
import socket
import struct
import threading

import pytest

from penstock import wait_until

PRICES = """
name: prices
topics: {ticks: {}}
flows:
  show:
    from: {topic: ticks}
    to: {subscribers: {name: prices, keep: 100}}
"""


class Events:
    """A reader of server-sent events: one connection, one message at a time."""

    def __init__(self, daemon, path="/v1/streams/prices", headers=None):
        self.connection = daemon.connect(timeout=30)
        self.connection.request("GET", path, headers=headers or {})
        self.answer = self.connection.getresponse()

    def next(self):
        """The next message as a dict of its fields; None at the end."""
        fields = {}
        while True:
            line = self.answer.readline().decode()
            if not line:
                return None
            line = line.rstrip("\n")
            if line == "" and fields:
                return fields
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value

    def data(self, count):
        return [json.loads(self.next()["data"]) for _ in range(count)]

    def close(self):
        self.answer.close()
        self.connection.close()


class WebSocket:
    """A client as small as RFC 6455 allows: what it sends is masked, what it gets are whole frames."""

    def __init__(self, daemon, path="/v1/streams/prices", **headers):
        self.socket = socket.create_connection(daemon.address, timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", "Host: %s:%d" % daemon.address, "Connection: Upgrade", "Upgrade: websocket",
                 "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *(f"{name}: {value}" for name, value in headers.items())]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        head = iter(lambda: self.file.readline().strip(), b"")
        self.headers = {name.lower(): value for name, value in (line.decode().split(": ", 1) for line in head)}
        wanted = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert self.status != 101 or self.headers["sec-websocket-accept"] == base64.b64encode(wanted).decode()

    def next(self):
        """(opcode, payload); None when the connection has ended."""
        head = self.file.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 127
        if size == 126:
            size = struct.unpack("!H", self.file.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.file.read(8))[0]
        return head[0] & 15, self.file.read(size)

    def data(self, count):
        found = []
        while len(found) < count:
            opcode, payload = self.next()
            assert opcode == 1, (opcode, payload)
            found.append(json.loads(payload))
        return found

    def send(self, opcode, payload=b""):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def close_code(self):
        """Reads up to the server's closing."""
        while True:
            opcode, payload = self.next()
            if opcode == 8:
                return struct.unpack("!H", payload[:2])[0]

    def close(self):
        self.file.close()
        self.socket.close()


def numbers(first, last):
    return [{"n": n} for n in range(first, last + 1)]


def stream(daemon, name="prices"):
    return next((one for one in daemon.get_json("/v1/streams")["items"] if one["name"] == name), None)


def subscribed(daemon, count, name="prices"):
    wait_until(lambda: stream(daemon, name)["subscribers"] == count, f"{count} subscribers")


def test_everyone_gets_every_event_by_either_way(start_daemon):
    daemon = start_daemon({"prices": PRICES})
    readers = [Events(daemon), Events(daemon), WebSocket(daemon), WebSocket(daemon, Origin="http://%s:%d" % daemon.address)]
    assert readers[0].answer.status == 200 and readers[0].answer.getheader("content-type") == "text/event-stream"
    subscribed(daemon, 4)
    daemon.publish("ticks", numbers(1, 50))
    for reader in readers:
        assert reader.data(50) == numbers(1, 50)
    readers[2].send(9, b"are you there")
    assert readers[2].next() == (10, b"are you there")
    readers[2].send(1, b"nobody reads this")
    readers[2].send(8, struct.pack("!H", 1000))
    assert readers[2].close_code() == 1000
    readers[3].close()
    readers[0].close()
    subscribed(daemon, 1)
    daemon.publish("ticks", numbers(51, 51))
    assert readers[1].data(1) == numbers(51, 51)
    assert stream(daemon)["events"] == 51


def test_what_is_not_there_or_not_allowed_is_refused_in_words(start_daemon):
    daemon = start_daemon({"prices": PRICES})
    missing = daemon.get("/v1/streams/price")
    assert missing.status == 404 and "prices" in missing.json["detail"]
    assert WebSocket(daemon, "/v1/streams/none").status == 404
    assert WebSocket(daemon, Origin="http://evil.example").status == 403
    assert WebSocket(daemon, Origin="null").status == 403
    upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Version": "8"}
    refused = daemon.request("GET", "/v1/streams/prices", headers={"Connection": "Upgrade", **upgrade})
    assert refused.status == 426 and "13" in refused.json["detail"]
    through_proxy = Events(daemon, headers=upgrade)  # that took out "Connection: Upgrade"
    assert through_proxy.answer.status == 200 and through_proxy.answer.getheader("content-type") == "text/event-stream"
    through_proxy.close()
    subscribed(daemon, 0)
    assert daemon.get_json("/v1/streams")["items"] == [{"name": "prices", "subscribers": 0, "events": 0}]
    broken = daemon.put("bad", PRICES.replace("name: prices\n", "name: bad\n").replace("keep: 100", "keep: 0"), expect=(422,)).json
    assert "keep" in json.dumps(broken["errors"])


def test_a_subscriber_that_comes_back_goes_on_or_hears_of_the_gap(start_daemon):
    daemon = start_daemon({"prices": PRICES})
    first = Events(daemon)
    daemon.publish("ticks", numbers(1, 3))
    seen = [first.next() for _ in range(3)]
    first.close()
    daemon.publish("ticks", numbers(4, 6))
    wait_until(lambda: stream(daemon)["events"] == 6, "six events")
    again = Events(daemon, headers={"Last-Event-ID": seen[1]["id"]})
    assert again.data(4) == numbers(3, 6)
    by_query = Events(daemon, f"/v1/streams/prices?after={seen[2]['id']}")
    assert by_query.data(3) == numbers(4, 6)
    daemon.publish("ticks", numbers(7, 300))
    wait_until(lambda: stream(daemon)["events"] == 300, "more than is kept")
    late = Events(daemon, headers={"Last-Event-ID": seen[2]["id"]})
    assert late.next()["event"] == "gap"
    assert late.data(100) == numbers(201, 300)
    daemon.kill9()
    daemon.start()
    daemon.publish("ticks", numbers(301, 301))
    wait_until(lambda: stream(daemon)["events"] >= 1, "the event after the crash")
    after_crash = Events(daemon, headers={"Last-Event-ID": seen[2]["id"]})
    assert after_crash.next()["event"] == "gap"


def test_a_slow_subscriber_is_closed_and_slows_nobody(start_daemon):
    daemon = start_daemon({"prices": PRICES.replace("keep: 100", "keep: 50, size: 1MiB")})
    slow, slow_socket = Events(daemon), WebSocket(daemon)
    subscribed(daemon, 2)
    big = "x" * 20_000
    total = 3000  # 60 MB: more than any socket holds
    for first in range(0, total, 100):
        daemon.publish("ticks", [{"n": n, "text": big} for n in range(first, first + 100)])
        slow_socket.send(10)  # it lives, however long this takes
    wait_until(lambda: stream(daemon)["events"] == total, "all events at the sink")
    events = []
    while (event := slow.next()) is not None:
        events.append(event)
    assert events[-1]["event"] == "overrun"
    shown = [json.loads(event["data"])["n"] for event in events[:-1]]
    assert shown == list(range(len(shown)))
    assert slow_socket.close_code() == 1013


def test_subscribers_outlive_a_new_revision_and_are_told_of_the_end(start_daemon):
    daemon = start_daemon({"prices": PRICES})
    events, messages = Events(daemon), WebSocket(daemon)
    subscribed(daemon, 2)
    daemon.put("prices", PRICES.replace("from: {topic: ticks}", "from: {topic: ticks}\n    steps: [{map: {n: event.n + 1000}}]"))
    daemon.publish("ticks", numbers(1, 2))
    assert events.data(2) == messages.data(2) == numbers(1001, 1002)
    daemon.post("/v1/pipelines/prices/pause")
    waiting = WebSocket(daemon)
    assert waiting.status == 101
    assert daemon.request("DELETE", "/v1/pipelines/prices").status in (200, 202, 204)
    assert events.next()["event"] == "end"
    assert events.next() is None
    assert messages.close_code() == waiting.close_code() == 1001
    assert stream(daemon) is None


def test_a_stop_closes_all_politely(start_daemon):
    daemon = start_daemon({"prices": PRICES})
    events, messages = Events(daemon), WebSocket(daemon)
    subscribed(daemon, 2)
    codes = []
    reader = threading.Thread(target=lambda: codes.append(messages.close_code()) or messages.send(8, struct.pack("!H", 1001)))
    reader.start()
    assert daemon.stop() == 0
    reader.join(timeout=30)
    assert codes == [1001]
    assert events.next()["event"] == "end"
    assert "forced" not in daemon.log_tail()


def copies(daemon):
    url = "%s:%d/v1/streams/prices" % daemon.address
    return f"""
name: copies
topics: {{by_socket: {{}}, by_events: {{}}}}
flows:
  by_socket:
    from: {{websocket: {{url: "ws://{url}", reconnect: 10ms..100ms}}}}
    to: {{topic: by_socket}}
  by_events:
    from: {{sse: {{url: "http://{url}", events: message, reconnect: 10ms..100ms}}}}
    to: {{topic: by_events}}
"""


def test_both_clients_follow_another_daemon_through_its_restart(start_daemon):
    shown = start_daemon({"prices": PRICES})
    address = shown.address
    follower = start_daemon()
    follower.put("copies", copies(shown))
    subscribed(shown, 2)
    shown.publish("ticks", numbers(1, 200))
    for topic in ("by_socket", "by_events"):
        assert [event["data"] for event in follower.wait_for_topic(topic, 200)] == numbers(1, 200)
    assert shown.stop() == 0
    shown.start("%s:%d" % address)
    subscribed(shown, 2)
    shown.publish("ticks", numbers(201, 210))
    for topic in ("by_socket", "by_events"):
        assert [event["data"] for event in follower.wait_for_topic(topic, 210)] == numbers(1, 210)
    for name in ("by_socket", "by_events"):
        assert follower.flow("copies", name)["state"] == "running"


class Feed:
    """A server of events with ids: sends what it has after Last-Event-ID, and whatever comes."""

    def __init__(self):
        self.events, self.asked, self.changed, self.over = [], [], threading.Condition(), False
        feed = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                last = int(self.headers.get("Last-Event-ID", 0))
                with feed.changed:
                    feed.asked.append(last)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                while not feed.over:
                    with feed.changed:
                        feed.changed.wait_for(lambda at=last: feed.over or len(feed.events) > at)
                        some = feed.events[last:last + 7]
                    for event in some:
                        last += 1
                        self.wfile.write(f"id: {last}\ndata: {json.dumps(event)}\n\n".encode())
                    if last % 21 == 0:
                        return  # hangs up now and then

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d/feed" % self.server.server_address[1]

    def add(self, events):
        with self.changed:
            self.events += events
            self.changed.notify_all()

    def close(self):
        with self.changed:
            self.over = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def feed():
    made = Feed()
    yield made
    made.close()


def test_no_event_with_an_id_is_skipped_by_crashes_and_restarts(start_daemon, feed):
    daemon = start_daemon({"feed": f"""
name: feed
topics: {{out: {{dedupe: {{key: event.n, within: 1h}}}}}}
flows:
  read:
    from: {{sse: {{url: "{feed.url}", reconnect: 1ms..10ms}}}}
    to: {{topic: out}}
"""})
    for turn in range(6):
        feed.add(numbers(turn * 100 + 1, turn * 100 + 100))
        daemon.wait_for_topic("out", turn * 100 + 10)
        if turn % 2:
            daemon.kill9()
            daemon.start()
        else:
            daemon.restart()
    assert [event["data"] for event in daemon.wait_for_topic("out", 600)] == numbers(1, 600)
    asked = len(feed.asked)
    daemon.restart()
    wait_until(lambda: len(feed.asked) > asked, "the next connection")
    assert feed.asked[asked] == 600
