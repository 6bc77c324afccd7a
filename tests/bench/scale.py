"""What one more flow, pipeline, kept run and stored event cost: the same few things measured on daemons that hold more and more.

Cost: how many single events a second go through one live flow beside all the rest, how many runs a second of a job that stays
inside the daemon, how long one look at the middle of what is there takes. Start: from exec to /readyz saying 200.
"""
import shutil
import subprocess
import time

from budgets import all_run, definition, idle_flows, orders
from programs import Daemon, wait_until
from table import print_table, short

WORK = ("name: bench\ntopics: {singles: {}, seen: {}}\nflows:\n  live: {from: {topic: singles}, steps: [{filter: event.n > 0}], "
        "to: {topic: seen}}\njobs:\n  inside: {to: drop, on_overlap: allow, queue_limit: 1000000}\n")
HEAD = ["start s", "memory MiB", "disk MiB", "events/s", "runs/s", "look us"]
SETTINGS = {"keep_runs_for": "3650d"}


def disk(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / (1 << 20)


def costs(context, daemon, look):
    """[events/s, runs/s, look us] of a running daemon that has WORK."""
    seconds = context.much(1.5, 0.2)
    before = daemon.get("/v1/topics/seen")["last_offset"] or 0
    began = time.monotonic()
    sent = daemon.load("/v1/topics/singles/events", body='{"n":1}', connections=16, seconds=seconds, warm_up=0)
    accepted = int(sent.get("status_202", 0))
    wait_until(lambda: (daemon.get("/v1/topics/seen")["last_offset"] or 0) >= before + accepted, "all events to pass")
    events = accepted / (time.monotonic() - began)
    runs = daemon.load("/v1/pipelines/bench/jobs/inside/runs?wait=20s", body="{}", connections=16, seconds=seconds, warm_up=0)
    looks = daemon.load(look, method="GET", connections=1, seconds=context.much(0.5, 0.1), warm_up=0)
    return [events, runs["accepted"], looks["p50"]]


def shown(entry):
    number, start, memory, size, *cost = entry
    return [f"{number:,}", f"{start:.2f}", f"{memory:.1f}", f"{size:.0f}", *map(short, cost)]


def restarted(context, daemon, number, look):
    """Starts a daemon whose data is there, measures, stops it; returns [number, *HEAD]."""
    start = daemon.start()
    try:
        memory = daemon.memory() / 1024
        return [number, start, memory, disk(daemon.data), *costs(context, daemon, look)]
    finally:
        daemon.stop()


def flows(context, number):
    daemon = Daemon(context.bin, context.scratch(), settings=SETTINGS)
    with daemon:
        daemon.put("bench", WORK)
        for first in range(0, number, 1000):  # one file holds no more than 100,000 values
            name = f"many{first}"
            daemon.put(name, idle_flows(name, min(1000, number - first)))
            wait_until(lambda: all_run(daemon, name), "all flows to run")
    return restarted(context, daemon, number, "/v1/pipelines/many0/flows/f0")


def pipelines(context, number):
    folder = context.scratch()
    (folder / "files").mkdir()
    for i in range(number):
        (folder / "files" / f"p{i:05}.yaml").write_text(definition(i))
    daemon = Daemon(context.bin, folder, pipelines=folder / "files", settings=SETTINGS)
    with daemon:
        daemon.put("bench", WORK)
    return restarted(context, daemon, number, f"/v1/pipelines/p{number // 2:05}")


def runs(context, number):
    daemon = Daemon(context.bin, context.scratch(), settings=SETTINGS)
    with daemon:
        daemon.put("bench", WORK)
    subprocess.run([context.bin / "bench_runs_list", "--fill", daemon.data / "state.db", str(number)], check=True)
    return restarted(context, daemon, number, "/v1/runs?pipeline=pipeline-50&state=failed")


def events(context, number):
    daemon = Daemon(context.bin, context.scratch(), settings=SETTINGS)
    batch = daemon.folder / "batch.ndjson"
    batch.write_text(orders(min(number, 10_000)))
    with daemon:
        daemon.put("bench", WORK.replace("seen: {}}", "seen: {}, kept: {}}"))
        text = batch.read_bytes()
        for _ in range(max(1, number // 10_000)):
            daemon.ask("POST", "/v1/topics/kept/events", text, "application/x-ndjson")
    return restarted(context, daemon, number, f"/v1/topics/kept/events?after={number // 2}&limit=10")


def measure(context, say):
    steps = {"flows": (flows, [1, 10, 100, 1_000, 10_000]), "pipelines": (pipelines, [1, 10, 100, 1_000, 10_000]),
             "runs": (runs, [1_000, 10_000, 100_000, 1_000_000]), "events": (events, [10_000, 100_000, 1_000_000, 3_000_000, 10_000_000])}
    words = {"flows": "live flows, idle", "pipelines": "pipelines with a cron job", "runs": "ended runs kept",
             "events": "events of 300 B in a topic"}
    found = []
    for name, (work, numbers) in steps.items():
        lines = []
        for number in numbers[:context.much(len(numbers), 2)]:
            say(f"{name}: {number}")
            lines.append(work(context, number))
            shutil.rmtree(context.last)
        print_table([words[name], *HEAD], map(shown, lines))
        print()
        found += [{"of": name, **dict(zip(["number", *HEAD], entry))} for entry in lines]
    print("start: exec to ready, data there. events/s: 16 connections, one event a POST, through a live flow, until the last has\n"
          "passed. runs/s: inside the daemon, 16 at once, asked and waited for. look: one GET from the middle of it, median.")
    return found
