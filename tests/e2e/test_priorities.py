"""Live work goes before batch work: by niceness everywhere, by long turns for batch where the kernel lets others break in,
and by real-time scheduling where the settings ask for it."""
import ctypes
import os
import pathlib
import struct

import pytest

from penstock import processes_with, wait_until

SCHED_GETATTR = 315  # x86-64
LONG_TURN = 100_000_000  # ns


def turn_of(tid):
    """The turns that a thread asks for, in nanoseconds; before Linux 6.12 nobody asks, and it is 0."""
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None, use_errno=True).syscall(SCHED_GETATTR, tid, attributes, 48, 0) == 0
    return struct.unpack_from("<Q", attributes.raw, 24)[0]


def threads(pid):
    """Name -> thread ids."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found.setdefault((task / "comm").read_text().strip(), []).append(int(task.name))
    return found


SHOP = """
name: shop
flows: {keeper: {run: [sh, -c, "tail -f /dev/null # live"]}}
jobs: {work: {run: [sh, -c, "tail -f /dev/null # batch"], grace: 1s}}
"""
LIVE_LANE = ("penstockd", "store", "topic-writer", "flow")


def working(daemon):
    """Once a flow's program and a job's run."""
    run = daemon.trigger("shop", "work").json["id"]
    wait_until(lambda: processes_with("# live") and processes_with("# batch"), "both programs to run")
    yield daemon
    daemon.cancel(run)
    daemon.wait_for_run(run)


@pytest.fixture
def daemon(start_daemon):
    yield from working(start_daemon({"shop": SHOP}))


@pytest.fixture
def first(start_daemon, tmp_path):
    """With `realtime: true`, and the right to it as this process has it."""
    (tmp_path / "settings.yaml").write_text("realtime: true\n")
    yield from working(start_daemon({"shop": SHOP}, args=["--config", tmp_path / "settings.yaml"]))


def may_be_realtime():
    try:
        usual = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
        os.sched_setscheduler(0, usual, os.sched_param(0))
        return True
    except PermissionError:
        return False


def test_niceness(daemon):
    named = threads(daemon.pid)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    for name in LIVE_LANE:
        assert {os.getpriority(os.PRIO_PROCESS, tid) for tid in named[name]} == {ours}, name
    assert {os.getpriority(os.PRIO_PROCESS, tid) for tid in named["batch"]} == {10}
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in processes_with("# live")} == {ours}
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in processes_with("# batch")} == {10}


def test_turns(daemon):
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < (6, 12) or os.uname().machine != "x86_64":
        pytest.skip(f"Linux {os.uname().release} has no turns to ask for")
    named = threads(daemon.pid)
    usual = turn_of(os.getpid())
    for name in LIVE_LANE:
        assert {turn_of(tid) for tid in named[name]} == {usual}, name
    assert {turn_of(pid) for pid in processes_with("# live")} == {usual}
    assert {turn_of(tid) for tid in named["batch"] + processes_with("# batch")} == {LONG_TURN}


def test_realtime_is_for_the_live_lane_alone(first):
    if not may_be_realtime():
        pytest.skip("this process may not ask for real-time scheduling")
    named = threads(first.pid)
    rank = {name: {os.sched_getparam(tid).sched_priority for tid in named[name]} for name in LIVE_LANE}
    assert rank == {"penstockd": {2}, "store": {2}, "topic-writer": {2}, "flow": {1}}
    for name in LIVE_LANE:  # what they start is ordinary again
        assert {os.sched_getscheduler(tid) for tid in named[name]} == {os.SCHED_RR | os.SCHED_RESET_ON_FORK}
    programs = processes_with("# live") + processes_with("# batch")
    assert {os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK for tid in named["batch"] + programs} == {os.SCHED_OTHER}
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in processes_with("# batch")} == {10}
