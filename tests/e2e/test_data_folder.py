"""The data folder: nobody else's business, and what is said when it, or a file in it, cannot be used or was lost."""
import os
import stat
import subprocess

import pytest

from penstock import BIN, Daemon, penstock, refused_start, remove_folder, scratch_folder, wait_until


@pytest.fixture
def folder():
    made = scratch_folder()
    yield made
    remove_folder(made)


def modes(daemon):
    return {name: stat.S_IMODE((daemon.data / name).stat().st_mode) for name in ("topics", "logs", "work")}


def test_what_runs_make_and_print_is_nobody_elses_business(start_daemon):
    daemon = start_daemon({"shop": "name: shop\njobs: {work: {run: [sh, -c, 'echo secret; echo x > file']}}\n"})
    # Root can run commands as other users: these must get to their folder.
    work = 0o711 if os.geteuid() == 0 else 0o700
    assert modes(daemon) == {"topics": 0o700, "logs": 0o700, "work": work}
    run = daemon.run_to_end("shop", "work")
    assert "secret" in daemon.logs(run["id"]) and (daemon.work("shop") / "file").exists()
    daemon.stop()
    for name in ("logs", "work"):
        (daemon.data / name).chmod(0o2775)
    daemon.start()
    opened = {"topics": 0o700, "logs": 0o2770, "work": 0o2770 | work & 0o001}
    assert {name: mode & 0o7777 for name, mode in modes(daemon).items()} == opened, "open to a group, but not to others"


def test_the_door_does_not_open_because_a_file_is_lost(folder):
    daemon = Daemon(folder)
    daemon.start()
    try:
        daemon.token = daemon.post("/v1/tokens", {"name": "first", "roles": ["admin"]}).json["token"]
        daemon.stop()
        for file in daemon.data.glob("state.db*"):
            file.unlink()
        assert "state.db is missing" in refused_start("--data", daemon.data)
        (folder / "another").mkdir()
        another = Daemon(folder / "another")
        another.start()
        assert another.stop() == 0
        (another.data / "state.db").rename(daemon.data / "state.db")
        process = subprocess.Popen([str(BIN / "penstockd"), "--data", str(daemon.data), "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
        said = ""
        while "is ready" not in said:
            line = process.stderr.readline()
            assert line, f"it has ended: {said}"
            said += line
        assert "it was emptied or replaced" in said and "The door stays shut" in said and "penstock token create --data" in said, said
        url = "http://" + (daemon.data / "listen").read_text().strip()
        refused = penstock("runs", "--url", url)
        assert refused.returncode == 4 and "a token is needed" in refused.stderr, refused
        assert penstock("status", "--url", url).returncode == 4
        process.terminate()
        assert process.wait(60) == 0
        process.stderr.close()
        made = penstock("token", "create", "--name", "again", "--role", "admin", "--data", daemon.data)
        assert made.returncode == 0, made
        daemon.token = made.stdout.strip()
        daemon.start()
        assert daemon.get("/v1/pipelines").status == 200
        assert daemon.get("/v1/pipelines", {"Authorization": ""}).status == 401
    finally:
        if daemon.process:
            assert daemon.stop() == 0


@pytest.mark.parametrize("what", ["settings folder", "data file", "data below a file", "broken state.db", "no definitions", "definitions file"])
def test_what_cannot_be_used_is_said_in_one_sentence(folder, what):
    file = folder / "file"
    file.write_text("x" * 5000)
    if what == "settings folder":
        said, names = refused_start("--config", folder, "--data", folder / "data"), [str(folder), "is a folder"]
    elif what == "data file":
        said, names = refused_start("--data", file), [str(file)]
    elif what == "data below a file":
        said, names = refused_start("--data", file / "data"), [str(file / "data"), "cannot be made"]
    elif what == "no definitions":
        said, names = refused_start("--data", folder / "data", "--pipelines", folder / "none"), ["the folder of definitions", str(folder / "none")]
    elif what == "definitions file":
        said, names = refused_start("--data", folder / "data", "--pipelines", file), ["the folder of definitions", str(file)]
    else:
        (folder / "data").mkdir()
        file.rename(folder / "data" / "state.db")
        said, names = refused_start("--data", folder / "data"), ["state.db", "put the one of a backup in its place"]
    for name in names:
        assert name in said, said
    assert said.strip().count("\n") == 0 or what == "broken state.db", said
    for library in ("basic_filebuf", "filesystem error", "terminate", "what():"):
        assert library not in said, said


def test_definition_that_is_a_folder_or_cannot_be_read(folder, start_daemon):
    definitions = folder / "definitions"
    (definitions / "odd.yaml").mkdir(parents=True)
    (definitions / "good.yaml").write_text("name: good\ntopics: {t: {}}\n")
    daemon = start_daemon(definitions)
    wait_until(lambda: daemon.get("/v1/pipelines/good").status == 200, "the good one")
    assert "basic_filebuf" not in daemon.log.read_text() + str(daemon.get_json("/v1/pipelines"))
    told = penstock("validate", definitions / "odd.yaml")
    assert told.returncode == 2 and "basic_filebuf" not in told.stderr and "filesystem error" not in told.stderr, told


def test_a_reload_says_what_it_does_not_read(start_daemon, folder):
    settings = folder / "settings.yaml"
    settings.write_text("log_level: info\n")
    daemon = start_daemon(args=["--config", settings])
    daemon.reload()
    wait_until(lambda: "other settings are read at a start only" in daemon.log.read_text(), "the reload")


INTO_ITSELF = """
name: loop
topics: {in: {}}
flows:
  state: {from: {topic: in}, to: {file: ../../state.db}}
  topic: {from: {topic: in}, to: {file: ../../topics/other.db}}
  table: {from: {topic: in}, to: {sqlite: {file: LINK/state.db, table: runs}}}
  beside: {from: {topic: in}, to: {file: ../beside.ndjson}}
"""


def test_no_sink_writes_into_the_daemons_own_files(start_daemon, tmp_path):
    daemon = start_daemon()
    (tmp_path / "link").symlink_to(daemon.data)
    daemon.put("loop", INTO_ITSELF.replace("LINK", str(tmp_path / "link")))
    daemon.publish("in", [{"n": 1}])
    for flow in ("state", "topic", "table"):
        shown = wait_until(lambda name=flow: daemon.flow("loop", name)["reason"] and daemon.flow("loop", name), "the flow to say why")
        assert shown["state"] in ("backing_off", "failed", "starting") and "the daemon keeps its own data" in shown["reason"], shown
    wait_until(lambda: (daemon.data / "work" / "beside.ndjson").exists(), "what lies elsewhere to be written")
    assert not (daemon.data / "topics" / "other.db").exists()
    daemon.restart()


@pytest.mark.parametrize("file", ["flows.db", "topics/in.db"])
def test_a_database_that_is_none_any_more(start_daemon, file):
    daemon = start_daemon({"shop": "name: shop\ntopics: {in: {}}\n"})
    daemon.publish("in", [{"n": 1}])
    assert daemon.stop() == 0
    whole = (daemon.data / file).read_bytes() if (daemon.data / file).exists() else b""
    (daemon.data / file).write_bytes(b"\xde\xad" * 3000)
    said = refused_start("--data", daemon.data)
    assert f"{file} is no SQLite database any more" in said and "newer" not in said, said
    (daemon.data / file).write_bytes(whole) if whole else (daemon.data / file).unlink()
    daemon.start()


def test_a_topic_whose_file_is_lost_goes_on_where_it_was_read(start_daemon):
    text = ("name: shop\ntopics: {orders: {}, payments: {}, seen: {}, both: {}, unread: {}}\n"
            "flows:\n  copy: {from: {topic: orders}, to: {topic: seen}}\n"
            "  merge: {from: {topics: [orders, payments]}, to: {topic: both}}\n"
            "jobs:\n  load: {trigger: {topic: orders, max_events: 1}, run: [cat]}\n"
            "  slow: {trigger: {topic: orders, max_events: 2, max_wait: 1h}, run: [sh, -c, 'test -e ../../go || tail -f /dev/null; cat']}\n"
            "  count: {trigger: {topic: orders, max_events: 100, max_wait: 1h}, run: [cat]}\n")
    daemon = start_daemon({"shop": text})
    daemon.publish("orders", [{"n": n} for n in range(3)])
    daemon.publish("payments", [{"n": n} for n in range(2)])
    daemon.publish("unread", [{"n": 1}])

    def settled(runs, seen, both):
        succeeded = [r for r in daemon.runs("shop", "load") if r["state"] == "succeeded"]
        offsets = [daemon.get_json(f"/v1/topics/{name}")["last_offset"] for name in ("seen", "both")]
        return (len(succeeded), *offsets) == (runs, seen, both)

    wait_until(lambda: settled(3, 3, 5), "all to be read")
    wait_until(lambda: [r["state"] for r in daemon.runs("shop", "slow")] == ["running"], "the run that is interrupted")
    daemon.kill9()
    for name in ("orders", "payments", "unread"):
        for file in (daemon.data / "topics").glob(f"{name}.db*"):
            file.unlink()
    (daemon.data / "go").touch()
    daemon.start()
    log = daemon.log.read_text()
    assert ("topic 'orders' was read up to offset 3, but its file is lost with the events in it; not yet read by "
            "job shop/count after 0, job shop/slow after 2; it goes on after 1003") in log, "a batch more than flows say they have read"
    assert "topic 'payments' was read up to offset 2, but its file is lost" in log and "topic 'unread'" not in log
    [interrupted] = daemon.runs("shop", "slow")
    assert "no longer kept in topic 'orders'" in daemon.wait_for_run(interrupted["id"])["reason"]
    assert daemon.get_json("/v1/topics/orders")["last_offset"] == 1003
    assert daemon.publish("orders", [{"n": 10}])["first_offset"] == 1004
    assert daemon.publish("payments", [{"n": 20}])["first_offset"] == 1003
    wait_until(lambda: settled(4, 4, 7), "the new events")
    assert daemon.runs("shop", "count") == [] and len(daemon.runs("shop", "slow")) == 1, "no run of what is not there"
    lags = {c["consumer"].split("/")[-1]: c["lag"] for c in daemon.get_json("/v1/topics/orders")["consumers"]}
    assert lags == {"copy": 0, "merge": 0, "load": 0, "slow": 1, "count": 1}
    daemon.restart()
    assert daemon.log.read_text().count("its file is lost") == 2
    assert settled(4, 4, 7)


def lose(daemon, topic):
    for file in (daemon.data / "topics").glob(f"{topic}.db*"):
        file.unlink()


ONE_JOB = """
name: shop
topics: {orders: {RETAIN}}
jobs: {work: {trigger: {topic: orders, max_events: 2}, run: [sh, -c, "cat >> seen; test ! -e fail"]}}
"""


def test_a_lost_topic_goes_on_at_one_place_however_often_it_is_started(start_daemon):
    daemon = start_daemon({"shop": "name: shop\ntopics: {orders: {}, seen: {}}\nflows: {copy: {from: {topic: orders}, to: {topic: seen}}}\n"
                                   "jobs: {large: {trigger: {topic: orders, where: event.n > 5}, run: [cat]}}\n"})
    daemon.publish("orders", [{"n": n} for n in range(7)])
    daemon.wait_for_runs("shop", "large", 1)
    wait_until(lambda: daemon.get_json("/v1/topics/seen")["last_offset"] == 7, "the flow to have read all")
    daemon.stop()
    lose(daemon, "orders")
    for _ in range(3):
        daemon.start()
        assert daemon.get_json("/v1/topics/orders")["last_offset"] == 1007
        passed = "the job to have passed over what is gone"
        wait_until(lambda: {c["consumer"].split("/")[-1]: c["lag"] for c in daemon.get_json("/v1/topics/orders")["consumers"]}["large"] == 0, passed)
        daemon.stop()
    daemon.start()
    assert daemon.publish("orders", [{"n": 7}])["first_offset"] == 1008
    daemon.wait_for_runs("shop", "large", 2)


def test_a_file_that_is_empty_is_a_lost_one(start_daemon):
    daemon = start_daemon({"shop": ONE_JOB.replace("RETAIN", "")})
    daemon.publish("orders", [{"n": n} for n in range(2)])
    daemon.wait_for_runs("shop", "work", 1)
    daemon.stop()
    lose(daemon, "orders")
    (daemon.data / "topics" / "orders.db").touch()  # as a crash, or a full disk, may leave one that was being made
    daemon.start()
    assert "topic 'orders' was read up to offset 2, but its file is lost with the events in it; it goes on after 2" in daemon.log.read_text()
    daemon.kill9()
    daemon.start()  # nothing was stored of that
    assert daemon.publish("orders", [{"n": 10}, {"n": 11}])["first_offset"] == 3
    daemon.wait_for_runs("shop", "work", 2)
    assert (daemon.work("shop") / "seen").read_text() == '{"n": 0}\n{"n": 1}\n{"n": 10}\n{"n": 11}\n'


def test_an_older_copy_of_a_topic_is_told_by_its_readers(start_daemon):
    text = ONE_JOB.replace("RETAIN", "") + "flows: {copy: {from: {topic: orders}, to: {topic: seen}}}\n"
    daemon = start_daemon({"shop": text.replace("{orders", "{seen: {}, orders")})
    daemon.publish("orders", [{"n": n} for n in range(2)])
    daemon.wait_for_runs("shop", "work", 1)
    daemon.stop()
    older = (daemon.data / "topics" / "orders.db").read_bytes()
    daemon.start()
    daemon.publish("orders", [{"n": n} for n in range(2, 6)])
    daemon.wait_for_runs("shop", "work", 3)
    wait_until(lambda: daemon.get_json("/v1/topics/seen")["last_offset"] == 6, "the flow to have read all")
    daemon.stop()
    lose(daemon, "orders")
    (daemon.data / "topics" / "orders.db").write_bytes(older)
    daemon.start()
    said = "read up to offset 6 before, but topic 'orders' ends at 2"
    trouble, = daemon.job("shop", "work")["troubles"]
    assert trouble.startswith("topic:orders: " + said)
    status = penstock("status", daemon=daemon)
    assert status.returncode == 1 and f"look after: job shop/work, trigger {trouble}" in status.stdout, status
    assert f"a trigger of job work does not work: {trouble}" in penstock("get", "pipeline", "shop", daemon=daemon).stdout
    wait_until(lambda: said in (daemon.get_json("/v1/pipelines/shop/flows/copy")["reason"] or ""), "the flow to say so")
    daemon.stop()
    lose(daemon, "orders")
    daemon.start()
    assert daemon.publish("orders", [{"n": 6}])["first_offset"] > 6
    wait_until(lambda: daemon.get_json("/v1/topics/seen")["last_offset"] == 7, "the flow to go on")


def test_what_is_no_longer_kept_starts_nothing(start_daemon):
    daemon = start_daemon({"shop": "name: shop\ntopics: {orders: {retain: 1ms}}\n"})
    daemon.publish("orders", [{"n": n} for n in range(5)])
    daemon.restart()  # which cleans up
    wait_until(lambda: daemon.get_json("/v1/topics/orders")["events"] == 0, "all to be too old")
    daemon.put("shop", ONE_JOB.replace("RETAIN", "retain: 7d"))
    assert daemon.runs("shop") == []
    assert daemon.publish("orders", [{"n": n} for n in range(5, 8)])["first_offset"] == 6
    runs = daemon.wait_for_runs("shop", "work", 2)
    assert [(run["state"], run["input"]["first_offset"], run["input"]["last_offset"]) for run in runs] == [("succeeded", 6, 7), ("succeeded", 8, 8)]
    daemon.put("other", ONE_JOB.replace("RETAIN", "retain: 7d").replace("shop", "other"))
    runs = daemon.wait_for_runs("other", "work", 2)
    assert {run["state"] for run in runs} == {"succeeded"} and sum(run["input"]["events"] for run in runs) == 3, "it begins with what is kept"


def test_a_failed_run_holds_back_only_what_there_is(start_daemon):
    daemon = start_daemon({"shop": ONE_JOB.replace("RETAIN", "retain: 1ms")})
    (daemon.work("shop") / "fail").touch()
    daemon.publish("orders", [{"n": n} for n in range(2)])
    failed, = daemon.wait_for_runs("shop", "work", 1)
    assert failed["state"] == "failed"
    (daemon.work("shop") / "fail").unlink()
    daemon.publish("orders", [{"n": 2}])
    daemon.wait_for_runs("shop", "work", 2)
    daemon.stop()
    lose(daemon, "orders")
    daemon.start()
    daemon.publish("orders", [{"n": 3}])
    daemon.wait_for_runs("shop", "work", 3)
    daemon.restart()
    wait_until(lambda: daemon.get_json("/v1/topics/orders")["events"] == 0, "what was read to be removed")
