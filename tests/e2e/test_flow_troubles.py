"""A flow that runs, but cannot reach what it reads or writes: its state says so while that lasts, and no longer."""
import base64
import hashlib
import http.server
import json
import socket
import threading

import pytest

from penstock import penstock, wait_until


class SilentFeed(http.server.BaseHTTPRequestHandler):
    """Agrees to every kind of feed, and says nothing on it until the test is over."""

    protocol_version = "HTTP/1.1"  # else it could not agree to a WebSocket

    def do_GET(self):
        if "Sec-WebSocket-Key" in self.headers:
            accepted = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(accepted).decode())
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.server.over.wait()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Gone:
    """A server's address at which nobody listens until come()."""

    def __init__(self, handler):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        self.server.daemon_threads = True
        self.server.over = threading.Event()
        self.server.server_bind()
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        self.came = False

    def come(self):
        self.server.server_activate()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.came = True

    def end(self):
        self.server.over.set()
        if self.came:
            self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def gone():
    server = Gone(SilentFeed)
    yield server
    server.end()


def gauge(daemon):
    name = 'penstock_flow_troubled{flow="f",pipeline="p"} '
    alternative = 'penstock_flow_troubled{pipeline="p",flow="f"} '
    line, = (line for line in daemon.get("/metrics").text.splitlines() if line.startswith((name, alternative)))
    return int(line.split()[-1])


def check_trouble_and_its_end(daemon, gone, says):
    def in_trouble():
        flow = daemon.flow("p", "f")
        return flow["state"] == "running" and flow["reason"]

    reason = wait_until(in_trouble, "the flow to say why it does not get on")
    for part in [gone.address, *says]:
        assert part in reason
    assert gauge(daemon) == 1
    status = penstock("status", "--json", daemon=daemon)
    assert status.returncode == 1
    trouble, = json.loads(status.stdout)["troubles"]
    assert trouble.startswith("flow p/f does not get on: ") and gone.address in trouble
    gone.come()
    wait_until(lambda: daemon.flow("p", "f")["reason"] is None, "the trouble to be over")
    assert daemon.flow("p", "f")["state"] == "running"
    assert gauge(daemon) == 0
    assert penstock("status", daemon=daemon).returncode == 0


@pytest.mark.parametrize("source", ["websocket: {url: 'ws://ADDRESS/?key=s3cret', reconnect: 10ms..50ms}",
                                    "sse: {url: 'http://ADDRESS/?key=s3cret', reconnect: 10ms..50ms}"])
def test_a_feed_that_cannot_be_reached(start_daemon, gone, source):
    daemon = start_daemon({"p": "name: p\nflows: {f: {from: {%s}, to: drop}}\n" % source.replace("ADDRESS", gone.address)})
    check_trouble_and_its_end(daemon, gone, ["connects again"])
    assert "s3cret" not in daemon.log_tail(1000)


class Answering(SilentFeed):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")


def test_a_poll_that_is_not_answered(start_daemon):
    gone = Gone(Answering)
    daemon = start_daemon({"p": "name: p\nflows: {f: {from: {http_poll: {url: 'http://%s/', every: 20ms}}, to: drop}}\n" % gone.address})
    check_trouble_and_its_end(daemon, gone, ["asks again"])
    gone.end()


@pytest.mark.parametrize("how, says", [("{url: 'http://ADDRESS/', retry_for: 1h}, delivery: {attempts: 1}", "sends again"),
                                       ("{url: 'http://ADDRESS/', retry_for: 1ms}, delivery: {attempts: 1000, backoff: 20ms}",
                                        "did not take 1 events, attempt ")])
def test_a_sink_that_is_down(start_daemon, gone, how, says):
    to, delivery = how.replace("ADDRESS", gone.address).split(", delivery: ")
    daemon = start_daemon({"p": "name: p\ntopics: {orders: {}}\n"
                                "flows: {f: {from: {topic: orders}, to: {http: %s}, delivery: %s}}\n" % (to, delivery)})
    assert daemon.flow("p", "f")["reason"] is None
    daemon.publish("orders", [{"n": 1}])
    check_trouble_and_its_end(daemon, gone, [says])
    assert daemon.flow("p", "f")["emitted"] == 1


def test_a_flow_that_is_stopped_in_its_trouble_has_it_no_longer(start_daemon, gone):
    daemon = start_daemon({"p": "name: p\nflows: {f: {from: {sse: 'http://%s/'}, to: drop}}\n" % gone.address})
    wait_until(lambda: daemon.flow("p", "f")["reason"], "the trouble")
    assert daemon.post("/v1/pipelines/p/flows/f/stop").status in (200, 202)
    wait_until(lambda: daemon.flow("p", "f")["state"] == "stopped", "the flow to stop")
    assert daemon.flow("p", "f")["reason"] is None
    assert gauge(daemon) == 0


def test_a_flow_that_fails_in_its_trouble_says_why_it_failed(start_daemon, gone):
    daemon = start_daemon({"p": "name: p\ntopics: {orders: {}}\nflows:\n  f:\n    from: {topic: orders}\n"
                                "    to: {http: {url: 'http://%s/', retry_for: 400ms}}\n    delivery: {attempts: 1}\n" % gone.address})
    daemon.publish("orders", [{"n": 1}])
    wait_until(lambda: daemon.flow("p", "f")["state"] == "backing_off", "the flow to give up")
    assert gone.address in daemon.flow("p", "f")["reason"] and "sends again" not in daemon.flow("p", "f")["reason"]
    gone.come()
    wait_until(lambda: daemon.flow("p", "f")["emitted"] == 1, "the event to be sent")
    assert daemon.flow("p", "f")["reason"] is None and gauge(daemon) == 0
