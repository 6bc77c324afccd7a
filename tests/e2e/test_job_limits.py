"""As whom and within which bounds a program runs: memory, files, processor time, permissions, niceness, user. What breaks a
limit fails with a reason that names it."""
import os
import pwd
import re

import pytest

from penstock import processes_with


def shop(body):
    return "name: shop\njobs:\n  work:\n" + "".join(f"    {line}\n" for line in body.strip().splitlines())


def printed(daemon, run):
    return [re.sub(r"^\S+ [oe-] ", "", line) for line in daemon.logs(run["id"]).splitlines()]


def result(start_daemon, body, state="succeeded"):
    daemon = start_daemon({"shop": shop(body)})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == state, run
    assert processes_with("PENSTOCK_RUN_ID=" + run["id"]) == []
    return daemon, run


def test_memory(start_daemon):
    # tail keeps all of a last line that never ends; there is an end to it, should the limit not hold.
    _, run = result(start_daemon, """
run: [sh, -c, "head -c 600000000 /dev/zero | tail > /dev/null"]
limits: {memory: 64MiB}
""", "failed")
    assert "memory" in run["reason"] and "64MiB" in run["reason"], run["reason"]
    daemon, run = result(start_daemon, "run: [sh, -c, \"head -c 1000000 /dev/zero | tail > /dev/null\"]\nlimits: {memory: 64MiB}")


def test_open_files(start_daemon):
    daemon, run = result(start_daemon, "run: [sh, -c, \"ulimit -n; ulimit -Hn\"]\nlimits: {open_files: 64}")
    assert printed(daemon, run) == ["64", "64"]


def test_processor_time(start_daemon):
    _, run = result(start_daemon, "run: [sh, -c, \"while :; do :; done\"]\nlimits: {cpu_time: 1s}\ntimeout: 30s", "failed")
    assert run["reason"] == "task main: killed: over its cpu_time of 1s"


def test_size_of_a_file(start_daemon):
    daemon, run = result(start_daemon, "run: [dd, if=/dev/zero, of=big, bs=1k, count=5000]\nlimits: {file_size: 1MiB}", "failed")
    assert run["reason"] == "task main: killed: over its file_size of 1MiB"
    assert (daemon.work("shop") / "big").stat().st_size <= 1 << 20


def test_a_limit_is_each_tasks_own(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work:
    tasks:
      bound: {run: [sh, -c, "ulimit -n"], limits: {open_files: 50}}
      free: {run: [sh, -c, "test $(ulimit -n) -gt 50"]}
"""})
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    assert daemon.logs(run["id"], "bound").split()[-1] == "50"


def test_umask(start_daemon):
    daemon, _ = result(start_daemon, "run: [sh, -c, \"umask; touch made\"]\numask: \"027\"")
    assert (daemon.work("shop") / "made").stat().st_mode & 0o777 == 0o640


def test_nice_is_added_to_the_lanes(start_daemon):
    daemon, run = result(start_daemon, "run: [nice]")
    lane = int(printed(daemon, run)[0])
    assert lane > 0, "batch work steps back for live flows"
    daemon, run = result(start_daemon, "run: [nice]\nnice: 5")
    assert int(printed(daemon, run)[0]) == min(lane + 5, 19)
    daemon, run = result(start_daemon, "run: [ionice]\nio_priority: idle")
    assert printed(daemon, run) == ["idle"]


def test_workdir_of_a_command(start_daemon, tmp_path):
    daemon, run = result(start_daemon, f"run: [pwd]\nworkdir: {tmp_path}")
    assert printed(daemon, run) == [str(tmp_path)]
    _, run = result(start_daemon, "run: [pwd]\nworkdir: missing", "failed")
    assert re.search(r"the working directory \S+/missing does not exist", run["reason"]), run["reason"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_another_user(start_daemon):
    nobody = pwd.getpwnam("nobody")
    daemon, run = result(start_daemon, """
run: [sh, -c, "id -u; id -g; id -G; cat /etc/shadow 2> /dev/null || echo kept out; echo $USER"]
user: nobody
workdir: /
""")
    lines = printed(daemon, run)
    assert lines[:2] == [str(nobody.pw_uid), str(nobody.pw_gid)]
    assert "0" not in lines[2].split(), "none of root's groups is left"
    assert lines[3] == "kept out"
    assert lines[4] == "nobody"
    daemon, run = result(start_daemon, "run: [sh, -c, \"id -un; id -gn\"]\nuser: nobody\ngroup: daemon\nworkdir: /")
    assert printed(daemon, run) == ["nobody", "daemon"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_another_user_can_still_tell_its_output(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs:
  work:
    tasks:
      tell: {run: [sh, -c, "echo rows=3 >> $PENSTOCK_OUTPUT"], user: nobody, workdir: /}
      hear: {run: [echo, "${tasks.tell.output.rows}"], needs: tell}
"""})
    os.chmod(daemon.folder, 0o755)  # as /var/lib is; the tests' own folder is not
    run = daemon.run_to_end("shop", "work")
    assert run["state"] == "succeeded", run
    assert run["tasks"][0]["output"] == {"rows": "3"}


def test_a_user_who_does_not_exist(start_daemon):
    _, run = result(start_daemon, "run: [\"true\"]\nuser: nobody-by-that-name", "failed")
    assert "nobody-by-that-name" in run["reason"], run["reason"]
