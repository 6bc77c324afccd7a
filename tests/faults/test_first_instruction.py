"""A program is made ready while the disk still stores its run, up to a process that waits to become it, and must not run a
moment before that is done: not when the daemon is killed or told to stop meanwhile, and never when the disk refuses."""
import errno
import os
import pathlib
import signal
import threading

import pytest

from disk import Disk
from penstock import process_exists, wait_until

SLOW_MS = 1500

PIPELINE = """
name: p
topics: {t: {}}
jobs:
  asked: {run: [sh, -c, "echo ran >> marker"]}
  told: {trigger: {topic: t}, run: [sh, -c, "cat > /dev/null; echo ran >> marker"]}
"""
WAYS = {"asked": ("/v1/pipelines/p/jobs/asked/runs", b""), "told": ("/v1/topics/t/events", b"{}")}


@pytest.fixture(params=WAYS)
def job(request):
    return request.param


@pytest.fixture
def daemon(start_on_disk):
    return start_on_disk({"p": PIPELINE})


class Request(threading.Thread):
    """What makes a run of the job, under way. `status`: of its answer; None: there was none."""

    def __init__(self, daemon, job):
        super().__init__()
        self.daemon, self.job, self.status = daemon, job, None
        self.start()

    def run(self):
        path, body = WAYS[self.job]
        try:
            self.status = self.daemon.post(path, body, {"Content-Type": "application/json"}).status
        except OSError:
            pass


def times_run(daemon):
    marker = daemon.data / "work" / "p" / "marker"
    return len(marker.read_text().splitlines()) if marker.exists() else 0


def is_ready(daemon):
    """A program of it could start: the file for what it leaves has been made."""
    return any((daemon.data / "tmp").glob("output-*"))


def waiting_process(daemon):
    """The child of the daemon that waits to become the program: in a group of its own already, and asleep."""
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, group = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        if int(parent) == daemon.process.pid and group == stat.parent.name and state == "S":
            return int(group)
    return None


def make_ready(daemon, job):
    """A request whose run is being stored, by a disk that takes its time, and the process that waits for it."""
    slow = daemon.disk.slow("state.db*", Disk.SYNC, SLOW_MS)
    request = Request(daemon, job)
    waiting = wait_until(lambda: waiting_process(daemon), "a process to wait")
    assert is_ready(daemon)
    return request, slow, waiting


def test_it_runs_once_its_run_is_stored(daemon, job):
    request, slow, waiting = make_ready(daemon, job)
    assert times_run(daemon) == 0, "it ran before its run was stored"
    daemon.disk.mend()
    wait_until(lambda: times_run(daemon), "it to run")
    assert slow.hits >= 1
    request.join()
    assert request.status in (201, 202)
    wait_until(lambda: not is_ready(daemon), "nothing to be left of it")
    assert times_run(daemon) == 1
    assert not process_exists(waiting)


def test_somebody_kills_the_process_that_waits(daemon, job):
    request, _, waiting = make_ready(daemon, job)
    os.kill(waiting, signal.SIGKILL)
    daemon.disk.mend()
    request.join()
    [run] = wait_until(lambda: daemon.get("/v1/runs").json["items"], "the run")
    run = daemon.wait_for_run(run["id"])
    assert run["state"] == "failed" and "SIGKILL" in run["reason"], run
    assert times_run(daemon) == 0
    assert daemon.stop() == 0
    daemon.start()


def test_the_disk_refuses(daemon, job):
    refused = daemon.disk.fail("state.db*", Disk.SYNC, errno.EIO, times=3)
    request = Request(daemon, job)
    wait_until(lambda: refused.hits >= 1, "the disk to refuse")
    if job == "asked":
        request.join()
        assert request.status == 503 and times_run(daemon) == 0
        assert waiting_process(daemon) is None
        assert not (daemon.data / "logs").exists() or not any((daemon.data / "logs").iterdir())
    daemon.disk.mend()
    wait_until(lambda: daemon.get("/readyz").status == 200, "/readyz to be 200")
    if job == "asked":
        assert daemon.run_to_end("p", "asked")["state"] == "succeeded", "the refused one has given back its room"
    wait_until(lambda: times_run(daemon), "what was accepted to run")
    wait_until(lambda: not is_ready(daemon), "nothing to be left of it")
    runs = daemon.get("/v1/runs").json["items"]
    assert times_run(daemon) == len(runs) == 1


def test_one_that_cannot_start_holds_nobody_up_when_it_is_refused(daemon):
    daemon.put("q", 'name: q\njobs: {broken: {environment: {A: "${file:/nowhere/at/all} ${run.id}"}, run: ["true"]}}\n')
    daemon.disk.fail("state.db*", Disk.SYNC, errno.EIO, times=1)
    assert daemon.post("/v1/pipelines/q/jobs/broken/runs", b"").status == 503
    daemon.disk.mend()
    assert "/nowhere/at/all" in daemon.run_to_end("q", "broken")["reason"]
    assert daemon.stop() == 0


def test_killed_while_it_is_stored(daemon, job):
    waiting = make_ready(daemon, job)[2]
    daemon.kill9()
    wait_until(lambda: not process_exists(waiting), "the process that waited to be gone, without a next daemon")
    assert times_run(daemon) == 0, "it ran before its run was stored"
    daemon.disk.mend()
    daemon.start()

    def all_over():
        runs = daemon.get("/v1/runs").json["items"]
        none_is_fine = job == "asked"  # its request had no answer
        return (runs or none_is_fine) and all(run["state"] == "succeeded" for run in runs) and [len(runs)]

    [made] = wait_until(all_over, "what was stored to run")
    assert times_run(daemon) == made
    assert not is_ready(daemon), "what the killed one had made ready is gone"


def test_told_to_stop_while_it_is_stored(daemon, job):
    make_ready(daemon, job)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.disk.mend()
    assert daemon._ended() == 0
    daemon.start()
    wait_until(lambda: times_run(daemon), "what was stored to run")
    wait_until(lambda: not is_ready(daemon), "it to end")
    assert times_run(daemon) == 1
