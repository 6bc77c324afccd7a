"""/metrics, as Prometheus reads it: checked by its own tool, counters that never go down, no name of a run."""
import re
import shutil
import subprocess

import pytest

from penstock import ROOT

SHOP = """
name: shop
topics: {orders: {}, seen: {}}
flows:
  copy:
    from: {topic: orders}
    steps: [{filter: event.n > 0}]
    to: {topic: seen}
jobs:
  work: {run: [sh, -c, "exit $PENSTOCK_PARAM_CODE"], params: {code: {type: integer, default: 0}}}
  many: {trigger: {topic: orders, max_events: 2}, run: [cat]}
"""


def samples(text):
    """{name with labels: value}"""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in found, f"twice: {name}"
            found[name] = float(value)
    return found


@pytest.fixture
def shop(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    daemon.publish("orders", [{"n": n} for n in range(5)])
    for code in (0, 0, 3):
        daemon.run_to_end("shop", "work", {"params": {"code": code}})
    daemon.wait_for_runs("shop", "many", 3)
    return daemon


def test_the_tool_of_prometheus_finds_nothing_to_say(shop):
    promtool = shutil.which("promtool") or shutil.which("promtool", path=ROOT / "build" / "promtool")
    if not promtool:
        pytest.skip("promtool is not there; tests/promtool fetches it")
    checked = subprocess.run([promtool, "check", "metrics"], input=shop.get("/metrics").body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_ends_of_runs_are_counted_and_their_times_summed(shop):
    seen = samples(shop.get("/metrics").text)
    job = 'pipeline="shop",job="work"'
    assert seen[f'penstock_job_runs_ended_total{{{job},state="succeeded"}}'] == 2
    assert seen[f'penstock_job_runs_ended_total{{{job},state="failed"}}'] == 1
    assert seen[f"penstock_job_run_seconds_count{{{job}}}"] == 3
    assert seen[f"penstock_job_run_seconds_sum{{{job}}}"] > 0
    assert seen[f"penstock_job_run_wait_seconds_sum{{{job}}}"] >= 0
    # The count of what is kept may go down, this one not: also when the job is replaced.
    shop.put("shop", SHOP.replace("exit $PENSTOCK_PARAM_CODE", "exit 0"))
    shop.run_to_end("shop", "work")
    assert samples(shop.get("/metrics").text)[f'penstock_job_runs_ended_total{{{job},state="succeeded"}}'] == 3
    shop.request("DELETE", "/v1/pipelines/shop")
    assert "penstock_job" not in shop.get("/metrics").text
    shop.put("shop", SHOP)
    assert f"penstock_job_runs_ended_total{{{job}" not in shop.get("/metrics").text, "a new pipeline begins anew"


def test_names_follow_the_convention_and_no_label_is_without_bound(shop):
    text = shop.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in kinds.items()), kinds
    ulid = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")
    assert not ulid.search(text), "an id among the labels"
    before = set(samples(text))
    for _ in range(20):
        shop.run_to_end("shop", "work")
    assert set(samples(shop.get("/metrics").text)) - before <= {
        'penstock_http_requests_total{method="GET",route="/metrics",status="200"}'}, "series grow with the number of runs"
