"""More requests bring events or make runs than the disk can take: those that are too many are answered 429, and what was
accepted is there."""
import errno
from concurrent.futures import ThreadPoolExecutor

import pytest
from disk import Disk
from penstock import wait_until

SLOW_MS = 3000
LIMIT = 3  # max_waiting_requests
SENT = 40
JOBS = """name: p
jobs:
  work: {trigger: {webhook: /work}, to: drop, on_overlap: allow}
  other: {to: drop, on_overlap: allow}
"""
EVENT = {"n": 0}
WAYS = {"request": ("/v1/pipelines/p/jobs/work/runs", {"events": [EVENT]}), "webhook": ("/hooks/work", EVENT)}


def test_a_flood_of_events_on_a_slow_disk(start_on_disk):
    daemon = start_on_disk({"p": "name: p\ntopics: {t: {}, other: {}}\n"}, args=lambda folder: ["--config", settings(folder)])
    daemon.publish("t", [{"n": -1}])
    daemon.disk.slow("topics/t.db*", Disk.SYNC, SLOW_MS)
    with ThreadPoolExecutor(SENT) as clients:
        sent = [clients.submit(daemon.post, "/v1/topics/t/events", {"n": n}) for n in range(SENT)]
        refused = SENT - LIMIT
        wait_until(lambda: sum(one.done() for one in sent) == refused, "those that are too many to be answered")
        assert daemon.get("/v1/pipelines").status == 200, "nobody else waits"
        daemon.publish("other", [{"n": 0}])
        assert {one.result().status for one in sent if one.done()} == {429}
        daemon.disk.mend()
        answers = [one.result() for one in sent]
    assert [answer.status for answer in answers].count(202) == LIMIT
    assert {answer.headers["retry-after"] for answer in answers if answer.status == 429} == {"1"}
    stored = [event["data"]["n"] for event in daemon.get_json("/v1/topics/t/events")["items"]]
    assert sorted(stored) == [-1] + [n for n, answer in enumerate(answers) if answer.status == 202], "each that was accepted, once"
    daemon.publish("t", [{"n": SENT}])


@pytest.mark.parametrize("way", WAYS)
def test_a_flood_of_runs_on_a_slow_disk(start_on_disk, way):
    path, body = WAYS[way]
    daemon = start_on_disk({"p": JOBS}, args=lambda folder: ["--config", settings(folder)])
    wait_until(lambda: daemon.post(path, body).status == 202, "the first run")
    daemon.wait_for_runs("p", "work", 1)
    daemon.disk.slow("state.db*", Disk.SYNC, SLOW_MS)
    with ThreadPoolExecutor(SENT + LIMIT) as clients:
        sent = [clients.submit(daemon.post, path, body) for _ in range(SENT)]
        refused = SENT - LIMIT
        wait_until(lambda: sum(one.done() for one in sent) == refused, "those that are too many to be answered")
        others = [clients.submit(daemon.trigger, "p", "other") for _ in range(LIMIT)]
        assert daemon.get("/v1/pipelines").status == 200, "nobody else waits"
        assert {one.result().status for one in sent if one.done()} == {429}
        daemon.disk.mend()
        answers = [one.result() for one in sent]
        assert [one.result().status for one in others] == [202] * LIMIT, "each job has places of its own"
    assert [answer.status for answer in answers].count(202) == LIMIT
    full = [answer for answer in answers if answer.status == 429]
    assert {answer.headers["retry-after"] for answer in full} == {"1"}
    assert all("job work " in answer.json["detail"] and "max_waiting_requests" in answer.json["detail"] for answer in full)
    daemon.wait_for_runs("p", "work", LIMIT + 1)
    assert daemon.post(path, body).status == 202, "there are places again"


def test_a_run_that_could_not_be_stored_leaves_its_place(start_on_disk):
    daemon = start_on_disk({"p": JOBS}, args=lambda folder: ["--config", settings(folder)])
    daemon.disk.fail("state.db*", Disk.WRITE, errno.ENOSPC)
    assert [daemon.trigger("p", "work").status for _ in range(LIMIT + 1)] == [503] * (LIMIT + 1)
    daemon.disk.mend()
    wait_until(lambda: daemon.get("/readyz").status == 200, "/readyz to be 200")
    assert daemon.trigger("p", "work", wait="30s").json["state"] == "succeeded"


def settings(folder):
    file = folder / "settings.yaml"
    file.write_text(f"max_waiting_requests: {LIMIT}\n")
    return file
