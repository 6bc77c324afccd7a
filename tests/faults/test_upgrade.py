"""Data folders of older and newer versions: the older is taken over with all that is in it, also when the daemon is killed in
the middle of that; the newer is refused whole, with a sentence, and nothing in it is touched.

Method: the older files are made by the migrations themselves, of which the first ones are applied, from the sources.
"""
import hashlib
import json
import os
import pathlib
import re
import sqlite3
import subprocess
import time

import disk as disks
import pytest

from disk import Disk
from penstock import BIN, ROOT, Daemon, remove_folder, scratch_folder

RUN = "01J0000000000000000000QVED"   # waits to be executed
DONE = "01J0000000000000000000D0NE"
LETTER = "01J00000000000000000001ETT"
TEXT = """
name: old
topics: {t: {}}
flows: {copy: {from: {topic: t}, to: {file: {path: copy.ndjson}}}}
jobs: {work: {run: [sh, -c, "echo done"]}}
"""


def migrations_of_state():
    """[(name, SQL)] of scheduler/schema.sql."""
    parts = re.split(r"(?m)^-- migration: (.+)$", (ROOT / "scheduler" / "schema.sql").read_text())
    return list(zip(parts[1::2], parts[2::2]))


def first_flow_schema():
    return re.search(r'schema = R"sql\((.*?)\)sql"', (ROOT / "runtime" / "flow_store.cpp").read_text(), re.S)[1]


def first_topic_schema():
    return re.search(r'schema = R"sql\((.*?)\)sql"', (ROOT / "runtime" / "topic.cpp").read_text(), re.S)[1]


def insert(database, table, **values):
    """A row with these values; 0 or '' where the table wants one and none is given."""
    for _, name, kind, needed, fallback, _ in database.execute(f"PRAGMA table_info({table})").fetchall():
        if name not in values and needed and fallback is None:
            values[name] = 0 if kind == "INTEGER" else ""
    marks = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))


def make_folder(data, level):
    """A data folder whose state.db has the first `level` migrations."""
    (data / "topics").mkdir(parents=True)
    now = int(time.time() * 1e6)  # retention takes what is old
    with sqlite3.connect(data / "state.db") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE migrations (name TEXT NOT NULL PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT")
        for name, sql in migrations_of_state()[:level]:
            database.executescript(sql)
            database.execute("INSERT INTO migrations VALUES (?, 7)", [name])
        insert(database, "data_folder", instance="01J00000000000000000000000")
        insert(database, "revisions", pipeline="old", revision=1, text=TEXT, media_type="application/yaml", origin="rest", etag='"1-e"', created_at=1, updated_at=2)
        insert(database, "pipelines", name="old", revision=1)
        common = {"pipeline": "old", "job": "work", "revision": 1, "trigger_kind": "rest", "input_kind": "none", "params": "{}", "created_at": now}
        insert(database, "runs", id=RUN, state="queued", **common)
        insert(database, "runs", id=DONE, state="succeeded", attempt=1, started_at=now, ended_at=now, **common)
        for run, state in ((RUN, "queued"), (DONE, "succeeded")):
            insert(database, "tasks", run=run, name="main", state=state)
    database.close()
    with sqlite3.connect(data / "flows.db") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(first_flow_schema() + "; PRAGMA user_version = 1")
        insert(database, "dead_letters", id=LETTER, pipeline="old", consumer="old/flow/copy@1", step="map", reason="because", attempts=1,
               event_id="e1", source="/topics/t", type="event", data=b'{"n": 0}', position=1)
    database.close()
    with sqlite3.connect(data / "topics" / "t.db") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(first_topic_schema() + "; PRAGMA user_version = 1")
        insert(database, "events", offset=1, received=1, id="e1", data=b'{"n": 1}')
    database.close()


def check_content(daemon):
    assert [p["name"] for p in daemon.get_json("/v1/pipelines")["items"]] == ["old"]
    assert daemon.run(DONE)["state"] == "succeeded"
    assert daemon.wait_for_run(RUN)["state"] == "succeeded", "a run that was accepted by the older version is executed"
    assert [event["data"] for event in daemon.events("t")] == [{"n": 1}]
    assert [letter["reason"] for letter in daemon.dead_letters()] == ["because"]
    daemon.publish("t", [{"n": 2}])
    daemon.wait_until_quiet("old")
    assert [json.loads(line)["n"] for line in (daemon.work("old") / "copy.ndjson").read_text().splitlines()] == [1, 2]
    assert daemon.run_to_end("old", "work")["state"] == "succeeded"


def contents(data):
    """What every file holds; `lock` says who has the folder and is nobody's data."""
    return {str(file.relative_to(data)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(data.rglob("*")) if file.is_file() and file.name != "lock"}


@pytest.fixture
def folder():
    made = scratch_folder()
    yield made
    remove_folder(made)


@pytest.mark.parametrize("level", range(1, len(migrations_of_state()) + 1))
def test_an_older_folder_is_taken_over(folder, level):
    make_folder(folder / "data", level)
    daemon = Daemon(folder).start()
    try:
        check_content(daemon)
    finally:
        assert daemon.stop() == 0, daemon.log_tail()
    with sqlite3.connect(folder / "data" / "state.db") as database:
        assert [row[0] for row in database.execute("SELECT name FROM migrations ORDER BY name")] == sorted(name for name, _ in migrations_of_state())
    database.close()


@pytest.mark.skipif(disks.why_not() is not None, reason=str(disks.why_not()))
@pytest.mark.parametrize("calls, moment", [(calls, n) for calls in (Disk.WRITE, Disk.SYNC) for n in (0, 1, 2, 5, 11)])
def test_killed_while_it_takes_an_older_folder_over(folder, calls, moment):
    make_folder(folder / "data", 1)
    disk = Disk(folder)
    rule = disk.fail("state.db*", calls, Disk.KILL, skip=moment)
    process = subprocess.Popen([BIN / "penstockd", "--data", folder / "data", "--listen", "127.0.0.1:0"], env={**os.environ, **disk.env},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(2 if moment > 5 else 30)  # the later ones may come after the start
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.returncode == -9
    assert moment > 5 or rule.hits == 1
    disk.mend()
    daemon = Daemon(folder, env=disk.env).start()
    try:
        check_content(daemon)
    finally:
        assert daemon.stop() == 0, daemon.log_tail()


@pytest.mark.parametrize("file", ["state.db", "flows.db", "topics/t.db"])
def test_a_newer_folder_is_refused_and_stays_as_it_is(folder, file):
    data = folder / "data"
    make_folder(data, 1)  # what is older in it would be migrated, if anything were touched
    with sqlite3.connect(data / file) as database:
        if file == "state.db":
            database.execute("INSERT INTO migrations VALUES ('99 from the future', 8)")
        else:
            database.execute("PRAGMA user_version = 99")
    database.close()
    before = contents(data)
    done = subprocess.run([BIN / "penstockd", "--data", data, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert pathlib.Path(file).name in done.stdout + done.stderr and "newer" in done.stdout + done.stderr
    after = contents(data)
    assert {name: digest for name, digest in after.items() if name in before} == before
    assert {name for name in after if name not in before} <= {"state.db-wal", "state.db-shm"}
