"""Fixtures: a maker of daemons, and one plain daemon. Each is stopped at the end of its test, and must end cleanly."""
import pytest

from penstock import Daemon, remove_folder, scratch_folder


@pytest.fixture
def start_daemon(request):
    """start_daemon(pipelines=..., env=..., args=...): a running Daemon in a scratch folder of its own."""
    made = []

    def start(pipelines=None, env=None, args=()):
        daemon = Daemon(scratch_folder(), pipelines, env, args)
        made.append(daemon)
        return daemon.start()

    yield start
    problems = []
    for daemon in made:
        if daemon.process and daemon.process.poll() is None:
            try:
                code = daemon.stop()
            except Exception as failure:  # a daemon that hangs must not outlive its test
                daemon.kill9()
                problems.append(f"it did not stop: {failure}")
            else:
                if code != 0:
                    problems.append(f"it ended with exit code {code}")
        elif daemon.process:
            problems.append(f"it was gone before the end, exit code {daemon.process.poll()}")
        print(f"---- {daemon.log} ----\n{daemon.log_tail()}")
        remove_folder(daemon.folder)
    assert not problems, problems


@pytest.fixture
def daemon(start_daemon):
    return start_daemon()
