"""Backups: an online copy, as of one instant, from which a daemon goes on as after a crash.

Method: load on everything at once (flow topic to topic, jobs that write to a topic, ingest from several threads), a backup in
the middle of it, then a second daemon on the copy while the first one still runs. What was acknowledged before the backup was
asked for must be in the copy; each event of a source topic must be in its exactly-once sink exactly once after the second
daemon has come to rest; and new events must not be taken for old ones.
"""
import ctypes
import functools
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest

from penstock import BIN, Daemon, penstock, refused_start, remove_folder, scratch_folder, wait_until

BUSY = """
name: busy
topics:
  arrivals: {}
  doubled: {}
  fourfold: {}
  loaded: {}
flows:
  double: {from: {topic: arrivals}, steps: [{map: {n: event.n, d: event.n * 2}}], to: {topic: doubled}}
  again: {from: {topic: doubled}, steps: [{map: {n: event.n, q: event.d * 2}}], to: {topic: fourfold}}
jobs:
  load:
    trigger: {topic: arrivals, max_events: 50, max_wait: 200ms}
    steps: [{map: {n: event.n}}]
    to: {topic: loaded}
"""
THREADS = 3


def backup(daemon, to, **more):
    return daemon.request("POST", "/v1/backup?wait=60s", {"to": str(to), **more}, timeout=90)


def check_files(folder):
    found = []
    for file in sorted(pathlib.Path(folder).rglob("*.db")):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], file
        connection.close()
        found.append(str(file.relative_to(folder)))
    return found


@pytest.fixture
def second(request):
    """A daemon on a copy of a data folder."""
    made = []

    def start(copy):
        daemon = Daemon(scratch_folder())
        shutil.copytree(copy, daemon.data)
        made.append(daemon)
        return daemon.start()

    yield start
    for daemon in made:
        assert daemon.stop() == 0, daemon.log_tail()
        remove_folder(daemon.folder)


class Load:
    """Threads that post distinct numbers until told to stop; `acknowledged` grows as answers come."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.acknowledged = set()
        self.stopping = threading.Event()
        self.failure = None
        self.threads = [threading.Thread(target=self._post, args=(first,)) for first in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def _post(self, number):
        try:
            while not self.stopping.is_set():
                some = range(number, number + 20 * THREADS, THREADS)
                self.daemon.publish("arrivals", [{"n": n} for n in some])
                self.acknowledged.update(some)
                number += 20 * THREADS
        except Exception as failure:  # shown by stop()
            self.failure = failure

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert self.failure is None, self.failure


def numbers_in(daemon, topic):
    return [event["data"]["n"] for event in daemon.events(topic)]


def test_a_copy_under_load_is_one_instant(start_daemon, second, tmp_path):
    daemon = start_daemon({"busy": BUSY})
    load = Load(daemon)
    try:
        for nth in range(3):
            wait_until(lambda: len(load.acknowledged) > 1500 * (nth + 1), "some load")
            before = set(load.acknowledged)
            answer = backup(daemon, tmp_path / f"copy{nth}")
            assert answer.status == 200 and answer.json["state"] == "done", answer
            copy = tmp_path / f"copy{nth}"
            files = check_files(copy)
            assert {"state.db", "flows.db", "topics/arrivals.db", "topics/doubled.db", "topics/fourfold.db"} <= set(files), files
            assert {"lock", "listen"} & {entry.name for entry in copy.iterdir()} == set()
            assert not list(tmp_path.glob("*.partial-*"))
    finally:
        load.stop()
    # The last copy, with the first daemon still there.
    restored = second(copy)
    source = numbers_in(restored, "arrivals")
    assert before <= set(source), "everything that was acknowledged before the backup was asked for"
    assert len(source) == len(set(source))
    restored.wait_until_quiet("busy")
    for topic in ("doubled", "fourfold", "loaded"):
        assert sorted(numbers_in(restored, topic)) == sorted(source), topic
    # Offsets that the first daemon went on to use are new ones here: nothing takes their events for duplicates.
    restored.publish("arrivals", [{"n": -n} for n in range(1, 101)])
    restored.wait_until_quiet("busy")
    for topic in ("doubled", "fourfold", "loaded"):
        assert sorted(numbers_in(restored, topic)) == sorted(source + [-n for n in range(1, 101)]), topic
    daemon.wait_until_quiet("busy")
    assert sorted(numbers_in(daemon, "fourfold")) == sorted(load.acknowledged), "the first one was not disturbed"


def test_a_daemon_on_a_copy_leaves_the_programs_of_the_first_alone(start_daemon, second, tmp_path):
    daemon = start_daemon({"shop": 'name: shop\njobs: {hold: {run: [sh, -c, "echo ready; tail -f /dev/null"], grace: 1s}}\n'})
    run = daemon.trigger("shop", "hold").json["id"]
    wait_until(lambda: "ready" in daemon.logs(run), "the program")
    assert backup(daemon, tmp_path / "copy", logs=True).json["state"] == "done"
    assert "ready" in (tmp_path / "copy" / "logs" / run / "main.log").read_text()
    restored = second(tmp_path / "copy")
    wait_until(lambda: restored.run(run)["state"] == "running", "its own program to run")
    assert daemon.run(run)["state"] == "running" and daemon.run(run)["interruptions"] == 0
    daemon.cancel(run)
    restored.cancel(run)
    assert daemon.wait_for_run(run)["state"] == restored.wait_for_run(run)["state"] == "cancelled"


def test_where_a_backup_may_go(start_daemon, tmp_path):
    daemon = start_daemon()
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(daemon.data)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for to, status, said in [("relative/path", 422, "absolute"), (there, 409, "nothing is written over"), (there / "mine", 409, "there already"),
                             (tmp_path / "no" / "parent", 422, "not there"), (daemon.data / "copy", 422, "inside the data folder"),
                             (link / "copy", 422, "inside the data folder"), (dangling, 409, "there already"), ("/proc/copy", 422, "cannot be written")]:
        answer = backup(daemon, to)
        assert answer.status == status and said in answer.json["detail"], (to, answer)
    for body in ({}, {"to": 5}, {"to": "/x", "logs": "yes"}, {"to": "/x", "from": "/y"}, []):
        assert daemon.post("/v1/backup", json.dumps(body)).status == 422, body
    assert daemon.get_json("/v1/backup")["state"] == "none"
    assert (there / "mine").read_text() == "precious" and sorted(os.listdir(tmp_path)) == ["dangling", "link", "there"]


def large(daemon, megabytes):
    """A topic of that size, so that a backup takes a while."""
    daemon.put("big", "name: big\ntopics: {big: {}}\n")
    text = "x" * 100_000
    for _ in range(megabytes // 5):
        daemon.publish("big", [{"text": text}] * 50)


def test_one_at_a_time_cancelled_and_cut_off(start_daemon, tmp_path):
    daemon = start_daemon()
    large(daemon, 150)
    begun = daemon.post("/v1/backup", json.dumps({"to": str(tmp_path / "one")}))
    assert begun.status == 202 and begun.headers["location"] == "/v1/backup", begun
    assert daemon.post("/v1/backup", json.dumps({"to": str(tmp_path / "two")})).status == 409
    assert daemon.get_json("/v1/backup")["state"] == "running"
    assert not (tmp_path / "one").exists(), "it has its name only when it is whole"
    ended = daemon.post("/v1/backup/cancel").json
    assert ended["state"] == "cancelled" and os.listdir(tmp_path) == []
    assert daemon.post("/v1/backup/cancel").status == 409
    # A stop of the daemon does not wait for it, and leaves nothing of it.
    assert daemon.post("/v1/backup", json.dumps({"to": str(tmp_path / "one")})).status == 202
    assert daemon.stop() == 0 and os.listdir(tmp_path) == []
    daemon.start()
    done = backup(daemon, tmp_path / "one").json
    assert done["state"] == "done" and done["bytes_done"] == done["bytes"] > 100_000_000 and done["files_done"] == done["files"]
    assert check_files(tmp_path / "one")


PTRACE_ATTACH, WALL = 16, 0x40000000


def copying_thread(daemon):
    """The one of the lowest priority."""
    for task in pathlib.Path(f"/proc/{daemon.pid}/task").iterdir():
        if (task / "stat").read_text().rsplit(")", 1)[1].split()[16] == "15":
            return int(task.name)
    return None


def test_a_stop_does_not_wait_for_a_backup_that_hangs(start_daemon, tmp_path):
    """The thread that copies is held as a disk that does not answer would hold it."""
    daemon = start_daemon()
    large(daemon, 150)
    assert daemon.post("/v1/backup", json.dumps({"to": str(tmp_path / "copy")})).status == 202
    thread = wait_until(lambda: copying_thread(daemon), "the thread")
    if ctypes.CDLL(None, use_errno=True).ptrace(PTRACE_ATTACH, thread, None, None) != 0:
        pytest.skip("this machine lets nobody hold a thread")
    assert os.waitpid(thread, WALL)[0] == thread
    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "hangs and was left behind" in daemon.log.read_text(), "the stop to go on without it")
    while os.waitpid(thread, WALL)[0] and daemon.process.poll() is None and thread_exists(daemon, thread):
        pass  # until it has ended with its process
    assert daemon._ended() == 0
    (draft,) = os.listdir(tmp_path)
    assert draft.startswith("copy.partial-") and str(tmp_path / draft) in daemon.log_tail(), "what can be removed is named"


def thread_exists(daemon, thread):
    return pathlib.Path(f"/proc/{daemon.pid}/task/{thread}").exists()


def test_the_log_of_a_database_is_bounded_again_after_a_backup(start_daemon, tmp_path):
    """While a backup reads, write-ahead logs cannot be folded; appends must not wait for that, and it must not last."""
    daemon = start_daemon()
    large(daemon, 150)
    assert daemon.post("/v1/backup", json.dumps({"to": str(tmp_path / "one")})).status == 202
    large(daemon, 150)
    assert daemon.get_json("/v1/backup?wait=60s")["state"] == "done"
    large(daemon, 100)
    log = daemon.data / "topics" / "big.db-wal"
    assert log.stat().st_size <= 90_000_000


def test_a_full_disk_leaves_nothing(start_daemon, tmp_path, monkeypatch):
    """RLIMIT_FSIZE stands for a full disk: the copy of a topic cannot grow to its size."""
    # Python ignores SIGXFSZ, and so does what it starts like this: writing too much then is an error, not the end.
    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, restore_signals=False))
    daemon = start_daemon()
    monkeypatch.undo()
    large(daemon, 60)
    assert subprocess.run(["prlimit", f"--pid={daemon.pid}", "--fsize=20000000:"], check=False).returncode == 0
    answer = backup(daemon, tmp_path / "copy")
    assert answer.json["state"] == "failed" and answer.json["reason"], answer
    assert os.listdir(tmp_path) == []
    assert subprocess.run(["prlimit", f"--pid={daemon.pid}", "--fsize=unlimited:"], check=False).returncode == 0
    assert backup(daemon, tmp_path / "copy").json["state"] == "done"


def test_a_limit_of_open_files_is_told_before(start_daemon, tmp_path):
    daemon = start_daemon()
    daemon.put("many", "name: many\ntopics: {%s}\n" % ", ".join(f"t{n}: {{}}" for n in range(40)))
    for n in range(40):
        daemon.publish(f"t{n}", [{"n": n}])
    assert subprocess.run(["prlimit", f"--pid={daemon.pid}", "--nofile=200:"], check=False).returncode == 0
    failed = backup(daemon, tmp_path / "copy").json
    assert failed["state"] == "failed" and "LimitNOFILE" in failed["reason"] and os.listdir(tmp_path) == []
    assert subprocess.run(["prlimit", f"--pid={daemon.pid}", "--nofile=1024:"], check=False).returncode == 0
    assert backup(daemon, tmp_path / "copy").json["files"] == 41 + (daemon.data / "flows.db").exists()


def test_a_crash_leaves_a_draft_and_nothing_that_looks_whole(start_daemon, tmp_path):
    daemon = start_daemon()
    large(daemon, 150)
    assert daemon.post("/v1/backup", json.dumps({"to": str(tmp_path / "copy")})).status == 202
    wait_until(lambda: daemon.get_json("/v1/backup")["bytes_done"] > 0, "some of it to be copied")
    daemon.kill9()
    (draft,) = os.listdir(tmp_path)
    assert draft.startswith("copy.partial-")
    daemon.start()
    assert daemon.get_json("/v1/backup")["state"] == "none"
    assert backup(daemon, tmp_path / "copy").json["state"] == "done"
    assert check_files(tmp_path / "copy") and len(daemon.events("big")) == 1500


def test_topics_that_come_and_go_meanwhile(start_daemon, tmp_path):
    daemon = start_daemon()
    large(daemon, 100)
    daemon.put("old", "name: old\ntopics: {old: {}}\n")
    daemon.publish("old", [{"n": 1}])
    assert daemon.post("/v1/backup", json.dumps({"to": str(tmp_path / "copy")})).status == 202
    wait_until(lambda: daemon.get_json("/v1/backup")["as_of"], "the instant")
    assert daemon.request("DELETE", "/v1/pipelines/old").status == 204
    daemon.put("new", "name: new\ntopics: {new: {}}\n")
    daemon.publish("new", [{"n": 1}])
    assert daemon.get_json("/v1/backup?wait=60s")["state"] == "done"
    files = check_files(tmp_path / "copy")
    assert "topics/old.db" in files and "topics/new.db" not in files


def test_backup_at_the_command_line(start_daemon, tmp_path):
    daemon = start_daemon()
    daemon.put("shop", "name: shop\ntopics: {orders: {}}\n")
    daemon.publish("orders", [{"n": 1}])
    done = subprocess.run([str(BIN.resolve() / "penstock"), "backup", "copy"], cwd=tmp_path, text=True, capture_output=True, timeout=60,
                          env={**os.environ, "PENSTOCK_URL": "http://%s:%d" % daemon.address})
    assert done.returncode == 0 and done.stdout.startswith(f"{tmp_path}/copy: as of "), done
    assert done.stdout.endswith(" KiB\n") and " 0 KiB" not in done.stdout, done
    assert check_files(tmp_path / "copy") and json.loads((tmp_path / "copy" / "backup.json").read_text())["as_of"]
    again = penstock("backup", tmp_path / "copy", daemon=daemon)
    assert again.returncode == 4 and "nothing is written over" in again.stderr
    large(daemon, 150)
    client = subprocess.Popen([str(BIN / "penstock"), "backup", str(tmp_path / "two")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, "PENSTOCK_URL": "http://%s:%d" % daemon.address})
    wait_until(lambda: daemon.get_json("/v1/backup")["state"] == "running", "it to begin")
    client.send_signal(signal.SIGINT)
    assert client.wait(30) == 130
    wait_until(lambda: daemon.get_json("/v1/backup")["state"] == "cancelled", "it to be cancelled")
    assert os.listdir(tmp_path) == ["copy"]


def spoil(folder, how):
    """Restores as they go wrong; the data folder that the daemon is given, and what it must say."""
    if how == "a topic is missing":
        (folder / "topics" / "in.db").unlink()
        return folder, ["topics/in.db is missing", "backup that is not whole"]
    if how == "state.db is missing":
        (folder / "state.db").unlink()
        return folder, ["state.db is missing", "topics/in.db"]
    if how == "a folder too deep":
        (folder.parent / "deep").mkdir()
        folder.rename(folder.parent / "deep" / "copy")
        return folder.parent / "deep", ["state.db is missing", "deep/copy is a backup"]
    if how == "another topic was there":
        shutil.copy(folder / "topics" / "in.db", folder / "topics" / "out.db")
        return folder, ["topics/out.db is not of the backup", "move the old data folder away"]
    (folder / "topics" / "in.db-wal").write_bytes(b"of the folder that was here")
    return folder, ["topics/in.db-wal is not of the backup", "move the old data folder away"]


@pytest.mark.parametrize("how", ["a topic is missing", "state.db is missing", "a folder too deep", "copied over the old one",
                                 "another topic was there"])
def test_a_restore_that_went_wrong_is_refused(start_daemon, second, tmp_path, how):
    daemon = start_daemon({"shop": "name: shop\ntopics: {in: {}}\n"})
    daemon.publish("in", [{"n": n} for n in range(20)])
    daemon.token = daemon.post("/v1/tokens", {"name": "first", "roles": ["admin"]}).json["token"]
    assert backup(daemon, tmp_path / "copy").json["state"] == "done"
    shutil.copytree(tmp_path / "copy", tmp_path / "spoilt")
    folder, names = spoil(tmp_path / "spoilt", how)
    before = sorted(str(file) for file in folder.rglob("*.db*"))
    said = refused_start("--data", folder)
    assert all(name in said for name in [*names, "Nothing was changed"]), said
    assert sorted(str(file) for file in folder.rglob("*.db*")) == before

    restored = second(tmp_path / "copy")
    restored.token = daemon.token
    assert restored.get("/v1/runs", {"Authorization": ""}).status == 401
    assert not (restored.data / "backup.json").exists() and (restored.data / "restored.json").exists() and (restored.data / "tokens_needed").exists()
    label = json.loads((restored.data / "restored.json").read_text())
    del label["files"]  # as an older daemon has left it in the folder where it went on
    (restored.data / "backup.json").write_text(json.dumps(label))
    restored.publish("in", [{"n": 20}])
    restored.kill9()
    assert (restored.data / "topics" / "in.db-wal").stat().st_size > 0
    restored.start()
    assert len(restored.events("in")) == 21
