#!/usr/bin/env python3
"""Counts the test cases in ctest's logs, not the programs: Catch2 and pytest each say at their end how many there were.

usage: summary.py LASTTEST.log... [--broken WHAT...]

One line per test program, then "N passed, N failed, N skipped". Exit code 0: nothing failed, nothing is broken, and
something passed.
"""
import pathlib
import re
import sys


def counts(output):
    """(passed, failed, skipped) as the test program itself says, or None when it did not get that far."""
    catch = re.search(r"All tests passed \(.* in (\d+) test cases?\)", output)
    if catch:
        return int(catch[1]), 0, 0
    catch = re.search(r"test cases:\s*(\d+)\s*\|(.*)", output)
    if catch:
        said = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed)", catch[2])}
        return said.get("passed", 0), said.get("failed", 0), 0
    for line in reversed(output.splitlines()):
        if re.search(r"\b\d+ (passed|failed|skipped|error)", line) and " in " in line:
            said = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", line)}
            return said.get("passed", 0), said.get("failed", 0) + said.get("error", 0), said.get("skipped", 0)
    return None


def tests_of(log):
    """(name, passed, failed, skipped, seconds) of each test program in a ctest log."""
    text = pathlib.Path(log).read_text(encoding="utf-8", errors="replace")
    parts = re.split(r"^\d+/\d+ Testing: (\S+)$", text, flags=re.MULTILINE)
    for name, output in zip(parts[1::2], parts[2::2]):
        succeeded = re.search(r"^Test Passed\.$", output, re.MULTILINE) is not None
        passed, failed, skipped = counts(output) or (int(succeeded), 0, 0)
        if not succeeded and not failed:
            failed = 1  # it crashed, hung or leaked
        seconds = re.search(r"^Test time =\s*([0-9.]+)", output, re.MULTILINE)
        yield name, passed, failed, skipped, float(seconds[1]) if seconds else 0.0


def main(arguments):
    cut = arguments.index("--broken") if "--broken" in arguments else len(arguments)
    logs, broken = arguments[:cut], arguments[cut + 1:]
    total = [0, 0, 0]
    for log in logs:
        preset = pathlib.Path(log).parts[-4]
        print(f"{preset}:")
        for name, *numbers, seconds in sorted(tests_of(log)):
            total = [sum(pair) for pair in zip(total, numbers)]
            passed, failed, skipped = numbers
            print(f"  {'FAILED' if failed else 'ok    '}  {name:<24} {passed:>4} passed"
                  + (f", {failed} failed" if failed else "") + (f", {skipped} skipped" if skipped else "")
                  + f"  ({seconds:.1f} s)")
    for what in broken:
        print(f"  FAILED  {what}")
        total[1] += 1
    print("%d passed, %d failed, %d skipped" % tuple(total))
    return 0 if total[0] and not total[1] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
