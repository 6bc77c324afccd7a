"""Faults of the disk under load, one after the other: what the daemon says of each, and how it comes back.

Each is put on a daemon that works at the history checker's load. While it lasts the daemon must stay up, say so in /readyz
and in its log, and answer intake with 503 and Retry-After; once it is over all must work again without anybody's help.
"""
import errno
import threading
import time

from disk import Disk
from penstock import wait_until


class Fault:
    def __init__(self, name, pattern, calls, error=0, wait_ms=0, intake_fails=True, storing_fails=True):
        self.name, self.pattern, self.calls, self.error, self.wait_ms = name, pattern, calls, error, wait_ms
        self.intake_fails = intake_fails  # 503 to whoever posts events
        self.storing_fails = storing_fails and error != 0  # /readyz and the log say so
        self.flows_fail = error != 0 and not storing_fails  # the flows' states and the log say so

    def put_on(self, disk, skip=0):
        if self.error:
            return disk.fail(self.pattern, self.calls, self.error, skip)
        return disk.slow(self.pattern, self.calls, self.wait_ms)


FAULTS = [
    Fault("the disk is full", "*", Disk.WRITE | Disk.CREATE, errno.ENOSPC),
    Fault("a write fails (EIO)", "*", Disk.WRITE, errno.EIO),
    Fault("fsync fails (EIO)", "*", Disk.SYNC, errno.EIO),
    Fault("only state.db is full", "state.db*", Disk.WRITE, errno.ENOSPC, intake_fails=False),
    Fault("only flows.db fails to sync", "flows.db*", Disk.SYNC, errno.EIO, intake_fails=False),
    Fault("only the topics are full", "topics/*", Disk.WRITE, errno.ENOSPC),
    Fault("topics cannot be read (EIO)", "topics/*.db*", Disk.READ, errno.EIO, intake_fails=False, storing_fails=False),
    Fault("the disk is slow (50 ms a sync)", "*", Disk.SYNC, wait_ms=50),
]


# Those of the short form: each that stops the flows doubles the pause before their next start.
SOME_FAULTS = [FAULTS[n] for n in (0, 2, 3, 6, 7)]
PACE = 0.05  # of the driver: what it posts while flows wait must be done in the end


class Row:
    HEAD = f"{'fault':<34}{'calls hit':>10}{'/readyz':>9}{'intake':>8}{'Retry-After':>13}{'log':>5}{'recovered':>11}"

    def __init__(self, fault):
        self.fault = fault
        self.hits = 0
        self.readyz = self.intake = 200
        self.retry_after = ""
        self.logged = False
        self.recovered_s = 0.0
        self.problems = []

    def __str__(self):
        problems = "".join(f"\n    <-- {problem}" for problem in self.problems)
        return (f"{self.fault.name:<34}{self.hits:>10}{self.readyz:>9}{self.intake:>8}{self.retry_after:>13}"
                f"{'yes' if self.logged else 'no':>5}{self.recovered_s:>9.1f} s{problems}")


# Nobody checks what is in its topic: the tests ask with it how intake is answered.
PROBE = "name: probe\ntopics: {probe: {}}\n"


def accepted(driver):
    return len(driver.accepted)


def put_through(daemon, driver, fault, seconds=0.7, skip=0):
    """One fault from its beginning to the end of its consequences."""
    row = Row(fault)
    log_before = daemon.log.stat().st_size
    rule = fault.put_on(daemon.disk, skip)
    wait_until(lambda: rule.hits > 0, f"a call that {fault.name} concerns")
    try:
        if fault.storing_fails:
            answer = wait_until(lambda: (found := daemon.get("/readyz")).status == 503 and found, "/readyz to tell")
            row.readyz, row.retry_after = 503, answer.headers.get("retry-after", "")
            row.logged = b"nothing can be stored: " in log_since(daemon, log_before)
        if fault.flows_fail:
            wait_until(lambda: any(flow["state"] == "backing_off" for flow in daemon.pipeline("history")["flows"]), "a flow to tell")
            row.logged = b"backing_off" in log_since(daemon, log_before)
        if fault.storing_fails and fault.intake_fails:
            answer = daemon.post("/v1/topics/probe/events", b"{}", {"Content-Type": "application/json"})
            row.intake = answer.status
            if "retry-after" not in answer.headers or answer.json["type"] != "/problems/unavailable":
                row.problems.append(f"intake says {answer}")
        threading.Event().wait(seconds)  # of trouble, so that everything meets it
        if daemon.process.poll() is not None:
            row.problems.append("the daemon has ended")
    finally:
        row.hits = rule.hits
        daemon.disk.mend()
    began = time.monotonic()
    wait_until(lambda: daemon.get("/readyz").status == 200, "/readyz to be 200 again")
    before = accepted(driver)
    wait_until(lambda: accepted(driver) > before, "events to be accepted again")
    wait_until(lambda: all(flow["state"] == "running" for flow in daemon.pipeline("history")["flows"]), "all flows to run", 60)
    row.recovered_s = time.monotonic() - began
    if (fault.storing_fails or fault.flows_fail) and not row.logged:
        row.problems.append("the log says nothing")
    return row


def log_since(daemon, position):
    with open(daemon.log, "rb") as log:
        log.seek(position)
        return log.read()
