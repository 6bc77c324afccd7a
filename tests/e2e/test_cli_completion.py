"""Completions in real shells, and the manual pages: all of it made of the tree that parses the command line."""
import json
import os
import shutil
import subprocess

import pytest

from penstock import BIN, penstock

SHOP = """
name: shop
topics: {orders: {}}
flows: {check: {from: {topic: orders}, steps: [{filter: "true"}], to: drop}}
jobs:
  echo:
    params: {city: {type: string, default: Rome, doc: where}, count: {type: integer, default: 1}}
    run: [sh, -c, "echo hello"]
  other: {run: ["true"]}
"""


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": SHOP})


def environment(daemon):
    url = "http://%s:%d" % daemon.address if daemon else "http://127.0.0.1:1"
    return {**os.environ, "PENSTOCK_URL": url, "PATH": f"{BIN.resolve()}:{os.environ['PATH']}"}


def in_bash(line, daemon=None, folder=None):
    """What bash offers for the line, with the cursor at its end. Its own word breaks split = and : off, as at a prompt."""
    script = """
source <(penstock completion bash) || exit 9
compopt() { :; }
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_penstock
printf '%s\\n' "${COMPREPLY[@]}"
"""
    said = subprocess.run(["bash", "--norc", "-c", script, "bash", line], env=environment(daemon), cwd=folder, text=True,
                          capture_output=True, timeout=30)
    assert said.returncode == 0 and said.stderr == "", said
    return [word for word in said.stdout.splitlines() if word]


def test_words_of_the_tree():
    assert {"apply", "plan", "status", "backup"} <= set(in_bash("penstock "))
    assert "__complete" not in in_bash("penstock ")
    assert in_bash("penstock va") == ["validate"]
    assert set(in_bash("penstock get ")) == {"pipelines", "pipeline", "revisions", "events"}
    assert in_bash("penstock trigger --id") == ["--idempotency-key"]
    assert "--url" in in_bash("penstock trigger -"), "options of the program may follow"
    assert set(in_bash("penstock completion ")) == {"bash", "zsh", "fish"}
    assert in_bash("penstock runs --state ca") == ["cancelled"]
    assert set(in_bash("penstock get pipeline x -o ")) == {"yaml", "json"}
    assert in_bash("penstock nonsense ") == []


def test_names_that_the_daemon_knows(shop):
    assert in_bash("penstock trigger sh", shop) == ["shop"]
    assert in_bash("penstock trigger shop ", shop) == ["echo", "other"]
    assert in_bash("penstock trigger shop echo -p ", shop) == ["city=", "count="]
    assert in_bash("penstock trigger shop echo --param ci", shop) == ["city="]
    assert in_bash("penstock runs --pipeline ", shop) == ["shop"]
    assert in_bash("penstock runs --pipeline=s", shop) == ["shop"], "bash has what stands before = already"
    assert in_bash("penstock runs --pipeline shop --job o", shop) == ["other"]
    assert in_bash("penstock publish or", shop) == ["orders"]
    assert in_bash("penstock flow restart shop ", shop) == ["check"]
    assert set(in_bash("penstock tap shop check --after ", shop)) >= {"from", "filter_1"}
    run = shop.run_to_end("shop", "echo")["id"]
    assert in_bash("penstock logs ", shop) == [run]
    assert in_bash(f"penstock logs {run} --task ", shop) == ["main"]
    assert in_bash("penstock cancel ", shop) == [], "it has ended"
    assert in_bash("penstock get revisions shop ", shop) == ["1"]
    url = "http://%s:%d" % shop.address
    assert in_bash(f"penstock --url {url} trigger shop e") == ["echo"], "the daemon that the line names"


def test_words_and_files_of_the_options(tmp_path):
    (tmp_path / "my.token").write_text("")
    assert in_bash("penstock runs --token-file my", folder=tmp_path) == ["my.token"]
    assert in_bash("penstock runs --cacert my", folder=tmp_path) == ["my.token"]
    assert set(in_bash("penstock token create --role ")) == {"read", "ingest", "operate", "admin"}
    assert set(in_bash("penstock audit --outcome ")) == {"done", "failed", "refused"}
    assert in_bash("penstock runs --timeou") == ["--timeout"]


def test_tokens_are_completed_with_the_token_of_the_line(shop, tmp_path):
    made = json.loads(penstock("token", "create", "--name", "ops", "--role", "admin", "--json", daemon=shop).stdout)
    shop.token = made["token"]
    file = tmp_path / "token"
    file.write_text(made["token"])
    file.chmod(0o600)
    assert in_bash(f"penstock --token-file {file} token revoke ", shop) == [made["id"]]
    assert in_bash(f"penstock --token-file {file} audit --token ", shop) == [made["id"]]


def test_files_and_silence(tmp_path):
    (tmp_path / "my shop.yaml").write_text("name: x\n")
    (tmp_path / "folder").mkdir()
    assert in_bash("penstock apply my", folder=tmp_path) == ["my shop.yaml"]
    assert in_bash("penstock backup fo", folder=tmp_path) == ["folder"]
    # Nobody answers at this address.
    assert in_bash("penstock trigger ") == []
    said = penstock("__complete", "trigger", "", env={"PENSTOCK_URL": "http://127.0.0.1:1"})
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_zsh(shop):
    if not shutil.which("zsh"):
        pytest.skip("there is no zsh")
    script = """
autoload -Uz compinit && compinit -u -D
source <(penstock completion zsh)
[[ ${_comps[penstock]} == _penstock ]] || exit 8
_describe() { print -rl -- "${(@P)2}" }
words=(penstock trigger shop "") CURRENT=4
_penstock
"""
    said = subprocess.run(["zsh", "-f", "-c", script], env=environment(shop), text=True, capture_output=True, timeout=30)
    assert said.returncode == 0, said
    assert [line.split(":")[0] for line in said.stdout.splitlines()] == ["echo", "other"], said


def test_fish(shop):
    if not shutil.which("fish"):
        pytest.skip("there is no fish")
    script = "penstock completion fish | source; complete -C 'penstock trigger shop '"
    said = subprocess.run(["fish", "--no-config", "-c", script], env=environment(shop), text=True, capture_output=True, timeout=30)
    assert said.returncode == 0, said
    assert [line.split("\t")[0] for line in said.stdout.splitlines()] == ["echo", "other"], said


def daemon_manual():
    return subprocess.run([str(BIN / "penstockd"), "--man"], text=True, capture_output=True, timeout=30, check=True).stdout


def test_manual_pages_say_what_help_says(tmp_path):
    page = penstock("man").stdout
    for command in ("penstock plan", "penstock dead\\-letters replay", "penstock flow stop", "EXIT STATUS", "PENSTOCK_URL"):
        assert command in page, command
    for line in penstock("--help").stdout.split("Subcommands:")[1].split("Environment:")[0].splitlines():
        if line.strip():
            assert f"penstock {line.split()[0]}".replace("-", "\\-") in page, line
    daemon = daemon_manual()
    for word in ("SETTINGS", "drain_timeout", "SIGHUP", "TLS certificate again", "read at a start only", "\\-\\-pipelines"):
        assert word in daemon, word


@pytest.mark.parametrize("name", ["penstock", "penstockd"])
def test_manual_pages_are_clean(tmp_path, name):
    file = tmp_path / f"{name}.man"
    file.write_text(penstock("man").stdout if name == "penstock" else daemon_manual())
    if not shutil.which("mandoc"):
        pytest.skip("there is no mandoc")
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(file)], text=True, capture_output=True, timeout=30)
    assert (lint.returncode, lint.stdout) == (0, ""), lint.stdout


def test_an_installation_has_them(tmp_path):
    build = BIN.resolve().parent
    if not (build / "CMakeCache.txt").exists() or not shutil.which("cmake"):
        pytest.skip("these binaries do not lie in a build folder")
    subprocess.run(["cmake", "--install", str(build), "--prefix", str(tmp_path)], check=True, capture_output=True, timeout=120)
    share = tmp_path / "share"
    assert (share / "man" / "man1" / "penstock.1").read_text() == penstock("man").stdout
    assert (share / "man" / "man8" / "penstockd.8").read_text() == daemon_manual()
    assert (share / "bash-completion" / "completions" / "penstock").read_text() == penstock("completion", "bash").stdout
    assert (share / "zsh" / "vendor-completions" / "_penstock").read_text().startswith("#compdef penstock\n")
    assert "complete -c penstock" in (share / "fish" / "vendor_completions.d" / "penstock.fish").read_text()
