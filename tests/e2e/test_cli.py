"""The operator's client: text for people, the REST documents with --json, and exit codes that scripts can rely on."""
import json

import pytest

from penstock import penstock, wait_until

PIPELINE = """
name: shop
description: a shop
topics: {orders: {}, echoes: {}}
flows:
  check:
    from: {topic: orders}
    steps: [{map: {half: event.n / 2}}]
    to: {topic: echoes}
jobs:
  echo: {run: [sh, -c, "cat; echo city $PENSTOCK_PARAM_CITY; echo problem >&2"]}
  fails: {run: [sh, -c, "exit 3"]}
  holds: {run: [sh, -c, "echo ready; tail -f /dev/null"], grace: 1s}
"""
OK, NO, USAGE, UNREACHABLE, REFUSED = range(5)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(PIPELINE)
    return path


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": PIPELINE})


def test_help_names_the_exit_codes():
    finished = penstock("--help")
    assert finished.returncode == OK
    assert "Exit codes" in finished.stdout and "PENSTOCK_URL" in finished.stdout
    for command in ("validate", "test", "apply", "trigger", "runs", "cancel", "logs", "topics", "publish", "dead-letters"):
        assert command in finished.stdout
        assert penstock(command, "--help").returncode == OK


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["validate"], ["test"], ["trigger", "shop"], ["logs"], ["runs", "--limit", "x"],
                                       ["validate", "/no/such/file.yaml"], ["test", "/no/such/file.yaml"], ["dead-letters"], ["dead-letters", "replay"]])
def test_wrong_usage(arguments):
    finished = penstock(*arguments)
    assert finished.returncode == USAGE, finished
    assert finished.stderr or finished.stdout


def test_nobody_there():
    finished = penstock("runs", env={"PENSTOCK_URL": "http://127.0.0.1:1"})
    assert finished.returncode == UNREACHABLE
    assert "http://127.0.0.1:1" in finished.stderr
    assert penstock("logs", "x", "--url", "http://127.0.0.1:1").returncode == UNREACHABLE


def test_validate(file, tmp_path):
    good = penstock("validate", file)
    assert (good.returncode, good.stdout) == (
        OK, f"{file}: valid: pipeline shop with 2 topics, 1 flows, 3 jobs\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: shop\nflow:\n  a: {}\ntopics: {t: {retain: 7}}\n")
    finished = penstock("validate", file, bad)
    assert finished.returncode == NO
    first, second, third = finished.stdout.splitlines()
    assert first.startswith(f"{file}: valid")
    assert second.startswith(f"{bad}:2:1: /flow: unknown key 'flow'")
    assert third.startswith(f"{bad}:4:22: /topics/t/retain: ")
    both = json.loads(penstock("validate", "--json", file, bad).stdout)
    assert [entry["valid"] for entry in both] == [True, False]
    assert both[1]["errors"][0] == {**both[1]["errors"][0], "pointer": "/flow", "line": 2, "column": 1}
    assert penstock("validate", "-", stdin=PIPELINE).returncode == OK


def test_apply(daemon, file, tmp_path):
    dry = penstock("apply", "--dry-run", file, daemon=daemon)
    assert dry.returncode == OK and "nothing was stored" in dry.stdout, dry
    assert daemon.get("/v1/pipelines/shop").status == 404
    created = penstock("apply", file, daemon=daemon)
    assert created.returncode == OK and created.stdout.startswith("shop: created, revision 1"), created
    file.write_text(PIPELINE.replace("a shop", "the shop"))
    assert "revision 2" in penstock("apply", file, daemon=daemon).stdout
    assert json.loads(penstock("apply", "--json", file, daemon=daemon).stdout)["revision"] == 2
    file.write_text(PIPELINE.replace("from: {topic: orders}", "form: {topic: orders}"))
    refused = penstock("apply", file, daemon=daemon)
    assert refused.returncode == REFUSED
    assert refused.stderr.startswith(f"{file}:7:5: /flows/check/form: unknown key 'form'"), refused
    assert refused.stderr.count("unknown key") == 1, "each problem is said once"
    nameless = tmp_path / "nameless.yaml"
    nameless.write_text("topics: {}\n")
    assert penstock("apply", nameless, daemon=daemon).returncode == REFUSED


def test_trigger_and_runs(shop, tmp_path):
    events = tmp_path / "events.ndjson"
    events.write_text('{"n": 1}\n{"n": 2}\n')
    done = penstock("trigger", "shop", "echo", "--param", "city=Rome", "--events", events, "--wait", daemon=shop)
    assert done.returncode == OK, done
    assert "succeeded" in done.stdout and "2 events" in done.stdout
    failed = penstock("trigger", "shop", "fails", "--wait", daemon=shop)
    assert failed.returncode == NO
    assert "exit code 3" in failed.stdout
    unknown = penstock("trigger", "shop", "ecco", daemon=shop)
    assert unknown.returncode == REFUSED
    assert "'echo'" in unknown.stderr

    listed = penstock("runs", "--job", "echo", daemon=shop).stdout.splitlines()
    assert len(listed) == 2 and listed[0].split()[:4] == ["RUN", "PIPELINE", "JOB", "STATE"]
    run_id = listed[1].split()[0]
    shown = penstock("runs", "show", run_id, daemon=shop)
    assert shown.returncode == OK and "main" in shown.stdout and "succeeded" in shown.stdout
    as_json = json.loads(penstock("runs", "show", run_id, "--json", daemon=shop).stdout)
    assert as_json == shop.run(run_id)
    log = penstock("logs", run_id, daemon=shop).stdout
    assert "city Rome" in log and '{"n":1}' in log and "problem" in log
    assert penstock("logs", "01ARZ3NDEKTSV4RRFFQ69G5FAV", daemon=shop).returncode == REFUSED
    assert penstock("runs", "--state", "failed", daemon=shop).stdout.count("fails") == 1
    from_stdin = penstock("trigger", "shop", "echo", "--events", "-", "--wait", "--json", daemon=shop, stdin='[{"n": 3}]')
    assert json.loads(from_stdin.stdout)["input"]["events"] == 1
    key = ("--idempotency-key", "k1")
    assert penstock("trigger", "shop", "echo", *key, daemon=shop).stdout == penstock(
        "trigger", "shop", "echo", *key, daemon=shop).stdout


def test_cancel_and_follow(shop):
    run_id = penstock("trigger", "shop", "holds", daemon=shop).stdout.strip()
    wait_until(lambda: "ready" in shop.logs(run_id), "the command")
    assert penstock("cancel", run_id, daemon=shop).returncode == OK
    followed = penstock("logs", "-f", run_id, daemon=shop)
    assert followed.returncode == OK and "ready" in followed.stdout
    assert shop.wait_for_run(run_id)["state"] == "cancelled"
    assert penstock("cancel", run_id, daemon=shop).returncode == REFUSED


def test_topics_publish_and_dead_letters(shop, tmp_path):
    posted = penstock("publish", "orders", daemon=shop, stdin='{"n": 2}\n{"n": "poison"}\n')
    assert posted.returncode == OK
    assert posted.stdout == "orders: 2 accepted, 0 duplicates, offsets 1 to 2\n"
    file = tmp_path / "more.json"
    file.write_text('[{"n": 4}]')
    assert penstock("publish", "orders", file, daemon=shop).returncode == OK
    assert penstock("publish", "ordres", file, daemon=shop).returncode == REFUSED
    assert penstock("publish", "orders", daemon=shop, stdin="{nope").returncode == REFUSED
    shop.wait_for_topic("echoes", 2)
    assert "orders" in penstock("topics", daemon=shop).stdout
    one = penstock("topics", "orders", daemon=shop).stdout
    assert "shop/flow/check" in one
    assert json.loads(penstock("topics", "orders", "--json", daemon=shop).stdout)["events"] == 3

    letters = wait_until(lambda: shop.dead_letters(), "the dead letter")
    listed = penstock("dead-letters", "list", daemon=shop).stdout
    assert letters[0]["id"] in listed and "shop/flow/check" in listed
    penstock("dead-letters", "replay", letters[0]["id"], daemon=shop)
    wait_until(lambda: len(shop.dead_letters()) == 1, "it to fail again")
    discarded = penstock("dead-letters", "discard", "--all", daemon=shop)
    assert discarded.returncode == OK, discarded
    assert shop.dead_letters() == []
    assert penstock("dead-letters", "list", daemon=shop).stdout == "no dead letters\n"
