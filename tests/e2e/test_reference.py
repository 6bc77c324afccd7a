"""deploy/reference.md is what the program prints of itself, and the program says nothing that it does not know."""
import re
import subprocess

from penstock import BIN, ROOT

PAGE = ROOT / "deploy" / "reference.md"


def printed():
    return subprocess.run([BIN / "penstockd", "--reference"], capture_output=True, text=True, check=True).stdout


def test_the_page_is_of_this_version():
    assert PAGE.read_text() == printed(), "build/release/bin/penstockd --reference > deploy/reference.md"


def test_every_component_of_the_schema_and_every_setting_is_there(daemon):
    text = printed()
    schema = daemon.get("/v1/schema/pipeline").json
    definitions = schema["$defs"]
    for kind, head in (("source", "### from: "), ("step", "### "), ("sink", "### to: ")):
        names = set()
        for choice in definitions[kind]["oneOf"] if "oneOf" in definitions[kind] else definitions[kind]["anyOf"]:
            names |= set(choice.get("properties", {})) - {"name"}  # a step may have a name beside its component
        assert names, definitions[kind]
        for name in names:
            assert f"\n{head}{name}\n" in text, f"{kind} {name}"
    assert all(line.count("|") - line.count("\\|") == 5 for line in text.splitlines() if line.startswith("| "))
    assert not re.search(r"\. \.|\.\.\s\|", text.replace("...", "")), "sentences end once"
