"""The verbs of the client beyond trigger, runs and logs: get, delete, pause, flows, tap, changes, status, schema, and what
happens on Ctrl-C and on a terminal."""
import json
import os
import pty
import select
import signal
import subprocess

import pytest

from penstock import BIN, penstock, wait_until

SHOP = """
name: shop
description: a shop
topics: {orders: {}, echoes: {}}
flows:
  check:
    from: {topic: orders}
    steps: [{map: {half: event.n / 2}}]
    to: {topic: echoes}
jobs:
  echo: {run: [sh, -c, "echo hello"]}
  holds: {run: [sh, -c, "echo ready; tail -f /dev/null"], grace: 1s}
  nightly: {trigger: {cron: "0 3 * * *"}, run: [sh, -c, 'test "$PENSTOCK_PARAM_FAIL" != yes']}
"""


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": SHOP})


def address(daemon):
    return {**os.environ, "PENSTOCK_URL": "http://%s:%d" % daemon.address}


def begin(daemon, *arguments):
    return subprocess.Popen([str(BIN / "penstock"), *arguments], env=address(daemon), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def on_a_terminal(daemon, *arguments, typed=b""):
    """Runs the client with all three streams on a terminal; returns the exit code and what it showed."""
    main, other = pty.openpty()
    process = subprocess.Popen([str(BIN / "penstock"), *map(str, arguments)], env=address(daemon), stdin=other, stdout=other, stderr=other, close_fds=True)
    os.close(other)
    if typed:
        os.write(main, typed)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    return process.wait(30), shown.decode()


def test_get(shop):
    listed = penstock("get", "pipelines", daemon=shop)
    assert listed.returncode == 0 and listed.stdout.splitlines()[1].split()[:3] == ["shop", "1", "active"], listed
    assert json.loads(penstock("get", "pipelines", "--json", daemon=shop).stdout)["items"][0]["name"] == "shop"
    one = penstock("get", "pipeline", "shop", daemon=shop).stdout
    assert "cron 0 3 * * *" in one and "check" in one and "a shop" in one
    assert penstock("get", "pipeline", "shop", "-o", "yaml", daemon=shop).stdout == SHOP
    assert json.loads(penstock("get", "pipeline", "shop", "-o", "json", daemon=shop).stdout)["revision"] == 1
    assert penstock("get", "pipeline", "shop", "-o", "toml", daemon=shop).returncode == 2
    missing = penstock("get", "pipeline", "shp", daemon=shop)
    assert missing.returncode == 4 and "'shop'" in missing.stderr
    shop.put("shop", SHOP.replace("a shop", "the shop"))
    revisions = penstock("get", "revisions", "shop", daemon=shop).stdout.splitlines()
    assert [line.split()[0] for line in revisions[1:]] == ["2", "1"] and revisions[1].endswith("current")
    assert penstock("get", "revisions", "shop", 1, daemon=shop).stdout == SHOP
    assert penstock("get", "revisions", "shop", 9, daemon=shop).returncode == 4
    shop.publish("orders", [{"n": n} for n in range(5)])
    events = [json.loads(line) for line in penstock("get", "events", "orders", "--after", 2, daemon=shop).stdout.splitlines()]
    assert [event["data"]["n"] for event in events] == [2, 3, 4]
    assert penstock("get", "events", "ordres", daemon=shop).returncode == 4
    assert penstock("get", daemon=shop).returncode == 2


def test_pause_resume_rollback_and_flows(shop):
    assert penstock("pause", "shop", daemon=shop).returncode == 0
    assert shop.pipeline("shop")["paused"]
    assert "paused" in penstock("get", "pipelines", daemon=shop).stdout
    assert penstock("flow", "start", "shop", "check", daemon=shop).returncode == 4, "its pipeline is paused"
    assert penstock("resume", "shop", daemon=shop).returncode == 0
    assert penstock("rollback", "shop", daemon=shop).returncode == 4, "there is none before the first"
    shop.put("shop", SHOP.replace("/ 2", "/ 4"))
    dry = penstock("rollback", "shop", "--dry-run", daemon=shop)
    assert dry.returncode == 0 and "~ flow check" in dry.stdout and shop.pipeline("shop")["revision"] == 2
    assert "revision 3" in penstock("rollback", "shop", "--revision", 1, daemon=shop).stdout
    wait_until(lambda: shop.flow("shop", "check")["state"] == "running", "the flow")
    stopped = penstock("flow", "stop", "shop", "check", daemon=shop)
    assert stopped.returncode == 0 and "stopped" in stopped.stdout
    since = shop.flow("shop", "check")["since"]
    assert penstock("flow", "stop", "shop", "check", daemon=shop).returncode == 0
    assert shop.flow("shop", "check")["since"] == since, "it has been stopped since then"
    assert "stopped" in penstock("flows", daemon=shop).stdout
    assert json.loads(penstock("flows", "shop", "--json", daemon=shop).stdout)["items"][0]["pipeline"] == "shop"
    assert penstock("flow", "restart", "shop", "check", daemon=shop).returncode == 0
    assert "map_1" in penstock("flow", "show", "shop", "check", daemon=shop).stdout
    assert penstock("flow", "show", "shop", "chek", daemon=shop).returncode == 4
    assert penstock("flows", "nope", daemon=shop).returncode == 4


def test_delete_asks_on_a_terminal_only(shop):
    refused = penstock("delete", "shop", daemon=shop, stdin="y\n")
    assert refused.returncode == 2 and "--yes" in refused.stderr
    code, shown = on_a_terminal(shop, "delete", "shop", typed=b"\n")
    assert code == 1 and "nothing was deleted" in shown and shop.pipeline("shop")
    code, shown = on_a_terminal(shop, "delete", "shop", typed=b"y\n")
    assert code == 0 and "[y/N]" in shown
    assert shop.get("/v1/pipelines/shop").status == 404
    shop.put("shop", SHOP)
    assert penstock("delete", "shop", "--yes", daemon=shop).returncode == 0
    assert penstock("delete", "shop", "--yes", daemon=shop).returncode == 4


def test_tap_and_changes(shop):
    wait_until(lambda: shop.flow("shop", "check")["state"] == "running", "the flow")
    tap = begin(shop, "tap", "shop", "check", "--after", "from", "--where", "event.n > 1", "--limit", "2")
    changes = begin(shop, "changes", "--kind", "run", "--limit", "2")

    def post():
        shop.publish("orders", [{"n": 1}, {"n": 2}, {"n": 3}])
        shop.trigger("shop", "echo")
        return tap.poll() is not None and changes.poll() is not None
    wait_until(post, "both to see what passes")
    seen = [json.loads(line) for line in tap.stdout.read().splitlines()]
    assert tap.returncode == 0 and len(seen) == 2
    assert all(json.dumps(event).find('"n": 1}') < 0 for event in seen), seen
    lines = changes.stdout.read().splitlines()
    assert changes.returncode == 0 and len(lines) == 2 and "run shop/echo" in lines[0], lines
    assert penstock("tap", "shop", "check", "--after", "nothing", daemon=shop).returncode == 4
    assert penstock("changes", "--kind", "nonsense", daemon=shop).returncode == 2


def test_apply_waits_for_flows(daemon, tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text(SHOP)
    assert penstock("apply", "--wait", good, daemon=daemon).returncode == 0
    assert daemon.flow("shop", "check")["state"] == "running"
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nflows: {f: {run: [sh, -c, 'exit 1'], ready: {run: ['false'], interval: 100ms}}}\n")
    down = penstock("apply", "--wait", bad, daemon=daemon)
    assert down.returncode == 1 and "created" in down.stdout and "flow f: backing_off" in down.stderr, down
    assert penstock("validate", tmp_path).stdout.count("valid: pipeline") == 2


def test_apply_of_several_files_is_all_or_nothing(daemon, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\njobs: {{work: {{run: ['true']}}}}\n")
    (tmp_path / "wrong.yaml").write_text("name: wrong\njobs: {work: {runs: ['true']}}\n")
    refused = penstock("apply", tmp_path, daemon=daemon)
    assert refused.returncode == 4 and "nothing was applied" in refused.stderr and "wrong.yaml" in refused.stderr, refused
    assert refused.stdout == "" and daemon.get_json("/v1/pipelines")["items"] == []
    (tmp_path / "wrong.yaml").write_text("name: two\njobs: {other: {run: ['true']}}\n")
    twice = penstock("apply", tmp_path, daemon=daemon)
    assert twice.returncode == 4 and f"the pipeline two is also in {tmp_path / 'two.yaml'}" in twice.stderr, twice
    assert daemon.get_json("/v1/pipelines")["items"] == []
    (tmp_path / "wrong.yaml").unlink()
    assert penstock("apply", tmp_path, daemon=daemon).returncode == 0
    assert [p["name"] for p in daemon.get_json("/v1/pipelines")["items"]] == ["one", "two"]


def test_all_topics_are_listed(daemon):
    daemon.put("many", "name: many\ntopics: {%s}\n" % ", ".join(f"t{n}: {{}}" for n in range(130)))
    assert len(penstock("topics", daemon=daemon).stdout.splitlines()) == 131
    assert len(json.loads(penstock("status", "--json", daemon=daemon).stdout)["topics"]) == 130


def test_status(shop, tmp_path):
    well = penstock("status", daemon=shop)
    assert well.returncode == 0 and well.stdout.splitlines()[0].endswith(": ready"), well
    run = shop.trigger("shop", "holds").json["id"]
    shop.publish("orders", [{"n": "poison"}])
    wait_until(lambda: shop.dead_letters(), "the dead letter")
    wait_until(lambda: shop.run(run)["state"] == "running", "the run")
    text = penstock("status", daemon=shop).stdout
    assert run in text and "echoes" in text and "shop/flow/check" in text
    row = next(line for line in text.splitlines() if line.startswith("shop "))
    assert row.split()[-2:] == ["1", "1"], row  # one run, one dead letter
    shop.cancel(run)
    whole = json.loads(penstock("status", "--json", daemon=shop).stdout)
    assert whole["dead_letters"] == {"by_pipeline": {"shop": 1}, "more": False} and whole["ready"]
    shop.put("bad", "name: bad\nflows: {f: {run: [sh, -c, 'exit 1']}}\n")
    wait_until(lambda: penstock("status", daemon=shop).returncode == 1, "the flow that cannot stay up to be told")
    assert "backing_off" in penstock("status", daemon=shop).stdout
    watch = begin(shop, "status", "--watch", "--every", "0.1")
    first = watch.stdout.readline()
    assert first.endswith(": ready\n")
    while not watch.stdout.readline().endswith(": ready\n"):
        pass  # the second look
    watch.send_signal(signal.SIGINT)
    assert watch.wait(10) == 130
    watch.stdout.close()


def test_broken_files_are_told(start_daemon, tmp_path):
    (tmp_path / "bad.yaml").write_text("name: bad\nflow: {}\n")
    daemon = start_daemon(tmp_path)
    told = penstock("status", daemon=daemon)
    assert told.returncode == 1 and "bad.yaml: unknown key 'flow'" in told.stdout
    assert "broken file " in penstock("get", "pipelines", daemon=daemon).stdout


def test_schema_offline(shop):
    said = penstock("schema", env={"PENSTOCK_URL": "http://127.0.0.1:1"})
    assert said.returncode == 0 and json.loads(said.stdout) == shop.get_json("/v1/schema/pipeline")


def test_a_filter_that_names_nothing_says_so(shop):
    nothing = penstock("runs", "--pipeline", "shop", daemon=shop)
    assert (nothing.returncode, nothing.stdout) == (0, "no runs\n")
    unknown = penstock("runs", "--pipeline", "nope", daemon=shop)
    assert unknown.returncode == 4 and "no pipeline 'nope'" in unknown.stderr
    unknown = penstock("runs", "--pipeline", "shop", "--job", "nope", daemon=shop)
    assert unknown.returncode == 4 and "nope" in unknown.stderr
    assert penstock("dead-letters", "list", "--pipeline", "nope", daemon=shop).returncode == 4
    assert penstock("dead-letters", "list", "--pipeline", "shop", daemon=shop).returncode == 0


def test_dead_letters_of_a_pipeline_and_in_portions(shop):
    shop.publish("orders", [{"n": "poison"}] * 250)
    wait_until(lambda: len(shop.dead_letters()) == 250, "the dead letters")
    assert penstock("dead-letters", "replay", "--pipeline", "nope", daemon=shop).returncode == 4
    code, shown = on_a_terminal(shop, "dead-letters", "replay", "--all")
    assert code == 1 and "replaying" in shown and "200 of 250" in shown and "250 replayed, 250 of them failed again" in shown, shown
    wait_until(lambda: len(shop.dead_letters()) == 250, "them to fail again")
    plain = penstock("dead-letters", "discard", "--pipeline", "shop", daemon=shop)
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "250 discarded\n", "")
    assert penstock("dead-letters", "discard", "X", "--all", daemon=shop).returncode == 2


def test_backfill_waits(shop):
    span = ("shop", "nightly", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-06T00:00:00Z")
    done = penstock("backfill", *span, "--wait", daemon=shop)
    assert done.returncode == 0 and done.stdout.endswith("5 succeeded, 0 did not\n"), done
    failed = penstock("backfill", *span, "--again", "--wait", "-p", 'fail="yes"', daemon=shop)
    assert failed.returncode == 1 and failed.stdout.endswith("0 succeeded, 5 did not\n"), failed


def test_streams_end_with_the_daemon(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    wait_until(lambda: daemon.flow("shop", "check")["state"] == "running", "the flow")
    streams = [begin(daemon, *words) for words in (["changes", "--kind", "run"], ["get", "events", "orders", "-f"], ["tap", "shop", "check"])]
    events = streams[1]

    def flowing():
        daemon.publish("orders", [{"n": 1}])
        daemon.trigger("shop", "echo")
        return True
    flowing()
    wait_until(lambda: flowing() and [select.select([s.stdout], [], [], 0)[0] for s in streams].count([]) == 0, "all three to show something")
    assert json.loads(events.stdout.readline())["data"] == {"n": 1}
    assert daemon.stop() == 0
    for stream in streams:
        assert stream.wait(10) == 3, stream.args
        assert "ended" in stream.stderr.read() or stream.returncode == 3
        stream.stdout.close()


def test_progress_is_for_terminals(start_daemon, tmp_path):
    daemon = start_daemon()
    daemon.put("big", "name: big\ntopics: {big: {}}\n")
    for _ in range(20):
        daemon.publish("big", [{"text": "x" * 100_000}] * 50)
    code, shown = on_a_terminal(daemon, "backup", tmp_path / "one")
    assert code == 0 and "copying  [" in shown and "MiB of" in shown and "as of" in shown, shown
    plain = penstock("backup", tmp_path / "two", daemon=daemon)
    assert (plain.returncode, plain.stderr) == (0, "")


def test_ctrl_c_leaves_the_run_and_says_so(shop):
    waits = begin(shop, "trigger", "shop", "holds", "--wait")
    run = wait_until(lambda: shop.runs("shop", "holds"), "the run")[0]["id"]
    wait_until(lambda: shop.run(run)["state"] == "running", "it to run")
    waits.send_signal(signal.SIGINT)
    assert waits.wait(20) == 130
    assert run in waits.stderr.read() and shop.run(run)["state"] == "running"
    follows = begin(shop, "logs", "-f", run)
    assert follows.stdout.readline() == "ready\n"
    follows.send_signal(signal.SIGINT)
    assert follows.wait(20) == 130
    shop.cancel(run)
