"""What does each step of a task's way through the worker cost?

The worker's own parts, driven by one thread, one step after the other, over real records from a
real broker, in batches of the worker's size: each step's CPU time is that of this thread alone.
What librdkafka's threads burn meanwhile is a row of its own. The hand-over to the event loop is
measured apart, as what the executor takes beyond the steps that it calls. Then the whole worker,
as `throughput.py` runs it: what it takes beyond the sum is the threads' waiting for each other.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message
from load import PARTITIONS, fill, fresh, repeating, settings_of
from measure import Figure, apart, broker, report, sized, title
from throughput import taskmill_side

from taskmill import App
from taskmill.consumer.attempt import Attempts, Prepared, definitions_by_name
from taskmill.consumer.commit import Answer, Committer, Partitions
from taskmill.consumer.core import Core
from taskmill.consumer.decode import Decoder
from taskmill.consumer.executors.loop import LoopExecutor
from taskmill.consumer.failure_log import FailureLog
from taskmill.consumer.observe import TaskMetrics
from taskmill.consumer.poll import BATCH
from taskmill.consumer.protocol import Protocol
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.consumer.state import StateEncoder
from taskmill.consumer.table import Table
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import client_config
from taskmill.runtime.meter import Meter
from taskmill.runtime.store_open import open_store
from taskmill.runtime.topics import Topics, partition_count
from taskmill.schemas.codec import CODEC

#: Steps in order, as the worker takes them.
STEPS = (
    "consume", "decode", "look up", "decide", "dispatch", "prepare", "run", "result",
    "collect", "begin", "encode state", "produce and commit", "put marks", "metrics",
    "librdkafka's threads",
)  # fmt: skip
#: Parts of the steps, not to be added to them.
PARTS = (
    ("decode", "of which codec"),
    ("prepare", "of which arguments"),
    ("result", "of which JSON"),
)
#: Records kept for what is measured apart.
KEPT = 20_000
MAX_AGE_MS = 3_600_000


class Steps:
    """CPU seconds of this thread, by step."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.thread_time()
        yield
        self.seconds[name] += time.thread_time() - started


class Line:
    """The worker's parts for one queue, and one thread to drive them."""

    def __init__(self, settings: Settings) -> None:
        app = App("perf", settings=settings)

        @app.task
        async def noop(n: int) -> None:
            return None

        self.definition = app.tasks["noop"]
        self.steps = Steps()
        self.kept: list[Record] = []
        hooks = app.hooks.then(FailureLog(), TaskMetrics(Meter(), {"noop"}))
        self.after_commit = hooks.after_commit
        self.attempts = Attempts(
            definitions_by_name(app.tasks), SYSTEM_CLOCK, hooks, settings.max_task_bytes
        )
        topics = Topics(settings.prefix, "default")
        self.core = Core(Protocol(queue="default"), SYSTEM_CLOCK, settings.dedup_window_ms)
        self.decoder = Decoder(CODEC, topics.tasks, PARTITIONS, settings.max_task_bytes)
        self.encoder = StateEncoder(CODEC, "default", "perf.0", topics.results)
        letters = partition_count(settings, topics.dlq)
        assert letters, "fill() has made the topics"
        self.committer = Committer(
            settings,
            topics,
            Partitions(PARTITIONS, letters),
            f"{settings.prefix}.cost",
            StateEncoder(CODEC, "default", "perf.0", topics.results),
        )
        self.committer.open(lambda: False)
        self.consumer = self._join(settings, topics.tasks)
        self._restore(settings.state_dir)

    def _join(self, settings: Settings, topic: str) -> Consumer:
        config = client_config(
            settings,
            "cost",
            group_id=f"{settings.prefix}.cost",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            # As the worker's.
            queued_min_messages=1000,
            queued_max_messages_kbytes=16 * 1024,
            fetch_message_max_bytes=256 * 1024,
        )
        consumer = Consumer(config)
        joined = threading.Event()

        def assigned(consumer: Consumer, partitions: list[Any]) -> None:
            # Paused: nothing is fetched before the clocks run.
            consumer.assign(partitions)
            consumer.pause(partitions)
            joined.set()

        consumer.subscribe([topic], on_assign=assigned)
        while not joined.is_set():
            assert not consumer.consume(1, 0.1), "nothing is fetched yet"
        return consumer

    def _restore(self, folder: Path) -> None:
        """Take all partitions, with tables that are empty as their topic is."""
        core = self.core
        metadata = self.consumer.consumer_group_metadata()
        for lease in core.protocol.assigned(range(PARTITIONS), metadata).restore:
            p = lease.partition
            store, _ = open_store(folder / str(p), "perf", p, 0, MAX_AGE_MS, SYSTEM_CLOCK)
            core.tables[p] = Table(store)
            core.protocol.restored(lease, 0, {})
            core.protocol.fetching(lease)

    def run(self, count: int) -> None:
        """Take `count` records from the topic to their commit."""
        self.consumer.resume(self.consumer.assignment())
        process, thread = time.process_time(), time.thread_time()
        done = 0
        while done < count:
            with self.steps.step("consume"):
                batches = self._consume()
            for p, messages in batches.items():
                self._take(p, messages)
                done += len(messages)
            self._commit()
        background = (time.process_time() - process) - (time.thread_time() - thread)
        self.steps.seconds["librdkafka's threads"] = background
        self.consumer.close()
        self.committer.close()

    def _consume(self) -> dict[int, list[Message]]:
        messages = self.consumer.consume(1, 1.0)
        messages += self.consumer.consume(BATCH - 1, 0)
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            assert message.error() is None, message.error()
            by_partition.setdefault(message.partition(), []).append(message)
        return by_partition

    def _take(self, p: int, messages: list[Message]) -> None:
        step, protocol, attempts = self.steps.step, self.core.protocol, self.attempts
        lease = protocol.lease(p)
        assert lease is not None, "all partitions are held"
        with step("decode"):
            records = [self.decoder.decode(message, lease) for message in messages]
        with step("look up"):
            entries = self.core.tables[p].lookup([r.mark_key for r in records])
        with step("decide"):
            run = protocol.deliver(p, records, entries)
        with step("prepare"):
            prepared = [attempts.prepare(record) for record in run]
        with step("run"):
            values = [run_now(attempt) for attempt in prepared]
        with step("result"):
            outcomes = [*map(attempts.succeed, prepared, values)]
        with step("collect"):
            protocol.complete(outcomes)
        self.kept += run[: KEPT - len(self.kept)]

    def _commit(self) -> None:
        step = self.steps.step
        with step("begin"):
            transaction = self.core.protocol.begin()
        if transaction is None:
            return
        marked = [o for batch in transaction.outcomes.values() for o in batch if o.status]
        before = self.steps.seconds["encode state"]
        with step("encode state"):
            for outcome in marked:
                self.encoder.state(outcome)
        with step("produce and commit"):
            # Here, not on the committer's own thread: its time is what is asked.
            producer = self.committer._producer
            assert producer is not None, "it was opened"
            answer, reached = self.committer._transact(producer, transaction, {})
        # It encodes too; what that takes has just been measured.
        self.steps.seconds["produce and commit"] -= self.steps.seconds["encode state"] - before
        assert answer is Answer.COMMITTED, answer
        with step("put marks"):
            self.core.commit_marks(transaction, reached)
        with step("metrics"):
            outcomes = [o for batch in transaction.outcomes.values() for o in batch]
            for hook in self.after_commit:
                hook(outcomes)


def run_now(attempt: Prepared | Outcome) -> Any:
    """The value of a handler that never suspends."""
    assert isinstance(attempt, Prepared), attempt
    try:
        attempt.definition.fn(**attempt.arguments).send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the handler suspended")


def dispatch_us(attempts: Attempts, records: Sequence[Record]) -> float:
    """What the event loop takes for a task beyond preparing, running and naming the result."""
    done, left = threading.Event(), len(records)

    def sink(outcomes: list[Outcome]) -> None:
        nonlocal left
        left -= len(outcomes)
        if not left:
            done.set()

    executor = LoopExecutor(attempts, 100, sink, SYSTEM_CLOCK)
    executor.start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), executor.loop).result()
    # The steps that it calls, here and now: right before, under the same clock.
    inline = cpu_us(lambda r: attempts.succeed(a := attempts.prepare(r), run_now(a)), records)
    started = time.process_time()
    for first in range(0, len(records), BATCH):
        executor.submit(records[first : first + BATCH])
    done.wait()
    whole = (time.process_time() - started) / len(records) * 1e6
    executor.stop()
    return max(0.0, whole - inline)


def cpu_us(step: Callable[[Any], object], values: Sequence[Any]) -> float:
    """CPU microseconds of `step` for one of `values`."""
    started = time.thread_time()
    for value in values:
        step(value)
    return (time.thread_time() - started) / len(values) * 1e6


def measure_steps(settings: Settings, count: int) -> dict[str, float]:
    """Microseconds a task: of each step, and of parts."""
    fill(settings, repeating(count))
    line = Line(settings)
    line.run(count)
    costs = {name: seconds / count * 1e6 for name, seconds in line.steps.seconds.items()}
    kept = [Record(Lease(0, 1, "default"), *record[1:]) for record in line.kept]
    costs["dispatch"] = dispatch_us(line.attempts, kept)
    costs["of which codec"] = cpu_us(CODEC.decode_task, [r.source.value for r in kept])
    payloads = [r.task.payload for r in kept if r.task is not None]
    costs["of which arguments"] = cpu_us(line.definition.load, payloads)
    costs["of which JSON"] = cpu_us(line.definition.dump_result, [None] * len(kept))
    return costs


def figures_of(costs: dict[str, float], whole: float) -> list[Figure]:
    """A row a step, with its parts below it, then the sum and the whole worker."""
    parts = dict(PARTS)
    rows: list[Figure] = []
    for name in STEPS:
        rows.append(Figure(name, costs[name], "µs/task", "lower"))
        if name in parts:
            rows.append(Figure(f"{name}, {parts[name]}", costs[parts[name]], "µs/task", "lower"))
    steps = sum(costs[name] for name in STEPS)
    rows.append(Figure("all steps", steps, "µs/task", "lower"))
    rows.append(Figure("the whole worker", whole, "µs/task", "lower"))
    return rows


def steps_apart(bootstrap: str, prefix: str, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        return measure_steps(settings_of(bootstrap, prefix, folder), count)


def main() -> int:
    options = sized(__doc__, "half a minute", count=(100_000, 5_000))
    count = options.count
    with broker() as bootstrap:
        whole = apart(taskmill_side, bootstrap=bootstrap, prefix=fresh("w"), count=count)
        costs = apart(steps_apart, bootstrap=bootstrap, prefix=fresh("c"), count=count)
    settings = {"tasks": count, "duplicates": "10 %", "partitions": PARTITIONS,
                "batch": BATCH, "handler": "async, no-op"}  # fmt: skip
    figures = figures_of(costs, whole["cpu"] / count * 1e6)
    kept = not options.quick
    return 0 if report("cost", title(__doc__), figures, settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
