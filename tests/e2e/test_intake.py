"""What may be posted, and what is refused: signatures, formats, sizes, names. What is refused leaves nothing behind."""
import base64
import hashlib
import hmac
import json

import pytest

from penstock import ndjson, signed

SECRET = "topsecret"
PIPELINE = """
name: shop
topics: {orders: {}, returns: {}}
flows:
  hook:
    from:
      webhook:
        path: /orders
        signature: {scheme: hmac-sha256, header: X-Signature, secret: "${env:SHOP_SECRET}"}
    to: {topic: orders}
  github_like:
    from:
      webhook:
        path: /prefixed
        signature: {header: X-Hub-Signature-256, secret: "${env:SHOP_SECRET}", prefix: "sha256="}
    to: {topic: orders}
  base64_like:
    from:
      webhook:
        path: /base64
        signature: {header: X-Shop-Hmac, secret: "${env:SHOP_SECRET}", encoding: base64}
    to: {topic: orders}
"""


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": PIPELINE}, env={"SHOP_SECRET": SECRET})


def stored(daemon, topic="orders"):
    return daemon.topic(topic)["events"]


def assert_problem(answer, status, *words):
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json["status"] == status and answer.json["title"] and answer.json["type"]
    for word in words:
        assert word in answer.text, answer


# ---- webhooks ----


def test_a_signed_event_is_stored(shop):
    body = b'{"order_id": 1}'
    assert shop.request("POST", "/hooks/orders", body, signed(SECRET, body, "X-Signature")).status in (200, 202)
    event, = shop.wait_for_topic("orders", 1)
    assert event["data"] == {"order_id": 1}


def test_wrong_and_missing_signatures(shop):
    body = b'{"order_id": 1}'
    right = signed(SECRET, body, "X-Signature")["X-Signature"]
    for signature in (None, "", "00", right[:-1], right + "0", right[:-1] + ("0" if right[-1] != "0" else "1"), "x" * 64,
                      "sha256=" + right, signed("other", body, "S")["S"], signed(SECRET, body + b" ", "S")["S"],
                      base64.b64encode(bytes.fromhex(right)).decode()):
        headers = {"Content-Type": "application/json"}
        if signature is not None:
            headers["X-Signature"] = signature
        assert_problem(shop.request("POST", "/hooks/orders", body, headers), 401)
    assert stored(shop) == 0
    assert SECRET not in shop.log.read_text()


def test_hex_is_read_in_either_case(shop):
    body = b'{"order_id": 1}'
    signature = signed(SECRET, body, "S")["S"].upper()
    answer = shop.request("POST", "/hooks/orders", body, {"x-signature": signature, "Content-Type": "application/json"})
    assert answer.status in (200, 202)


def test_prefix_and_base64(shop):
    body = b'[{"n": 1}, {"n": 2}]'
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256)
    json_type = {"Content-Type": "application/json"}
    assert shop.request("POST", "/hooks/prefixed", body,
                        {**json_type, "X-Hub-Signature-256": "sha256=" + digest.hexdigest()}).status in (200, 202)
    assert shop.request("POST", "/hooks/prefixed", body,
                        {**json_type, "X-Hub-Signature-256": digest.hexdigest()}).status == 401
    assert shop.request("POST", "/hooks/base64", body,
                        {**json_type, "X-Shop-Hmac": base64.b64encode(digest.digest()).decode()}).status in (200, 202)
    shop.wait_for_topic("orders", 4)


def test_an_unknown_hook_names_the_nearest(shop):
    assert_problem(shop.post("/hooks/oders", "{}"), 404, "/orders")
    assert shop.get("/hooks/orders").status == 405


def test_a_signed_body_that_is_not_json(shop):
    body = b'{"order_id": '
    assert_problem(shop.request("POST", "/hooks/orders", body, signed(SECRET, body, "X-Signature")), 400)
    assert stored(shop) == 0


# ---- topics: forms ----


def post_events(daemon, body, content_type, headers=None, topic="orders"):
    return daemon.request("POST", f"/v1/topics/{topic}/events", body, {"Content-Type": content_type, **(headers or {})})


def test_one_object_an_array_and_lines(shop):
    one = post_events(shop, '{"n": 1}', "application/json")
    assert one.status == 202
    assert one.json == {"accepted": 1, "duplicates": 0, "first_offset": 1, "last_offset": 1}
    many = post_events(shop, '[{"n": 2}, {"n": 3}]', "application/json; charset=utf-8")
    assert many.json == {"accepted": 2, "duplicates": 0, "first_offset": 2, "last_offset": 3}
    lines = post_events(shop, '{"n": 4}\n\n{"n": 5}\r\n{"n": 6}', "application/x-ndjson")
    assert lines.json["accepted"] == 3
    events = shop.events("orders")
    assert [event["data"]["n"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [int(event["offset"]) for event in events] == [1, 2, 3, 4, 5, 6]
    assert len({event["id"] for event in events}) == 6
    for event in events:
        assert event["specversion"] == "1.0" and event["source"] and event["type"] and event["time"]


def test_cloudevents_structured_batch_and_binary(shop):
    event = {"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "order.placed", "subject": "17",
             "time": "2018-02-07T01:02:03.5Z", "datacontenttype": "application/json", "data": {"n": 1}}
    assert post_events(shop, json.dumps(event), "application/cloudevents+json").status == 202
    batch = [{**event, "id": "A-2"}, {**event, "id": "A-3", "data": [1, 2]}]
    assert post_events(shop, json.dumps(batch), "application/cloudevents-batch+json").json["accepted"] == 2
    binary = post_events(shop, '{"n": 4}', "application/json", {
        "ce-specversion": "1.0", "ce-id": "A-4", "ce-source": "/shop", "ce-type": "order.placed",
        "ce-time": "2018-02-07T03:02:03.500+02:00"})
    assert binary.status == 202, binary
    first, second, third, fourth = shop.events("orders")
    for name in ("id", "source", "type", "subject"):
        assert first[name] == event[name]
    assert first["time"] == "2018-02-07T01:02:03.500000Z"
    assert (second["id"], third["id"], third["data"]) == ("A-2", "A-3", [1, 2])
    assert (fourth["id"], fourth["source"], fourth["data"]) == ("A-4", "/shop", {"n": 4})
    assert fourth["time"] == "2018-02-07T01:02:03.500000Z"


def test_cloudevents_that_are_not(shop):
    good = {"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "t"}
    for missing in ("id", "source", "type", "specversion"):
        event = {name: value for name, value in good.items() if name != missing}
        assert_problem(post_events(shop, json.dumps(event), "application/cloudevents+json"), 400, missing)
    assert_problem(post_events(shop, json.dumps({**good, "specversion": "0.3"}), "application/cloudevents+json"), 400)
    assert_problem(post_events(shop, json.dumps({**good, "time": "yesterday"}), "application/cloudevents+json"), 400)
    assert stored(shop) == 0


def test_an_unread_content_type(shop):
    assert_problem(post_events(shop, "hello", "text/html"), 415)
    assert stored(shop) == 0


# ---- topics: what is refused ----


@pytest.mark.parametrize("line, text", [
    (2, '{"n": 1}\n{"n": 2\n{"n": 3}\n'),
    (3, '{"n": 1}\n\n{"n": tru}\n{"n": 3}\n'),
    (1, '{"n": 1} {"n": 2}\n{"n": 3}\n'),
    (4, '{"n": 1}\n{"n": 2}\n{"n": 3}\n{"n": "\x01"}\n'),
])
def test_a_malformed_line_is_named_and_nothing_is_stored(shop, line, text):
    assert_problem(post_events(shop, text, "application/x-ndjson"), 400, f"line {line}")
    assert stored(shop) == 0


@pytest.mark.parametrize("body", ["", "   ", "[", '[{"n": 1},]', '{"n": 1}}', "nul", '{"n": 1', "[" * 5000, '{"a": "\\ud8"}',
                                  b'{"a": "\xff\xfe"}', '[{"n": 1}, {"n": 2]'])
def test_malformed_json(shop, body):
    assert_problem(post_events(shop, body, "application/json"), 400)
    assert stored(shop) == 0


def test_too_large(shop):
    event = {"filler": "x" * (2 << 20)}
    assert_problem(post_events(shop, ndjson([{"n": 1}, event]), "application/x-ndjson"), 413)
    assert stored(shop) == 0
    huge = b'{"n": 1}\n' * 15_000_000  # 135 MB
    try:
        answer = post_events(shop, huge, "application/x-ndjson")
    except OSError:
        answer = None  # it may close before it has read all of that
    assert answer is None or answer.status == 413, answer
    assert stored(shop) == 0
    assert shop.get("/readyz").status == 200


def test_an_unknown_topic_names_the_nearest(shop):
    assert_problem(post_events(shop, "{}", "application/json", topic="ordres"), 404, "'orders'")
    assert_problem(shop.get("/v1/topics/ordres"), 404, "'orders'")
    assert [topic["name"] for topic in shop.get_json("/v1/topics")["items"]] == ["orders", "returns"]


def test_dedupe_is_part_of_the_append(start_daemon):
    daemon = start_daemon({"shop": "name: shop\ntopics: {orders: {dedupe: {key: event.id, within: 1h}}}\n"})
    first = daemon.publish("orders", [{"id": "a"}, {"id": "b"}, {"id": "a"}])
    assert (first["accepted"], first["duplicates"]) == (2, 1)
    daemon.kill9()
    daemon.start()
    again = daemon.publish("orders", [{"id": "b"}, {"id": "c"}])
    assert (again["accepted"], again["duplicates"], again["first_offset"], again["last_offset"]) == (1, 1, 3, 3)
    assert [event["data"]["id"] for event in daemon.events("orders")] == ["a", "b", "c"]
    assert daemon.topic("orders")["duplicates"] == 2


def test_a_full_topic_asks_to_come_back(start_daemon):
    daemon = start_daemon({"shop": "name: shop\ntopics: {orders: {max_bytes: 1MiB}}\n"})
    body = ndjson([{"filler": "x" * 1000} for _ in range(200)])
    for _ in range(20):
        answer = post_events(daemon, body, "application/x-ndjson")
        if answer.status != 202:
            break
    assert_problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1


# ---- reading ----


def test_reading_in_pages_moves_no_cursor(shop):
    shop.publish("orders", [{"n": n} for n in range(10)])
    page = shop.get_json("/v1/topics/orders/events?limit=4")
    assert [event["data"]["n"] for event in page["items"]] == [0, 1, 2, 3]
    page = shop.get_json("/v1/topics/orders/events?after=8&limit=4")
    assert [event["data"]["n"] for event in page["items"]] == [8, 9]
    assert shop.get_json("/v1/topics/orders/events?after=10")["items"] == []
    assert shop.get("/v1/topics/orders/events?after=x").status in (400, 422)


def test_follow_shows_events_as_they_come(shop):
    shop.publish("orders", [{"n": 1}])
    connection = shop.connect(timeout=20)
    connection.request("GET", "/v1/topics/orders/events?follow=true&after=0")
    stream = connection.getresponse()
    assert stream.status == 200

    def next_event():
        for raw in stream:
            line = raw.decode().strip().removeprefix("data:").strip()
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError("the stream has ended")

    assert next_event()["data"] == {"n": 1}
    shop.publish("orders", [{"n": 2}])
    assert next_event()["data"] == {"n": 2}
    connection.close()
    shop.publish("orders", [{"n": 3}])
    assert stored(shop) == 3
