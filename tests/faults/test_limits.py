"""Out of file descriptors, out of memory: what cannot be done now is answered so, nothing else breaks, and it passes.

Method: limits of the running process (prlimit) are lowered under it and raised again.
"""
import os
import pathlib
import re
import resource
import socket

import pytest

import history
from penstock import FINAL, ndjson, wait_until

PIPELINE = """
name: p
topics: {old: {}, new: {}, out: {}}
flows:
  copy: {from: {topic: old}, to: {topic: out}}
jobs:
  echo: {run: [sh, -c, "echo hello"], retry: {attempts: 100, backoff: 50ms..100ms}}
"""
JSON = {"Content-Type": "application/json"}


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def memory(daemon, name):
    """VmSize or VmRSS, in bytes."""
    status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024


def ask(connection, method, path, body=None, headers=None):
    """(status, headers, text) on a connection that stays open."""
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()


def test_out_of_file_descriptors(start_daemon):
    daemon = start_daemon({"p": PIPELINE})
    daemon.publish("old", [{"n": 1}])
    daemon.wait_for_topic("out", 1)
    operator, client = daemon.connect(), daemon.connect()  # both are open when the descriptors run out
    for connection in (operator, client):
        assert ask(connection, "GET", "/healthz")[0] == 200
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (open_files(daemon) + 1, before[1]))
    waiting = [socket.create_connection(daemon.address) for _ in range(20)]
    try:
        for one in waiting:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(lambda: "cannot accept connections" in daemon.log.read_text(), "the log to say it")

        # What needs no new descriptor goes on; what needs one is told to come again.
        assert ask(client, "POST", "/v1/topics/old/events", '{"n": 2}', JSON)[0] == 202
        status, headers, text = ask(client, "POST", "/v1/topics/new/events", "{}", JSON)
        assert status == 503 and "retry-after" in headers, text
        status, headers, text = ask(operator, "GET", "/readyz")
        assert status == 503 and "retry-after" in headers and "nothing can be stored" in text, text
        status, _, text = ask(client, "POST", "/v1/pipelines/p/jobs/echo/runs", "{}", JSON)
        assert status == 202, text
        run = re.search(r'"id":\s*"(\w+)"', text)[1]
        wait_until(lambda: "descriptor" in (seen := ask(operator, "GET", f"/v1/runs/{run}")[2]) or "open files" in seen,
                   "the run to say what it lacks")
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    # All of it comes back by itself, the connections that waited included.
    for one in waiting:
        one.settimeout(30)
        assert one.recv(4096).startswith(b"HTTP/1.1 200"), "a connection that had to wait"
        one.close()
    wait_until(lambda: daemon.get("/readyz").status == 200, "/readyz to be 200 again")
    assert daemon.wait_for_run(run)["state"] == "succeeded"
    daemon.publish("new", [{"n": 1}])
    daemon.wait_for_topic("out", 2)
    assert daemon.log.read_text().count("cannot accept connections") == 1, "said once, not every time"
    operator.close()
    client.close()


def test_out_of_memory(start_daemon):
    """Large bodies on several connections while the address space has room for none of them. Each is answered (202, 413 or 503)
    or its connection ends; the daemon lives, or, where the memory fails that it needs itself, ends and is started again. What
    was accepted is there in both cases."""
    daemon = start_daemon({"p": PIPELINE})
    daemon.publish("old", [{"n": 1}])
    daemon.wait_for_topic("out", 1)
    unlimited = resource.prlimit(daemon.pid, resource.RLIMIT_AS)
    resource.prlimit(daemon.pid, resource.RLIMIT_AS, (memory(daemon, "VmSize") + (8 << 20), unlimited[1]))
    answers, accepted = [], 1
    body = ndjson({"n": n, "text": "x" * 1000} for n in range(12_000))
    for _ in range(12):
        try:
            answer = daemon.request("POST", "/v1/topics/old/events", body, {"Content-Type": "application/x-ndjson"})
            answers.append(answer.status)
            accepted += 12_000 if answer.status == 202 else 0
            assert answer.status in (202, 413, 429, 503), answer
            assert answer.status == 202 or "retry-after" in answer.headers, answer
        except (OSError, EOFError) as failure:
            answers.append(type(failure).__name__)
        if daemon.process.poll() is not None:
            break
    assert any(answer != 202 for answer in answers), "the memory never ran out"
    code = daemon.process.poll()
    print(f"answers: {answers}; the daemon {'lives' if code is None else f'has ended with {code}'}")
    if code is None:
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, unlimited)
    else:
        daemon._ended()
        daemon.start()
    wait_until(lambda: daemon.get("/readyz").status == 200, "/readyz")
    daemon.publish("old", [{"n": 2}])
    wait_until(lambda: daemon.topic("old")["events"] >= accepted + 1, "what was accepted")
    stored = daemon.topic("old")["events"]
    wait_until(lambda: daemon.topic("out")["events"] == stored, "the flow to have done everything", 60)
    assert daemon.run_to_end("p", "echo")["state"] == "succeeded"
    assert daemon.stop() == 0
    assert history.damaged_databases(daemon) == {}
    daemon.start()
