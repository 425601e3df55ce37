"""The load under faults: tasks of every sort, from seeded dice, on their way to the broker.

`Load` makes the records; `Flow` puts them on the tasks topic, some all the time, and writes down
what was asked for and what the broker acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from faults.app import MAX_ATTEMPTS
from faults.history import Acked, Asked, History, Identity, Place
from support.wire import partition_of, task_value

#: An undecodable value: the right beginning, and nothing sensible behind it.
GARBAGE = b"\xc3\x01garbage"
#: A duplicate is one of so many newest IDs: done, running, or waiting right before it.
RECENT = 500
#: What waits does so for less.
LATEST_MS = 3_000
#: A record's share of a second's load is put this often.
STEP_S = 0.02


class Put(NamedTuple):
    """A record for the tasks topic; partition -1: the one that its key says."""

    asked: Asked
    value: bytes
    partition: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()


class Load:
    """Tasks of every sort: see `one`, and the App."""

    def __init__(self, partitions: int, flaky: float = 0.0, delayed: float = 0.0) -> None:
        """`flaky`: the share of tasks that fail some times, up to two more than they may;
        `delayed`: of the others that wait for a time, up to LATEST_MS ahead."""
        self._partitions = partitions
        self._flaky = flaky
        self._delayed = delayed
        #: When each of those may start (UTC ms).
        self.due: dict[bytes, int] = {}
        #: How often each of those is to be attempted in all.
        self.attempts: dict[bytes, int] = {}
        self._random = Random(0)
        self._stem = ""
        self._made = 0
        self._ids: list[str] = []
        self._replays: dict[str, int] = {}

    def begin(self, stem: str, seed: int) -> None:
        """From here on IDs start with `stem`, and the dice with `seed`."""
        self._stem, self._made, self._random = stem, 0, Random(seed)

    def next_ids(self, count: int) -> list[bytes]:
        """The IDs of the next so many tasks that are neither duplicates nor replays."""
        return [f"{self._stem}-{n}".encode() for n in range(self._made, self._made + count)]

    def one(self) -> Put:
        """The next record."""
        random = self._random
        if self._flaky and random.random() < self._flaky:
            return self._fails(random.randrange(MAX_ATTEMPTS + 2))
        sort = random.random()
        if sort < 0.03:
            key = f"{self._stem}-garbage-{random.randrange(10**9)}".encode()
            return Put(Asked(Identity(key), is_garbage=True), GARBAGE)
        if sort < 0.13 and self._ids:
            id = random.choice(self._ids[-RECENT:])
            if sort < 0.05:
                return self._replay(id)
            return Put(Asked(Identity(id.encode())), task_value(id, "nap", {"ms": 1}))
        id = f"{self._stem}-{self._made}"
        self._made += 1
        if sort >= 0.92:
            # No duplicates of it: they would be naps, which may begin twice.
            asked = Asked(Identity(id.encode()), at_most_once=True)
            return Put(asked, self._later(id, "once", random.uniform(0, 100)))
        self._ids.append(id)
        asked = Asked(Identity(id.encode()))
        if sort < 0.18:
            return Put(asked, task_value(id, "fails", {"message": id}))
        if sort < 0.22:
            return Put(asked, task_value(id, "large", {"size": random.randrange(1000, 20_000)}))
        if sort < 0.30:
            name, ms = "nap_in_thread", random.uniform(0, 20)
        else:
            # A few for so long that a fault finds them running, whenever it comes.
            name, ms = "nap", random.uniform(0, 60) if sort < 0.90 else random.uniform(500, 1500)
        if 0.30 <= sort < 0.33:
            # Without a time: a duplicate of it, which has none, may come before it is re-routed.
            right = partition_of(id.encode(), self._partitions)
            value = task_value(id, name, {"ms": ms})
            return Put(asked, value, (right + 1) % self._partitions)
        return Put(asked, self._later(id, name, ms))

    def _later(self, id: str, name: str, ms: float) -> bytes:
        """A task that takes so long; perhaps it waits before."""
        if not self._delayed or self._random.random() >= self._delayed:
            return task_value(id, name, {"ms": ms})
        due = time.time_ns() // 1_000_000 + self._random.randrange(LATEST_MS)
        self.due[id.encode()] = due
        return task_value(id, name, {"ms": ms}, not_before=due)

    def _fails(self, times: int) -> Put:
        id = f"{self._stem}-{self._made}"
        self._made += 1
        self.attempts[id.encode()] = min(times + 1, MAX_ATTEMPTS)
        value = task_value(id, "flaky", {"fails": times, "ms": self._random.uniform(0, 60)})
        return Put(Asked(Identity(id.encode())), value)

    def _replay(self, id: str) -> Put:
        """The same ID in its next generation: it runs once more."""
        generation = self._replays[id] = self._replays.get(id, 0) + 1
        return Put(
            Asked(Identity(id.encode(), generation)),
            task_value(id, "nap", {"ms": 1}),
            headers=(("taskmill-generation", str(generation).encode()),),
        )


class Flow:
    """A thread that puts `rate` records a second on `topic` until it rests."""

    def __init__(self, bootstrap: str, topic: str, load: Load, history: History) -> None:
        self._topic, self._load, self._history = topic, load, history
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 500,
            }
        )
        self._lock = threading.Lock()
        self._rate = 0.0
        self._ending = threading.Event()
        self.refused: list[str] = []
        self._thread = threading.Thread(target=self._main, daemon=True, name="flow")
        self._thread.start()

    def put(self, count: int) -> None:
        """Put `count` records at once; they are acknowledged later."""
        with self._lock:
            for _ in range(count):
                self._put(self._load.one())
        self._producer.poll(0)

    def put_one(self, put: Put) -> None:
        """Put a record of the test's own among the others."""
        with self._lock:
            self._put(put)
        self._producer.poll(0)

    def _put(self, put: Put) -> None:
        self._history.asked.append(put.asked)
        self._producer.produce(
            self._topic,
            put.value,
            put.asked.identity.key,
            put.partition,
            self._told(put.asked),
            headers=list(put.headers),
        )

    def _told(self, asked: Asked) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.refused.append(error.str())  # nobody knows what became of it
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            # Sent twice, since the first answer was lost, it is acknowledged without its offset.
            place = None if offset is None else Place(partition, offset)
            if place is None and asked.is_garbage:
                return  # whose identity is its place
            self._history.ack(Acked(time.monotonic(), asked, place))

        return report

    def run(self, rate: float) -> None:
        """From now on `rate` records a second."""
        self._rate = rate

    def rest(self, timeout_s: float = 30.0) -> None:
        """Put nothing any more, and wait until all that was put is acknowledged."""
        self._rate = 0.0
        with self._lock:
            left = self._producer.flush(timeout_s)
        assert left == 0, f"{left} records were not acknowledged within {timeout_s:g} s"

    def _main(self) -> None:
        due = 0.0
        while not self._ending.wait(STEP_S):
            due = due + self._rate * STEP_S if self._rate else 0.0
            if due >= 1:
                self.put(int(due))
                due -= int(due)
            self._producer.poll(0)

    def close(self) -> None:
        self._ending.set()
        self._thread.join(30)
        self._producer.purge()
