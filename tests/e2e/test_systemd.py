"""The unit as it is installed, and the daemon's side of Type=notify, with this test in systemd's place."""
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import urllib.request

import pytest

from penstock import BIN, Daemon

BUILD = os.environ.get("PENSTOCK_BUILD_DIR", str(BIN.parent))
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix")
    finished = subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return prefix


def test_what_is_installed(installed):
    for file in ("bin/penstockd", "bin/penstock", "share/penstock/examples/quakes/quakes.yaml",
                 "share/penstock/examples/quakes/earthquakes.ndjson", "share/doc/penstock/README.md",
                 "share/doc/penstock/LICENSE"):
        assert (installed / file).is_file(), file
    assert os.access(installed / "bin" / "penstockd", os.X_OK)
    assert os.access(installed / "share/penstock/examples/quakes/replay.py", os.X_OK)
    unit = (installed / "lib/systemd/system/penstockd.service").read_text()
    assert f"ExecStart={installed}/bin/penstockd " in unit
    assert "@" not in unit.replace("SystemCallFilter=@", "").replace("~@", "").replace(" @", "")
    validate = subprocess.run([installed / "bin" / "penstock", "validate",
                               installed / "share/penstock/examples/quakes/quakes.yaml"], capture_output=True, text=True)
    assert validate.returncode == 0, validate.stdout


@needs_systemd
def test_the_unit_is_clean(installed):
    unit = installed / "lib/systemd/system/penstockd.service"
    sockets = installed / "lib/systemd/system/penstockd.socket"
    finished = subprocess.run(["systemd-analyze", "verify", "--man=no", unit, sockets], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr.strip()) == (0, "")


@needs_systemd
def test_the_unit_is_hardened(installed):
    unit = installed / "lib/systemd/system/penstockd.service"
    finished = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit], capture_output=True,
                              text=True)
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", finished.stdout)
    assert level, finished.stdout + finished.stderr
    assert float(level[1]) <= 2.5


@pytest.mark.parametrize("kind", ["path", "abstract name"])
def test_notifications(start_daemon, tmp_path, kind):
    address = str(tmp_path / "notify") if kind == "path" else f"@penstock-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        systemd.settimeout(20)
        seen = []

        def wait_for(word):
            while not any(word in message for message in seen):
                seen.append(systemd.recv(4096).decode())

        daemon = start_daemon({"shop": "name: shop\ntopics: {orders: {}}\n"},
                              env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
        wait_for("READY=1")
        assert daemon.get("/readyz").status == 200
        seen.clear()
        wait_for("WATCHDOG=1")
        seen.clear()
        assert daemon.stop() == 0
        wait_for("STOPPING=1")
        daemon.start()


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1", "/" + "x" * 200])
def test_who_cannot_be_told_is_no_reason_to_stop(start_daemon, address):
    daemon = start_daemon(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"})
    daemon.put("shop", "name: shop\ntopics: {orders: {}}\n")
    assert daemon.stop() == 0
    assert daemon.log.read_text().count("systemd cannot be told how this is: ") == 1
    daemon.start()


@pytest.mark.parametrize("variables, why", [({"LISTEN_FDS": "two"}, "LISTEN_FDS: 'two' is no number"),
                                            ({"LISTEN_FDS": "1"}, "LISTEN_FDS: descriptor 3: Bad file descriptor"),
                                            ({"WATCHDOG_USEC": "-1"}, "WATCHDOG_USEC: '-1' is no number")])
def test_what_makes_no_sense_is_refused(tmp_path, variables, why):
    finished = subprocess.run([BIN / "penstockd", "--data", tmp_path / "data", "--listen", "127.0.0.1:0"],
                              env={**os.environ, **variables}, capture_output=True, text=True, timeout=60)
    assert finished.returncode != 0 and why in finished.stdout + finished.stderr


def test_what_is_meant_for_another_process_is_left_alone(start_daemon):
    daemon = start_daemon(env={"LISTEN_FDS": "1", "LISTEN_PID": "1", "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    assert daemon.get("/readyz").status == 200


def test_ready_means_serving(tmp_path):
    """At the very moment of READY=1 a request is answered."""
    address = str(tmp_path / "notify")
    daemon = Daemon(tmp_path, env={"NOTIFY_SOCKET": address})
    answers = []

    def ask_when_told(systemd):
        while "READY=1" not in systemd.recv(4096).decode():
            pass
        where = (daemon.data / "listen").read_text().strip()
        with urllib.request.urlopen(f"http://{where}/readyz", timeout=5) as answer:
            answers.append(answer.status)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(20)
        asker = threading.Thread(target=ask_when_told, args=(systemd,))
        asker.start()
        daemon.start()
        asker.join(20)
    assert answers == [200]
    assert daemon.stop() == 0


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_priorities_in_the_journal(tmp_path, log_format):
    """With the journal as its stderr, each line says how bad it is; otherwise none does."""
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"log_format: {log_format}\ndata: {tmp_path}/data\nlisten: 'unix:{tmp_path}/no/folder/x.sock'\n")
    for journal in (True, False):
        log = tmp_path / f"log{journal}"
        with open(log, "wb") as stream:
            about = os.fstat(stream.fileno())
            named = f"{about.st_dev}:{about.st_ino if journal else about.st_ino + 1}"
            finished = subprocess.run([BIN / "penstockd", "--config", settings], stderr=stream, env={**os.environ, "JOURNAL_STREAM": named})
        assert finished.returncode == 1
        lines = log.read_text().splitlines()
        worst = next(line for line in lines if "cannot listen" in line)
        assert worst.startswith("<2>") == journal, lines
        assert all(bool(re.match(r"<[2-7]>", line)) == journal for line in lines), lines
        if log_format == "json":
            assert json.loads(worst.removeprefix("<2>"))["level"] == "critical"
