"""Rows of figures: medians over repetitions, their spread, and whether a budget is met.

A Row is one line of the table. Its figures come repetition by repetition, ours and the floor's from the same moment; what the
budget says is judged on the median over the repetitions, a ratio or a difference being taken within each repetition first.
"""
import math
import os
import platform
import statistics


class Row:
    def __init__(self, name, words, unit, floor="", budget=None):
        """`budget`: (kind, number); kinds: least, most, share (of the floor, at least), times (the floor, at most), more (than
        the floor, at most)."""
        self.name, self.words, self.unit, self.floor_words = name, words, unit, floor
        self.budget = budget
        self.ours, self.floors = [], []

    def add(self, ours, floor=None):
        self.ours.append(ours)
        if floor is not None:
            self.floors.append(floor)

    def ratios(self):
        return [ours / floor for ours, floor in zip(self.ours, self.floors) if floor]

    def judged(self):
        """What the budget is about, for each repetition."""
        kind = self.budget[0] if self.budget else ""
        if kind in ("share", "times"):
            return self.ratios()
        if kind == "more":
            return [ours - floor for ours, floor in zip(self.ours, self.floors)]
        return self.ours

    def met(self):
        if not self.budget or not self.ours:
            return None
        value = statistics.median(self.judged())
        kind, number = self.budget
        return value >= number if kind in ("least", "share") else value <= number

    def budget_text(self):
        if not self.budget:
            return ""
        kind, number = self.budget
        return {"least": f">= {short(number)}", "most": f"<= {short(number)}", "share": f">= {number:.0%} of floor",
                "times": f"<= {short(number)} x floor", "more": f"<= floor + {short(number)}"}[kind]

    def data(self):
        found = {"name": self.name, "what": self.words, "unit": self.unit, "median": statistics.median(self.ours),
                 "least": min(self.ours), "most": max(self.ours), "repetitions": len(self.ours)}
        if self.floors:
            ratios = self.ratios() or [math.nan]
            found.update(floor={"what": self.floor_words, "median": statistics.median(self.floors), "least": min(self.floors),
                                "most": max(self.floors)},
                         ratio={"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)})
        if self.budget:
            judged = self.judged()
            found.update(budget={"kind": self.budget[0], "number": self.budget[1]}, met=self.met(),
                         judged={"median": statistics.median(judged), "least": min(judged), "most": max(judged)})
        return found


def short(value):
    """Three digits or so, thousands with k and M."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "-"
    size = abs(value)
    if size >= 999_500:
        return f"{value / 1e6:.2f} M"
    if size >= 9_995:
        return f"{value / 1e3:.0f} k"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def with_spread(values):
    if not values:
        return ""
    middle = short(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{short(min(values))} to {short(max(values))}]"


def print_table(head, lines):
    """Lists of words, in columns."""
    lines = list(lines)
    widths = [max(len(str(line[i])) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, ["-" * width for width in widths], *lines]:
        print("  ".join(f"{str(word):<{width}}" for word, width in zip(line, widths)).rstrip(), flush=True)


def print_rows(rows, other="floor"):
    lines = []
    for row in rows:
        if not row.ours:
            continue
        met = {None: "", True: "yes", False: "NO"}[row.met()]
        more = row.budget and row.budget[0] == "more"
        against = "+" + with_spread(row.judged()) if more else with_spread(row.ratios())
        lines.append([row.words, row.unit, with_spread(row.ours), row.floor_words, with_spread(row.floors), against,
                      row.budget_text(), met])
    print_table(["what", "unit", "Penstock", other, "", f"to the {other}", "budget", "met"], lines)


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if
                  line.startswith("model name")), platform.machine())
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "load_average": [round(value, 2) for value in os.getloadavg()]}


def print_machine(before, after):
    print(f"machine: {before['cores']} cores, {before['cpu']}, Linux {before['kernel']}; load average {before['load_average'][0]} at "
          f"the start, {after['load_average'][0]} at the end")
