"""The disk is full, fails or is slow while the daemon works: it says so, loses nothing that it accepted, and comes back.

Method: disk_faults.c makes the system calls fail, the history checker's load is on all the time, and its checker looks at
what is there when all faults are over.
"""
import breaking
import history
from penstock import wait_until

SEED = "20261128"


def test_each_fault_is_shown_and_passes(start_on_disk):
    daemon = start_on_disk({"history": history.DEFINITION, "probe": breaking.PROBE}, args=history.arguments)
    driver = history.Driver(daemon, SEED, breaking.PACE)
    driver.start()
    try:
        wait_until(lambda: len(driver.accepted_runs) > 5, "some load")
        rows = [breaking.put_through(daemon, driver, fault) for fault in breaking.SOME_FAULTS]
    finally:
        daemon.disk.mend()
        driver.stop()
    print("\n".join([breaking.Row.HEAD, *map(str, rows)]))
    assert not [problem for row in rows for problem in row.problems], "\n".join(map(str, rows))
    findings, sentences = history.check(daemon, driver)
    table = "\n".join([history.Finding.HEAD, *map(str, findings)])
    print(table)
    assert all(finding.good for finding in findings) and not sentences, table + "\n" + "\n".join(sentences[:20])
    assert daemon.stop() == 0
    assert history.damaged_databases(daemon) == {}
