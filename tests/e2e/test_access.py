"""Every endpoint, tried by everybody: who is let in is said here a second time, and an endpoint that this table does not know
makes a test fail. Nothing here waits for an answer to end: the status is enough."""
import json
import uuid

import pytest

from penstock import penstock

SHOP = """
name: shop
topics: {orders: {}}
flows:
  intake: {from: {webhook: /open}, to: {topic: orders}}
  signed:
    from: {webhook: {path: /signed, signature: {scheme: hmac-sha256, header: X-Sig, secret: "${env:HOOK_SECRET}"}}}
    to: {topic: orders}
  prices: {from: {topic: orders}, to: {subscribers: prices}}
jobs:
  work: {run: ["true"]}
"""
OTHER = "name: other\ntopics: {others: {}}\njobs: {work: {run: [\"true\"]}}\n"

NOBODY = ("none", "bad", "malformed", "expired", "revoked")
ROLES = ("read", "ingest", "operate", "admin")
LET_IN = {"open": NOBODY + ROLES, "any_token": ROLES, "read": ("read", "operate", "admin"), "ingest": ("ingest", "operate", "admin"),
          "operate": ("operate", "admin"), "admin": ("admin",)}

# What a token that is limited to the other pipeline gets.
LIST, ELSEWHERE, NO_SUCH, SAME = "a list without shop", "403", "404", "as everybody"

# endpoint: (what it needs, what to ask for, body, headers, what a token for another pipeline gets)
NOT_THIS_ONE = {"If-Match": '"none"'}
TABLE = {
    "GET /": ("read", "/", None, {}, SAME),
    "GET /v1/pipelines": ("read", "/v1/pipelines", None, {}, LIST),
    "POST /v1/pipelines": ("admin", "/v1/pipelines", "name: [", {}, ELSEWHERE),
    "PUT /v1/pipelines/{name}": ("admin", "/v1/pipelines/shop", SHOP, NOT_THIS_ONE, ELSEWHERE),
    "GET /v1/pipelines/{name}": ("read", "/v1/pipelines/shop", None, {}, ELSEWHERE),
    "DELETE /v1/pipelines/{name}": ("admin", "/v1/pipelines/shop", None, NOT_THIS_ONE, ELSEWHERE),
    "GET /v1/pipelines/{name}/revisions": ("read", "/v1/pipelines/shop/revisions", None, {}, ELSEWHERE),
    "GET /v1/pipelines/{name}/revisions/{revision}": ("read", "/v1/pipelines/shop/revisions/1", None, {}, ELSEWHERE),
    "POST /v1/pipelines/{name}/rollback": ("admin", "/v1/pipelines/shop/rollback", b"", NOT_THIS_ONE, ELSEWHERE),
    "POST /v1/pipelines/{name}/pause": ("operate", "/v1/pipelines/shop/pause", b"", {}, ELSEWHERE),
    "POST /v1/pipelines/{name}/resume": ("operate", "/v1/pipelines/shop/resume", b"", {}, ELSEWHERE),
    "GET /v1/pipelines/{name}/flows/{flow}": ("read", "/v1/pipelines/shop/flows/prices", None, {}, ELSEWHERE),
    "POST /v1/pipelines/{name}/flows/{flow}/start": ("operate", "/v1/pipelines/shop/flows/none/start", b"", {}, ELSEWHERE),
    "POST /v1/pipelines/{name}/flows/{flow}/stop": ("operate", "/v1/pipelines/shop/flows/none/stop", b"", {}, ELSEWHERE),
    "POST /v1/pipelines/{name}/flows/{flow}/restart": ("operate", "/v1/pipelines/shop/flows/none/restart", b"", {}, ELSEWHERE),
    "GET /v1/pipelines/{name}/flows/{flow}/tap": ("read", "/v1/pipelines/shop/flows/prices/tap", None, {}, ELSEWHERE),
    "POST /v1/pipelines/{name}/jobs/{job}/runs": ("operate", "/v1/pipelines/shop/jobs/work/runs", "{}", {}, ELSEWHERE),
    "POST /v1/pipelines/{name}/jobs/{job}/backfill": ("operate", "/v1/pipelines/shop/jobs/work/backfill", "{}", {}, ELSEWHERE),
    "GET /v1/runs": ("read", "/v1/runs", None, {}, LIST),
    "GET /v1/runs/{id}": ("read", "/v1/runs/RUN", None, {}, NO_SUCH),
    "POST /v1/runs/{id}/cancel": ("operate", "/v1/runs/RUN/cancel", b"", {}, NO_SUCH),
    "POST /v1/runs/{id}/retry": ("operate", "/v1/runs/RUN/retry?from=none", b"", {}, NO_SUCH),
    "GET /v1/runs/{id}/logs": ("read", "/v1/runs/RUN/logs", None, {}, NO_SUCH),
    "GET /v1/topics": ("read", "/v1/topics", None, {}, LIST),
    "GET /v1/topics/{topic}": ("read", "/v1/topics/orders", None, {}, ELSEWHERE),
    "POST /v1/topics/{topic}/events": ("ingest", "/v1/topics/orders/events", '{"n": 1}', {}, ELSEWHERE),
    "GET /v1/topics/{topic}/events": ("read", "/v1/topics/orders/events?follow=true", None, {}, ELSEWHERE),
    "GET /v1/streams": ("read", "/v1/streams", None, {}, LIST),
    "GET /v1/streams/{stream}": ("read", "/v1/streams/prices", None, {}, ELSEWHERE),
    "POST /hooks/{path...}": ("ingest", "/hooks/open", '{"n": 1}', {}, ELSEWHERE),
    "GET /v1/dead-letters": ("read", "/v1/dead-letters", None, {}, LIST),
    "POST /v1/dead-letters/replay": ("operate", "/v1/dead-letters/replay", '{"pipeline": "shop"}', {}, LIST),
    "POST /v1/dead-letters/discard": ("operate", "/v1/dead-letters/discard", '{"pipeline": "shop"}', {}, LIST),
    "GET /v1/changes": ("read", "/v1/changes", None, {}, SAME),
    "GET /v1/schema/pipeline": ("read", "/v1/schema/pipeline", None, {}, SAME),
    "GET /healthz": ("open", "/healthz", None, {}, SAME),
    "GET /readyz": ("open", "/readyz", None, {}, SAME),
    "GET /metrics": ("read", "/metrics", None, {}, ELSEWHERE),
    "GET /openapi.json": ("read", "/openapi.json", None, {}, SAME),
    "POST /v1/backup": ("admin", "/v1/backup", "{}", {}, ELSEWHERE),
    "GET /v1/backup": ("read", "/v1/backup", None, {}, ELSEWHERE),
    "POST /v1/backup/cancel": ("admin", "/v1/backup/cancel", None, {}, ELSEWHERE),
    "GET /v1/tokens": ("admin", "/v1/tokens", None, {}, ELSEWHERE),
    "POST /v1/tokens": ("admin", "/v1/tokens", "{}", {}, ELSEWHERE),
    "GET /v1/tokens/{id}": ("admin", "/v1/tokens/none", None, {}, ELSEWHERE),
    "DELETE /v1/tokens/{id}": ("admin", "/v1/tokens/none", None, {}, ELSEWHERE),
    "GET /v1/token": ("any_token", "/v1/token", None, {}, SAME),
    "GET /v1/audit": ("admin", "/v1/audit", None, {}, ELSEWHERE),
}


def make_token(daemon, name, roles, **more):
    answer = daemon.post("/v1/tokens", {"name": name, "roles": roles, **more})
    assert answer.status == 201, answer
    return answer.json


@pytest.fixture(scope="module")
def guarded():
    """A daemon with two pipelines that asks for tokens, a run of shop, and one caller of each kind."""
    from penstock import Daemon, remove_folder, scratch_folder
    daemon = Daemon(scratch_folder(), {"shop": SHOP, "other": OTHER}, {"HOOK_SECRET": "s" * 40}).start()
    try:
        daemon.run_id = daemon.run_to_end("shop", "work")["id"]
        daemon.token = make_token(daemon, "admin", ["admin"])["token"]
        callers = {"none": None, "bad": f"pst_{'a' * 10}_{'b' * 40}", "malformed": "hello", "admin": daemon.token}
        for role in ("read", "ingest", "operate"):
            callers[role] = make_token(daemon, role, [role])["token"]
        callers["expired"] = make_token(daemon, "expired", ["admin"], expires_in="1us")["token"]
        revoked = make_token(daemon, "revoked", ["admin"])
        callers["revoked"] = revoked["token"]
        assert daemon.request("DELETE", f"/v1/tokens/{revoked['id']}").status == 204
        callers["foreign"] = make_token(daemon, "foreign", ["admin"], pipelines=["other"])["token"]
        callers["own"] = make_token(daemon, "own", ["admin"], pipelines=["shop"])["token"]
        daemon.callers = callers
        yield daemon
    finally:
        code = daemon.stop()
        print(daemon.log_tail())
        remove_folder(daemon.folder)
    assert code == 0


def begin(daemon, caller, method, path, body, headers):
    """Status and headers of the answer, and its first bytes; the rest of it is not waited for."""
    connection = daemon.connect(timeout=20)
    token = daemon.callers[caller]
    sent = {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        connection.request(method, path.replace("RUN", daemon.run_id), body.encode() if isinstance(body, str) else body, sent)
        response = connection.getresponse()
        length = response.getheader("content-length")
        return response.status, response, response.read(int(length)).decode() if length else ""
    finally:
        connection.close()


def test_every_endpoint_is_in_the_table(guarded):
    listed = {f"{e['method']} {e['path']}": e["needs"] for e in guarded.get_json("/")["endpoints"]}
    assert set(TABLE) == set(listed)
    hook = listed.pop("POST /hooks/{path...}")
    assert hook == "signed_body"
    assert {name: TABLE[name][0] for name in listed} == listed


@pytest.mark.parametrize("endpoint", TABLE)
def test_only_those_are_let_in_who_may(guarded, endpoint):
    needs, path, body, headers, _ = TABLE[endpoint]
    method = endpoint.split()[0]
    for caller in NOBODY + ROLES:
        status, response, text = begin(guarded, caller, method, path, body, headers)
        if caller in LET_IN[needs]:
            assert status not in (401, 403, 429) and status < 500, (caller, status, text)
            continue
        assert status == (401 if caller in NOBODY else 403), (caller, status, text)
        problem = json.loads(text)
        assert response.getheader("content-type").startswith("application/problem+json")
        challenge = response.getheader("www-authenticate")
        assert challenge.startswith('Bearer realm="penstock"'), challenge
        if status == 403:
            assert 'error="insufficient_scope"' in challenge and f"role {needs}" in problem["detail"]
        elif caller != "none":
            assert 'error="invalid_token"' in challenge or needs == "ingest", challenge
        if caller in ("expired", "revoked"):
            assert caller in problem["detail"]


@pytest.mark.parametrize("endpoint", TABLE)
def test_a_token_for_another_pipeline_sees_nothing_of_this_one(guarded, endpoint):
    needs, path, body, headers, expected = TABLE[endpoint]
    method = endpoint.split()[0]
    status, _, text = begin(guarded, "foreign", method, path, body, headers)
    if expected == ELSEWHERE:
        assert status == 403, (status, text)
    elif expected == NO_SUCH:
        assert status == 404, (status, text)
        unknown = begin(guarded, "foreign", method, path.replace("RUN", "NOPE"), body, headers)[2]
        assert text.replace(guarded.run_id, "NOPE") == unknown  # no way to tell one from the other
    else:
        assert status == 200, (status, text)
    if expected == LIST:
        assert not {"shop", "orders", "prices", guarded.run_id} & set(text.replace('"', " ").split()), text


@pytest.mark.parametrize("endpoint", TABLE)
def test_a_token_for_this_pipeline_may_do_all_that_concerns_it(guarded, endpoint):
    needs, path, body, headers, expected = TABLE[endpoint]
    status, _, text = begin(guarded, "own", endpoint.split()[0], path, body, headers)
    whole_daemon = expected == ELSEWHERE and "shop" not in path and not path.startswith(("/v1/topics/", "/v1/streams/", "/hooks/"))
    assert (status == 403) == whole_daemon and status not in (401, 429) and status < 500, (status, text)


@pytest.mark.parametrize("path", ["/v1/pipelines/%s", "/v1/topics/%s", "/v1/streams/%s", "/v1/topics/%s/events", "/v1/pipelines/%s/jobs/work/runs"])
def test_what_is_not_there_looks_like_what_is_anothers(guarded, path):
    names = {"/v1/pipelines": "shop", "/v1/topics": "orders", "/v1/streams": "prices"}
    there = next(name for start, name in names.items() if path.startswith(start))
    method = "POST" if path.endswith("runs") else "GET"
    for made_up in (there + "x", "zzz"):
        first = begin(guarded, "foreign", method, path % there, None, {})
        second = begin(guarded, "foreign", method, path % made_up, None, {})
        assert first[0] == second[0] == 403
        assert first[2].replace(there, "?") == second[2].replace(made_up, "?")
    # Within its own reach a wrong name gives no other names away either.
    own = begin(guarded, "foreign", "GET", "/v1/pipelines/other/flows/none", None, {})
    assert own[0] == 404 and "shop" not in own[2]


def test_a_signed_hook_needs_no_token_and_a_token_does_not_replace_its_signature(guarded):
    import hashlib
    import hmac
    body = json.dumps({"n": str(uuid.uuid4())}).encode()
    signature = hmac.new(b"s" * 40, body, hashlib.sha256).hexdigest()
    assert begin(guarded, "none", "POST", "/hooks/signed", body, {"X-Sig": signature})[0] == 202
    assert begin(guarded, "none", "POST", "/hooks/signed", body, {"X-Sig": "0" * 64})[0] == 401
    assert begin(guarded, "admin", "POST", "/hooks/signed", body, {"X-Sig": "0" * 64})[0] == 401
    assert begin(guarded, "bad", "POST", "/hooks/signed", body, {"X-Sig": signature})[0] == 401  # it does not hide in one
    assert begin(guarded, "malformed", "POST", "/hooks/signed", body, {"X-Sig": signature})[0] == 202  # the sender's own business


def test_the_scheme_is_read_whatever_its_case_and_nothing_else_is_taken_for_a_token(guarded):
    token = guarded.callers["read"]
    for header in (f"bearer {token}", f"BEARER   {token}", f"Bearer {token}"):
        assert guarded.get("/v1/token", {"Authorization": header}).status == 200, header
    for header in (token, f"Basic {token}", "Bearer", "Bearer ", f"Bearer {token} x", f"Bearer  {token[:-1]}", f"Bearer {token}, Bearer {token}"):
        assert guarded.get("/v1/token", {"Authorization": header}).status == 401, header
    # Neither in the address, where logs would keep it.
    assert guarded.get(f"/v1/token?access_token={token}", {"Authorization": "Bearer x"}).status == 401


def test_strange_bytes_in_the_header_are_no_token_and_do_no_harm(guarded):
    import random
    import socket
    chance = random.Random(7)
    good = guarded.callers["read"].encode()
    for round in range(150):
        text = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            text[chance.randrange(len(text))] = chance.choice([*range(0x20, 0x7f), *range(0x80, 0x100), 9])
        if round % 10 == 0:
            text = bytes(chance.choice(b"pst_abc\xff") for _ in range(chance.randint(0, 15_000)))
        if bytes(text) == good:
            continue
        with socket.create_connection(guarded.address, timeout=20) as connection:
            connection.sendall(b"GET /v1/pipelines HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + bytes(text) + b"\r\n\r\n")
            answer = connection.recv(65536)
        assert answer.split()[1] in (b"401", b"400"), (bytes(text), answer)
    assert guarded.get("/v1/pipelines").status == 200


def test_a_refused_request_leaves_the_connection_whole_and_its_body_unread(guarded):
    connection = guarded.connect()
    for _ in range(3):
        connection.request("POST", "/v1/topics/orders/events", b'{"n": 1}')
        refused = connection.getresponse()
        assert refused.status == 401 and refused.read()
        connection.request("GET", "/v1/token", headers={"Authorization": f"Bearer {guarded.callers['read']}"})
        good = connection.getresponse()
        assert good.status == 200 and good.read()
    connection.close()
    # 16 MiB are announced and never sent: the answer does not wait for them.
    connection = guarded.connect(timeout=10)
    connection.putrequest("POST", "/v1/topics/orders/events")
    connection.putheader("Content-Length", str(16 << 20))
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_a_websocket_needs_a_token_as_well(guarded):
    wish = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    expected = {"none": 401, "bad": 401, "ingest": 403, "foreign": 403, "read": 101}
    for caller, status in expected.items():
        assert begin(guarded, caller, "GET", "/v1/streams/prices", None, wish)[0] == status, caller


def test_head_needs_what_get_needs(guarded):
    assert begin(guarded, "none", "HEAD", "/v1/pipelines", None, {})[0] == 401
    assert begin(guarded, "ingest", "HEAD", "/v1/pipelines", None, {})[0] == 403
    assert begin(guarded, "read", "HEAD", "/v1/pipelines", None, {})[0] == 200


def test_the_client_sends_the_token_of_its_file_or_its_environment(guarded, tmp_path):
    file = tmp_path / "token"
    file.write_text(guarded.callers["read"] + "\n")
    assert penstock("runs", daemon=guarded).returncode == 4
    assert penstock("runs", daemon=guarded, env={"PENSTOCK_TOKEN": guarded.callers["read"]}).returncode == 0
    assert penstock("runs", "--token-file", file, daemon=guarded, env={"PENSTOCK_TOKEN": guarded.callers["revoked"]}).returncode == 0
    refused = penstock("trigger", "shop", "work", "--token-file", file, daemon=guarded)
    assert refused.returncode == 4 and "role operate" in refused.stderr
    me = penstock("token", "show", "--token-file", file, daemon=guarded)
    assert me.returncode == 0 and "read" in me.stdout and guarded.callers["read"] not in me.stdout
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert penstock("runs", "--token-file", empty, daemon=guarded).returncode == 2
    assert penstock("runs", "--token-file", tmp_path / "none", daemon=guarded).returncode == 2
    assert penstock("runs", daemon=guarded, env={"PENSTOCK_TOKEN": "a\r\nX-Evil: 1"}).returncode == 2
