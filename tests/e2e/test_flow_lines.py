"""Lines at the borders: programs that feed a flow and take from it, TCP, UDP and local sockets; and their crashes."""
import json
import os
import socket
import threading

import pytest

from penstock import process_exists, processes_with, wait_until

FEED = """
import json, os, signal, sys
say = lambda text: (sys.stdout.write(text), sys.stdout.flush())
life = len(open("lives").readlines()) if os.path.exists("lives") else 0
open("lives", "a").write("x\\n")
open("pid", "w").write(str(os.getpid()))
for n in range(5):
    say(json.dumps({"life": life, "n": n}) + "\\n")
if life == 0:
    say('{"life": 0, "n"')
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    signal.pause()
"""

STORE = """
import json, sys
for line in sys.stdin:
    event = json.loads(line)
    if event.get("poison"):
        print("! it is poisoned")
        continue
    if event.get("crash"):
        try:
            open("crashed", "x")
            sys.stdout.write("o")
            sys.stdout.flush()
            sys.exit(9)
        except FileExistsError:
            pass
    with open("stored", "a") as file:
        file.write("%d\\n" % event["n"])
    print("ok")
"""


def data(events):
    return [event["data"] for event in events]


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def running(daemon, pipeline, *flows):
    for flow in flows:
        wait_until(lambda: daemon.flow(pipeline, flow)["state"] == "running", f"flow {flow} to run")


def write_programs(daemon, pipeline, **programs):
    work = daemon.work(pipeline)
    work.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        (work / f"{name}.py").write_text(text)


FEEDER = """
name: feeder
topics: {out: {}}
flows:
  feed:
    from: {command: {run: [python3, feed.py]}}
    to: {topic: out}
"""


def test_a_program_feeds_a_flow_dies_in_a_line_and_feeds_again(start_daemon):
    daemon = start_daemon()
    write_programs(daemon, "feeder", feed=FEED)
    daemon.put("feeder", FEEDER)
    flow = wait_until(lambda: (f := daemon.flow("feeder", "feed"))["state"] == "backing_off" and f, "the flow to back off")
    assert "SIGKILL" in flow["reason"], flow
    events = data(daemon.wait_for_topic("out", 10))
    assert events == [{"life": life, "n": n} for life in range(2) for n in range(5)]
    letter, = wait_until(lambda: daemon.dead_letters("feeder"), "the torn line")
    assert letter["step"] == "from" and "SIGKILL" in letter["reason"], letter


def test_no_program_outlives_the_daemon_or_its_flow(start_daemon):
    daemon = start_daemon()
    write_programs(daemon, "feeder", feed=FEED, store=STORE)
    (daemon.work("feeder") / "lives").write_text("x\n")
    daemon.put("feeder", FEEDER + """
  store:
    from: {topic: out}
    to: {command: [python3, store.py]}
""")
    stored = daemon.work("feeder") / "stored"
    wait_until(lambda: stored.exists() and stored.read_text().count("\n") == 5, "the first life's events")
    assert len(processes_with("PENSTOCK_PIPELINE=feeder")) == 2
    before = int((daemon.work("feeder") / "pid").read_text())
    daemon.kill9()
    daemon.start()
    assert not process_exists(before), "gone before the new daemon is ready"
    daemon.wait_for_topic("out", 10)  # what the first life stored may come again, so that file does not tell
    wait_until(lambda: stored.read_text().count("\n") >= 10, "the second life's events")
    assert daemon.post("/v1/pipelines/feeder/flows/feed/stop").status in (200, 202)
    assert daemon.post("/v1/pipelines/feeder/flows/store/stop").status in (200, 202)
    wait_until(lambda: not processes_with("PENSTOCK_PIPELINE=feeder"), "the programs to be gone")
    assert daemon.post("/v1/pipelines/feeder/flows/feed/start").status in (200, 202)
    daemon.wait_for_topic("out", 15)
    assert daemon.stop() == 0
    assert not processes_with("PENSTOCK_PIPELINE=feeder")


def test_a_job_reads_a_program_to_its_end(start_daemon):
    daemon = start_daemon({"load": """
name: load
topics: {out: {}}
jobs:
  good:
    from: {command: {run: [sh, -c, "seq 1 1000"], at_end: end}}
    to: {topic: out}
  bad:
    from: {command: {run: [sh, -c, "echo 1; echo so bad >&2; exit 3"], at_end: end}}
    to: drop
"""})
    assert daemon.run_to_end("load", "good")["state"] == "succeeded"
    assert data(daemon.events("out")) == list(range(1, 1001))
    run = daemon.run_to_end("load", "bad")
    assert run["state"] == "failed"
    assert "exit code 3" in json.dumps(run) and "so bad" in json.dumps(run)
    answer = daemon.put("endless", """
name: endless
jobs:
  endless:
    from: {command: [sh, -c, "seq 1 10"]}
    to: drop
""", expect=(400, 422))
    assert "at_end" in answer.text


def test_a_program_stores_events_refuses_one_and_crashes_in_an_answer(start_daemon):
    daemon = start_daemon()
    write_programs(daemon, "keeper", store=STORE)
    daemon.put("keeper", """
name: keeper
topics: {in: {}}
flows:
  store:
    from: {topic: in}
    to: {command: {run: [python3, store.py]}}
    delivery: {attempts: 5, backoff: 10ms..100ms}
""")
    daemon.publish("in", [{"n": n, "poison": n == 3, "crash": n == 7} for n in range(20)])
    stored = daemon.work("keeper") / "stored"
    wanted = set(range(20)) - {3}
    lines = lambda: list(map(int, stored.read_text().split())) if stored.exists() else []
    wait_until(lambda: set(lines()) == wanted, "all but the poisoned one")
    assert lines() == sorted(wanted)  # what was answered before the crash was not sent again
    letter, = wait_until(lambda: daemon.dead_letters("keeper"), "the dead letter")
    assert letter["reason"] == "it is poisoned"
    assert letter["event"]["data"]["n"] == 3
    assert daemon.flow("keeper", "store")["state"] == "running"


def test_fifty_connections_of_a_thousand_lines(start_daemon):
    port = free_port()
    daemon = start_daemon({"plant": f"""
name: plant
topics: {{readings: {{}}}}
flows:
  tcp:
    from: {{lines: "127.0.0.1:{port}"}}
    to: {{topic: readings}}
"""})
    running(daemon, "plant", "tcp")

    def send(sender):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for first in range(0, 1000, 10):
                connection.sendall("".join(f'{{"from":{sender},"n":{n}}}\n' for n in range(first, first + 10)).encode())

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(50)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    events = daemon.wait_for_topic("readings", 50_000, timeout=120)
    assert len(events) == 50_000
    following = [0] * 50
    for event in data(events):
        assert event["n"] == following[event["from"]]
        following[event["from"]] += 1
    assert events[0]["subject"].startswith("127.0.0.1:")
    assert not daemon.dead_letters("plant")


def test_a_local_socket_through_a_crash_and_bad_lines(start_daemon):
    daemon = start_daemon({"plant": """
name: plant
topics: {readings: {}}
flows:
  local:
    from: {lines: {listen: "unix:in.sock", max_line: 1KiB}}
    to: {topic: readings}
"""})
    path = str(daemon.work("plant") / "in.sock")

    def send(text):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(text)

    running(daemon, "plant", "local")
    send(b'{"n": 1}\n{"n": \n"' + b"x" * 5000 + b'"\n{"n": 2}')  # without a line end
    assert data(daemon.wait_for_topic("readings", 2)) == [{"n": 1}, {"n": 2}]
    reasons = wait_until(lambda: len(found := daemon.dead_letters("plant")) == 2 and [one["reason"] for one in found], "two dead letters")
    assert any("JSON" in reason for reason in reasons) and any("max_line" in reason for reason in reasons), reasons

    daemon.kill9()
    assert os.path.exists(path)  # nobody listens there
    daemon.start()
    running(daemon, "plant", "local")
    send(b'{"n": 3}\n')
    daemon.wait_for_topic("readings", 3)
    assert daemon.post("/v1/pipelines/plant/flows/local/stop").status in (200, 202)
    wait_until(lambda: not os.path.exists(path), "the socket to be removed")
    with open(path, "w") as precious:
        precious.write("precious")
    assert daemon.post("/v1/pipelines/plant/flows/local/start").status in (200, 202)
    flow = wait_until(lambda: (f := daemon.flow("plant", "local"))["state"] == "backing_off" and f, "the flow to back off")
    assert "no socket" in flow["reason"]
    assert open(path).read() == "precious"


def test_datagrams_are_lines(start_daemon):
    port = free_port(socket.SOCK_DGRAM)
    daemon = start_daemon({"plant": f"""
name: plant
topics: {{readings: {{}}}}
flows:
  udp:
    from: {{lines: {{listen: "udp:127.0.0.1:{port}", format: text}}}}
    steps: [{{map: {{text: event}}}}]
    to: {{topic: readings}}
"""})
    running(daemon, "plant", "udp")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for text in ("one", "two\nthree\n", "four"):
            sender.sendto(text.encode(), ("127.0.0.1", port))
    assert [event["text"] for event in data(daemon.wait_for_topic("readings", 4))] == ["one", "two", "three", "four"]


def test_a_port_in_use_and_a_port_for_everybody(start_daemon):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        definition = f"""
name: plant
flows:
  tcp:
    from: {{lines: "127.0.0.1:{port}"}}
    to: drop
"""
        daemon = start_daemon({"plant": definition})
        flow = wait_until(lambda: (f := daemon.flow("plant", "tcp"))["state"] == "backing_off" and f, "the flow to back off")
        assert "in use" in flow["reason"] and str(port) in flow["reason"]
    running(daemon, "plant", "tcp")  # by itself, once the port is free
    answer = daemon.put("plant", definition.replace("127.0.0.1", "0.0.0.0"), expect=(400, 422))
    assert "insecure: true" in answer.text


@pytest.fixture
def receiver():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def read_lines(connection, count):
    connection.settimeout(30)
    file = connection.makefile("r")
    return [json.loads(file.readline())["n"] for _ in range(count)]


def test_a_peer_that_closes_is_called_again(start_daemon, receiver):
    daemon = start_daemon({"tell": f"""
name: tell
topics: {{in: {{}}}}
flows:
  tell:
    from: {{topic: in}}
    to: {{tcp: "127.0.0.1:{receiver.getsockname()[1]}"}}
    delivery: {{attempts: 5, backoff: 10ms..100ms}}
"""})
    daemon.publish("in", [{"n": n} for n in range(10)])
    first, _ = receiver.accept()
    with first:
        assert read_lines(first, 10) == list(range(10))
        wait_until(lambda: daemon.flow("tell", "tell")["emitted"] == 10, "the batch to be done")
    daemon.publish("in", [{"n": n} for n in range(10, 20)])
    second, _ = receiver.accept()
    with second:
        assert read_lines(second, 10) == list(range(10, 20))
        wait_until(lambda: daemon.flow("tell", "tell")["emitted"] == 20, "the second batch to be done")
        receiver.close()
    daemon.publish("in", [{"n": 20}])
    flow = wait_until(lambda: (f := daemon.flow("tell", "tell"))["state"] == "backing_off" and f, "the flow to back off")
    assert "Connection refused" in flow["reason"]
    assert not daemon.dead_letters("tell")
