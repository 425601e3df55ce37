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

#: What has 13 digits: until the year 2286.
MAX_MS = 10**13 - 1
_DIGITS = 13


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
        head, slash, rest = key[:_DIGITS], key[_DIGITS : _DIGITS + 1], key[_DIGITS + 1 :]
        id, generation, seq = rest.rsplit(b"/", 2)
        if slash != b"/" or not head.isdigit() or not id:
            raise ValueError(f"no key of a delayed task: {key[:60]!r}")
        return cls(int(head), id, int(generation), int(seq))


def due_key(at_ms: int) -> bytes:
    """What the keys of all that is due at `at_ms` begin with."""
    return b"%013d" % at_ms


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
