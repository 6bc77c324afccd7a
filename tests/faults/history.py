"""The history checker: what was promised, against what is there.

A Driver posts events and triggers from several threads and writes down every answer that it got; where it got none (the
daemon was killed in between) it asks the same again until it is answered, as a careful client would: events carry ids that
the topic dedupes by, triggers carry an Idempotency-Key. Meanwhile somebody kills the daemon with SIGKILL at random moments
and starts it again. At the end check() compares the driver's history with topics, SQLite rows, files, runs and dead
letters. Nothing here knows how the daemon works; only what design.md section 4 says of the outcome.
"""
import collections
import contextlib
import http.client
import json
import random
import threading

from penstock import FINAL, ndjson, wait_until

KEYS = 8           # events of one key are posted one after the other, so their order is known
POISON_EVERY = 41  # one of so many events cannot be processed
DEFINITION = """
name: history
topics:
  in: {dedupe: {key: event.id, within: 24h}}
  mid: {}
flows:
  copy:
    from: {topic: in}
    steps:
      - script: "if event.poison then error('poison') end"
      - map: {id: event.id, key: event.key, n: event.n}
    to: {topic: mid}
  rows:
    from: {topic: mid}
    to: {sqlite: {file: rows.db, table: events}}
  lines:
    from: {topic: mid}
    to: {file: {path: lines.ndjson}}
jobs:
  load:
    trigger: {topic: mid, max_events: 50, max_wait: 100ms}
    to: {sqlite: {file: load.db, table: events}}
    retry: {attempts: 100, backoff: 10ms..500ms}
  program:
    trigger: {topic: mid, max_events: 200, max_wait: 200ms}
    run: [sh, -c, "cat >> program.ndjson; echo $PENSTOCK_RUN_ID >> program.runs"]
    on_overlap: allow
    retry: {attempts: 100, backoff: 10ms..500ms}
  asked:
    run: [sh, -c, "echo $PENSTOCK_PARAM_KEY >> asked"]
    params: {key: {type: string}}
    on_overlap: allow
    retry: {attempts: 100, backoff: 10ms..500ms}
"""


def arguments(folder):
    """Of a daemon that forgets no run, or the checker would miss it."""
    settings = folder / "penstock.yaml"
    settings.write_text("keep_runs: 10000000\n")
    return ["--config", settings]


class Driver:
    """Threads that post until stop(); each has one kind of request and repeats it until it is answered."""

    def __init__(self, daemon, seed, pace=0):
        """`pace`: seconds that each thread lets pass after an answer."""
        self.daemon = daemon
        self.seed = seed
        self.pace = pace
        self.stopping = threading.Event()
        self.accepted = {}                   # event id -> (key, n, poison)
        self.accepted_runs = {}              # idempotency key -> run id, as first answered
        self.problems = []                   # an answer that must never be given
        self.repeated = 0                    # requests that had to be asked again
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._post_events, args=(key,), daemon=True) for key in range(KEYS)]
        self._threads += [threading.Thread(target=self._ask_for_runs, args=(n,), daemon=True) for n in range(2)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a client got no answer for a minute"

    def _until_answered(self, method, path, body, headers):
        """The answer; asks again when the connection breaks or the daemon says that it is not ready."""
        pause = threading.Event()
        while True:
            address = self.daemon.address
            try:
                if address is None:
                    raise ConnectionError
                connection = http.client.HTTPConnection(*address, timeout=30)
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                text = answer.read()
                connection.close()
                if answer.status not in (429, 503):
                    return answer.status, json.loads(text)
            except (OSError, http.client.HTTPException):
                pass
            with self._lock:
                self.repeated += 1
            pause.wait(0.005)

    def _post_events(self, key):
        random_source = random.Random(f"{self.seed}/{key}")
        n = 0
        while not self.stopping.is_set():
            events = []
            for _ in range(random_source.choice([1, 1, 2, 20])):
                n += 1
                poison = random_source.randrange(POISON_EVERY) == 0
                events.append({"id": f"{key}-{n}", "key": key, "n": n, **({"poison": True} if poison else {})})
            status, answer = self._until_answered("POST", "/v1/topics/in/events", ndjson(events), {"Content-Type": "application/x-ndjson"})
            with self._lock:
                if status != 202 or answer["accepted"] + answer["duplicates"] != len(events):
                    self.problems.append(f"events {events[0]['id']}…: {status} {answer}")
                for event in events:
                    self.accepted[event["id"]] = (key, event["n"], "poison" in event)
            self.stopping.wait(self.pace)

    def _ask_for_runs(self, who):
        n = 0
        while not self.stopping.is_set():
            n += 1
            key = f"ask-{who}-{n}"
            status, answer = self._until_answered("POST", "/v1/pipelines/history/jobs/asked/runs", json.dumps({"params": {"key": key}}),
                                                  {"Content-Type": "application/json", "Idempotency-Key": key})
            with self._lock:
                if status not in (200, 202):
                    self.problems.append(f"run {key}: {status} {answer}")
                else:
                    self.accepted_runs[key] = answer["id"]
            self.stopping.wait(self.pace)


class Finding:
    """One line of the table: what should be somewhere, and what is."""

    def __init__(self, where, wanted, found, in_order=None, at_least_once=False):
        """`wanted`: set; `found`: all that is there, in its order; `in_order`: (group, number) of an item."""
        count = collections.Counter(found)
        self.where = where
        self.accepted = len(wanted)
        self.executed = len(count.keys() & wanted)
        self.lost = len(wanted - count.keys())
        self.foreign = len(count.keys() - wanted)
        self.doubled = sum(n - 1 for n in count.values())
        self.reordered = 0
        self.at_least_once = at_least_once
        if in_order:
            last = {}
            for item in dict.fromkeys(found):
                group, number = in_order(item)
                self.reordered += number < last.get(group, number)
                last[group] = number

    @property
    def good(self):
        return not (self.lost or self.foreign or self.reordered or (self.doubled and not self.at_least_once))

    HEAD = f"{'where':<34}{'accepted':>9}{'executed':>9}{'lost':>6}{'doubled':>8}{'foreign':>8}{'reordered':>10}"

    def __str__(self):
        note = "" if self.good else "   <-- broken"
        if self.at_least_once and self.doubled:
            note = "   (may repeat after a kill)"
        return f"{self.where:<34}{self.accepted:>9}{self.executed:>9}{self.lost:>6}{self.doubled:>8}{self.foreign:>8}{self.reordered:>10}{note}"


def key_and_number(event_id):
    key, number = event_id.split("-")
    return key, int(number)


def lines_of(file):
    return file.read_text().splitlines() if file.exists() else []


def check(daemon, driver, patience=120, programs=True):
    """[Finding], and sentences about what is no count. The daemon is up and nobody posts any more. `programs`: what programs
    have written counts; it is not synced, so after a loss of power it does not."""
    daemon.wait_until_quiet("history", timeout=patience)
    good = {event for event, (_, _, poison) in driver.accepted.items() if not poison}
    poison = driver.accepted.keys() - good
    wait_until(lambda: len(daemon.dead_letters()) >= len(poison) or len(daemon.dead_letters()) >= 1000, "the dead letters", patience)
    work = daemon.work("history")
    findings = [
        Finding("topic in", set(driver.accepted), [e["data"]["id"] for e in daemon.events("in")], key_and_number),
        Finding("topic mid (flow copy)", good, [e["data"]["id"] for e in daemon.events("mid")], key_and_number),
        Finding("dead letters (flow copy)", poison, [letter["event"]["data"]["id"] for letter in all_dead_letters(daemon) if letter["event"]]),
        Finding("SQLite rows (flow rows)", good, [row[0] for row in daemon.rows("history", "rows.db", "SELECT id FROM events ORDER BY rowid")], key_and_number),
        Finding("lines of a file (flow lines)", good, [json.loads(line)["id"] for line in lines_of(work / "lines.ndjson")], key_and_number),
        Finding("SQLite rows (job load)", good, [row[0] for row in daemon.rows("history", "load.db", "SELECT id FROM events ORDER BY rowid")], key_and_number),
        Finding("runs by their ids (job asked)", set(driver.accepted_runs.values()), [run["id"] for run in daemon.runs("history", "asked")]),
    ]
    if programs:
        fed = [json.loads(line)["id"] for line in lines_of(work / "program.ndjson")]
        findings.append(Finding("input of programs (job program)", good, fed, at_least_once=True))
        findings.append(Finding("runs asked for (job asked)", set(driver.accepted_runs), lines_of(work / "asked"), at_least_once=True))
    sentences = list(driver.problems)
    for job in ("load", "program", "asked"):
        for run in daemon.runs("history", job):
            if run["state"] != "succeeded":
                sentences.append(f"run {run['id']} of {job} is {run['state']}: {run['reason']}")
            if run["state"] not in FINAL:
                sentences.append(f"run {run['id']} of {job} is stuck")
        if job != "asked":
            claimed = sum(run["input"]["events"] for run in daemon.runs("history", job))
            if claimed != len(good):
                sentences.append(f"the runs of {job} have claimed {claimed} events of {len(good)}")
    for flow in daemon.pipeline("history")["flows"]:
        if flow["state"] != "running":
            sentences.append(f"flow {flow['name']} is {flow['state']}: {flow.get('reason')}")
    return findings, sentences


def all_dead_letters(daemon):
    found, cursor = [], ""
    while True:
        page = daemon.get_json("/v1/dead-letters?limit=1000" + (f"&cursor={cursor}" if cursor else ""))
        found += page["items"]
        cursor = page.get("next_cursor")
        if not cursor:
            return found


def damaged_databases(daemon):
    """Of a daemon that has stopped: what `PRAGMA integrity_check` finds, by file."""
    import sqlite3
    found = {}
    for file in sorted(daemon.data.rglob("*.db")):
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=10)) as database:
            said = [row[0] for row in database.execute("PRAGMA integrity_check")]
        if said != ["ok"]:
            found[str(file.relative_to(daemon.data))] = said
    return found


STOPS_IN_A_ROW = 40  # a run that 50 stops of the daemon have interrupted is given up, which is a promise too (deploy/jobs.md)


def let_interrupted_runs_end(daemon, done):
    """After each so many stops, what they have interrupted gets the time to end, beside the load. What does not is for check()."""
    if done % STOPS_IN_A_ROW != STOPS_IN_A_ROW - 1:
        return
    for run in daemon.runs("history", state="queued,running,retrying"):
        with contextlib.suppress(AssertionError):
            daemon.wait_for_run(run["id"], timeout=300)


def kill_again_and_again(daemon, kills, seed, report=lambda done: None):
    """The daemon is up at the end."""
    random_source = random.Random(seed)
    pause = threading.Event()
    for done in range(kills):
        let_interrupted_runs_end(daemon, done)
        pause.wait(random_source.choice([0, 0.01, 0.05, 0.2, 0.5]) * random_source.random())
        daemon.kill9()
        daemon.start()
        report(done + 1)
