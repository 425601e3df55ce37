"""From a Kafka message to a Record: the key, the place and the bytes are checked, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from operator import methodcaller

from confluent_kafka import Message

from taskmill.consumer.dlq import (
    ATTEMPT,
    GENERATION,
    NOT_BEFORE,
    REPLAYED_AT,
    SEQ,
    header_bytes,
)
from taskmill.consumer.record import Lease, Reason, Record, Source
from taskmill.consumer.retry import may_go_on
from taskmill.consumer.table import position_key
from taskmill.producer.routes import PARTITION_HEADER
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.partition import partition_for
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Task

_HeaderList = list[tuple[str, bytes | None]]

#: Headers whose number holds in place of the body's, and the greatest number that each may hold.
_OUTDO = {
    GENERATION: 2**31 - 1,
    SEQ: 2**31 - 1,
    ATTEMPT: 2**31 - 1,
    REPLAYED_AT: 2**53,
    NOT_BEFORE: 2**53,
}
_NOTHING_TOLD: Mapping[str, int] = {}


class Decoder:
    """Decodes the messages of one topic of `partitions` partitions.

    A fault is not raised but becomes the record's: (reason, message), for its dead letter. Such a
    record is known by its place, not by its ID: garbage keyed K must not block K.
    """

    def __init__(self, codec: Codec, topic: str, partitions: int, max_task_bytes: int) -> None:
        self._decode = codec.decode_task
        self._topic = topic
        self._partitions = partitions
        self._max_task_bytes = max_task_bytes
        # What our own producer writes, and nothing else; equal, it saves hashing the key.
        self._ours: list[_HeaderList] = [
            [(PARTITION_HEADER, f"{p}/{partitions}".encode())] for p in range(partitions)
        ]

    def decode(self, message: Message, lease: Lease) -> Record:
        """The record of `message`, which came under `lease`. Raises Unreachable for a registry."""
        p = lease.partition
        key, value = message.key(), message.value()
        offset: int = message.offset()  # type: ignore[assignment]
        headers = headers_of(message)
        if headers is None:
            source = Source(self._topic, p, offset, message.timestamp()[1], key, value, ())
            return self._faulty(lease, source, "a header's name is not UTF-8")
        source = Source(self._topic, p, offset, message.timestamp()[1], key, value, headers)
        if not key:
            return self._faulty(lease, source, "no key: the key of a task is its ID")
        told = _NOTHING_TOLD
        if headers != self._ours[p]:
            ours, told = self._told(headers, p)
            for name, number in told.items():
                if number == _NO_NUMBER:
                    return self._faulty(lease, source, f"header {name} is no number")
            if not ours and (belongs_to := partition_for(key, self._partitions)) != p:
                size = len(key) + len(value or b"") + header_bytes(headers)
                if size > self._max_task_bytes:
                    # `tasks` took it in a compressed batch, and would not take it again.
                    return self._faulty(lease, source, f"on a wrong partition, with {size} bytes")
                return Record(lease, offset, key, 0, 0, None, source, None, belongs_to)
        try:
            task = self._decode(value)
            if task.id.encode() != key:
                return self._faulty(lease, source, _differs(task, key))
        except DecodeError as error:
            return self._faulty(lease, source, str(error))
        generation, seq = task.generation, task.seq
        if told:
            generation, seq = told.get(GENERATION, generation), told.get(SEQ, seq)
            if ATTEMPT in told:
                task = task._replace(attempt=max(told[ATTEMPT], 1))
            if REPLAYED_AT in told:
                task = _enqueued_again(task, told[REPLAYED_AT])
        fault = self._refused(task, source)
        record = Record(lease, offset, key, generation, seq, task, source, fault)
        if task.not_before is None and NOT_BEFORE not in told:
            return record
        return self._delayed(record, task, told.get(NOT_BEFORE))

    def _told(self, headers: _HeaderList, p: int) -> tuple[bool, Mapping[str, int]]:
        """Whether p/n in a header is this very place, and the numbers that outdo the body's."""
        ours, told = False, _NOTHING_TOLD
        for name, content in headers:
            if name == PARTITION_HEADER:
                ours = (name, content) == self._ours[p][0]
            elif name in _OUTDO:
                told = {**told, name: _number(content, _OUTDO[name])}
        return ours, told

    def _faulty(self, lease: Lease, source: Source, message: str) -> Record:
        key = position_key(source.topic, source.partition, source.offset)
        fault = (Reason.UNDECODABLE, message)
        return Record(lease, source.offset, key, 0, 0, None, source, fault)

    def _delayed(self, record: Record, task: Task, told: int | None) -> Record:
        """`record`, of a task that has a time; `told` by a header, which outdoes the body's."""
        due_at = task.not_before if told is None else told
        if told is not None and task.attempt == 1:
            # That of a retry is not the task's: its limits count from the first.
            record = record._replace(task=task._replace(not_before=told))
        if due_at is None or due_at <= record.source.timestamp:
            return record
        # By the broker's clock: whoever sent it, and whatever their clocks say, it is too early.
        if not may_go_on(record):
            why = "its key and headers are too large to be delayed"
            return record._replace(fault=(Reason.REJECTED, why))
        return record._replace(due_at=due_at)

    def _refused(self, task: Task, source: Source) -> tuple[Reason, str] | None:
        """What a valid task may ask for and this version cannot keep: refused, never ignored."""
        size = len(source.value or b"")
        if size > self._max_task_bytes:
            return Reason.REJECTED, (
                f"{size} bytes; the limit is {self._max_task_bytes} (TASKMILL_MAX_TASK_BYTES)"
            )
        if task.lock_key is not None:
            return Reason.REJECTED, "lock_key: this version has no lanes yet to keep it"
        return None


#: Not `message.headers()`: where a name is not UTF-8, confluent-kafka 2.16 returns a list with a
#: hole and leaves the exception behind, which the interpreter's short cut for such calls does not
#: notice.
_headers = methodcaller("headers")


def headers_of(message: Message) -> _HeaderList | None:
    """The headers of `message`; None where a name is not UTF-8, as other clients may write one.

    To be asked once: the second answer would be the list with the hole.
    """
    try:
        return _headers(message) or []
    except (UnicodeDecodeError, SystemError):
        return None


def _differs(task: Task, key: bytes) -> str:
    shown = key[:64].decode("utf-8", "backslashreplace")
    return f"the key {shown!r} differs from the task's ID {task.id[:64]!r}"


#: In place of a number, where the header holds none.
_NO_NUMBER = -1


def _number(content: bytes | None, most: int) -> int:
    """A number as a header carries it: decimal digits, up to `most`; else _NO_NUMBER."""
    if content is None or not content.isdigit() or len(content) > 16:
        return _NO_NUMBER
    number = int(content)
    return number if number <= most else _NO_NUMBER


def _enqueued_again(task: Task, at: int) -> Task:
    """`task` as if it had been enqueued at that time: so long after it, it expires."""
    later = max(at - task.enqueued_at, 0)
    return task._replace(
        not_before=None,
        enqueued_at=task.enqueued_at + later,
        expires_at=None if task.expires_at is None else task.expires_at + later,
        deadline=None if task.deadline is None else task.deadline + later,
    )
