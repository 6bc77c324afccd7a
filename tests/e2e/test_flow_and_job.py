"""The same input through the same steps, as a flow and as a job: the same rows, the same dead letters."""
from penstock import EXAMPLES, wait_until

WORK = """
    from: {file: "%s"}
    steps:
      - filter: event.mag ~= nil
      - map: {id: event.id, net: event.net, at: event.time, magnitude: "event.mag > 6 and event.mag .. nothing or event.mag"}
      - dedupe: {key: event.id, within: 24h}
      - window:
          tumbling: 24h
          key: event.net
          time: event.at
          lateness: 48h
          aggregates: {quakes: count, highest: {max: event.magnitude}, mean: {mean: event.magnitude}}
    outputs: {late: {sqlite: {file: %s.db, table: late}}}
    to: {sqlite: {file: %s.db, table: days, mode: upsert, key: [key, from]}}
"""


def pipeline(name, kind):
    file = EXAMPLES / "quakes" / "earthquakes.ndjson"
    return f"name: {name}\n{kind}:\n  days:{WORK % (file, name, name)}"


def test_a_flow_and_a_job_give_the_same(start_daemon):
    daemon = start_daemon({"live": pipeline("live", "flows"), "batch": pipeline("batch", "jobs")})
    run = daemon.run_to_end("batch", "days")
    assert run["state"] == "succeeded", run
    wait_until(lambda: daemon.flow("live", "days")["state"] == "stopped", "the flow to have read its file")
    for query in ('SELECT * FROM days ORDER BY "from", key', "SELECT * FROM late ORDER BY id"):
        rows = daemon.rows("live", "live.db", query)
        assert rows == daemon.rows("batch", "batch.db", query)
        assert len(rows) > 10
    died = {name: sorted((letter["event"]["id"], letter["step"]) for letter in daemon.dead_letters(name))
            for name in ("live", "batch")}
    assert len(died["live"]) == len(died["batch"]) > 0  # the ids of a file's events are made when it is read
    assert {step for _, step in died["live"]} == {step for _, step in died["batch"]} == {"map_2"}
