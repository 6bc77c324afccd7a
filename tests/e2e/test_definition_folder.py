"""The folder of definitions: what is saved there is live, what is broken is listed and changes nothing."""
import os

import pytest

from penstock import wait_until


def text(name, n):
    return f"name: {name}\ndescription: version {n}\ntopics: {{{name}_topic: {{}}}}\n"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "pipelines"
    made.mkdir()
    (made / "one.yaml").write_text(text("one", 1))
    (made / "two.yml").write_text(text("two", 1))
    (made / "broken.yaml").write_text("name: broken\nflow: {}\n")
    return made


@pytest.fixture
def live(start_daemon, folder):
    return start_daemon(folder)


def described(daemon, name):
    answer = daemon.get("/v1/pipelines/" + name)
    return answer.json["description"] if answer.status == 200 else None


def broken(daemon):
    return {os.path.basename(file["file"]): file["errors"] for file in daemon.get_json("/v1/pipelines")["broken_files"]}


def test_good_files_are_live_at_the_start_beside_a_broken_one(live):
    assert (described(live, "one"), described(live, "two")) == ("version 1", "version 1")
    errors = broken(live)["broken.yaml"]
    assert (errors[0]["line"], errors[0]["column"], errors[0]["pointer"]) == (2, 1, "/flow")
    assert "did you mean 'flows'" in errors[0]["detail"]


def test_what_is_saved_is_live(live, folder):
    (folder / "one.yaml").write_text(text("one", 2))
    wait_until(lambda: described(live, "one") == "version 2", "the saved change")
    (folder / "draft").write_text(text("one", 3))
    os.replace(folder / "draft", folder / "one.yaml")  # as most editors do
    wait_until(lambda: described(live, "one") == "version 3", "the file that was renamed into place")
    (folder / "three.json").write_text('{"name": "three", "description": "version 1"}')
    wait_until(lambda: described(live, "three") == "version 1", "a new file")
    assert live.pipeline("two")["revision"] == 1, "the others are untouched"


def test_a_broken_change_is_listed_and_leaves_the_last_good_revision(live, folder):
    (folder / "one.yaml").write_text("name: one\ntopics: {one_topic: {retain: 7}}\n")
    errors = wait_until(lambda: broken(live).get("one.yaml"), "the errors of the file")
    assert errors[0]["line"] == 2 and "retain" in errors[0]["pointer"]
    assert (described(live, "one"), live.pipeline("one")["revision"]) == ("version 1", 1)
    (folder / "one.yaml").write_text(text("one", 2))
    wait_until(lambda: described(live, "one") == "version 2", "the repaired file")
    assert "one.yaml" not in broken(live)
    (folder / "broken.yaml").unlink()
    wait_until(lambda: not broken(live), "the deleted file to be no longer listed")


def test_a_file_that_is_being_written_waits_until_it_is_closed(live, folder):
    with open(folder / "one.yaml", "w", encoding="utf-8") as half:
        half.write("name: one\ndescription: half of it\n")
        half.flush()
        (folder / "two.yml").write_text(text("two", 2))
        wait_until(lambda: described(live, "two") == "version 2", "the other file")
        assert described(live, "one") == "version 1"
        half.write("topics: {one_topic: {}}\n")
    wait_until(lambda: described(live, "one") == "half of it", "the closed file")


def test_what_is_no_definition_is_left_alone(live, folder):
    for name in (".one.yaml.swp", ".hidden.yaml", "one.yaml~", "notes.txt"):
        (folder / name).write_text(text("stray", 1))
    (folder / "two.yml").write_text(text("two", 2))
    wait_until(lambda: described(live, "two") == "version 2", "the definition that came last")
    assert described(live, "stray") is None
    assert set(broken(live)) == {"broken.yaml"}


def test_a_deleted_file_leaves_its_pipeline(live, folder):
    (folder / "one.yaml").unlink()
    (folder / "two.yml").write_text(text("two", 2))
    wait_until(lambda: described(live, "two") == "version 2", "the other file")
    assert described(live, "one") == "version 1"
    (folder / "one.yaml").write_text(text("one", 2))
    wait_until(lambda: described(live, "one") == "version 2", "the file that is there again")


def test_a_folder_that_is_replaced_is_followed(live, folder):
    os.rename(folder, folder.parent / "old")
    (folder.parent / "new").mkdir()
    (folder.parent / "new" / "one.yaml").write_text(text("one", 2))
    os.rename(folder.parent / "new", folder)
    wait_until(lambda: described(live, "one") == "version 2", "the file in the new folder")
    (folder / "two.yml").write_text(text("two", 2))
    wait_until(lambda: described(live, "two") == "version 2", "a file saved in the new folder")
    (folder.parent / "old" / "one.yaml").write_text(text("one", 9))
    (folder / "two.yml").write_text(text("two", 3))
    wait_until(lambda: described(live, "two") == "version 3", "the new folder's file")
    assert described(live, "one") == "version 2", "the old folder is nobody's"


def test_files_behind_a_link_that_is_switched(start_daemon, tmp_path):
    """As Kubernetes mounts its config maps: NAME -> ..data/NAME, and ..data -> a folder that is switched."""
    folder = tmp_path / "pipelines"
    for n in (1, 2):
        (folder / f"..v{n}").mkdir(parents=True)
        (folder / f"..v{n}" / "one.yaml").write_text(text("one", n))
    (folder / "..data").symlink_to("..v1")
    (folder / "one.yaml").symlink_to("..data/one.yaml")
    live = start_daemon(folder)
    assert described(live, "one") == "version 1"
    (folder / "..next").symlink_to("..v2")
    os.replace(folder / "..next", folder / "..data")
    wait_until(lambda: described(live, "one") == "version 2", "the switched link")


def test_a_folder_inside_changes_nothing(live, folder):
    with open(folder / "one.yaml", "w", encoding="utf-8") as half:
        half.write("name: one\ndescription: half of it\n")
        half.flush()
        (folder / "inside").mkdir()
        (folder / "inside" / "three.yaml").write_text(text("three", 1))
        (folder / "two.yml").write_text(text("two", 2))
        wait_until(lambda: described(live, "two") == "version 2", "the file beside it")
        assert (described(live, "one"), described(live, "three")) == ("version 1", None)


def test_a_stop_in_the_middle_of_a_load(live, folder):
    """The order of the files is not that of the pipelines' names, by which a stop lets changes finish."""
    for n in range(40):
        (folder / f"{n:02}.yaml").write_text(text(f"p{99 - n}", 1))
    wait_until(lambda: live.get_json("/v1/pipelines?limit=1000")["items"][-1]["name"].startswith("two"), "any of them")
    for n in range(40):
        (folder / f"{n:02}.yaml").write_text(text(f"p{99 - n}", 2))
    wait_until(lambda: described(live, "p99") == "version 2", "the first")
    assert live.stop() == 0


def test_two_files_do_not_take_a_pipeline_from_each_other(live, folder):
    (folder / "another.yaml").write_text(text("one", 7))
    errors = wait_until(lambda: broken(live).get("another.yaml"), "the second file to be refused")
    assert str(folder / "one.yaml") in errors[0]["detail"] and errors[0]["pointer"] == "/name"
    (folder / "one.yaml").write_text("name: one\nhalf")
    wait_until(lambda: "one.yaml" in broken(live), "the first to be broken")
    (folder / "another.yaml").write_text(text("one", 8))
    (folder / "two.yml").write_text(text("two", 2))
    wait_until(lambda: described(live, "two") == "version 2", "the file behind it")
    assert (described(live, "one"), live.pipeline("one")["revision"]) == ("version 1", 1)
    live.restart()
    assert (described(live, "one"), live.pipeline("one")["revision"]) == ("version 1", 1)
    (folder / "one.yaml").unlink()
    (folder / "another.yaml").write_text(text("one", 9))
    wait_until(lambda: described(live, "one") == "version 9", "the only file that is left")


def test_what_a_file_says_counts_from_the_start(start_daemon, folder):
    """Not the stored revision first: its flows and jobs would work on what came meanwhile."""
    flow = "name: one\ntopics: {a: {}, b: {}}\nflows: {copy: {from: {topic: a}, steps: [{map: {by: '\"VERSION\"'}}], to: {topic: b}}}\n"
    (folder / "one.yaml").write_text(flow.replace("VERSION", "old"))
    live = start_daemon(folder)
    live.post("/v1/pipelines/one/flows/copy/stop")
    live.publish("a", [{"n": n} for n in range(1000)])
    assert live.stop() == 0
    (folder / "one.yaml").write_text(flow.replace("VERSION", "new"))
    (folder / "two.yml").write_text("name: two\nhalf")
    live.start()
    assert {event["data"]["by"] for event in live.wait_for_topic("b", 1000)} == {"new"}
    assert live.pipeline("one")["revision"] == 2
    assert (described(live, "two"), set(broken(live))) == ("version 1", {"broken.yaml", "two.yml"})


def test_a_file_that_names_another_pipeline_leaves_the_first(live, folder):
    (folder / "one.yaml").write_text(text("uno", 1).replace("uno_topic", "one_topic"))
    wait_until(lambda: described(live, "uno") == "version 1", "the new name")
    assert described(live, "one") == "version 1"
    wait_until(lambda: "pipeline one, which it named before, goes on until it is deleted" in live.log.read_text(), "the warning")


def test_many_files_at_once(live, folder):
    for n in range(200):
        (folder / f"p{n}.yaml").write_text(text(f"p{n}", 1))
    wait_until(lambda: len(live.get_json("/v1/pipelines?limit=1000")["items"]) == 202, "all of them")
    assert set(broken(live)) == {"broken.yaml"}


def test_what_is_rolled_back_stays_so_until_its_file_changes(live, folder):
    (folder / "one.yaml").write_text(text("one", 2))
    wait_until(lambda: described(live, "one") == "version 2", "the saved change")
    assert live.post("/v1/pipelines/one/rollback").status == 200
    (folder / "two.yml").write_text(text("two", 2))
    wait_until(lambda: described(live, "two") == "version 2", "another file")
    assert described(live, "one") == "version 1"
    (folder / "one.yaml").write_text(text("one", 3))
    wait_until(lambda: described(live, "one") == "version 3", "its own file")


def test_a_large_folder_at_the_start_and_at_the_next(start_daemon, folder):
    """Files are loaded many at a time, and it shows in nothing: of two that want the same the first has it, whoever waits for
    another's topic or job finds it, and what has not changed is left as it is."""
    job = 'name: NAME\njobs: {j: {trigger: TRIGGER, run: ["true"]}}\n'
    (folder / "a00.yaml").write_text(job.replace("NAME", "early").replace("TRIGGER", "{topic: late_topic}"))
    (folder / "a01.yaml").write_text(job.replace("NAME", "after").replace("TRIGGER", "{after: {pipeline: early, job: j}}"))
    for n in range(300):
        (folder / f"m{n:03}.yaml").write_text(text(f"m{n}", 1) + "pools: {shared: %d}\n" % (500 - n))
        (folder / f"n{n:03}.yaml").write_text(text(f"m{n}", 2))
    (folder / "z0.yaml").write_text("name: late\ntopics: {late_topic: {}}\n")
    (folder / "z1.yaml").write_text("name: later\ntopics: {late_topic: {retain: 1h}}\n")
    live = start_daemon(folder)
    for start in ("first", "next"):
        assert len(live.get_json("/v1/pipelines?limit=1000")["items"]) == 305, start
        refused = {f"n{n:03}.yaml" for n in range(300)} | {"broken.yaml", "z1.yaml"}
        assert wait_until(lambda: set(broken(live)) == refused and broken(live), "each refused file to be listed")
        assert "late_topic" in broken(live)["z1.yaml"][0]["detail"]
        assert {described(live, f"m{n}") for n in range(300)} == {"version 1"}
        assert {live.pipeline(f"m{n}")["revision"] for n in (0, 150, 299)} == {1}
        live.publish("late_topic", [{"n": 1}])
        runs = 1 if start == "first" else 2
        live.wait_for_runs("early", "j", runs)
        live.wait_for_runs("after", "j", runs)
        if start == "first":
            live.restart()


def test_what_moves_from_one_file_to_another_is_found(start_daemon, folder):
    """In one deployment a name goes from a file to the next: whoever is loaded too early is loaded again."""
    hook = "name: NAME\njobs: {j: {trigger: {webhook: {path: /moves}}, run: [\"true\"]}}\n"
    (folder / "one.yaml").write_text(hook.replace("NAME", "one"))
    live = start_daemon(folder)
    assert live.stop() == 0
    (folder / "one.yaml").write_text(text("one", 2))
    (folder / "two.yml").write_text(hook.replace("NAME", "two"))
    live.start()
    wait_until(lambda: set(broken(live)) == {"broken.yaml"} and live.pipeline("two")["jobs"], "both to be live")
    swapped = folder.parent / "swapped"
    swapped.mkdir()
    (swapped / "one.yaml").write_text(hook.replace("NAME", "one"))
    (swapped / "two.yml").write_text(text("two", 3))
    folder.rename(folder.parent / "gone")
    swapped.rename(folder)
    live.reload()
    wait_until(lambda: described(live, "two") == "version 3" and live.pipeline("one")["jobs"], "both to be live again")
    assert broken(live) == {}
