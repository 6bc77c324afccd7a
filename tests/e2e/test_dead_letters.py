"""What cannot be processed is kept with step, reason and payload, until it is replayed after the fix, or discarded."""
from penstock import penstock, wait_until

FLOW = """
name: shop
topics: {arrivals: {}, orders: {}}
flows:
  clean:
    from: {topic: arrivals}
    steps:
      - filter: event.n ~= nil
      - name: double
        map: {n: event.n, twice: EXPRESSION}
    to: {topic: orders}
"""
BROKEN = FLOW.replace("EXPRESSION", "event.value * 2")
FIXED = FLOW.replace("EXPRESSION", "(tonumber(event.value) or 0) * 2")


def ten_with_one_poisoned():
    return [{"n": n, "value": "poison" if n == 4 else n} for n in range(10)]


def test_a_lua_error_becomes_a_dead_letter_and_replay_works_after_the_fix(start_daemon):
    daemon = start_daemon({"shop": BROKEN})
    daemon.publish("arrivals", ten_with_one_poisoned())
    events = daemon.wait_for_topic("orders", 9)
    assert [event["data"]["n"] for event in events] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    letter, = wait_until(lambda: daemon.dead_letters("shop"), "the dead letter")
    assert letter["kind"] == "event"
    assert letter["pipeline"] == "shop"
    assert letter["consumer"] == "shop/flow/clean"
    assert letter["step"] == "double"
    assert "twice" in letter["reason"] and "attempt to" in letter["reason"], letter["reason"]
    assert letter["attempts"] == 1
    assert letter["at"]
    assert letter["event"]["data"] == {"n": 4, "value": "poison"}
    counts = daemon.flow("shop", "clean")
    assert (counts["received"], counts["emitted"], counts["dead"]) == (10, 9, 1)
    assert counts["state"] == "running"

    # Replayed before the fix it fails again, and is still kept, once.
    answer = daemon.post("/v1/dead-letters/replay", {"ids": [letter["id"]]})
    assert answer.json == {"done": 1, "failed": [], "dead_again": 1}
    again = penstock("dead-letters", "replay", "--all", daemon=daemon)
    assert (again.returncode, again.stdout) == (1, "1 replayed, 1 of them failed again and are dead letters anew\n"), again
    letter, = wait_until(lambda: len(found := daemon.dead_letters("shop")) == 1 and found, "one dead letter")

    # It survives a crash.
    daemon.kill9()
    daemon.start()
    letter, = daemon.dead_letters("shop")

    daemon.put("shop", FIXED)
    answer = daemon.post("/v1/dead-letters/replay", {"ids": [letter["id"]]})
    assert answer.status in (200, 202) and answer.json["dead_again"] == 0, answer
    wait_until(lambda: daemon.dead_letters("shop") == [], "no dead letters")
    events = daemon.wait_for_topic("orders", 10)
    assert events[-1]["data"] == {"n": 4, "twice": 0}


def test_discard(start_daemon):
    daemon = start_daemon({"shop": BROKEN})
    daemon.publish("arrivals", ten_with_one_poisoned())
    letter, = wait_until(lambda: daemon.dead_letters("shop"), "the dead letter")
    unknown = daemon.post("/v1/dead-letters/discard", {"ids": ["01ARZ3NDEKTSV4RRFFQ69G5FAV"]})
    assert unknown.status == 404
    assert len(daemon.dead_letters()) == 1
    assert daemon.post("/v1/dead-letters/discard", {"ids": [letter["id"]]}).status == 200
    assert daemon.dead_letters() == []
    assert daemon.topic("orders")["events"] == 9


def test_limits_of_an_expression_are_dead_letters_not_a_hang(start_daemon):
    daemon = start_daemon({"shop": FLOW.replace(
        "EXPRESSION", '"(function() if event.n == 1 then while true do end end return 1 end)()"')})
    daemon.publish("arrivals", [{"n": n} for n in range(3)])
    daemon.wait_for_topic("orders", 2)
    letter, = wait_until(lambda: daemon.dead_letters("shop"), "the dead letter")
    assert letter["event"]["data"] == {"n": 1}
    assert "instruction" in letter["reason"] or "limit" in letter["reason"]


def test_the_input_of_a_failed_run_is_a_dead_letter(start_daemon):
    job = """
name: shop
topics: {arrivals: {}}
jobs:
  load:
    trigger: {topic: arrivals}
    run: [sh, -c, "cat >> got; CODE"]
"""
    daemon = start_daemon({"shop": job.replace("CODE", "exit 5")})
    daemon.publish("arrivals", [{"n": 1}, {"n": 2}])
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["state"] == "failed"
    letter, = daemon.dead_letters("shop")
    assert (letter["kind"], letter["id"]) == ("run", run["id"])
    assert "exit code 5" in letter["reason"]
    daemon.put("shop", job.replace("CODE", "exit 0"))
    assert daemon.post("/v1/dead-letters/replay", {"ids": [letter["id"]]}).status in (200, 202)
    runs = daemon.wait_for_runs("shop", "load", 2)
    assert [run["state"] for run in runs] == ["failed", "succeeded"]
    assert runs[1]["input"]["events"] == 2
    assert daemon.dead_letters("shop") == []


def test_many_dead_letters_come_in_pages(start_daemon):
    daemon = start_daemon({"shop": BROKEN})
    daemon.publish("arrivals", [{"n": n, "value": "poison"} for n in range(250)])
    wait_until(lambda: daemon.flow("shop", "clean")["dead"] == 250, "250 dead letters")
    seen, cursor = [], ""
    while cursor is not None:
        page = daemon.get_json("/v1/dead-letters?limit=100" + (f"&cursor={cursor}" if cursor else ""))
        seen += [letter["event"]["data"]["n"] for letter in page["items"]]
        cursor = page.get("next_cursor")
    assert seen == list(range(250))
