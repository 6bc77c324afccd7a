"""The programs under measurement: started, spoken to and ended here. Python's standard library only.

A Daemon owns one penstockd and one data folder. A Process is any other server of this run. Both are ended by their process id,
and what they wrote goes with the scratch folder of the run.
"""
import http.client
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds after which waiting is a failure


def wait_until(look, what, patience=PATIENCE, pause=0.002):
    """Returns the first true value of look()."""
    waiting = threading.Event()
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {patience} s in vain for {what}")
        waiting.wait(pause)


def run_lines(*command, timeout=600):
    """Runs a benchmark; returns {name: value} of its lines "NAME VALUE UNIT" (figures.hpp)."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise RuntimeError(f"{pathlib.Path(str(command[0])).name}: {done.stderr.strip() or done.returncode}")
    return {words[0]: float(words[1]) for words in map(str.split, done.stdout.splitlines()) if len(words) == 3}


class Process:
    """A server beside ours; ends with stop()."""

    def __init__(self, command, log, env=None, stdin=subprocess.DEVNULL, stdout=None):
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen([str(word) for word in command], stdin=stdin, stdout=stdout or output,
                                            stderr=output, env={**os.environ, **(env or {})})

    def stop(self):
        if self.process.stdin:
            self.process.stdin.close()
        elif self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class BareServer(Process):
    """bench_server: the floor of HTTP."""

    def __init__(self, bin_folder, log):
        super().__init__([bin_folder / "bench_server"], log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())


class Daemon:
    SETTINGS = {"log_level": "warn", "keep_runs": 2_000_000}

    def __init__(self, bin_folder, folder, pipelines=None, settings=None):
        """`pipelines`: a folder for --pipelines. start() is to be called."""
        self.program = bin_folder / "penstockd"
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        chosen = {**self.SETTINGS, **(settings or {})}
        (self.folder / "settings.yaml").write_text("".join(f"{name}: {value}\n" for name, value in chosen.items()))
        self.arguments = ["--config", self.folder / "settings.yaml", "--data", self.data, "--listen", "127.0.0.1:0"]
        if pipelines:
            self.arguments += ["--pipelines", pipelines]
        self.process = None
        self.port = None

    def start(self):
        """Returns the seconds from its start to /readyz saying 200."""
        (self.data / "listen").unlink(missing_ok=True)
        began = time.monotonic()
        self.process = Process([self.program, *self.arguments], self.folder / "log")
        self.port = wait_until(self._find_port, f"penstockd to start; see {self.folder / 'log'}", pause=0.001)
        wait_until(lambda: self.ask("GET", "/readyz", expect=None)[0] == 200, "/readyz", pause=0.001)
        return time.monotonic() - began

    def _find_port(self):
        if self.process.process.poll() is not None:
            raise RuntimeError(f"penstockd has ended: {self.process.log.read_text()[-2000:]}")
        try:
            text = (self.data / "listen").read_text()
        except FileNotFoundError:
            return None
        return int(text.rsplit(":", 1)[1]) if text.endswith("\n") or text.strip().rsplit(":", 1)[-1].isdigit() else None

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def ask(self, method, path, body=None, kind="application/json", expect=(200, 201, 202, 204)):
        """(status, text); a status that is not expected is an error, unless `expect` is None."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            if isinstance(body, dict):
                body = json.dumps(body)
            connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if expect is not None and response.status not in expect:
            raise RuntimeError(f"{method} {path}: {response.status} {text[:500]}")
        return response.status, text

    def get(self, path):
        return json.loads(self.ask("GET", path)[1])

    def put(self, name, definition):
        self.ask("PUT", f"/v1/pipelines/{name}", definition, "application/yaml")

    def status_number(self, name):
        for line in pathlib.Path(f"/proc/{self.process.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        raise KeyError(name)

    def memory(self):
        """Resident, in KiB."""
        return self.status_number("VmRSS")

    def wakeups(self):
        """How often its threads gave up the processor by themselves (proc(5)): waking and waiting again adds one."""
        total = 0
        for status in pathlib.Path(f"/proc/{self.process.process.pid}/task").glob("*/status"):
            total += sum(int(line.split()[1]) for line in status.read_text().splitlines()
                         if line.startswith("voluntary_ctxt_switches:"))
        return total

    def wakeups_in(self, seconds, patience=30):
        """Once nothing has happened for half a second: how often it wakes up in so many seconds."""
        waiting = threading.Event()
        deadline = time.monotonic() + patience
        before = self.wakeups()
        while time.monotonic() < deadline:
            waiting.wait(0.5)
            now = self.wakeups()
            if now == before:
                break
            before = now
        waiting.wait(seconds)
        return self.wakeups() - before

    def load(self, path, *options, **named):
        """bench_load against this daemon; returns its figures."""
        words = [word for name, value in named.items() for word in ("--" + name.replace("_", "-"), value)]
        return run_lines(self.program.parent / "bench_load", "--port", self.port, "--path", path, *options, *words)
