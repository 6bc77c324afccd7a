"""A gate that many programs can wait at, opened by the test: a file lock. WAIT is the shell command that waits; nothing polls.

    run: [sh, -c, "WAIT; echo through"]         a definition, its WAIT replaced by gate.WAIT
    gate = Gate(daemon.work("shop")); ...; gate.open()
"""
import datetime
import fcntl
import pathlib
import time

from penstock import wait_until

WAIT = "flock -s gate true"  # in the pipeline's own folder


class Gate:
    """Shut from the beginning."""

    def __init__(self, folder):
        self.file = open(pathlib.Path(folder) / "gate", "w", encoding="utf-8")
        self.shut()

    def shut(self):
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def open(self):
        fcntl.flock(self.file, fcntl.LOCK_UN)


def at(text):
    """A time of the daemon's."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def most_at_once(runs):
    """How many of the runs were active at the same time, at most; an end at the moment of a start comes before it."""
    moments = sorted([(run["started_at"], 1) for run in runs if run["started_at"]] +
                     [(run["ended_at"], -1) for run in runs if run["started_at"]])
    now = most = 0
    for _, step in moments:
        now += step
        most = max(most, now)
    return most


def let_time_pass(seconds):
    """For what is about time itself: a slow writer, a pause between events. Never to wait for the daemon."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, "time to pass")
