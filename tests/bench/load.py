"""How much is too much: single POSTs at a fixed rate, whether earlier ones were answered or not, faster and faster.

The knee is the highest rate at which 99 of 100 requests are accepted, and 99 of 100 of these within BOUND of when they were due. Then
1.5, 2 and 4 times that rate: what is answered 429 (or 503), what could not be sent, and how late the accepted ones are.

One generator on the same machine, with CONNECTIONS connections, fewer than the daemon serves at once, of which each waits for its
answer before it sends again. So no more than that waits within the daemon, whatever is due. A request that is due while all of
them wait is not sent: it is what the daemon would refuse as one connection too many. Rates that the generator cannot send even to
the bare server are not tried.
"""
from programs import BareServer, Daemon, run_lines
from table import print_table, short

BOUND = 20_000  # microseconds
CONNECTIONS = 900
WAITING = 250  # requests that may wait for a topic, or for a job's runs to be stored; with the default of 1000 all CONNECTIONS would
WORK = ("name: bench\ntopics: {singles: {}}\njobs:\n  inside: {to: drop, on_overlap: allow}\n"
        "  program: {run: [/bin/true], on_overlap: allow}\n")
KINDS = {"events": ("/v1/topics/singles/events", '{"n":1}'), "runs inside": ("/v1/pipelines/bench/jobs/inside/runs", "{}"),
         "runs of /bin/true": ("/v1/pipelines/bench/jobs/program/runs", "{}")}
BEYOND = (1.5, 2, 4)  # times the knee
ROUNDS = 3


class Step:
    def __init__(self, context, kind, rate):
        """On a daemon of its own, so that nothing of an earlier step is still to be done."""
        path, body = KINDS[kind]
        with Daemon(context.bin, context.scratch(), settings={"max_waiting_requests": WAITING}) as daemon:
            daemon.put("bench", WORK)
            seconds = context.much(2, 0.3)
            seen = daemon.load(path, body=body, rate=rate, when_busy="drop", connections=CONNECTIONS, seconds=seconds,
                               warm_up=context.much(0.5, 0.1))
        self.rate, self.accepted = rate, seen["accepted"]
        self.p50, self.p99 = seen.get("p50", float("nan")), seen.get("p99", float("nan"))
        self.statuses = {name[7:]: count for name, count in seen.items() if name.startswith("status_") and name > "status_4"}
        self.due = rate * seconds
        self.unsent, self.unanswered = seen["unsent"], seen["unanswered"]

    @property
    def fits(self):
        return self.p99 <= BOUND and sum(self.statuses.values()) + self.unsent + self.unanswered <= self.due / 100

    def line(self, words):
        refused = ", ".join(f"{status}: {count / self.due:.1%}" for status, count in sorted(self.statuses.items())) or "0"
        return [words, short(self.rate), short(self.accepted), refused, f"{self.unsent / self.due:.1%}",
                f"{self.unanswered / self.due:.1%}", f"{self.p50 / 1000:.2f}", f"{self.p99 / 1000:.2f}"]

    def data(self, words):
        return {"step": words, "rate": self.rate, "accepted": self.accepted, "statuses": self.statuses, "unsent": self.unsent,
                "unanswered": self.unanswered, "p50_us": self.p50, "p99_us": self.p99}


def most_that_can_be_sent(context):
    """Requests a second, to a server that keeps nothing."""
    with BareServer(context.bin, context.scratch() / "log") as server:
        return run_lines(context.bin / "bench_load", "--port", server.port, "--path", "/", "--body", KINDS["events"][1],
                         "--connections", CONNECTIONS, "--seconds", context.much(2, 0.3))["accepted"]


def find_knee(context, kind, most, say):
    """Its rate, to 15 %; 0: not even the lowest fits. A rate fits when two tries of at most three do."""
    def fits(rate):
        tries = []
        while sum(tries) < 2 and len(tries) - sum(tries) < 2:
            step = Step(context, kind, rate)
            say(f"{kind}: {rate}/s, p99 {step.p99 / 1000:.1f} ms, {'fits' if step.fits else 'does not'}")
            tries.append(step.fits)
        return tries[-1]

    good, rate = 0, 1000
    while rate < most and fits(rate):
        good, rate = rate, rate * 2
        if context.quick:
            return good
    bad = rate
    while good and bad / good > 1.15:
        middle = round((good * bad) ** 0.5)
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def in_turns(context, kind, rates):
    """Each rate several times; of each the step with the median p99."""
    rounds = [[Step(context, kind, rate) for rate in rates] for _ in range(context.much(ROUNDS, 1))]
    return [sorted(tries, key=lambda step: (step.accepted == 0, step.p99))[len(tries) // 2] for tries in zip(*rounds)]


def measure(context, say):
    found = []
    most = most_that_can_be_sent(context)
    for kind in list(KINDS)[:context.much(len(KINDS), 1)]:
        rate = find_knee(context, kind, most, say)
        if not rate:
            print(f"{kind}: no knee, not even the lowest rate has its p99 within {BOUND / 1000:.0f} ms\n")
            continue
        times_tried = [times for times in BEYOND if rate * times <= most]
        half, knee, *further = in_turns(context, kind, [rate / 2, rate, *(rate * times for times in times_tried)])
        beyond = [(f"{times} times", step) for times, step in zip(times_tried, further)]
        steps = [("half of it", half), ("the knee", knee), *beyond]
        print_table([kind, "due/s", "accepted/s", "refused", "unsent", "unanswered", "p50 ms", "p99 ms"],
                    [step.line(words) for words, step in steps])
        for words, step in beyond:
            print(f"{words}: p99 of what was accepted is {step.p99 / knee.p99:.1f} times the knee's (wanted: at most 2)")
        for times in BEYOND[len(beyond):]:
            print(f"{times} times: not tried, it is more than the generator can send here")
        print()
        found.append({"of": kind, "steps": [step.data(words) for words, step in steps]})
    print(f"latency from when a request was due; knee: p99 within {BOUND / 1000:.0f} ms, 99 % accepted; {CONNECTIONS} connections, "
          f"of which {WAITING} may wait for a topic, or for a job's runs to be stored; "
          f"of {ROUNDS} tries of each step by turns the one with the median p99; the generator alone: {short(most)} requests/s to the bare server")
    return found
