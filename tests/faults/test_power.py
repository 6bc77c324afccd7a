"""The power goes off under load: what was not synced is gone, and nothing that was accepted is among it.

Method: disk_faults.c keeps aside what a disk would hold (disk.py says how far that goes); at random moments the daemon is
killed and its data folder replaced by that. Every second time some of what was not synced has arrived all the same, and
every third time syncs have failed shortly before: what they should have stored is lost, whatever a later sync says.
"""
import errno
import os
import random
import threading

import history
from disk import Disk
from penstock import wait_until

SEED = os.environ.get("PENSTOCK_TEST_SEED", "20261128")
LOSSES = int(os.environ.get("PENSTOCK_TEST_LOSSES", 6))


def lose_power_again_and_again(daemon, driver, losses, seed, report=lambda done: None):
    """The daemon is up at the end."""
    chance = random.Random(seed)
    pause = threading.Event()
    for done in range(losses):
        history.let_interrupted_runs_end(daemon, done)
        before = len(driver.accepted)
        wait_until(lambda: len(driver.accepted) > before, "events to be accepted", 60)
        pause.wait(chance.random() * chance.choice([0.05, 0.2, 0.6]))
        if done % 3 == 2:
            daemon.disk.fail("*", Disk.SYNC, errno.EIO, skip=chance.randrange(40), times=chance.randrange(1, 30))
            pause.wait(chance.random() * 0.3)
        daemon.disk.power_off(daemon, "some" if done % 2 else "none", f"{seed}/{done}")
        daemon.start()
        report(done + 1)


def test_what_was_accepted_survives(start_on_disk):
    daemon = start_on_disk({"history": history.DEFINITION}, loses_power=True, args=history.arguments)
    driver = history.Driver(daemon, SEED)
    driver.start()
    try:
        lose_power_again_and_again(daemon, driver, LOSSES, SEED)
    finally:
        driver.stop()
    findings, sentences = history.check(daemon, driver, programs=False)
    table = "\n".join([history.Finding.HEAD, *map(str, findings)])
    print(f"seed {SEED}, {LOSSES} losses of power, {driver.repeated} requests asked again\n{table}")
    assert all(finding.good for finding in findings) and not sentences, table + "\n" + "\n".join(sentences[:20])
    assert daemon.stop() == 0
    assert history.damaged_databases(daemon) == {}


def test_a_new_log_whose_folder_cannot_be_synced_takes_nothing(start_on_disk):
    """SQLite syncs the folder of a new write-ahead log and does not look whether that worked."""
    daemon = start_on_disk({"p": "name: p\ntopics: {t: {}}\n"}, loses_power=True)
    daemon.publish("t", [{"n": 1}])
    assert daemon.stop() == 0  # the log is folded into the file and gone; the next write makes a new one
    daemon.disk.settle()
    daemon.start()
    rule = daemon.disk.fail("topics", Disk.SYNC, errno.EIO)
    answer = daemon.post("/v1/topics/t/events", b"{}", {"Content-Type": "application/json"})
    assert rule.hits > 0 and answer.status == 503, answer
    daemon.disk.mend()
    daemon.publish("t", [{"n": 2}])
    daemon.disk.power_off(daemon)
    daemon.start()
    assert [event["data"] for event in daemon.events("t")] == [{"n": 1}, {"n": 2}]


def test_the_switch_does_what_it_says(start_on_disk):
    """A check that cannot fail is none: without syncs nothing is left."""
    daemon = start_on_disk({"p": "name: p\ntopics: {t: {}}\n"}, loses_power=True)
    daemon.publish("t", [{"n": 1}])
    rule = daemon.disk.fail("topics/*", Disk.SYNC, errno.EIO)
    daemon.disk.power_off(daemon)
    assert rule.hits == 0
    daemon.start()
    assert [event["data"] for event in daemon.events("t")] == [{"n": 1}]
    (daemon.disk.platter / "names").rename(daemon.disk.platter / "names.gone")
    (daemon.disk.platter / "names").mkdir()
    daemon.disk.power_off(daemon)
    daemon.start()
    assert daemon.get_json("/v1/pipelines")["items"] == []
