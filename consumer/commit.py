"""One short transaction: state marks, dead letters, re-routed records, and the offsets.

Owned by one thread. A producer whose commit has an unknown outcome is destroyed: librdkafka has
no second part of KIP-890, so its epoch may still belong to that transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from taskmill.consumer.children import Children, record_of
from taskmill.consumer.delayed import delayed_record, move_record
from taskmill.consumer.dlq import dead_letter
from taskmill.consumer.hand import Hand, NoAnswer
from taskmill.consumer.protocol import Transaction
from taskmill.consumer.record import Outcome
from taskmill.consumer.retry import retry_record
from taskmill.consumer.state import StateEncoder
from taskmill.consumer.tiers import Tiers
from taskmill.consumer.transactions import transactional_producer
from taskmill.producer.routes import PARTITION_HEADER, Route
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.topic_table import max_task_record_bytes
from taskmill.runtime.topics import Topics

logger = logging.getLogger("taskmill.worker")

#: The broker aborts what is open longer; readers of `state` wait that long at the most.
TRANSACTION_TIMEOUT_MS = 10_000
#: A transaction may take this long before it is given up: less than the broker's own limit, far
#: more than one of 16 MiB needs.
CALL_TIMEOUT_S = 8.0
#: The same for its abort: a producer that cannot is destroyed, which ends it too.
ABORT_TIMEOUT_S = 3.0
#: A whole transaction, its abort included, has given its answer by then, or hangs for ever. While
#: one hangs its partitions stand still: with 20 s here, 3 of 10 kills of a coordinator took 20 to
#: 30 s to recover from.
PATIENCE_S = 12.0


#: What a committed offset says of its partition's owner, in its metadata: that it was at work, so
#: that no end in order is an end without a word; or that it has let go.
AT_WORK, RELEASED = "at work", ""


class Answer(Enum):
    """What became of a transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


class Partitions:
    """How many partitions the topics have that a transaction writes to, told at start."""

    __slots__ = ("dlq", "tasks")

    def __init__(self, tasks: int, dlq: int) -> None:
        self.tasks = tasks
        self.dlq = dlq


class Committer:
    """Runs transactions under one transactional.id. One owner thread, and its hand."""

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        partitions: Partitions,
        transactional_id: str,
        encoder: StateEncoder,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._partitions = partitions
        self._transactional_id = transactional_id
        self._encoder = encoder
        self._clock = clock
        self._producer: Producer | None = None
        self._hand: Hand[tuple[Answer, dict[int, int]]] | None = None
        self._tiers = self._new_tiers()
        self.children = self._new_children()
        # An unfinished task's mark is written anew with each hand-over, and so not forgotten.
        self._longest_wait_ms = settings.dedup_window_ms // 2
        #: What the DLQ takes beside our headers, whatever the batch compresses to.
        self._max_letter = max_task_record_bytes(settings)
        self.failures = 0

    def _new_tiers(self) -> Tiers:
        return Tiers(self._settings, self._topics, self._clock)

    def _new_children(self) -> Children:
        return Children(self._settings, self._tiers, self._clock)

    def open(self, stopped: Callable[[], bool]) -> bool:
        """Make a producer and fence its predecessor. Blocks, retrying, until done or `stopped`.

        After it, a transaction of the predecessor is committed or aborted: nothing is open.
        """
        pause = 0.1
        while self._producer is None:
            producer = self._new_producer()
            try:
                # Bounded, so that `stopped` is asked now and then.
                producer.init_transactions(5.0)
            except KafkaException as error:
                level = logging.DEBUG if error.args[0].retriable() else logging.WARNING
                logger.log(level, "init_transactions: %s", error.args[0].str())
                if stopped():
                    return False
                self._clock.sleep(pause)
                pause = min(2 * pause, 2.0)
                continue
            self._producer = producer
        return True

    def _new_producer(self) -> Producer:
        return transactional_producer(
            self._settings,
            f"committer-{self._transactional_id}",
            self._transactional_id,
            TRANSACTION_TIMEOUT_MS,
            self._clock,
        )

    @property
    def is_open(self) -> bool:
        return self._producer is not None

    def run(self, transaction: Transaction) -> tuple[Answer, dict[int, int]]:
        """Commit `transaction`. Returns what became of it, and where it committed the next
        changelog offset of each state partition that it marked (a checkpoint for the store)."""
        producer = self._producer
        assert producer is not None, "open() comes first"
        routes = self.children.routes_of(transaction)
        if routes is None:
            self.failures += 1
            return Answer.ABORTED, {}
        if self._hand is None:
            self._hand = Hand(f"taskmill-transactions-{self._transactional_id}")
        try:
            answer = self._hand.call(
                lambda: self._transact(producer, transaction, routes), PATIENCE_S
            )
            if answer[0] is Answer.ABORTED:
                # Perhaps since a child's queue has fewer partitions than it had.
                self.children.forget(routes)
            return answer
        except NoAnswer:
            # It may yet commit, until a successor's init_transactions fences it: unknown.
            self.failures += 1
            logger.error("a transaction gave no answer in %g s: its producer is left", PATIENCE_S)
            self._producer = self._hand = None
            return Answer.UNKNOWN, {}

    def _transact(
        self, producer: Producer, transaction: Transaction, routes: dict[str, Route]
    ) -> tuple[Answer, dict[int, int]]:
        reached: dict[int, int] = {}
        deadline = Deadline(CALL_TIMEOUT_S, self._clock)
        try:
            producer.begin_transaction()
            self._write(producer, transaction, routes, reached)
            tasks = self._topics.tasks
            released = transaction.released
            producer.send_offsets_to_transaction(
                [
                    TopicPartition(tasks, p, offset, RELEASED if p in released else AT_WORK)
                    for p, offset in transaction.offsets.items()
                ]
                + [
                    TopicPartition(self._topics.control, p, told.offset)
                    for p, told in transaction.orders.items()
                    if told.offset is not None
                ],
                transaction.fence.metadata,
                deadline.left() or 0.001,
            )
        except (KafkaException, BufferError) as error:
            return self._give_up(producer, _text(error))
        if not all(lease.held for lease in transaction.leases.values()):
            # Kafka takes offsets of any partition while the member's epoch stands, and under
            # KIP-848 it stands as long as more is to be revoked: the snapshot alone does not fence.
            # Asked after the offsets were sent: a lease that is held now was not given up then, so
            # the next owner's stable offsets wait for this transaction.
            return self._give_up(producer, "a partition of it was lost meanwhile")
        try:
            producer.commit_transaction(deadline.left() or 0.001)
        except KafkaException as error:
            self.failures += 1
            kafka_error = error.args[0]
            if kafka_error.txn_requires_abort():
                logger.warning("transaction aborted: %s", kafka_error.str())
                self._abort(producer)
                return Answer.ABORTED, {}
            logger.warning("commit with unknown outcome: %s", kafka_error.str())
            self._drop(producer)
            return Answer.UNKNOWN, {}
        return Answer.COMMITTED, reached

    def _give_up(self, producer: Producer, why: str) -> tuple[Answer, dict[int, int]]:
        self.failures += 1
        logger.warning("transaction given up before its commit: %s", why)
        self._abort(producer)
        return Answer.ABORTED, {}

    def _write(
        self,
        producer: Producer,
        txn: Transaction,
        routes: dict[str, Route],
        reached: dict[int, int],
    ) -> None:
        self._encoder.take_large()  # left over from a transaction that was given up
        # Handed over last, in one go: while single records lie in librdkafka's queues and others
        # are being encoded, its thread spins (30 wake-ups a record, a tenth of all CPU).
        beside: list[dict[str, Any]] = []
        for p, outcomes in txn.outcomes.items():
            told = txn.orders.get(p)
            marks = told.marks if told is not None else ()
            messages: list[dict[str, Any]] = [
                {"key": mark.record.mark_key, "value": self._encoder.state(mark)} for mark in marks
            ]
            messages += [
                {"key": note.record.mark_key, "value": self._encoder.running(note)}
                for note in txn.notes.get(p, ())
            ]
            beside += [self._moved(moved) for moved in marks if moved.goes_on]
            for outcome in outcomes:
                if outcome.status is not None:
                    mark = {"key": outcome.record.mark_key, "value": self._encoder.state(outcome)}
                    messages.append(mark)
                if outcome.goes_on:
                    beside.append(self._waiting(outcome))
                elif outcome.failure is not None:
                    beside.append(self._dead(outcome))
                elif outcome.status is None and outcome.record.belongs_to is not None:
                    beside.append(self._rerouted(outcome))
                beside += [record_of(child, routes[child.queue]) for child in outcome.children]
            results = self._topics.results
            beside += [
                {"topic": results, "partition": p, "key": key} for key, _ in txn.expired.get(p, ())
            ]
            if messages:
                # One report a partition, not one a record: the last one's offset tells all.
                messages[-1]["callback"] = _Reached(p, reached)
                self._produce_states(producer, p, messages)
            beside += [{"topic": results, **large} for large in self._encoder.take_large()]
        for message in beside:
            self._produce(producer, message)

    def _produce_states(self, producer: Producer, p: int, messages: list[dict[str, Any]]) -> None:
        # A batch a partition: one that a message of a batch names is not heeded (librdkafka 2.16
        # goes by the key), and a mark by position would land where nobody restores it from.
        queued = producer.produce_batch(self._topics.state, messages, partition=p)
        if queued != len(messages):
            failed = next(m["_error"] for m in messages if "_error" in m)
            raise KafkaException(failed)

    def _produce(self, producer: Producer, arguments: dict[str, Any]) -> None:
        while True:
            try:
                producer.produce(**arguments)
            except BufferError:
                producer.poll(0.1)
            else:
                return

    def _waiting(self, outcome: Outcome) -> dict[str, Any]:
        """The record of `outcome`, where it waits for its time."""
        topic, partitions = self._tiers.topic(outcome), self._tiers.partitions(outcome)
        if self._tiers.is_delayed(outcome):
            return delayed_record(outcome, topic, partitions, self._longest_wait_ms)
        return retry_record(outcome, topic, partitions)

    def _dead(self, outcome: Outcome) -> dict[str, Any]:
        return dead_letter(outcome, self._topics.dlq, self._partitions.dlq, self._max_letter)

    def _moved(self, mark: Outcome) -> dict[str, Any]:
        """The word to whoever passes on the task that `mark` gives another time."""
        topic, partitions = self._tiers.topic(mark), self._tiers.partitions(mark)
        return move_record(mark, topic, partitions)

    def _rerouted(self, outcome: Outcome) -> dict[str, Any]:
        """The same record, on the partition its key belongs to (murmur2)."""
        source, p = outcome.record.source, outcome.record.belongs_to
        header = f"{p}/{self._partitions.tasks}".encode()
        return {
            "topic": source.topic,
            "partition": p,
            "key": source.key,
            "value": source.value,
            "headers": [(n, v) for n, v in source.headers if n != PARTITION_HEADER]
            + [(PARTITION_HEADER, header)],
        }

    def _abort(self, producer: Producer) -> None:
        """Abort; a producer that cannot is destroyed, and its transaction times out or is fenced
        by its successor's init_transactions. It did not commit either way."""
        try:
            producer.abort_transaction(ABORT_TIMEOUT_S)
        except KafkaException as error:
            logger.warning("abort failed, the producer is replaced: %s", _text(error))
            self._drop(producer)

    def _drop(self, producer: Producer) -> None:
        """Drop `producer` without waiting for what it still holds."""
        if self._producer is producer:  # a call that was left behind may come back late
            self._producer = None
        producer.purge(in_queue=True, in_flight=True, blocking=False)

    def close(self) -> None:
        """Drop the producer; what it has not committed is not."""
        if self._producer is not None:
            self._drop(self._producer)
        if self._hand is not None:
            self._hand.end()
            self._hand = None


class _Reached:
    """A delivery report that notes the changelog offset after its record."""

    __slots__ = ("_into", "_p")

    def __init__(self, p: int, into: dict[int, int]) -> None:
        self._p = p
        self._into = into

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is None and offset is not None and offset >= 0:
            self._into[self._p] = offset + 1


def _text(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.str() if isinstance(first, KafkaError) else str(first)
