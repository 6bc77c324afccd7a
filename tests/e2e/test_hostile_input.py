"""Input that is meant to hurt, at each door that it could come in by: too deep, too large a number, out of a folder.

Each is refused with a clear problem, stores nothing, and leaves the daemon as it was. Elsewhere: messages that two readers could
understand differently (test_http_details.py), YAML that grows (test_definitions.py), packed bodies that grow (test_gzip.py). What
fuzzing has found is in tests/fuzz/corpus.
"""
import json
import urllib.parse

import pytest

DEFINITION = """
name: shop
topics: {orders: {}}
flows:
  intake: {from: {webhook: /orders}, to: {topic: orders}}
jobs:
  work: {run: [cat], trigger: {cron: "0 0 1 1 *"}}
  counted:
    run: ["true"]
    params: {n: {type: integer, default: 1}, any: {type: object, default: {}}}
"""
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": DEFINITION})


def nested(depth, innermost="1"):
    return "[" * depth + innermost + "]" * depth


def objects(depth):
    return '{"a":' * depth + "1" + "}" * depth


def assert_refused(answer, statuses=(400, 422)):
    assert answer.status in statuses, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json["detail"]


# ---- depth ----

DOORS = {
    "topic": ("POST", "/v1/topics/orders/events", "application/json", "%s"),
    "topic_lines": ("POST", "/v1/topics/orders/events", "application/x-ndjson", "{}\n%s\n"),
    "topic_list": ("POST", "/v1/topics/orders/events", "application/json", "[1,%s]"),
    "cloudevent": ("POST", "/v1/topics/orders/events", "application/cloudevents+json",
                   '{"specversion":"1.0","id":"1","source":"/s","type":"t","data":%s}'),
    "cloudevents": ("POST", "/v1/topics/orders/events", "application/cloudevents-batch+json",
                    '[{"specversion":"1.0","id":"1","source":"/s","type":"t","data":%s}]'),
    "hook": ("POST", "/hooks/orders", "application/json", "%s"),
    "run_params": ("POST", "/v1/pipelines/shop/jobs/work/runs", "application/json", '{"params":{"x":%s}}'),
    "run_events": ("POST", "/v1/pipelines/shop/jobs/work/runs", "application/json", '{"events":[%s]}'),
    "backfill": ("POST", "/v1/pipelines/shop/jobs/work/backfill", "application/json", '{"from":%s,"to":"2026-01-01T00:00:00Z"}'),
    "definition": ("PUT", "/v1/pipelines/other", "application/json", '{"name":"other","description":%s}'),
    "dead_letters": ("POST", "/v1/dead-letters/replay", "application/json", '{"ids":%s}'),
    "token": ("POST", "/v1/tokens", "application/json", '{"name":"x","roles":%s}'),
}


@pytest.mark.parametrize("door", DOORS)
def test_json_that_is_too_deep(shop, door):
    method, path, content_type, body = DOORS[door]
    for deep in (nested(66), nested(100_000), objects(65), objects(50_000), "[" * 100_000, '{"a":' * 100_000):
        assert_refused(shop.request(method, path, body % deep, {"Content-Type": content_type}))
    assert shop.topic("orders")["events"] == 0
    assert shop.runs("shop") == []
    assert shop.get("/v1/pipelines/other").status == 404


@pytest.mark.parametrize("door", ["topic", "topic_lines", "cloudevent", "hook", "run_events"])
def test_json_that_is_just_not_too_deep(shop, door):
    method, path, content_type, body = DOORS[door]
    answer = shop.request(method, path, body % nested(60), {"Content-Type": content_type})
    assert answer.status == 202, answer


# ---- numbers ----

NUMBERS = ["-1", "0x10", "1e3", "1.5", "+1", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "9" * 400, "NaN",
           "inf", "%20", "1%00", "٣"]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_of_requests(shop, number):
    quoted = urllib.parse.quote(number, safe="%")
    for path in ("/v1/runs?limit=", "/v1/pipelines?limit=", "/v1/topics/orders/events?limit=", "/v1/topics/orders/events?after=", "/v1/changes?after="):
        assert_refused(shop.get(path + quoted))
    assert_refused(shop.get(f"/v1/pipelines/shop/revisions/{quoted}"), (400, 404))
    assert_refused(shop.post(f"/v1/pipelines/shop/rollback?revision={quoted}"), (400, 404, 422))
    body = '{"priority": %s}' % number.replace("%20", " ").replace("%00", "\\u0000")
    assert_refused(shop.post("/v1/pipelines/shop/jobs/work/runs", body, JSON))
    assert shop.runs("shop") == []


def test_numbers_of_payloads_are_kept_as_they_are_written(shop):
    """Payloads are bytes, and lose no digit. A number that is out of the range of integers of 64 bits and of doubles is refused."""
    for number in ("1e400", "18446744073709551616", "-9223372036854775809"):
        answer = shop.post("/v1/topics/orders/events", '{"n":%s}' % number, JSON)
        assert_refused(answer)
        assert "out of range" in answer.json["detail"]
    written = '{"n":1234567890123456789.123456789012345678901,"e":1e300,"z":-0.0,"i":18446744073709551615,"j":-9223372036854775808}'
    assert shop.post("/v1/topics/orders/events", written, JSON).status == 202
    assert f'"data":{written}' in shop.get("/v1/topics/orders/events").text


def test_numbers_beyond_their_declared_type(shop):
    run = "/v1/pipelines/shop/jobs/counted/runs"
    for number in ("9223372036854775808", "1e19", "1.5", '"1"', "1e400", "-1e30"):
        assert_refused(shop.post(run, '{"params":{"n":%s}}' % number, JSON))
    for number in ("9223372036854775807", "-9223372036854775808", "3.0"):
        answer = shop.post(run + "?wait=20s", '{"params":{"n":%s}}' % number, JSON)
        assert answer.status == 200 and answer.json["params"]["n"] == int(float(number) if "." in number else number)


def test_numbers_in_definitions(shop):
    for setting in ("timeout: 99999999999999999999h", "timeout: 1e9s", "timeout: -1s", "retry: {attempts: 99999999999999999999}", "timeout: .inf",
                    "retry: {attempts: -1}", "priority: 1.0e+400", "queue_limit: -9223372036854775809", "priority: 0x7fffffffffffffffff",
                    "priority: .nan", "retry: {attempts: 2, backoff: 5m..10s}"):
        text = f"name: other\njobs: {{work: {{run: [x], {setting}}}}}\n"
        answer = shop.request("PUT", "/v1/pipelines/other", text, {"Content-Type": "application/yaml"})
        assert_refused(answer)
        assert answer.json["errors"][0]["line"] == 2


# ---- out of a folder ----

STEPS = ["..", ".", "%2e%2e", "%2E.", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fstate.db", "a%2f..%2fb", "%2fetc%2fpasswd", "..%5c..%5cx",
         "%252e%252e%252f", "%00", "a%00.log", "%c0%ae%c0%ae%c0%af", "....//", "~root", "file:%2f%2f%2fetc%2fpasswd"]


@pytest.mark.parametrize("step", STEPS)
def test_names_lead_out_of_no_folder(shop, step):
    run = shop.run_to_end("shop", "work")["id"]
    before = sorted(path.relative_to(shop.folder) for path in shop.folder.rglob("*") if "-wal" not in path.name and "-shm" not in path.name)
    for path in (f"/v1/pipelines/{step}", f"/v1/topics/{step}", f"/v1/topics/{step}/events", f"/v1/runs/{step}", f"/v1/runs/{step}/logs",
                 f"/v1/pipelines/shop/flows/{step}", f"/v1/streams/{step}", f"/v1/tokens/{step}", f"/v1/runs/{run}/logs?task={step}"):
        answer = shop.get(path)
        assert answer.status in (400, 404), f"{path}: {answer}"
        assert b"root:" not in answer.body and b"SQLite" not in answer.body
    for path in (f"/hooks/{step}", f"/v1/topics/{step}/events", f"/v1/pipelines/shop/jobs/{step}/runs"):
        assert shop.post(path, "{}", JSON).status in (400, 404), path
    name = urllib.parse.unquote(step, errors="replace")
    text = json.dumps({"name": name, "topics": {name: {}}, "flows": {name: {"from": {"topic": name}, "to": "drop"}}})
    assert_refused(shop.request("PUT", f"/v1/pipelines/{step}", text, JSON), (400, 404, 422))
    assert_refused(shop.post("/v1/pipelines", text, JSON))
    after = sorted(path.relative_to(shop.folder) for path in shop.folder.rglob("*") if "-wal" not in path.name and "-shm" not in path.name)
    assert after == before


@pytest.mark.parametrize("key", ["../../state.db", "a/b", "x" * 5000, "\x7f", "%00", "'; DROP TABLE runs; --"])
def test_keys_and_ids_are_only_text(shop, key):
    answer = shop.post("/v1/pipelines/shop/jobs/work/runs", "{}", {**JSON, "Idempotency-Key": key})
    assert answer.status in (202, 400), answer
    event = json.dumps({"specversion": "1.0", "id": key, "source": key, "type": key, "subject": key, "data": key})
    answer = shop.post("/v1/topics/orders/events", event, {"Content-Type": "application/cloudevents+json"})
    assert answer.status in (202, 400), answer
    if answer.status == 202:
        assert shop.events("orders")[0]["data"] == key
    assert not [path for path in shop.folder.rglob("*") if path.name.startswith(("..", "x" * 50))]
