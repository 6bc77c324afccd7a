"""`penstock test`: the tests of a definition through the real steps, with no daemon anywhere.

Each case runs the real client in an empty TMPDIR of its own; when it has ended, nothing may be left there.
"""
import json
import os
import re
import signal
import subprocess

import pytest

from penstock import BIN, EXAMPLES, ROOT, penstock, processes_with, wait_until

OK, NO, BROKEN = 0, 1, 2
MINUTE = 60


@pytest.fixture
def temp(tmp_path):
    folder = tmp_path / "temp"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def run(tmp_path, temp):
    """Runs the tests of a definition, given as text, or of files."""
    def runs(definition, *arguments, stdin=None):
        file = tmp_path / "shop.yaml"
        if "\n" in str(definition):
            file.write_text(definition)
        else:
            file = definition
        return penstock("test", *arguments, file, stdin=stdin,
                        env={"TMPDIR": str(temp), "PENSTOCK_URL": "http://127.0.0.1:1"})
    return runs


def flow(steps, tests, more=""):
    """A pipeline with one flow `f` and these tests; both are YAML in one line each, or lines."""
    lines = "\n".join("  " + line for line in tests.strip("\n").splitlines())
    return f"""name: shop
topics: {{orders: {{}}}}
flows:
  f:
    from: {{topic: orders}}
    steps: {steps}
    to: {{topic: orders}}
    {more}
tests:
{lines}
"""


LARGE = flow("[{filter: event.total > 100}, {map: {id: event.id, total: event.total}}]", """
large_ones_pass:
  flow: f
  given: [{id: 1, total: 80}, {id: 2, total: 250}]
  expect: [{total: 250.0, id: 2}]
none_of_these:
  flow: f
  given: [{id: 1, total: 80}]
  expect: []
""")


def test_all_pass(run):
    finished = run(LARGE)
    assert finished.returncode == OK, finished
    first, second, totals = finished.stdout.splitlines()
    assert re.fullmatch(r"ok +\S*shop\.yaml:10: large_ones_pass \(\d+\.\d ms\)", first)
    assert "none_of_these" in second
    assert totals == "2 passed, 0 failed"
    assert finished.stderr == ""


def test_a_failure_shows_the_difference(run):
    finished = run(LARGE.replace("expect: []", "expect: [{id: 1, total: 81}, {id: 9}]").replace("total: 80}]", "total: 180}]"))
    assert finished.returncode == NO
    assert re.search(r"FAILED +\S*shop\.yaml:14: none_of_these", finished.stdout)
    lines = [line.strip() for line in finished.stdout.splitlines()]
    assert lines[-1] == "1 passed, 1 failed"
    shown = lines[lines.index("expect: 2 events expected, 1 came"):-1]
    assert shown == [
        "expect: 2 events expected, 1 came",
        "event 1 differs: /total: 81 expected, 180 came",
        'expected  {"id":1,"total":81}',
        'got       {"id":1,"total":180}',
        "event 2 is missing",
        'expected  {"id":9}',
    ]


def test_of_many_differences_the_first_are_shown(run):
    finished = run(flow("[{filter: event.n > 0}]", """
t: {flow: f, given: [{n: 1}, {n: 2}, {n: 3}, {n: 4}, {n: 5}, {n: 6}, {n: 7}, {n: 8}], expect: []}
"""))
    assert finished.stdout.count("is one too many") == 5
    assert "and 3 more differences" in finished.stdout


def test_json(run):
    finished = run(LARGE.replace("expect: []", "expect: [{id: 1}]"), "--json")
    assert finished.returncode == NO
    told = json.loads(finished.stdout)
    assert (told["passed"], told["failed"], told["invalid"]) == (1, 1, 0)
    [file] = told["files"]
    assert file["valid"] and file["errors"] == []
    good, bad = file["tests"]
    assert good["passed"] and good["name"] == "large_ones_pass" and good["unmet"] == [] and good["duration_ms"] > 0
    assert not bad["passed"] and bad["line"] == 14
    assert bad["unmet"] == [{"where": "expect", "expected": 1, "got": 0, "differences": [{"index": 0, "expected": {"id": 1}}]}]


def test_a_broken_definition_is_told_as_validate_tells_it(run):
    finished = run(LARGE.replace("    given", "    step: flter_1\n    given", 1))
    assert finished.returncode == BROKEN
    assert re.search(r"shop\.yaml:12:\d+: /tests/large_ones_pass/step: there is no step 'flter_1'; did you mean 'filter_1'\?",
                     finished.stdout)
    assert finished.stdout.splitlines()[-1] == "0 passed, 0 failed, 1 file is not valid"
    told = json.loads(run(LARGE.replace("flow: f", "flow: g", 1), "--json").stdout)
    assert told["invalid"] == 1 and told["files"][0]["errors"][0]["pointer"] == "/tests/large_ones_pass/flow"


def test_files_folders_and_names(run, tmp_path, temp):
    folder = tmp_path / "all"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "a.yaml").write_text(LARGE)
    (folder / "below" / "b.yml").write_text(LARGE.replace("large_ones_pass", "others"))
    (folder / ".hidden" / "c.yaml").write_text("nonsense")
    (folder / "notes.txt").write_text("nonsense")
    both = run(folder)
    assert both.returncode == OK and both.stdout.splitlines()[-1] == "4 passed, 0 failed"
    named = run(folder, "-k", "large")
    assert named.returncode == OK and named.stdout.splitlines()[-1] == "1 passed, 0 failed"
    assert run(folder, "-k", "large", "-k", "other").stdout.splitlines()[-1] == "2 passed, 0 failed"
    nobody = run(folder, "-k", "lagre")
    assert nobody.returncode == BROKEN and "no test is named like lagre" in nobody.stderr
    from_stdin = run("-", stdin=LARGE)
    assert from_stdin.returncode == OK and "stdin:10" in from_stdin.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(empty).returncode == BROKEN
    assert run("/no/such/file.yaml").returncode == BROKEN
    (folder / "z.yaml").write_text("name: z\nflow: {}\n")
    worst = run(folder)
    assert worst.returncode == BROKEN and worst.stdout.splitlines()[-1] == "4 passed, 0 failed, 1 file is not valid"


def test_a_file_without_tests_says_so(run):
    finished = run("name: bare\ntopics: {t: {}}\n")
    assert finished.returncode == OK
    first, totals = finished.stdout.splitlines()
    assert first.endswith("shop.yaml: has no tests") and totals == "0 passed, 0 failed"


DIES = "[{map: {half: event.n / 2}}, {filter: 'event.half > 0', name: positive}]"


def test_an_unexpected_dead_letter_fails_the_test(run):
    finished = run(flow(DIES, "t: {flow: f, given: [{n: 2}, {n: poison}], expect: [{half: 1}]}"))
    assert finished.returncode == NO
    assert "dead: 0 dead letters expected, 1 came" in finished.stdout
    assert '"step":"map_1"' in finished.stdout and '"data":{"n":"poison"}' in finished.stdout


def test_an_expected_dead_letter(run):
    finished = run(flow(DIES, """
in_words: {flow: f, given: [{n: 2}, {n: poison}], expect: [{half: 1}], dead: attempt to div}
in_full: {flow: f, given: [{n: poison}], expect: [], dead: [{step: map_1, reason: "a 'string'", data: {n: poison}}]}
at_another_step: {flow: f, given: [{n: poison}], expect: [], dead: {step: positive}}
for_another_reason: {flow: f, given: [{n: poison}], expect: [], dead: too late}
that_never_came: {flow: f, given: [{n: 2}], expect: [{half: 1}], dead: [{step: map_1}]}
several_in_the_order_of_the_events: {flow: f, given: [{n: a}, {n: 1}, {n: b}], expect: [{half: 0.5}], dead: [{data: {n: a}}, {data: {n: b}}]}
"""))
    assert finished.returncode == NO
    verdicts = {name: word for word, name in re.findall(r"^(ok|FAILED) +\S+ (\w+) \(", finished.stdout, re.MULTILINE)}
    assert verdicts == {"in_words": "ok", "in_full": "ok", "at_another_step": "FAILED", "for_another_reason": "FAILED",
                        "that_never_came": "FAILED", "several_in_the_order_of_the_events": "ok"}, finished.stdout


def test_one_step_alone(run):
    finished = run(flow(DIES, """
only_the_second: {flow: f, step: positive, given: [{half: 1}, {half: -1}], expect: [{half: 1}]}
only_the_first: {flow: f, step: map_1, given: [{n: -2}], expect: [{half: -1}]}
"""))
    assert finished.returncode == OK, finished.stdout


def test_an_endless_loop_is_ended_by_its_limit(run):
    finished = run(flow("[{script: 'while true do end'}]", """
t: {flow: f, given: [{n: 1}], expect: [], dead: [{step: script_1, reason: limit}]}
"""))
    assert finished.returncode == OK, finished.stdout


WINDOW = "[{window: {tumbling: 1h, key: event.net, time: event.time, aggregates: {quakes: count, highest: {max: event.mag}}}}]"


def test_windows(run):
    finished = run(flow(WINDOW, """
emitted_at_the_end:
  flow: f
  given:
    - {net: ak, time: "2018-02-07T12:10:00Z", mag: 3}
    - {net: ak, time: "2018-02-07T12:50:00Z", mag: 2}
    - {net: ak, time: "2018-02-07T13:10:00Z", mag: 1}
    - {net: ak, time: "2018-02-07T12:20:00Z", mag: 9}
  expect:
    - {key: ak, from: "2018-02-07T12:00:00.000000Z", until: "2018-02-07T13:00:00.000000Z", revision: 1, quakes: 2, highest: 3}
    - {key: ak, from: "2018-02-07T13:00:00.000000Z", until: "2018-02-07T14:00:00.000000Z", revision: 1, quakes: 1, highest: 1}
  outputs:
    late: [{net: ak, time: "2018-02-07T12:20:00Z", mag: 9}]
kept:
  flow: f
  at_end: keep
  given: [{net: ak, time: "2018-02-07T12:10:00Z", mag: 3}]
  expect: []
""", more="outputs: {late: drop}"))
    assert finished.returncode == OK, finished.stdout


def test_the_clock_stands_still(run):
    """`now` is what windows of the wall clock, and the limit of times ahead of it, go by; events without a time get it."""
    finished = run(flow("[{window: {tumbling: 1h, clock: processing, aggregates: {n: count}}}]", """
at_noon:
  flow: f
  now: 2018-02-07T12:30:00Z
  given: [{n: 1}, {n: 2}]
  expect: [{event: {time: 2018-02-07T13:00:00Z}, data: {key: null, from: "2018-02-07T12:00:00.000000Z", until: "2018-02-07T13:00:00.000000Z", revision: 1, n: 2}}]
"""))
    assert finished.returncode == OK, finished.stdout
    finished = run(flow(WINDOW, """
from_the_future:
  flow: f
  now: 2018-02-07T12:30:00Z
  given: [{net: ak, time: "2018-02-07T14:30:00Z", mag: 1}]
  expect: []
  dead: ahead
"""))
    assert finished.returncode == OK, finished.stdout
    finished = run(flow("[{map: {at: meta.time, id: meta.id, key: meta.key, topic: meta.topic}}]", """
attributes:
  flow: f
  now: 2018-02-07T12:30:00Z
  given: [1, {event: {id: x, key: k7, time: 2018-01-01T01:00:00+01:00, topic: other}, data: 2}]
  expect:
    - {at: "2018-02-07T12:30:00.000000Z", id: "1", key: null, topic: orders}
    - {event: {key: k7}, data: {at: "2018-01-01T00:00:00.000000Z", id: x, key: k7, topic: other}}
"""))
    assert finished.returncode == OK, finished.stdout


def test_dedupe_and_no_memory_between_tests(run):
    finished = run(flow("[{dedupe: {key: event.id, within: 1h}}]", """
twice: {flow: f, given: [{id: 1}, {id: 2}, {id: 1}], expect: [{id: 1}, {id: 2}]}
again: {flow: f, given: [{id: 1}], expect: [{id: 1}]}
"""))
    assert finished.returncode == OK, finished.stdout


def test_named_outputs(run):
    definition = flow("[{route: {to: {big: event.total > 5000, to: event.total < 0}}}]", """
sorted:
  flow: f
  given: [{total: 1}, {total: 9000}, {total: -1}]
  expect: [{total: 1}]
  outputs: {big: [{total: 9000}], to: {total: -1}}
not_looked_at: {flow: f, given: [{total: 9000}], expect: []}
""", more="outputs: {big: {http: {url: 'http://127.0.0.1:1/'}}, to: drop}")
    assert run(definition).returncode == OK
    finished = run(definition.replace("big: [{total: 9000}]", "big: []"))
    assert finished.returncode == NO and "outputs/big: 0 events expected, 1 came" in finished.stdout


def test_jobs_tasks_and_parameters(run):
    finished = run("""name: shop
topics: {orders: {}}
jobs:
  load:
    trigger: {topic: orders}
    params: {least: 10, region: {type: string, default: eu}}
    steps:
      - filter: event.total >= params.least
      - map: {total: event.total, region: params.region, job: run.job, attempt: run.attempt}
    to: {sqlite: {file: orders.db, table: orders}}
  report:
    tasks:
      clean: {from: {file: nowhere.ndjson}, steps: [{filter: event.ok}], to: drop}
      print: {run: [echo], needs: [clean]}
tests:
  by_default: {job: load, given: [{total: 9}, {total: 10}], expect: [{total: 10, region: eu, job: load, attempt: 1}]}
  with_params: {job: load, params: {least: 1, region: us}, given: {total: 9}, expect: {total: 9, region: us, job: load, attempt: 1}}
  one_task: {job: report, task: clean, given: [{ok: true}, {ok: false}], expect: [{ok: true}]}
""")
    assert finished.returncode == OK, finished.stdout


def test_the_real_source_and_sinks_are_left_alone(run, tmp_path):
    out = tmp_path / "out.ndjson"
    finished = run(f"""name: shop
topics: {{orders: {{}}}}
flows:
  f:
    from: {{webhook: {{path: /orders, signature: {{scheme: hmac-sha256, header: X-S, secret: "${{env:NO_SUCH_SECRET}}"}}}}}}
    steps: [{{filter: event.ok}}]
    to: {{file: {{path: {out}}}}}
tests: {{t: {{flow: f, given: {{ok: true}}, expect: {{ok: true}}}}}}
""")
    assert finished.returncode == OK, finished.stdout
    assert not out.exists()


def test_files_and_programs_beside_the_definition(run, tmp_path):
    (tmp_path / "double.py").write_text("import json, sys\n"
                                        "for line in sys.stdin: print(json.dumps({'n': json.loads(line)['n'] * 2}), flush=True)\n")
    finished = run(flow("[{exec: [python3, '${dir}/double.py']}]", "t: {flow: f, given: [{n: 1}, {n: 4}], expect: [{n: 2}, {n: 8}]}"))
    assert finished.returncode == OK, finished.stdout


def test_a_step_that_cannot_work_fails_the_test_in_words(run):
    finished = run(flow("[{exec: [/no/such/program]}]", "t: {flow: f, given: [{n: 1}], expect: []}"))
    assert finished.returncode == NO
    assert "it cannot be run: " in finished.stdout and "/no/such/program" in finished.stdout


def test_a_program_that_has_gone_does_not_take_the_client_with_it(run):
    finished = run(flow("[{exec: {run: [sh, -c, 'exit 3']}}]", "t: {flow: f, given: [{n: 1}, {n: 2}], expect: []}"))
    assert finished.returncode == NO, finished
    assert finished.stdout.splitlines()[-1] == "0 passed, 1 failed"


def test_a_workdir_that_is_not_there_is_not_made(run, tmp_path):
    away = tmp_path / "away"
    text = flow("[{exec: [cat]}]", "t: {flow: f, given: [1], expect: [1]}").replace("topics:", f"workdir: {away}\ntopics:", 1)
    finished = run(text)
    assert finished.returncode == OK, finished.stdout
    assert not away.exists()


def test_what_is_no_text_is_shown_all_the_same(run, tmp_path):
    (tmp_path / "bytes.py").write_text("import sys\nfor line in sys.stdin: sys.stdout.buffer.write(b'\\xff\\n'), sys.stdout.flush()\n")
    finished = run(flow("[{exec: [python3, '${dir}/bytes.py']}]", "t: {flow: f, given: [{n: 1}], expect: [{n: 1}]}"), "--json")
    assert finished.returncode == NO, finished
    assert json.loads(finished.stdout)["failed"] == 1


def test_without_a_folder_to_work_in_the_test_fails_in_words(temp):
    file = temp.parent / "shop.yaml"
    file.write_text(LARGE)
    finished = penstock("test", file, env={"TMPDIR": str(temp / "nowhere")})
    assert finished.returncode == NO
    assert finished.stdout.count("it cannot be run: ") == 2 and finished.stdout.splitlines()[-1] == "0 passed, 2 failed"


def test_two_topics_joined(run):
    finished = run("""name: shop
topics: {orders: {}, payments: {}}
flows:
  pay:
    from: {topics: [orders, payments]}
    steps:
      - join:
          left: {where: meta.topic == 'orders', key: event.id, as: order}
          right: {where: meta.topic == 'payments', key: event.order, as: payment}
          within: 10m
          time: event.at
          unmatched: left
    to: drop
tests:
  paid_or_not:
    flow: pay
    given:
      - {event: {topic: orders}, data: {id: a, at: "2018-02-07T12:00:00Z"}}
      - {event: {topic: orders}, data: {id: b, at: "2018-02-07T12:01:00Z"}}
      - {event: {topic: payments}, data: {order: a, at: "2018-02-07T12:04:00Z"}}
    expect:
      - {key: a, order: {id: a, at: "2018-02-07T12:00:00Z"}, payment: {order: a, at: "2018-02-07T12:04:00Z"}}
      - {key: b, order: {id: b, at: "2018-02-07T12:01:00Z"}, payment: null}
  not_yet: {flow: pay, at_end: keep, given: {event: {topic: orders}, data: {id: a, at: "2018-02-07T12:00:00Z"}}, expect: []}
""")
    assert finished.returncode == OK, finished.stdout


def test_a_table_beside_the_definition_and_several_parts_at_once(run, tmp_path):
    (tmp_path / "rates.csv").write_text("code,rate\nEUR,1\nUSD,0.9\n")
    steps = "[{enrich: {from: {csv: rates.csv}, key: event.code, into: found, miss: dead_letter}}, {map: {rate: event.found.rate}}]"
    finished = run(flow(steps, """
known: {flow: f, given: [{code: EUR}, {code: USD}], expect: [{rate: "1"}, {rate: "0.9"}]}
unknown: {flow: f, given: [{code: ZZZ}], expect: [], dead: [{step: enrich_1}]}
""", more="parallel: 4").replace("topics:", 'workdir: "${dir}"\ntopics:', 1))
    assert finished.returncode == OK, finished.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rates.csv", "shop.yaml", "temp"]


def test_texts_that_are_no_json_and_numbers_as_they_are(run):
    finished = run(flow("[{filter: 'true'}]", r'''
raw: {flow: f, given: {event: {datacontenttype: text/plain}, data: "a, b\n"}, expect: {event: {datacontenttype: text/plain}, data: "a, b\n"}}
json_texts: {flow: f, given: ["a\nb", null, true, [1, [2]], "ünï"], expect: ["a\nb", null, true, [1, [2]], "ünï"]}
numbers: {flow: f, given: [9007199254740993, 0.1, 1.0, -0.0], expect: [9007199254740993, 0.1, 1, 0]}
'''))
    assert finished.returncode == OK, finished.stdout


def test_ten_thousand_events(run):
    given = ", ".join(f"{{n: {n}}}" for n in range(10_000))
    expect = ", ".join(f"{{n: {n}}}" for n in range(0, 10_000, 2))
    finished = run(flow("[{filter: event.n % 2 == 0}]", f"t: {{flow: f, given: [{given}], expect: [{expect}]}}"), "--json")
    assert finished.returncode == OK
    assert json.loads(finished.stdout)["files"][0]["tests"][0]["duration_ms"] < MINUTE * 1000


def test_what_the_step_log_shows_goes_to_stderr(run):
    finished = run(flow("[{log: {text: \"'saw ' .. event.n\"}}]", "t: {flow: f, given: [{n: 7}], expect: [{n: 7}]}"), "--json")
    assert finished.returncode == OK
    assert json.loads(finished.stdout)["passed"] == 1
    assert "saw 7" in finished.stderr


def test_interrupted_it_leaves_nothing(tmp_path, temp):
    file = tmp_path / "slow.yaml"
    mark = f"left-by-{os.getpid()}"
    file.write_text(flow(f"[{{exec: {{run: [sh, -c, 'echo started >&2; tail -f /dev/null # {mark}'], timeout: 5m}}}}]",
                         "t: {flow: f, given: [{n: 1}], expect: []}"))
    errors = tmp_path / "errors"
    with open(errors, "w") as stderr:
        process = subprocess.Popen([str(BIN / "penstock"), "test", str(file)], stdout=subprocess.DEVNULL, stderr=stderr,
                                   env={**os.environ, "TMPDIR": str(temp)})
    wait_until(lambda: "started" in errors.read_text(), "the program of the step")
    assert list(temp.iterdir()) != []
    process.send_signal(signal.SIGINT)
    assert process.wait(MINUTE) == 128 + signal.SIGINT
    assert not processes_with(mark)


def test_the_daemon_stores_tests_and_restarts_nothing_for_them(start_daemon):
    daemon = start_daemon({"shop": LARGE})
    wait_until(lambda: daemon.flow("shop", "f")["state"] == "running", "the flow to run: it is compared with itself")
    before = daemon.get("/v1/pipelines/shop/flows/f").json
    changed = LARGE.replace("total: 80}]", "total: 81}]")
    daemon.put("shop", changed)
    assert daemon.get("/v1/pipelines/shop").json["revision"] == 2
    assert daemon.get("/v1/pipelines/shop/flows/f").json == before
    assert daemon.get("/v1/pipelines/shop").json["definition"]["tests"]["none_of_these"]["given"] == [{"id": 1, "total": 81}]


@pytest.mark.parametrize("example", sorted(path.parent.name for path in EXAMPLES.glob("*/*.yaml")))
def test_the_examples(example, run):
    finished = run(EXAMPLES / example)
    assert finished.returncode == OK, finished.stdout
    assert "has no tests" not in finished.stdout


def test_the_page_says_what_is_so(run):
    page = (ROOT / "deploy" / "flows.md").read_text()
    section = page.split("## Tests of a pipeline")[1].split("\n## ")[0]
    definition = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)[1]
    shown = re.search(r"```console\n(.*?)```", section, re.DOTALL)[1].splitlines()[1:]
    finished = run(definition)
    assert finished.returncode == NO, finished.stdout

    def plain(lines):
        return [re.sub(r"\(.* ms\)", "", re.sub(r"\S*\.yaml", "FILE", line)).rstrip() for line in lines]
    assert plain(shown) == plain(finished.stdout.splitlines())
