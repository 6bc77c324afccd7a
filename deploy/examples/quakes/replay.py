#!/usr/bin/env python3
"""Posts a week of earthquakes to the webhook, as a careful sender would: signed, several connections at once, again
when it was not told that an event is safe, and every tenth event twice.

usage: replay.py [--url URL] [--connections N] [--file FILE]      (secret: environment variable QUAKES_SECRET)

Standard library only. Exit code 0: every event was answered with a 2xx.
"""
import argparse
import hashlib
import hmac
import http.client
import os
import pathlib
import queue
import sys
import threading
import time
import urllib.parse

ATTEMPTS = 8  # of one event, before it is given up
TWICE = 10    # every tenth event is sent twice


class Sender(threading.Thread):
    """One connection, kept alive, that sends what it finds in the queue."""

    def __init__(self, url, secret, work, progress):
        super().__init__(daemon=True)
        self.url = urllib.parse.urlsplit(url)
        self.secret = secret.encode()
        self.work = work
        self.progress = progress
        self.connection = None

    def run(self):
        while True:
            body = self.work.get()
            if body is None:
                return
            self.progress.sent(self.send(body))

    def send(self, body):
        """Returns an empty text, or why the event could not be delivered."""
        signature = hmac.new(self.secret, body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Quakes-Signature": signature}
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self.progress.repeated()
                threading.Event().wait(0.05 * 2**attempt)
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=30)
                self.connection.request("POST", "/hooks/quakes", body, headers)
                answer = self.connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as failure:
                self.connection = None
                reason = str(failure) or type(failure).__name__
                continue
            if 200 <= answer.status < 300:
                return ""
            reason = f"{answer.status} {text.decode(errors='replace')[:200]}"
            if answer.status < 500 and answer.status != 429:
                return reason  # sending the same again would not help
        return reason


class Progress:
    """Counts what was sent; shows a bar on a terminal, and one line at the end everywhere."""

    WIDTH = 40

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.retries = 0
        self.failures = []
        self.lock = threading.Lock()
        self.started = time.monotonic()
        self.bar = sys.stdout.isatty()

    def sent(self, failure):
        with self.lock:
            self.done += 1
            if failure:
                self.failures.append(failure)
            if self.bar and (self.done % 10 == 0 or self.done == self.total):
                filled = self.WIDTH * self.done // self.total
                sys.stdout.write(f"\r  [{'█' * filled}{'·' * (self.WIDTH - filled)}] {self.done}/{self.total} ")
                sys.stdout.flush()

    def repeated(self):
        with self.lock:
            self.retries += 1

    def finish(self):
        seconds = time.monotonic() - self.started
        if self.bar:
            sys.stdout.write("\r\033[K")
        again = f", {self.retries} sent again" if self.retries else ""
        print(f"  {self.done} posts in {seconds:.1f} s ({self.done / seconds:.0f}/s{again})", flush=True)
        for failure in self.failures[:5]:
            print(f"  failed: {failure}", file=sys.stderr)


def main():
    options = argparse.ArgumentParser(description="Replays the earthquakes to the webhook of the quakes example.")
    options.add_argument("--url", default=os.environ.get("PENSTOCK_URL", "http://127.0.0.1:8420"))
    options.add_argument("--connections", type=int, default=8)
    options.add_argument("--file", type=pathlib.Path, default=pathlib.Path(__file__).with_name("earthquakes.ndjson"))
    chosen = options.parse_args()
    secret = os.environ.get("QUAKES_SECRET")
    if not secret:
        sys.exit("replay.py: set QUAKES_SECRET to the secret that the daemon was started with")

    posts = []
    for number, line in enumerate(chosen.file.read_bytes().splitlines(), start=1):
        posts += [line] * (2 if number % TWICE == 0 else 1)
    work = queue.Queue()
    progress = Progress(len(posts))
    senders = [Sender(chosen.url, secret, work, progress) for _ in range(chosen.connections)]
    for post in posts:
        work.put(post)
    for sender in senders:
        work.put(None)
        sender.start()
    for sender in senders:
        sender.join()
    progress.finish()
    sys.exit(1 if progress.failures else 0)


if __name__ == "__main__":
    main()
