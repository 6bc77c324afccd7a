"""The same work on the programs that people would use instead. tests/bench/peers fetches them; what is not there is skipped, and
the reason said. Settings are as near to each other as they can be: where one keeps less than the other, the sentence says so.
Each row's floor column is the peer.
"""
import json
import shutil
import socket
import subprocess
import time

from budgets import ORDER, orders
from programs import ROOT, Daemon, Process, run_lines, wait_until
from table import Row

PEERS = ROOT / "build" / "peers"
LIBRARIES = {"LD_LIBRARY_PATH": str(PEERS / "debian" / "usr" / "lib" / "x86_64-linux-gnu")}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Wire:
    """One connection that counts marks in what comes back."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, request, mark, count):
        """Sends, and reads until `mark` has come `count` times; returns what came."""
        self.socket.sendall(request)
        found, seen = b"", 0
        while seen < count:
            more = self.socket.recv(1 << 20)
            if not more:
                raise RuntimeError("the peer closed the connection")
            seen += (found[1 - len(mark):] + more if len(mark) > 1 else more).count(mark)
            found += more
        return found

    def close(self):
        self.socket.close()


def per_second(work, seconds, each):
    """Calls work() for so long; `each` things a call."""
    calls, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        work()
        calls += 1
    return calls * each / passed


# ---- durable events ----

def redis(context, seconds, payloads):
    """(events/s in pipelines of 1,000 over one connection, events/s of 64 connections that wait for each answer)"""
    folder, port = context.scratch(), free_port()
    program = PEERS / "debian" / "usr" / "bin"
    server = [program / "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes",
              "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-percentage", 0]
    with Process(server, folder / "log", LIBRARIES):
        wait_until(lambda: connects(port), "redis-server")
        wire = Wire(port)
        pipeline = b"".join(b"*5\r\n$4\r\nXADD\r\n$6\r\nevents\r\n$1\r\n*\r\n$4\r\ndata\r\n$%d\r\n%s\r\n" % (len(p), p)
                            for p in payloads)
        batches = per_second(lambda: wire.call(pipeline, b"$", len(payloads)), seconds, len(payloads))
        wire.close()
        count = int(max(200, 15_000 * seconds))
        done = subprocess.run([program / "redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-c", "64", "-n", str(count), "--csv",
                               "XADD", "singles", "*", "data", payloads[0]], env=LIBRARIES, capture_output=True, text=True, check=True)
        singles = float(done.stdout.splitlines()[-1].split('","')[-7])  # name, then rps and six latencies
    return batches, singles


def nats(context, seconds, payloads, sync=True):
    """Events/s in batches of 1,000 whose acknowledgements are waited for, over one connection. `sync`: written before that, where
    this version can."""
    folder, port = context.scratch(), free_port()
    newer = PEERS / "nats" / "nats-server"
    always = "sync_interval: always, " if newer.exists() and sync else ""
    (folder / "settings.conf").write_text(f"host: 127.0.0.1\nport: {port}\njetstream: {{{always}store_dir: '{folder}'}}\n")
    program = newer if newer.exists() else PEERS / "debian" / "usr" / "sbin" / "nats-server"
    with Process([program, "-c", folder / "settings.conf"], folder / "log"):
        wait_until(lambda: connects(port), "nats-server")
        wire = Wire(port)
        stream = json.dumps({"name": "EVENTS", "subjects": ["events"], "storage": "file"}).encode()
        made = wire.call(b'CONNECT {"verbose":false}\r\nSUB answers 1\r\nPUB $JS.API.STREAM.CREATE.EVENTS answers %d\r\n%s\r\n' %
                         (len(stream), stream), b"MSG answers", 1)
        if b"error" in made:
            raise RuntimeError(made.decode())
        batch = b"".join(b"PUB events answers %d\r\n%s\r\n" % (len(p), p) for p in payloads)
        found = per_second(lambda: wire.call(batch, b'"seq"', len(payloads)), seconds, len(payloads))
        wire.close()
    return found


# ---- HTTP -> transform, and a file through a filter and a map ----

NODE_RED_FLOW = [
    {"id": "tab", "type": "tab", "label": "bench"},
    {"id": "in", "z": "tab", "type": "http in", "url": "/orders", "method": "post", "wires": [["change"]]},
    {"id": "change", "z": "tab", "type": "function", "outputs": 1, "wires": [["out"]],
     "func": "if (!(msg.payload.total > 0)) { msg.statusCode = 202; return msg; }\n"
             "msg.payload = {order_id: msg.payload.order_id, customer: msg.payload.customer.id,\n"
             "  total: Number(msg.payload.total_price), status: msg.payload.financial_status};\n"
             "msg.statusCode = 202;\nreturn msg;"},
    {"id": "out", "z": "tab", "type": "http response", "wires": []}]
STEPS = ("[{filter: event.total > 0}, {map: {order_id: event.order_id, customer: event.customer.id, "
         "total: tonumber(event.total_price), status: event.financial_status}}]")


def node_red(context, seconds):
    """Requests/s over 64 connections."""
    folder, port = context.scratch(), free_port()
    (folder / "flows.json").write_text(json.dumps(NODE_RED_FLOW))
    (folder / "settings.js").write_text(f"module.exports = {{uiHost: '127.0.0.1', uiPort: {port}, flowFile: 'flows.json', "
                                        "httpAdminRoot: false, logging: {console: {level: 'warn'}}}\n")
    command = ["node", PEERS / "node-red" / "node_modules" / "node-red" / "red.js", "-u", folder, "-s", folder / "settings.js"]
    with Process(command, folder / "log", {"NODE_ENV": "production"}):
        wait_until(lambda: connects(port), "Node-RED")
        load = [context.bin / "bench_load", "--port", port, "--path", "/orders", "--body", ORDER % (1, 1, 1)]
        wait_until(lambda: run_lines(*load, "--connections", 1, "--seconds", 0.2).get("status_202"), "Node-RED's flow", 30, 0.1)
        return run_lines(*load, "--seconds", seconds)["accepted"]


def benthos(context, file, count):
    """Events/s of a file of JSON lines; what its start takes, seen with an empty file, is taken off."""
    folder = context.scratch()
    (folder / "none").write_text("")
    took = {}
    for name, path in (("none", folder / "none"), ("all", file)):
        (folder / f"{name}.yaml").write_text(json.dumps({
            "http": {"enabled": False}, "logger": {"level": "ERROR"},
            "input": {"file": {"paths": [str(path)], "scanner": {"lines": {}}}},
            "pipeline": {"processors": [{"mapping": (
                "root = if this.total > 0 { {\"order_id\": this.order_id, \"customer\": this.customer.id, "
                "\"total\": this.total_price.number(), \"status\": this.financial_status} } else { deleted() }")}]},
            "output": {"drop": {}}}))
        began = time.monotonic()
        subprocess.run([PEERS / "benthos" / "benthos", "-c", folder / f"{name}.yaml"], check=True, capture_output=True, timeout=300)
        took[name] = time.monotonic() - began
    return count / max(took["all"] - took["none"], 1e-3)


# ---- ours ----

def ours(context, seconds, batch, file, count):
    """Every figure of Penstock's, from one daemon."""
    found = {}
    folder = context.scratch()
    with Daemon(context.bin, folder) as daemon:
        daemon.put("bench", "name: bench\ntopics: {batches: {}, singles: {}, changed: {}}\nflows:\n  hook:\n"
                            f"    from: {{webhook: {{path: /orders}}}}\n    steps: {STEPS}\n    to: {{topic: changed}}\n"
                            f"jobs:\n  lines:\n    from: {{file: {{path: {file}}}}}\n    steps: {STEPS}\n    to: drop\n")
        found["batches"] = 1000 * daemon.load("/v1/topics/batches/events", type="application/x-ndjson", body_file=batch, connections=1,
                                              seconds=seconds, warm_up=0)["accepted"]
        found["singles"] = daemon.load("/v1/topics/singles/events", body=ORDER % (1, 1, 1), seconds=seconds)["accepted"]
        found["hook"] = daemon.load("/hooks/orders", body=ORDER % (1, 1, 1), seconds=seconds)["accepted"]
        began = time.monotonic()
        run = json.loads(daemon.ask("POST", "/v1/pipelines/bench/jobs/lines/runs?wait=60s", {})[1])
        found["lines"] = count / (time.monotonic() - began)
        if run["state"] != "succeeded":
            raise RuntimeError(f"the run of the file: {run}")
    return found


def rows():
    return {row.name: row for row in [
        Row("redis_batches", "durable events, 1,000 at a time, 1 connection", "events/s", "Redis XADD, pipelined"),
        Row("nats_batches", "durable events, 1,000 at a time, 1 connection", "events/s", "NATS JetStream"),
        Row("nats_later", "durable events, 1,000 at a time, 1 connection", "events/s", "NATS, default settings"),
        Row("redis_singles", "durable events, one by one, 64 connections", "events/s", "Redis XADD"),
        Row("node_red", "HTTP -> filter, map, 64 connections", "requests/s", "Node-RED"),
        Row("benthos", "file of JSON -> filter, map -> nowhere", "events/s", "Benthos"),
        Row("xargs", "runs of /bin/true, 4 at once", "runs/s", "xargs -P 4")]}


NOTES = {
    "redis": "Redis: appendfsync always, RDB off. It answers from memory afterwards; Penstock's are HTTP requests, Redis's its own protocol.",
    "nats": "NATS JetStream: file storage with sync_interval always, {durable} (it syncs event by event); with its default settings it "
            "acknowledges first and syncs every two minutes.",
    "node-red": "Node-RED keeps nothing: it answers once the event is changed; Penstock once the changed event is on disk.",
    "benthos": "Benthos 4.60 (what Bento is a fork of), its default of a thread a core; time of an empty start taken off. Penstock: one job, one core, its whole run.",
    "xargs": "xargs starts programs and forgets them; Penstock's runs are durable, with logs and history.",
}


def missing(name):
    """Why the peer is skipped; None when it is there."""
    at = {"redis": PEERS / "debian/usr/bin/redis-server", "benthos": PEERS / "benthos/benthos",
          "node-red": PEERS / "node-red/node_modules/node-red/red.js"}.get(name)
    if name == "xargs":
        return None if shutil.which("xargs") else "it is not installed"
    if name == "nats" and any((PEERS / p).exists() for p in ("nats/nats-server", "debian/usr/sbin/nats-server")):
        return None
    if at and at.exists():
        return None
    why = PEERS / f"{name}.missing"
    return why.read_text().strip() if why.exists() else "tests/bench/peers has not fetched it"


def measure(context, repetitions, say):
    """(rows, sentences)"""
    there = {name: missing(name) for name in ("redis", "nats", "node-red", "benthos", "xargs")}
    found = rows()
    seconds, count = context.much(2, 0.3), context.much(300_000, 5_000)
    folder = context.scratch()
    batch, file = folder / "batch.ndjson", folder / "orders.ndjson"
    batch.write_text(orders(1000))
    file.write_text(orders(count))
    payloads = [line.encode() for line in orders(1000).splitlines()]
    try:
        for repetition in range(repetitions):
            say(f"{repetition + 1} of {repetitions}")
            own = ours(context, seconds, batch, file, count)
            if not there["redis"]:
                batches, singles = redis(context, seconds, payloads)
                found["redis_batches"].add(own["batches"], batches)
                found["redis_singles"].add(own["singles"], singles)
            if not there["nats"]:
                found["nats_batches"].add(own["batches"], nats(context, seconds, payloads))
                found["nats_later"].add(own["batches"], nats(context, seconds, payloads, sync=False))
            if not there["node-red"]:
                found["node_red"].add(own["hook"], node_red(context, seconds))
            if not there["benthos"]:
                found["benthos"].add(own["lines"], benthos(context, file, count))
            if not there["xargs"]:
                many = context.much(400, 50)
                seen = context.bench("runs", "--runs", many, "--rounds", 1, "--folder", context.scratch())
                began = time.monotonic()
                subprocess.run(["xargs", "-P", "4", "-n", "1", "/bin/true"], input="x\n" * many, text=True, check=True)
                found["xargs"].add(seen["request_4"], many / (time.monotonic() - began))
    except KeyboardInterrupt:
        say("interrupted: what has been measured so far")
    durable = "as durable as ours" if (PEERS / "nats" / "nats-server").exists() else "which this version cannot: it writes later"
    sentences = [NOTES[name].format(durable=durable) for name, why in there.items() if not why]
    sentences += [f"{name}: skipped, {why}" for name, why in there.items() if why]
    sentences.append(f"Dagu: skipped, {missing('dagu')}")
    return list(found.values()), sentences
