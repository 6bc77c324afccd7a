"""Programs that give trouble: that cannot be started, end strangely, close their streams, or try to get away. Each run ends,
and its reason says what happened in words."""
import os

import pytest

from penstock import process_exists, processes_with, wait_until

HOLD = "tail -f /dev/null"  # runs until it is ended


def shop(body, more=""):
    return f"name: shop\n{more}topics: {{arrivals: {{}}, out: {{}}}}\njobs:\n  work:\n" + "".join(
        f"    {line}\n" for line in body.strip().splitlines())


def tools(tmp_path):
    """A folder with one of each kind of file that is no program."""
    (tmp_path / "plain").write_text("#!/bin/sh\necho never\n")
    (tmp_path / "folder").mkdir()
    script = tmp_path / "orphaned"
    script.write_text("#!/no/such/interpreter -x\n")
    script.chmod(0o755)
    empty = tmp_path / "junk"
    empty.write_bytes(b"\x01\x02\x03\x04 this is no program of any machine")
    empty.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("program, reason", [
    ("no-such-program", "command not found: 'no-such-program' is in no folder of PATH"),
    ("/no/such/program", "command not found: /no/such/program"),
    ("./missing", "command not found: ./missing"),
    ("TOOLS/plain", "not executable: TOOLS/plain lacks the permission"),
    ("TOOLS/folder", "not executable: TOOLS/folder is a folder"),
    ("TOOLS/orphaned", "TOOLS/orphaned: its interpreter /no/such/interpreter does not exist"),
    ("TOOLS/junk", "not executable: TOOLS/junk has no #! line and is not a program of this machine"),
])
def test_what_cannot_be_started(start_daemon, tmp_path, program, reason):
    folder = str(tools(tmp_path))
    daemon = start_daemon({"shop": shop(f"run: [{program.replace('TOOLS', folder)}, --now]")})
    run = daemon.run_to_end("shop", "work")
    task, = run["tasks"]
    assert (run["state"], task["state"]) == ("failed", "failed")
    assert run["reason"] == "task main: " + reason.replace("TOOLS", folder)
    assert daemon.get("/readyz").status == 200


def test_a_missing_working_directory(start_daemon, tmp_path):
    place = tmp_path / "vanishing"
    daemon = start_daemon({"shop": shop("run: [pwd]", more=f"workdir: {place}\n")})
    place.rmdir()
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "failed"
    assert run["reason"] == f"task main: the working directory {place} does not exist"
    place.mkdir()
    assert daemon.run_to_end("shop", "work")["state"] == "succeeded", "nothing of the failure is kept"


@pytest.mark.parametrize("signal", ["KILL", "TERM", "SEGV", "ABRT"])
def test_death_by_a_signal_of_its_own(start_daemon, signal):
    daemon = start_daemon({"shop": shop(f"run: [sh, -c, \"kill -{signal} $$\"]")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "failed"
    assert run["reason"] == f"task main: killed by SIG{signal}"
    assert run["tasks"][0]["exit_code"] is None, "there is none"


@pytest.mark.parametrize("to", ["", "to: {topic: out}"])
def test_output_closed_early(start_daemon, to):
    """Closed streams are not an end: the program is waited for, and its exit code counts."""
    daemon = start_daemon({"shop": shop(f"""
run: [sh, -c, "echo '{{\\"n\\": 1}}'; exec >&- 2>&-; mkfifo gate; read word < gate; test $word = fine"]
{to}
""")})
    for word, state in (("fine", "succeeded"), ("ill", "failed")):
        run_id = daemon.trigger("shop", "work").json["id"]
        gate = daemon.work("shop") / "gate"
        wait_until(gate.exists, "the program to be past closing")
        assert daemon.run(run_id)["state"] == "running"
        gate.write_text(word + "\n")
        run = daemon.wait_for_run(run_id)
        gate.unlink()
        assert run["state"] == state, run
    assert run["reason"] == "task main: exit code 1"
    told = [line for line in daemon.log.read_text().splitlines() if " of shop/work: " in line]
    assert [line.split()[2] for line in told] == ["info", "warning"] and told[1].endswith("failed: task main: exit code 1"), told
    if to:
        assert [event["data"]["n"] for event in daemon.events("out")] == [1, 1]


def test_input_closed_early_while_it_works_on(start_daemon):
    """More input than a pipe holds, and a program that wants none of it but has other things to do."""
    daemon = start_daemon({"shop": shop("""
trigger: {topic: arrivals, max_events: 5000, max_wait: 500ms}
run: [sh, -c, "exec <&-; mkfifo gate; read word < gate; echo $word"]
""")})
    daemon.publish("arrivals", [{"n": n, "filler": "x" * 1000} for n in range(2000)])
    gate = daemon.work("shop") / "gate"
    wait_until(gate.exists, "the program")
    gate.write_text("through\n")
    run, = daemon.wait_for_runs("shop", "work", 1)
    assert run["state"] == "succeeded", run
    assert run["input"]["events"] == 2000
    assert "through" in daemon.logs(run["id"])


def test_a_child_that_leaves_the_session_does_not_get_away(start_daemon):
    """It has its own session and keeps stderr open: the run ends soon after its program all the same, and takes the child
    along."""
    daemon = start_daemon({"shop": shop(f"""
run: [sh, -c, "setsid sh -c 'echo $$ > pid; exec {HOLD} > /dev/null' & until test -s pid; do :; done; echo done"]
grace: 1s
""")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    assert "done" in daemon.logs(run["id"])
    assert not process_exists(int((daemon.work("shop") / "pid").read_text()))
    assert processes_with("PENSTOCK_RUN_ID=" + run["id"]) == []


def test_a_child_that_outlives_its_parent_in_the_group_is_ended(start_daemon):
    """The old way of a background program: fork twice, ignore the hang-up, point the streams elsewhere."""
    daemon = start_daemon({"shop": shop(f"""
run: [sh, -c, "(trap '' HUP TERM; ({HOLD} > /dev/null 2>&1 < /dev/null & echo $! > pid)); echo done"]
grace: 300ms
""")})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    assert not process_exists(int((daemon.work("shop") / "pid").read_text()))


def test_a_timeout_takes_the_whole_group(start_daemon):
    """Three generations, of which the youngest ignores TERM."""
    daemon = start_daemon({"shop": shop(f"""
run: [sh, -c, "sh -c \\"sh -c \\\\\\"trap '' TERM; echo ready; {HOLD} & wait\\\\\\" & wait\\" & wait"]
timeout: 1500ms
grace: 300ms
""")})
    run_id = daemon.trigger("shop", "work").json["id"]
    group = wait_until(lambda: "ready" in daemon.logs(run_id) and processes_with("PENSTOCK_RUN_ID=" + run_id),
                       "the processes")
    assert len(group) >= 3
    run = daemon.wait_for_run(run_id)
    assert run["state"] == "timed_out"
    assert run["reason"].startswith("the run took longer than its timeout of 1.5s; task main: cancelled; ended by SIGTERM"), run
    assert "had to be killed after 300ms grace" in run["reason"], run
    assert not any(process_exists(pid) for pid in group)
    assert os.path.isdir(f"/proc/{daemon.pid}")


def test_a_task_has_a_timeout_of_its_own(start_daemon):
    daemon = start_daemon({"shop": f"""
name: shop
jobs:
  work:
    tasks:
      quick: {{run: ["true"]}}
      slow: {{run: [sh, -c, "{HOLD} & {HOLD}"], timeout: 400ms}}
      after: {{run: ["true"], needs: [slow]}}
    grace: 1s
"""})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "timed_out"
    assert run["reason"] == "task slow: timed out after 400ms; ended by SIGTERM"
    assert {task["name"]: task["state"] for task in run["tasks"]} == {
        "quick": "succeeded", "slow": "timed_out", "after": "skipped"}
    assert processes_with("PENSTOCK_RUN_ID=" + run["id"]) == []


def test_the_end_of_one_program_is_not_taken_for_anothers(start_daemon):
    """Many short programs come and go beside some that hang: only the timeout ends those, and it does end them."""
    quick = "".join(f"      q{n}: {{run: [\"true\"], needs: [{'' if n < 20 else f'q{n - 20}'}]}}\n" for n in range(100))
    slow = "".join(f"      s{n}: {{run: [tail, -f, /dev/null], timeout: 500ms, allow_failure: true}}\n" for n in range(10))
    daemon = start_daemon({"shop": f"name: shop\njobs:\n  work:\n    on_overlap: allow\n    grace: 1s\n    tasks:\n{slow}{quick}"})
    ids = [daemon.trigger("shop", "work").json["id"] for _ in range(10)]
    for run_id in ids:
        run = daemon.wait_for_run(run_id, timeout=60)
        assert run["state"] == "succeeded", run["reason"]
        ends = {task["name"][0]: set() for task in run["tasks"]}
        for task in run["tasks"]:
            ends[task["name"][0]].add((task["state"], task["reason"]))
        assert ends == {"q": {("succeeded", None)}, "s": {("timed_out", "timed out after 500ms; ended by SIGTERM")}}
