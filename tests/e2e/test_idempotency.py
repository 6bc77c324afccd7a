"""One key, one run, however many ask at the same moment: nobody is refused because another is still being answered."""
import json
import threading

import pytest

JOBS = """name: shop
jobs:
  work: {run: [sh, -c, "cat > /dev/null"], params: {n: {type: integer, default: 0}}}
"""


def at_once(count, ask):
    """Calls ask(n) in `count` threads that begin together; returns what they returned."""
    ready, answers = threading.Barrier(count), [None] * count

    def one(n):
        ready.wait()
        answers[n] = ask(n)
    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_many_with_one_key_get_one_run(start_daemon):
    daemon = start_daemon({"shop": JOBS})
    for round_ in range(10):
        key = {"Idempotency-Key": f"round-{round_}"}
        answers = at_once(16, lambda n: daemon.trigger("shop", "work", {"params": {"n": round_}}, headers=key,
                                                       wait="20s" if n % 2 else None))
        assert {answer.status for answer in answers} <= {200, 202}, answers
        assert len({answer.json["id"] for answer in answers}) == 1
        assert all(answer.json["state"] == "succeeded" for answer in answers[1::2]), "who waits gets the end, whoever made the run"
    assert len(daemon.runs("shop", "work")) == 10


def test_one_key_and_two_bodies_at_once(start_daemon):
    """Whoever is first makes the run; those with its body get it, those with the other are told."""
    daemon = start_daemon({"shop": JOBS})
    for round_ in range(10):
        key = {"Idempotency-Key": f"round-{round_}"}
        answers = at_once(12, lambda n: daemon.trigger("shop", "work", {"params": {"n": n % 2}}, headers=key))
        statuses = [{answer.status for answer in answers[side::2]} for side in (0, 1)]
        assert sorted(map(sorted, statuses)) == [[202], [422]], answers
        made = {answer.json["id"] for answer in answers if answer.status == 202}
        assert len(made) == 1
        refused = next(answer for answer in answers if answer.status == 422)
        assert made.pop() in refused.json["detail"] and "new key" in refused.json["detail"]
    assert len(daemon.runs("shop", "work")) == 10


def test_a_refused_request_leaves_its_key_free(start_daemon):
    daemon = start_daemon({"shop": JOBS})
    key = {"Idempotency-Key": "k"}
    assert daemon.trigger("shop", "work", {"params": {"n": "many"}}, headers=key).status == 422
    assert daemon.request("POST", "/v1/pipelines/shop/jobs/work/runs", "{", key).status == 400
    assert daemon.trigger("shop", "work", {"params": {"n": 1}}, headers=key).status == 202


def test_the_same_key_for_another_job_is_another_key(start_daemon):
    daemon = start_daemon({"shop": JOBS + "  other: {run: ['true']}\n"})
    key = {"Idempotency-Key": "k"}
    assert daemon.trigger("shop", "work", headers=key).json["id"] != daemon.trigger("shop", "other", headers=key).json["id"]


def test_a_kill_between_two_tries(start_daemon):
    daemon = start_daemon({"shop": JOBS})
    body, key = json.dumps({"params": {"n": 3}}), {"Idempotency-Key": "k", "Content-Type": "application/json"}
    first = daemon.request("POST", "/v1/pipelines/shop/jobs/work/runs", body, key)
    daemon.kill9()
    daemon.start()
    again = daemon.request("POST", "/v1/pipelines/shop/jobs/work/runs?wait=20s", body, key)
    assert (again.status, again.json["id"], again.json["state"]) == (200, first.json["id"], "succeeded"), again
    assert len(daemon.runs("shop", "work")) == 1


@pytest.mark.parametrize("keys, detail", [([""], "is empty"), (['""'], "is empty"), (["a", "b"], "more than one"), (["a", "a"], "more than one")])
def test_a_key_that_would_not_do_what_its_sender_believes(start_daemon, keys, detail):
    daemon = start_daemon({"shop": JOBS})
    connection = daemon.connect()
    connection.putrequest("POST", "/v1/pipelines/shop/jobs/work/runs")
    for key in keys:
        connection.putheader("Idempotency-Key", key)
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 400 and detail in json.load(answer)["detail"]
    assert not daemon.runs("shop", "work")
