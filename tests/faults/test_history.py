"""Twenty kills at random moments under load: nothing that was accepted is lost, doubled, reordered or stuck."""
import os

import history

SEED = os.environ.get("PENSTOCK_TEST_SEED", "20261128")
KILLS = int(os.environ.get("PENSTOCK_TEST_KILLS", 20))


def test_what_was_accepted_is_there_once_and_in_order(start_daemon, tmp_path):
    daemon = start_daemon({"history": history.DEFINITION}, args=history.arguments(tmp_path))
    driver = history.Driver(daemon, SEED)
    driver.start()
    try:
        history.kill_again_and_again(daemon, KILLS, SEED)
    finally:
        driver.stop()
    findings, sentences = history.check(daemon, driver)
    table = "\n".join([history.Finding.HEAD, *map(str, findings)])
    print(f"seed {SEED}, {KILLS} kills, {driver.repeated} requests asked again\n{table}")
    assert all(finding.good for finding in findings) and not sentences, table + "\n" + "\n".join(sentences[:20])
    assert daemon.stop() == 0
    assert history.damaged_databases(daemon) == {}
    daemon.start()  # its end belongs to the fixture


def test_the_checker_sees_what_it_is_for():
    """A check that cannot fail is none."""
    order = history.key_and_number
    assert history.Finding("", {"1-1", "1-2"}, ["1-1", "1-2"], order).good
    assert history.Finding("", {"1-1", "1-2"}, ["1-1"], order).lost == 1
    assert history.Finding("", {"1-1"}, ["1-1", "1-1"], order).doubled == 1
    assert not history.Finding("", {"1-1"}, ["1-1", "1-1"], order).good
    assert history.Finding("", {"1-1"}, ["1-1", "1-1"], order, at_least_once=True).good
    assert history.Finding("", {"1-1"}, ["1-1", "2-1"], order).foreign == 1
    assert not history.Finding("", {"1-1"}, ["1-1", "2-1"], order).good
    assert history.Finding("", {"1-1", "1-2", "2-1"}, ["1-2", "2-1", "1-1"], order).reordered == 1
