"""How late are delayed tasks, and what does it cost to hold a million of them?

A scheduler alone. Records lie on the delayed topic as a worker leaves them there. Lateness is from
when a task was due until a reader of committed records has it from `tasks`. A restore is from the
assignment until the last partition's copy is complete, with an empty disk, and with the copy that
the scheduler before it left.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from load import PARTITIONS, PATIENCE_S, fresh, scattered, settings_of, tasks
from measure import Figure, apart, broker, quantile, report, sized, title
from retries import witness

from taskmill.consumer.delayed import DelayedKey
from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Kind, Topics, ensure
from taskmill.scheduler.delayed import Delayed

#: What a worker writes beside a task that it hands over.
SEQ = ("taskmill-seq", b"1")
HOUR_MS = 3_600_000


def serve(bootstrap: str, prefix: str, count: int, waiting: int) -> dict[str, Any]:
    """Pass on `count` delayed tasks while `waiting` more are held: seconds of both restores, and
    memory (MiB) after the second."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        before = memory()
        first, _ = restored(settings, Path(folder) / "copies", 0)
        again, held = restored(settings, Path(folder) / "copies", count)
        shutil.rmtree(Path(folder) / "copies", ignore_errors=True)
    return {"first": first, "again": again, "own": held["own"] - before["own"], **held}


def restored(settings: Settings, copies: Path, count: int) -> tuple[float, dict[str, float]]:
    """Serve until `count` were passed on; seconds that the restore took, and memory then."""
    delayed = Delayed(settings, f"{settings.prefix}.perf", copies, SYSTEM_CLOCK)
    topic = Topics(settings.prefix, "default").delayed
    delayed.serve([topic])
    thread = threading.Thread(target=delayed.run)
    thread.start()
    limit = Deadline(PATIENCE_S)
    while len(delayed.restores) < PARTITIONS and not limit.over():
        time.sleep(0.005)
    while delayed.passed[topic] < count and not limit.over():
        time.sleep(0.005)
    held = memory()
    delayed.stop()
    thread.join()
    # All begin at once, and are read side by side.
    return max(delayed.restores), held


def memory() -> dict[str, float]:
    """Of this process, in MiB: what it takes, and what of that is its own, no file's."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "RssAnon"):
            found[{"VmRSS": "all", "RssAnon": "own"}[name]] = int(rest.split()[0]) / 1024
    return found


def put(settings: Settings, ids: Any, due: Any) -> dict[bytes, float]:
    """Put a task of each ID on the delayed topic, due at `due(n)` (UTC ms); when, in seconds."""
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "compression.type": "lz4",
        }
    )
    topic = Topics(settings.prefix, "default").delayed
    at: dict[bytes, float] = {}
    for number, (p, id, value) in enumerate(tasks(ids, PARTITIONS)):
        key = id.encode()
        due_ms = due(number)
        headers: Any = [SEQ, ("taskmill-not-before", b"%d" % due_ms)]
        delayed_key = DelayedKey(due_ms, key, 0, 1).pack()
        at[key] = due_ms / 1000
        while True:
            try:
                producer.produce(topic, value, delayed_key, p, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert not producer.flush(60)
    return at


def passed_on(
    bootstrap: str, prefix: str, waiting: int, count: int, apart_ms: float, ahead_ms: int
) -> dict[str, Any]:
    """`waiting` tasks wait for an hour, `count` more are due `apart_ms` apart, the first one
    `ahead_ms` from now."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        ensure(settings, "default")
        ensure(settings, "default", [Kind.DELAYED])
        far = time.time_ns() // 1_000_000 + HOUR_MS
        put(settings, scattered(0, waiting), lambda n: far + n)
        with ThreadPoolExecutor(2) as pool:
            served = pool.submit(
                apart, serve, bootstrap=bootstrap, prefix=prefix, count=count, waiting=waiting
            )
            watched = pool.submit(witness, settings, count)
            start = time.time_ns() // 1_000_000 + ahead_ms
            ids = scattered(waiting, count)
            due = put(settings, ids, lambda n: start + int(n * apart_ms))
            seen, told = watched.result(), served.result()
    late = [at - due[key] for key, at in seen]
    seconds = max(at for _, at in seen) - min(at for _, at in seen)
    return {"late": late, "seconds": seconds, **told}


def main() -> int:
    options = sized(
        __doc__, "4 minutes", waiting=(1_000_000, 20_000), many=(20_000, 500), single=(600, 20),
        ahead=(60, 12),
    )  # fmt: skip
    with broker() as bootstrap:
        ahead_ms = options.ahead * 1000
        single = passed_on(bootstrap, fresh("i"), 0, options.single, 100, 12_000)
        late = [one * 1000 for one in single["late"][options.single // 6 :]]
        print(f"single: p99 {quantile(late, 0.99):.0f} ms", file=sys.stderr)
        many = passed_on(bootstrap, fresh("m"), options.waiting, options.many, 0, ahead_ms)
        rate = options.many / max(many["seconds"], 0.001)
        print(f"together: {rate:,.0f}/s", file=sys.stderr)
    early = sum(one < 0 for one in single["late"] + many["late"])
    figures = [
        Figure("lateness, one each 100 ms, p50", quantile(late, 0.5), "ms", "lower", 15),
        Figure("lateness, one each 100 ms, p99", quantile(late, 0.99), "ms", "lower", 100),
        Figure("lateness, first of many", min(many["late"]) * 1000, "ms", "lower", 100),
        Figure("passed on, many due together", rate, "tasks/s", "higher", 10_000),
        Figure("passed on early", early, "tasks", "lower", 0),
        Figure("restore of those that wait, empty disk", many["first"], "s", "lower", 15),
        Figure("restore of those that wait, own copy", many["again"], "s", "lower"),
        Figure("memory of its own with those that wait", many["own"], "MiB", "lower"),
        Figure("memory, pages of the copies too", many["all"], "MiB", "lower"),
    ]  # fmt: skip
    settings = {
        "waiting": options.waiting, "many": options.many, "single": options.single,
        "partitions": PARTITIONS, "processes": 1,
    }  # fmt: skip
    kept = not options.quick
    return 0 if report("delayed", title(__doc__), figures, settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
