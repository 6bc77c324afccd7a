"""/openapi.json itself: it is OpenAPI 3.1, it holds everything that is served and nothing else, and a liar is caught.

That every answer is as it says is checked in every other test (contract.py); here are the document, and the check's own tests.
"""
import copy
import json
import pathlib
import re
import subprocess

import pytest

from contract import Broken, Contract
from penstock import ROOT, contract_of_an_open_daemon

VALIDATOR = ROOT / "build" / "tools" / "bin" / "python"
ROLES = {"open", "any_token", "signed_body", "read", "ingest", "operate", "admin"}


@pytest.fixture(scope="module")
def document_of_the_program():
    return contract_of_an_open_daemon().document


def operations(document):
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def test_it_is_openapi(document_of_the_program, tmp_path):
    if not VALIDATOR.exists():
        pytest.skip("openapi-spec-validator is missing: tests/tools installs it")
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document_of_the_program))
    checked = subprocess.run([VALIDATOR, "-m", "openapi_spec_validator", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    broken = copy.deepcopy(document_of_the_program)
    broken["paths"]["/healthz"]["get"]["parameters"] = [{"name": "x"}]
    file.write_text(json.dumps(broken))
    assert subprocess.run([VALIDATOR, "-m", "openapi_spec_validator", file], capture_output=True).returncode != 0


def test_the_index_lists_the_same(daemon, document_of_the_program):
    listed = {(entry["method"].lower(), entry["path"].replace("...}", "}")) for entry in daemon.get_json("/")["endpoints"]}
    assert listed == {(method, path) for path, method, _ in operations(document_of_the_program)}


def test_every_operation_is_whole(document_of_the_program):
    seen = set()
    for path, method, operation in operations(document_of_the_program):
        where = f"{method} {path}"
        assert re.fullmatch(r"[a-z_]+", operation["operationId"]) and operation["operationId"] not in seen, where
        seen.add(operation["operationId"])
        assert operation["summary"] and operation["tags"] and operation["x-penstock-role"] in ROLES, where
        assert any(status < "400" for status in operation["responses"]), f"{where}: no answer when all is well"
        assert (operation.get("security") == []) == (operation["x-penstock-role"] in ("open", "signed_body")), where
        in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path)), where
        for parameter in operation.get("parameters", []):
            assert parameter["description"] and parameter["schema"], where


def test_objects_of_answers_are_closed(document_of_the_program):
    """A member that is not described fails a test, whoever adds it."""
    requests = {"PipelineDefinition", "GivenCloudEvent", "JsonSchema", "OpenApi"}
    for name, schema in document_of_the_program["components"]["schemas"].items():
        if schema.get("type") == "object" and name not in requests:
            assert schema.get("additionalProperties") is False, name
            assert set(schema.get("required", [])) <= set(schema["properties"]), name


def test_it_is_the_same_for_all_and_cached(daemon):
    first = daemon.get("/openapi.json")
    assert first.status == 200 and first.headers["etag"]
    again = daemon.get("/openapi.json", {"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status, again.body) == (304, b"") and again.headers["etag"] == first.headers["etag"]
    assert daemon.get("/openapi.json", {"If-None-Match": '"other"'}).body == first.body


# ---- the check that all tests use ----


def changed(document, change):
    document = copy.deepcopy(document)
    change(document)
    return Contract(document)


def test_the_check_sees_what_is_wrong(daemon, document_of_the_program):
    answer = daemon.get("/v1/topics")

    def check(contract, asked=("GET", "/v1/topics"), status=200, content_type="application/json", body=answer.body):
        contract.check(*asked, status, {"content-type": content_type}, body)

    right = Contract(document_of_the_program)
    check(right)
    for wrong in (dict(status=203), dict(content_type="text/html"), dict(body=b"{}"), dict(body=b"{"), dict(body=b'{"items": {}}'),
                  dict(body=b'{"items": [{}], "next_cursor": null}'), dict(body=b'{"items": [], "next_cursor": 3}'),
                  dict(body=b'{"items": [], "next_cursor": null, "more": 1}'), dict(asked=("GET", "/v1/nothing")),
                  dict(asked=("DELETE", "/v1/topics")), dict(status=404), dict(asked=("HEAD", "/v1/topics"))):
        with pytest.raises(Broken):
            check(right, **wrong)
    problem = daemon.post("/healthz")
    with pytest.raises(Broken, match="Location"):
        check(right, ("POST", "/v1/runs/x/cancel"), 202)
    with pytest.raises(Broken, match="Retry-After"):
        check(right, status=503, content_type="application/problem+json", body=problem.body)
    with pytest.raises(Broken, match="documents"):
        check(changed(document_of_the_program, lambda d: d["paths"]["/v1/topics"]["get"]["responses"].pop("200")))
    with pytest.raises(Broken, match="knows no such operation"):
        check(changed(document_of_the_program, lambda d: d["paths"].pop("/v1/topics")))


def test_the_check_is_called(daemon, monkeypatch):
    """Daemon.request and what tests read from a connection by themselves."""
    class Refusing:
        def check(self, *_):
            raise Broken("seen")
    monkeypatch.setattr(type(daemon), "shared_contract", Refusing())
    with pytest.raises(Broken, match="seen"):
        daemon.get("/healthz")
    connection = daemon.connect()
    connection.request("GET", "/healthz")
    with pytest.raises(Broken, match="seen"):
        connection.getresponse()
    connection.close()


def test_examples_of_the_documentation_name_endpoints_that_exist(document_of_the_program):
    contract = Contract(document_of_the_program)
    text = "".join(path.read_text() for path in [ROOT / "README.md", *pathlib.Path(ROOT / "deploy").glob("*.md")])
    named = re.findall(r"\| `(GET|PUT|POST|DELETE) (/[\w/{}.-]*)", text)
    assert len(named) > 5
    for method, path in named:
        assert contract.operation(method, path.replace("...}", "}"))[1], f"{method} {path}"
