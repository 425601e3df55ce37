"""A failed attempt's way to the next one: through a retry tier's topic, its bytes untouched.

What changes from attempt to attempt is told in headers, which outdo the body (`taskmill-attempt`,
`taskmill-seq`), so that a dead letter and its replay are the bytes that were enqueued. A wait
rounds up to a tier; one beyond the last tier, and one with an exact end, is consumer/delayed.py's.
"""

from __future__ import annotations

from typing import Any

from taskmill.consumer.dlq import (
    ATTEMPT,
    DUE,
    NOT_BEFORE,
    REPLACED,
    SEQ,
    failure_headers,
    header_bytes,
    merged,
)
from taskmill.consumer.record import Outcome, Record
from taskmill.producer.routes import PARTITION_HEADER
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topic_table import HEADROOM_BYTES

#: Headers of a record that say nothing of its next one.
NOT_OF_THE_NEXT = (PARTITION_HEADER, NOT_BEFORE, DUE)


def may_go_on(record: Record) -> bool:
    """Whether `record` fits, with our headers, into a retry topic and into `tasks` again; what a
    compressed batch smuggled past the limits does not."""
    source = record.source
    theirs = [one for one in source.headers if one[0] not in REPLACED]
    beside = len(source.key or b"") + header_bytes(theirs)
    return beside <= HEADROOM_BYTES // 4


def retry_record(outcome: Outcome, topic: str, partitions: int) -> dict[str, Any]:
    """The arguments of `produce` that hand a retrying `outcome` to the tier of `topic`."""
    record = outcome.record
    source = record.source
    assert source.key is not None, "a task has a key"
    ours = next_attempt(outcome) | {DUE: str(next_attempt_at(outcome))}
    theirs = [(n, v) for n, v in source.headers if n not in NOT_OF_THE_NEXT]
    return {
        "topic": topic,
        "key": source.key,
        "value": source.value,
        "partition": partition_for(source.key, partitions),
        "headers": merged(theirs, ours),
    }


def next_attempt(outcome: Outcome) -> dict[str, str]:
    """What the headers of a retrying `outcome`'s record say, wherever it waits."""
    record, task = outcome.record, outcome.record.task
    assert task is not None, "only a task is tried again"
    return failure_headers(outcome) | {
        ATTEMPT: str(task.attempt + 1),
        SEQ: str(record.seq + 1),
    }


def next_attempt_at(outcome: Outcome) -> int:
    """When an `outcome` that goes on is due, in UTC milliseconds."""
    if outcome.due_at is not None:
        return outcome.due_at
    return (outcome.finished_at or outcome.record.source.timestamp) + (outcome.retry_ms or 0)
