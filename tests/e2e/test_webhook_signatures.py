"""Signed webhooks against the real binary: each scheme, clocks that are wrong, secrets that change, and deliveries that come
again: one after the other, at once, after a failure, after a restart, after a change of the definition."""
import base64
import concurrent.futures
import hashlib
import hmac
import json
import time

import pytest

from penstock import penstock

OLD, NEW = "the old secret", "the new secret"
KEYS = {"old": b"0123456789abcdef01234567", "new": b"abcdefghijklmnopqrstuvwx"}
WHSEC = {name: "whsec_" + base64.b64encode(key).decode() for name, key in KEYS.items()}
ENV = {"OLD": OLD, "NEW": NEW, "WHSEC_OLD": WHSEC["old"], "WHSEC_NEW": WHSEC["new"], "BAD": "whsec_not base64"}
PIPELINE = """
name: shop
topics: {plain: {}, github: {}, stripe: {}, standard: {}, once: {dedupe: {key: meta.id, within: 24h}}}
flows:
  plain:
    from:
      webhook:
        path: /plain
        signature: {scheme: hmac-sha512, header: X-Sig, encoding: base64, prefix: "v=", secrets: ["${env:NEW}", "${env:OLD}"]}
    to: {topic: plain}
  windowed:
    from: {webhook: {path: /windowed, signature: {header: X-Sig, secret: "${env:OLD}", replay_window: 10m, replay_limit: 3}}}
    to: {topic: plain}
  github:
    from: {webhook: {path: /github, signature: {scheme: github, secrets: ["${env:NEW}", "${env:OLD}"]}}}
    to: {topic: github}
  stripe:
    from: {webhook: {path: /stripe, signature: {scheme: stripe, secrets: ["${env:NEW}", "${env:OLD}"]}}}
    to: {topic: stripe}
  standard:
    from:
      webhook: {path: /standard, signature: {scheme: standard, secrets: ["${env:WHSEC_NEW}", "${env:WHSEC_OLD}"], tolerance: 1m}}
    to: {topic: standard}
  once:
    from: {webhook: {path: /once, signature: {scheme: standard, secret: "${env:WHSEC_OLD}"}}}
    to: {topic: once}
jobs:
  build:
    trigger: {webhook: {path: /build, signature: {scheme: standard, secret: "${env:WHSEC_OLD}"}}}
    run: [sh, -c, "cat >> built"]
"""


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": PIPELINE}, env=ENV)


def now():
    return int(time.time())


def mac(secret, content, algorithm=hashlib.sha256):
    key = secret if isinstance(secret, bytes) else secret.encode()
    return hmac.new(key, content, algorithm)


def github(body, delivery="d-1", secret=OLD):
    return {"X-Hub-Signature-256": "sha256=" + mac(secret, body).hexdigest(), "X-GitHub-Delivery": delivery}


def stripe(body, at=None, secrets=(OLD,)):
    at = now() if at is None else at
    entries = "".join(f",v1={mac(secret, f'{at}.'.encode() + body).hexdigest()}" for secret in secrets)
    return {"Stripe-Signature": f"t={at}{entries},v0=abc"}


def standard(body, message="msg_1", at=None, keys=("old",)):
    at = now() if at is None else at
    content = f"{message}.{at}.".encode() + body
    entries = ["v1," + base64.b64encode(mac(KEYS[key], content).digest()).decode() for key in keys]
    return {"webhook-id": message, "webhook-timestamp": str(at), "webhook-signature": " ".join(entries)}


def post(daemon, path, body, headers):
    return daemon.request("POST", "/hooks" + path, body, {"Content-Type": "application/json", **headers})


def assert_refused(answer, *words):
    assert answer.status == 401, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    for word in words:
        assert word in answer.json["detail"], answer


def assert_duplicate(answer):
    assert answer.status == 200, answer
    assert answer.json == {"accepted": 0, "duplicate": True}


# ---- schemes ----


def test_an_hmac_as_its_sender_writes_it(shop):
    body = b'{"n": 1}'
    right = "v=" + base64.b64encode(mac(OLD, body, hashlib.sha512).digest()).decode()
    assert post(shop, "/plain", body, {"x-SIG": right}).status == 202
    assert post(shop, "/plain", body, {"X-Sig": right}).status == 202, "without a window equal events are two events"
    for wrong in (right[2:], right.lower(), right + "=", "v=", "v=" + mac(OLD, body, hashlib.sha512).hexdigest(),
                  "v=" + base64.b64encode(mac(OLD, body).digest()).decode()):
        assert_refused(post(shop, "/plain", body, {"X-Sig": wrong}), "wrong")
    assert_refused(post(shop, "/plain", body, {}), "x-sig is missing")
    assert len(shop.events("plain")) == 2


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_github(shop, secret):
    body = b'{"ref": "main"}'
    assert_refused(post(shop, "/github", body, github(body, secret="older")), "wrong")
    assert_refused(post(shop, "/github", body + b" ", github(body, secret=secret)), "wrong")
    upper = {name: value.replace(mac(secret, body).hexdigest(), mac(secret, body).hexdigest().upper())
             for name, value in github(body, secret=secret).items()}
    assert post(shop, "/github", body, upper).status == 202
    event, = shop.wait_for_topic("github", 1)
    assert event["data"] == {"ref": "main"} and event["id"] == "d-1"


def test_stripe(shop):
    body = b'{"id": "evt_1"}'
    assert post(shop, "/stripe", body, stripe(body, secrets=("wrong", OLD))).status == 202
    assert post(shop, "/stripe", body, stripe(body, at=now() - 200, secrets=(NEW,))).status == 202
    assert_refused(post(shop, "/stripe", body, stripe(body, secrets=("wrong",))), "wrong")
    assert_refused(post(shop, "/stripe", body, stripe(body, at=now() - 400)), "old; the tolerance is 5m")
    assert_refused(post(shop, "/stripe", body, stripe(body, at=now() + 400)), "ahead of the clock")
    assert_refused(post(shop, "/stripe", body, {}), "stripe-signature is missing")
    assert len(shop.events("stripe")) == 2


def test_standard_webhooks(shop):
    body = b'{"test": 2432232314}'
    assert post(shop, "/standard", body, standard(body, "msg_1", keys=("old",))).status == 202
    both = standard(body, "msg_2", keys=("old", "new"))
    assert post(shop, "/standard", body, both).status == 202
    beside = standard(body, "msg_3")
    beside["webhook-signature"] = "v1a,x v1," + "A" * 43 + "= " + beside["webhook-signature"]
    assert post(shop, "/standard", body, beside).status == 202
    assert_refused(post(shop, "/standard", body, standard(body, "msg_4", at=now() - 90)), "the tolerance is 1m")
    assert_refused(post(shop, "/standard", body, standard(body, "msg_4", at=now() + 90)), "ahead")
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        headers = standard(body, "msg_5")
        del headers[name]
        assert_refused(post(shop, "/standard", body, headers), name + " is missing")
    assert_refused(post(shop, "/standard", body, {**standard(body, "msg_6"), "webhook-id": "msg_7"}), "wrong")
    assert [event["id"] for event in shop.events("standard")] == ["msg_1", "msg_2", "msg_3"]
    log = shop.log.read_text()
    assert not any(secret in log for secret in (OLD, NEW, *WHSEC.values()))


def test_a_header_that_comes_twice(shop):
    """As HTTP has it, two of a name are one with a comma. Each must not be more than one would be."""
    body = b'{"n": 1}'
    signature = github(body)["X-Hub-Signature-256"]
    connection = shop.connect(timeout=20)
    connection.putrequest("POST", "/hooks/github")
    for value in ("sha256=" + "0" * 64, signature):
        connection.putheader("X-Hub-Signature-256", value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    assert connection.getresponse().status == 401
    connection.close()
    assert shop.topic("github")["events"] == 0


def test_a_body_of_a_megabyte_and_none(shop):
    large = json.dumps({"filler": "x" * ((1 << 20) - 20)}).encode()
    assert post(shop, "/github", large, github(large)).status == 202
    assert_refused(post(shop, "/github", large[:-2] + b"y}", github(large, "d-2")), "wrong")
    assert post(shop, "/github", b"", github(b"", "d-3")).status == 400, "signed, and no event"
    assert_refused(post(shop, "/github", b"", github(b"x", "d-4")), "wrong")
    assert shop.topic("github")["events"] == 1


# ---- again ----


def test_a_replay_is_a_success_that_does_nothing(shop):
    body = b'{"n": 1}'
    for path, headers in (("/github", github(body)), ("/stripe", stripe(body)), ("/standard", standard(body)),
                          ("/windowed", {"X-Sig": mac(OLD, body).hexdigest()})):
        first = post(shop, path, body, headers)
        assert first.status == 202 and first.json == {"accepted": 1}, first
        for _ in range(3):
            assert_duplicate(post(shop, path, body, headers))
    # The id of GitHub is not signed, that of Standard Webhooks is and stays when a sender signs anew.
    assert_duplicate(post(shop, "/github", body, github(body, "d-2", NEW)))
    assert_duplicate(post(shop, "/standard", body, standard(body, at=now() - 5)))
    # Stripe's entries in another order, and one more, are the same signed content.
    again = stripe(body, at=now() - 3)
    assert post(shop, "/stripe", body, again).status == 202
    assert_duplicate(post(shop, "/stripe", body, {"Stripe-Signature": "v1=00," + again["Stripe-Signature"]}))
    assert [shop.topic(topic)["events"] for topic in ("github", "stripe", "standard", "plain")] == [1, 2, 1, 1]


def test_replays_at_once(shop):
    for n in range(20):
        body = json.dumps({"n": n}).encode()
        headers = github(body, f"d-{n}")
        with concurrent.futures.ThreadPoolExecutor(8) as senders:
            answers = list(senders.map(lambda _: post(shop, "/github", body, headers), range(8)))
        statuses = sorted(answer.status for answer in answers)
        assert statuses.count(202) == 1 and set(statuses) <= {200, 202, 503}, answers
        assert all("retry-after" in answer.headers for answer in answers if answer.status == 503)
        assert_duplicate(post(shop, "/github", body, headers))
    assert sorted(event["data"]["n"] for event in shop.events("github")) == list(range(20))


def test_what_was_refused_may_come_again(shop):
    body = b'{"n": 1}'
    assert post(shop, "/build", b"{", standard(b"{")).status == 400
    assert shop.post("/v1/pipelines/shop/pause").status in (200, 202)
    for path in ("/build", "/github"):
        headers = standard(body) if path == "/build" else github(body)
        assert post(shop, path, body, headers).status == 503
    assert shop.post("/v1/pipelines/shop/resume").status in (200, 202)
    for path in ("/build", "/github"):
        headers = standard(body) if path == "/build" else github(body)
        assert post(shop, path, body, headers).status == 202
        assert_duplicate(post(shop, path, body, headers))
    shop.wait_for_runs("shop", "build", 1)


def test_a_hook_that_remembers_all_it_may(shop):
    def send(n):
        body = json.dumps({"n": n}).encode()
        return post(shop, "/windowed", body, {"X-Sig": mac(OLD, body).hexdigest()})
    assert [send(n).status for n in range(3)] == [202] * 3
    full = send(3)
    assert full.status == 429 and int(full.headers["retry-after"]) > 1 and "replay_limit" in full.json["detail"], full
    assert_duplicate(send(0))
    assert len(shop.events("plain")) == 3


def test_a_change_of_the_definition_forgets_nothing(shop):
    body = b'{"n": 1}'
    assert post(shop, "/github", body, github(body)).status == 202
    shop.put("shop", PIPELINE.replace("scheme: github", "replay_window: 2h, scheme: github"), expect=(200,))
    assert_duplicate(post(shop, "/github", body, github(body)))
    assert shop.post("/v1/pipelines/shop/flows/github/restart").status in (200, 202)
    assert_duplicate(post(shop, "/github", body, github(body, "d-2")))
    assert len(shop.events("github")) == 1


def test_after_a_restart_only_what_is_durable_is_known(shop):
    body = b'{"n": 1}'
    paths = {"/standard": standard(body), "/once": standard(body), "/build": standard(body)}
    for path, headers in paths.items():
        assert post(shop, path, body, headers).status == 202
    shop.wait_for_runs("shop", "build", 1)
    shop.kill9()
    shop.start()
    assert post(shop, "/standard", body, paths["/standard"]).status == 202, "the memory is gone"
    assert post(shop, "/once", body, paths["/once"]).status == 202, "the hook has forgotten it, too"
    assert_duplicate(post(shop, "/build", body, standard(body, at=now() + 1)))
    assert len(shop.wait_for_topic("standard", 2)) == 2
    assert shop.topic("once")["events"] == 1, "but its topic has not"
    assert len(shop.runs("shop", "build")) == 1


# ---- definitions ----


@pytest.mark.parametrize("signature, pointer, words", [
    ("scheme: strip, secret: '${env:OLD}'", "/scheme", "did you mean 'stripe'?"),
    ("scheme: stripe, secret: '${env:OLD}', encoding: hex", "/encoding", "means nothing beside 'scheme: stripe'"),
    ("scheme: github, secret: '${env:OLD}', tolerance: 5m", "/tolerance", "it is for stripe, standard"),
    ("secret: '${env:OLD}'", "", "the key 'header' is missing"),
    ("scheme: github, secret: '${env:OLD}', secrets: ['${env:NEW}']", "/secrets", "exclude each other"),
    ("scheme: github", "", "one of these is missing: secret, secrets"),
    ("scheme: github, secrets: [plain]", "/secrets/0", "by reference only"),
])
def test_a_signature_that_cannot_be(start_daemon, tmp_path, signature, pointer, words):
    daemon = start_daemon()
    text = "name: p\nflows:\n  f: {from: {webhook: {path: /x, signature: {" + signature + "}}}, to: drop}\n"
    error, = daemon.put("p", text, expect=(422,)).json["errors"]
    assert error["pointer"] == "/flows/f/from/webhook/signature" + pointer and words in error["detail"], error
    file = tmp_path / "p.yaml"
    file.write_text(text)
    finished = penstock("validate", file)
    assert finished.returncode == 1 and words in finished.stdout + finished.stderr, finished


def test_a_secret_that_is_known_to_be_no_key(shop):
    flow = "name: p\nflows:\n  f: {from: {webhook: {path: /x, signature: {scheme: standard, secret: '${env:%s}'}}}, to: drop}\n"
    job = "name: p\njobs:\n  j: {trigger: {webhook: {path: /x, signature: {scheme: standard, secrets: ['${env:WHSEC_OLD}', " \
          "'${env:%s}']}}}, run: ['true']}\n"
    for text, pointer in ((flow, "/flows/f/from/webhook/signature"), (job, "/jobs/j/trigger")):
        error, = shop.put("p", text % "BAD", expect=(422,)).json["errors"]
        assert error["pointer"] == pointer and "whsec_ and base64" in error["detail"], error
        assert ENV["BAD"] not in json.dumps(error) and ENV["BAD"] not in shop.log.read_text()
        assert shop.get("/v1/pipelines/p").status == 404
    shop.put("p", flow % "NOT_YET_SET", expect=(201,))  # one that is not there yet may come later


def test_what_get_shows_can_be_put_again(shop):
    document = shop.get_json("/v1/pipelines/shop")["definition"]
    signature = document["flows"]["stripe"]["from"]["webhook"]["signature"]
    assert signature == {"scheme": "stripe", "secrets": ["${env:NEW}", "${env:OLD}"], "tolerance": "5m"}
    answer = shop.request("PUT", "/v1/pipelines/shop", json.dumps(document), {"Content-Type": "application/json"})
    assert answer.status == 200, answer
    body = b'{"n": 1}'
    assert post(shop, "/stripe", body, stripe(body)).status == 202
