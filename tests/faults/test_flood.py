"""More requests bring events than the disk can take: those that are too many are answered 429, and what was accepted is there."""
from concurrent.futures import ThreadPoolExecutor

from disk import Disk
from penstock import wait_until

SLOW_MS = 3000
LIMIT = 3  # max_waiting_requests
SENT = 40


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


def settings(folder):
    file = folder / "settings.yaml"
    file.write_text(f"max_waiting_requests: {LIMIT}\n")
    return file
