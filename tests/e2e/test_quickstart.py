"""deploy/quickstart as a person runs it, with programs that are built already."""
import os
import pathlib
import re
import signal
import socket
import subprocess
import urllib.request

import pytest

from penstock import BIN, ROOT, process_exists, processes_with

QUICKSTART = ROOT / "deploy" / "quickstart"
ARGUMENTS = ["--no-install", "--build-dir", str(BIN.parent)]


def once(*more, cwd="/"):
    return subprocess.run([QUICKSTART, "--once", *ARGUMENTS, *more], cwd=cwd, capture_output=True, text=True, timeout=240)


def test_once_meets_every_figure_twice_in_a_row_and_with_the_port_taken(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8420))
            taken.listen()
        except OSError:
            pass  # taken already, which is as good
        for cwd in ("/", tmp_path):
            finished = once(cwd=cwd)
            assert finished.returncode == 0, finished.stdout + finished.stderr
            assert "every figure was met" in finished.stdout
            assert "MISSED" not in finished.stdout
            assert "1707" in finished.stdout and "39" in finished.stdout
            assert "\033[" not in finished.stdout, "no colours where nobody sees them"
            folder = re.search(r"data in (\S+?)\)", finished.stdout)[1]
            assert not pathlib.Path(folder).exists(), "a temporary folder is removed"
            assert processes_with(folder) == []


def test_the_same_data_folder_again(tmp_path):
    for _ in range(2):
        finished = once("--data", str(tmp_path / "data"))
        assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "data" / "work" / "quakes" / "by_day.csv").exists()


def test_it_stays_until_ctrl_c():
    process = subprocess.Popen([QUICKSTART, *ARGUMENTS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    url = None
    seen = ""
    for line in process.stdout:
        seen += line
        found = re.search(r"ready at (http://\S+) \(process (\d+)", line)
        if found:
            url, pid = found[1], int(found[2])
        if "runs until Ctrl-C" in line:
            break
    assert url, seen
    assert seen.count("  curl ") == 5
    with urllib.request.urlopen(url + "/readyz", timeout=10) as answer:
        assert answer.status == 200
    os.killpg(process.pid, signal.SIGINT)
    process.stdout.read()
    assert process.wait(60) == 0
    assert not process_exists(pid)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--build-dir"], ["--build-dir", "/nowhere"]])
def test_wrong_usage(arguments):
    finished = subprocess.run([QUICKSTART, "--no-install", *arguments], capture_output=True, text=True, timeout=20)
    assert finished.returncode != 0
    assert finished.stderr


def test_a_daemon_that_does_not_start_is_shown(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("penstock", "exit 0"), ("penstockd", "echo 'no luck today' >&2; exit 7")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    finished = subprocess.run([QUICKSTART, "--once", "--no-install", "--build-dir", tmp_path], capture_output=True,
                              text=True, timeout=60)
    assert finished.returncode == 1
    assert "did not start" in finished.stderr and "no luck today" in finished.stderr


def test_packages_list_is_complete():
    """What the CMake files look for is in the list that deploy/packages installs."""
    listed = subprocess.run([ROOT / "deploy" / "packages", "--list", "build", "test", "run"], capture_output=True, text=True,
                            check=True).stdout.split()
    for package in ("g++", "cmake", "ninja-build", "libboost1.81-dev", "libsqlite3-dev", "catch2", "python3-pytest", "curl"):
        assert package in listed
    assert subprocess.run([ROOT / "deploy" / "packages", "nonsense"], capture_output=True).returncode == 2
