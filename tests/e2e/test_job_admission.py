"""Which waiting run goes next, and how many at once: priorities, ageing, fairness, pools, limits, overlap keys, deadlines."""
import collections
import random

import pytest

from gate import WAIT, Gate, at, let_time_pass, most_at_once
from penstock import processes_with, wait_until

HOLD = f"""
name: hold
jobs:
  slot: {{run: [sh, -c, "touch held; {WAIT}"], priority: 9}}
"""


@pytest.fixture
def one_slot(start_daemon, tmp_path):
    """one_slot(pipelines, ageing): a daemon of one slot, which a run already holds, and that run's gate."""
    def start(pipelines, ageing="1h"):
        settings = tmp_path / "settings.yaml"
        settings.write_text(f"max_active_runs: 1\npriority_ageing: {ageing}\n")
        daemon = start_daemon({"hold": HOLD, **pipelines}, args=["--config", settings])
        gate = Gate(daemon.work("hold"))
        daemon.trigger("hold", "slot")
        wait_until((daemon.work("hold") / "held").exists, "the slot to be taken")
        return daemon, gate
    return start


def noting(name, more):
    return f"  {name}: {{run: [sh, -c, \"echo {name}-$PENSTOCK_PARAM_N >> ORDER\"], on_overlap: allow, {more}}}\n"


def ask(daemon, pipeline, job, n, **more):
    answer = daemon.trigger(pipeline, job, {"params": {"n": n}, **more})
    assert answer.status == 202, answer
    return answer.json["id"]


def in_order(daemon, tmp_path, ids):
    assert {daemon.wait_for_run(run_id)["state"] for run_id in ids} == {"succeeded"}
    return (tmp_path / "order").read_text().split()


def test_strict_order_of_priorities(one_slot, tmp_path):
    jobs = "".join(noting(f"p{p}", f"priority: {p}") for p in range(10))
    daemon, gate = one_slot({"shop": "name: shop\njobs:\n" + jobs.replace("ORDER", str(tmp_path / "order"))})
    wanted = [(p, n) for p in range(10) for n in range(3)]
    queue = random.Random(3).sample(range(10), 10)  # each job's own runs in order, the jobs in any
    ids = [ask(daemon, "shop", f"p{p}", n) for n in range(3) for p in queue]
    waiting = daemon.run(ids[0])
    assert waiting["state"] == "queued"
    assert "slots of the daemon are taken" in waiting["waiting_reason"], waiting
    assert {daemon.run(run_id)["priority"] for run_id in ids} == set(range(10))
    gate.open()
    order = in_order(daemon, tmp_path, ids)
    assert order == [f"p{p}-{n}" for p, n in sorted(wanted, key=lambda one: (-one[0], one[1]))]


def test_order_survives_a_crash(one_slot, tmp_path):
    jobs = "".join(noting(f"p{p}", f"priority: {p}") for p in (1, 5, 9))
    daemon, gate = one_slot({"shop": "name: shop\njobs:\n" + jobs.replace("ORDER", str(tmp_path / "order"))})
    ids = [ask(daemon, "shop", f"p{p}", n) for n in range(3) for p in (1, 9, 5)]
    daemon.kill9()
    (daemon.work("hold") / "held").unlink()
    daemon.start()
    wait_until((daemon.work("hold") / "held").exists, "the slot to be taken again, by the highest priority and oldest")
    gate.open()
    assert in_order(daemon, tmp_path, ids) == [f"p{p}-{n}" for p in (9, 5, 1) for n in range(3)]


def test_a_run_may_be_asked_for_with_a_priority_of_its_own(one_slot, tmp_path):
    daemon, gate = one_slot({"shop": "name: shop\njobs:\n" + noting("work", "priority: 3").replace("ORDER", str(tmp_path / "order"))})
    ids = [ask(daemon, "shop", "work", n, **more) for n, more in enumerate([{}, {"priority": 0}, {"priority": 9}, {}])]
    assert [daemon.run(run_id)["priority"] for run_id in ids] == [3, 0, 9, 3]
    refused = daemon.trigger("shop", "work", {"priority": 10})
    assert refused.status in (400, 422) and "priority" in refused.json["detail"], refused
    gate.open()
    assert in_order(daemon, tmp_path, ids) == ["work-2", "work-0", "work-3", "work-1"]


def test_a_low_priority_has_its_turn_once_it_is_old(one_slot, tmp_path):
    jobs = "".join(noting(f"p{p}", f"priority: {p}") for p in (0, 9))
    daemon, gate = one_slot({"shop": "name: shop\njobs:\n" + jobs.replace("ORDER", str(tmp_path / "order"))}, ageing="500ms")
    ids = [ask(daemon, "shop", "p0", 0)]
    let_time_pass(0.6)
    ids += [ask(daemon, "shop", "p0", 1)] + [ask(daemon, "shop", "p9", n) for n in range(3)]
    gate.open()
    assert in_order(daemon, tmp_path, ids) == ["p0-0", "p9-0", "p9-1", "p9-2", "p0-1"]


def test_pipelines_of_the_same_priority_take_turns(one_slot, tmp_path):
    def pipeline(name):
        return f"name: {name}\njobs:\n" + noting(name, "queue_limit: 100").replace("ORDER", str(tmp_path / "order"))
    daemon, gate = one_slot({name: pipeline(name) for name in ("many", "few")})
    ids = [ask(daemon, "many", "many", n) for n in range(20)] + [ask(daemon, "few", "few", n) for n in range(5)]
    gate.open()
    order = in_order(daemon, tmp_path, ids)
    turns = [name.split("-")[0] for name in order[:10]]
    assert all(one != next_one for one, next_one in zip(turns, turns[1:])), order
    for name in ("many", "few"):
        mine = [int(entry.split("-")[1]) for entry in order if entry.startswith(name)]
        assert mine == sorted(mine), "first come, first served, within one pipeline"


def test_pools_are_never_exceeded(start_daemon):
    """Runs of two pipelines, some of which need both slots at once; each counts who is in there with it."""
    count = "mkdir $AREA/in-$PENSTOCK_RUN_ID-SLOT"
    leave = "rmdir $AREA/in-$PENSTOCK_RUN_ID-SLOT"
    work = ("; ".join(["ENTER", "ls -d $AREA/in-* | wc -l >> $AREA/seen",
                       "head -c 300000 /dev/urandom | sha256sum > /dev/null", "LEAVE"]))
    one = work.replace("ENTER", count.replace("SLOT", "1")).replace("LEAVE", leave.replace("SLOT", "1"))
    both = work.replace("ENTER", "; ".join(count.replace("SLOT", s) for s in "12")).replace(
        "LEAVE", "; ".join(leave.replace("SLOT", s) for s in "12"))
    shop = """
name: shop
pools: {db: 2}
jobs:
  one: {run: [sh, -c, "ONE"], environment: {AREA: "ALL"}, pools: db, on_overlap: allow}
  both: {run: [sh, -c, "BOTH"], environment: {AREA: "ALL"}, pools: {db: 2}, on_overlap: allow}
  free: {run: ["true"], on_overlap: allow}
"""
    daemon = start_daemon()
    daemon.put("shop", shop.replace("ALL", str(daemon.folder)).replace("ONE", one).replace("BOTH", both))
    daemon.put("store", shop.replace("ALL", str(daemon.folder)).replace("ONE", one).replace("BOTH", both).replace(
        "name: shop", "name: store"))
    ids = [daemon.trigger(pipeline, job).json["id"] for n in range(12) for pipeline in ("shop", "store")
           for job in (("one", "both") if n % 4 == 0 else ("one", "one"))]
    free = daemon.trigger("shop", "free", wait="20s")
    assert free.json["state"] == "succeeded", "who needs no slot of the pool does not wait for one"
    assert {daemon.wait_for_run(run_id, timeout=60)["state"] for run_id in ids} == {"succeeded"}
    seen = [int(line) for line in (daemon.folder / "seen").read_text().split()]
    assert len(seen) == len(ids)
    assert max(seen) == 2, "never more, and not one at a time either"


def test_who_waits_for_a_pool_says_so(start_daemon):
    daemon = start_daemon({"shop": f"""
name: shop
pools: {{db: 2}}
jobs:
  work: {{run: [sh, -c, "{WAIT}"], pools: db, on_overlap: allow}}
  both: {{run: ["true"], pools: {{db: 2}}, on_overlap: allow}}
"""})
    gate = Gate(daemon.work("shop"))
    ids = [daemon.trigger("shop", "work").json["id"] for _ in range(3)]
    wait_until(lambda: daemon.job("shop", "work")["running"] == 2, "two runs")
    waiting = daemon.run(ids[2])
    assert (waiting["state"], waiting["waiting_reason"]) == ("queued", "pool 'db' has no free slot (2 of 2 taken)")
    ids.append(daemon.trigger("shop", "both").json["id"])
    assert daemon.run(ids[3])["waiting_reason"] == "pool 'db' has no free slot (2 of 2 taken)"
    daemon.kill9()
    daemon.start()
    wait_until(lambda: daemon.job("shop", "work")["running"] == 2, "two runs again")
    assert daemon.job("shop", "work")["queued"] == 1
    gate.open()
    assert {daemon.wait_for_run(run_id)["state"] for run_id in ids} == {"succeeded"}


def test_a_pool_that_is_not_declared_is_refused(start_daemon):
    daemon = start_daemon()
    answer = daemon.put("shop", "name: shop\npools: {db: 2}\njobs: {work: {run: [\"true\"], pools: bd}}\n", expect=(422,))
    problem, = answer.json["errors"]
    assert "'bd'" in problem["detail"] and "'db'" in problem["detail"], problem
    assert problem["pointer"].startswith("/jobs/work/pools")
    more = daemon.put("shop", "name: shop\npools: {db: 2}\njobs: {work: {run: [\"true\"], pools: {db: 3}}}\n", expect=(422,))
    assert "2" in more.json["errors"][0]["detail"], more.json


def test_a_pool_can_grow_while_runs_wait_for_it(start_daemon):
    text = f"""
name: shop
pools: {{db: SLOTS}}
jobs:
  work: {{run: [sh, -c, "{WAIT}"], pools: db, on_overlap: allow}}
"""
    daemon = start_daemon({"shop": text.replace("SLOTS", "1")})
    gate = Gate(daemon.work("shop"))
    ids = [daemon.trigger("shop", "work").json["id"] for _ in range(5)]
    wait_until(lambda: daemon.job("shop", "work")["running"] == 1, "one run")
    daemon.put("shop", text.replace("SLOTS", "3"))
    wait_until(lambda: daemon.job("shop", "work")["running"] == 3, "three runs")
    assert daemon.job("shop", "work")["queued"] == 2
    gate.open()
    assert {daemon.wait_for_run(run_id)["state"] for run_id in ids} == {"succeeded"}


def test_max_active_of_a_job(start_daemon):
    daemon = start_daemon({"shop": f"name: shop\njobs: {{work: {{run: [sh, -c, \"{WAIT}\"], max_active: 2}}}}\n"})
    gate = Gate(daemon.work("shop"))
    ids = [daemon.trigger("shop", "work").json["id"] for _ in range(6)]
    wait_until(lambda: daemon.job("shop", "work")["running"] == 2, "two runs")
    assert daemon.job("shop", "work")["queued"] == 4
    assert {daemon.run(run_id)["waiting_reason"] for run_id in ids[2:]} == {"2 runs of this job are active, its max_active"}
    gate.open()
    runs = [daemon.wait_for_run(run_id) for run_id in ids]
    assert {run["state"] for run in runs} == {"succeeded"}
    assert most_at_once(runs) == 2


def test_max_active_of_a_pipeline(start_daemon):
    daemon = start_daemon({"shop": f"""
name: shop
max_active: 3
jobs:
  one: {{run: [sh, -c, "{WAIT}"], on_overlap: allow}}
  two: {{run: [sh, -c, "{WAIT}"], on_overlap: allow}}
""", "other": "name: other\njobs: {quick: {run: [\"true\"]}}\n"})
    gate = Gate(daemon.work("shop"))
    ids = [daemon.trigger("shop", job).json["id"] for _ in range(4) for job in ("one", "two")]
    wait_until(lambda: sum(daemon.job("shop", job)["running"] for job in ("one", "two")) == 3, "three runs")
    assert {daemon.run(run_id)["waiting_reason"] for run_id in ids[3:]} == {
        "3 runs of this pipeline are active, its max_active"}
    assert daemon.trigger("other", "quick", wait="20s").json["state"] == "succeeded", "others are not held up"
    gate.open()
    runs = [daemon.wait_for_run(run_id) for run_id in ids]
    assert most_at_once(runs) == 3


KEYED = f"""
name: shop
topics: {{arrivals: {{}}}}
jobs:
  work:
    run: [sh, -c, "echo ready; {WAIT}"]
    on_overlap: {{rule: RULE, key: params.region}}
    grace: 1s
"""


def start_in(daemon, region):
    return daemon.trigger("shop", "work", {"params": {"region": region}}).json["id"]


def running(daemon, *ids):
    wait_until(lambda: all("ready" in daemon.logs(run_id) for run_id in ids), "runs to run")


@pytest.mark.parametrize("rule", ["queue", "skip", "replace"])
def test_runs_of_different_keys_do_not_overlap_each_other(start_daemon, rule):
    daemon = start_daemon({"shop": KEYED.replace("RULE", rule)})
    gate = Gate(daemon.work("shop"))
    first, other = start_in(daemon, "eu"), start_in(daemon, "us")
    running(daemon, first, other)
    assert [daemon.run(run_id)["overlap_key"] for run_id in (first, other)] == ["eu", "us"]
    second = start_in(daemon, "eu")
    if rule == "queue":
        assert daemon.run(second)["waiting_reason"] == "another run of this job and overlap key is active"
        gate.open()
    elif rule == "skip":
        skipped = daemon.wait_for_run(second)
        assert (skipped["state"], skipped["started_at"]) == ("skipped", None)
        assert skipped["reason"].startswith("another run of this job"), skipped
        gate.open()
    else:
        replaced = daemon.wait_for_run(first)
        assert (replaced["state"], replaced["reason"]) == ("cancelled", f"replaced by run {second}")
        running(daemon, second)
        gate.open()
    ends = {run_id: daemon.wait_for_run(run_id)["state"] for run_id in (first, other, second)}
    assert ends[other] == "succeeded", "the other key was never touched"
    assert ends == {first: "cancelled" if rule == "replace" else "succeeded", other: "succeeded",
                    second: "skipped" if rule == "skip" else "succeeded"}
    if rule == "queue":
        assert daemon.run(first)["ended_at"] <= daemon.run(second)["started_at"]


def test_the_key_can_come_from_the_event(start_daemon):
    """Events of one customer one after another and in order, customers beside each other."""
    daemon = start_daemon({"shop": """
name: shop
topics: {arrivals: {}}
jobs:
  work:
    trigger: {topic: arrivals, max_events: 1}
    run: [sh, -c, "cat >> seen; head -c 200000 /dev/urandom | sha256sum > /dev/null"]
    on_overlap: {rule: queue, key: event.customer}
    max_active: 8
"""})
    events = [{"customer": f"c{n % 5}", "n": n} for n in range(60)]
    daemon.publish("arrivals", events)
    runs = daemon.wait_for_runs("shop", "work", 60, timeout=60)
    assert {run["state"] for run in runs} == {"succeeded"}
    by_key = collections.defaultdict(list)
    for run in runs:
        by_key[run["overlap_key"]].append(run)
    assert {key: len(found) for key, found in by_key.items()} == {f"c{n}": 12 for n in range(5)}
    for found in by_key.values():
        assert most_at_once(found) == 1
        offsets = [run["input"]["first_offset"] for run in sorted(found, key=lambda run: run["started_at"])]
        assert offsets == sorted(offsets)


# ---- deadlines ----

def test_a_deadline_ends_a_run_with_its_whole_group(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs: {work: {run: [sh, -c, "tail -f /dev/null & tail -f /dev/null"], deadline: 700ms, grace: 1s}}
"""})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["reason"]) == ("timed_out", "its deadline of 700ms has passed")
    assert (at(run["deadline_at"]) - at(run["created_at"])).total_seconds() == 0.7
    assert at(run["ended_at"]) >= at(run["deadline_at"])
    assert processes_with("PENSTOCK_RUN_ID=" + run["id"]) == []


def test_a_deadline_counts_waiting(one_slot):
    daemon, gate = one_slot({"shop": "name: shop\njobs: {work: {run: [touch, never], deadline: 600ms}}\n"})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["reason"]) == ("timed_out", "its deadline of 600ms has passed")
    assert run["started_at"] is None and run["attempt"] == 0
    gate.open()
    assert daemon.wait_for_runs("hold", "slot", 1)[0]["state"] == "succeeded"
    assert not (daemon.work("shop") / "never").exists()


def test_a_deadline_counts_retries_and_their_pauses(start_daemon):
    daemon = start_daemon({"shop": """
name: shop
jobs: {work: {run: ["false"], deadline: 800ms, retry: {attempts: 50, backoff: 1h}}}
"""})
    run = daemon.run_to_end("shop", "work")
    assert (run["state"], run["reason"]) == ("timed_out", "its deadline of 800ms has passed")
    assert run["attempt"] == 1


def test_a_deadline_that_passes_while_the_daemon_is_down(start_daemon):
    daemon = start_daemon({"shop": f"name: shop\njobs: {{work: {{run: [sh, -c, \"{WAIT}\"], deadline: 500ms}}}}\n"})
    gate = Gate(daemon.work("shop"))
    run_id = daemon.trigger("shop", "work").json["id"]
    daemon.kill9()
    let_time_pass(0.6)
    daemon.start()
    gate.open()
    run = daemon.wait_for_run(run_id)
    assert (run["state"], run["reason"]) == ("timed_out", "its deadline of 500ms has passed")
