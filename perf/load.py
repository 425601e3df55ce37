"""The load: tasks put on a queue, states into its table, and a worker of this process under it."""

from __future__ import annotations

import hashlib
import json
import random
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from measure import memory_mib

from taskmill import App
from taskmill.consumer.worker import Worker
from taskmill.producer.ids import new_id
from taskmill.producer.middleware import Middleware
from taskmill.runtime.clock import Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import Topics, ensure
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import JSON, Task, TaskState
from taskmill.schemas.states import Status

PARTITIONS = 8
SEED = 20_261_123
#: Nothing here takes longer on a machine of its own; then something is stuck.
PATIENCE_S = 600.0


def settings_of(bootstrap: str, prefix: str, folder: str, **more: Any) -> Settings:
    """Settings of a queue of its own; `partitions=8` unless `more` says otherwise."""
    return Settings(
        bootstrap_servers=bootstrap,
        prefix=prefix,
        state_dir=Path(folder),
        **{"partitions": PARTITIONS, **more},
    )


def fresh(letter: str) -> str:
    """A prefix that no topic has yet."""
    return f"perf{time.time_ns() % 10**12}{letter}"


# ---- IDs ----------------------------------------------------------------------------------------


def repeating(count: int) -> Iterator[str]:
    """`count` IDs, a tenth of which repeat one met before."""
    random_ = random.Random(SEED)
    for i in range(count):
        n = random_.randrange(i // 10) * 10 + 1 if i >= 10 and i % 10 == 0 else i
        yield f"task-{n:012d}-{n * 2_654_435_761 % 2**32:08x}"


def scattered(first: int, count: int) -> Iterator[str]:
    """`count` different IDs without any order: each falls on another page of the table."""
    for n in range(first, first + count):
        yield hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest()


def ordered(count: int) -> Iterator[str]:
    """`count` IDs as taskmill makes them where none is given: UUIDv7, in the order of time."""
    return (new_id() for _ in range(count))


def balanced(count: int, partitions: int) -> Iterator[str]:
    """`count` different IDs, equally many for each partition, the partitions in turn."""
    waiting: list[list[str]] = [[] for _ in range(partitions)]
    numbers = iter(range(10**9))
    for i in range(count):
        wanted = waiting[i % partitions]
        while not wanted:
            candidate = f"even-{next(numbers):09d}"
            waiting[partition_for(candidate.encode(), partitions)].append(candidate)
        yield wanted.pop()


# ---- records ------------------------------------------------------------------------------------


class Ready(NamedTuple):
    """A record to be produced as it is."""

    partition: int
    key: str
    value: bytes


def tasks(
    ids: Iterable[str], partitions: int, name: str = "noop", payload: bytes = b'{"n":1}'
) -> list[Ready]:
    """Tasks `name(payload)`, encoded."""
    now = int(time.time() * 1000)
    encode = CODEC.encode_task
    return [
        Ready(
            partition_for(id.encode(), partitions), id, encode(Task(id, name, payload, JSON, now))
        )
        for id in ids
    ]


def header_of(p: int, partitions: int) -> list[tuple[str, str | bytes | None]]:
    """The header with which a producer of ours says where the record lies, and why."""
    return [("taskmill-partition", f"{p}/{partitions}")]


class Sender:
    """A producer of ready records for one topic."""

    def __init__(self, settings: Settings, topic: str, compression: str = "lz4") -> None:
        self._topic = topic
        self._headers = [header_of(p, settings.partitions) for p in range(settings.partitions)]
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "linger.ms": 20,
                "compression.type": compression,
                "message.max.bytes": 4 * 1024 * 1024,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 512 * 1024,
            }
        )

    def send(self, records: Iterable[Ready]) -> None:
        """Hand `records` over; waits while the producer is full."""
        produce, poll = self._producer.produce, self._producer.poll
        for p, key, value in records:
            while True:
                try:
                    produce(self._topic, value, key, p, headers=self._headers[p])
                    break
                except BufferError:
                    poll(0.1)
            poll(0)

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        left = self._producer.flush(60)
        assert not left, f"{left} records were not acknowledged"


def fill(
    settings: Settings,
    ids: Iterable[str],
    name: str = "noop",
    payload: bytes = b'{"n":1}',
    *,
    compression: str = "lz4",
) -> int:
    """Put a task for each of `ids` on the queue, whose topics are made where they are not there;
    the bytes of their keys,
    values and headers."""
    ensure(settings, "default")
    sender = Sender(settings, Topics(settings.prefix, "default").tasks, compression)
    rest, size = iter(ids), 0
    # In parts: a million of them need not lie in memory.
    while part := tasks(islice(rest, 100_000), settings.partitions, name, payload):
        sender.send(part)
        header = len("taskmill-partition") + len(f"0/{settings.partitions}")
        size += sum(len(key) + len(value) + header for _, key, value in part)
    sender.flush()
    return size


def fill_states(settings: Settings, ids: Iterable[str]) -> None:
    """Put a finished state for each of `ids` on the changelog, as if the tasks had run."""
    ensure(settings, "default")
    _commit_nothing(settings)
    topics, encode, rest = Topics(settings.prefix, "default"), CODEC.encode_state, iter(ids)
    sender, now = Sender(settings, topics.state), int(time.time() * 1000)

    def state(id: str, offset: int) -> Ready:
        p = partition_for(id.encode(), settings.partitions)
        done = TaskState(
            id, "noop", "default", Status.SUCCEEDED, 0, 0, 1, "perf.0", now, now, now, None,
            b"null", JSON, None, p, offset, None,
        )  # fmt: skip
        return Ready(p, id, encode(done))

    while part := [state(id, n) for n, id in enumerate(islice(rest, 100_000))]:
        sender.send(part)
    sender.flush()


def _commit_nothing(settings: Settings) -> None:
    """Offset 0 for the worker's group: else it would warn that states lie there and offsets not."""
    topics = Topics(settings.prefix, "default")
    group = Consumer(
        {"bootstrap.servers": settings.bootstrap_servers, "group.id": group_of(settings)}
    )
    starts = [TopicPartition(topics.tasks, p, 0) for p in range(settings.partitions)]
    group.commit(offsets=starts, asynchronous=False)
    group.close()


def group_of(settings: Settings) -> str:
    """The consumer group of the workers of the queue `default`."""
    return f"{settings.prefix}.worker.default"


# ---- a worker -----------------------------------------------------------------------------------


class Counting(Middleware):
    """Counts committed outcomes."""

    def __init__(self) -> None:
        self.done = 0

    def after_commit(self, outcomes: Sequence[Any]) -> None:
        self.done += len(outcomes)


class Crew:
    """A worker in this process, and what it has committed. `held`: it takes nothing at first."""

    def __init__(self, app: App, *, held: bool = False, **options: Any) -> None:
        self.counting = Counting()
        app.use(self.counting)
        self.worker = Worker(app, **options)
        self._started = time.perf_counter()
        self.worker._connect()
        self.engine = self.worker.engines["default"]
        self.engine.poller.draining = held
        self.worker.start()

    def until(self, true: Callable[[], bool], what: str, look_s: float = 0.002) -> None:
        """Wait until `true()`; it is looked at every `look_s` seconds."""
        limit = Deadline(PATIENCE_S)
        while not true():
            assert self.engine.failure is None, self.engine.failure
            if limit.over():
                raise SystemExit(f"not within {PATIENCE_S:g} s: {what}")
            time.sleep(look_s)

    def until_ready(self, partitions: int) -> float:
        """Wait for all tables; seconds since the worker's start."""
        self.until(lambda: len(self.engine.core.tables) == partitions, "tables", 0.0005)
        return time.perf_counter() - self._started

    def hold(self) -> None:
        """Take nothing more from the queue."""
        self.engine.poller.draining = True
        # The poll thread looks at it ten times a second.
        time.sleep(0.5)

    def release(self) -> None:
        """Go on, or begin."""
        self.engine.poller.draining = False

    def take(self, count: int) -> dict[str, float]:
        """Wait until `count` records are through. Seconds (`seconds`) and CPU seconds (`cpu`) from
        the first record on, seconds from the worker's start to that (`start`), and memory."""
        core = self.engine.core
        self.until(lambda: core.protocol.in_flight > 0 or self.counting.done > 0, "record", 0.0005)
        first, cpu = time.perf_counter(), time.process_time()
        self.until(lambda: self.counting.done >= count, f"{count} outcomes")
        seconds, cpu = time.perf_counter() - first, time.process_time() - cpu
        assert self.counting.done == count, f"{self.counting.done} outcomes of {count} records"
        return {
            "seconds": seconds,
            "cpu": cpu,
            "start": first - self._started,
            "duplicates": core.protocol.counts.duplicates,
            **memory_mib(),
        }


@contextmanager
def crew(app: App, **options: Any) -> Iterator[Crew]:
    """A worker for `app`, stopped cleanly at the end."""
    running = Crew(app, **options)
    try:
        yield running
    finally:
        running.worker.stop()


def text_of(size: int, ms: float = 0) -> bytes:
    """The payload of a `swallow` task, `size` bytes in all, which do not compress."""
    frame = json.dumps({"data": "", "ms": ms}, separators=(",", ":"))
    letters = b64encode(random.Random(SEED).randbytes(size)).decode()[: size - len(frame)]
    return frame.replace('""', f'"{letters}"').encode()
