"""Libraries that only some pipelines have a use for: they are loaded by these, and where one is missing the rest works."""
import pathlib

import pytest

from penstock import Daemon, wait_until

QUIET = "name: quiet\ntopics: {calm: {}}\njobs:\n  j: {run: [\"true\"]}\n"
CALLS = """
name: calls
topics: {calm: {}}
flows:
  calling: {from: {topic: calm}, to: {http: {url: "http://127.0.0.1:9/"}}}
  other: {from: {topic: calm}, to: drop}
"""


def has_libcurl(daemon):
    return "/libcurl.so" in pathlib.Path(f"/proc/{daemon.pid}/maps").read_text()


@pytest.fixture
def without_libcurl(tmp_path):
    """The environment of a machine on which it cannot be loaded."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "libcurl.so.4").write_text("no library")
    return {"LD_LIBRARY_PATH": str(folder)}


def test_libcurl_comes_with_the_first_who_needs_it(start_daemon):
    daemon = start_daemon({"quiet": QUIET})
    assert not has_libcurl(daemon)
    daemon.put("calls", CALLS)
    assert has_libcurl(daemon)


def test_a_definition_that_needs_what_is_missing_is_refused(start_daemon, without_libcurl):
    daemon = start_daemon({"quiet": QUIET}, env=without_libcurl)
    answer = daemon.request("PUT", "/v1/pipelines/calls", CALLS, {"Content-Type": "application/yaml"})
    assert answer.status == 422
    assert "the library of the package libcurl4 cannot be loaded: " in answer.text
    assert daemon.run_to_end("quiet", "j")["state"] == "succeeded"


def test_what_was_stored_before_says_what_is_missing(tmp_path, without_libcurl):
    daemon = Daemon(tmp_path)
    daemon.start()
    daemon.put("calls", CALLS)
    assert daemon.stop() == 0
    daemon.env.update(without_libcurl)
    daemon.start()
    try:
        wait_until(lambda: "libcurl4" in (daemon.flow("calls", "calling")["reason"] or ""), "the flow to say what is missing")
        wait_until(lambda: daemon.flow("calls", "other")["state"] == "running", "the other flow to run")
    finally:
        assert daemon.stop() == 0
