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
    from: {topic: {topic: full}}
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

// All that a job can be told beside its work: triggers, tasks, admission, parameters, bounds.
inline constexpr const char* jobs_yaml = R"(name: jobs
max_active: 8
pools: {db: 2, api: 1}
flows:
  model:
    run: [./serve]
    user: model
    group: "1000"
    workdir: bin
    umask: 027
    nice: 5
    io_priority: best_effort
    limits: {memory: 512MiB, cpus: 0.5, cpu_time: 60s, open_files: 256, processes: 64, file_size: 1GiB}
    ready: {http: "http://127.0.0.1:9000/healthz", interval: 500ms, timeout: 1m}
  port: {run: [x], ready: {tcp: "[::1]:9000"}}
  asked: {run: [x], ready: {run: [./ask, now]}}
  hook: {from: {webhook: {path: /in}}, to: drop}
jobs:
  triggers:
    run: [x, "${run.id}"]
    trigger:
      - {topic: orders, where: event.total > 5, debounce: 10s, max_wait: 1m}
      - at: 2026-12-01T06:00:00+01:00
      - file: inbox/*.csv
      - file: {path: "${dir}/in/[a-c]?.json", settle: 5s, max_files: 10, max_wait: 2s, move_to: done,
               move_failed_to: ../failed}
      - file: {path: /var/spool/x, remove: true}
      - webhook: /deploy
      - webhook: {path: /signed, signature: {header: X-Sig, secret: "${env:HOOK}", prefix: "sha256="}}
  told:
    params:
      region: {type: string, default: eu, choices: [eu, us], doc: Where}
      count: {type: integer, minimum: 1}
      version: {type: string, default: 1.10}
      ratio: {default: 0.5, maximum: 1}
      plain: hello
      flag: true
      tags: [a, b]
      more: {type: object, default: {a: {b: 1}}}
      level: {choices: [1, 2, 3]}
      free-form:
    run: [load, "--region=${params.region}", "${params.count + 1}", "${params['free-form']}", "${dir}/x"]
    environment: {RUN: "${run.id}/${params.plain}", HOME: "${HOME}"}
    on_overlap: {rule: replace, key: params.region}
    max_active: 3
    priority: 9
    pools: {db: 2}
    deadline: 1h
    retry:
      attempts: 4
      exit_codes: [75, 1]
      budget: {retries: 20, within: 1h}
    alerts:
      - {on: [failure, late], late_after: 10m, to: {http: {url: "https://alerts.example/"}}}
      - {on: failure, to: drop}
    history: {runs: 100, for: 30d}
  graph:
    params: {}
    pools: [db, api]
    on_overlap: {key: "event.id .. run.id"}
    retry: {attempts: 2, not_exit_codes: 2}
    alerts: {on: late, late_after: 1m, to: {topic: alarms}}
    tasks:
      list-files: {run: [ls], allow_failure: true}
      copy:
        for_each: tasks["list-files"].output.names
        max_parallel: 2
        needs: list-files
        run: [cp, "${item}", "${item.name}.bak"]
      regions:
        for_each: [eu, {name: us}, 3]
        steps: [{filter: event.x}]
        to: drop
      nothing: {for_each: [], run: [x]}
      report:
        if: tasks.copy.output.n > 0 and tasks["list-files"].state == "succeeded"
        needs: [copy]
        run: [report, "${tasks.copy.output[1].rows}"]
        user: nobody
        nice: 19
        io_priority: idle
        umask: "0007"
  one_pool: {run: [x], pools: db, alerts: [], history: {}}
)";

}  // namespace penstock::testing
