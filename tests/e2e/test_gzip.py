"""Bodies in gzip, both ways: who gets them, what ETags then mean, and small bodies that unpack to huge ones."""
import concurrent.futures
import gzip
import hashlib
import hmac
import json
import os
import pathlib
import time
import zlib

import pytest

from penstock import ndjson, wait_until

EVENTS = "/v1/topics/orders/events"
LIMIT = 16 << 20  # of a body of events
SHOP = {"shop": """
name: shop
description: "%s"
topics: {orders: {}}
flows:
  hook: {from: {webhook: {path: /in, signature: {scheme: hmac-sha256, header: X-Signature, secret: "${env:HOOK_SECRET}"}}}, to: {topic: orders}}
""" % ("long " * 400)}


@pytest.fixture
def shop(start_daemon):
    daemon = start_daemon(SHOP, env={"HOOK_SECRET": "s3cret"})
    wait_until(lambda: daemon.flow("shop", "hook")["state"] == "running", "the flow to run: answers are compared with each other")
    return daemon


def resident(daemon):
    """Bytes of memory that the daemon holds."""
    status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


# ---- answers ----


@pytest.mark.parametrize("accept, packed", [
    ("gzip", True), ("GZIP", True), ("x-gzip", True), ("br, gzip;q=0.5", True), ("*", True), ("*;q=0.1", True), ("gzip;q=1.0, *;q=0", True),
    ("gzip;q=0.001", True), ("identity;q=0.5, gzip;q=0.5", True),
    (None, False), ("", False), ("br", False), ("gzip;q=0", False), ("gzip; q=0.000", False), ("*;q=0", False), ("*;q=1, gzip;q=0", False),
    ("identity", False), ("identity;q=1, gzip;q=0.5", False), ("gzipped", False), (",;q=,,", False)])
def test_who_gets_gzip(shop, accept, packed):
    plain = shop.get("/v1/pipelines/shop")
    answer = shop.get("/v1/pipelines/shop", {} if accept is None else {"Accept-Encoding": accept})
    assert answer.status == 200 and answer.headers["vary"].endswith("Accept-Encoding")
    assert (answer.headers.get("content-encoding") == "gzip") == packed
    assert answer.headers["content-length"] == str(len(answer.body))
    text = gzip.decompress(answer.body) if packed else answer.body
    assert text == plain.body and (len(answer.body) < len(text)) == packed


def test_small_answers_and_streams_stay_plain(shop):
    for path in ("/healthz", "/v1/runs", "/v1/topics"):
        answer = shop.get(path, {"Accept-Encoding": "gzip"})
        assert "content-encoding" not in answer.headers and answer.json is not None
    shop.publish("orders", [{"n": n, "text": "x" * 100} for n in range(100)])
    connection = shop.connect()
    connection.request("GET", f"{EVENTS}?follow=true&after=0", headers={"Accept-Encoding": "gzip", "Accept": "text/event-stream"})
    answer = connection.getresponse()
    assert answer.getheader("content-encoding") is None
    assert b"xxx" in answer.read(2000)
    connection.close()


def test_text_and_errors_and_heads(shop):
    assert b"penstock_" in gzip.decompress(shop.get("/metrics", {"Accept-Encoding": "gzip"}).body)
    answer = shop.get("/v1/pipelines/shop", {"Accept-Encoding": "gzip", "Accept": "application/yaml"})
    assert gzip.decompress(answer.body).decode() == SHOP["shop"]
    wrong = "name: shop\n" + "".join(f"wrong_{n}: 1\n" for n in range(50))
    refused = shop.request("PUT", "/v1/pipelines/shop", wrong, {"Content-Type": "application/yaml", "Accept-Encoding": "gzip"})
    assert refused.status == 422 and len(json.loads(gzip.decompress(refused.body))["errors"]) == 50
    head = shop.request("HEAD", "/v1/pipelines/shop", headers={"Accept-Encoding": "gzip"})
    got = shop.get("/v1/pipelines/shop", {"Accept-Encoding": "gzip"})
    assert head.body == b"" and head.headers["content-encoding"] == "gzip"
    assert head.headers["content-length"] == got.headers["content-length"] and head.headers["etag"] == got.headers["etag"]


def test_etags_of_both_variants_are_good_everywhere(shop):
    as_written = {"Accept": "application/yaml"}  # the JSON has live counts: it is never told to be known
    plain = shop.get("/v1/pipelines/shop", as_written).headers["etag"]
    packed = shop.get("/v1/pipelines/shop", {"Accept-Encoding": "gzip", **as_written}).headers["etag"]
    assert plain != packed and not packed.startswith("W/"), "strong, and other bytes have another one"
    for tag in (plain, packed, f"W/{plain}", f"\"other\", {packed}", "*"):
        for encoding in ("gzip", "identity"):
            answer = shop.get("/v1/pipelines/shop", {"If-None-Match": tag, "Accept-Encoding": encoding, **as_written})
            assert (answer.status, answer.body) == (304, b""), (tag, encoding)
            assert "etag" in answer.headers and "content-length" not in answer.headers
    assert shop.get("/v1/pipelines/shop", {"If-None-Match": '"other"', **as_written}).status == 200
    assert shop.get("/v1/pipelines/shop", {"If-None-Match": plain[:-1], **as_written}).status == 200
    for tag in (plain, packed):
        shop.put("shop", SHOP["shop"], headers={"If-Match": tag})
    other = SHOP["shop"].replace("long", "other")
    for tag in ('"other"', packed.replace("-gzip", "-brotli"), f"W/{plain}"):
        shop.put("shop", other, expect=(412,), headers={"If-Match": tag})
    shop.put("shop", other, headers={"If-Match": packed})
    for tag in (plain, packed):
        assert shop.get("/v1/pipelines/shop", {"If-None-Match": tag}).status == 200
        assert shop.request("DELETE", "/v1/pipelines/shop", headers={"If-Match": tag}).status == 412
    now = shop.get("/v1/pipelines/shop", {"Accept-Encoding": "gzip"}).headers["etag"]
    assert shop.request("DELETE", "/v1/pipelines/shop", headers={"If-Match": now}).status in (200, 204)


def test_large_answers_hold_up_nobody(shop):
    """Pages of some megabytes are packed again and again; who asks for little meanwhile does not wait for them."""
    noise = [hashlib.sha256(b"%d" % n).hexdigest() * 40 for n in range(1000)]
    shop.publish("orders", [{"n": n, "text": text} for n, text in enumerate(noise)])
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        pages = [clients.submit(shop.get, f"{EVENTS}?limit=1000&after=0", {"Accept-Encoding": "gzip"}) for _ in range(12)]
        waits = []
        while not all(page.done() for page in pages):
            began = time.monotonic()
            assert shop.get("/healthz").status == 200
            waits.append(time.monotonic() - began)
    for page in pages:
        answer = page.result()
        assert answer.headers["content-encoding"] == "gzip"
        assert [item["data"]["text"] for item in json.loads(gzip.decompress(answer.body))["items"]] == noise
    assert len(waits) > 10


# ---- requests ----


def send(daemon, body, path=EVENTS, content_type="application/x-ndjson", **headers):
    return daemon.post(path, body, {"Content-Type": content_type, "Content-Encoding": "gzip", **headers})


def test_events_in_gzip(shop):
    events = [{"n": n, "text": "some text"} for n in range(5000)]
    answer = send(shop, gzip.compress(ndjson(events)))
    assert answer.status == 202 and answer.json["accepted"] == 5000
    assert [event["data"] for event in shop.events("orders")] == events
    one = gzip.compress(b'{"n": 1}')
    assert send(shop, one, content_type="application/json").status == 202
    assert shop.post(EVENTS, one, {"Content-Type": "application/json", "Content-Encoding": "X-GZIP"}).status == 202
    # Several members are one text (RFC 1952 section 2.2), also where a piece ends exactly at a slice's end.
    parts = b"".join(gzip.compress(ndjson([{"n": n}])) for n in range(100))
    assert send(shop, parts).json["accepted"] == 100
    exact = ndjson([{"t": "x" * (128 * 1024 - 10)}])
    assert len(exact) == 128 * 1024
    assert send(shop, gzip.compress(exact) + gzip.compress(exact)).json["accepted"] == 2


def test_chunked_and_expected_bodies_in_gzip(shop):
    body = gzip.compress(ndjson([{"n": n} for n in range(10_000)]))
    connection = shop.connect()
    for _ in range(2):
        connection.request("POST", EVENTS, iter([body[:10], body[10:5000], body[5000:]]), encode_chunked=True,
                           headers={"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"})
        answer = connection.getresponse()
        assert answer.status == 202 and json.loads(answer.read())["accepted"] == 10_000
    connection.close()


def test_definitions_and_hooks_in_gzip(shop):
    answer = shop.request("PUT", "/v1/pipelines/second", gzip.compress(b"name: second\n"),
                          {"Content-Type": "application/yaml", "Content-Encoding": "gzip"})
    assert answer.status == 201
    body = b'{"n": 7}'
    # The sender signs what it says, not how it is packed for the way.
    sign = {"X-Signature": hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()}
    assert send(shop, gzip.compress(body), "/hooks/in", "application/json", **sign).status == 202
    assert send(shop, gzip.compress(b'{"n": 8}'), "/hooks/in", "application/json", **sign).status == 401
    wait_until(lambda: [event["data"] for event in shop.events("orders")] == [{"n": 7}], "the event of the hook")


@pytest.mark.parametrize("body", [
    b"plain text", b"\x1f\x8b", gzip.compress(b"{}" * 1000)[:-1], gzip.compress(b"{}" * 1000)[:-12], gzip.compress(b"{}") + b"rubbish",
    zlib.compress(b"{}"), gzip.compress(os.urandom(1000))[:500], gzip.compress(b"{}")[:-8] + b"\0" * 8, b"\x1f\x8b\x08\x00" + b"\xff" * 100])
def test_broken_gzip_is_refused(shop, body):
    connection = shop.connect()
    for _ in range(2):  # and the connection goes on
        connection.request("POST", EVENTS, body, {"Content-Type": "application/json", "Content-Encoding": "gzip"})
        answer = connection.getresponse()
        assert answer.status == 400 and "gzip" in json.loads(answer.read())["detail"]
    connection.close()
    assert shop.topic("orders")["events"] == 0


def test_an_empty_body_is_an_empty_body(shop):
    for body in (b"", gzip.compress(b"")):
        assert send(shop, body).status == shop.post(EVENTS, b"", {"Content-Type": "application/x-ndjson"}).status


def test_bombs(shop):
    """A megabyte that unpacks to a gigabyte is refused when it passes the limit, at no cost in memory; others are served."""
    bomb = gzip.compress(b"\0" * (1 << 30), 9)
    assert len(bomb) < 2 << 20
    assert send(shop, gzip.compress(b" " * (LIMIT - 2) + b"{}"), content_type="application/json").status == 202, "just fits"
    before = resident(shop)
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        sent = [clients.submit(send, shop, bomb) for _ in range(24)]
        while not all(one.done() for one in sent):
            assert shop.get("/healthz").status == 200
    for one in sent:
        assert one.result().status in (413, 503), "503: too many large requests at once"
    assert any(one.result().status == 413 for one in sent)
    assert "unpacked" in next(one.result() for one in sent if one.result().status == 413).json["detail"]
    assert resident(shop) - before < 400 << 20
    assert send(shop, gzip.compress(b" " * LIMIT + b"{}"), content_type="application/json").status == 413
    members = gzip.compress(b"") * 200_000
    assert send(shop, members).status == shop.post(EVENTS, b"", {"Content-Type": "application/x-ndjson"}).status
    # The limit of definitions is lower.
    answer = shop.request("PUT", "/v1/pipelines/x", gzip.compress(b"#" * (2 << 20)), {"Content-Type": "application/yaml", "Content-Encoding": "gzip"})
    assert answer.status == 413
    assert shop.topic("orders")["events"] == 1
