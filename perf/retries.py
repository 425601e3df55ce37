"""How late are retries, and what do they cost?

A scheduler alone: single records on the tier of one second, and many that are due together on that
of ten. Lateness is from when a record was due (the broker's stamp and the tier's delay) until a
reader of committed records has it from `tasks`. Then a worker and a scheduler, with a tenth of the
tasks failing once, against the same worker with tasks that all succeed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from jobs import make
from load import PARTITIONS, PATIENCE_S, crew, fill, fresh, scattered, settings_of, tasks
from measure import Figure, apart, broker, median, quantile, report, sides, sized, title
from traffic import Told, settle

from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.topics import Topics, ensure, ensure_retry
from taskmill.scheduler import member
from taskmill.scheduler.retries import Retries

#: Tasks are put on the queue in parts of so many, those that fail at the end of each.
PART = 4_000

#: What a worker's record of a failed attempt carries, a stack of some lines among it.
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("taskmill-attempt", "2"),
    ("taskmill-seq", "1"),
    ("taskmill-attempts", "1"),
    ("taskmill-reason", "failed"),
    ("taskmill-error-type", "ValueError"),
    ("taskmill-error-message", "no such order"),
    ("taskmill-error-stack", "x" * 400),
]


def serve(bootstrap: str, prefix: str, tier: str, count: int) -> dict[str, Any]:
    """Pass on `count` records of `tier`: what was received for it."""
    member.Consumer = Told  # type: ignore[misc]
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        retries = Retries(settings, f"{prefix}.perf", SYSTEM_CLOCK)
        topic = Topics(prefix, "default").retry(tier)
        retries.serve([topic])
        thread = threading.Thread(target=retries.run)
        thread.start()
        limit = Deadline(PATIENCE_S)
        while retries.passed[topic] < count and not limit.over():
            time.sleep(0.01)
        settle(time.sleep)
        retries.stop()
        thread.join()
        return {"received": Told.received}


def passed_on(
    bootstrap: str, prefix: str, tier: str, count: int, pause_s: float, skip: int = 0
) -> dict[str, Any]:
    """Put `count` records on `tier`, `pause_s` apart: how late each was (seconds, in order, without
    the first `skip`: a broker that was just started is slow), how many were early, the seconds from
    the first to the last, bytes fetched and put."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        ensure(settings, "default")
        ensure_retry(settings, "default", [tier])
        with ThreadPoolExecutor(2) as pool:
            served = pool.submit(
                apart, serve, bootstrap=bootstrap, prefix=prefix, tier=tier, count=count
            )
            watched = pool.submit(witness, settings, count)
            time.sleep(5)  # it has joined by then, and waits
            due, size = put(settings, tier, count, pause_s)
            seen, received = watched.result(), served.result()["received"]
    late = [at - due[key] for key, at in seen]
    early = sum(one < 0 for one in late)
    return {
        "late": late[skip:],
        "early": early,
        "seconds": max(at for _, at in seen) - min(at for _, at in seen),
        "fetched": received / size,
    }


def put(
    settings: Settings, tier: str, count: int, pause_s: float
) -> tuple[dict[bytes, float], int]:
    """When each is due (Unix seconds, by key); bytes of all keys, values and headers."""
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "compression.type": "none",
        }
    )
    delay_s = parse_duration(tier)
    due: dict[bytes, float] = {}

    def told(error: Any, message: Any) -> None:
        assert error is None, error
        due[message.key()] = message.timestamp()[1] / 1000 + delay_s

    topic, size = Topics(settings.prefix, "default").retry(tier), 0
    beside = sum(len(name) + len(value or "") for name, value in HEADERS)
    for _, key, value in tasks(scattered(0, count), PARTITIONS):
        producer.produce(topic, value, key, headers=HEADERS, on_delivery=told)
        size += len(key) + len(value) + beside
        producer.poll(0)
        if pause_s:
            time.sleep(pause_s)
    assert not producer.flush(60)
    return due, size


def witness(settings: Settings, count: int) -> list[tuple[bytes, float]]:
    """The key of each record on `tasks`, and when a reader had it (Unix seconds)."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "perf-witness",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 5,
        }
    )
    topic = Topics(settings.prefix, "default").tasks
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    seen: list[tuple[bytes, float]] = []
    limit = Deadline(PATIENCE_S)
    while len(seen) < count:
        assert not limit.over(), f"{len(seen)} of {count}"
        messages = consumer.consume(1, 0.05)
        messages += consumer.consume(4_999, 0) if messages else []
        now = time.time()
        seen += [(message.key() or b"", now) for message in messages]
    consumer.close()
    return seen


@contextmanager
def scheduler(settings: Settings) -> Any:
    """`taskmill scheduler`, in a process of its own."""
    environment = {
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "TASKMILL_STATE_DIR": str(settings.state_dir),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "taskmill", "scheduler"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def run(bootstrap: str, prefix: str, count: int, name: str) -> dict[str, Any]:
    """Seconds until `count` tasks `name` have succeeded."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        retried = 0
        for first in range(0, count, PART):
            part = min(PART, count - first)
            failing = part // 10 if name == "tenth" else 0
            fill(settings, scattered(first, part - failing))
            fill(settings, scattered(first + part - failing, failing), "fails_once")
            retried += failing
        with scheduler(settings), crew(make(settings), held=True) as running:
            running.until_ready(PARTITIONS)
            time.sleep(5)  # the scheduler has joined by then
            running.release()
            return running.take(count + retried)


def main() -> int:
    options = sized(
        __doc__, "8 minutes", many=(50_000, 500), single=(450, 30), count=(600_000, 2_000),
        pairs=(5, 1),
    )  # fmt: skip
    with broker() as bootstrap:
        warm = options.single // 3
        single = passed_on(bootstrap, fresh("i"), "1s", options.single, 0.05, warm)
        print(f"single: p99 {quantile(single['late'], 0.99) * 1000:.0f} ms", file=sys.stderr)
        many = passed_on(bootstrap, fresh("m"), "10s", options.many, 0)
        rate = options.many / max(many["seconds"], 0.001)
        print(f"together: {rate:,.0f}/s", file=sys.stderr)
        rates: dict[str, list[float]] = {"tenth": [], "noop": []}
        for pair in range(options.pairs + 1):
            for side in sides(pair, "tenth", "noop"):
                answer = apart(
                    run, bootstrap=bootstrap, prefix=fresh(side[0]), count=options.count, name=side
                )
                rate_of_side = options.count / answer["seconds"]
                if pair:  # the first pair warms the broker up: its compiler is at work
                    rates[side].append(rate_of_side)
                print(f"pair {pair} {side}: {rate_of_side:,.0f}/s", file=sys.stderr)
    shares = [a / b for a, b in zip(rates["tenth"], rates["noop"], strict=True)]
    late = [one * 1000 for one in single["late"]]
    figures = [
        Figure("lateness, single on 1s, p50", quantile(late, 0.5), "ms", "lower"),
        Figure("lateness, single on 1s, p99", quantile(late, 0.99), "ms", "lower", 100),
        Figure("lateness, first of many", min(many["late"]) * 1000, "ms", "lower", 100),
        Figure("passed on, many due together", rate, "records/s", "higher", 10_000),
        Figure("passed on early", single["early"] + many["early"], "records", "lower", 0),
        Figure("bytes fetched, many due together", many["fetched"], "×", "lower", 2.0),
        Figure("share of the rate, a tenth fails once", median(shares), "×", "higher", 0.7),
        Figure(
            "committed, a tenth fails once", median(rates["tenth"]), "tasks/s",
            reference=median(rates["noop"]),
        ),
    ]  # fmt: skip
    settings = {
        "many": options.many, "single": options.single, "tasks": options.count,
        "pairs": options.pairs, "partitions": PARTITIONS, "processes": 1,
    }  # fmt: skip
    kept = not options.quick
    return 0 if report("retries", title(__doc__), figures, settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
