"""Every figure that tests/bench/run promises can be had; what it is does not matter here."""
import json
import math
import os
import pathlib
import subprocess

RUN = pathlib.Path(__file__).resolve().parent / "run"


def measured(tmp_path, *options):
    file = tmp_path / "figures.json"
    done = subprocess.run([RUN, "--quick", "--json", file, "--bin", os.environ["PENSTOCK_BIN_DIR"], "--folder", tmp_path, *options],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text()), done.stdout


def test_every_budget_has_a_figure(tmp_path):
    found, shown = measured(tmp_path)
    rows = {row["name"]: row for row in found["budgets"]}
    assert len(rows) == len([line for line in shown.splitlines() if line[:1].isalnum()]) - 4, shown  # title, head, quick, machine
    for row in rows.values():
        assert row["repetitions"] == 1 and math.isfinite(row["median"]), row
        assert row["median"] > 0 or row["name"] == "wakeups", row
        assert "floor" not in row or row["floor"]["median"] > 0, row
    judged = {row["name"] for row in rows.values() if "met" in row}
    assert judged == {"request_p50", "request_p99", "event_p50", "event_p99", "request_1", "request_4", "event_1", "event_4",
                      "inside_request", "inside_event", "ingest_http", "ingest_single", "topic_core", "memory_core", "live_p99",
                      "memory_idle", "memory_flow", "load_first", "load_again", "wakeups"}


def test_scale_and_load_have_figures(tmp_path):
    found, _ = measured(tmp_path, "--scale", "--load")
    assert {entry["of"] for entry in found["scale"]} == {"flows", "pipelines", "runs", "events"}
    for entry in found["scale"]:
        assert entry["start s"] > 0 and entry["memory MiB"] > 0 and entry["events/s"] > 0 and entry["look us"] > 0, entry
    for entry in found["load"]:
        assert [step["step"] for step in entry["steps"]] == ["half of it", "the knee", "1.5 times", "2 times", "4 times"]
