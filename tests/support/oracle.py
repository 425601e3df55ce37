"""An independent witness: reads a queue's topics with a plain Kafka client, checks what must hold.

`Oracle` puts records on `tasks` and reads everything there is; `OffsetWatch` sees that committed
offsets never go back.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from support.wire import partition_of, read_state, task_value
from support.witness import TERMINAL, Seen, Witness


class Put(NamedTuple):
    """A record to be put on `tasks`; partition -1: the one that its key says."""

    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: Mapping[str, bytes] = {}


class Place(NamedTuple):
    """Where a record was put."""

    partition: int
    offset: int


class Oracle:
    """The topics of one queue, as anybody with a Kafka client sees them."""

    def __init__(self, bootstrap: str, prefix: str, queue: str = "default") -> None:
        self.bootstrap = bootstrap
        self.tasks, self.state, self.results, self.dlq = (
            f"{prefix}.{kind}.{queue}" for kind in ("tasks", "state", "results", "dlq")
        )
        self.group = f"{prefix}.worker.{queue}"
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        # It never subscribes, so it is none. An admin client would be killed by a coordinator that
        # is not one yet or any more (librdkafka #5040); this one asks the next.
        self._member = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": self.group,
                "enable.auto.commit": False,
                # Offsets that a transaction may yet move are waited for (KIP-447).
                "isolation.level": "read_committed",
            }
        )
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "message.max.bytes": 10_000_000,
                "compression.type": "lz4",
                "linger.ms": 0,
            }
        )

    # ---- writing ------------------------------------------------------------------------------

    def put_all(self, records: Iterable[Put], topic: str = "") -> list[Place]:
        """Put `records` on `tasks`, or `topic`; where each lies, once all are acknowledged."""
        places: dict[int, Place] = {}

        def told(number: int) -> Callable[..., None]:
            def report(error: KafkaError | None, message: Any) -> None:
                assert error is None, error
                places[number] = Place(message.partition(), message.offset())

            return report

        count = 0
        for key, value, partition, headers in records:
            told_of = list(headers.items())
            where = topic or self.tasks
            self._producer.produce(where, value, key, partition, told(count), headers=told_of)
            count += 1
            self._producer.poll(0)
        assert self._producer.flush(60) == 0, "not all were acknowledged"
        return [places[number] for number in range(count)]

    def put(
        self,
        key: bytes | None,
        value: bytes | None,
        partition: int = -1,
        headers: Mapping[str, bytes] = {},
        topic: str = "",
    ) -> Place:
        """Put one record on `tasks`, or `topic`; returns where it lies, once acknowledged."""
        return self.put_all([Put(key, value, partition, headers)], topic)[0]

    def put_tasks(self, ids: Iterable[str], name: str, args: Any = None) -> list[Place]:
        """Put a task of each ID on `tasks`."""
        return self.put_all(Put(id.encode(), task_value(id, name, args)) for id in ids)

    # ---- reading ------------------------------------------------------------------------------

    def partitions(self, topic: str) -> int:
        return len(self._admin.list_topics(topic, timeout=10).topics[topic].partitions)

    def ends(self, topic: str, isolation: IsolationLevel) -> dict[int, int]:
        """The end of each partition, by partition."""
        where = [TopicPartition(topic, p) for p in range(self.partitions(topic))]
        asked = self._admin.list_offsets(
            {tp: OffsetSpec.latest() for tp in where}, isolation_level=isolation
        )
        return {tp.partition: found.result(10).offset for tp, found in asked.items()}

    def read(self, topic: str) -> list[Seen]:
        """Every committed record of `topic`, a partition after the other.

        Reads up to the end as it is now, so it waits for the transactions that are open now.
        """
        with Witness(self.bootstrap, [topic]) as witness:
            ends = self.ends(topic, IsolationLevel.READ_UNCOMMITTED)
            witness.until(lambda: witness.has_reached(topic, ends), "the end of " + topic)
            return sorted(witness.seen[topic], key=lambda r: (r.partition, r.offset))

    def states(self) -> dict[bytes, list[dict[str, Any]]]:
        """The committed states of each key, in order."""
        found: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
        for record in self.read(self.state):
            assert record.key is not None
            assert record.value is not None
            found[record.key].append(read_state(record.value))
        return found

    def letters(self) -> list[Seen]:
        """The committed dead letters."""
        return self.read(self.dlq)

    def committed(self, timeout_s: float = 20.0) -> dict[int, int]:
        """The group's stable offsets on `tasks`; partitions without one are left out.

        Raises KafkaException, where no coordinator gives them in time too.
        """
        count = self.partitions(self.tasks)
        found = self._member.committed(
            [TopicPartition(self.tasks, p) for p in range(count)], timeout_s
        )
        return {tp.partition: tp.offset for tp in found if tp.offset >= 0}

    def wait_states(self, ids: Iterable[str | bytes], timeout_s: float = 30.0) -> dict[bytes, Any]:
        """Wait until each of `ids` has a terminal state; the newest state of each, by key."""
        wanted = {id.encode() if isinstance(id, str) else id for id in ids}
        with Witness(self.bootstrap, [self.state]) as witness:
            witness.until(
                lambda: wanted <= witness.ended, lambda: _missing(wanted - witness.ended), timeout_s
            )
            return {key: witness.states[key][-1] for key in wanted}

    def wait_state(self, id: str | bytes, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait until `id` has a terminal state, and return it."""
        (state,) = self.wait_states([id], timeout_s).values()
        return state

    def wait_consumed(self, timeout_s: float = 30.0) -> dict[int, int]:
        """Wait until the group has committed past every record of `tasks`."""
        ends = {p: end for p, end in self._last_records().items() if end}
        deadline = time.monotonic() + timeout_s
        while True:
            committed = self.committed()
            if all(committed.get(p, 0) >= end for p, end in ends.items()):
                return committed
            assert time.monotonic() < deadline, f"committed {committed}, records end at {ends}"

    def _last_records(self) -> dict[int, int]:
        """The offset behind the last record of each partition: markers are no records."""
        ends: dict[int, int] = {}
        for record in self.read(self.tasks):
            ends[record.partition] = record.offset + 1
        return ends

    # ---- what must hold -----------------------------------------------------------------------

    def check(self, accepted: Iterable[str]) -> dict[bytes, list[dict[str, Any]]]:
        """The promises, over all topics, once nothing is under way any more; returns the states.

        Each accepted ID has one terminal state a generation; each (ID, generation, seq) one
        committed outcome; dead letters and dead states match one to one; committed offsets have
        passed every record and not the end; each state lies on its key's partition.
        """
        states = self.check_transactions()
        lost = [id for id in accepted if not is_ended(states.get(id.encode(), ()))]
        assert not lost, f"{len(lost)} accepted tasks without an outcome: {lost[:5]}"
        committed = self.committed()
        for p, end in self._last_records().items():
            assert committed.get(p, 0) >= end, (p, committed, end)
        return states

    def check_transactions(self) -> dict[bytes, list[dict[str, Any]]]:
        """What must hold at every moment at which no transaction is open; returns the states.

        A transaction is visible as a whole or not at all: what lies below the committed offset has
        its mark (or its copy on the right partition), what is marked dead has its letter.
        """
        ends = self.ends(self.tasks, IsolationLevel.READ_UNCOMMITTED)
        committed = self.committed()
        states = self.states()
        check_outcomes(states)
        check_letters(
            [s for found in states.values() for s in found if s["status"] == "dead"],
            self.letters(),
        )
        tasks, count = self.read(self.tasks), self.partitions(self.tasks)
        there = {(r.key, r.partition) for r in tasks}
        for record in tasks:
            p = record.partition
            if record.offset < committed.get(p, 0):
                # One without a key belongs where it lies.
                right = partition_of(record.key, count) if record.key else p
                place = b"\xff" + f"{record.topic}/{p}/{record.offset}".encode()
                assert place in states or (
                    (record.key, right) in there
                    if right != p
                    else any(s["status"] != "running" for s in states.get(record.key or b"", ()))
                ), f"committed {committed}, and no trace of {record}"
        assert all(offset <= ends[p] for p, offset in committed.items()), (committed, ends)
        for record in self.read(self.state):
            # Where its owner looks for it.
            assert record.key is not None
            right = (
                int(record.key.rsplit(b"/", 2)[1])
                if record.key[:1] == b"\xff"
                else partition_of(record.key, count)
            )
            assert record.partition == right, record
        return states


def is_ended(states: Iterable[Mapping[str, Any]]) -> bool:
    return any(s["status"] in TERMINAL for s in states)


def check_outcomes(states: Mapping[bytes, Sequence[Mapping[str, Any]]]) -> None:
    """One terminal state a generation, one committed outcome a (generation, seq); what was asked
    for on `control` comes from no record, and may follow what waits."""
    twice = {}
    for key, found in states.items():
        ends = Counter(s["generation"] for s in found if s["status"] in TERMINAL)
        outcomes = Counter(
            (s["generation"], s["seq"])
            for s in found
            if s["status"] != "running" and s["source_offset"] >= 0
        )
        if max(ends.values(), default=0) > 1 or max(outcomes.values(), default=0) > 1:
            twice[key] = found
    assert not twice, f"{len(twice)} of {len(states)} have two outcomes: {list(twice)}\n" + str(
        next(iter(twice.values()))
    )


def check_letters(dead: Iterable[Mapping[str, Any]], letters: Iterable[Seen]) -> None:
    """Each dead state has its letter, each letter its dead state: by the place they came from, or,
    where there was more than one attempt, each at a place of its own, by ID and attempts."""
    of_states: Counter[tuple[Any, int]] = Counter(
        (s["id"].encode(), s["attempt"])
        if s["attempt"] > 1
        else (s["source_partition"], s["source_offset"])
        for s in dead
    )
    of_letters: Counter[tuple[Any, int]] = Counter()
    for letter in letters:
        told = letter.headers
        attempts = int(told["taskmill-attempts"])
        if attempts > 1:
            of_letters[letter.key, attempts] += 1
        else:
            place = told["taskmill-original-partition"], told["taskmill-original-offset"]
            of_letters[int(place[0]), int(place[1])] += 1
    assert of_states == of_letters, (of_states - of_letters, of_letters - of_states)


def _missing(keys: set[bytes]) -> str:
    return f"outcomes of {len(keys)} tasks, such as {sorted(keys)[:5]}"


class OffsetWatch:
    """Asks for the group's stable offsets again and again, in a thread: they never go back."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._ending = threading.Event()
        self.looks = 0
        self.regressions: list[tuple[int, int, int]] = []
        self._last: dict[int, int] = {}
        self._thread = threading.Thread(target=self._main, daemon=True)

    def _main(self) -> None:
        while not self._ending.wait(0.05):
            try:
                committed = self._oracle.committed()
            except KafkaException:
                continue  # the group's coordinator is busy with a transaction
            for p, offset in committed.items():
                if offset < self._last.get(p, 0):
                    self.regressions.append((p, self._last[p], offset))
                self._last[p] = offset
            self.looks += 1

    def __enter__(self) -> OffsetWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
