"""Revisions: each change is kept, can be read as it was written, and can be gone back to; runs keep theirs."""
import os

import pytest

from penstock import wait_until

TEXT = """# revision {n}: comments and spaces   are kept
name: shop
topics: {{orders: {{}}, seen: {{}}}}
flows:
  copy: {{from: {{topic: orders}}, steps: [{{map: {{n: event.n, revision: {n}}}}}], to: {{topic: seen}}}}
jobs:
  work: {{run: [sh, -c, "echo in revision {n}; cat gate"]}}
"""


def text(n):
    return TEXT.format(n=n)


@pytest.fixture
def shop(start_daemon):
    daemon = start_daemon({"shop": text(1)})
    for n in (2, 3):
        daemon.put("shop", text(n))
    return daemon


def written(daemon, path):
    return daemon.get(path, {"Accept": "application/yaml"}).text


def test_they_are_listed_newest_first_and_read_as_written(shop):
    page = shop.get_json("/v1/pipelines/shop/revisions?limit=2")
    assert [(item["revision"], item["current"]) for item in page["items"]] == [(3, True), (2, False)]
    rest = shop.get_json("/v1/pipelines/shop/revisions?cursor=" + page["next_cursor"])
    assert [item["revision"] for item in rest["items"]] == [1] and rest["next_cursor"] is None
    for n in (1, 2, 3):
        assert written(shop, f"/v1/pipelines/shop/revisions/{n}") == text(n)
        shown = shop.get_json(f"/v1/pipelines/shop/revisions/{n}")
        assert (shown["revision"], shown["text"], shown["media_type"]) == (n, text(n), "application/yaml")
    assert shop.get("/v1/pipelines/shop/revisions/3").headers["etag"] == shop.get("/v1/pipelines/shop").headers["etag"]


def test_what_is_not_there(shop):
    for path in ("shop/revisions/4", "shop/revisions/0", "shop/revisions/-1", "shop/revisions/one", "shop/revisions/99999999999999999999",
                 "none/revisions", "none/revisions/1"):
        assert shop.get("/v1/pipelines/" + path).status == 404, path
    assert shop.post("/v1/pipelines/none/rollback").status == 404
    assert shop.post("/v1/pipelines/shop/rollback?revision=9").status == 404
    assert shop.post("/v1/pipelines/shop/rollback?revision=x").status == 400
    assert shop.get("/v1/pipelines/shop/revisions?cursor=abc").status == 400


def test_a_rollback_restores_the_bytes_and_survives_a_crash(shop):
    answer = shop.post("/v1/pipelines/shop/rollback")
    assert answer.status == 200 and answer.json["revision"] == 4, answer
    assert written(shop, "/v1/pipelines/shop") == text(2)
    assert shop.post("/v1/pipelines/shop/rollback?revision=1").json["revision"] == 5
    shop.kill9()
    shop.start()
    assert written(shop, "/v1/pipelines/shop") == text(1)
    shop.publish("orders", [{"n": 7}])
    assert shop.wait_for_topic("seen", 1)[0]["data"] == {"n": 7, "revision": 1}
    again = shop.post("/v1/pipelines/shop/rollback?revision=1").json
    assert again["unchanged"] and again["revision"] == 5


def test_a_rollback_can_be_tried_and_guarded(shop):
    plan = shop.post("/v1/pipelines/shop/rollback?revision=1&dry_run=true").json
    assert plan["dry_run"] and plan["changes"]["flows"]["changed"] == ["copy"]
    assert shop.pipeline("shop")["revision"] == 3
    stale = shop.get_json("/v1/pipelines/shop/revisions")["items"][1]["etag"]
    assert shop.post("/v1/pipelines/shop/rollback", headers={"If-Match": stale}).status == 412
    current = shop.get("/v1/pipelines/shop").headers["etag"]
    assert shop.post("/v1/pipelines/shop/rollback", headers={"If-Match": current}).status == 200


def test_the_first_revision_has_none_before_it_also_in_a_second_life(start_daemon):
    daemon = start_daemon({"shop": text(1)})
    assert daemon.post("/v1/pipelines/shop/rollback").status == 409
    daemon.put("shop", text(2))
    assert daemon.request("DELETE", "/v1/pipelines/shop").status == 204
    daemon.put("shop", text(3))
    assert daemon.post("/v1/pipelines/shop/rollback").status == 409, "what was before belongs to another life"
    assert daemon.post("/v1/pipelines/shop/rollback?revision=2").status == 200, "but may be asked for"
    assert written(daemon, "/v1/pipelines/shop") == text(2)


def test_a_run_keeps_the_revision_it_started_with(shop):
    gate = shop.work("shop") / "gate"
    os.mkfifo(gate)
    run = shop.trigger("shop", "work").json
    wait_until(lambda: "in revision 3" in shop.logs(run["id"]), "the run to be at its gate")
    shop.post("/v1/pipelines/shop/rollback?revision=1")
    with open(gate, "w", encoding="utf-8") as opened:
        opened.write("through\n")
    ended = shop.wait_for_run(run["id"])
    assert (ended["state"], ended["revision"]) == ("succeeded", 3)
    assert "in revision 3" in shop.logs(run["id"]) and "through" in shop.logs(run["id"])
