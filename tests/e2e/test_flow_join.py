"""Two topics joined by key within an interval of event time: through the real daemon, its crashes, and silence on one side."""
import random

import pytest

from penstock import wait_until

WITHIN = 600  # seconds

SHOP = """
name: shop
topics: {orders: {}, payments: {}, late: {}}
flows:
  pay:
    from: {topics: [orders, payments]}
    steps:
      - join:
          left: {where: meta.topic == 'orders', key: event.id, as: order}
          right: {where: meta.topic == 'payments', key: event.order, as: payment}
          within: 10m
          time: event.at
          unmatched: both
      - map:
          key: event.key
          order_at: event.order and event.order.at
          payment_at: event.payment and event.payment.at
          amount: event.payment and event.payment.amount
    outputs: {late: {topic: late}}
    to: {sqlite: {file: paid.db, table: paid, columns: {order_at: integer, payment_at: integer, amount: integer}}}
"""

# A week later than all else; it lets go of what is still held.
LAST = {"orders": {"id": "last", "at": 10**9}, "payments": {"order": "last", "amount": 0, "at": 10**9}}


def events(seed=7, count=300):
    """[(topic, event)], each topic in the order of its events' times (milliseconds since 1970)."""
    chance, found, at = random.Random(seed), [], 0
    for number in range(count):
        at += chance.randrange(60) * 1000
        order = {"id": f"o{number}", "at": at}
        if chance.random() < 0.9:
            found.append(("orders", order))
        for _ in range(chance.choice((0, 1, 1, 1, 2))):
            after = chance.randrange(-60, 700) * 1000
            found.append(("payments", {"order": f"o{number}", "amount": chance.randrange(100), "at": max(0, at + after)}))
    return sorted(found, key=lambda one: one[1]["at"])


def expected(given):
    orders = [event for topic, event in given if topic == "orders"]
    payments = [event for topic, event in given if topic == "payments"]
    pairs = [(order, payment) for order in orders for payment in payments
             if order["id"] == payment["order"] and abs(order["at"] - payment["at"]) <= WITHIN * 1000]
    rows = [(order["id"], order["at"], payment["at"], payment["amount"]) for order, payment in pairs]
    paid, used = {id(order) for order, _ in pairs}, {id(payment) for _, payment in pairs}
    rows += [(order["id"], order["at"], None, None) for order in orders if id(order) not in paid]
    rows += [(payment["order"], None, payment["at"], payment["amount"]) for payment in payments if id(payment) not in used]
    return sorted(rows, key=repr)


def rows(daemon):
    query = "SELECT key, order_at, payment_at, amount FROM paid"
    return sorted((row for row in daemon.rows("shop", "paid.db", query) if row[0] != "last"), key=repr)


def publish(daemon, given):
    for topic in ("orders", "payments"):
        some = [event for of_topic, event in given if of_topic == topic]
        if some:
            daemon.publish(topic, some)


def assert_joined(daemon, given):
    publish(daemon, list(LAST.items()))
    daemon.wait_until_quiet("shop", timeout=90)
    wanted = expected(given)
    assert any(row[1] is None for row in wanted) and any(row[2] is None for row in wanted)
    assert rows(daemon) == wanted
    assert daemon.events("late") == []
    assert daemon.dead_letters() == []
    assert daemon.flow("shop", "pay")["state"] == "running"


def test_orders_and_payments_of_a_day(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    given = events()
    for at in range(0, len(given), 50):
        publish(daemon, given[at:at + 50])
    assert_joined(daemon, given)


@pytest.mark.parametrize("first", ["orders", "payments"])
def test_one_topic_may_be_far_ahead(start_daemon, first):
    daemon = start_daemon({"shop": SHOP})
    given = events()
    publish(daemon, [one for one in given if one[0] == first])
    daemon.wait_until_quiet("shop")
    publish(daemon, [one for one in given if one[0] != first])
    assert_joined(daemon, given)


def test_the_same_rows_with_the_daemon_killed(start_daemon):
    daemon = start_daemon({"shop": SHOP})
    given = events()
    for at in range(0, len(given), 60):
        publish(daemon, given[at:at + 60])
        daemon.kill9()  # somewhere within the work on these
        daemon.start()
    assert_joined(daemon, given)
    daemon.restart()
    daemon.wait_until_quiet("shop")
    assert rows(daemon) == expected(given)


IDLE = """
name: idle
topics: {orders: {}, payments: {}, out: {}}
flows:
  pay:
    from: {topics: [orders, payments]}
    steps:
      - join:
          left: {where: meta.topic == 'orders', key: event.id, as: order}
          right: {where: meta.topic == 'payments', key: event.order, as: payment}
          within: 100ms
          unmatched: left
          idle: 200ms
    to: {topic: out}
"""


@pytest.mark.parametrize("killed", [False, True])
def test_an_order_leaves_alone_though_no_payment_ever_comes(start_daemon, killed):
    daemon = start_daemon({"idle": IDLE})
    daemon.publish("orders", [{"id": number} for number in range(5)])
    if killed:
        daemon.kill9()
        daemon.start()
    found = [event["data"] for event in daemon.wait_for_topic("out", 5)]
    assert sorted(result["key"] for result in found) == list(range(5))
    assert all(result["order"] == {"id": result["key"]} and result["payment"] is None for result in found)
    assert len({event["id"] for event in daemon.events("out")}) == 5


KINDS = """
name: kinds
topics: {calls: {}, answered: {}, late: {}}
flows:
  answer:
    from: {topic: calls}
    steps:
      - join:
          left: {where: event.kind == 'call', key: event.id, as: call}
          right: {where: event.kind == 'answer', key: event.id, as: answer}
          within: 30s
          time: event.at
          watermark: newest
          each: first
          unmatched: left
    outputs: {late: {topic: late}}
    to: {topic: answered}
"""


def test_two_kinds_of_events_in_one_topic(start_daemon):
    daemon = start_daemon({"kinds": KINDS})
    daemon.publish("calls", [
        {"kind": "call", "id": 1, "at": 0}, {"kind": "call", "id": 2, "at": 1000}, {"kind": "other", "id": 1, "at": 1000},
        {"kind": "answer", "id": 1, "at": 2000}, {"kind": "answer", "id": 1, "at": 3000},
        {"kind": "call", "id": 3, "at": 90000}, {"kind": "answer", "id": 2, "at": 1000}, {"kind": "answer", "id": 3}])
    daemon.wait_until_quiet("kinds")
    found = [(data["call"]["id"], data["answer"] and data["answer"]["at"])
             for data in (event["data"] for event in daemon.events("answered"))]
    assert found == [(1, 2000), (2, None)]
    assert [event["data"] for event in daemon.events("late")] == [{"kind": "answer", "id": 2, "at": 1000}]
    letters = wait_until(daemon.dead_letters, "the answer without a time")
    assert len(letters) == 1 and "RFC 3339" in letters[0]["reason"]


def test_a_join_that_cannot_work_is_refused_with_its_place(daemon):
    answer = daemon.put("shop", SHOP.replace("as: payment", "as: order"), expect=(422,))
    assert "'order'" in answer.text
    answer = daemon.put("shop", SHOP.replace("within: 10m", "within: soon"), expect=(422,))
    assert "within" in answer.text
