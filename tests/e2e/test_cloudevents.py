"""CloudEvents over HTTP, binding 1.0.2, with what the specification itself gives as examples and what it forbids.

Each is sent to a topic and to a hook: one reader serves both.
"""
import base64
import json

import pytest

from penstock import Daemon, remove_folder, scratch_folder, wait_until

SHOP = """name: shop
topics: {orders: {}, hooked: {}}
flows:
  intake: {from: {webhook: /in}, to: {topic: hooked}}
"""
GOOD = {"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "order.placed"}
HEADERS = {"ce-" + name: value for name, value in GOOD.items()}
DOORS = [("/v1/topics/orders/events", "orders"), ("/hooks/in", "hooked")]


@pytest.fixture(scope="module")
def shop():
    daemon = Daemon(scratch_folder(), {"shop": SHOP}).start()
    yield daemon
    assert daemon.stop() == 0
    remove_folder(daemon.folder)


def accepted(daemon, door, body, headers):
    path, topic = door
    before = daemon.topic(topic)["last_offset"] or 0
    answer = daemon.request("POST", path, body, headers)
    assert answer.status == 202, answer
    return wait_until(lambda: daemon.events(topic, before), f"the event in {topic}")


def refused(daemon, door, body, headers, status=400, *words):
    path, topic = door
    before = daemon.topic(topic)["last_offset"]
    answer = daemon.request("POST", path, body, headers)
    assert answer.status == status, answer
    for word in words:
        assert word in answer.json["detail"], answer
    assert daemon.topic(topic)["last_offset"] == before


doors = pytest.mark.parametrize("door", DOORS, ids=["topic", "hook"])


# ---- binary mode (section 3.1) ----


@doors
@pytest.mark.parametrize("header, wanted", [
    ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),          # section 3.1.3.2, the example
    ("%e2%82%ac", "€"),                                        # digits in lower case: receivers take them
    ("a%22b%25c", 'a"b%c'),
    ('"quoted \\"text\\" here"', 'quoted "text" here'),        # a quoted string goes first
    ('"100%25"', "100%"),
    ("100%", "100%"), ("50%zz", "50%zz"),                      # no two digits follow: as it is
    ("%2541", "%41"),                                          # one round of decoding, not two
    ("a b  c", "a b  c")])
def test_attribute_values_are_decoded(shop, door, header, wanted):
    (event,) = accepted(shop, door, b"{}", {**HEADERS, "ce-subject": header, "Content-Type": "application/json"})
    assert event["subject"] == wanted


@doors
@pytest.mark.parametrize("header", ["%00", "a%0Ab", "a%0d", "%7F", "%FF", "%C3", "%ED%A0%80", "%C0%80"])
def test_attribute_values_that_no_attribute_may_have(shop, door, header):
    refused(shop, door, b"{}", {**HEADERS, "ce-subject": header, "Content-Type": "application/json"}, 400, "ce-subject")


@doors
def test_a_content_type_is_an_attribute_too(shop, door):
    refused(shop, door, b"x", {**HEADERS, "Content-Type": "text/\xff"}, 400, "content-type")
    (event,) = accepted(shop, door, b"x", {**HEADERS, "Content-Type": "Text/Plain;\tcharset=utf-8"})
    assert event["datacontenttype"] == "text/plain; charset=utf-8"


@doors
@pytest.mark.parametrize("missing", sorted(HEADERS))
def test_a_required_attribute_that_is_missing(shop, door, missing):
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    refused(shop, door, b"{}", {**headers, "Content-Type": "application/json"}, 400, missing)


@doors
@pytest.mark.parametrize("version", ["0.3", "1", "1.1", "2.0", "v1.0"])
def test_another_version(shop, door, version):
    refused(shop, door, b"{}", {**HEADERS, "ce-specversion": version, "Content-Type": "application/json"}, 400, "1.0")
    event = json.dumps({**GOOD, "specversion": version})
    refused(shop, door, event, {"Content-Type": "application/cloudevents+json"}, 400, "1.0")


@doors
def test_names_of_headers_have_any_case(shop, door):
    headers = {name.upper().replace("CE-", "Ce-"): value for name, value in HEADERS.items()}
    (event,) = accepted(shop, door, b'{"n": 1}', {**headers, "CONTENT-TYPE": "application/json"})
    assert {name: event[name] for name in GOOD} == GOOD and event["data"] == {"n": 1}


@doors
@pytest.mark.parametrize("content_type, body, member, data", [
    ("application/json; charset=utf-8", b'{"n": 1}', "data", {"n": 1}),
    ("Application/JSON", b"[1]", "data", [1]),
    ("application/vnd.shop+json", b'"x"', "data", "x"),
    ("text/plain; charset=utf-8", "grün".encode(), "data", "grün"),
    ("text/xml", b"<a/>", "data", "<a/>"),
    ("image/png", b"\x89PNG\xff", "data_base64", base64.b64encode(b"\x89PNG\xff").decode())])
def test_the_content_type_is_that_of_the_data(shop, door, content_type, body, member, data):
    (event,) = accepted(shop, door, body, {**HEADERS, "Content-Type": content_type})
    media_type, semicolon, parameters = content_type.partition(";")
    assert event[member] == data and event["datacontenttype"] == media_type.lower() + semicolon + parameters


@doors
def test_data_that_is_not_what_its_type_says(shop, door):
    refused(shop, door, b"{", {**HEADERS, "Content-Type": "application/json"}, 400, "JSON")


# ---- structured mode (section 3.2) ----


@doors
@pytest.mark.parametrize("content_type", ["application/cloudevents+json", "application/cloudevents+json; charset=UTF-8",
                                          "Application/CloudEvents+JSON", "application/cloudevents+json;charset=utf-8"])
def test_structured_whatever_the_letters(shop, door, content_type):
    (event,) = accepted(shop, door, json.dumps({**GOOD, "data": {"n": 2}}), {"Content-Type": content_type})
    assert event["id"] == "A-1" and event["data"] == {"n": 2}


@doors
def test_the_type_decides_before_the_headers(shop, door):
    """Section 3: a body in an event format is structured, whatever ce- headers a gateway added."""
    (event,) = accepted(shop, door, json.dumps({**GOOD, "id": "inside"}), {**HEADERS, "Content-Type": "application/cloudevents+json"})
    assert event["id"] == "inside"


@doors
@pytest.mark.parametrize("content_type", ["application/cloudevents+avro", "application/cloudevents+xml", "application/cloudevents",
                                          "application/cloudevents+protobuf", "application/cloudevents-batch+avro"])
def test_an_event_format_that_is_not_read(shop, door, content_type):
    refused(shop, door, json.dumps(GOOD), {"Content-Type": content_type}, 415, "application/cloudevents+json")


@doors
@pytest.mark.parametrize("data, member, wanted", [
    ({"data": {"a": [1, None]}}, "data", {"a": [1, None]}), ({"data": None}, "data", None), ({"data": "text"}, "data", "text"),
    ({"data_base64": base64.b64encode(b'{"n": 7}').decode()}, "data", {"n": 7}),
    ({"data_base64": base64.b64encode(b"\x00\xff").decode(), "datacontenttype": "image/png"}, "data_base64", "AP8="),
    ({"data": "<a/>", "datacontenttype": "text/xml"}, "data", "<a/>")])
def test_forms_of_data(shop, door, data, member, wanted):
    (event,) = accepted(shop, door, json.dumps({**GOOD, **data}), {"Content-Type": "application/cloudevents+json"})
    assert event[member] == wanted


@doors
@pytest.mark.parametrize("wrong", [
    {"data": 1, "data_base64": "AA=="}, {"data_base64": "no base64!"}, {"data_base64": 3}, {"data_base64": "e2Jyb2tlbg=="},
    {"id": ""}, {"id": 3}, {"source": None}, {"type": ""}, {"time": "yesterday"}, {"time": 3}])
def test_members_that_may_not_be(shop, door, wrong):
    refused(shop, door, json.dumps({**GOOD, **wrong}), {"Content-Type": "application/cloudevents+json"})


# ---- batched mode (section 3.3) ----


@doors
def test_a_batch_is_taken_whole_or_not_at_all(shop, door):
    type_ = {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}
    events = accepted(shop, door, json.dumps([{**GOOD, "id": "b1"}, {**GOOD, "id": "b2"}]), type_)
    assert [event["id"] for event in events] == ["b1", "b2"]
    refused(shop, door, json.dumps([GOOD, {**GOOD, "specversion": "0.3"}]), type_, 400, "item 2")
    refused(shop, door, json.dumps(GOOD), type_, 400, "array")
    refused(shop, door, json.dumps([GOOD]), {"Content-Type": "application/cloudevents+json"}, 400)


# ---- hooks of senders that send forms ----


def test_a_form_is_told_what_to_set(shop):
    form = b"payload=%7B%22action%22%3A%22opened%22%7D"
    refused(shop, DOORS[1], form, {"Content-Type": "application/x-www-form-urlencoded", "X-GitHub-Event": "issues"}, 415,
            "form", "application/json", "GitHub")
    (event,) = accepted(shop, DOORS[1], b'{"action": "opened"}', {"Content-Type": "application/x-www-form-urlencoded"})
    assert event["data"] == {"action": "opened"}, "curl -d names that type for everything"
