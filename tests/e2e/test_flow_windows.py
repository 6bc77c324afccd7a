"""Windows through the real binary: a real week of earthquakes against figures that are computed here by other code, also
with the daemon killed in the middle; windows by count and by session; idle sources; the same in a job."""
import datetime
import json
import statistics

import pytest

from penstock import EXAMPLES, wait_until

HOUR = 3_600_000  # ms, as the quakes' times
LATENESS = 6 * HOUR
# One more event, days later: it ends all windows before it.
CLOSING = {"id": "closing", "time": 1518600000000, "updated": 1518600000000, "mag": 0.0, "net": "zz"}

HOURLY = """
name: quakes
topics: {quakes: {}, late: {}}
flows:
  hourly:
    from: {topic: quakes}
    steps:
      - window:
          tumbling: 1h
          key: event.net
          time: event.time
          lateness: 6h
          aggregates:
            quakes: count
            highest: {max: event.mag}
            mean: {mean: event.mag}
            median: {percentile: {of: event.mag, at: 50}}
    outputs: {late: {topic: late}}
    to: {sqlite: {file: hourly.db, table: hourly, mode: upsert, key: [key, from]}}
"""


def rfc3339(ms):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def quakes():
    """In the order in which a subscriber saw them."""
    with open(EXAMPLES / "quakes" / "earthquakes.ndjson", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def expected(events):
    """({(net, begin of the hour): magnitudes}, ids of those that came too late)."""
    hours, late, newest = {}, [], 0
    for event in events:
        begin = event["time"] // HOUR * HOUR
        newest = max(newest, event["time"])
        if begin + HOUR + LATENESS <= newest:
            late.append(event["id"])
        else:
            magnitudes = hours.setdefault((event["net"], begin), [])
            magnitudes.append(event["mag"])
    return hours, late


def assert_hourly_figures(daemon, events):
    daemon.wait_until_quiet("quakes", timeout=90)
    hours, late = expected(events)
    del hours[(CLOSING["net"], CLOSING["time"] // HOUR * HOUR)]  # still open
    wanted = {}
    for (net, begin), all_of_them in hours.items():
        magnitudes = [magnitude for magnitude in all_of_them if magnitude is not None]
        wanted[(net, rfc3339(begin))] = (
            len(all_of_them), max(magnitudes, default=None), statistics.mean(magnitudes) if magnitudes else None,
            statistics.median(magnitudes) if magnitudes else None)

    rows = daemon.rows("quakes", "hourly.db", 'SELECT key, "from", quakes, highest, mean, median, until FROM hourly')
    found = {(net, begin): figures for net, begin, *figures, until in rows}
    assert len(rows) == len(found) == len(wanted)
    assert found.keys() == wanted.keys()
    for window, figures in wanted.items():
        assert found[window] == pytest.approx(list(figures)), window
    assert [event["data"]["id"] for event in daemon.events("late")] == late
    assert sum(figures[0] for figures in found.values()) + len(late) + 1 == len(events)
    assert daemon.dead_letters() == []
    return late


def test_hourly_figures_of_a_week(start_daemon):
    daemon = start_daemon({"quakes": HOURLY})
    events = quakes() + [CLOSING]
    for at in range(0, len(events), 250):
        daemon.publish("quakes", events[at:at + 250])
    assert assert_hourly_figures(daemon, events), "the week has events that come too late"
    flow = daemon.flow("quakes", "hourly")
    assert flow["state"] == "running", flow


def test_the_same_with_the_daemon_killed(start_daemon):
    daemon = start_daemon({"quakes": HOURLY})
    events = quakes() + [CLOSING]
    for at in range(0, len(events), 200):
        daemon.publish("quakes", events[at:at + 200])
        daemon.kill9()  # somewhere within the work on these
        daemon.start()
    assert_hourly_figures(daemon, events)
    daemon.restart()
    assert_hourly_figures(daemon, events)


def test_a_late_event_corrects_a_result(start_daemon):
    daemon = start_daemon({"quakes": HOURLY})
    begin = 1518004800000

    def quake(number, at, mag):
        return {"id": f"q{number}", "time": begin + at, "mag": mag, "net": "ak"}

    daemon.publish("quakes", [quake(1, 0, 1.5), quake(2, HOUR, 2.5)])

    def first_hour():
        daemon.wait_until_quiet("quakes")
        query = f"""SELECT revision, quakes, highest FROM hourly WHERE "from" = '{rfc3339(begin)}'"""
        return daemon.rows("quakes", "hourly.db", query)

    assert first_hour() == [(1, 1, 1.5)]
    daemon.kill9()
    daemon.start()
    daemon.publish("quakes", [quake(3, HOUR - 1, 4.5)])
    assert first_hour() == [(2, 2, 4.5)]
    daemon.publish("quakes", [quake(4, 8 * HOUR, 1.0), quake(5, 0, 9.0)])
    assert first_hour() == [(2, 2, 4.5)]
    assert [event["data"]["id"] for event in daemon.events("late")] == ["q5"]


SHAPES = """
name: shapes
topics: {clicks: {}, by_count: {}, sessions: {}, sliding: {}}
flows:
  by_count:
    from: {topic: clicks}
    steps:
      - window: {count: 3, key: event.user, aggregates: {pages: {collect: event.page}, sum: {sum: event.ms}}}
    to: {topic: by_count}
  sessions:
    from: {topic: clicks}
    steps:
      - window:
          session: 30s
          key: event.user
          time: event.at
          aggregates:
            {clicks: count, first: {first: event.page}, last: {last: event.page}, different: {distinct: event.page}}
    to: {topic: sessions}
  sliding:
    from: {topic: clicks}
    steps:
      - window:
          sliding: {size: 1m, every: 30s}
          time: event.at
          aggregates: {slowest: {max: event.ms}, off: {stddev: event.ms}}
    to: {topic: sliding}
"""


def test_count_session_and_sliding_windows(start_daemon):
    daemon = start_daemon({"shapes": SHAPES})

    def click(user, at, page, ms):
        return {"user": user, "at": f"2018-02-07T12:{at // 60:02}:{at % 60:02}Z", "page": page, "ms": ms}

    daemon.publish("clicks", [
        click("ann", 0, "/", 10), click("bob", 5, "/", 30), click("ann", 20, "/a", 12), click("ann", 45, "/", 11),
        click("bob", 50, "/b", 20), click("ann", 300, "/c", 7)])

    def data(topic, count, *fields):
        found = [event["data"] for event in daemon.wait_for_topic(topic, count)]
        return [tuple(result[field] for field in fields) for result in found]

    assert data("by_count", 1, "key", "sequence", "pages", "sum") == [("ann", 1, ["/", "/a", "/"], 33)]
    assert data("sessions", 3, "key", "clicks", "first", "last", "different", "until") == [
        ("bob", 1, "/", "/", 1, "2018-02-07T12:00:35.000000Z"),
        ("ann", 3, "/", "/", 2, "2018-02-07T12:01:15.000000Z"),
        ("bob", 1, "/b", "/b", 1, "2018-02-07T12:01:20.000000Z")]
    sliding = data("sliding", 3, "from", "slowest", "off")
    wanted = [("2018-02-07T11:59:30.000000Z", 30, statistics.stdev([10, 30, 12])),
              ("2018-02-07T12:00:00.000000Z", 30, statistics.stdev([10, 30, 12, 11, 20])),
              ("2018-02-07T12:00:30.000000Z", 20, statistics.stdev([11, 20]))]
    for found, row in zip(sliding, wanted, strict=True):
        assert found[:2] == row[:2] and found[2] == pytest.approx(row[2])
    ids = [event["id"] for topic in ("by_count", "sessions", "sliding") for event in daemon.events(topic)]
    assert len(set(ids)) == len(ids) == 7


IDLE = """
name: idle
topics: {in: {}, by_event: {}, by_clock: {}}
flows:
  by_event:
    from: {topic: in}
    steps: [{window: {tumbling: 1s, idle: 200ms}}]
    to: {topic: by_event}
  by_clock:
    from: {topic: in}
    steps: [{window: {tumbling: 1s, clock: processing}}]
    to: {topic: by_clock}
"""


@pytest.mark.parametrize("killed", [False, True])
def test_an_idle_source_does_not_hold_windows_for_ever(start_daemon, killed):
    daemon = start_daemon({"idle": IDLE})
    daemon.publish("in", [{"n": n} for n in range(10)])
    if killed:
        daemon.kill9()
        daemon.start()
    for topic in ("by_event", "by_clock"):
        def all_of_them():
            return sum(event["data"]["count"] for event in daemon.events(topic)) == 10
        wait_until(all_of_them, f"the results in {topic}")


JOB = """
name: job
topics: {in: {}}
jobs:
  sums:
    trigger: {topic: in, max_events: 4}
    steps:
      - window: {tumbling: 1h, key: event.k, time: event.at, aggregates: {sum: {sum: event.v}}}
    to: {sqlite: {file: sums.db, table: sums, mode: upsert, key: [key, from]}}
"""


def test_a_job_sums_up_all_of_its_input(start_daemon):
    daemon = start_daemon({"job": JOB})
    daemon.publish("in", [{"k": "a", "at": 0, "v": 1}, {"k": "b", "at": 1, "v": 2}, {"k": "a", "at": 2, "v": 3},
                          {"k": "a", "at": HOUR, "v": 4}])
    runs = daemon.wait_for_runs("job", "sums", 1)
    assert runs[0]["state"] == "succeeded", runs
    rows = daemon.rows("job", "sums.db", 'SELECT key, "from", revision, sum FROM sums ORDER BY 2, 1')
    assert rows == [("a", rfc3339(0), 1, 4), ("b", rfc3339(0), 1, 2), ("a", rfc3339(HOUR), 1, 4)]


def test_impossible_windows_are_refused_with_their_place(daemon):
    wrong = HOURLY.replace("tumbling: 1h", "tumbling: 1h\n          count: 5")
    answer = daemon.put("quakes", wrong, expect=(422,))
    assert "exclude each other" in answer.text
    answer = daemon.put("quakes", HOURLY.replace("{max: event.mag}", "{maximum: event.mag}"), expect=(422,))
    assert "maximum" in answer.text
