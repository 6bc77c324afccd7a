#!/usr/bin/env python3
"""What the quakes example must end with, computed from earthquakes.ndjson alone (no Penstock, no database).

Prints one JSON object: rows, alerts, and for each UTC day of event time the number of quakes, the largest magnitude
and the mean magnitude (two decimals).
"""
import json
import math
import pathlib
from datetime import datetime, timezone

ALERT_MAGNITUDE = 5


def expected(file=pathlib.Path(__file__).with_name("earthquakes.ndjson")):
    with open(file, encoding="utf-8") as lines:
        quakes = {quake["id"]: quake for quake in map(json.loads, lines)}
    days = {}
    for quake in quakes.values():
        day = datetime.fromtimestamp(quake["time"] / 1000, timezone.utc).date().isoformat()
        days.setdefault(day, []).append(quake["mag"])
    return {
        "rows": len(quakes),
        "alerts": sum(1 for quake in quakes.values() if quake["mag"] >= ALERT_MAGNITUDE),
        "by_day": {
            day: {
                "quakes": len(magnitudes),
                "largest": float(max(magnitudes)),
                "mean": f"{math.fsum(magnitudes) / len(magnitudes):.2f}",
            }
            for day, magnitudes in sorted(days.items())
        },
    }


if __name__ == "__main__":
    print(json.dumps(expected(), indent=2))
