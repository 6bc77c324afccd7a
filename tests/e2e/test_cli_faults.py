"""What the client does when things go wrong: a daemon that hangs or stops, names that nobody knows, tokens with small rates,
words that cannot be. Each ends with the exit code that --help names, and one sentence."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

from penstock import BIN, penstock, remove_folder, scratch_folder, wait_until

SHOP = """
name: shop
topics: {orders: {}}
flows: {check: {from: {topic: orders}, steps: [{map: {half: event.n / 2}}], to: drop}}
jobs:
  echo: {run: [sh, -c, "echo hello"]}
  holds: {run: [sh, -c, "echo ready; tail -f /dev/null"], grace: 1s}
"""
OK, NO, USAGE, UNREACHABLE, REFUSED = range(5)


@pytest.fixture
def folder():
    made = scratch_folder()
    yield made
    remove_folder(made)


@pytest.fixture
def shop(start_daemon, folder):
    settings = folder / "settings.yaml"
    settings.write_text("drain_timeout: 1s\nlog_level: debug\n")
    return start_daemon({"shop": SHOP}, args=["--config", settings])


def begin(daemon, *arguments):
    environment = {**os.environ, "PENSTOCK_URL": "http://%s:%d" % daemon.address}
    return subprocess.Popen([str(BIN / "penstock"), *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


class Hung:
    """The daemon does not get to run meanwhile; its sockets stay open."""

    def __init__(self, daemon):
        self.pid = daemon.pid

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


def one_sentence(text):
    return text.startswith("penstock: ") and text.count("\n") == 1 and "{" not in text


# ---- a daemon that hangs ----


def test_a_daemon_that_hangs_is_told(shop):
    with Hung(shop):
        for words in (["runs"], ["status"], ["topics", "orders"], ["publish", "orders"]):
            told = penstock(*words, "--timeout", "500ms", daemon=shop, stdin='{"n": 1}\n')
            assert told.returncode == UNREACHABLE and one_sentence(told.stderr) and "within 500ms" in told.stderr, told
    assert penstock("runs", "--timeout", "10s", daemon=shop).returncode == OK


def test_who_accepts_and_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = penstock("runs", "--timeout", "300ms", env={"PENSTOCK_URL": "http://127.0.0.1:%d" % silent.getsockname()[1]})
    assert told.returncode == UNREACHABLE and one_sentence(told.stderr), told


@pytest.mark.parametrize("words", [["changes"], ["tap", "shop", "check"], ["get", "events", "orders", "-f"]])
def test_a_stream_that_is_silent_for_too_long_is_over(shop, words):
    told = penstock(*words, "--timeout", "500ms", daemon=shop)
    assert told.returncode == UNREACHABLE and one_sentence(told.stderr) and "nothing has come" in told.stderr, told


def test_the_log_of_a_silent_task_is_followed_while_the_daemon_lives(shop):
    run = shop.trigger("shop", "holds").json["id"]
    follows = begin(shop, "logs", "-f", run, "--timeout", "500ms")
    assert follows.stdout.readline() == "ready\n"
    wait_until(lambda: shop.log.read_text().count("GET /healthz answered 200") >= 2, "it to look whether the daemon lives")
    assert follows.poll() is None
    with Hung(shop):
        assert follows.wait(30) == UNREACHABLE and one_sentence(follows.stderr.read())
    shop.cancel(run)


# ---- one that stops ----


def test_streams_that_end_with_the_daemon_say_so(shop):
    run = shop.trigger("shop", "holds").json["id"]
    wait_until(lambda: shop.flow("shop", "check")["state"] == "running", "the flow")
    streams = [begin(shop, *words) for words in (["changes", "--kind", "run"], ["get", "events", "orders", "-f", "--after", 0], ["tap", "shop", "check"],
                                                 ["logs", "-f", run])]
    shown = [False] * len(streams)

    def all_show_something():
        shop.publish("orders", [{"n": 1}])
        shop.trigger("shop", "echo")
        for i, stream in enumerate(streams):
            os.set_blocking(stream.stdout.fileno(), False)
            shown[i] = shown[i] or bool(os.read(stream.stdout.fileno(), 1 << 20) if readable(stream.stdout) else b"")
        return all(shown)
    wait_until(all_show_something, "each to show something")
    assert shop.stop() == 0
    for stream in streams:
        assert stream.wait(20) == UNREACHABLE, stream.args
        told = stream.stderr.read()
        assert one_sentence(told) and "ended" in told and ("stop" in told or "no answer" in told), told
        stream.stdout.close()
    assert run in told, "the log names its run"


def readable(file):
    import select
    return bool(select.select([file], [], [], 0)[0])


def test_who_waits_for_a_run_when_the_daemon_stops_is_told_its_id(shop):
    waits = begin(shop, "trigger", "shop", "holds", "--wait")
    run = wait_until(lambda: shop.runs("shop", "holds"), "the run")[0]["id"]
    wait_until(lambda: shop.run(run)["state"] == "running", "it to run")
    assert shop.stop() == 0
    assert waits.wait(20) == UNREACHABLE
    told = waits.stderr.read()
    assert one_sentence(told) and run in told, told


def test_a_flow_that_is_removed_ends_its_tap(shop):
    wait_until(lambda: shop.flow("shop", "check")["state"] == "running", "the flow")
    tap = begin(shop, "tap", "shop", "check")

    def seen():
        shop.publish("orders", [{"n": 1}])
        return readable(tap.stdout)
    wait_until(seen, "the tap")
    follows = begin(shop, "get", "events", "orders", "-f", "--after", 0)
    assert json.loads(follows.stdout.readline())["data"] == {"n": 1}
    shop.request("DELETE", "/v1/pipelines/shop")
    assert tap.wait(20) == NO and "the flow was replaced or removed" in tap.stderr.read()
    assert follows.wait(20) == NO and "the topic was removed" in follows.stderr.read()
    tap.stdout.close()
    follows.stdout.close()


# ---- names and words ----


def test_unknown_names_are_refused(shop):
    made = json.loads(penstock("token", "create", "--name", "ops", "--role", "admin", "--json", daemon=shop).stdout)
    shop.token = made["token"]
    env = {"PENSTOCK_TOKEN": made["token"]}

    def ask(*words):
        return penstock(*words, daemon=shop, env=env)
    for words, name in ((["changes", "--pipeline", "nosuch"], "nosuch"), (["runs", "--job", "nosuch"], "nosuch"),
                        (["audit", "--token", "ops"], made["id"]), (["audit", "--pipeline", "nosuch"], "nosuch")):
        told = ask(*words)
        assert told.returncode == REFUSED and name in told.stderr and told.stdout == "", told
    assert ask("runs", "--job", "echo").stdout == "no runs\n"
    assert ask("audit", "--token", made["id"], "--outcome", "failed").returncode == OK
    scoped = ask("token", "create", "--name", "ci", "--role", "ingest", "--pipeline", "shpo")
    assert scoped.returncode == OK and "no pipeline 'shpo'" in scoped.stderr, scoped


@pytest.mark.parametrize("words", [["runs", "--state", "done"], ["audit", "--outcome", "maybe"], ["changes", "--kind", "maybe"],
                                   ["token", "create", "--name", "x", "--role", "root"], ["runs", "--timeout", "soon"], ["runs", "--timeout", "0s"],
                                   ["token", "create", "--name", "x", "--role", "read", "--burst", "5"]])
def test_words_that_cannot_be_are_wrong_usage(words):
    told = penstock(*words, env={"PENSTOCK_URL": "http://127.0.0.1:1"})
    assert told.returncode == USAGE and told.stderr, told


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "http://[::", "http://127.0.0.1:99999999", "nonsense://x"])
def test_an_address_that_is_none_is_wrong_usage(url):
    told = penstock("runs", "--url", url)
    assert told.returncode == USAGE and one_sentence(told.stderr) and url in told.stderr, told


def test_one_fault_has_one_exit_code(shop, tmp_path):
    nameless, wrong = tmp_path / "nameless.yaml", tmp_path / "wrong.yaml"
    nameless.write_text("topics: {}\n")
    wrong.write_text("name: wrong\nflow: {}\n")
    for file in (nameless, wrong):
        codes = {verb: penstock(verb, file, daemon=shop).returncode for verb in ("validate", "test", "plan", "apply")}
        assert codes == {"validate": NO, "test": USAGE, "plan": REFUSED, "apply": REFUSED}, (file, codes)
    help_text = penstock("--help").stdout
    assert "apply or plan that is not valid" in " ".join(help_text.split())


def test_publish_names_the_file(shop, tmp_path):
    file = tmp_path / "events.ndjson"
    file.write_text('{"n": 1}\n{nope\n')
    told = penstock("publish", "orders", file, daemon=shop)
    assert told.returncode == REFUSED and str(file) in told.stderr, told
    told = penstock("publish", "orders", daemon=shop, stdin='{"n": 1}\n{nope\n')
    assert told.returncode == REFUSED and "stdin" in told.stderr, told


# ---- lists that go on ----


def test_the_rest_of_a_list_is_to_be_had(shop):
    ids = [shop.run_to_end("shop", "echo")["id"] for _ in range(3)][::-1]
    first = penstock("runs", "--limit", 2, daemon=shop).stdout
    assert "--cursor " in first and "cursor=" not in first, first
    cursor = first.splitlines()[-1].split("--cursor ")[1].rstrip(")")
    rest = penstock("runs", "--limit", 2, "--cursor", cursor, daemon=shop).stdout
    assert ids[2] in rest and ids[1] not in rest, rest
    assert penstock("runs", "--since", "2000-01-01T00:00:00Z", "--until", "2001-01-01T00:00:00Z", daemon=shop).stdout == "no runs\n"
    audited = penstock("audit", "--limit", 1, daemon=shop).stdout
    cursor = audited.splitlines()[-1].split("--cursor ")[1].rstrip(")")
    assert penstock("audit", "--cursor", cursor, daemon=shop).returncode == OK
    assert "nothing" in penstock("audit", "--until", "2001-01-01T00:00:00Z", daemon=shop).stdout
    assert "cursor=" in shop.get("/v1/runs?limit=1", {"Accept": "text/plain"}).text
    shop.publish("orders", [{"n": "poison"}] * 3)
    wait_until(lambda: len(shop.dead_letters()) == 3, "the dead letters")
    cursor = penstock("dead-letters", "list", "--limit", 2, daemon=shop).stdout.splitlines()[-1].split("--cursor ")[1].rstrip(")")
    assert len(penstock("dead-letters", "list", "--cursor", cursor, daemon=shop).stdout.splitlines()) == 2


def test_events_that_are_followed_end_at_the_limit(shop):
    shop.publish("orders", [{"n": n} for n in range(5)])
    followed = penstock("get", "events", "orders", "-f", "--after", 1, "--limit", 2, daemon=shop)
    assert followed.returncode == OK and followed.stderr == "", followed
    assert [json.loads(line)["data"]["n"] for line in followed.stdout.splitlines()] == [1, 2]
    page = penstock("get", "events", "orders", "--limit", 2, daemon=shop)
    assert len(page.stdout.splitlines()) == 2 and "--after 2" in page.stderr, page


# ---- what an operator looks at ----


def test_status_tells_what_needs_looking_after(shop):
    wait_until(lambda: penstock("status", daemon=shop).returncode == OK, "all to be well")
    shop.publish("orders", [{"n": "poison"}])
    wait_until(lambda: shop.dead_letters(), "the dead letter")
    told = penstock("status", daemon=shop)
    assert told.returncode == NO and "look after: 1 dead letter of shop\n" in told.stdout, told
    assert json.loads(penstock("status", "--json", daemon=shop).stdout)["troubles"] == ["1 dead letter of shop"]
    penstock("dead-letters", "discard", "--all", daemon=shop)
    assert penstock("status", daemon=shop).returncode == OK
    penstock("flow", "stop", "shop", "check", daemon=shop)
    told = penstock("status", daemon=shop)
    assert told.returncode == NO and "look after: flow shop/check is stopped since " in told.stdout, told
    penstock("flow", "start", "shop", "check", daemon=shop)
    penstock("pause", "shop", daemon=shop)
    paused = penstock("status", daemon=shop)
    assert paused.returncode == OK and "paused" in paused.stdout, paused


def test_a_token_with_a_small_rate_is_enough_for_status(shop):
    made = json.loads(penstock("token", "create", "--name", "ops", "--role", "admin", "--json", daemon=shop).stdout)
    shop.token = made["token"]
    slow = json.loads(penstock("token", "create", "--name", "slow", "--role", "read", "--rate", 0.5, "--burst", 2, "--json", daemon=shop,
                               env={"PENSTOCK_TOKEN": made["token"]}).stdout)
    told = penstock("status", daemon=shop, env={"PENSTOCK_TOKEN": slow["token"]})
    assert told.returncode == OK and ": ready" in told.stdout, told
    assert told.stderr.count("\n") == 1 and " s, as the daemon asks" in told.stderr, told


# ---- tokens ----


def test_a_token_file_that_others_can_read_is_warned_of(shop, tmp_path):
    file = tmp_path / "token"
    file.write_text("pst_x_y\n")
    file.chmod(0o644)
    assert f"chmod 600 {file}" in penstock("runs", "--token-file", file, daemon=shop).stderr
    file.chmod(0o600)
    assert penstock("runs", "--token-file", file, daemon=shop).stderr == ""


def test_a_token_is_made_in_no_folder_that_is_no_data_folder(folder):
    make = ("token", "create", "--name", "x", "--role", "admin", "--data")
    told = penstock(*make, folder / "misspelt")
    assert told.returncode == USAGE and "there is no folder" in told.stderr and not (folder / "misspelt").exists(), told
    (folder / "other").mkdir()
    (folder / "other" / "file").write_text("")
    told = penstock(*make, folder / "other")
    assert told.returncode == USAGE and "no data folder" in told.stderr, told
    assert [entry.name for entry in (folder / "other").iterdir()] == ["file"]
    (folder / "new").mkdir()
    assert penstock(*make, folder / "new").returncode == OK
    (folder / "broken").mkdir()
    (folder / "broken" / "state.db").write_text("this is no database, but long enough to be looked at as one" * 100)
    told = penstock(*make, folder / "broken")
    assert told.returncode == USAGE and one_sentence(told.stderr) and str(folder / "broken") in told.stderr, told


def test_both_programs_say_their_version_alike():
    said = [subprocess.run([str(BIN / name), "--version"], text=True, capture_output=True, timeout=30).stdout for name in ("penstock", "penstockd")]
    assert said[0].split()[0] == "penstock" and said[1].split()[0] == "penstockd" and said[0].split()[1:] == said[1].split()[1:], said


# ---- output, full queues ----


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [("runs",), ("get", "events", "orders"), ("topics", "--json"), ("token", "create", "--name", "a", "--role", "admin")])
def test_output_that_cannot_be_written_is_no_success(shop, words):
    shop.publish("orders", [{"n": 1}])
    with open("/dev/full", "w") as full:
        told = subprocess.run([str(BIN / "penstock"), *words], env={**os.environ, "PENSTOCK_URL": "http://%s:%d" % shop.address},
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert told.returncode == USAGE and "its output cannot be written: No space left on device" in told.stderr, told


def test_a_full_queue_is_told_at_once(shop):
    shop.put("que", "name: que\njobs: {one: {run: [sh, -c, \"tail -f /dev/null\"], grace: 1s, on_overlap: queue, queue_limit: 1}}\n")
    assert penstock("trigger", "que", "one", daemon=shop).returncode == OK
    wait_until(lambda: shop.runs("que", "one", state="running"), "the first to run")
    assert penstock("trigger", "que", "one", daemon=shop).returncode == OK
    told = penstock("trigger", "que", "one", daemon=shop)
    assert told.returncode == REFUSED and "queue_limit" in told.stderr and "as the daemon asks" not in told.stderr, told


def test_a_parameter_that_is_no_text(shop):
    told = subprocess.run([str(BIN / "penstock"), "trigger", "shop", "echo", "-p", b"who=\xff"], capture_output=True, timeout=60,
                          env={**os.environ, "PENSTOCK_URL": "http://%s:%d" % shop.address})
    assert told.returncode == USAGE and one_sentence(told.stderr.decode()) and b"not UTF-8" in told.stderr, told


@pytest.mark.parametrize("words", [["runs", "--pipeline", ""], ["get", "events", ""], ["trigger", "shop/echo", "--idempotency-key", ""], ["apply", ""]])
def test_an_empty_word_is_a_slip(shop, words):
    told = penstock(*words, daemon=shop)
    assert told.returncode == USAGE and "it is empty" in told.stderr and told.stdout == "", told


def test_a_socket_that_one_may_not_use(start_daemon):
    """Tried as a user without rights, whose copy of the program lies where everybody may read."""
    place = pathlib.Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        program = shutil.copy(BIN / "penstock", place)
        daemon = start_daemon({"shop": SHOP}, args=["--listen", f"unix:{place}/socket"])
        (place / "socket").chmod(0)
        who = {"user": 65534} if os.geteuid() == 0 else {}
        told = subprocess.run([program, "--url", f"unix:{place}/socket", "status"], capture_output=True, text=True, timeout=60, cwd="/", **who)
        assert told.returncode == UNREACHABLE and "no permission to use the socket" in told.stderr, told
        assert daemon.stop() == 0
    finally:
        shutil.rmtree(place)
    told = penstock("--url", f"unix:{place}/socket", "status")
    assert told.returncode == UNREACHABLE and "nobody listens" in told.stderr, told
