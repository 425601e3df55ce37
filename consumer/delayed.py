"""A task's way to an exact time: through the delayed topic, its bytes untouched.

Its key there is `DUE/ID/GENERATION/SEQ`, DUE in 13 digits of UTC milliseconds: unique to this
hand-over, so that a late twin overwrites nothing, and in the order in which they are due. Headers
say what the next record is (`taskmill-seq`, `taskmill-not-before`; of a retry also what its tier's
record would say); they outdo the body. Whoever passes it on deletes the key in that transaction.

A worker takes a task whose time has not come, by the broker's clock, for one to hand over, whoever
sent it: a scheduler that comes too early gets it back, and a wait longer than the table remembers
its ID is made in steps, each of which writes the mark anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from taskmill.consumer.dlq import NOT_BEFORE, SEQ, merged
from taskmill.consumer.record import Outcome
from taskmill.consumer.retry import NOT_OF_THE_NEXT, next_attempt, next_attempt_at
from taskmill.runtime.partition import partition_for

#: Before the key of a Move: behind all digits, so that what is due comes first.
MOVE = b">"
#: What has 13 digits: until the year 2286.
DIGITS = 13
MAX_MS = 10**DIGITS - 1


class DelayedKey(NamedTuple):
    """A key of the delayed topic, taken apart. `due_at` is in UTC milliseconds."""

    due_at: int
    #: The task's own key: its ID.
    id: bytes
    generation: int
    seq: int

    def pack(self) -> bytes:
        """The key as it lies on the topic."""
        return due_key(self.due_at) + b"/%s/%d/%d" % self[1:]

    @classmethod
    def unpack(cls, key: bytes) -> DelayedKey:
        """Raises ValueError for what is no such key."""
        head, slash, rest = key[:DIGITS], key[DIGITS : DIGITS + 1], key[DIGITS + 1 :]
        id, generation, seq = rest.rsplit(b"/", 2)
        if slash != b"/" or not head.isdigit() or not id:
            raise ValueError(f"no key of a delayed task: {key[:60]!r}")
        return cls(int(head), id, int(generation), int(seq))


def due_key(at_ms: int) -> bytes:
    """What the keys of all that is due at `at_ms` begin with."""
    return b"%013d" % at_ms


class Move(NamedTuple):
    """What is asked of a task that waits: to be due at `due_at` instead of `was_due_at`, as far as
    the sender knew (UTC ms). Its key on the delayed topic is `>ID/GENERATION/SEQ`, and so the same
    for each of one wait: the last one holds."""

    id: bytes
    generation: int
    seq: int
    was_due_at: int
    due_at: int

    @property
    def suffix(self) -> bytes:
        """What the key of the task that is meant ends with, behind its time."""
        return b"/%s/%d/%d" % self[:3]

    def pack(self) -> tuple[bytes, bytes]:
        """Key and value."""
        return MOVE + self.suffix[1:], b"%d %d" % self[3:]

    @classmethod
    def unpack(cls, key: bytes, value: bytes) -> Move:
        """Raises ValueError for what is none."""
        id, generation, seq = key.removeprefix(MOVE).rsplit(b"/", 2)
        was_due_at, due_at = value.split(b" ")
        if not key.startswith(MOVE) or not id:
            raise ValueError(f"no key of a move: {key[:60]!r}")
        return cls(id, int(generation), int(seq), int(was_due_at), int(due_at))


def move_record(mark: Outcome, topic: str, partitions: int) -> dict[str, Any]:
    """The arguments of `produce` that move the task of `mark`, which has its new time."""
    record, task = mark.record, mark.record.task
    assert task is not None, "a mark has one"
    assert mark.due_at is not None, "or it moves nothing"
    was = task.not_before or 0
    id, due_at = record.mark_key, max(0, min(mark.due_at, MAX_MS))
    key, value = Move(id, record.generation, record.seq + 1, was, due_at).pack()
    return {"topic": topic, "key": key, "value": value, "partition": partition_for(id, partitions)}


def delayed_record(
    outcome: Outcome, topic: str, partitions: int, longest_ms: int
) -> dict[str, Any]:
    """The arguments of `produce` that hand an `outcome` that goes on to the delayed topic, for
    `longest_ms` at the most: then a worker hands it over anew."""
    record = outcome.record
    source, due_at = record.source, next_attempt_at(outcome)
    assert source.key is not None, "a task has a key"
    is_retry = outcome.retry_ms is not None
    ours = next_attempt(outcome) if is_retry else {SEQ: str(record.seq + 1)}
    ours[NOT_BEFORE] = str(due_at)
    began = outcome.finished_at or source.timestamp
    step = min(due_at, began + longest_ms, MAX_MS)
    theirs = [(n, v) for n, v in source.headers if n not in NOT_OF_THE_NEXT]
    return {
        "topic": topic,
        "key": DelayedKey(step, source.key, record.generation, record.seq + 1).pack(),
        "value": source.value,
        "partition": partition_for(source.key, partitions),
        "headers": merged(theirs, ours),
    }
