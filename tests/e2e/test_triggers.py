"""What starts a run: events in a topic, an interval, the clock, another run's end, a request. And what does not."""
from datetime import datetime, timedelta

import pytest

from penstock import wait_until


def at(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def topic_job(trigger, to="{topic: copies}"):
    return f"""
name: shop
topics: {{arrivals: {{}}, copies: {{}}}}
jobs:
  load:
    trigger: {{topic: arrivals, {trigger}}}
    to: {to}
"""


def numbers(count):
    return [{"n": n} for n in range(1, count + 1)]


def test_one_event_makes_exactly_one_run(start_daemon):
    daemon = start_daemon({"shop": topic_job("max_events: 100")})
    daemon.publish("arrivals", [{"n": 1}])
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["state"] == "succeeded"
    assert run["trigger"] == "topic"
    assert run["attempt"] == 1
    assert run["input"] == {**run["input"], "topic": "arrivals", "first_offset": 1, "last_offset": 1, "events": 1}
    assert at(run["created_at"]) <= at(run["started_at"]) <= at(run["ended_at"])
    assert [event["data"] for event in daemon.events("copies")] == [{"n": 1}]

    # It stays one, also after a restart, and the next event makes the next run.
    daemon.restart()
    daemon.publish("arrivals", [{"n": 2}])
    assert len(daemon.wait_for_runs("shop", "load", 2)) == 2


@pytest.mark.parametrize("max_wait", ["0s", "1s"])
def test_1050_events_at_500_make_three_runs(start_daemon, max_wait):
    daemon = start_daemon({"shop": topic_job(f"max_events: 500, max_wait: {max_wait}")})
    daemon.publish("arrivals", numbers(1050))
    runs = daemon.wait_for_runs("shop", "load", 3)
    assert [run["input"]["events"] for run in runs] == [500, 500, 50]
    assert [(run["input"]["first_offset"], run["input"]["last_offset"]) for run in runs] == [
        (1, 500), (501, 1000), (1001, 1050)]
    assert [event["data"]["n"] for event in daemon.events("copies")] == list(range(1, 1051))


def test_three_events_wait_two_seconds_for_one_run(start_daemon):
    daemon = start_daemon({"shop": topic_job("max_events: 500, max_wait: 2s")})
    daemon.publish("arrivals", numbers(3))
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["input"]["events"] == 3
    first = at(daemon.events("arrivals")[0]["time"])
    waited = at(run["created_at"]) - first
    assert timedelta(seconds=1.99) <= waited < timedelta(seconds=5), waited


def test_events_within_the_wait_join_and_the_limit_ends_it(start_daemon):
    daemon = start_daemon({"shop": topic_job("max_events: 4, max_wait: 1h")})
    daemon.publish("arrivals", numbers(3))
    assert daemon.runs("shop", "load") == []
    daemon.publish("arrivals", numbers(1))
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["input"]["events"] == 4


def test_no_events_make_no_run(start_daemon):
    daemon = start_daemon({
        "shop": topic_job("max_events: 500, max_wait: 50ms"),
        "clock": "name: clock\njobs: {tick: {trigger: {every: 200ms}, run: [\"true\"]}}\n"})
    # Time passes, as another job's runs show; the topic's job sees none of it.
    wait_until(lambda: len(daemon.runs("clock", "tick")) >= 5, "five ticks")
    assert daemon.runs("shop", "load") == []
    # Events that were there before the job existed are its input, too.
    job = daemon.job("shop", "load")
    assert (job["queued"], job["running"]) == (0, 0)


def test_several_posts_never_double(start_daemon):
    daemon = start_daemon({"shop": topic_job("max_events: 10")})
    for n in range(60):
        daemon.publish("arrivals", [{"n": n}])
    daemon.wait_until_quiet("shop")
    assert [event["data"]["n"] for event in daemon.events("copies")] == list(range(60))
    runs = daemon.runs("shop", "load")
    assert sum(run["input"]["events"] for run in runs) == 60
    ends = [run["input"]["last_offset"] for run in runs]
    assert [run["input"]["first_offset"] for run in runs] == [1] + [end + 1 for end in ends[:-1]]


def test_every(start_daemon):
    daemon = start_daemon({"clock": "name: clock\njobs: {tick: {trigger: {every: 300ms}, run: [\"true\"]}}\n"})
    runs = wait_until(lambda: len(found := daemon.runs("clock", "tick")) >= 4 and found, "four ticks")
    times = [at(run["scheduled_for"]) for run in runs[:4]]
    gaps = {later - earlier for earlier, later in zip(times, times[1:])}
    assert gaps == {timedelta(milliseconds=300)}
    assert {run["trigger"] for run in runs} == {"every"}


def test_cron_with_seconds(start_daemon):
    daemon = start_daemon({
        "clock": "name: clock\njobs: {tick: {trigger: {cron: \"* * * * * *\", timezone: Europe/Madrid}, run: [\"true\"]}}\n"})
    runs = wait_until(lambda: len(found := daemon.runs("clock", "tick")) >= 3 and found, "three ticks")
    times = [at(run["scheduled_for"]) for run in runs[:3]]
    assert all(time.microsecond == 0 for time in times)
    assert [(later - earlier).seconds for earlier, later in zip(times, times[1:])] == [1, 1]
    assert {run["trigger"] for run in runs} == {"cron"}
    for run in runs[:3]:
        late = at(run["created_at"]) - at(run["scheduled_for"])
        assert timedelta(0) <= late < timedelta(seconds=2), "it fires at its time, never before"
    assert at(daemon.job("clock", "tick")["next_firing"]) > times[-1]


def test_after_success_failure_and_any(start_daemon):
    daemon = start_daemon({"chain": """
name: chain
jobs:
  first: {run: [sh, -c, "exit $PENSTOCK_PARAM_CODE"]}
  on_success: {trigger: {after: first}, run: ["true"]}
  on_failure: {trigger: {after: {job: first, outcome: failed}}, run: ["true"]}
  on_any: {trigger: {after: {job: first, outcome: any}}, run: ["true"]}
  last: {trigger: {after: on_success}, run: ["true"]}
"""})
    good = daemon.trigger("chain", "first", {"params": {"code": 0}}).json["id"]
    assert daemon.wait_for_run(good)["state"] == "succeeded"
    success, = daemon.wait_for_runs("chain", "on_success", 1)
    daemon.wait_for_runs("chain", "last", 1)
    daemon.wait_for_runs("chain", "on_any", 1)
    assert success["upstream_run"] == good
    assert success["trigger"] == "after"
    assert daemon.runs("chain", "on_failure") == []

    bad = daemon.trigger("chain", "first", {"params": {"code": 7}}).json["id"]
    assert daemon.wait_for_run(bad)["state"] == "failed"
    failure, = daemon.wait_for_runs("chain", "on_failure", 1)
    assert failure["upstream_run"] == bad
    daemon.wait_for_runs("chain", "on_any", 2)
    assert len(daemon.runs("chain", "on_success")) == 1


ECHO = """
name: shop
topics: {echoes: {}}
jobs:
  echo:
    run: [sh, -c, "cat; echo city=$PENSTOCK_PARAM_CITY >&2"]
    to: {topic: echoes}
  slow: {run: [tail, -f, /dev/null], grace: 1s}
"""


def test_rest_trigger_with_events_and_params(start_daemon):
    daemon = start_daemon({"shop": ECHO})
    answer = daemon.trigger("shop", "echo", {"params": {"city": "Madrid"}, "events": [{"n": 1}, {"n": 2}]})
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/runs/{answer.json['id']}"
    run = daemon.wait_for_run(answer.json["id"])
    assert run["state"] == "succeeded", run
    assert run["trigger"] == "rest"
    assert run["params"] == {"city": "Madrid"}
    assert run["input"]["events"] == 2
    assert "city=Madrid" in daemon.logs(run["id"])
    assert [event["data"] for event in daemon.events("echoes")] == [{"n": 1}, {"n": 2}]


def test_rest_trigger_without_any_of_what_it_may_have(start_daemon):
    daemon = start_daemon({"shop": ECHO})
    for body in ('{"params": {}, "events": []}', '{"events": [ ]}', "{}"):
        answer = daemon.post("/v1/pipelines/shop/jobs/echo/runs", body.encode(), {"Content-Type": "application/json"})
        assert answer.status == 202 and answer.json["input"]["kind"] == "none", answer


def test_rest_trigger_waits_for_the_end(start_daemon):
    daemon = start_daemon({"shop": ECHO})
    answer = daemon.trigger("shop", "echo", wait="20s")
    assert answer.status == 200
    assert answer.json["state"] == "succeeded"
    assert answer.json["ended_at"]
    still_going = daemon.trigger("shop", "slow", wait="300ms")
    assert still_going.status == 202
    assert still_going.json["state"] in ("queued", "running")
    daemon.cancel(still_going.json["id"])
    assert daemon.wait_for_run(still_going.json["id"])["state"] == "cancelled"


def test_idempotency_key(start_daemon):
    daemon = start_daemon({"shop": ECHO})
    key = {"Idempotency-Key": "order-17"}
    first = daemon.trigger("shop", "echo", {"params": {"city": "Oslo"}}, headers=key)
    again = daemon.trigger("shop", "echo", {"params": {"city": "Oslo"}}, headers=key)
    assert first.json["id"] == again.json["id"]
    daemon.wait_for_run(first.json["id"])
    daemon.kill9()
    daemon.start()
    after_crash = daemon.trigger("shop", "echo", {"params": {"city": "Oslo"}}, headers=key)
    assert after_crash.json["id"] == first.json["id"]
    other_body = daemon.trigger("shop", "echo", {"params": {"city": "Rome"}}, headers=key)
    assert other_body.status == 422
    assert len(daemon.runs("shop", "echo")) == 1
    assert daemon.trigger("shop", "echo", headers={"Idempotency-Key": "order-18"}).json["id"] != first.json["id"]


def test_rest_trigger_refuses_what_is_not_there(start_daemon):
    daemon = start_daemon({"shop": ECHO})
    unknown_job = daemon.trigger("shop", "ecco")
    assert unknown_job.status == 404
    assert "'echo'" in unknown_job.json["detail"]
    assert daemon.trigger("shopp", "echo").status == 404
    assert daemon.trigger("shop", "echo", {"params": [1]}).status in (400, 422)
    assert daemon.post("/v1/pipelines/shop/jobs/echo/runs", "{", {"Content-Type": "application/json"}).status == 400
    assert daemon.runs("shop") == []
