"""From a Kafka message to what it says: into a Batch, by its topic's kind."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any, NamedTuple

from confluent_kafka import Message

from taskmill.console.projection.batch import Batch, LetterFact, ReplayFact
from taskmill.console.projection.fold import QUEUED, RANKS, Given, Large, State
from taskmill.console.store.texts import stored
from taskmill.consumer.decode import Decoder, headers_of
from taskmill.consumer.letters import Letter
from taskmill.consumer.record import Lease
from taskmill.consumer.replayed import Place as LetterPlace
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import DecodeError, TaskmillError
from taskmill.runtime.topics import Kind
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import MAX_ID_BYTES, MAX_NAME_BYTES

logger = logging.getLogger("taskmill.console")

#: Kinds of topics that are read.
PROJECTED = (Kind.TASKS, Kind.STATE, Kind.RESULTS, Kind.DLQ, Kind.REPLAYED)
#: Arguments larger than this are not kept: their size is.
MAX_PAYLOAD_BYTES = 64 * 1024
#: What of a letter's own words is kept.
_WORDS = 4096
#: How often a topic's unreadable records are told of.
_TOLD_EVERY_S = 60.0


class TopicOf(NamedTuple):
    """A topic that is read. `topic_id` is its UUID; `dlq_id` of REPLAYED is told in its records."""

    name: str
    kind: Kind
    queue: str
    topic_id: str
    partitions: int


class Reading:
    """Decodes messages of all topics. A record that cannot be read is counted and logged, once a
    minute a topic; the rest goes on. Raises Unreachable where a registry has to be asked."""

    def __init__(self, codec: Codec, max_task_bytes: int, clock: Clock) -> None:
        self._codec = codec
        self._max_task_bytes = max_task_bytes
        self._clock = clock
        #: Records that could not be read, by topic.
        self.unreadable: Counter[str] = Counter()
        self._told: dict[str, float] = {}
        self._decoders: dict[str, Decoder] = {}
        self._leases: dict[tuple[str, int], Lease] = {}
        self._kinds = {
            Kind.TASKS: self._task,
            Kind.STATE: self._state,
            Kind.RESULTS: self._result,
            Kind.DLQ: self._letter,
            Kind.REPLAYED: self._replayed,
        }

    def know(self, topic: TopicOf) -> None:
        """Before messages of it are read, and when its partitions change."""
        if topic.kind is Kind.TASKS:
            self._decoders[topic.name] = Decoder(
                self._codec, topic.name, topic.partitions, self._max_task_bytes
            )
            for p in range(topic.partitions):
                self._leases[topic.name, p] = Lease(p, 0, topic.queue)

    def add(self, batch: Batch, topic: TopicOf, message: Message) -> None:
        """What `message` says."""
        try:
            self._kinds[topic.kind](batch, topic, message)
        except DecodeError as error:
            self._count(topic.name, message, str(error))
        except TaskmillError:
            raise
        except Exception as error:
            # A bug of ours; the record is there for ever, and lies in the way of all others.
            self._count(topic.name, message, repr(error))

    def _count(self, topic: str, message: Message, why: str) -> None:
        self.unreadable[topic] += 1
        now = self._clock.monotonic()
        last = self._told.get(topic)
        if last is None or now - last >= _TOLD_EVERY_S:
            self._told[topic] = now
            logger.warning(
                "%s [%s] offset %s cannot be read and is passed over, %s of this topic so far: %s",
                topic, message.partition(), message.offset(), self.unreadable[topic], why,
            )  # fmt: skip

    def _task(self, batch: Batch, topic: TopicOf, message: Message) -> None:
        p: int = message.partition()  # type: ignore[assignment]
        record = self._decoders[topic.name].decode(message, self._leases[topic.name, p])
        task = record.task
        if task is None:
            if record.belongs_to is None and record.fault is not None:
                # Its state and its letter tell of it.
                self._count(topic.name, message, record.fault[1])
            return
        at, offset = record.source.timestamp, record.offset
        payload = task.payload
        queued = State(
            record.generation, record.seq, 0, task.attempt, QUEUED, stored(task.name), None,
            task.enqueued_at, None, None, record.due_at, None, None, None, None, None, None, None,
            p, offset, at, offset,
        )  # fmt: skip
        given = Given(
            record.generation, record.seq, at, offset,
            payload if len(payload) <= MAX_PAYLOAD_BYTES else None,
            stored(task.content_type), len(payload),
            None if task.lock_key is None else stored(task.lock_key),
            None if task.parent_id is None else stored(task.parent_id),
        )  # fmt: skip
        batch.add_task((topic.queue, stored(task.id)), queued, given)

    def _state(self, batch: Batch, topic: TopicOf, message: Message) -> None:
        value = message.value()
        if value is None:  # a deletion: the store's own sweep sees to that
            return
        (
            id_, name, _, status, generation, seq, attempt, worker, enqueued_at, started_at,
            finished_at, next_attempt_at, result, content_type, error, source_partition,
            source_offset, large, _, _, result_expires_at,
        ) = self._codec.decode_state(value)  # fmt: skip
        _check(id_, name)
        error_type = error_message = fingerprint = None
        if error is not None:
            error_type, error_message, fingerprint = map(stored, error)
        state = State(
            generation, seq, RANKS[status], attempt, status.value, stored(name), stored(worker),
            enqueued_at, started_at, finished_at, next_attempt_at, error_type, error_message,
            fingerprint, result, content_type, large, result_expires_at, source_partition,
            source_offset, message.timestamp()[1], message.offset(),  # type: ignore[arg-type]
        )  # fmt: skip
        batch.add_state((topic.queue, stored(id_)), state)

    def _result(self, batch: Batch, topic: TopicOf, message: Message) -> None:
        value = message.value()
        if value is None:
            return
        told = self._codec.decode_result(value)
        _check(told.id, "")
        error_type = error_message = fingerprint = None
        if told.error is not None:
            error_type, error_message, fingerprint = map(stored, told.error)
        large = Large(
            told.generation, told.seq, message.timestamp()[1], message.offset(),  # type: ignore[arg-type]
            told.result, told.content_type, error_type, error_message, fingerprint,
            None if told.stack is None else stored(told.stack),
        )  # fmt: skip
        batch.add_large((topic.queue, stored(told.id)), large)

    def _letter(self, batch: Batch, topic: TopicOf, message: Message) -> None:
        place = LetterPlace(message.partition() or 0, message.offset() or 0)
        headers = headers_of(message) or ()
        letter = Letter(place, message.timestamp()[1], message.key(), None, headers)
        told = letter.told
        fact = LetterFact(
            None if letter.id is None else stored(letter.id[:_WORDS]),
            None if letter.task is None else stored(letter.task[:MAX_NAME_BYTES]),
            stored(letter.reason[:64]),
            stored(told.get("error-type", "?")[:256]),
            stored(told.get("error-message", "")[:_WORDS]),
            stored(letter.fingerprint[:64]),
            letter.at,
            _count_in(told.get("attempts")),
            _count_in(told.get("generation")),
        )
        batch.letters[topic.queue, topic.topic_id, *place] = fact

    def _replayed(self, batch: Batch, topic: TopicOf, message: Message) -> None:
        try:
            told: dict[str, Any] = json.loads(message.value() or b"")
            fact = ReplayFact(_long(told["at"]), stored(str(told["replay"])[:256]))
            dlq_id = str(told["dlq_id"])[:64]
            places = [(_long(p), _long(offset)) for p, offset in told["letters"]]
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise DecodeError(f"it tells of no replay ({error!r})") from None
        for p, offset in places:
            batch.add_replay((topic.queue, stored(dlq_id), p, offset), fact)


def _check(task_id: str, name: str) -> None:
    """Ours are within these, in bytes even; an index takes no more than 2.7 KB."""
    if not 1 <= len(task_id) <= MAX_ID_BYTES or len(name) > MAX_NAME_BYTES:
        raise DecodeError(
            f"its ID has {len(task_id)} characters and its name {len(name)}, which is too long"
        )


def _long(value: Any) -> int:
    """A number that a column holds. Raises ValueError, TypeError, OverflowError."""
    number = int(value)
    if not 0 <= number < 2**63:
        raise ValueError(f"{number:.3e} is none of ours")
    return number


def _count_in(text: str | None) -> int:
    """A count in a header of ours, 0 where it is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0
