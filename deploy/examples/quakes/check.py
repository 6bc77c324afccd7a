#!/usr/bin/env python3
"""Compares what the quakes example left in its folder with what expected.py computes from the data alone.

usage: check.py FOLDER          FOLDER is DATA/work/quakes of the daemon

Prints one line per figure. Exit code 0: every figure is met; 1: at least one is not.
"""
import csv
import json
import pathlib
import sqlite3
import sys

from expected import expected


def found(folder):
    """The same shape as expected(), from the files that the pipeline wrote; and how many rows and alerts are doubled."""
    with sqlite3.connect(f"file:{folder / 'quakes.db'}?mode=ro", uri=True) as connection:
        rows, distinct_rows = connection.execute("SELECT count(*), count(DISTINCT id) FROM quakes").fetchone()
    with open(folder / "alerts.ndjson", encoding="utf-8") as lines:
        alerts = [json.loads(line)["id"] for line in lines]
    with open(folder / "by_day.csv", encoding="utf-8", newline="") as lines:
        by_day = {
            row["day"]: {"quakes": int(row["quakes"]), "largest": float(row["largest"]), "mean": row["mean"]}
            for row in csv.DictReader(lines)
        }
    doubled = rows - distinct_rows + len(alerts) - len(set(alerts))
    return {"rows": rows, "alerts": len(alerts), "by_day": by_day}, doubled


def main(folder):
    wanted = expected()
    try:
        got, doubled = found(folder)
    except (OSError, sqlite3.Error, KeyError, ValueError) as failure:
        sys.exit(f"check.py: {failure}")
    figures = [
        ("rows in quakes.db", got["rows"], wanted["rows"]),
        ("alerts in alerts.ndjson", got["alerts"], wanted["alerts"]),
        ("duplicates", doubled, 0),
    ]
    for day in sorted(wanted["by_day"].keys() | got["by_day"].keys()):
        figures.append((f"by day, {day}", *(in_words(side["by_day"].get(day)) for side in (got, wanted))))
    missed = 0
    for what, is_now, should_be in figures:
        met = is_now == should_be
        missed += not met
        print(f"  {'ok    ' if met else 'MISSED'}  {what:<24} {is_now}" + ("" if met else f", expected {should_be}"))
    return 1 if missed else 0


def in_words(day):
    return f"{day['quakes']:>3} quakes, largest {day['largest']}, mean {day['mean']}" if day else "nothing"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))
