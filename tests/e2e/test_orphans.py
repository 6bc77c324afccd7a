"""After kill -9 nobody is left alone: what the killed daemon had started is found and ended by the next one, and the run
that it belonged to is executed again."""
from penstock import process_exists, processes_with, wait_until

PIPELINE = """
name: shop
topics: {in: {}, out: {}}
flows:
  step:  # the end of its input does not end it
    from: {topic: in}
    steps: [{exec: {run: [sh, -c, "while read -r line; do echo '{\\"pid\\":'$$'}'; done; exec tail -f /dev/null > /dev/null 2>&1"]}}]
    to: {topic: out}
  program: {run: [sh, -c, "tail -f /dev/null & tail -f /dev/null"], grace: 1s}
jobs:
  work: {run: [sh, -c, "trap '' TERM; echo ready $PENSTOCK_ATTEMPT; tail -f /dev/null & tail -f /dev/null"], grace: 1s}
"""


def ready(daemon, run_id, times):
    return wait_until(lambda: daemon.logs(run_id).count("ready") >= times, f"the command to be ready {times} times")


def whole_group(run_id):
    """The shell of the run's command and both of its children."""
    return wait_until(lambda: len(found := processes_with("PENSTOCK_RUN_ID=" + run_id)) >= 3 and found, "three processes")


def test_processes_of_a_killed_daemon_are_gone_and_the_run_runs_again(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    run_id = daemon.trigger("shop", "work").json["id"]
    ready(daemon, run_id, 1)
    flow_pid = wait_until(lambda: daemon.flow("shop", "program")["pid"], "the flow's process")
    old = whole_group(run_id) + [flow_pid]

    daemon.kill9()
    daemon.start()
    assert not any(process_exists(pid) for pid in old), "gone before the new daemon is ready"
    ready(daemon, run_id, 2)
    run = daemon.run(run_id)
    assert run["state"] == "running"
    assert run["interruptions"] == 1
    assert run["attempt"] == 1
    assert not set(whole_group(run_id)) & set(old)
    wait_until(lambda: daemon.flow("shop", "program")["pid"] not in (None, flow_pid), "the flow's next process")

    daemon.cancel(run_id)
    assert daemon.wait_for_run(run_id)["state"] == "cancelled"
    assert processes_with("PENSTOCK_RUN_ID=" + run_id) == []
    assert daemon.stop() == 0
    assert processes_with(str(daemon.data)) == []
    daemon.start()


def test_a_step_of_a_killed_daemon_is_gone(start_daemon):
    daemon = start_daemon({"shop": PIPELINE})
    daemon.publish("in", [{"n": 1}])
    first = daemon.wait_for_topic("out", 1)[0]["data"]["pid"]
    daemon.kill9()
    assert process_exists(first)
    daemon.start()
    assert not process_exists(first), "gone before the new daemon is ready"
    daemon.publish("in", [{"n": 2}])
    second = daemon.wait_for_topic("out", 2)[1]["data"]["pid"]
    assert second != first and process_exists(second)


def test_a_run_that_keeps_being_interrupted_is_given_up(start_daemon):
    """Bounded everything: a run that takes its daemon down each time must not do so for ever."""
    daemon = start_daemon({"shop": PIPELINE})
    run_id = daemon.trigger("shop", "work").json["id"]
    for times in range(1, 4):
        ready(daemon, run_id, times)
        daemon.kill9()
        daemon.start()
    run = daemon.run(run_id)
    assert run["interruptions"] == 3
    assert run["state"] in ("queued", "running")
    daemon.cancel(run_id)
    assert daemon.wait_for_run(run_id)["state"] == "cancelled"
