"""A backup under the history checker's load, from which another daemon goes on: the checker compares what it was told.

What was acknowledged before the backup was asked for must be in the copy. What of the copy's source topic follows from it (the
other topic, dead letters, claims of jobs) must be there once and in order after the second daemon has come to rest, and runs that
were accepted before are found and executed. Files and databases in work/ are no part of a backup.
"""
import shutil

import history
from penstock import FINAL, Daemon, penstock, remove_folder, scratch_folder, wait_until

SEED = "20261128"


def test_a_copy_under_load_is_consistent(start_daemon, tmp_path):
    daemon = start_daemon({"history": history.DEFINITION}, args=history.arguments(tmp_path))
    driver = history.Driver(daemon, SEED)
    driver.start()
    try:
        wait_until(lambda: len(driver.accepted) > 2000 and len(driver.accepted_runs) > 20, "some load")
        events, runs = set(driver.accepted), set(driver.accepted_runs.values())
        done = penstock("backup", tmp_path / "copy", daemon=daemon)
        assert done.returncode == 0, done
    finally:
        driver.stop()
    restored = Daemon(scratch_folder(), args=history.arguments(tmp_path))
    shutil.copytree(tmp_path / "copy", restored.data)
    restored.start()
    try:
        restored.wait_until_quiet("history", timeout=120)
        source = [event["data"] for event in restored.events("in")]
        good = {event["id"] for event in source if "poison" not in event}
        order = history.key_and_number
        findings = [
            history.Finding("topic in", {event["id"] for event in source}, [event["id"] for event in source], order),
            history.Finding("topic mid (flow copy)", good, [event["data"]["id"] for event in restored.events("mid")], order),
            history.Finding("dead letters (flow copy)", {event["id"] for event in source} - good,
                            [letter["event"]["data"]["id"] for letter in history.all_dead_letters(restored)]),
        ]
        table = "\n".join([history.Finding.HEAD, *map(str, findings)])
        print(table)
        assert all(finding.good for finding in findings), table
        assert events <= {event["id"] for event in source}
        found = {run["id"]: run for run in restored.runs("history", "asked")}
        assert runs <= set(found)
        assert all(run["state"] in FINAL for run in found.values())
        for job in ("load", "program"):
            assert sum(run["input"]["events"] for run in restored.runs("history", job)) == len(good), job
        assert restored.stop() == 0, restored.log_tail()
        assert history.damaged_databases(restored) == {}
    finally:
        if restored.process:
            restored.kill9()
        remove_folder(restored.folder)
