"""Commands as tasks: what they are given, what becomes of what they print, and that they always end, with all children."""
import json
import os
import re

from penstock import PATIENCE, process_exists, processes_with, wait_until

HOLD = "tail -f /dev/null"  # runs until it is ended


def job(body, name="work"):
    return f"name: shop\ntopics: {{arrivals: {{}}, out: {{}}}}\njobs:\n  {name}:\n" + "".join(
        f"    {line}\n" for line in body.strip().splitlines())


def started(daemon, run_id, text="ready"):
    """Waits until the run's log holds the text."""
    wait_until(lambda: text in daemon.logs(run_id), f"'{text}' in the log")


def printed(log):
    """The texts of the log's lines, without time and stream."""
    return [line.split(" ", 2)[2] if re.match(r"^\S+ [oe-] ", line) else line for line in log.splitlines()]


def test_a_task_that_ignores_term_is_killed_with_its_children(start_daemon):
    daemon = start_daemon({"shop": job(f"""
run: [sh, -c, "trap '' TERM; ({HOLD}) & echo ready; {HOLD}"]
grace: 1s
""")})
    run_id = daemon.trigger("shop", "work").json["id"]
    started(daemon, run_id)
    group = wait_until(lambda: len(found := processes_with("PENSTOCK_RUN_ID=" + run_id)) >= 3 and found, "three processes")
    daemon.cancel(run_id)
    run = daemon.wait_for_run(run_id)
    assert run["state"] == "cancelled"
    said = json.dumps([run["reason"], [task["reason"] for task in run["tasks"]]])
    assert "SIGKILL" in said or "killed" in said, said
    assert not any(process_exists(pid) for pid in group)
    assert processes_with("PENSTOCK_RUN_ID=" + run_id) == []


def test_a_task_that_obeys_term_ends_by_itself(start_daemon):
    # Ready is who has become tail's process: a shell's child that is not yet another program takes a SIGTERM for its parent's.
    daemon = start_daemon({"shop": job("""
run: [sh, -c, "trap 'echo cleaned up; kill $!; exit 0' TERM; sh -c 'echo ready; exec tail -f /dev/null' & wait"]
grace: 20s
""")})
    run_id = daemon.trigger("shop", "work").json["id"]
    started(daemon, run_id)
    daemon.cancel(run_id)
    run = daemon.wait_for_run(run_id, timeout=10)
    assert run["state"] == "cancelled"
    assert "cleaned up" in daemon.logs(run_id)
    assert "SIGKILL" not in json.dumps(run)


def test_a_stopped_process_is_woken_and_ended(start_daemon):
    daemon = start_daemon({"shop": job("run: [sh, -c, \"echo ready; kill -STOP $$; echo woken\"]\ngrace: 2s")})
    run_id = daemon.trigger("shop", "work").json["id"]
    started(daemon, run_id)
    daemon.cancel(run_id)
    assert daemon.wait_for_run(run_id)["state"] == "cancelled"
    assert processes_with("PENSTOCK_RUN_ID=" + run_id) == []


def test_what_a_program_leaves_running_is_ended_too(start_daemon):
    daemon = start_daemon({"shop": job(f"run: [sh, -c, \"{HOLD} & echo done\"]\ngrace: 1s")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    assert processes_with("PENSTOCK_RUN_ID=" + run["id"]) == []


def test_exit_codes_and_signals(start_daemon):
    daemon = start_daemon({"shop": job("run: [sh, -c, \"exit 3\"]") + "  dies: {run: [sh, -c, \"kill -SEGV $$\"]}\n"})
    run = daemon.run_to_end("shop", "work")
    task, = run["tasks"]
    assert run["state"] == "failed"
    assert (task["state"], task["exit_code"]) == ("failed", 3)
    assert "exit code 3" in run["reason"]
    dead = daemon.run_to_end("shop", "dies")
    assert dead["state"] == "failed"
    assert "SIGSEGV" in dead["reason"]


def test_a_program_that_is_not_there(start_daemon):
    daemon = start_daemon({"shop": job("run: [no-such-program-here, --now]")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "failed"
    assert "no-such-program-here" in run["reason"]
    assert daemon.get("/readyz").status == 200


def test_events_arrive_as_ndjson_on_stdin(start_daemon):
    daemon = start_daemon({"shop": job("""
trigger: {topic: arrivals, max_events: 2000, max_wait: 500ms}
run: [sh, -c, "cat > got.ndjson"]
""")})
    events = [{"n": n, "text": "größer \"than\" \\ 1\n2", "nested": {"list": [1, None, True]}} for n in range(1500)]
    daemon.publish("arrivals", events)
    run, = daemon.wait_for_runs("shop", "work", 1)
    assert run["state"] == "succeeded", run
    got = (daemon.work("shop") / "got.ndjson").read_text().splitlines()
    assert [json.loads(line) for line in got] == events


def test_a_program_that_reads_no_input_is_no_error(start_daemon):
    daemon = start_daemon({"shop": job("trigger: {topic: arrivals}\nrun: [\"true\"]")})
    daemon.publish("arrivals", [{"n": n, "filler": "x" * 1000} for n in range(500)])
    run = daemon.wait_for_runs("shop", "work", 1)[0]
    assert run["state"] == "succeeded", run


def test_what_it_prints_can_go_to_a_topic(start_daemon):
    daemon = start_daemon({"shop": job("""
run: [sh, -c, "cat; echo '{\\"n\\": 99}'; echo on the side >&2"]
to: {topic: out}
""")})
    run = daemon.run_to_end("shop", "work", {"events": [{"n": 1}, {"n": 2}]})
    assert run["state"] == "succeeded", run
    assert [event["data"]["n"] for event in daemon.events("out")] == [1, 2, 99]
    assert "on the side" in daemon.logs(run["id"])


def test_environment(start_daemon):
    daemon = start_daemon({"shop": job("""
run: [env]
environment: {REGION: eu, TOKEN: "${env:SHOP_TOKEN}"}
""")}, env={"SHOP_TOKEN": "hush-hush"})
    run = daemon.run_to_end("shop", "work", {"params": {"city": "Lima", "max-rows": 5}})
    seen = dict(line.split("=", 1) for line in printed(daemon.logs(run["id"])) if "=" in line)
    assert seen["PENSTOCK_RUN_ID"] == run["id"]
    assert seen["PENSTOCK_ATTEMPT"] == "1"
    assert seen["PENSTOCK_IDEMPOTENCY_KEY"]
    assert seen["PENSTOCK_PARAM_CITY"] == "Lima"
    assert seen["PENSTOCK_PARAM_MAX_ROWS"] == "5"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", seen["TRACEPARENT"])
    assert seen["REGION"] == "eu"
    assert seen["TOKEN"] == "hush-hush"
    assert seen["PATH"]
    shown = daemon.get("/v1/pipelines/shop").text + json.dumps(run)
    assert "hush-hush" not in shown


def test_logs_keep_both_streams_and_survive_the_daemon(start_daemon):
    daemon = start_daemon({"shop": job("run: [sh, -c, \"echo to stdout; echo to stderr >&2; printf unfinished\"]")})
    run = daemon.run_to_end("shop", "work")
    lines = printed(daemon.logs(run["id"]))
    assert sorted(lines)[-3:] == ["to stderr", "to stdout", "unfinished"]
    daemon.kill9()
    daemon.start()
    assert printed(daemon.logs(run["id"])) == lines
    assert daemon.get(f"/v1/runs/{run['id']}/logs?task=nothing").status == 404
    assert daemon.get("/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV/logs").status == 404


def test_logs_follow_until_the_run_ends(start_daemon):
    daemon = start_daemon({"shop": job(
        "run: [sh, -c, \"mkfifo gate; echo ready; read word < gate; echo got $word\"]")})
    run_id = daemon.trigger("shop", "work").json["id"]
    connection = daemon.connect(timeout=PATIENCE)
    connection.request("GET", f"/v1/runs/{run_id}/logs?follow=true")
    stream = connection.getresponse()
    assert stream.status == 200
    assert b"ready" in stream.readline()
    with open(daemon.work("shop") / "gate", "w", encoding="utf-8") as gate:
        print("through", file=gate)
    assert b"got through" in stream.readline()
    assert stream.read() == b"", "the stream ends with the run"
    assert daemon.run(run_id)["state"] in ("running", "succeeded")
    assert daemon.wait_for_run(run_id)["state"] == "succeeded"


def test_following_a_log_and_going_away_harms_nobody(start_daemon):
    daemon = start_daemon({"shop": job(f"run: [sh, -c, \"echo ready; {HOLD}\"]\ngrace: 1s")})
    run_id = daemon.trigger("shop", "work").json["id"]
    connection = daemon.connect()
    connection.request("GET", f"/v1/runs/{run_id}/logs?follow=true")
    assert b"ready" in connection.getresponse().readline()
    connection.close()
    daemon.cancel(run_id)
    assert daemon.wait_for_run(run_id)["state"] == "cancelled"


def test_a_huge_log_is_limited_and_slows_nobody(start_daemon):
    daemon = start_daemon({"shop": job("run: [sh, -c, \"head -c 200000000 /dev/zero | tr '\\\\0' 'x' | fold -w 120\"]")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    size = sum(file.stat().st_size for file in (daemon.data / "logs" / run["id"]).iterdir())
    assert size < 20 << 20, size


def test_timeout(start_daemon):
    daemon = start_daemon({"shop": job(f"run: [sh, -c, \"{HOLD} & {HOLD}\"]\ntimeout: 500ms\ngrace: 1s")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "timed_out"
    assert "500ms" in run["reason"]
    assert processes_with("PENSTOCK_RUN_ID=" + run["id"]) == []


def test_retry_until_it_works(start_daemon):
    daemon = start_daemon({"shop": job("""
run: [sh, -c, "echo x >> tries; echo attempt $PENSTOCK_ATTEMPT; test $(wc -l < tries) -ge 3"]
retry: {attempts: 5, backoff: 50ms..200ms}
""")})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["attempt"]) == ("succeeded", 3)
    assert [line for line in printed(daemon.logs(run["id"])) if line.startswith("attempt ")] == [
        "attempt 1", "attempt 2", "attempt 3"]


def test_retries_come_to_an_end(start_daemon):
    daemon = start_daemon({"shop": job("run: [sh, -c, \"exit 9\"]\nretry: {attempts: 2, backoff: 50ms}")})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["attempt"]) == ("failed", 2)
    assert "exit code 9" in run["reason"]


def test_a_waiting_retry_can_be_seen_and_cancelled(start_daemon):
    daemon = start_daemon({"shop": job("run: [\"false\"]\nretry: {attempts: 2, backoff: 1h}")})
    run_id = daemon.trigger("shop", "work").json["id"]
    run = wait_until(lambda: (r := daemon.run(run_id))["state"] == "retrying" and r, "state retrying")
    assert run["retry_at"] and run["waiting_reason"]
    daemon.cancel(run_id)
    assert daemon.wait_for_run(run_id)["state"] == "cancelled"
    assert daemon.post(f"/v1/runs/{run_id}/cancel").status == 409


DAG = """
name: shop
jobs:
  diamond:
    tasks:
      last: {run: [sh, -c, "echo last >> order"], needs: [left, right]}
      left: {run: [sh, -c, "echo left >> order; exit ${LEFT:-0}"], needs: first}
      right: {run: [sh, -c, "echo right >> order"], needs: [first]}
      first: {run: [sh, -c, "echo first >> order"]}
"""


def test_tasks_run_in_the_order_of_their_needs(start_daemon):
    daemon = start_daemon({"shop": DAG})
    run = daemon.run_to_end("shop", "diamond")
    assert run["state"] == "succeeded", run
    assert [task["name"] for task in run["tasks"]] == ["last", "left", "right", "first"]
    order = (daemon.work("shop") / "order").read_text().split()
    assert order[0] == "first" and order[-1] == "last" and sorted(order[1:3]) == ["left", "right"]


def test_what_needs_a_failed_task_is_skipped(start_daemon):
    daemon = start_daemon({"shop": DAG.replace("${LEFT:-0}", "4")})
    run = daemon.run_to_end("shop", "diamond")
    states = {task["name"]: task["state"] for task in run["tasks"]}
    assert states == {"first": "succeeded", "left": "failed", "right": "succeeded", "last": "skipped"}
    assert run["state"] == "failed"
    assert "left" in run["reason"]
    assert "last" not in (daemon.work("shop") / "order").read_text()


def test_two_hundred_runs_of_true_all_end(start_daemon):
    daemon = start_daemon({"shop": job("run: [\"true\"]\non_overlap: allow")})
    ids = [daemon.trigger("shop", "work").json["id"] for _ in range(200)]
    assert {daemon.wait_for_run(run_id)["state"] for run_id in ids} == {"succeeded"}
    assert len(set(ids)) == 200


def test_a_supervised_command_comes_back(start_daemon):
    daemon = start_daemon({"live": "name: live\nflows: {program: {run: [tail, -f, /dev/null], grace: 1s}}\n"})
    first = wait_until(lambda: daemon.flow("live", "program")["pid"], "its process")
    os.kill(first, 9)
    again = wait_until(lambda: (f := daemon.flow("live", "program"))["pid"] not in (None, first) and f, "the next one")
    assert again["restarts"] == 1
    assert again["state"] == "running"


def test_wait_answers_early_when_the_client_asks_for_less(start_daemon):
    daemon = start_daemon({"shop": job(f"run: [sh, -c, \"{HOLD}\"]\ngrace: 1s")})
    run_id = daemon.trigger("shop", "work").json["id"]
    assert daemon.get_json(f"/v1/runs/{run_id}?wait=200ms")["state"] in ("queued", "running")
    # A client that goes away while it waits leaves nothing behind.
    connection = daemon.connect(timeout=5)
    connection.request("GET", f"/v1/runs/{run_id}?wait=30s")
    connection.close()
    daemon.cancel(run_id)
    assert daemon.wait_for_run(run_id)["state"] == "cancelled"
