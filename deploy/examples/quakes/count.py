#!/usr/bin/env python3
"""The command of job count: prints how many rows there are. No database yet is not an error.

usage: count.py DATABASE
"""
import os
import sqlite3
import sys


def main(database):
    if not os.path.exists(database):
        print("no rows yet")
        return
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        print(connection.execute("SELECT count(*) FROM quakes").fetchone()[0], "rows")


if __name__ == "__main__":
    main(sys.argv[1])
