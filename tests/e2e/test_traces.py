"""W3C trace context: from the request that asks for a run, through the run and those that follow it, to each program."""
import os
import re

from penstock import wait_until

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = PARENT.split("-")[1]
SHOP = """
name: shop
jobs:
  first:
    trigger: {webhook: /open}
    tasks:
      a: {run: [sh, -c, "echo $TRACEPARENT $TRACESTATE >> a; exit $PENSTOCK_PARAM_CODE"]}
      b: {run: [sh, -c, "echo $TRACEPARENT $TRACESTATE >> b"], needs: [a]}
    params: {code: {type: integer, default: 0}}
  next:
    trigger: {after: {job: first, outcome: any}}
    run: [sh, -c, "echo $TRACEPARENT $TRACESTATE >> next"]
"""


def shown(daemon, name):
    file = daemon.work("shop") / name
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_a_request_s_trace_reaches_every_program(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    run = daemon.trigger("shop", "first", wait="30s", headers={"Traceparent": PARENT, "tracestate": "acme=1"}).json
    assert (run["state"], run["trace_id"]) == ("succeeded", TRACE)
    wait_until(lambda: shown(daemon, "next"), "the job after it")
    seen = [shown(daemon, name)[0] for name in ("a", "b", "next")]
    for traceparent, tracestate in seen:
        assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", traceparent)
        assert tracestate == "acme=1"
    assert len({traceparent for traceparent, _ in seen} | {PARENT}) == 4, "each is a span of its own"
    following = daemon.get("/v1/runs?job=next").json["items"][0]
    assert following["trace_id"] == TRACE


def test_without_one_a_run_begins_a_trace_and_keeps_it(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    runs = [daemon.trigger("shop", "first", wait="30s", headers=headers).json
            for headers in ({}, {"Traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}, {"Traceparent": "nonsense", "Tracestate": "a=b"})]
    traces = [run["trace_id"] for run in runs]
    assert len(set(traces)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)
    assert [line[0].split("-")[1] for line in shown(daemon, "a")] == traces
    assert all(len(line) == 1 for line in shown(daemon, "a")), "no state without a parent"
    wait_until(lambda: len(shown(daemon, "next")) == 3, "the jobs after them")
    assert sorted(line[0].split("-")[1] for line in shown(daemon, "next")) == sorted(traces)


def test_a_trace_survives_kill_9_and_a_retry_has_its_own(start_daemon):
    daemon = start_daemon({"shop": SHOP.replace("exit $PENSTOCK_PARAM_CODE", "test -e go || cat pipe; exit $PENSTOCK_PARAM_CODE")})
    work = daemon.work("shop")
    work.mkdir(parents=True, exist_ok=True)
    os.mkfifo(work / "pipe")  # that nobody writes to
    run = daemon.trigger("shop", "first", {"params": {"code": 3}}, headers={"Traceparent": PARENT}).json
    wait_until(lambda: len(shown(daemon, "a")) == 1, "its first program")
    daemon.kill9()
    (work / "go").touch()
    daemon.restart()
    ended = daemon.get(f"/v1/runs/{run['id']}?wait=30s").json
    assert (ended["state"], ended["trace_id"]) == ("failed", TRACE)
    before, after = [line[0] for line in shown(daemon, "a")]
    assert before.split("-")[1] == after.split("-")[1] == TRACE
    again = daemon.post(f"/v1/runs/{run['id']}/retry?wait=30s").json
    assert again["trace_id"] != TRACE


def test_a_webhook_s_trace_is_its_run_s(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    assert daemon.post("/hooks/open", {"n": 1}, {"traceparent": PARENT}).status == 202
    run = wait_until(lambda: daemon.get("/v1/runs?job=first").json["items"], "the run")[0]
    assert run["trace_id"] == TRACE
