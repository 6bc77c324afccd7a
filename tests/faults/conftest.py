"""The fixtures of the end-to-end tests, for tests that do worse things to the daemon; and daemons on a disk that can fail."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import disk as disks  # noqa: E402
from fixtures import daemon, start_daemon  # noqa: E402, F401
from penstock import Daemon, remove_folder, scratch_folder  # noqa: E402


@pytest.fixture
def start_on_disk():
    """start_on_disk(pipelines, loses_power=False, args=lambda folder: ()): a running Daemon whose `disk` is a Disk."""
    if reason := disks.why_not():
        pytest.skip(reason)
    made = []

    def start(pipelines=None, loses_power=False, args=lambda folder: ()):
        folder = scratch_folder()
        disk = disks.Disk(folder, loses_power)
        daemon = Daemon(folder, pipelines, disk.env, args(folder))
        daemon.disk = disk
        made.append(daemon)
        return daemon.start()

    yield start
    problems = []
    for daemon in made:
        daemon.disk.mend()
        if daemon.process is None:
            continue
        if daemon.process.poll() is not None:
            problems.append(f"it was gone before the end, exit code {daemon.process.poll()}")
            continue
        try:
            code = daemon.stop()
        except Exception as failure:  # a daemon that hangs must not outlive its test
            daemon.kill9()
            problems.append(f"it did not stop: {failure}")
        else:
            if code != 0:
                problems.append(f"it ended with exit code {code}")
    for daemon in made:
        print(f"---- {daemon.log} ----\n{daemon.log_tail()}")
        remove_folder(daemon.folder)
    assert not problems, problems
