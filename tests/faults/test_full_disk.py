"""A disk that is really full: a small tmpfs, filled by the daemon itself and by somebody else's file. Skipped where no tmpfs may
be mounted. The other fault tests imitate it, at any call."""
import subprocess

import pytest

import history
from penstock import Daemon, ndjson, remove_folder, scratch_folder, wait_until

PIPELINE = """
name: p
topics: {t: {}, out: {}}
flows: {copy: {from: {topic: t}, to: {topic: out}}}
jobs: {echo: {run: [sh, -c, "echo hello"], retry: {attempts: 100, backoff: 50ms..100ms}}}
"""


@pytest.fixture
def daemon():
    folder = scratch_folder()
    (folder / "data").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "penstock-test", folder / "data"], capture_output=True, text=True)
    if mounted.returncode != 0:
        remove_folder(folder)
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    daemon = Daemon(folder)
    try:
        daemon.start()
        daemon.put("p", PIPELINE)
        yield daemon
    finally:
        if daemon.process:
            assert daemon.stop() == 0, daemon.log_tail()
        subprocess.run(["umount", folder / "data"], check=True)
        remove_folder(folder)


def test_filled_to_the_last_byte(daemon):
    ballast = daemon.data / "somebody_elses_file"
    ballast.write_bytes(bytes(6 << 20))
    accepted, full = 0, None
    while not full:
        answer = daemon.post("/v1/topics/t/events", ndjson({"n": n, "text": "x" * 500} for n in range(accepted, accepted + 100)),
                             {"Content-Type": "application/x-ndjson"})
        if answer.status == 202:
            accepted += 100
        else:
            full = answer
        assert accepted < 40_000, "it takes more than there is room for"
    assert full.status == 503 and "retry-after" in full.headers and "the disk is full" in full.json["detail"], full
    ready = daemon.get("/readyz")
    # What a hundred events do not fit into may have room for the small commit that is tried first; test_disk.py leaves none.
    assert ready.status == 200 or ready.status == 503 and "the disk is full" in ready.json["detail"], ready
    assert daemon.get("/healthz").status == 200
    assert "nothing can be stored: the disk is full" in daemon.log.read_text()

    ballast.unlink()
    wait_until(lambda: daemon.get("/readyz").status == 200, "/readyz to be 200 again")
    assert [event["data"]["n"] for event in daemon.events("t")] == list(range(accepted)), "what was accepted, and nothing else"
    assert daemon.run_to_end("p", "echo")["state"] == "succeeded"
    wait_until(lambda: daemon.topic("out")["events"] == accepted or daemon.get("/readyz").status == 503, "the flow to go on", 60)
    assert daemon.stop() == 0
    assert history.damaged_databases(daemon) == {}
