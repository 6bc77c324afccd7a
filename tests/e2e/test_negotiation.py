"""Accept, Content-Type, If-Match and If-None-Match: the client gets the form it asks for, or is told which there are."""
import pytest

from penstock import wait_until

SHOP = """name: shop
description: for people
topics: {orders: {}}
flows:
  copy: {from: {topic: orders}, steps: [{filter: event.n > 1}], to: drop}
jobs:
  work: {run: ["true"]}
"""


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": SHOP})


def assert_problem(answer, status, *words):
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json", answer
    for word in words:
        assert word in answer.json["detail"], answer


def text_of(daemon, path):
    answer = daemon.get(path, {"Accept": "text/plain"})
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Accept" in answer.headers["vary"].split(", ")
    assert answer.text.endswith("\n")
    assert all(line == line.rstrip() for line in answer.text.splitlines()), answer.text
    return answer.text


# ---- Accept ----


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/html, application/xml;q=0.9", "*/*;q=0"])
@pytest.mark.parametrize("path", ["/v1/runs", "/v1/pipelines/shop", "/v1/topics", "/v1/changes", "/metrics",
                                  "/v1/topics/orders/events", "/v1/topics/orders/events?follow=true"])
def test_nothing_acceptable_is_told_with_what_there_is(shop, path, accept):
    offered = {"/metrics": "text/plain", "/v1/changes": "text/event-stream"}.get(path, "application/json")
    assert_problem(shop.get(path, {"Accept": accept}), 406, "application/x-ndjson" if "follow" in path else offered)


def test_what_is_not_acceptable_is_not_done(shop):
    answer = shop.trigger("shop", "work", headers={"Accept": "text/html"})
    assert_problem(answer, 406)
    assert shop.runs() == []
    assert_problem(shop.request("DELETE", "/v1/pipelines/none", headers={"Accept": "image/png"}), 404)  # 204 has no form


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_never_refused(shop, path):
    assert shop.get(path, {"Accept": "image/png"}).status == 200


@pytest.mark.parametrize("accept, media", [
    (None, "application/json"), ("*/*", "application/json"), ("application/*", "application/json"),
    ("text/html, */*;q=0.8", "application/json"), ("text/plain", "text/plain; charset=utf-8"),
    ("text/plain;q=0.5, application/json;q=0.4", "text/plain; charset=utf-8"), ("text/plain;q=0.5, application/json", "application/json"),
    ("application/yaml", "application/yaml"), ("application/x-yaml", "application/yaml"),
    ("application/json;q=0.5, text/yaml", "application/yaml"), ("application/json;q=0, */*;q=0.1", "application/yaml")])
def test_the_most_wanted_form_is_sent(shop, accept, media):
    answer = shop.get("/v1/pipelines/shop", {"Accept": accept} if accept else {})
    assert (answer.status, answer.headers["content-type"]) == (200, media), answer
    for one in (answer, shop.get("/v1/pipelines/shop/revisions/1")):
        assert "Accept" in one.headers["vary"].split(", ")


def test_a_page_of_events_is_json_and_a_stream_is_not(shop):
    shop.publish("orders", [{"n": 1}])
    assert shop.get("/v1/topics/orders/events", {"Accept": "application/json"}).json["items"][0]["data"] == {"n": 1}
    assert_problem(shop.get("/v1/topics/orders/events", {"Accept": "application/x-ndjson"}), 406, "application/json")
    for accept in ("application/x-ndjson", "text/event-stream", "text/event-stream;q=0.2, application/x-ndjson;q=0.3"):
        answer = shop.get("/v1/topics/orders/events?follow=true&after=0&limit=1", {"Accept": accept})
        assert answer.headers["content-type"] == ("text/event-stream" if accept == "text/event-stream" else "application/x-ndjson")
    assert_problem(shop.get("/v1/topics/orders/events?follow=true", {"Accept": "application/json"}), 406)


# ---- tables ----


def test_lists_are_tables_on_a_terminal(shop):
    assert text_of(shop, "/v1/dead-letters") == "no dead letters\n"
    assert text_of(shop, "/v1/streams") == "no streams\n"
    assert text_of(shop, "/v1/runs") == "no runs\n"
    run = shop.run_to_end("shop", "work")
    shop.publish("orders", [{"n": 1}, {"n": 2}])
    head, row = text_of(shop, "/v1/runs").splitlines()
    assert head.split() == ["RUN", "PIPELINE", "JOB", "STATE", "TRIGGER", "EVENTS", "CREATED", "LASTED", "REASON"]
    assert row.split()[:5] == [run["id"], "shop", "work", "succeeded", "rest"]
    assert head.index("STATE") == row.index("succeeded"), "columns stand under each other"
    head, row = text_of(shop, "/v1/pipelines").splitlines()
    assert row.split()[:6] == ["shop", "1", "active", "1", "1", "1"] and row.endswith("for people")
    head, row = text_of(shop, "/v1/topics").splitlines()
    assert row.split()[:4] == ["orders", "2", "1", "2"]
    head, row = text_of(shop, "/v1/pipelines/shop/revisions").splitlines()
    assert row.split()[0] == "1" and row.endswith("current")


def test_a_page_that_is_not_the_last_says_how_to_go_on(shop):
    for _ in range(3):
        shop.run_to_end("shop", "work")
    text = text_of(shop, "/v1/runs?limit=2")
    assert len(text.splitlines()) == 4
    cursor = text.splitlines()[-1].partition("cursor=")[2].rstrip(")")
    assert len(text_of(shop, f"/v1/runs?limit=2&cursor={cursor}").splitlines()) == 2


def test_one_thing_is_lines_and_tables(shop):
    run = shop.run_to_end("shop", "work", {"params": {}})
    text = text_of(shop, f"/v1/runs/{run['id']}")
    assert f"run           {run['id']}\n" in text and "state         succeeded\n" in text
    assert "TASK" in text and "EXIT CODE" in text and "WHAT" in text
    text = text_of(shop, "/v1/pipelines/shop")
    assert text.startswith("pipeline      shop\n") and "FLOW" in text and "JOB" in text
    assert "state         running\n" in text_of(shop, "/v1/pipelines/shop/flows/copy")
    assert "CONSUMER" in text_of(shop, "/v1/topics/orders")


def test_no_text_breaks_a_table(shop):
    """What comes from outside stays in its cell: no line break, no escape sequence reaches the terminal."""
    shop.put("bad", SHOP.replace("shop", "bad").replace("for people", '"a\\nb\\u001b[31mred\\u0007"').replace("orders", "more"))
    rows = text_of(shop, "/v1/pipelines").splitlines()
    assert len(rows) == 3
    for path in ("/v1/pipelines", "/v1/pipelines/bad"):
        assert not any(ord(c) < 32 and c != "\n" or ord(c) == 127 for c in text_of(shop, path))


def test_refusals_are_problems_for_terminals_too(shop):
    assert_problem(shop.get("/v1/runs/none", {"Accept": "text/plain"}), 404)
    assert_problem(shop.get("/v1/runs?limit=x", {"Accept": "text/plain"}), 400)


def test_a_long_list_is_a_table_too(shop):
    ids = [shop.trigger("shop", "work").json["id"] for _ in range(300)]
    wait_until(lambda: len(shop.runs("shop", "work", state="succeeded")) == 300, "the runs to end")
    assert len(shop.get("/v1/runs?limit=300").body) > 128 << 10
    assert [line.split()[0] for line in text_of(shop, "/v1/runs?limit=300").splitlines()[1:]] == ids[::-1]


# ---- Content-Type ----


@pytest.mark.parametrize("path, body, known", [
    ("/v1/pipelines/shop/jobs/work/runs", "{}", "application/json"),
    ("/v1/dead-letters/discard", '{"all": true}', "application/json"),
    ("/v1/topics/orders/events", '{"n": 1}', "application/x-ndjson"),
    ("/v1/pipelines", SHOP, "application/yaml")])
@pytest.mark.parametrize("sent", ["image/png", "text/html; charset=utf-8", "application/xml", "json"])
def test_a_type_that_is_not_known_is_refused_with_those_that_are(shop, path, body, known, sent):
    assert_problem(shop.request("POST", path, body, {"Content-Type": sent}), 415, known)
    assert shop.runs() == [] and shop.topic("orders")["events"] == 0


@pytest.mark.parametrize("sent", [None, "application/json", "Application/JSON; charset=UTF-8", "application/vnd.shop+json", "text/json",
                                  "application/x-www-form-urlencoded", "text/plain", "application/octet-stream"])
def test_types_that_are_json_or_say_nothing(shop, sent):
    answer = shop.request("POST", "/v1/pipelines/shop/jobs/work/runs", "{}", {"Content-Type": sent} if sent else {})
    assert answer.status == 202, answer
    answer = shop.request("POST", "/v1/topics/orders/events", '{"n": 1}', {"Content-Type": sent} if sent else {})
    assert answer.status == 202, answer


# ---- If-Match, If-None-Match ----


@pytest.mark.parametrize("make, status", [
    (lambda etag: etag, 200), (lambda etag: "*", 200), (lambda etag: f'"a", {etag}', 200), (lambda etag: f'"a,b" ,{etag},"c"', 200),
    (lambda etag: f"W/{etag}", 412), (lambda etag: f'"a", W/{etag}', 412), (lambda etag: '"a", "b"', 412),
    (lambda etag: etag.strip('"'), 412), (lambda etag: f'"{etag}', 412), (lambda etag: ",", 412)])
def test_if_match_takes_a_list_and_no_weak_tags(shop, make, status):
    etag = shop.get("/v1/pipelines/shop").headers["etag"]
    again = shop.put("shop", SHOP.replace("for people", "changed"), expect=(status,), headers={"If-Match": make(etag)})
    if status == 412:
        assert_problem(again, 412, etag)
        assert shop.pipeline("shop")["description"] == "for people"
    etag = shop.get("/v1/pipelines/shop").headers["etag"]
    gone = shop.request("DELETE", "/v1/pipelines/shop", headers={"If-Match": make(etag)})
    assert gone.status == {200: 204}.get(status, status), gone


def test_several_headers_of_a_name_are_one_list(shop):
    etag = shop.get("/v1/pipelines/shop").headers["etag"]

    def ask(method, path, *headers):
        connection = shop.connect()
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        response = connection.getresponse()
        response.read()
        connection.close()
        return response
    revision = "/v1/pipelines/shop/revisions/1"
    assert ask("GET", revision, ("If-None-Match", '"a"'), ("If-None-Match", etag)).status == 304
    assert ask("GET", revision, ("Accept", "image/png"), ("accept", "application/yaml")).getheader("Content-Type") == "application/yaml"
    assert ask("GET", revision, ("Accept", "image/png"), ("Accept", "image/gif")).status == 406
    assert ask("DELETE", "/v1/pipelines/shop", ("If-Match", '"a"'), ("If-Match", '"b"')).status == 412
    assert ask("DELETE", "/v1/pipelines/shop", ("If-Match", '"a"'), ("If-Match", etag)).status == 204


def test_what_the_client_has_is_not_sent_again(shop):
    yaml = {"Accept": "application/yaml"}
    for path, headers in (("/v1/pipelines/shop", yaml), ("/v1/pipelines/shop/revisions/1", {}), ("/v1/pipelines/shop/revisions/1", yaml),
                          ("/v1/schema/pipeline", {}), ("/openapi.json", {}), ("/", {})):
        first = shop.get(path, headers)
        etag = first.headers["etag"]
        for tags in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            known = shop.get(path, {**headers, "If-None-Match": tags})
            assert (known.status, known.body, known.headers["etag"]) == (304, b"", etag), (path, tags, known)
        assert shop.get(path, {**headers, "If-None-Match": '"x"'}).body == first.body
        head = shop.request("HEAD", path, headers={**headers, "If-None-Match": etag})
        assert head.status == 304
    etag = shop.get("/v1/pipelines/shop", yaml).headers["etag"]
    shop.put("shop", SHOP.replace("for people", "changed"))
    assert "changed" in shop.get("/v1/pipelines/shop", {**yaml, "If-None-Match": etag}).text


def test_what_lives_is_always_sent(shop):
    """The JSON of a pipeline shows counts and states, which change while its ETag, that of the definition, does not."""
    first = shop.get("/v1/pipelines/shop")
    shop.publish("orders", [{"n": 5}])
    again = shop.get("/v1/pipelines/shop", {"If-None-Match": first.headers["etag"]})
    assert again.status == 200 and again.json["name"] == "shop"


def test_idempotency_of_a_retry(shop):
    first = shop.run_to_end("shop", "work")
    path = f"/v1/runs/{first['id']}/retry"
    key = {"Idempotency-Key": "again-1"}
    made = shop.post(path, headers=key)
    assert made.status == 202, made
    same = shop.post(path, headers=key)
    assert same.json["id"] == made.json["id"]
    assert_problem(shop.post(path + "?from=start", headers=key), 422, "again-1", made.json["id"])
    assert shop.post(path, headers={"Idempotency-Key": '"again-1"'}).json["id"] == made.json["id"], "quoted or not, it is one key"
    shop.wait_for_run(made.json["id"])
    assert shop.trigger("shop", "work", headers=key).json["id"] != made.json["id"], "the key of a retry is not that of a trigger"
    assert_problem(shop.post(path, headers={"Idempotency-Key": "x" * 256}), 400, "255")
    assert len(shop.runs("shop", "work")) == 3
    shop.kill9()
    shop.start()
    assert shop.post(path, headers=key).json["id"] == made.json["id"]
