"""The budgets of the design, each measured beside its floor. A measurement returns {row name: (ours, floor or None)} of one
repetition; tests/bench/run takes them by turns, so that other load on the machine meets all alike.
"""
import json
import sqlite3
import time

from programs import BareServer, Daemon, run_lines, wait_until
from table import Row

ORDER = ('{"id":820982911946154508,"order_id":"A%06d","email":"jon@example.com","created_at":"2018-02-07T09:41:00-05:00",'
         '"total_price":"403.00","total":%d.5,"currency":"EUR","financial_status":"paid","customer":{"id":115310627314723954,'
         '"first_name":"John","last_name":"Smith"},"tags":["a","b"],"n":%d}')


def orders(count):
    """NDJSON of about 300 bytes each."""
    return "".join(ORDER % (i, i % 10_000, i) + "\n" for i in range(count))


class Context:
    """What all measurements of one call have: where the programs are, where to write, how much to do."""

    def __init__(self, bin_folder, folder, quick):
        self.bin, self.folder, self.quick = bin_folder, folder, quick
        self.number = 0
        self.last = None  # folder that was given out

    def scratch(self):
        self.number += 1
        self.last = self.folder / str(self.number)
        self.last.mkdir()
        return self.last

    def much(self, normal, quick):
        return quick if self.quick else normal

    def bench(self, name, *arguments):
        return run_lines(self.bin / f"bench_{name}", *arguments, "--lines")


def trigger(context):
    """Durable triggers: to the first instruction of the program."""
    seen = context.bench("trigger_latency", "--repetitions", context.much(300, 20), "--folder", context.scratch())
    return {f"{way}_{part}": (seen[f"{way}_{part}"], seen[f"bare_{part}"]) for way in ("request", "event")
            for part in ("p50", "p99")}


def runs(context):
    """Whole runs of /bin/true, one and four at once, and of a job that stays inside the daemon."""
    seen = context.bench("runs", "--runs", context.much(400, 50), "--rounds", 1, "--folder", context.scratch())
    found = {f"{way}_{n}": (seen[f"{way}_{n}"], seen[f"bare_{n}"]) for way in ("request", "event") for n in (1, 4)}
    floor = storage(context)["sqlite_single"]
    return {**found, "inside_request": (seen["inside_request"], floor), "inside_event": (seen["inside_event"], floor)}


def storage(context):
    return context.bench("topic", context.scratch(), context.much(64, 16))


def ingest(context):
    """Durable events: whole batches, in the library and over HTTP, and one for each request."""
    raw = storage(context)
    found = {"ingest_library": (raw["eight"], raw["sqlite"])}
    folder = context.scratch()
    batch = folder / "batch.ndjson"
    batch.write_text(orders(1000))
    seconds = context.much(2, 0.3)
    with Daemon(context.bin, folder) as daemon, BareServer(context.bin, folder / "bare.log") as bare:
        daemon.put("bench", "name: bench\ntopics: {batches: {}, singles: {}}\n")
        batches = daemon.load("/v1/topics/batches/events", type="application/x-ndjson", body_file=batch, connections=4,
                              seconds=seconds, warm_up=0.2)
        found["ingest_http"] = (1000 * batches["accepted"], raw["sqlite"])
        event = ORDER % (1, 1, 1)
        ours = daemon.load("/v1/topics/singles/events", body=event, seconds=seconds)
        floor = run_lines(context.bin / "bench_load", "--port", bare.port, "--path", "/v1/topics/singles/events", "--body", event,
                          "--seconds", seconds)
        found["ingest_single"] = (ours["accepted"], floor["accepted"])
    return found


def flows(context):
    """Live flows: events a second, and latency while jobs burn all cores."""
    seen = context.bench("live", "--events", context.much(100_000, 2_000), "--rounds", 1, "--latencies", context.much(300, 20),
                         "--folder", context.scratch())
    parsed = context.bench("steps", context.much(300_000, 10_000))
    return {"memory_core": (seen["memory_changed_cpu"], parsed["simdjson"]),
            "memory_wall": (seen["memory_changed"], seen["memory_floor"]),
            "topic_core": (seen["topic_changed_cpu"], seen["topic_floor_cpu"]),
            "topic_wall": (seen["topic_changed"], seen["topic_floor"]),
            "live_p50": (seen["busy_p50"], seen["idle_p50"]), "live_p99": (seen["busy_p99"], seen["idle_p99"])}


def idle_flows(name, count):
    return (f"name: {name}\ntopics: {{quiet: {{}}}}\nflows:\n" +
            "".join(f"  f{i}: {{from: {{topic: quiet}}, steps: [{{filter: event.n > 0}}], to: drop}}\n" for i in range(count)))


def all_run(daemon, name):
    return all(flow["state"] == "running" for flow in daemon.get(f"/v1/pipelines/{name}")["flows"])


def idle(context):
    """A daemon that has nothing to do: its memory, what a flow adds, and whether it sleeps."""
    folder = context.scratch()
    count = context.much(1000, 50)
    with Daemon(context.bin, folder) as daemon:
        memory, own = daemon.memory(), daemon.status_number("RssAnon")
        daemon.put("one", idle_flows("one", 1))
        wait_until(lambda: all_run(daemon, "one"), "the flow to run")
        before = daemon.memory()
        daemon.put("many", idle_flows("many", count))
        wait_until(lambda: all_run(daemon, "many"), "all flows to run")
        after = daemon.memory()
        wakeups = daemon.wakeups_in(context.much(5, 0.5))
    return {"memory_idle": (memory / 1024, None), "memory_own": (own / 1024, None), "memory_flow": ((after - before) / count, None), "wakeups": (wakeups, None)}


def definition(number):
    return (f"name: p{number:05}\njobs:\n  report:\n    trigger: {{cron: \"0 6 * * *\", timezone: Europe/Madrid}}\n"
            "    run: [sh, -c, 'echo done']\n    timeout: 15m\n")


def pipelines(context):
    """10,000 definition files, loaded by a daemon that knows none of them, and again at its next start. The floor reads the
    files and puts their text into SQLite, in one transaction."""
    folder = context.scratch()
    count = context.much(10_000, 200)
    files = folder / "pipelines"
    files.mkdir()
    for i in range(count):
        (files / f"p{i:05}.yaml").write_text(definition(i))
    began = time.monotonic()
    with sqlite3.connect(folder / "floor.db") as floor:
        floor.execute("CREATE TABLE pipelines (name TEXT PRIMARY KEY, text TEXT)")
        floor.executemany("INSERT INTO pipelines VALUES (?, ?)", ((file.stem, file.read_text()) for file in sorted(files.iterdir())))
    took = time.monotonic() - began
    daemon = Daemon(context.bin, folder, pipelines=files)
    found = {}
    for name in ("load_first", "load_again"):
        found[name] = (daemon.start(), took)
        loaded = json.loads(daemon.ask("GET", f"/v1/pipelines/p{count - 1:05}")[1])["revision"]
        daemon.stop()
        if loaded != 1:
            raise RuntimeError(f"the last pipeline has revision {loaded}")
    return found


MEASUREMENTS = {"trigger": trigger, "runs": runs, "ingest": ingest, "flows": flows, "idle": idle, "pipelines": pipelines}


def rows():
    spawn, loop = "posix_spawn of it", "posix_spawn loop"
    return [
        Row("request_p50", "POST .../runs -> first instruction, p50", "us", spawn, ("more", 250)),
        Row("request_p99", "POST .../runs -> first instruction, p99", "us", spawn, ("more", 700)),
        Row("event_p50", "POST .../events -> first instruction, p50", "us", spawn, ("more", 250)),
        Row("event_p99", "POST .../events -> first instruction, p99", "us", spawn, ("more", 700)),
        Row("request_1", "runs of /bin/true by POST, 1 at once", "runs/s", loop, ("share", 0.7)),
        Row("request_4", "runs of /bin/true by POST, 4 at once", "runs/s", loop, ("share", 0.7)),
        Row("event_1", "runs of /bin/true by events, 1 at once", "runs/s", loop, ("share", 0.7)),
        Row("event_4", "runs of /bin/true by events, 4 at once", "runs/s", loop, ("share", 0.7)),
        Row("inside_request", "runs inside the daemon, by POST", "runs/s", "SQLite, a row a commit", ("least", 5000)),
        Row("inside_event", "runs inside the daemon, by events", "runs/s", "SQLite, a row a commit", ("least", 5000)),
        Row("ingest_http", "NDJSON batches of 1,000 x 300 B over HTTP", "events/s", "SQLite, same rows", ("least", 500_000)),
        Row("ingest_library", "the same within the process", "events/s", "SQLite, same rows"),
        Row("ingest_single", "one event a POST, 64 connections", "requests/s", "bare Beast server", ("share", 0.6)),
        Row("topic_core", "topic -> filter, map -> topic, a CPU second", "events", "without steps", ("least", 300_000)),
        Row("topic_wall", "the same, as time passes", "events/s", "without steps"),
        Row("memory_core", "filter, map in memory, a CPU second", "events", "simdjson alone", ("least", 1_000_000)),
        Row("memory_wall", "the same, as time passes", "events/s", "without steps"),
        Row("live_p50", "event -> follower while jobs burn all cores, p50", "us", "nothing else to do"),
        Row("live_p99", "event -> follower while jobs burn all cores, p99", "us", "nothing else to do", ("times", 2)),
        Row("memory_idle", "memory, idle", "MiB", budget=("most", 20)),
        Row("memory_own", "of that not pages of program files", "MiB"),
        Row("memory_flow", "memory of one more idle flow", "KiB", budget=("most", 16)),
        Row("load_first", "10,000 pipelines, first start to ready", "s", "files into SQLite", ("most", 2)),
        Row("load_again", "10,000 pipelines, next start to ready", "s", "files into SQLite", ("most", 2)),
        Row("wakeups", "wakeups in 5 s when idle", "wakeups", budget=("most", 0)),
    ]
