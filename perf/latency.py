"""How long does one task take on an idle system, from its enqueueing to its start and its outcome?

One task at a time, idle in between (exponential pauses, 30 ms on average). A task is *started*
when its handler's first line runs, in a worker process of its own; *visible* when another consumer,
which reads only what is committed, holds its state record. All times are the machine's one
CLOCK_MONOTONIC, counted from before the task is made.

The reference runs in turn with it, in blocks: a bare producer, and a process with a loop by hand of
one transaction a record (consume; begin, produce a state, send the offset, commit). Its start is
the moment that `consume` returns the record: a produce-to-consume ping.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition
from measure import HERE, Figure, add_quick, broker, quantile, report, sides, title
from reference import loop, schema
from uuid_utils import uuid7

from taskmill import App
from taskmill.consumer.worker import Worker
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics, ensure

PARTITIONS = 8
SEED = 20_261_124
#: A task every 30 ms on average: far from any load, and a thousand of them in a minute.
PAUSE_S = 0.03
#: Not counted: connections, the group's first assignment, the first transaction.
WARM_UP = 50
#: The two sides take turns after this many: a drift of the machine meets both.
BLOCK = 100
#: The first task waits for a group to form.
PATIENCE_S = 60.0


class Sample(NamedTuple):
    """Milliseconds from before the task was made to its acknowledgement and its visible state,
    and the monotonic nanoseconds they count from."""

    sent_ns: int
    acknowledged: float
    visible: float


# ---- the processes that take tasks through ------------------------------------------------------


def run_worker(settings: Settings) -> dict[int, int]:
    """A worker until stdin ends; task number -> monotonic nanoseconds at which it started."""
    started: dict[int, int] = {}
    worker = Worker(declare(settings, started))
    worker.start()
    sys.stdin.read()
    worker.stop()
    return started


def declare(settings: Settings, started: dict[int, int]) -> App:
    app = App("perf", settings=settings)

    @app.task
    async def stamp(n: int) -> None:
        started[n] = time.monotonic_ns()

    return app


def run_by_hand(settings: Settings) -> dict[int, int]:
    """The loop by hand until stdin ends; task number -> nanoseconds at which it was consumed."""
    consumed: dict[int, int] = {}

    def note(task: dict[str, Any]) -> None:
        consumed[json.loads(task["payload"])["n"]] = time.monotonic_ns()

    def run() -> None:
        topics, group = Topics(settings.prefix, "default"), settings.prefix
        bootstrap, endless = settings.bootstrap_servers, sys.maxsize
        loop(bootstrap, topics.tasks, topics.state, group, endless, batch=1, note=note)

    threading.Thread(target=run, daemon=True).start()
    sys.stdin.read()
    return dict(consumed)


@contextmanager
def process(side: str, settings: Settings, stamps: dict[int, int]) -> Iterator[None]:
    """Runs `side` in a process of its own; fills `stamps` when it ends."""
    command = [sys.executable, str(HERE / "latency.py"), "--child", side]
    given = [str(settings.bootstrap_servers), settings.prefix, str(settings.state_dir)]
    with subprocess.Popen(
        command + given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield
            out, _ = running.communicate("", timeout=60)
            stamps.update((int(n), at) for n, at in json.loads(out.splitlines()[-1]).items())
        finally:
            running.kill()


# ---- the process that sends and watches ---------------------------------------------------------


class Watch:
    """A read_committed consumer of state topics; notes when each key was first seen."""

    def __init__(self, bootstrap: str, topics: list[str]) -> None:
        self._seen: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self._ending = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "perf-watch",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign([TopicPartition(t, p, 0) for t in topics for p in range(PARTITIONS)])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            message = self._consumer.poll(0.5)
            if message is not None and message.error() is None:
                self._seen.put((message.key().decode(), time.monotonic_ns()))
        self._consumer.close()

    def wait_for(self, key: str) -> int:
        """Monotonic nanoseconds at which the state of `key` was seen."""
        while True:
            try:
                seen, at = self._seen.get(timeout=PATIENCE_S)
            except Empty:
                raise SystemExit(f"no state of task {key} within {PATIENCE_S:g} s") from None
            if seen == key:
                return at

    def close(self) -> None:
        self._ending.set()
        self._thread.join()


def by_taskmill(settings: Settings) -> Callable[[int], str]:
    """Sends task n, returns its ID once it is acknowledged."""
    stamp = declare(settings, {}).tasks["stamp"]
    return lambda n: stamp.enqueue(n=n).id


def by_hand(settings: Settings) -> Callable[[int], str]:
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "socket.nagle.disable": True,
            "partitioner": "murmur2_random",
        }
    )
    topic = Topics(settings.prefix, "default").tasks
    writer, prefix = schema("Task")

    def send(n: int) -> str:
        task_id = str(uuid7())
        task = {
            "id": task_id,
            "name": "stamp",
            "payload": b'{"n":%d}' % n,
            "content_type": "application/json",
            "enqueued_at": time.time_ns() // 1_000_000,
        }
        out = io.BytesIO(prefix)
        out.seek(len(prefix))
        fastavro.schemaless_writer(out, writer, task)
        producer.produce(topic, out.getvalue(), task_id)
        producer.flush(PATIENCE_S)
        return task_id

    return send


def drive(
    send: Callable[[int], str], watch: Watch, numbers: range, random_: random.Random
) -> dict[int, Sample]:
    """Send each of `numbers` once the one before is visible and a pause has gone by."""
    samples = {}
    for n in numbers:
        time.sleep(random_.expovariate(1 / PAUSE_S))
        sent = time.monotonic_ns()
        key = send(n)
        acknowledged = time.monotonic_ns()
        visible = watch.wait_for(key)
        samples[n] = Sample(sent, (acknowledged - sent) / 1e6, (visible - sent) / 1e6)
    return samples


def figures_of(ours: dict[str, list[float]], reference: dict[str, list[float]]) -> list[Figure]:
    """p50 and p99 of each of `acknowledged`, `start`, `visible`, in milliseconds."""
    musts = {
        ("start", 0.5): 3, ("start", 0.99): 25,
        ("visible", 0.5): 12, ("visible", 0.99): 60,
    }  # fmt: skip
    return [
        Figure(
            f"enqueue to {kind}, p{q * 100:.0f}",
            quantile(ours[kind], q), "ms", "lower", musts.get((kind, q)), None,
            quantile(reference[kind], q),
        )
        for kind in ("acknowledged", "start", "visible")
        for q in (0.5, 0.99)
    ]  # fmt: skip


def measured(
    samples: dict[int, Sample], stamps: dict[int, int], counted: range
) -> dict[str, list[float]]:
    """The three times of the `counted` tasks; each of them was started."""
    chosen = [(samples[n], stamps[n]) for n in counted]
    return {
        "acknowledged": [s.acknowledged for s, _ in chosen],
        "start": [(at - s.sent_ns) / 1e6 for s, at in chosen],
        "visible": [s.visible for s, _ in chosen],
    }


def measure_both(bootstrap: str, count: int, folder: Path) -> list[dict[str, list[float]]]:
    """The times of taskmill, then those of the reference."""
    settings = {
        side: Settings(
            bootstrap_servers=bootstrap,
            prefix=f"perf{time.time_ns() % 10**10}{side[0]}",
            partitions=PARTITIONS,
            state_dir=folder,
        )
        for side in ("taskmill", "hand")
    }
    for each in settings.values():
        ensure(each, "default")
    stamps: dict[str, dict[int, int]] = {"taskmill": {}, "hand": {}}
    samples: dict[str, dict[int, Sample]] = {"taskmill": {}, "hand": {}}
    send = {"taskmill": by_taskmill(settings["taskmill"]), "hand": by_hand(settings["hand"])}
    watch = Watch(bootstrap, [Topics(s.prefix, "default").state for s in settings.values()])
    random_ = random.Random(SEED)
    try:
        with (
            process("taskmill", settings["taskmill"], stamps["taskmill"]),
            process("hand", settings["hand"], stamps["hand"]),
        ):
            for side in send:
                samples[side] |= drive(send[side], watch, range(WARM_UP), random_)
            for block, first in enumerate(range(WARM_UP, WARM_UP + count, BLOCK)):
                numbers = range(first, min(first + BLOCK, WARM_UP + count))
                for side in sides(block, "taskmill", "hand"):
                    samples[side] |= drive(send[side], watch, numbers, random_)
                print(f"{numbers.stop - WARM_UP} of {count}", file=sys.stderr)
    finally:
        watch.close()
    counted = range(WARM_UP, WARM_UP + count)
    return [measured(samples[side], stamps[side], counted) for side in send]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, help="default 1500, with --quick 20")
    add_quick(parser)
    parser.add_argument("--child", nargs=4, metavar=("SIDE", "BOOTSTRAP", "PREFIX", "STATE_DIR"))
    options = parser.parse_args()
    if options.child:
        side, bootstrap, prefix, folder = options.child
        settings = Settings(
            bootstrap_servers=bootstrap,
            prefix=prefix,
            partitions=PARTITIONS,
            state_dir=Path(folder),
        )
        print(json.dumps(run_worker(settings) if side == "taskmill" else run_by_hand(settings)))
        return 0
    count = options.count or (20 if options.quick else 1_500)
    with broker() as bootstrap, tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        ours, reference = measure_both(bootstrap, count, Path(folder))
    settings_ = {
        "samples": count, "pause_ms": PAUSE_S * 1000, "partitions": PARTITIONS,
        "seed": SEED, "handler": "async, notes the time",
    }  # fmt: skip
    figures = figures_of(ours, reference)
    kept = not options.quick
    return 0 if report("latency", title(__doc__), figures, settings_, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
