"""Supervised commands: ready when their probe says so, restarted when it never does, and back with growing pauses."""
import os
import socket

from gate import let_time_pass
from penstock import process_exists, wait_until

HOLD = "tail -f /dev/null"


def live(body):
    return "name: live\nflows:\n  program:\n" + "".join(f"    {line}\n" for line in body.strip().splitlines())


def program(daemon):
    return daemon.flow("live", "program")


def starts(daemon):
    path = daemon.work("live") / "starts"
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def test_ready_when_its_program_says_so(start_daemon):
    daemon = start_daemon({"live": live(f"""
run: [sh, -c, "{HOLD}"]
grace: 1s
ready: {{run: [test, -e, is-ready], interval: 50ms, timeout: 30s}}
""")})
    wait_until(lambda: program(daemon)["pid"], "its process")
    let_time_pass(0.3)
    assert program(daemon)["state"] == "starting"
    (daemon.work("live") / "is-ready").touch()
    flow = wait_until(lambda: (f := program(daemon))["state"] == "running" and f, "state running")
    assert flow["restarts"] == 0


def test_ready_when_its_port_accepts(start_daemon):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        daemon = start_daemon({"live": live(f"""
run: [sh, -c, "{HOLD}"]
grace: 1s
ready: {{tcp: "127.0.0.1:{port}", interval: 50ms, timeout: 30s}}
""")})
        wait_until(lambda: program(daemon)["pid"], "its process")
        let_time_pass(0.3)
        assert program(daemon)["state"] == "starting"
        server.listen(16)
        wait_until(lambda: program(daemon)["state"] == "running", "state running")


def test_ready_when_its_url_answers(start_daemon):
    daemon = start_daemon()
    host, port = daemon.address  # the daemon itself: a server that is there, with a page that is not
    for path, ready in (("/v1/pipelines/none", False), ("/healthz", True)):
        daemon.put("live", live(f"""
run: [sh, -c, "{HOLD}"]
grace: 1s
ready: {{http: "http://{host}:{port}{path}", interval: 50ms, timeout: 30s}}
"""))
        wait_until(lambda: program(daemon)["pid"], "its process")
        if ready:
            wait_until(lambda: program(daemon)["state"] == "running", "state running")
        else:
            let_time_pass(0.3)
            assert program(daemon)["state"] == "starting"


def test_never_ready_is_restarted(start_daemon):
    daemon = start_daemon({"live": live(f"""
run: [sh, -c, "date +%s.%N >> starts; {HOLD} & {HOLD}"]
grace: 1s
ready: {{run: ["false"], interval: 50ms, timeout: 400ms}}
""")})
    first = wait_until(lambda: program(daemon)["pid"], "its process")
    flow = wait_until(lambda: (f := program(daemon))["restarts"] >= 1 and f, "a restart")
    assert "ready" in flow["reason"] and "400ms" in flow["reason"], flow
    assert not process_exists(first)
    wait_until(lambda: len(starts(daemon)) >= 2, "the next start")
    assert program(daemon)["state"] in ("starting", "backing_off")


def test_restarts_come_after_growing_pauses(start_daemon):
    daemon = start_daemon({"live": live("run: [sh, -c, \"date +%s.%N >> starts; exit 9\"]")})
    flow = wait_until(lambda: (f := program(daemon))["state"] == "backing_off" and f, "state backing_off")
    assert "exit code 9" in flow["reason"]
    assert flow["next_start"]
    times = wait_until(lambda: len(starts(daemon)) >= 3 and starts(daemon), "three starts")
    pauses = [later - earlier for earlier, later in zip(times, times[1:])]
    assert 0.9 <= pauses[0] < 2.5 and 1.9 <= pauses[1] < 4.5, pauses
    assert program(daemon)["restarts"] >= 2


def test_a_stop_while_it_is_not_ready_leaves_nothing(start_daemon):
    daemon = start_daemon({"live": live(f"""
run: [sh, -c, "{HOLD} & {HOLD}"]
grace: 1s
ready: {{run: [sh, -c, "{HOLD}"], interval: 10s, timeout: 10m}}
""")})
    pid = wait_until(lambda: program(daemon)["pid"], "its process")
    assert daemon.request("DELETE", "/v1/pipelines/live").status in (200, 202, 204)
    assert not process_exists(pid)
    assert daemon.get("/v1/pipelines/live").status == 404
    assert daemon.stop(timeout=20) == 0
    assert not os.path.exists(f"/proc/{pid}") or not process_exists(pid)
    daemon.start()
