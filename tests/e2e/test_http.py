"""HTTP itself: every refusal is problem+json with the right status, and no client can hold up the others."""
import json
import re
import socket

import pytest

from penstock import wait_until


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": "name: shop\ntopics: {orders: {}}\njobs: {work: {run: [\"true\"]}}\n"})


def assert_problem(answer, status):
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json"), answer
    assert answer.json["status"] == status
    assert answer.json["title"] and answer.json["type"] and answer.json["detail"]


def raw(daemon, data, shut=True):
    """Sends bytes as they are; returns all that comes back."""
    with socket.create_connection(daemon.address, timeout=20) as connection:
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


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1/pipelines/none", "/v1/runs/none", "/v1/topics/none/events",
                                  "/v1/pipelines/shop/flows/none", "/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/v2/pipelines",
                                  "/v1//runs"])
def test_unknown_paths(shop, path):
    assert_problem(shop.get(path), 404)


def test_the_nearest_name_is_given(shop):
    assert "'shop'" in shop.get("/v1/pipelines/shp").json["detail"]


@pytest.mark.parametrize("method, path", [("DELETE", "/v1/runs"), ("POST", "/healthz"), ("PUT", "/v1/topics/orders/events"),
                                          ("PATCH", "/v1/pipelines/shop"), ("POST", "/v1/runs/x")])
def test_wrong_methods_say_which_are_right(shop, method, path):
    answer = shop.request(method, path, b"")
    assert_problem(answer, 405)
    assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "limit=1000000000", "state=sleeping", "cursor=%00bad",
                                   "since=yesterday"])
def test_bad_parameters(shop, query):
    answer = shop.get("/v1/runs?" + query)
    assert answer.status in (400, 422), answer
    assert_problem(answer, answer.status)


def test_bodies_of_the_wrong_type(shop):
    assert_problem(shop.request("PUT", "/v1/pipelines/x", "name: x", {"Content-Type": "image/png"}), 415)
    answer = shop.request("POST", "/v1/pipelines/shop/jobs/work/runs", "[1]", {"Content-Type": "application/json"})
    assert_problem(answer, answer.status)
    assert answer.status in (400, 422)
    assert_problem(shop.request("POST", "/v1/dead-letters/replay", "{nope", {"Content-Type": "application/json"}), 400)


def test_headers_that_are_too_large(shop):
    answer = raw(shop, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"x" * 200_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431"), answer[:200]
    answer = raw(shop, b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4(31|14)", answer), answer[:200]


@pytest.mark.parametrize("request_text", [b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00\x01\x02\x03\r\n\r\n",
                                          b"POST /v1/topics/orders/events HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
                                          b"POST /v1/topics/orders/events HTTP/1.1\r\nHost: x\r\n"
                                          b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
                                          b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_what_is_not_http(shop, request_text):
    answer = raw(shop, request_text)
    assert answer == b"" or re.match(rb"HTTP/1\.[01] [45]\d\d", answer), answer[:200]
    assert shop.get("/healthz").status == 200
    assert shop.topic("orders")["events"] == 0


def test_a_body_cut_short_is_not_stored(shop):
    raw(shop, b"POST /v1/topics/orders/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              b"Content-Length: 100\r\n\r\n{\"n\": 1}")
    assert shop.topic("orders")["events"] == 0


def test_a_chunked_body_is_read(shop):
    answer = raw(shop, b"POST /v1/topics/orders/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\n{\"n\"\r\n4\r\n: 1}\r\n0\r\n\r\n",
                 shut=False)
    assert answer.startswith(b"HTTP/1.1 202"), answer
    assert shop.events("orders")[0]["data"] == {"n": 1}


def test_expect_continue(shop):
    with socket.create_connection(shop.address, timeout=20) as connection:
        connection.sendall(b"POST /v1/topics/orders/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 8\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(b"{\"n\": 1}")
        assert connection.recv(1000).startswith(b"HTTP/1.1 202")


def test_keep_alive_and_pipelining(shop):
    connection = shop.connect()
    for _ in range(50):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert raw(shop, one * 5 + last, shut=False).count(b"HTTP/1.1 200") == 6
    assert raw(shop, b"GET /healthz HTTP/1.0\r\n\r\n", shut=False).startswith(b"HTTP/1")


def test_slow_clients_do_not_hold_up_others(shop):
    slow = [socket.create_connection(shop.address, timeout=20) for _ in range(200)]
    for connection in slow:
        connection.sendall(b"POST /v1/topics/orders/events HTTP/1.1\r\nHost: x\r\nContent-Le")
    for _ in range(20):
        assert shop.get("/healthz").status == 200
    for connection in slow:
        connection.close()
    assert shop.publish("orders", [{"n": 1}])["accepted"] == 1


def test_head_has_no_body(shop):
    answer = shop.request("HEAD", "/healthz")
    assert answer.body == b""
    assert answer.status in (200, 405)


def test_health_and_metrics(shop):
    assert shop.get("/healthz").status == 200
    assert shop.get("/readyz").status == 200
    shop.publish("orders", [{"n": 1}, {"n": 2}])
    shop.run_to_end("shop", "work")
    answer = shop.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    names, typed = set(), set()
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif line and not line.startswith("#"):
            found = re.fullmatch(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-z_]+=\"(\\.|[^\"\\])*\",?)*\})? (NaN|[+-]?[0-9.e+-]+|[+-]Inf)",
                                 line)
            assert found, line
            names.add(found[1])
    assert names and all(name.startswith("penstock_") or name.startswith("process_") for name in names), names
    for name in names:
        assert name in typed or re.sub(r"_(bucket|sum|count)$", "", name) in typed, name
    assert "orders" in answer.text and "work" in answer.text


def test_schema_of_definitions(shop):
    schema = shop.get_json("/v1/schema/pipeline")
    assert "2020-12" in schema["$schema"]
    assert {"topics", "flows", "jobs"} <= set(schema["properties"])


def test_runs_come_in_pages(start_daemon):
    daemon = start_daemon({"shop": "name: shop\njobs: {work: {run: [\"true\"], on_overlap: allow}}\n"})
    ids = [daemon.trigger("shop", "work").json["id"] for _ in range(25)]
    wait_until(lambda: daemon.job("shop", "work")["runs"].get("succeeded") == 25, "25 runs")
    seen, cursor = [], None
    while True:
        page = daemon.get_json("/v1/runs?limit=10" + (f"&cursor={cursor}" if cursor else ""))
        seen += [run["id"] for run in page["items"]]
        cursor = page.get("next_cursor")
        if not cursor:
            break
    assert seen == sorted(ids, reverse=True), "newest first, each once"
    assert [run["id"] for run in daemon.runs("shop", "work", state="failed")] == []
    assert json.loads(daemon.get("/v1/runs?pipeline=other").text)["items"] == []
