"""Files whose trigger changes or leaves while their run goes on, files and overlap, and runs of files that are repeated."""
import json

import pytest

from gate import WAIT, Gate
from penstock import wait_until

FILES = f"""
name: shop
jobs:
  load:
    trigger: {{file: {{path: "inbox/*.csv", settle: 10ms, move_to: done, move_failed_to: failed}}}}
    run: [sh, -c, "echo $PENSTOCK_FILE >> taken; {WAIT}; cat $PENSTOCK_FILE >> loaded"]
    grace: 1s
"""
OTHER = """
name: shop
jobs:
  other: {run: ["true"]}
"""


@pytest.fixture
def at_work(start_daemon):
    """at_work(): a daemon, the folder, and the gate that the run of its first file waits at."""
    def start(text=FILES):
        daemon = start_daemon()
        folder = daemon.work("shop") / "inbox"
        folder.mkdir(parents=True)
        gate = Gate(daemon.work("shop"))
        daemon.put("shop", text)
        (folder / "a.csv").write_text("a\n")
        wait_until(lambda: taken(daemon) == ["a.csv"], "the file to be taken")
        return daemon, folder, gate
    return start


def taken(daemon):
    """The names of the files that a program was started for, in order."""
    path = daemon.work("shop") / "taken"
    return [line.split("/")[-1] for line in path.read_text().splitlines()] if path.exists() else []


def loaded(daemon):
    path = daemon.work("shop") / "loaded"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("how", ["the job", "the pipeline", "the trigger", "the job, and a crash", "the pipeline, and a crash"])
def test_the_last_file_is_put_away_when_its_trigger_is_gone(at_work, how):
    daemon, folder, gate = at_work()
    if "pipeline" in how:
        assert daemon.request("DELETE", "/v1/pipelines/shop").status in (200, 202, 204)
    elif "job" in how:
        daemon.put("shop", OTHER)
    else:
        daemon.put("shop", FILES.replace("inbox/*.csv", "elsewhere/*.csv"))
    if "crash" in how:
        daemon.kill9()
        gate.open()
        daemon.start()
    gate.open()
    run, = daemon.wait_for_runs("shop", "load", 1)
    assert run["state"] == "succeeded", run
    wait_until((folder / "done" / "a.csv").exists, "the file to be put away")
    (folder / "later.csv").write_text("later\n")
    daemon.restart()
    assert (folder / "later.csv").exists() and len(daemon.runs("shop")) == 1, "nothing new is taken"


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("what", ["the job", "the pipeline"])
def test_a_trigger_that_comes_back_does_not_take_the_file_again(at_work, what, moves):
    text = FILES if moves else FILES.replace(", move_to: done, move_failed_to: failed", "")
    daemon, folder, gate = at_work(text)
    if what == "the pipeline":
        assert daemon.request("DELETE", "/v1/pipelines/shop").status in (200, 202, 204)
    else:
        daemon.put("shop", OTHER)
    daemon.put("shop", text.replace("; cat", "; true; cat"))
    (folder / "b.csv").write_text("b\n")
    gate.open()
    runs = daemon.wait_for_runs("shop", "load", 2)
    assert {run["state"] for run in runs} == {"succeeded"}
    assert sorted(taken(daemon)) == ["a.csv", "b.csv"], "each once"
    if moves:
        wait_until(lambda: len(list((folder / "done").glob("*.csv"))) == 2, "both to be put away")
    daemon.restart()
    assert len(daemon.runs("shop", "load")) == 2


KEYED = FILES.replace("grace: 1s", 'on_overlap: {rule: RULE, key: "event.name:sub(1, 1)"}\n    max_active: 5\n    grace: 1s')


@pytest.mark.parametrize("rule", ["queue", "skip", "replace"])
def test_files_of_one_key_follow_each_other_and_others_run_beside_them(at_work, rule):
    daemon, folder, gate = at_work(KEYED.replace("RULE", rule))
    (folder / "a2.csv").write_text("a2\n")
    (folder / "b.csv").write_text("b\n")
    wait_until(lambda: taken(daemon) == ["a.csv", "b.csv"], "the file of another key, beside the first")
    assert [run["state"] for run in daemon.runs("shop", "load")] == ["running", "running"], "the other one waits in its folder"
    assert (folder / "a2.csv").exists()
    gate.open()
    runs = daemon.wait_for_runs("shop", "load", 3)
    assert {run["state"] for run in runs} == {"succeeded"}, "no file is passed over or cut off"
    assert taken(daemon) == ["a.csv", "b.csv", "a2.csv"]


def test_the_files_of_a_run_are_of_one_key(at_work):
    text = KEYED.replace("RULE", "queue").replace("settle: 10ms", "settle: 10ms, max_files: 3")
    text = text.replace("cat $PENSTOCK_FILE >> loaded", "cat > events-$PENSTOCK_RUN_ID")
    daemon, folder, gate = at_work(text)
    for name in ("a1", "b1", "a2", "b2"):
        (folder / f"{name}.csv").write_text(name)
    gate.open()
    done = folder / "done"
    wait_until(lambda: done.exists() and len(list(done.iterdir())) == 5, "all to be put away")
    daemon.wait_until_quiet("shop")
    seen = []
    for run in daemon.runs("shop", "load"):
        events = (daemon.work("shop") / f"events-{run['id']}").read_text().splitlines()
        names = [json.loads(event)["name"] for event in events]
        assert len({name[0] for name in names}) == 1 and len(names) <= 3, names
        seen += names
    assert sorted(seen) == ["a.csv", "a1.csv", "a2.csv", "b1.csv", "b2.csv"]


def test_a_repeated_run_finds_its_file_where_it_is_now(start_daemon):
    text = FILES.replace(WAIT, "true").replace("cat $PENSTOCK_FILE >> loaded", "cat > event-$PENSTOCK_RUN_ID; test -e mended && cat $PENSTOCK_FILE >> loaded")
    daemon = start_daemon()
    folder = daemon.work("shop") / "inbox"
    folder.mkdir(parents=True)
    daemon.put("shop", text)
    (folder / "a.csv").write_text("a\n")
    failed, = daemon.wait_for_runs("shop", "load", 1)
    assert failed["state"] == "failed"
    away = folder / "failed" / "a.csv"
    wait_until(away.exists, "the file to be put away")
    (daemon.work("shop") / "mended").touch()
    again = daemon.post(f"/v1/runs/{failed['id']}/retry").json["id"]
    run = daemon.wait_for_run(again)
    assert run["state"] == "succeeded", run
    assert loaded(daemon) == "a\n"
    first, second = (json.loads((daemon.work("shop") / f"event-{run_id}").read_text()) for run_id in (failed["id"], again))
    assert first["path"] == str(folder / "a.csv")
    assert second == {**first, "path": str(away)}
    third = daemon.wait_for_run(daemon.post(f"/v1/runs/{again}/retry").json["id"])
    assert third["state"] == "succeeded" and loaded(daemon) == "a\na\n", "the repetition of a repetition, too"
