"""The sources as text: what a compiler does not see and a reader should not have to.

Each test collects every break and shows them together, as file:line.
"""
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAYERS = ["config", "runtime", "scheduler", "api", "daemon"]  # each may include those before it, and itself
LONGEST_FUNCTION = 100  # lines
LONGEST_FILE = 900      # lines
LONGEST_TEST_FILE = 1100  # cases of one thing, read one at a time
TEXT = {".cpp", ".hpp", ".in", ".md", ".py", ".sh", ".sql", ".txt", ".yaml", ".yml", ".json", ".cmake", ""}


def tracked_files():
    """What git has or would add; without git, everything but build folders."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        found = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        found = [path for path in ROOT.rglob("*")
                 if not {"build", ".git", "__pycache__"} & set(path.relative_to(ROOT).parts)]
    return [path for path in found if path.is_file()]


FILES = tracked_files()
SOURCES = [path for path in FILES
           if path.suffix in (".cpp", ".hpp") and path.relative_to(ROOT).parts[0] in LAYERS + ["tests"]]
OURS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in LAYERS]


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def shown(path, number=None):
    return f"{path.relative_to(ROOT)}" + (f":{number}" if number else "")


def breaks(paths, pattern, unless=None):
    found = []
    for path in paths:
        for number, line in enumerate(lines_of(path), start=1):
            if re.search(pattern, line) and not (unless and re.search(unless, line)):
                found.append(f"{shown(path, number)}: {line.strip()}")
    return found


def without_strings_and_comments(text):
    """The same text, same lines, with what stands in literals and comments blanked out."""
    pattern = re.compile(r'R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/', re.DOTALL)
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def test_there_are_sources():
    assert len(OURS) > 20
    assert {path.relative_to(ROOT).parts[0] for path in OURS} == set(LAYERS)


def test_includes_go_one_way():
    found = []
    for path in OURS:
        layer = LAYERS.index(path.relative_to(ROOT).parts[0])
        for number, line in enumerate(lines_of(path), start=1):
            include = re.match(r'\s*#\s*include\s+"([a-z]+)/', line)
            if include and include[1] in LAYERS and LAYERS.index(include[1]) > layer:
                found.append(f"{shown(path, number)}: {line.strip()}")
            elif include and include[1] not in LAYERS:
                found.append(f"{shown(path, number)}: {line.strip()}")
    assert not found, "\n".join(found)


def test_heavy_libraries_stay_where_they_belong():
    rules = [("yaml-cpp/", {"config"}), ("sqlite3.h", {"runtime"}), ("simdjson.h", {"runtime", "api"}), ("lua", {"runtime"}),
             ("boost/asio", {"runtime", "scheduler", "api", "daemon"}), ("boost/beast", {"runtime", "api"})]
    found = []
    for path in OURS:
        folder = path.relative_to(ROOT).parts[0]
        for number, line in enumerate(lines_of(path), start=1):
            include = re.match(r"\s*#\s*include\s+[<\"]([^>\"]+)[>\"]", line)
            if not include:
                continue
            for prefix, folders in rules:
                if include[1].startswith(prefix) and folder not in folders:
                    found.append(f"{shown(path, number)}: {line.strip()}")
            # libcurl.hpp is curl/curl.h with functions that are loaded: as heavy, and for implementation files alone.
            heavy = r"sqlite3\.h|simdjson|yaml-cpp/|lua|curl/|runtime/libcurl\.hpp|openssl/"
            if path.suffix == ".hpp" and path.name != "libcurl.hpp" and re.match(heavy, include[1]):
                found.append(f"{shown(path, number)}: heavy header in a header: {line.strip()}")
    assert not found, "\n".join(found)


def test_nothing_sleeps():
    found = breaks(SOURCES, r"sleep_for|sleep_until|\busleep\s*\(|\bnanosleep\s*\(|[^_]\bsleep\s*\(")
    python = [path for path in FILES if path.suffix == ".py" and path != pathlib.Path(__file__)]
    found += breaks(python, r"time\.sleep|from time import .*sleep")
    assert not found, "\n".join(found)


def test_the_scheduler_has_no_mutex():
    scheduler = [path for path in OURS if path.relative_to(ROOT).parts[0] == "scheduler"]
    found = breaks(scheduler, r"std::(\w*_)?mutex|lock_guard|unique_lock|scoped_lock")
    assert not found, "\n".join(found)


def test_nothing_is_left_unfinished():
    words = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "not " + "implemented", "st" + "ub"])
    paths = [path for path in FILES if path.suffix in TEXT and path.name != "LICENSE" and path.suffix != ".ndjson"]
    found = breaks(paths, rf"\b({words})\b", unless=r"penstock-XXXXXX|mktemp")
    assert not found, "\n".join(found)


def test_nothing_names_the_place_it_was_written_in():
    """No path of this checkout, and no home folder of anybody."""
    forbidden = [r"(^|[\s\"'(=:])/home/[a-z]", r"(^|[\s\"'(=:])/root/\w+/", rf"(^|[\s\"'(=:]){re.escape(str(ROOT))}\b"]
    paths = [path for path in FILES if path.suffix in TEXT and path != pathlib.Path(__file__) and path.name != "LICENSE"]
    found = breaks(paths, "|".join(forbidden), unless=r"/root/secrets/")
    assert not found, "\n".join(found)


def test_no_capturing_lambda_beside_co_await():
    """GCC 12 miscompiles it (GCC bug 107288): the awaited value goes into a local first."""
    found = []
    for path in SOURCES:
        code = without_strings_and_comments(path.read_text(encoding="utf-8"))
        for statement in re.finditer(r"co_await\b[^;{}]*(?:\{[^;{}]*)?", code):
            capturing = re.search(r"(?:^|[=(,\s])\[(?:&|=|this|\w)[^\]\n]*\]\s*(?:\(|\{|mutable)", statement[0])
            if capturing:
                number = code.count("\n", 0, statement.start()) + 1
                found.append(f"{shown(path, number)}: {statement[0].splitlines()[0].strip()}")
    assert not found, "\n".join(found)


def functions_of(path):
    """(name, first line, number of lines) of each function body, found by its braces. Tests' bodies count, too."""
    code = without_strings_and_comments(path.read_text(encoding="utf-8"))
    depth_of_scope = 0  # braces of namespaces, classes and the like, in which functions stand
    stack = []          # True: such a scope
    start = 0           # where the text before the next brace begins
    for position, character in enumerate(code):
        if character == ";":
            start = position + 1
        elif character == "{":
            before = code[start:position].strip()
            inside_scope = all(stack)
            is_scope = bool(re.search(r"\b(namespace|class|struct|enum|union|extern)\b", before)) and not re.search(
                r"\)\s*(const|noexcept|override|final|->.*)*\s*$", before)
            stack.append(inside_scope and is_scope)
            if inside_scope and not is_scope:
                began, name = position, before.splitlines()[-1].strip() if before else "?"
                depth_of_scope = len(stack)
            start = position + 1
        elif character == "}":
            if stack and len(stack) == depth_of_scope and not stack[-1]:
                yield name, code.count("\n", 0, began) + 1, code.count("\n", began, position) + 1
                depth_of_scope = 0
            if stack:
                stack.pop()
            start = position + 1


def test_functions_are_short():
    found = [f"{shown(path, line)}: {name}: {length} lines" for path in OURS for name, line, length in functions_of(path)
             if length > LONGEST_FUNCTION]
    assert not found, "\n".join(found)


def test_files_are_no_bigger_than_a_room():
    found = []
    for path in SOURCES:
        longest = LONGEST_TEST_FILE if path.parts[0] == "tests" or "tests" in path.parts else LONGEST_FILE
        if len(lines_of(path)) > longest:
            found.append(f"{shown(path)}: {len(lines_of(path))} lines, at most {longest}")
    assert not found, "\n".join(found)


def test_every_header_says_what_it_is():
    found = []
    for path in SOURCES:
        if path.suffix != ".hpp":
            continue
        lines = lines_of(path)
        if not lines or not lines[0].startswith("//") or "#pragma once" not in lines:
            found.append(shown(path))
    assert not found, "\n".join(found)


def test_every_component_is_registered_and_every_folder_has_its_page():
    all_of_them = (ROOT / "runtime" / "components" / "all.cpp").read_text(encoding="utf-8")
    for path in (ROOT / "runtime" / "components").glob("*_s*.cpp"):
        if re.search(r"_(source|step|sink)$", path.stem):
            assert f"components::{path.stem}::add(r)" in all_of_them, path.stem
    missing = [folder for folder in LAYERS + ["tests", "deploy"] if not (ROOT / folder / "README.md").is_file()]
    assert not missing, missing


def test_no_folder_for_odds_and_ends():
    found = {shown(path) for path in FILES if {"util", "utils", "common", "helpers", "misc"} & set(path.parts)}
    assert not found, found


def test_scripts_can_be_run():
    for name in ("deploy/packages", "deploy/quickstart", "tests/run", "tests/tools", ".ci/run"):
        path = ROOT / name
        assert path.stat().st_mode & 0o111, f"{name} is not executable"
        assert lines_of(path)[0] == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in path.read_text(encoding="utf-8")
        assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_lines_end_cleanly():
    found = breaks([path for path in FILES if path.suffix in (".cpp", ".hpp", ".py", ".md", ".yaml", ".sql")], r"[ \t]+$|\t")
    assert not found, "\n".join(found[:50])
