// Whole definitions that several tests start from.
#pragma once

namespace penstock::testing {

// The example of the design: a webhook flow, an alert flow, a micro-batch job, a nightly job with two tasks.
inline constexpr const char* orders_yaml = R"(name: orders
description: Shop orders - live alerts, five-minute loads, a nightly report

topics:
  orders: {retain: 7d, dedupe: {key: event.order_id, within: 24h}}

flows:                                        # real-time: always live
  intake:
    from:
      webhook:
        path: /orders                         # served at /hooks/orders
        signature: {scheme: hmac-sha256, header: X-Webhook-Signature, secret: "${env:WEBHOOK_SECRET}"}
    steps:
      - filter: event.total_price ~= nil
      - map:
          order_id: event.id
          customer: event.customer.id
          total: tonumber(event.total_price)
          status: event.financial_status
    to: {topic: orders}

  alerts:
    from: {topic: orders}
    steps:
      - filter: event.total > 5000
    to: {http: {url: "https://alerts.example/hook", method: POST}}

jobs:                                         # batch: started by a trigger, ended when done
  load:
    trigger: {topic: orders, max_events: 500, max_wait: 5m}
    to: {sqlite: {file: orders.db, table: orders, mode: upsert, key: [order_id]}}

  report:
    trigger: {cron: "0 6 * * *", timezone: Europe/Madrid}
    tasks:
      extract: {run: [python3, extract.py]}
      render:  {run: [python3, render.py], needs: [extract]}
    timeout: 15m
    retry: {attempts: 3, backoff: 10s..5m}
    on_overlap: queue
)";

// What the example leaves out: every other key, short forms, anchors.
inline constexpr const char* everything_yaml = R"(name: every-thing_2
workdir: ${dir}/work
topics:
  empty:
  full: {retain: 1w, max_bytes: 1.5GiB, dedupe: {key: meta.id}}
flows:
  tail:
    run: [sh, -c, 'tail -f "${LOG:-/var/log/x}" | grep ${secret:pattern}']
    environment: {REGION: eu, LEVEL: 5, TOKEN: "Bearer ${env:TOKEN}"}
    to: {topic: empty}
    grace: 1m
  bare: {from: generate, to: drop}
  named:
    from: {topic: {name: full}}
    steps:
      - {name: only_good, filter: event.ok}
      - script: |
          event.x = f(1)
          return event
      - {filter: true}
    to: {topic: empty}
jobs:
  by_rest: &shared
    run: [./job, 1, true, 2018-02-07]
    retry: 2
  copy: *shared
  many:
    trigger:
      - {topic: full, grace_period: 2s}
      - cron: "*/5 * * * * *"
        missed: all
      - every: 90s
      - after: by_rest
      - after: other.load
      - after: {job: copy, outcome: any}
      - after: {job: load, pipeline: third, outcome: failed}
    from: {file: [a.ndjson, b.ndjson]}
    steps: []
    to: {http: {url: "https://x.example/", headers: {A: b}, retry: 5s}}
    timeout: 1h30m
    retry: {attempts: 3}
    on_overlap: replace
    queue_limit: 7
    grace: 0s
  graph:
    tasks:
      last: {run: [z], needs: [left, right], timeout: 5m}
      left: {from: {file: {path: x.csv, format: csv, since: "2018-02-07T01:00:00+01:00"}}, to: {topic: empty}, needs: first}
      right: {steps: [{filter: event.a}], to: drop, needs: first}
      first: {run: [a], to: {topic: empty}}
)";

}  // namespace penstock::testing
