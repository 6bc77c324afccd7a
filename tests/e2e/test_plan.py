"""What a dry run says: what would change, what becomes of it, when schedules fire next. Nothing is stored or started by it."""
import json
import re

import pytest

from penstock import penstock, wait_until

SHOP = """
name: shop
topics: {orders: {}, large: {}}
flows:
  large:
    from: {topic: orders}
    steps: [{filter: event.total > 100}]
    to: {topic: large}
  sums:
    from: {topic: orders}
    steps:
      - window: {tumbling: 1h, key: event.shop, aggregates: {sum: {sum: event.total}}}
    to: drop
  same: {from: {topic: orders}, to: drop}
jobs:
  report: {trigger: {cron: "30 2 * * *", timezone: Europe/Madrid}, run: [echo, report]}
  late: {run: [echo, late]}
"""


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": SHOP})


def plan_of(daemon, text, expect=(200,)):
    return daemon.put("shop", text, expect=expect, query="?dry_run=true").json


def parts(plan, kind):
    return {part["name"]: part for part in plan["plan"][kind]}


def test_each_part_says_what_becomes_of_it(shop):
    wait_until(lambda: all(flow["state"] == "running" for flow in shop.pipeline("shop")["flows"]), "the flows")
    before = shop.pipeline("shop")
    changed = (SHOP.replace("event.total > 100", "event.total > 200")
               .replace("tumbling: 1h", "tumbling: 2h")
               .replace("[echo, report]", "[echo, weekly]")
               .replace("  late: {run: [echo, late]}\n", "  fresh: {trigger: {every: 10m}, run: [echo, fresh]}\n")
               .replace("large: {}}", "large: {retain: 7d}, more: {}}"))
    said = plan_of(shop, changed)
    assert (said["dry_run"], said["created"], said["unchanged"]) == (True, False, False)
    flows, jobs, topics = (parts(said, kind) for kind in ("flows", "jobs", "topics"))
    assert set(flows) == {"large", "sums"} and set(jobs) == {"report", "fresh", "late"} and set(topics) == {"large", "more"}
    assert flows["large"]["change"] == "changed" and "starts again" in flows["large"]["effect"]
    assert flows["large"]["fields"] == [{"path": "/steps/0/filter", "before": "event.total > 100", "after": "event.total > 200"}]
    assert flows["large"]["losses"] == [] and "is kept" in flows["large"]["effect"]
    assert len(flows["sums"]["losses"]) == 1 and "starts empty" in flows["sums"]["losses"][0]
    assert "not all" in flows["sums"]["effect"]
    assert "keep theirs" in jobs["report"]["effect"] and jobs["report"]["fields"]
    assert jobs["fresh"]["change"] == "added" and jobs["late"]["change"] == "removed"
    assert topics["large"]["fields"] == [{"path": "/retain", "after": "7d"}]
    assert said["plan"]["untouched"] == {"topics": 1, "flows": 1, "jobs": 0}
    # Nothing has happened.
    after = shop.pipeline("shop")
    assert (after["revision"], after["etag"]) == (before["revision"], before["etag"])
    assert [flow["since"] for flow in after["flows"]] == [flow["since"] for flow in before["flows"]]
    assert {t["name"] for t in shop.get_json("/v1/topics")["items"]} == {"orders", "large"}
    assert shop.runs("shop") == []
    # And what was said then happens.
    real = shop.put("shop", changed).json
    assert real["changes"] == said["changes"]
    flows = {flow["name"]: flow for flow in shop.pipeline("shop")["flows"]}
    assert flows["same"]["since"] == next(f["since"] for f in before["flows"] if f["name"] == "same")


def test_a_flow_that_reads_something_else(shop):
    said = plan_of(shop, SHOP.replace("same: {from: {topic: orders}", "same: {from: {topic: large}"))
    assert "reads topic large instead of topic orders" in parts(said, "flows")["same"]["effect"]
    said = plan_of(shop, SHOP.replace("same: {from: {topic: orders}, to: drop}", "same: {run: [tail, -f, /dev/null]}"))
    assert "started with" in parts(said, "flows")["same"]["effect"]


def test_what_is_said_of_a_removed_topic_is_so(start_daemon):
    text = "name: shop\ntopics: {kept: {}, gone: {}}\n"
    daemon = start_daemon({"shop": text})
    daemon.publish("gone", [{"n": 1}])
    without = text.replace(", gone: {}", "")
    effect = parts(plan_of(daemon, without), "topics")["gone"]["effect"]
    assert "keeps its events" in effect and "not served after the next start" in effect
    daemon.put("shop", without)
    assert daemon.topic("gone")["events"] == 1
    daemon.restart()
    assert daemon.get("/v1/topics/gone").status == 404
    assert "taken up again" in parts(plan_of(daemon, text), "topics")["gone"]["effect"]
    daemon.put("shop", text)
    assert [event["data"]["n"] for event in daemon.events("gone")] == [1]
    daemon.put("other", text.replace("shop", "other"))
    assert "another pipeline" in parts(plan_of(daemon, without), "topics")["gone"]["effect"]


def test_the_diff_is_of_what_is_meant_not_of_layout(shop):
    layout = SHOP.replace("topics: {orders: {}, large: {}}", "# a comment\ntopics:\n  large: {}\n  orders: {}")
    said = plan_of(shop, layout)
    assert said["diff"] == "" and "only the text" in said["plan"]["effect"]
    assert not said["plan"]["flows"] and said["plan"]["untouched"]["flows"] == 3
    assert plan_of(shop, SHOP)["unchanged"]
    diff = plan_of(shop, SHOP.replace("> 100", "> 200"))["diff"].splitlines()
    assert diff[0].startswith("--- shop, revision 1") and diff[1].startswith("+++ ")
    removed = [line for line in diff[2:] if line.startswith("-")]
    added = [line for line in diff[2:] if line.startswith("+")]
    assert len(removed) == len(added) == 1 and "> 100" in removed[0] and "> 200" in added[0]
    assert re.match(r"@@ -\d+,\d+ \+\d+,\d+ @@$", diff[2])


def test_the_canonical_text_means_the_same(shop):
    """The text that the diff is made of, registered itself, changes nothing."""
    odd = """
name: odd
description: "true"
topics: {a: {dedupe: {key: event.id, within: 1h}}}
flows:
  f:
    from: {topic: a}
    steps:
      - script: |
          event.x = "a: b # c"

          return event
      - map: {"x y": "event['-']", "no": event.n, "1.50": "'~'"}
      - route: {big: event.n > 1}
    to: drop
    outputs: {big: drop}
jobs:
  j: {run: [sh, -c, "echo 'x'\\n  echo ' y'"], trigger: {every: 90m}, retry: {attempts: 3, backoff: 1s..1m}}
"""
    first = shop.request("POST", "/v1/pipelines?dry_run=true", odd, {"Content-Type": "application/yaml"})
    assert first.status == 200, first
    canonical = "\n".join(line[1:] for line in first.json["diff"].splitlines()[3:]) + "\n"
    shop.put("odd", odd)
    again = shop.put("odd", canonical, query="?dry_run=true").json
    assert again["diff"] == "" and again["changes"] == {
        "topics": {"added": [], "changed": [], "removed": []}, "flows": {"added": [], "changed": [], "removed": []},
        "jobs": {"added": [], "changed": [], "removed": []}, "settings_changed": False}


def test_firings_across_the_change_of_clocks(daemon):
    """20 firings of a yearly schedule meet every kind of day."""
    def next_of(cron, zone):
        text = f'name: shop\njobs: {{j: {{trigger: {{cron: "{cron}", timezone: {zone}}}, run: ["true"]}}}}\n'
        (schedule,) = plan_of(daemon, text)["schedules"]
        assert (schedule["job"], schedule["timezone"]) == ("j", zone)
        return schedule["next"]
    # The last Sunday of March: 02:30 does not exist in Madrid, and 03:00 of summer time takes its place.
    spring = next_of("30 2 25-31 3 *", "Europe/Madrid")
    assert len(spring) == 20
    for firing in spring:
        if firing["clock"] == "skipped":
            assert re.search(r"-03-(2[5-9]|3[01])T03:00:00\+02:00$", firing["at"])
        else:
            assert firing["clock"] is None and re.search(r"T02:30:00\+0[12]:00$", firing["at"])
    assert 2 <= sum(firing["clock"] == "skipped" for firing in spring) <= 4
    # The last Sunday of October: 02:30 comes twice, and the first of the two is still summer time.
    autumn = next_of("30 2 25-31 10 *", "Europe/Madrid")
    repeated = [firing for firing in autumn if firing["clock"] == "repeated"]
    assert 2 <= len(repeated) <= 4 and all(firing["at"].endswith("T02:30:00+02:00") for firing in repeated)
    assert len({firing["at"] for firing in autumn}) == 20
    west = next_of("0 12 * * *", "America/New_York")
    assert all(re.search(r"T12:00:00-0[45]:00$", firing["at"]) for firing in west)


def test_other_schedules(daemon):
    text = """
name: shop
jobs:
  often: {trigger: {every: 10m}, run: ["true"]}
  once: {trigger: {at: "2099-01-01T00:00:00Z"}, run: ["true"]}
  past: {trigger: {at: "2001-01-01T00:00:00Z"}, run: ["true"]}
  never: {trigger: {cron: "0 0 30 2 *"}, run: ["true"]}
  follows: {trigger: {after: often}, run: ["true"]}
"""
    answer = daemon.put("shop", text, expect=(200, 422), query="?dry_run=true")
    if answer.status == 422:  # a schedule that never fires is refused already
        answer = daemon.put("shop", text.replace("30 2 *", "29 2 *"), query="?dry_run=true")
    by_job = {schedule["job"]: schedule for schedule in answer.json["schedules"]}
    assert set(by_job) == {"often", "once", "past", "never"}
    assert len(by_job["often"]["next"]) == 20
    assert by_job["once"]["next"] == [{"at": "2099-01-01T00:00:00+00:00", "clock": None}]
    assert "at once" in by_job["past"]["note"]
    assert daemon.get("/v1/pipelines/shop").status == 404
    assert not daemon.work("shop").exists(), "a dry run makes no folder"
    assert daemon.runs("shop") == []


def test_dir_is_no_change(start_daemon, tmp_path):
    """${dir} is filled in before two definitions are compared, so it differs only where its meaning does."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    text = 'name: shop\nflows: {f: {run: ["${dir}/agent"]}}\njobs: {j: {run: ["${dir}/x"]}}\n'
    daemon = start_daemon()
    daemon.put("shop", text)
    said = daemon.put("shop", text + "# more\n", query="?dry_run=true").json
    assert said["changes"]["flows"]["changed"] == [] and said["changes"]["jobs"]["changed"] == []


def test_rollback_and_pause(shop):
    shop.put("shop", SHOP.replace("> 100", "> 200"))
    said = shop.post("/v1/pipelines/shop/rollback?dry_run=true").json
    (field,) = parts(said, "flows")["large"]["fields"]
    assert (field["before"], field["after"]) == ("event.total > 200", "event.total > 100")
    assert shop.post("/v1/pipelines/shop/pause").status == 200
    said = plan_of(shop, SHOP)
    assert "stays paused" in parts(said, "flows")["large"]["effect"]
    assert "paused" in said["schedules"][0]["note"]
    assert shop.pipeline("shop")["revision"] == 2


def test_secrets_are_references_in_a_plan(start_daemon):
    daemon = start_daemon(env={"HOOK_SECRET": "correct horse battery", "OTHER_SECRET": "staple"})
    text = """
name: shop
flows:
  intake:
    from: {webhook: {path: /o, signature: {scheme: hmac-sha256, header: X-S, secret: "${env:HOOK_SECRET}"}}}
    to: drop
"""
    daemon.put("shop", text)
    answer = daemon.put("shop", text.replace("HOOK_SECRET", "OTHER_SECRET"), query="?dry_run=true")
    assert "correct horse" not in answer.text and "staple" not in answer.text
    assert "${env:HOOK_SECRET}" in answer.json["diff"] and "${env:OTHER_SECRET}" in answer.json["diff"]


def test_a_plan_at_the_command_line(shop, tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    same = penstock("plan", file, daemon=shop)
    assert same.returncode == 0 and same.stdout.startswith("shop: nothing would change"), same
    file.write_text(SHOP.replace("> 100", "> 200"))
    changed = penstock("plan", file, daemon=shop)
    assert changed.returncode == 1, changed
    for part in ("~ flow large", "event.total > 100", "->", "--- shop, revision 1", "next firings", "+0"):
        assert part in changed.stdout
    assert "next firings" not in penstock("plan", "--firings", 0, file, daemon=shop).stdout
    assert len(json.loads(penstock("plan", "--json", file, daemon=shop).stdout)["schedules"][0]["next"]) == 20
    assert penstock("apply", tmp_path, daemon=shop).returncode == 0, "a folder"
    assert penstock("plan", tmp_path, daemon=shop).returncode == 0
    file.write_text(SHOP.replace("flows:", "flow:", 1))
    assert penstock("plan", file, daemon=shop).returncode == 4
    file.write_text("topics: {}\n")
    assert penstock("plan", file, daemon=shop).returncode == 4, "1 would say that something would change"
    (tmp_path / "empty").mkdir()
    assert penstock("plan", tmp_path / "empty", daemon=shop).returncode == 2
    assert penstock("plan", file, env={"PENSTOCK_URL": "http://127.0.0.1:1"}).returncode == 4, "it has no name to ask for"
    wait_until(lambda: shop.pipeline("shop")["revision"] == 2, "only the apply to have been stored")
