"""HTTP's corners, one by one: methods, lengths, limits, messages that two readers could understand differently, slow clients."""
import re
import socket
import threading
import time

import pytest

from penstock import wait_until

EVENTS = "/v1/topics/orders/events"


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": "name: shop\ntopics: {orders: {}}\njobs: {work: {run: [\"true\"]}}\n"})


def raw(daemon, data, timeout=40, shut=False):
    """Sends bytes as they are; returns all that comes back until the end, which must come."""
    with socket.create_connection(daemon.address, timeout=timeout) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received


def message(line, *headers, body=b""):
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode("latin-1") + body


def status(answer):
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found, answer[:200]
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer or found[1][:1] in b"23", answer[:400]
    return int(found[1])


def answers(received):
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", received)


# ---- methods ----


def test_head_is_get_without_a_body(shop):
    for path in ("/healthz", "/v1/pipelines/shop", "/v1/runs", "/metrics", "/", "/v1/schema/pipeline"):
        got, head = shop.get(path), shop.request("HEAD", path)
        assert (head.status, head.body) == (got.status, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers.get("etag") == got.headers.get("etag")
        if path != "/metrics":  # it counts itself
            assert head.headers["content-length"] == str(len(got.body))
    missing = shop.request("HEAD", "/nowhere")
    assert (missing.status, missing.body) == (404, b"")
    # A stream is not begun, and the connection goes on.
    one = message(f"HEAD {EVENTS}?follow=true HTTP/1.1", "Accept: text/event-stream")
    answer = raw(shop, one + message("GET /healthz HTTP/1.1", "Connection: close"))
    assert answer.count(b"HTTP/1.1 200") == 2


def test_options_says_what_there_is(shop):
    answer = shop.request("OPTIONS", "/v1/pipelines/shop")
    assert (answer.status, answer.body) == (204, b"")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}
    assert "content-length" not in answer.headers, "RFC 9110 section 8.6"
    assert shop.request("OPTIONS", "/nowhere").status == 404
    everything = raw(shop, message("OPTIONS * HTTP/1.1", "Connection: close"))
    assert status(everything) == 204 and b"\r\nAllow: " in everything
    assert status(raw(shop, message("GET * HTTP/1.1", "Connection: close"))) == 400
    # Its body is no matter, and the connection goes on.
    answer = raw(shop, message("OPTIONS /v1/runs HTTP/1.1", "Content-Length: 3", body=b"abc") +
                 message("GET /healthz HTTP/1.1", "Connection: close"))
    assert answer.startswith(b"HTTP/1.1 204") and b"HTTP/1.1 200" in answer


@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "get", "PROPFIND"])
def test_unknown_methods(shop, method):
    answer = raw(shop, message(f"{method} /healthz HTTP/1.1", "Connection: close"))
    assert status(answer) == 501
    assert "warn" not in shop.log.read_text(), "nothing is wrong inside"


def test_known_methods_in_the_wrong_place(shop):
    for method, path in (("PATCH", "/v1/pipelines/shop"), ("DELETE", "/healthz"), ("POST", "/v1/runs"), ("HEAD", "/v1/dead-letters/replay")):
        answer = shop.request(method, path, b"" if method != "HEAD" else None)
        assert answer.status == 405
        assert "OPTIONS" in answer.headers["allow"] and method not in answer.headers["allow"].split(", ")


# ---- lengths, types, versions ----


def test_lengths(shop):
    post = f"POST {EVENTS} HTTP/1.1"
    json_type = "Content-Type: application/json"
    assert status(raw(shop, message(post, json_type, "Connection: close"))) == 411
    assert status(raw(shop, message(post, json_type, "Content-Length: 99999999999"))) == 413
    big = b"400000\r\n" + b" " * 0x400000 + b"\r\n"
    with socket.create_connection(shop.address, timeout=40) as connection:
        def send():
            try:
                connection.sendall(message(post, json_type, "Transfer-Encoding: chunked") + big * 5)
            except OSError:
                pass  # it was refused before the end
        sender = threading.Thread(target=send)
        sender.start()
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        sender.join()
    assert shop.topic("orders")["events"] == 0


def test_types(shop):
    assert shop.post(EVENTS, "x", {"Content-Type": "image/png"}).status == 415
    assert shop.request("PUT", "/v1/pipelines/other", "x", {"Content-Type": "image/png"}).status == 415
    for coding in ("br", "deflate", "zstd", "gzip, gzip", "compress"):
        answer = shop.post(EVENTS, "{}", {"Content-Type": "application/json", "Content-Encoding": coding})
        assert answer.status == 415 and answer.headers["accept-encoding"] == "gzip", coding
    assert shop.post(EVENTS, "{}", {"Content-Type": "application/json", "Content-Encoding": "identity"}).status == 202


def test_versions(shop):
    for version in ("HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/9.9"):
        assert status(raw(shop, message(f"GET /healthz {version}"))) == 505, version
    assert b" 200 " in raw(shop, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert status(raw(shop, message(f"POST {EVENTS} HTTP/1.1", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"))) == 501


def test_long_targets_and_headers(shop):
    fits = "/v1/pipelines/" + "x" * 8000
    assert status(raw(shop, message(f"GET {fits} HTTP/1.1", "Connection: close"))) == 404, "RFC 9110 section 4.1: 8000 at least"
    for size in (8193, 15_000, 17_000, 100_000):
        assert status(raw(shop, message("GET /" + "x" * size + " HTTP/1.1"))) == 414, size
    assert status(raw(shop, b"GET /" + b"x" * 40_000)) == 414
    assert status(raw(shop, message("GET /healthz HTTP/1.1", "X-Big: " + "x" * 20_000))) == 431
    assert status(raw(shop, message("GET /healthz HTTP/1.1", *(f"X-{n}: y" for n in range(3000))))) == 431
    assert status(raw(shop, message("GET /healthz HTTP/1.1", "X-Big: " + "x" * 12_000, "Connection: close"))) == 200


# ---- messages that two readers could understand differently ----

SMUGGLED = b"GET /v1/pipelines/shop HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("headers", [
    ["Content-Length: 5", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ["Content-Length: 5", "Content-Length: 5"], ["Content-Length: 5", "Content-Length: 6"], ["Content-Length: 5, 5"],
    ["Content-Length: +5"], ["Content-Length: 0x5"], ["Content-Length: 5 5"], ["Content-Length : 5"], ["Content-Length\t: 5"],
    ["Transfer-Encoding : chunked"], ["Transfer-Encoding: xchunked"], ["Transfer-Encoding: chunked, identity"],
    ["Transfer-Encoding:\x0bchunked"], ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ["X-A: b\r\n folded: c"], ["X-A: b\r\n\tfolded"], ["X-A:\r\n b"], ["X-A: \r\n \r\n b"], ["Transfer-Encoding:\r\n chunked"],
    ["X-A: b\nX-B: c"], ["X-A: b\rX-B: c"], ["X-A: b\0c"], ["X\0A: b"], [" X-A: b"], [": b"], ["no colon"], ["X A: b"],
    ["Host: y"], ["Host: x"], ["X-A: \x01"]])
def test_doubtful_headers_are_refused(shop, headers):
    answer = raw(shop, message(f"POST {EVENTS} HTTP/1.1", "Content-Type: application/json", *headers, body=b"0\r\n\r\n" + SMUGGLED))
    assert status(answer) in (400, 501), answer[:300]
    assert len(answers(answer)) == 1, "what follows is not read as a request"
    assert b"\r\nConnection: close\r\n" in answer
    assert shop.topic("orders")["events"] == 0


@pytest.mark.parametrize("line", [
    "GET  /healthz HTTP/1.1", "GET /healthz  HTTP/1.1", "GET\t/healthz\tHTTP/1.1", "GET /healthz HTTP/1.1 ", " GET /healthz HTTP/1.1",
    "GET /hea\0lthz HTTP/1.1", "GET /a b HTTP/1.1", "GET healthz HTTP/1.1", "GET ?x HTTP/1.1", "GET http:///healthz HTTP/1.1",
    "GET http://elsewhere/healthz HTTP/1.1", "GET file://x/healthz HTTP/1.1", "GET x:80 HTTP/1.1", "GET  HTTP/1.1", "G(T / HTTP/1.1"])
def test_doubtful_request_lines_are_refused(shop, line):
    answer = raw(shop, message(line) + SMUGGLED)
    assert status(answer) in (400, 505)
    assert len(answers(answer)) == 1


def test_bare_line_feeds_are_refused(shop):
    assert status(raw(shop, b"GET /healthz HTTP/1.1\nHost: x\n\n" + SMUGGLED)) in (400, 505)
    assert status(raw(shop, b"GET /healthz HTTP/1.1\r\nHost: x\n\r\n" + SMUGGLED)) == 400
    chunked = message(f"POST {EVENTS} HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked")
    for chunks in (b"2\r\n{}\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b" 2\r\n{}\r\n0\r\n\r\n", b"2;a=\n\r\n{}\r\n0\r\n\r\n"):
        assert status(raw(shop, chunked + chunks)) == 400, chunks
    # The end of a chunk's head is waited for, and never comes.
    assert status(raw(shop, chunked + b"2\n{}\n0\n\n" + SMUGGLED.replace(b"\r", b""), shut=True)) == 400
    assert shop.topic("orders")["events"] == 0


def test_the_absolute_form_of_this_host_is_read(shop):
    answer = raw(shop, b"GET http://X/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status(answer) == 200


def test_pipelined_requests_are_answered_in_order(shop):
    event = b'{"n": 1}'
    requests = [message("GET /healthz HTTP/1.1"), message("GET /nowhere HTTP/1.1"),
                message(f"POST {EVENTS} HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(event)}", body=event),
                message("OPTIONS /v1/runs HTTP/1.1"), message("HEAD /healthz HTTP/1.1"),
                message(f"POST {EVENTS} HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked", body=b"8\r\n" + event + b"\r\n0\r\n\r\n"),
                message("GET /healthz HTTP/1.1", "Connection: close")]
    answer = raw(shop, b"".join(requests))
    assert answers(answer) == [b"200", b"404", b"202", b"204", b"200", b"202", b"200"]
    assert shop.topic("orders")["events"] == 2


# ---- slow clients ----


def test_drips_are_cut_by_the_deadline_while_others_are_served(shop):
    """A byte a second keeps no connection open for longer than a header may take (10 s)."""
    dripping = [socket.create_connection(shop.address, timeout=40) for _ in range(100)]
    text = message("GET /healthz HTTP/1.1", "X-Filler: " + "x" * 500)
    began = time.monotonic()
    for connection in dripping:
        connection.sendall(text[:20])
        connection.setblocking(False)
    cut, sent, served = {}, 20, 0

    def look():
        nonlocal sent, served
        if time.monotonic() - began > sent - 20 + 1:
            for connection in dripping:
                if connection not in cut:
                    try:
                        connection.send(text[sent:sent + 1])
                    except OSError:
                        pass  # it is over; the answer is read below
            sent += 1
        asked = time.monotonic()
        assert shop.get("/healthz").status == 200
        assert time.monotonic() - asked < 2
        served += 1
        for connection in dripping:
            try:
                while piece := connection.recv(4096):
                    cut[connection] = cut.get(connection, b"") + piece
            except OSError:
                pass
        return len(cut) == len(dripping)

    wait_until(look, "all drips to be answered")
    assert all(status(answer) == 408 for answer in cut.values())
    assert 8 < time.monotonic() - began < 20 and served > 20 and sent > 25
    for connection in dripping:
        connection.close()
