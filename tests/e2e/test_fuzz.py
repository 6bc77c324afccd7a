"""The daemon driven from its own /openapi.json with values that are right and values that are wrong: it answers every request, as the
document says, never with a 5xx, and still works at the end.

Deterministic but for the daemon's own timing: PENSTOCK_FUZZ_SEED chooses the requests (it is printed), PENSTOCK_FUZZ_SECONDS how long.
"""
import copy
import os
import random
import re
import socket
import time
import urllib.parse

import pytest

import any_value
from contract import Contract
from penstock import EXAMPLES, wait_until

SEED = int(os.environ.get("PENSTOCK_FUZZ_SEED", "20180207"))
SECONDS = float(os.environ.get("PENSTOCK_FUZZ_SECONDS", "20"))

SHOP = """name: shop
topics: {orders: {}, done: {}}
flows:
  intake: {from: {webhook: /in}, to: {topic: orders}}
  checked: {from: {topic: orders}, steps: [{filter: event.n > 1}, {map: {n: event.n}}], to: {topic: done}}
  live: {from: {topic: done}, to: {subscribers: {name: prices, keep: 100}}}
jobs:
  work: {run: ["true"], params: {n: {type: integer, default: 1}, city: {type: string, default: Oslo}}}
  load: {trigger: {topic: orders, max_events: 10, max_wait: 1s}, steps: [{filter: event.n > 0}], to: drop}
  nightly: {trigger: {cron: "0 6 * * *"}, run: ["true"]}
"""
KNOWN = {"name": ["shop", "other"], "flow": ["intake", "checked", "live"], "job": ["work", "load", "nightly"], "topic": ["orders", "done"],
         "stream": ["prices"], "path": ["in"], "revision": ["1", "2"], "task": ["main"], "pipeline": ["shop"], "after": ["from", "to", "0"],
         "where": ["event.n > 1", "nil", "event.", "string.rep('x', 1e9)", "while true do end"]}
LEARNT = {"id": rb'^{"id":"(\w{26})"', "cursor": rb'"next_cursor":"([^"]+)"', "etag": rb'"etag":"(.*?)",', "letter": rb'{"id":"([^"]+)","kind":"'}
ACCEPTED = ["*/*", "application/json", "text/plain", "application/yaml", "text/event-stream", "application/x-ndjson", "image/png",
            "text/*;q=0.5, */*;q=0.1", ";;,,q=", "application/json;q=0"]


class Fuzzer:
    """Asks; and learns from the answers what to ask about: runs, cursors, ETags, dead letters."""

    def __init__(self, daemon, seed):
        self.daemon, self.random = daemon, random.Random(seed)
        self.contract = daemon.contract()
        self.known = {name: list(values) for name, values in KNOWN.items()}
        self.known.update({"id": [], "cursor": [], "etag": ['"a"', "*", 'W/"a", "b"', '"', ",,"], "letter": []})
        self.definitions = [path.read_bytes() for path in sorted(EXAMPLES.rglob("*.yaml"))]
        self.operations = [(path, method.upper(), operation) for path, item in self.contract.document["paths"].items()
                           for method, operation in item.items()]
        self.statuses = {}
        self.careful = False  # then it asks what should be answered

    def chance(self, likely):
        return self.random.random() < likely

    def astray(self, likely):
        """Whether to do something that is likely to be refused."""
        return not self.careful and self.chance(likely)

    def filled(self, part):
        return self.contract._filled(part)

    def path_value(self, parameter):
        known = self.known.get(parameter["name"], [])
        if known and not self.astray(0.15):
            return known[0] if self.careful else self.random.choice(known)
        return any_value.text(self.random) or "x"

    def query_value(self, parameter):
        if self.astray(0.2):
            return any_value.text(self.random)
        if parameter["name"] == "wait":
            return self.random.choice(["0s", "1ms", "20ms"])
        if self.known.get(parameter["name"]) and self.chance(0.7):
            return self.random.choice(self.known[parameter["name"]])
        value = any_value.right(self.filled(parameter["schema"]), self.random)
        if isinstance(value, list):
            return ",".join(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def address(self, path, operation):
        query = []
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                value = urllib.parse.quote(self.path_value(parameter).encode("utf-8", "surrogatepass"), safe="")
                path = path.replace("{%s}" % parameter["name"], value)
            elif parameter["in"] == "query" and self.chance(0.4):
                query += [(parameter["name"], self.query_value(parameter))] * (2 if self.chance(0.05) else 1)
        if self.astray(0.03):
            query.append((any_value.text(self.random), "1"))
        if not query:
            return path
        return path + "?" + urllib.parse.urlencode(query, errors="surrogatepass", quote_via=urllib.parse.quote)

    def headers(self, operation):
        made = {}
        if self.astray(0.4):
            made["Accept"] = self.random.choice(ACCEPTED)
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "header" and self.astray(0.3):
                value = self.random.choice(self.known["etag"]) if "Match" in parameter["name"] else any_value.text(self.random)
                made[parameter["name"]] = "".join(c for c in value if " " <= c < "\x7f").strip()
        if self.astray(0.1):
            made["ce-" + self.random.choice(["id", "specversion", "source", "type", "time"])] = self.random.choice(["1.0", "%00", "%", "x"])
        return made

    def body(self, operation):
        content = operation.get("requestBody", {}).get("content")
        if not content:
            return None, None
        media = self.random.choice(sorted(content))
        schema = self.filled(content[media]["schema"])
        if operation["operationId"] in ("replay_dead_letters", "discard_dead_letters") and self.known["letter"] and self.chance(0.5):
            data = any_value.as_json({"ids": [self.random.choice(self.known["letter"])]})
        elif operation["operationId"] == "post_backup":  # only into the daemon's own folder
            data = any_value.as_json({"to": str(self.daemon.folder / f"copy{self.random.randrange(10**6)}")})
        elif media == "application/yaml" or operation["operationId"] in ("put_pipeline", "post_pipeline"):
            data = SHOP.encode() if self.chance(0.5) else SHOP.replace("name: shop", "name: other").replace("/in", "/in2").encode()
            data = data.replace(b"prices", b"more").replace(b"orders", b"orders2") if b"other" in data else data
            media = "application/yaml"
        elif media == "application/x-ndjson":
            data = b"\n".join(any_value.as_json(any_value.anything(self.random)) for _ in range(self.random.randrange(4)))
        else:
            choose = any_value.wrong if self.astray(0.4) else any_value.right
            data = any_value.as_json(choose(schema, self.random))
        if self.astray(0.3):
            data = any_value.damaged(data, self.random)
        if self.astray(0.1):
            media = self.random.choice(["image/png", "", "application/json", "text/plain", "application/json; charset=utf-16", "a/b;;=\""])
        return data, {"*/*": "application/json"}.get(media, media)

    def definition(self):
        """An example with a few bytes changed, only to be looked at: it could do anything."""
        text = self.random.choice(self.definitions)
        for _ in range(self.random.randrange(4)):
            text = any_value.damaged(text, self.random)
        return "PUT", "/v1/pipelines/other?dry_run=true", {"Content-Type": "application/yaml"}, text

    def one(self):
        if self.chance(0.05):
            shown = self.definition()
            assert self.ask(shown) < 500, f"seed {SEED}: {shown}"
            return
        asked = self.random.choice(self.operations)
        if asked[1] != "DELETE" or self.chance(0.3):
            self.about(*asked)

    def about(self, path, method, operation):
        address = self.address(path, operation)
        headers = self.headers(operation)
        body, media = self.body(operation)
        if media:
            headers["Content-Type"] = media
        if method == "GET" and self.chance(0.05):
            method = "HEAD"
        shown = (method, address, headers, body)
        status = self.ask(shown)
        stopped = operation["operationId"] == "post_hook" and status == 503  # another request has stopped its flow
        assert status < 500 or stopped, f"seed {SEED}: {status} to {shown}"
        self.statuses.setdefault(operation["operationId"], set()).add(status)

    def ask(self, shown):
        """The status; every answer is checked on its way. Of a stream only the head is read."""
        method, address, headers, body = shown
        connection = self.daemon.connect(timeout=20)
        try:
            connection.request(method, address, body, headers)
            response = connection.getresponse()
            stream = response.getheader("Content-Length") is None and response.status == 200
            if not stream:
                data = response.read()
                self.contract.check(method, address, response.status, {n.lower(): value for n, value in response.getheaders()}, data)
                self.learn(response.status, data)
            return response.status
        except (socket.timeout, ConnectionError) as failure:
            raise AssertionError(f"seed {SEED}: {failure!r} to {shown}") from failure
        except AssertionError as wrong:
            raise AssertionError(f"seed {SEED}: {wrong}\nasked: {shown}") from wrong
        finally:
            connection.close()

    def learn(self, status, data):
        if status >= 300 or data[:1] != b"{":
            return
        for kind, pattern in LEARNT.items():
            for found in re.findall(pattern, data)[:3]:
                known = self.known[kind]
                known.append(found.decode("utf-8", "replace").replace('\\"', '"'))
                del known[:-100]


def unguarded(folder):
    """Arguments for a daemon that never asks for a token: the first one that is made would shut the fuzzer out."""
    settings = folder / "penstock.yaml"
    settings.write_text("auth: none\n")
    return ["--config", settings]


def test_any_request_is_answered_as_documented(start_daemon, tmp_path):
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_SECONDS={SECONDS:g}")
    daemon = start_daemon({"shop": SHOP}, args=unguarded(tmp_path))
    fuzzer = Fuzzer(daemon, SEED)
    for fuzzer.careful in [True, False] * 8:  # each often enough, however slow the machine is; then as it comes
        for asked_about in fuzzer.operations:
            if asked_about[1] != "DELETE":
                fuzzer.about(*asked_about)
    deadline = time.monotonic() + SECONDS
    asked = 0
    while time.monotonic() < deadline:
        fuzzer.one()
        asked += 1
        if asked % 200 == 0:
            daemon.put("shop", SHOP)  # it may have been removed, or become something else
    print(f"{asked} requests")
    unasked = {operation["operationId"] for _, method, operation in fuzzer.operations if method != "DELETE"} - set(fuzzer.statuses)
    assert not unasked, unasked
    for operation in ("list_runs", "put_pipeline", "post_events", "trigger_run", "get_run", "list_dead_letters"):
        seen = fuzzer.statuses.get(operation, set())
        assert any(status < 300 for status in seen), f"{operation}: nothing that was sent was right: {seen}"
        assert any(400 <= status < 500 for status in seen), f"{operation}: nothing that was sent was wrong: {seen}"
    assert "answered 500" not in daemon.log.read_text()
    daemon.put("shop", SHOP)
    daemon.post("/v1/pipelines/shop/resume")
    run = daemon.trigger("shop", "work", wait="20s")
    assert (run.status, run.json["state"]) == (200, "succeeded"), run
    wait_until(lambda: daemon.get("/readyz").status == 200, "the daemon to be as it was")


def test_the_fuzzer_finds_what_it_looks_for(start_daemon, tmp_path, monkeypatch):
    """Against a document that allows less, it fails soon."""
    daemon = start_daemon(args=unguarded(tmp_path))
    document = copy.deepcopy(daemon.contract().document)
    document["components"]["schemas"]["RunPage"]["required"].append("missing")
    monkeypatch.setattr(type(daemon), "shared_contract", Contract(document))
    fuzzer = Fuzzer(daemon, SEED)
    with pytest.raises(AssertionError, match="missing"):
        for _ in range(3000):
            fuzzer.one()
