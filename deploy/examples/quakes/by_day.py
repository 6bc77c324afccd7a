#!/usr/bin/env python3
"""The command of job by_day: a summary per UTC day, from the table to a CSV file.

usage: by_day.py DATABASE CSV

Writes beside the target and renames, so that a reader never sees half a file and a repeated run does no harm.
What it prints is the run's log.
"""
import os
import sqlite3
import sys

QUERY = """
  SELECT substr(time, 1, 10), count(*), max(magnitude), printf('%.2f', avg(magnitude))
  FROM quakes GROUP BY 1 ORDER BY 1
"""


def main(database, target):
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute(QUERY).fetchall()
    beside = target + ".new"
    with open(beside, "w", encoding="utf-8") as out:
        print("day,quakes,largest,mean", file=out)
        for row in rows:
            print(*row, sep=",", file=out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, target)
    print(f"{sum(row[1] for row in rows)} quakes on {len(rows)} days, run {os.environ.get('PENSTOCK_RUN_ID', '-')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
