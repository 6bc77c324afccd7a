"""The wall clock jumps, by hours and both ways, while the daemon runs: what goes by it looks again, what does not stays.

Method: disk_faults.c adds an offset to the daemon's own wall clock and cancels the timers that the kernel cancels when a
clock is set; the machine's clock stays as it is.
"""
from penstock import wait_until

HOUR = 3600
PIPELINE = """
name: p
topics:
  t: {dedupe: {key: event.id, within: 1h}}
  out: {}
flows:
  once: {from: {topic: t}, steps: [{dedupe: {key: event.id, within: 1h}}], to: {topic: out}}
jobs:
  hourly: {trigger: {every: 1h}, run: ["true"]}
  timed: {run: [sh, -c, "echo ready; exec tail -f /dev/null"], timeout: 10m, grace: 1s}
  due: {run: [sh, -c, "echo ready; exec tail -f /dev/null"], deadline: 10m, grace: 1s}
"""


def say_the_time(daemon):
    """A daemon at rest asks for no time; a request makes it."""
    daemon.get("/healthz")


def test_forward(start_on_disk):
    daemon = start_on_disk({"p": PIPELINE})
    assert daemon.publish("t", [{"id": "a"}])["accepted"] == 1
    assert daemon.publish("t", [{"id": "a"}])["duplicates"] == 1
    daemon.wait_for_topic("out", 1)
    timed = daemon.trigger("p", "timed").json["id"]
    due = daemon.trigger("p", "due").json["id"]
    for run in (timed, due):
        wait_until(lambda: "ready" in daemon.logs(run), "the program")
    already = len(daemon.runs("p", "hourly"))

    daemon.disk.jump(2 * HOUR)
    say_the_time(daemon)
    wait_until(lambda: "the clock was set" in daemon.log.read_text(), "the daemon to notice")
    # A schedule and a deadline go by the wall clock, a timeout does not.
    wait_until(lambda: len(daemon.runs("p", "hourly")) > already, "the run that became due")
    assert daemon.wait_for_run(due)["state"] == "timed_out"
    assert daemon.run(timed)["state"] == "running"
    # What is remembered for an hour is forgotten, in the topic and in the step.
    assert daemon.publish("t", [{"id": "a"}])["accepted"] == 1
    daemon.wait_for_topic("out", 2)
    daemon.cancel(timed)
    daemon.wait_for_run(timed)


def test_backward(start_on_disk):
    daemon = start_on_disk({"p": PIPELINE})
    daemon.disk.jump(3 * HOUR)
    say_the_time(daemon)
    assert daemon.publish("t", [{"id": "a"}])["accepted"] == 1
    first = daemon.trigger("p", "timed").json["id"]
    wait_until(lambda: "ready" in daemon.logs(first), "the program")
    wait_until(lambda: daemon.runs("p", "hourly"), "the run that became due")
    fired = len(daemon.runs("p", "hourly"))

    daemon.disk.jump(-3 * HOUR)
    say_the_time(daemon)
    # Nothing is forgotten early, made twice or out of order.
    assert daemon.publish("t", [{"id": "a"}])["duplicates"] == 1
    assert daemon.publish("t", [{"id": "b"}])["first_offset"] == 2
    daemon.wait_for_topic("out", 2)
    second = daemon.trigger("p", "timed").json["id"]
    assert first != second
    assert len(daemon.runs("p", "hourly")) == fired
    for run in (first, second):
        daemon.cancel(run)
        assert daemon.wait_for_run(run)["state"] == "cancelled"
    # And a restart in the past finds what was made in the future.
    daemon.restart()
    assert daemon.publish("t", [{"id": "b"}])["duplicates"] == 1
    assert len(daemon.runs("p", "hourly")) == fired


def test_a_token_ends_when_the_clock_says_so(start_on_disk):
    daemon = start_on_disk({"p": PIPELINE})
    admin = daemon.post("/v1/tokens", {"name": "admin", "roles": ["admin"]}).json["token"]
    daemon.token = admin
    short = daemon.post("/v1/tokens", {"name": "short", "roles": ["read"], "expires_in": "1h"}).json["token"]
    with_short = {"Authorization": f"Bearer {short}"}
    assert daemon.get("/v1/runs", with_short).status == 200
    daemon.disk.jump(2 * HOUR)
    assert daemon.get("/v1/runs", with_short).status == 401
    assert daemon.get("/v1/runs").status == 200
