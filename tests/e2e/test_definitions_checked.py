"""Definitions that fit every record and could never run: refused when they are put, at the component's own place, over
REST, as a dry run, by `penstock validate` and from a folder alike. And faults that used to show only at run time: a data
folder in use, a file that was read to its end, a record that cannot be read."""
import os
import subprocess

import pytest

from penstock import BIN, Daemon, penstock, remove_folder, scratch_folder, wait_until


def flow(source="topic: t", steps="", sink="drop: {}", more=""):
    return f"name: p\ntopics: {{t: {{}}}}\nflows:\n  f:\n    from: {{{source}}}\n    steps: [{steps}]\n    to: {{{sink}}}\n{more}"


def job(rest):
    return f"name: p\njobs:\n  j:\n    {rest}\n"


# name: (text, pointer, words of the detail)
REFUSED = {
    "http_url": (flow(sink="http: 'ftp://a/b'"), "/flows/f/to/http", "must begin with http://"),
    "http_url_no_host": (flow(sink="http: 'http://'"), "/flows/f/to/http", "host"),
    "http_poll_url": (flow("http_poll: 'ftp://a/b'"), "/flows/f/from/http_poll", "must begin with http://"),
    "upsert_without_key": (flow(sink="sqlite: {file: a.db, table: t, mode: upsert}"), "/flows/f/to/sqlite", "needs key"),
    "columns_without_csv": (flow(sink="file: {path: a, columns: [b]}"), "/flows/f/to/file", "format: csv"),
    "atomic_in_a_flow": (flow(sink="file: {path: a, atomic: true}"), "/flows/f/to/file", "for jobs"),
    "pattern_in_a_flow": (flow("file: 'in/*.csv'"), "/flows/f/from/file", "for jobs"),
    "folder_pattern": (flow("folder: {path: 'i*/a.csv', done: d}"), "/flows/f/from/folder", "last part"),
    "follow_in_a_job": (job("from: {file: {path: a, follow: true}}\n    to: drop"), "/jobs/j/from/file", "never ends"),
    "enrich_without_key": (flow(steps="{enrich: {from: {http: 'http://a/'}, key: event.k, into: x}}"),
                           "/flows/f/steps/0/enrich", "{key}"),
    "enrich_query": (flow(steps="{enrich: {from: {sqlite: {file: a, query: 'SELEC ?'}}, key: event.k, into: x}}"),
                     "/flows/f/steps/0/enrich", "syntax error"),
    "rename_twice": (flow(steps="{rename: {a: x, b: x}}"), "/flows/f/steps/0/rename", "two fields"),
    "select_twice": (flow(steps="{select: [a, a]}"), "/flows/f/steps/0/select", "named twice"),
    "aggregate_named_key": (flow(steps="{window: {tumbling: 1m, aggregates: {key: count}}}"), "/flows/f/steps/0/window",
                            "'key'"),
    "sliding": (flow(steps="{window: {sliding: {size: 1m, every: 2m}}}"), "/flows/f/steps/0/window", "longer than"),
    "clock_and_time": (flow(steps="{window: {tumbling: 1m, clock: processing, time: event.t}}"),
                       "/flows/f/steps/0/window", "exclude"),
    "sql_delete": (flow(steps="{sql: DELETE FROM events}"), "/flows/f/steps/0/sql", "only a SELECT"),
    "sql_syntax": (flow(steps="{sql: SELEC 1}"), "/flows/f/steps/0/sql", "syntax error"),
    "sql_over_all": (flow(steps="{sql: {select: SELECT 1 AS a FROM events, over: all}}"), "/flows/f/steps/0/sql",
                     "end of the input"),
    "named_output": (flow(steps="{route: {big: event.n > 1}}", more="    outputs: {big: {http: 'ftp://a'}}\n"),
                     "/flows/f/outputs/big/http", "http://"),
    "output_of_a_task": (job("tasks: {t: {run: [x], to: {http: 'ftp://a'}}}"), "/jobs/j/tasks/t/to/http", "http://"),
    "alert": (job("run: [x]\n    alerts: [{on: failure, to: {http: 'ftp://a'}}]"), "/jobs/j/alerts/0/to/http", "http://"),
}

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture(scope="module")
def live():
    daemon = Daemon(scratch_folder()).start()
    yield daemon
    assert daemon.stop() == 0
    remove_folder(daemon.folder)


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_never_run_is_refused(live, name):
    text, pointer, words = REFUSED[name]
    for query in ("", "?dry_run=true"):
        answer = live.request("PUT", "/v1/pipelines/p" + query, text, YAML)
        assert answer.status == 422, answer
        error, = answer.json["errors"]
        assert error["pointer"] == pointer and words in error["detail"], error
        line = text.split("\n")[error["line"] - 1]
        assert line[error["column"] - 1:].startswith(pointer.rsplit("/", 1)[1]), error
    assert live.get("/v1/pipelines/p").status == 404


def test_offline_and_from_a_folder(start_daemon):
    folder = scratch_folder()
    for name, (text, _, _) in REFUSED.items():
        (folder / f"{name}.yaml").write_text(text.replace("name: p", f"name: {name}", 1))
    (folder / "good.yaml").write_text("name: good\ntopics: {g: {}}\n")
    finished = penstock("validate", *sorted(folder.glob("*.yaml")))
    assert finished.returncode == 1
    daemon = start_daemon(folder)
    assert [p["name"] for p in daemon.get_json("/v1/pipelines")["items"]] == ["good"]
    log = daemon.log.read_text()
    for name, (_, pointer, words) in REFUSED.items():
        for output in (finished.stdout, log):
            said = [line for line in output.splitlines() if f"/{name}.yaml:" in line]
            assert any(f": {pointer}: " in line and words in line for line in said), (name, said)
    remove_folder(folder)


def test_all_problems_come_at_once(live):
    text = ("name: p\nflows:\n  a: {from: {topic: t}, to: {http: 'ftp://a'}}\n  b: {from: {topic: t}, too: drop, to: drop}\n"
            "  c: {from: {topic: t}, steps: [{select: [x, x]}, {sql: SELEC}], to: drop}\n")
    answer = live.request("PUT", "/v1/pipelines/p", text, YAML)
    assert answer.status == 422
    pointers = [error["pointer"] for error in answer.json["errors"]]
    assert pointers == ["/flows/a/to/http", "/flows/b/too", "/flows/c/steps/0/select", "/flows/c/steps/1/sql"]


def test_secrets_and_programs_may_come_later(start_daemon, tmp_path):
    daemon = start_daemon()
    secret = flow("generate: {count: 1}", sink="http: '${secret:hook}/in'")
    assert daemon.put("p", secret, expect=(201,)).json.get("warnings", []) == []
    wait_until(lambda: daemon.flow("p", "f")["state"] == "backing_off", "the flow without its secret")
    program = flow(steps="{exec: [no-such-program-anywhere]}").replace("name: p", "name: q").replace("t: {}", "u: {}")
    warning, = daemon.put("q", program.replace("topic: t", "topic: u"), expect=(201,)).json["warnings"]
    assert warning["pointer"] == "/flows/f/steps/0/exec" and "no-such-program-anywhere" in warning["detail"]
    file = tmp_path / "q.yaml"
    file.write_text(program)
    finished = penstock("validate", file)
    assert finished.returncode == 0 and "warning: run: command not found" in finished.stderr, finished


def test_a_data_folder_in_use(start_daemon):
    daemon = start_daemon()
    second = subprocess.run([BIN / "penstockd", "--data", daemon.data, "--listen", "127.0.0.1:0"], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert f"(process {daemon.pid})" in second.stdout and str(daemon.data) in second.stdout, second.stdout
    assert "stop" not in second.stdout, second.stdout
    assert daemon.get("/readyz").status == 200


def test_a_start_waits_for_the_one_before_to_be_gone(start_daemon):
    daemon = start_daemon()
    next_one = Daemon(scratch_folder())
    remove_folder(next_one.folder)
    next_one.folder, next_one.data, next_one.log = daemon.folder, daemon.data, daemon.folder / "next.log"
    daemon.killed = True
    daemon.process.kill()  # and not waited for
    next_one.start()
    daemon._ended()
    assert next_one.stop() == 0


FILE = """
name: load
topics: {rows: {}}
flows:
  f: {from: {file: in.ndjson}, to: {topic: rows}}
"""


def test_a_file_that_was_read_is_not_read_again(start_daemon):
    daemon = start_daemon()
    work = daemon.work("load")
    work.mkdir(parents=True)
    file = work / "in.ndjson"
    file.write_text('{"n": 1}\n{"n": 2}\n')
    daemon.put("load", FILE)

    def ended():
        view = daemon.flow("load", "f")
        return view["state"] == "stopped" and view.get("reason") == "its input has ended"

    wait_until(ended, "the end of the file")
    assert len(daemon.events("rows")) == 2
    for crash in (False, True):
        if crash:
            daemon.kill9()
            daemon.start()
        else:
            daemon.restart()
        wait_until(ended, "the end of the file, again")
        assert len(daemon.events("rows")) == 2

    (work / "new").write_text('{"n": 3}\n')
    os.rename(work / "new", file)  # shorter than what was read
    assert daemon.post("/v1/pipelines/load/flows/f/restart").status < 300
    daemon.wait_for_topic("rows", 3)
    wait_until(ended, "the end of the other file")
    file.unlink()
    daemon.restart()
    wait_until(ended, "the end without a file")
    assert [event["data"]["n"] for event in daemon.events("rows")] == [1, 2, 3]


def test_a_row_that_cannot_be_read_is_a_dead_letter(start_daemon):
    daemon = start_daemon({"inbox": """
name: inbox
flows:
  load:
    from: {folder: {path: "in/*.csv", done: done, settle: 10ms}}
    to: {file: {path: out.txt, format: lines}}
"""})
    work = daemon.work("inbox")
    (work / "in").mkdir(parents=True)
    (work / "in" / "half").write_text('a,b\n1,2\n3,"open\n')
    os.rename(work / "in" / "half", work / "in" / "rows.csv")
    wait_until(lambda: (work / "in" / "done" / "rows.csv").exists(), "the file to be put away")
    letter, = daemon.dead_letters("inbox")
    assert letter["step"] == "from" and "never closed" in letter["reason"], letter
    answer = daemon.post("/v1/dead-letters/replay", {"all": True}).json
    assert answer["done"] == 0 and letter["id"] in answer["failed"][0] and "could not read" in answer["failed"][0], answer
    assert [kept["id"] for kept in daemon.dead_letters("inbox")] == [letter["id"]], "it stays as it is"
    assert daemon.post("/v1/dead-letters/discard", {"all": True}).json["done"] == 1
    assert (work / "out.txt").read_text() == '{"a":"1","b":"2"}\n'


def test_a_lost_rotation_is_named_in_the_log(start_daemon):
    daemon = start_daemon({"logs": """
name: logs
topics: {lines: {}}
flows:
  tail: {from: {file: {path: app.log, format: lines, follow: true}}, steps: [{map: {line: event}}], to: {topic: lines}}
"""})
    log = daemon.work("logs") / "app.log"
    log.write_text("first\n")
    daemon.wait_for_topic("lines", 1)
    assert daemon.stop() == 0
    os.rename(log, f"{log}.2")
    written = os.stat(f"{log}.2").st_mtime
    (log.parent / "app.log.1").write_text("lost\n")
    os.utime(log.parent / "app.log.1", (written + 1, written + 1))
    log.write_text("second\n")
    daemon.start()
    daemon.wait_for_topic("lines", 2)
    said, = [line for line in daemon.log.read_text().splitlines() if "may have been" in line]
    assert "app.log.1" in said and "logs/flow/tail: " in said, said
