"""What is wrong at the other end, or with one pipeline, stays there: sinks that misbehave, slow clients, ten thousand of them,
floods. Beside each a flow, or a client, that has nothing to do with it goes on."""
import json
import os
import pathlib
import re
import resource
import socket
import threading

import flood
import pytest

from bad_server import BadServer
from penstock import wait_until

MODES = ("refuse", "slow", "half_open", "reset")
PIPELINE = """
name: p
topics: {t: {}, out: {}}
flows:
  beside: {from: {topic: t}, to: {topic: out}}
"""
FLOW = """
  MODE:
    from: {topic: t}
    to: {http: {url: "http://127.0.0.1:PORT/", timeout: 200ms, retry_for: 300ms}}
"""


def numbers(bodies):
    return [json.loads(body)["n"] for body in bodies]


@pytest.fixture
def servers():
    """{mode: BadServer}, all of them in order."""
    made = {mode: BadServer() for mode in MODES}
    yield made
    for server in made.values():
        server.close()


def test_a_sink_that_misbehaves_holds_up_its_own_flow_only(start_daemon, servers):
    flows = "".join(FLOW.replace("MODE", mode).replace("PORT", str(server.port)) for mode, server in servers.items())
    daemon = start_daemon({"p": PIPELINE + flows})
    daemon.publish("t", [{"n": n} for n in range(10)])
    for server in servers.values():
        wait_until(lambda: len(server.taken) == 10, "events at a server that works")
    for mode, server in servers.items():
        server.behave(mode)
    daemon.publish("t", [{"n": n} for n in range(10, 20)])
    daemon.wait_for_topic("out", 20)  # the neighbour is not held up
    for mode, server in servers.items():
        flow = wait_until(lambda: (seen := daemon.flow("p", mode))["state"] == "backing_off" and seen, f"the flow to say that its sink is {mode}")
        assert f"127.0.0.1:{server.port}" in flow["reason"], flow
        assert mode == "refuse" or server.met[mode] > 0
        server.behave("ok")
    for mode, server in servers.items():
        wait_until(lambda: set(numbers(server.taken)) == set(range(20)), f"all events after the sink was {mode}", 60)
        assert list(dict.fromkeys(numbers(server.taken))) == list(range(20)), "in order, each at least once"
        wait_until(lambda: daemon.flow("p", mode)["state"] == "running", "the flow to be well")
    assert daemon.dead_letters() == []


def test_a_client_that_sends_a_byte_a_second(daemon):
    """It gets 408 when its time is up (10 s for a request's head), and meanwhile holds up nobody."""
    slow = socket.create_connection(daemon.address)
    slow.settimeout(40)
    stop = threading.Event()

    def drip():
        for byte in b"GET /healthz HTTP/1.1\r\nHost: example.org\r\nX-Long: " + b"x" * 1000:
            if stop.wait(1):
                return
            try:
                slow.sendall(bytes([byte]))
            except OSError:
                return
    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    for _ in range(200):
        assert daemon.get("/healthz").status == 200
    answer = slow.recv(4096)
    stop.set()
    dripping.join()
    assert answer.startswith(b"HTTP/1.1 408"), answer
    slow.close()


def in_memory(daemon):
    status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_ten_thousand_connections(start_daemon):
    """The first thousand are let in, the others are told to come again; who is in is served; all is given back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    wanted = 10_000 if before[1] == resource.RLIM_INFINITY else min(10_000, before[1] - 500)
    if wanted < 2000:  # the daemon serves 1024 where it may
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        pytest.skip(f"this process may open only {before[1]} files")
    daemon = start_daemon({"p": "name: p\ntopics: {t: {}}\n"})
    insider = daemon.connect()
    insider.request("GET", "/healthz")
    insider.getresponse().read()
    files, memory = open_files(daemon), in_memory(daemon)
    crowd = []
    try:
        refused = 0
        for _ in range(wanted):
            crowd.append(socket.create_connection(daemon.address, timeout=30))
        for one in crowd[-100:]:
            answer = one.recv(4096)
            refused += answer.startswith(b"HTTP/1.1 503") and b"Retry-After" in answer and b"too many connections" in answer
        assert refused == 100
        insider.request("POST", "/v1/topics/t/events", "{}", {"Content-Type": "application/json"})
        answer = insider.getresponse()
        assert answer.status == 202, answer.read()
        answer.read()
        crowded = in_memory(daemon)
    finally:
        for one in crowd:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    wait_until(lambda: open_files(daemon) <= files + 8, "the descriptors to be given back")  # the topic's files are open now
    insider.close()
    assert daemon.get("/healthz").status == 200
    print(f"{wanted} connections: memory {memory >> 10} KiB before, {crowded >> 10} KiB with them, {in_memory(daemon) >> 10} KiB after")
    assert in_memory(daemon) < memory + (64 << 20)


@pytest.mark.parametrize("kind", sorted(flood.KINDS))
def test_a_flood_in_one_pipeline_loses_nothing_in_another(start_daemon, kind):
    daemon = start_daemon({"watched": flood.WATCHED, "flood": flood.FLOOD})
    quiet = flood.watch(daemon, 20)
    with flood.of(kind, daemon):
        loud = flood.watch(daemon, 20)
    print(flood.Row.HEAD, flood.Row("quiet", quiet), flood.Row(kind, loud), sep="\n")
    assert len(quiet) == len(loud) == 20
    assert daemon.flow("watched", "copy")["state"] == "running"
