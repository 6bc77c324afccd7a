"""Libraries that only some pipelines have a use for: they are loaded by these, and where one is missing the rest works."""
import http.server
import json
import pathlib
import threading

import pytest

from penstock import wait_until

QUIET = "name: quiet\ntopics: {calm: {}}\njobs:\n  j: {run: [\"true\"]}\n"
CALLS = """
name: calls
topics: {told: {}}
flows:
  calling: {from: {topic: told}, to: {http: {url: "URL"}}}
  other: {from: {topic: told}, to: drop}
"""
# Those who find out by themselves, before an event comes.
ASKS = """
name: asks
flows:
  polling: {from: {http_poll: {url: "URL"}}, to: drop}
  tool: {run: [sleep, "1000"], ready: {http: "URL", interval: 500ms, timeout: 500ms}}
jobs:
  send: {from: {generate: {count: 1}}, to: {http: {url: "URL"}}}
"""
MISSING = "the library of the package libcurl4 cannot be loaded: "


class Taking(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    server.bodies, server.url = [], f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def has_libcurl(daemon):
    return "/libcurl.so" in pathlib.Path(f"/proc/{daemon.pid}/maps").read_text()


def says(daemon, flow, words, pipeline):
    wait_until(lambda: words in (daemon.flow(pipeline, flow)["reason"] or ""), f"the flow {flow} to say '{words}'")


@pytest.fixture
def libraries(tmp_path):
    """A folder that the daemon looks in first. As long as it holds this file, it is on a machine on which libcurl cannot be loaded."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "libcurl.so.4").write_text("no library")
    return folder


def test_libcurl_comes_with_the_first_who_calls(start_daemon, receiver):
    daemon = start_daemon({"quiet": QUIET})
    daemon.put("calls", CALLS.replace("URL", receiver.url))
    wait_until(lambda: daemon.flow("calls", "calling")["state"] == "running", "the flow to run")
    assert not has_libcurl(daemon), "neither the definition nor a flow without events has a use for it"
    daemon.publish("told", [{"n": 1}])
    wait_until(lambda: receiver.bodies, "the event")
    assert has_libcurl(daemon)


def test_a_flow_says_what_is_missing_and_goes_on_once_it_is_there(start_daemon, receiver, libraries):
    daemon = start_daemon({"quiet": QUIET}, env={"LD_LIBRARY_PATH": str(libraries)})
    daemon.put("calls", CALLS.replace("URL", receiver.url), expect=(201,))
    daemon.publish("told", [{"n": 1}])
    says(daemon, "calling", MISSING, "calls")
    assert daemon.flow("calls", "other")["state"] == "running"
    assert daemon.run_to_end("quiet", "j")["state"] == "succeeded"
    (libraries / "libcurl.so.4").unlink()
    wait_until(lambda: receiver.bodies, "the event, after a restart with backoff")
    assert [json.loads(body) for body in receiver.bodies] == [{"n": 1}]
    assert daemon.dead_letters("calls") == []


def test_who_needs_it_at_once_says_so_at_once(start_daemon, receiver, libraries):
    daemon = start_daemon(env={"LD_LIBRARY_PATH": str(libraries)})
    daemon.put("asks", ASKS.replace("URL", receiver.url), expect=(201,))
    says(daemon, "polling", MISSING, "asks")
    says(daemon, "tool", "it was not ready within 500ms: " + MISSING, "asks")
    run = daemon.run_to_end("asks", "send")
    assert run["state"] == "failed" and MISSING in run["reason"], run
    assert receiver.bodies == []
