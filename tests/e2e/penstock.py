"""The real penstockd under test, spoken to in the words of the domain.

A Daemon owns one process and one data folder; the folder outlives the process, so kill9() and start() is a crash and a
recovery. Nothing here sleeps to wait: readiness is read from the daemon's log as it is written, ends of runs are waited
for over REST (`?wait=`), and everything else goes through wait_until(), the one place with a polling interval.

Every answer is held against the daemon's own /openapi.json (contract.py): what it does not document fails the test.
"""
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.parse

from contract import Contract

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "deploy" / "examples"
BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN_DIR", ROOT / "build" / "release" / "bin"))

FINAL = {"succeeded", "failed", "cancelled", "timed_out", "skipped"}
POLL = 0.02         # seconds between two looks in wait_until
PATIENCE = 30       # seconds after which waiting is a failure
READY_WITHIN = 60   # seconds from start to ready


class Answer:
    """One HTTP response, read whole."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers.get('content-type', '')} {self.body[:600]!r}>"


def ndjson(events):
    return "".join(json.dumps(event) + "\n" for event in events).encode()


def wait_until(look, what, timeout=PATIENCE):
    """Returns the first true value of look(); fails when there is none in time. The only polling loop of the tests."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what}; last seen: {found!r}"
        pause.wait(POLL)


class Connection(http.client.HTTPConnection):
    """One whose answers are checked as far as their head: what tests read by themselves, streams above all."""

    def __init__(self, daemon, timeout):
        super().__init__(*daemon.address, timeout=timeout)
        self.daemon = daemon
        self.asked = ("GET", "/")

    def putrequest(self, method, url, *arguments, **options):
        self.asked = (method, url)
        super().putrequest(method, url, *arguments, **options)

    def getresponse(self):
        response = super().getresponse()
        self.daemon.contract().check(*self.asked, response.status, {n.lower(): value for n, value in response.getheaders()})
        return response


class Daemon:
    shared_contract = None  # one document for all: it is the same program

    def __init__(self, folder, pipelines=None, env=None, args=()):
        """`pipelines`: {name: YAML text} put over REST at the first start, or a folder given to --pipelines."""
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.log = self.folder / "penstockd.log"
        self.pipelines = pipelines
        self.env = {**os.environ, "TZ": "UTC", **(env or {})}
        self.args = list(args)
        self.process = None
        self.address = None  # (host, port)
        self.token = None    # sent with every request that brings no Authorization of its own
        self.killed = False
        self._reader = None

    # ---- the process ----

    def start(self, listen="127.0.0.1:0"):
        assert self.process is None, "it runs already"
        command = [BIN / "penstockd", "--data", self.data, "--listen", listen, *self.args]
        first_time = not self.data.exists()
        if isinstance(self.pipelines, (str, pathlib.Path)):
            command += ["--pipelines", self.pipelines]
        self.killed = False
        self.process = subprocess.Popen(
            [str(part) for part in command], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)
        listening = threading.Event()
        self._reader = threading.Thread(target=self._read_log, args=(self.process, listening), daemon=True)
        self._reader.start()
        assert listening.wait(READY_WITHIN) and self.address, f"penstockd did not start:\n{self.log_tail()}"
        wait_until(lambda: self.get("/readyz").status == 200, "/readyz to be 200", READY_WITHIN)
        if first_time and isinstance(self.pipelines, dict):
            for name, text in self.pipelines.items():
                self.put(name, text)
        return self

    def _read_log(self, process, listening):
        with open(self.log, "a", encoding="utf-8", errors="replace") as copy:
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace")
                copy.write(line)
                copy.flush()
                found = re.search(r"listening on http://([0-9.]+):(\d+)", line)
                if found:
                    self.address = (found[1], int(found[2]))
                    listening.set()
        listening.set()  # it has ended: waiting for more would be in vain

    def log_tail(self, lines=40):
        return "".join(self.log.read_text().splitlines(keepends=True)[-lines:]) if self.log.exists() else ""

    @property
    def pid(self):
        return self.process.pid

    def kill9(self):
        """The crash: nothing of the daemon runs after this line."""
        self.killed = True
        self.process.kill()
        self._ended()

    def stop(self, timeout=60):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended(timeout)

    def _ended(self, timeout=60):
        code = self.process.wait(timeout)
        self._reader.join(timeout=5)
        self.process = None
        self.address = None
        return code

    def restart(self):
        if self.process:
            assert self.stop() == 0, self.log_tail()
        return self.start()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    # ---- HTTP ----

    def connect(self, timeout=60):
        return Connection(self, timeout)

    def contract(self):
        if Daemon.shared_contract is None:
            document = self._document()
            Daemon.shared_contract = Contract(document) if document else contract_of_an_open_daemon()
        return Daemon.shared_contract

    def _document(self):
        """None: it is shown only to those with a token, or there is no plain HTTP at the address."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            connection.request("GET", "/openapi.json")
            response = connection.getresponse()
            text = response.read()
            return json.loads(text) if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def request(self, method, path, body=None, headers=None, timeout=60):
        connection = self.connect(timeout)
        headers = {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **(headers or {})}
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
                headers = {"Content-Type": "application/json", **(headers or {})}
            if isinstance(body, str):
                body = body.encode()
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()
        self.contract().check(method, path, answer.status, answer.headers, answer.body)
        return answer

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def get_json(self, path):
        answer = self.get(path)
        assert answer.status == 200, (path, answer)
        return answer.json

    def post(self, path, body=None, headers=None):
        return self.request("POST", path, body if body is not None else b"", headers)

    # ---- definitions ----

    def put(self, name, text, expect=(200, 201), headers=None, query=""):
        answer = self.request("PUT", f"/v1/pipelines/{name}{query}", text,
                              {"Content-Type": "application/yaml", **(headers or {})})
        assert answer.status in expect, answer
        return answer

    def pipeline(self, name):
        return self.get_json(f"/v1/pipelines/{name}")

    def flow(self, pipeline, name):
        return next(flow for flow in self.pipeline(pipeline)["flows"] if flow["name"] == name)

    def job(self, pipeline, name):
        return next(job for job in self.pipeline(pipeline)["jobs"] if job["name"] == name)

    # ---- events ----

    def publish(self, topic, events):
        """Posts the events as NDJSON; they are durable when this returns."""
        answer = self.post(f"/v1/topics/{topic}/events", ndjson(events), {"Content-Type": "application/x-ndjson"})
        assert answer.status == 202, answer
        return answer.json

    def topic(self, name):
        return self.get_json(f"/v1/topics/{name}")

    def events(self, topic, after=0):
        """All events of a topic after an offset, page by page, as CloudEvents."""
        found = []
        while True:
            page = self.get_json(f"/v1/topics/{topic}/events?after={after}&limit=1000")["items"]
            if not page:
                return found
            found += page
            after = int(page[-1]["offset"])

    def wait_for_topic(self, topic, count, timeout=PATIENCE):
        return wait_until(lambda: (self.topic(topic)["events"] >= count) and self.events(topic),
                          f"{count} events in topic {topic}", timeout)

    # ---- runs ----

    def trigger(self, pipeline, job, body=None, wait=None, headers=None):
        query = f"?wait={wait}" if wait else ""
        return self.request("POST", f"/v1/pipelines/{pipeline}/jobs/{job}/runs{query}", body or {}, headers)

    def run_to_end(self, pipeline, job, body=None):
        answer = self.trigger(pipeline, job, body)
        assert answer.status == 202, answer
        return self.wait_for_run(answer.json["id"])

    def run(self, run_id):
        return self.get_json(f"/v1/runs/{run_id}")

    def runs(self, pipeline=None, job=None, **filters):
        """All runs that match, oldest first."""
        wanted = {"pipeline": pipeline, "job": job, "limit": 500, **filters}
        query = urllib.parse.urlencode({name: value for name, value in wanted.items() if value})
        found, cursor = [], None
        while True:
            page = self.get_json(f"/v1/runs?{query}" + (f"&cursor={urllib.parse.quote(cursor)}" if cursor else ""))
            found += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return found[::-1]

    def wait_for_run(self, run_id, timeout=PATIENCE):
        """The run once it is final; the daemon itself waits."""
        deadline = time.monotonic() + timeout
        while True:
            run = self.get_json(f"/v1/runs/{run_id}?wait=5s")
            if run["state"] in FINAL:
                return run
            assert time.monotonic() < deadline, f"the run has not ended in {timeout} s: {run}"

    def wait_for_runs(self, pipeline, job, count, timeout=PATIENCE):
        """Exactly `count` runs of the job, all final, oldest first."""
        def look():
            found = self.runs(pipeline, job)
            assert len(found) <= count, f"{len(found)} runs, wanted {count}: {found}"
            return len(found) == count and all(run["state"] in FINAL for run in found) and found
        return wait_until(look, f"{count} ended runs of {pipeline}/{job}", timeout)

    def wait_until_quiet(self, pipeline, timeout=PATIENCE):
        """Every topic read to its end by everyone, every run of the pipeline ended."""
        def look():
            lags = [c["lag"] for t in self.get_json("/v1/topics?limit=1000")["items"] for c in t["consumers"]]
            # The topics first: what they still hold becomes runs.
            return not any(lags) and all(run["state"] in FINAL for run in self.runs(pipeline))
        return wait_until(look, f"pipeline {pipeline} to have done everything", timeout)

    def logs(self, run_id, task=None):
        return self.get(f"/v1/runs/{run_id}/logs" + (f"?task={task}" if task else "")).text

    def cancel(self, run_id):
        answer = self.post(f"/v1/runs/{run_id}/cancel")
        assert answer.status in (200, 202), answer
        return answer

    # ---- what is left behind ----

    def work(self, pipeline):
        return self.data / "work" / pipeline

    def rows(self, pipeline, file, query):
        with sqlite3.connect(f"file:{self.work(pipeline) / file}?mode=ro", uri=True, timeout=10) as connection:
            return connection.execute(query).fetchall()

    def dead_letters(self, pipeline=None):
        return self.get_json("/v1/dead-letters?limit=1000" + (f"&pipeline={pipeline}" if pipeline else ""))["items"]


def contract_of_an_open_daemon():
    """The document of a daemon that everybody may ask; it is the same program."""
    other = Daemon(scratch_folder())
    try:
        return other.start().contract()
    finally:
        other.stop()
        remove_folder(other.folder)


def signed(secret, body, header="X-Quakes-Signature"):
    return {header: hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(), "Content-Type": "application/json"}


def penstock(*arguments, daemon=None, stdin=None, env=None, timeout=60):
    """Runs the operator's client; returns the finished process."""
    surroundings = {**os.environ, **(env or {})}
    if daemon:
        surroundings["PENSTOCK_URL"] = "http://%s:%d" % daemon.address
    return subprocess.run([str(BIN / "penstock"), *map(str, arguments)], env=surroundings, input=stdin, text=True,
                          capture_output=True, timeout=timeout)


def refused_start(*arguments):
    """What a daemon says that does not start."""
    done = subprocess.run([str(BIN / "penstockd"), "--listen", "127.0.0.1:0", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0, done
    return done.stdout + done.stderr


# ---- processes, for the tests that ask whether one is really gone ----


def process_exists(pid):
    """A zombie is gone already: it runs no more."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def processes_with(text):
    """Process ids whose environment or command line holds the text."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            seen = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
        if text.encode() in seen and process_exists(int(entry.name)):
            found.append(int(entry.name))
    return found


def scratch_folder():
    return pathlib.Path(tempfile.mkdtemp(prefix="penstock-e2e-"))


def remove_folder(folder):
    shutil.rmtree(folder, ignore_errors=True)
