"""A run of many tasks: a thousand in valid order, deep and wide, and the definitions that could never end."""
import json
import random
import re

from penstock import wait_until


def definition(tasks, more=""):
    return json.dumps({"name": "shop", "jobs": {"work": {"tasks": tasks, **(json.loads(more) if more else {})}}})


def note(name):
    return ["sh", "-c", f"echo {name} >> order"]


def order_of(daemon):
    return (daemon.work("shop") / "order").read_text().split()


def check_order(order, tasks):
    assert sorted(order) == sorted(tasks), "each once"
    place = {name: index for index, name in enumerate(order)}
    for name, task in tasks.items():
        for need in task.get("needs", []):
            assert place[need] < place[name], f"{name} came before {need}, which it needs"


def test_a_thousand_tasks_in_valid_order(start_daemon):
    chance = random.Random(20261121)
    names = [f"t{n}" for n in range(1000)]
    tasks = {}
    for index, name in enumerate(names):
        needs = chance.sample(names[max(0, index - 40):index], k=min(index, chance.randint(0, 3)))
        tasks[name] = {"run": note(name), **({"needs": needs} if needs else {})}
    shuffled = dict(chance.sample(list(tasks.items()), k=len(tasks)))  # the order of writing says nothing
    daemon = start_daemon({"shop": definition(shuffled)})
    run_id = daemon.trigger("shop", "work").json["id"]
    run = daemon.wait_for_run(run_id, timeout=120)
    assert run["state"] == "succeeded", run["reason"]
    assert [task["name"] for task in run["tasks"]] == list(shuffled)
    assert {(task["state"], task["exit_code"]) for task in run["tasks"]} == {("succeeded", 0)}
    check_order(order_of(daemon), tasks)


def test_a_chain_of_three_hundred_and_what_hangs_on_its_middle(start_daemon):
    """The middle one fails: all before it ran in order, all behind it are skipped, whatever hangs elsewhere runs."""
    tasks = {"t0": {"run": note("t0")}, "aside": {"run": note("aside"), "needs": ["t10"]}}
    for n in range(1, 300):
        tasks[f"t{n}"] = {"run": note(f"t{n}") if n != 150 else ["sh", "-c", "exit 6"], "needs": [f"t{n - 1}"]}
    daemon = start_daemon({"shop": definition(tasks)})
    run = daemon.wait_for_run(daemon.trigger("shop", "work").json["id"], timeout=60)
    assert run["state"] == "failed"
    assert run["reason"] == "task t150: exit code 6"
    states = {task["name"]: task["state"] for task in run["tasks"]}
    assert {states[f"t{n}"] for n in range(150)} | {states["aside"]} == {"succeeded"}
    assert states["t150"] == "failed"
    assert {states[f"t{n}"] for n in range(151, 300)} == {"skipped"}
    order = order_of(daemon)
    assert [name for name in order if name != "aside"] == [f"t{n}" for n in range(150)]
    assert order.index("aside") > order.index("t10")


def test_a_retry_repeats_only_what_did_not_succeed(start_daemon):
    tasks = {
        "first": {"run": note("first")},
        "shaky": {"run": ["sh", "-c", "echo shaky >> order; test $PENSTOCK_ATTEMPT -ge 3"], "needs": ["first"]},
        "last": {"run": note("last"), "needs": ["shaky"]},
    }
    daemon = start_daemon({"shop": definition(tasks, '{"retry": {"attempts": 3, "backoff": "10ms"}}')})
    run = daemon.wait_for_run(daemon.trigger("shop", "work").json["id"])
    assert (run["state"], run["attempt"]) == ("succeeded", 3), run
    assert order_of(daemon) == ["first", "shaky", "shaky", "shaky", "last"]
    assert {task["name"]: task["attempt"] for task in run["tasks"]} == {"first": 1, "shaky": 3, "last": 1}


def test_a_crash_in_the_middle_of_a_dag_repeats_only_what_had_not_succeeded(start_daemon):
    tasks = {
        "first": {"run": note("first")},
        "gated": {"run": ["sh", "-c", "echo gated >> order; test -e open || tail -f /dev/null"], "needs": ["first"]},
        "last": {"run": note("last"), "needs": ["gated"]},
    }
    daemon = start_daemon({"shop": definition(tasks, '{"grace": "1s"}')})
    run_id = daemon.trigger("shop", "work").json["id"]
    order = daemon.work("shop") / "order"
    wait_until(lambda: order.exists() and "gated" in order.read_text(), "the gated task")
    daemon.kill9()
    (daemon.work("shop") / "open").touch()
    daemon.start()
    run = daemon.wait_for_run(run_id)
    assert (run["state"], run["interruptions"]) == ("succeeded", 1), run
    assert order_of(daemon) == ["first", "gated", "gated", "last"]


def test_a_cycle_is_refused_with_its_path(start_daemon):
    daemon = start_daemon()
    tasks = {name: {"run": note(name), "needs": [need]} for name, need in
             {"extract": "publish", "render": "extract", "publish": "render"}.items()}
    tasks["harmless"] = {"run": note("harmless"), "needs": ["extract"]}
    answer = daemon.put("shop", definition(tasks), expect=(422,))
    assert answer.headers["content-type"] == "application/problem+json"
    problem, = answer.json["errors"]
    path = re.fullmatch(r"these tasks need each other: (\w+) -> (\w+) -> (\w+) -> (\w+)", problem["detail"])
    assert path, problem
    ring = list(path.groups())
    assert ring[0] == ring[-1] and sorted(ring[:3]) == ["extract", "publish", "render"]
    needs = {name: task["needs"][0] for name, task in tasks.items()}
    assert all(needs[name] == following for name, following in zip(ring, ring[1:])), "each needs the next"
    assert problem["pointer"].startswith("/jobs/work/tasks/")
    assert problem["line"] == 1 and problem["column"] > 1
    assert daemon.get("/v1/pipelines/shop").status == 404, "nothing is stored"


def test_a_task_that_needs_itself_and_jobs_that_start_each_other(start_daemon):
    daemon = start_daemon()
    answer = daemon.put("shop", """
name: shop
jobs:
  work: {tasks: {alone: {run: ["true"], needs: [alone]}}}
  ping: {trigger: {after: pong}, run: ["true"]}
  pong: {trigger: {after: ping}, run: ["true"]}
""", expect=(422,))
    said = sorted(problem["detail"] for problem in answer.json["errors"])
    assert len(said) == 2
    assert said[0] in ("these jobs start each other for ever: ping -> pong -> ping",
                       "these jobs start each other for ever: pong -> ping -> pong")
    assert said[1] == "these tasks need each other: alone -> alone"
