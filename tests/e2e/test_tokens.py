"""Tokens from their making to their end, the door that does not open again, and the audit log of it all."""
import glob
import http.client
import json
import os
import subprocess
import threading

import pytest

from penstock import BIN, Daemon, penstock, remove_folder, scratch_folder, wait_until

SHOP = "name: shop\ntopics: {orders: {}}\njobs: {work: {run: [\"true\"]}}\n"


@pytest.fixture
def shop(start_daemon):
    return start_daemon({"shop": SHOP})


@pytest.fixture
def folder():
    made = scratch_folder()
    yield made
    remove_folder(made)


def make(daemon, name, *roles, expect=201, **more):
    answer = daemon.post("/v1/tokens", {"name": name, "roles": list(roles), **more})
    assert answer.status == expect, answer
    return answer.json


def close_the_door(daemon):
    """Makes the first token and uses it from now on."""
    made = make(daemon, "first", "admin")
    daemon.token = made["token"]
    return made


def audit(daemon, **filters):
    query = "&".join(f"{name}={value}" for name, value in {"limit": 1000, **filters}.items())
    return daemon.get_json(f"/v1/audit?{query}")["items"]


def with_token(token):
    return {"Authorization": f"Bearer {token}"}


def test_the_door_is_open_until_the_first_token_is_made(shop):
    me = shop.get_json("/v1/token")
    assert me == {"who": "anyone", "asked": False, "token": None}
    assert shop.get("/v1/pipelines", with_token("anything")).status == 200
    first = close_the_door(shop)
    assert shop.get("/v1/pipelines", {"Authorization": ""}).status == 401
    assert shop.get_json("/v1/token")["token"]["id"] == first["id"]
    assert "token" not in shop.get_json(f"/v1/tokens/{first['id']}")
    shop.restart()
    assert shop.get("/v1/pipelines", {"Authorization": ""}).status == 401
    assert shop.get("/v1/pipelines").status == 200
    assert "every request needs a token" in shop.log_tail()


def test_nobody_locks_himself_out_with_the_first_token(shop):
    for wish in ({"roles": ["read"]}, {"roles": ["admin"], "pipelines": ["shop"]}, {"roles": ["operate", "ingest"]}):
        answer = shop.post("/v1/tokens", {"name": "x", **wish})
        assert answer.status == 409 and "role admin" in answer.json["detail"], answer
    assert shop.get("/v1/pipelines").status == 200
    assert shop.get_json("/v1/tokens")["items"] == []


def test_the_last_admin_token_stays_and_the_door_never_opens_again(shop):
    first = close_the_door(shop)
    answer = shop.request("DELETE", f"/v1/tokens/{first['id']}")
    assert answer.status == 409 and "last admin token" in answer.json["detail"]
    second = make(shop, "second", "admin")
    assert shop.request("DELETE", f"/v1/tokens/{first['id']}").status == 204
    assert shop.get("/v1/pipelines").status == 401
    shop.token = second["token"]
    assert [t["state"] for t in shop.get_json("/v1/tokens")["items"]] == ["revoked", "active"]
    # Offline the last one goes as well, and still nobody is let in without one.
    shop.stop()
    assert penstock("token", "revoke", second["id"], "--data", shop.data).returncode == 0
    shop.start()
    assert "no admin token is good" in shop.log_tail()
    assert shop.get("/v1/pipelines").status == 401
    assert shop.get("/v1/pipelines", {"Authorization": ""}).status == 401
    assert shop.post("/v1/tokens", {"name": "x", "roles": ["admin"]}, {"Authorization": ""}).status == 401
    shop.stop()
    made = penstock("token", "create", "--name", "again", "--role", "admin", "--data", shop.data)
    assert made.returncode == 0, made.stderr
    shop.start()
    shop.token = made.stdout.strip()
    assert shop.get("/v1/pipelines").status == 200


def test_a_token_outlives_a_crash_a_moment_after_it_was_made_and_so_does_its_end(shop):
    close_the_door(shop)
    for _ in range(3):
        made = make(shop, "short", "read")
        shop.kill9()
        shop.start()
        assert shop.get("/v1/pipelines", with_token(made["token"])).status == 200
        assert shop.request("DELETE", f"/v1/tokens/{made['id']}").status == 204
        shop.kill9()
        shop.start()
        assert shop.get("/v1/pipelines", with_token(made["token"])).status == 401
    entries = [e for e in audit(shop, outcome="done") if "short" in (e["detail"] or "")]
    assert [e["method"] for e in entries] == ["DELETE", "POST"] * 3  # durable before the answer, each of them


def test_an_expired_token_is_no_longer_good(shop):
    close_the_door(shop)
    made = make(shop, "brief", "read", expires_in="1s")
    assert made["expires_at"] and made["state"] == "active"
    refused = wait_until(lambda: (a := shop.get("/v1/pipelines", with_token(made["token"]))).status == 401 and a, "the token to expire")
    assert "expired" in refused.json["detail"]
    assert shop.get_json(f"/v1/tokens/{made['id']}")["state"] == "expired"


@pytest.mark.parametrize("wish, says", [
    ({}, "/name"), ({"name": "x"}, "/roles"), ({"name": "", "roles": ["read"]}, "/name"), ({"name": 5, "roles": ["read"]}, "/name"),
    ({"name": "a\nb", "roles": ["read"]}, "/name"), ({"name": "x" * 101, "roles": ["read"]}, "/name"),
    ({"name": "x", "roles": []}, "/roles"), ({"name": "x", "roles": "read"}, "/roles"), ({"name": "x", "roles": [1]}, "/roles"),
    ({"name": "x", "roles": ["raed"]}, "/roles"), ({"name": "x", "roles": ["read"], "pipelines": []}, "/pipelines"),
    ({"name": "x", "roles": ["read"], "pipelines": ["Not A Name"]}, "/pipelines"), ({"name": "x", "roles": ["read"], "pipelines": ["a b"]}, "/pipelines"),
    ({"name": "x", "roles": ["read"], "pipelines": [f"p{i}" for i in range(101)]}, "/pipelines"),
    ({"name": "x", "roles": ["read"], "expires_in": "soon"}, "/expires_in"), ({"name": "x", "roles": ["read"], "expires_in": "0s"}, "/expires_in"),
    ({"name": "x", "roles": ["read"], "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
    ({"name": "x", "roles": ["read"], "expires_in": "1h", "expires_at": "2901-01-01T00:00:00Z"}, "/expires_in"),
    ({"name": "x", "roles": ["read"], "rate": 5}, "/rate"), ({"name": "x", "roles": ["read"], "rate": {"burst": 5}}, "/rate"),
    ({"name": "x", "roles": ["read"], "rate": {"per_second": 0}}, "/rate/per_second"),
    ({"name": "x", "roles": ["read"], "rate": {"per_second": 1, "burst": 0}}, "/rate/burst"),
    ({"name": "x", "roles": ["read"], "rate": {"per_second": 1, "burst": 1.5}}, "/rate/burst"),
    ({"name": "x", "roles": ["read"], "rate": {"per_second": 1, "brust": 1}}, "/rate")])
def test_a_wish_that_makes_no_sense_is_refused_by_its_place(daemon, wish, says):
    answer = daemon.post("/v1/tokens", wish)
    assert answer.status == 422 and answer.json["errors"][0]["pointer"] == says, answer


def test_an_unknown_key_is_told_with_the_nearest(daemon):
    answer = daemon.post("/v1/tokens", {"name": "x", "roles": ["read"], "pipeline": "shop"})
    assert answer.status == 422 and "'pipelines'" in answer.json["detail"]
    assert daemon.post("/v1/tokens", "[]").status == 422
    assert daemon.post("/v1/tokens", "{").status == 400


def test_a_rate_is_kept_before_the_body_is_read(shop):
    close_the_door(shop)
    made = make(shop, "slow", "ingest", rate={"per_second": 0.01, "burst": 2})
    assert made["rate"] == {"per_second": 0.01, "burst": 2}
    for _ in range(2):
        assert shop.post("/v1/topics/orders/events", '{"n": 1}', with_token(made["token"])).status == 202
    connection = shop.connect(timeout=10)
    connection.putrequest("POST", "/v1/topics/orders/events")
    connection.putheader("Authorization", f"Bearer {made['token']}")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 429 and 1 <= int(answer.getheader("retry-after")) <= 100
    assert json.loads(answer.read())["type"] == "/problems/overloaded"
    connection.close()
    assert shop.get("/v1/pipelines").status == 200  # others go on
    assert shop.topic("orders")["events"] == 2


def test_revoking_cuts_off_what_the_token_has_open(shop):
    close_the_door(shop)
    victim, other = make(shop, "victim", "read"), make(shop, "other", "read")

    def follow(token):
        connection = shop.connect(timeout=30)
        connection.request("GET", "/v1/changes", headers=with_token(token))
        response = connection.getresponse()
        assert response.status == 200 and response.readline()
        return connection, response

    cut, stays = follow(victim["token"]), follow(other["token"])
    ended = threading.Event()

    def read_on():
        try:
            while cut[1].read(1):
                pass
        except (http.client.HTTPException, OSError):
            pass
        ended.set()

    threading.Thread(target=read_on, daemon=True).start()
    assert shop.request("DELETE", f"/v1/tokens/{victim['id']}").status == 204
    assert ended.wait(20)
    shop.put("shop", SHOP + "description: changed\n")
    assert any(b"replaced" in stays[1].readline() for _ in range(20))
    for connection, _ in (cut, stays):
        connection.close()


def test_revoking_ends_a_websocket_and_a_wait(start_daemon):
    shop = start_daemon({"shop": SHOP + "flows: {prices: {from: {topic: orders}, to: {subscribers: prices}}}\n"})
    shop.put("slow", "name: slow\njobs: {wait: {run: [sh, -c, \"read line\"], trigger: {every: 1h}}, hold: {run: [sleep, '60'], grace: 1s}}\n")
    close_the_door(shop)
    victim = make(shop, "victim", "operate")
    websocket = shop.connect(timeout=30)
    websocket.request("GET", "/v1/streams/prices", headers={
        **with_token(victim["token"]), "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    socket = websocket.sock
    head = b""
    while b"\r\n\r\n" not in head:
        head += socket.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    run = shop.trigger("slow", "hold", headers=with_token(victim["token"])).json
    waiting = shop.connect(timeout=30)
    waiting.request("GET", f"/v1/runs/{run['id']}?wait=5m", headers=with_token(victim["token"]))
    wait_until(lambda: shop.run(run["id"])["state"] == "running", "the run to start")
    assert shop.request("DELETE", f"/v1/tokens/{victim['id']}").status == 204
    while socket.recv(65536):  # to its end
        pass
    with pytest.raises((http.client.HTTPException, OSError)):
        waiting.getresponse()
    websocket.close()
    waiting.close()
    shop.cancel(run["id"])


def test_a_token_can_end_itself(shop):
    close_the_door(shop)
    second = make(shop, "second", "admin")
    assert shop.request("DELETE", f"/v1/tokens/{second['id']}", headers=with_token(second["token"])).status == 204
    assert shop.get("/v1/pipelines", with_token(second["token"])).status == 401


def test_lists_of_tokens_and_their_last_use(shop):
    first = close_the_door(shop)
    ids = [first["id"]] + [make(shop, f"t{i}", "read")["id"] for i in range(4)]
    seen, cursor = [], ""
    while cursor is not None:
        page = shop.get_json(f"/v1/tokens?limit=2&cursor={cursor}")
        seen += page["items"]
        cursor = page["next_cursor"]
    assert [t["id"] for t in seen] == ids
    assert seen[0]["last_used_at"] and not seen[1]["last_used_at"]
    assert shop.get("/v1/tokens?cursor=zzz").status == 400
    assert shop.get("/v1/tokens/none").status == 404 and shop.request("DELETE", "/v1/tokens/none").status == 404


# ---- beyond loopback, settings, offline ----


def refused_start(*arguments):
    done = subprocess.run([BIN / "penstockd", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_beyond_loopback_it_takes_an_admin_token(folder):
    daemon = Daemon(folder)
    says = refused_start("--data", daemon.data, "--listen", "0.0.0.0:0")
    assert "no admin token exists" in says and "penstock token create --data" in says and "insecure: true" in says
    # Neither a token for less, nor one that has expired, will do.
    assert penstock("token", "create", "--data", daemon.data, "--name", "x", "--role", "read").returncode == 2
    brief = penstock("token", "create", "--data", daemon.data, "--name", "brief", "--role", "admin", "--expires-in", "1s")
    assert brief.returncode == 0
    wait_until(lambda: "expired" in penstock("token", "list", "--data", daemon.data).stdout, "the token to expire")
    assert "no admin token exists" in refused_start("--data", daemon.data, "--listen", "0.0.0.0:0")
    made = penstock("token", "create", "--data", daemon.data, "--name", "root", "--role", "admin")
    assert made.returncode == 0 and "shown only now" in made.stderr
    daemon.token = made.stdout.strip()
    daemon.start(listen="0.0.0.0:0")
    try:
        assert daemon.get("/v1/pipelines").status == 200
        assert daemon.get("/v1/pipelines", {"Authorization": ""}).status == 401
        made_offline = [e for e in audit(daemon) if e["who"] == "offline"]
        assert len(made_offline) == 2 and "root" in made_offline[0]["detail"]
    finally:
        assert daemon.stop() == 0


def test_insecure_opens_the_door_and_a_token_closes_it(folder):
    settings = folder / "settings.yaml"
    settings.write_text("insecure: true\n")
    daemon = Daemon(folder, args=["--config", settings])
    daemon.start(listen="0.0.0.0:0")
    try:
        assert "other machines can reach" in daemon.log_tail()
        assert daemon.get("/v1/pipelines").status == 200
        close_the_door(daemon)
        assert daemon.get("/v1/pipelines", {"Authorization": ""}).status == 401
    finally:
        assert daemon.stop() == 0


def test_auth_none_asks_nobody_and_stays_at_home(folder):
    settings = folder / "settings.yaml"
    settings.write_text("auth: none\n")
    daemon = Daemon(folder, args=["--config", settings])
    assert "auth: none" in refused_start("--config", settings, "--data", daemon.data, "--listen", "0.0.0.0:0")
    daemon.start()
    try:
        make(daemon, "first", "admin")
        assert daemon.get("/v1/pipelines").status == 200
    finally:
        assert daemon.stop() == 0


def test_auth_tokens_asks_from_the_beginning(folder):
    settings = folder / "settings.yaml"
    settings.write_text("auth: tokens\n")
    daemon = Daemon(folder, args=["--config", settings])
    daemon.data.mkdir()
    made = penstock("token", "create", "--data", daemon.data, "--name", "root", "--role", "admin", "--json")
    daemon.start()
    try:
        assert daemon.get("/v1/pipelines").status == 401
        daemon.token = json.loads(made.stdout)["token"]
        assert daemon.get("/v1/pipelines").status == 200
    finally:
        assert daemon.stop() == 0


def test_a_page_of_another_site_changes_nothing_while_the_door_is_open(shop):
    """What a browser sends without asking first: a POST with a body of plain text."""
    evil = "name: evil\njobs: {a: {run: [\"true\"]}}\n"
    host = "127.0.0.1:%d" % shop.address[1]
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{shop.address[1] + 1}", "http://localhost"):
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        assert shop.request("POST", "/v1/pipelines", evil, headers).status == 403, origin
        assert shop.post("/v1/tokens", '{"name": "x", "roles": ["admin"]}', headers).status == 403
        assert shop.post("/v1/pipelines/shop/pause", b"", headers).status == 403
    assert [p["name"] for p in shop.get_json("/v1/pipelines")["items"]] == ["shop"] and shop.get_json("/v1/tokens")["items"] == []
    wait_until(lambda: len(audit(shop, outcome="refused")) == 12, "the entries")
    own = {"Origin": f"http://{host}", "Content-Type": "text/plain"}
    assert shop.request("POST", "/v1/pipelines", evil, own).status == 201  # a page of its own


def test_no_folder_is_made_for_a_name_that_is_misspelt(folder):
    for command in (["list"], ["revoke", "x"], ["create", "--name", "x", "--role", "admin"]):
        refused = penstock("token", *command, "--data", folder / "typo")
        assert refused.returncode == 2 and "there is no folder" in refused.stderr
    assert not (folder / "typo").exists()
    (folder / "new").mkdir()
    assert penstock("token", "create", "--data", folder / "new", "--name", "x", "--role", "admin").returncode == 0
    assert penstock("token", "revoke", "none", "--data", folder / "new").returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_in_the_daemons_folder_is_the_daemons(folder):
    data = folder / "data"
    data.mkdir()
    os.chown(data, 65534, 65534)
    assert penstock("token", "create", "--data", data, "--name", "x", "--role", "admin").returncode == 0
    assert {os.lstat(data / name).st_uid for name in os.listdir(data)} == {65534}


def test_a_folder_in_use_is_left_alone(shop):
    for command in (["create", "--name", "x", "--role", "admin"], ["list"], ["revoke", "x"]):
        refused = penstock("token", *command, "--data", shop.data)
        assert refused.returncode == 2 and "a daemon works in" in refused.stderr, refused


def test_the_client_makes_lists_and_revokes(shop, tmp_path):
    made = penstock("token", "create", "--name", "ops", "--role", "admin", daemon=shop)
    assert made.returncode == 0 and made.stdout.startswith("pst_") and made.stdout.count("\n") == 1, made
    env = {"PENSTOCK_TOKEN": made.stdout.strip()}
    scoped = penstock("token", "create", "--name", "ci", "--role", "ingest", "--role", "read", "--pipeline", "shop", "--expires-in", "90d",
                      "--rate", "5", "--burst", "9", "--json", daemon=shop, env=env)
    token = json.loads(scoped.stdout)
    assert token["roles"] == ["read", "ingest"] and token["pipelines"] == ["shop"] and token["rate"] == {"per_second": 5.0, "burst": 9}
    listed = penstock("token", "list", daemon=shop, env=env)
    assert "ci" in listed.stdout and "ops" in listed.stdout and token["token"] not in listed.stdout
    assert penstock("token", "revoke", token["id"], daemon=shop, env=env).returncode == 0
    assert penstock("token", "revoke", "none", daemon=shop, env=env).returncode == 4
    log = penstock("audit", daemon=shop, env=env)
    assert log.returncode == 0 and "DELETE /v1/tokens/none" in log.stdout and "(ops)" in log.stdout
    assert "failed" in log.stdout and "done" in log.stdout
    assert penstock("audit", "--outcome", "maybe", daemon=shop, env=env).returncode == 2
    assert penstock("token", daemon=shop).returncode == 2


# ---- the audit log ----


def test_every_change_is_written_down_with_who_made_it(shop):
    shop.put("shop", SHOP + "description: by anyone\n")
    first = close_the_door(shop)
    operator = make(shop, "night shift", "operate")
    me = with_token(operator["token"])
    assert shop.post("/v1/pipelines/shop/pause", headers={**me, "X-Request-Id": "req-7"}).status == 200
    assert shop.post("/v1/pipelines/shop/resume", headers=me).status == 200
    run = shop.trigger("shop", "work", wait="30s", headers=me).json
    assert shop.post(f"/v1/runs/{run['id']}/cancel", headers=me).status == 409
    assert shop.put("shop", "name: [", expect=(400, 422)).status
    assert shop.put("shop", SHOP, query="?dry_run=true").status == 200
    assert shop.request("POST", "/v1/pipelines", "name: fresh\njobs: {a: {run: [\"true\"]}}\n").status == 201
    assert shop.request("DELETE", "/v1/pipelines/fresh").status == 204
    shop.publish("orders", [{"n": 1}])
    entries = audit(shop)[::-1]
    shown = [(e["who"], e["name"], e["method"], e["pipeline"], e["outcome"], e["status"]) for e in entries]
    expected = [("anyone", None, "PUT", "shop", "done", 201), ("anyone", None, "PUT", "shop", "done", 200),
                ("anyone", None, "POST", None, "done", 201), ("token", "first", "POST", None, "done", 201),
                ("token", "night shift", "POST", "shop", "done", 200), ("token", "night shift", "POST", "shop", "done", 200),
                ("token", "night shift", "POST", "shop", "done", 200), ("token", "night shift", "POST", "shop", "failed", 409),
                ("token", "first", "PUT", "shop", "failed", shown[8][5]), ("token", "first", "PUT", "shop", "done", 200),
                ("token", "first", "POST", "fresh", "done", 201), ("token", "first", "DELETE", "fresh", "done", 204)]
    assert shown == expected  # and no event: these are counted by topic
    assert entries[4]["endpoint"] == "/v1/pipelines/{name}/pause" and entries[4]["target"] == "/v1/pipelines/shop/pause"
    assert entries[4]["request_id"] == "req-7" and entries[4]["token"] == operator["id"]
    assert entries[3]["detail"] == f"token {operator['id']} (night shift): operate"
    assert entries[9]["detail"] == "dry run" and entries[10]["detail"] == "revision 1"
    assert {e["token"] for e in audit(shop, token=first["id"])} == {first["id"]}
    assert len(audit(shop, pipeline="fresh")) == 2 and len(audit(shop, outcome="failed")) == 2
    assert audit(shop, since=entries[-1]["at"].replace("+", "%2B"))[0]["id"] == entries[-1]["id"]
    page = shop.get_json("/v1/audit?limit=5")
    rest = shop.get_json(f"/v1/audit?limit=1000&cursor={page['next_cursor']}")["items"]
    assert page["items"] + rest == entries[::-1]
    shop.kill9()
    shop.start()
    assert audit(shop)[::-1] == entries


def test_refusals_are_written_down_without_what_strangers_put_into_them(shop):
    close_the_door(shop)
    reader = make(shop, "reader", "read")
    assert shop.get("/v1/pipelines?limit=hello-secret", {"Authorization": "Bearer my-password"}).status == 401
    assert shop.post("/v1/pipelines/shop/pause", headers=with_token(reader["token"])).status == 403
    refused = wait_until(lambda: len(found := audit(shop, outcome="refused")) >= 2 and found, "the entries")
    assert [(e["status"], e["who"], e["target"]) for e in refused] == [
        (403, "token", "/v1/pipelines/shop/pause"), (401, "anyone", "/v1/pipelines")]
    assert refused[0]["token"] == reader["id"] and refused[1]["token"] is None
    assert {e["address"] for e in refused} == {"127.0.0.1"}
    everything = json.dumps(audit(shop))
    assert "my-password" not in everything and "hello-secret" not in everything


def flood(daemon, method, path, status):
    connection = daemon.connect()
    for _ in range(2000):
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.status == status and answer.read()
    connection.close()


def test_a_flood_of_refusals_is_bounded(shop):
    close_the_door(shop)
    flood(shop, "GET", "/v1/pipelines", 401)
    assert len(audit(shop, outcome="refused")) < 500


def test_a_flood_of_failures_is_bounded(shop):
    ended = shop.trigger("shop", "work", wait="30s").json["id"]
    flood(shop, "POST", f"/v1/runs/{ended}/cancel", 409)
    assert shop.post("/v1/pipelines/shop/pause").status == 200
    entries = wait_until(lambda: "/pause" in (found := audit(shop))[0]["target"] and found, "the change after the flood")
    assert 100 <= len([e for e in entries if e["outcome"] == "failed"]) < 500

    def told():
        assert shop.post(f"/v1/runs/{ended}/cancel").status == 409
        return [e for e in audit(shop, outcome="failed") if "failed before that are not listed" in (e["detail"] or "")]

    wait_until(told, "what was left out to be told")


def test_what_came_too_early_leaves_no_entry(shop):
    shop.put("busy", "name: busy\njobs: {wait: {run: [sleep, \"60\"], queue_limit: 1}}\n")
    accepted = [shop.trigger("busy", "wait").json["id"] for _ in range(2)]
    assert [shop.trigger("busy", "wait").status for _ in range(50)] == [429] * 50
    assert shop.post(f"/v1/runs/{accepted[1]}/cancel").status in (200, 202)
    entries = wait_until(lambda: "/cancel" in (found := audit(shop))[0]["target"] and found, "the last entry")
    assert [e["status"] for e in entries if e["target"].endswith("/runs")] == [202, 202]


def test_definition_files_and_reloads_are_written_down(folder):
    definitions = folder / "definitions"
    definitions.mkdir()
    (definitions / "shop.yaml").write_text(SHOP)
    daemon = Daemon(folder, pipelines=definitions)
    daemon.start()
    try:
        assert [(e["who"], e["pipeline"], e["detail"]) for e in audit(daemon)] == [("file", "shop", "revision 1")]
        (definitions / "shop.yaml").write_text(SHOP + "description: new\n")
        wait_until(lambda: len(audit(daemon)) == 2, "the saved file to be taken")
        daemon.reload()
        wait_until(lambda: audit(daemon)[0]["who"] == "signal", "the reload to be told")
        (definitions / "shop.yaml").write_text("name: [\n")
        daemon.reload()
        wait_until(lambda: daemon.get_json("/v1/pipelines")["broken_files"], "the file to be broken")
        wait_until(lambda: [e["who"] for e in audit(daemon)] == ["signal", "signal", "file", "file"], "the entries")
        assert audit(daemon)[2]["target"] == str(definitions / "shop.yaml") and audit(daemon)[2]["detail"] == "revision 2"
    finally:
        assert daemon.stop() == 0


def test_no_secret_is_anywhere(folder):
    settings = folder / "settings.yaml"
    settings.write_text("log_level: debug\n")
    daemon = Daemon(folder, {"shop": SHOP + "flows: {open: {from: {webhook: /open}, to: {topic: orders}}}\n"}, args=["--config", settings])
    daemon.start()
    try:
        tokens = [close_the_door(daemon)["token"], make(daemon, "t", "read", "ingest")["token"]]
        secrets = [token.rsplit("_", 1)[1] for token in tokens]
        wrong = f"pst_{'a' * 10}_{'c' * 40}"
        assert daemon.get("/v1/runs", with_token(wrong)).status == 401
        assert daemon.post("/hooks/open", '{"n": 1}', with_token(tokens[1])).status == 202
        run = daemon.trigger("shop", "work", wait="30s").json
        shown = "".join(daemon.get(path).text for path in (
            "/v1/tokens", "/v1/token", "/v1/audit", "/metrics", "/v1/pipelines", f"/v1/runs/{run['id']}", "/v1/topics/orders/events", "/"))
        env = [open(f"/proc/{daemon.pid}/cmdline", "rb").read()]
    finally:
        assert daemon.stop() == 0
    kept = [open(file, "rb").read() for file in glob.glob(str(daemon.data / "**"), recursive=True) if os.path.isfile(file)]
    for secret in (*secrets, "c" * 40):
        assert secret not in shown and secret not in daemon.log.read_text()
        assert not any(secret.encode() in content for content in kept + env)


# ---- an open door is for this machine only ----

@pytest.mark.parametrize("host, status", [
    ("evil.example", 403), ("evil.example:8420", 403), ("127.0.0.1.evil.example", 403), ("localhost.", 403), ("1.2.3", 403),
    ("localhost", 200), ("LOCALHOST:1", 200), ("a.localhost", 200), ("127.0.0.1:9", 200), ("[::1]:9", 200), ("my-host", 200)])
def test_no_page_can_pass_off_its_name_as_the_daemon_s(daemon, host, status):
    """DNS rebinding: to the browser its own name and the daemon are the same origin then."""
    origin = {"Host": host, "Origin": f"http://{host}"}
    answer = daemon.get("/v1/pipelines", origin)
    assert answer.status == status, answer
    put = daemon.request("PUT", "/v1/pipelines/shop", SHOP, {"Content-Type": "application/yaml", **origin})
    assert put.status == (201 if status == 200 else 403), put
    assert daemon.get("/healthz", {"Host": host}).status == 200


def test_a_page_of_another_site_sends_no_events_either(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    page = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    assert daemon.request("POST", "/v1/topics/orders/events", '{"n": 1}', page).status == 403
    assert daemon.events("orders") == []
    assert daemon.request("POST", "/v1/topics/orders/events", '{"n": 1}', {"Content-Type": "application/json"}).status == 202


def test_a_token_in_the_place_of_its_id_is_not_written_down(start_daemon):
    daemon = start_daemon()
    admin = make(daemon, "admin", "admin")
    daemon.token = admin["token"]
    other = make(daemon, "other", "read")
    assert daemon.request("DELETE", f"/v1/tokens/{other['token']}").status == 404
    daemon.request("GET", f"/v1/tokens/{other['token']}", headers={"Authorization": "Bearer pst_no_thing"})
    secret = other["token"].rsplit("_", 1)[1]
    wait_until(lambda: len(audit(daemon)) >= 4, "the entries")
    assert secret not in json.dumps(audit(daemon))
    assert any(entry["target"] == f"/v1/tokens/pst_{other['id']}_***" for entry in audit(daemon))
    done = penstock("token", "revoke", other["token"], daemon=daemon, env={"PENSTOCK_TOKEN": admin["token"]})
    assert done.returncode == 0 and secret not in done.stdout + done.stderr, "the client takes the id out of it"


def test_strangers_get_no_room_for_a_body_where_no_hook_is(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    daemon.token = make(daemon, "admin", "admin")["token"]
    connection = daemon.connect()
    connection.putrequest("POST", "/hooks/nothing")
    connection.putheader("Content-Length", str(8 << 20))
    connection.endheaders()
    assert connection.getresponse().status == 404, "before the body was sent"
    connection.close()


def test_what_is_stored_is_for_the_daemon_s_user_only(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    daemon.publish("orders", [{"n": 1}])
    for name in ("state.db", "flows.db"):
        assert (daemon.data / name).stat().st_mode & 0o077 == 0, name
    assert (daemon.data / "topics").stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in daemon.data.glob("state.db-*"))


def test_the_first_token_beside_secrets_that_are_there_already():
    """As the README prepares a data folder; and where state.db was lost."""
    folder = scratch_folder()
    try:
        (folder / "secrets").mkdir()
        (folder / "secrets" / "KEY").write_text("x")
        made = penstock("token", "create", "--name", "first", "--role", "admin", "--data", folder)
        assert made.returncode == 0, made
        for file in folder.glob("state.db*"):
            file.unlink()
        (folder / "topics").mkdir(exist_ok=True)
        again = penstock("token", "create", "--name", "first", "--role", "admin", "--data", folder)
        assert again.returncode == 0, again
    finally:
        remove_folder(folder)
