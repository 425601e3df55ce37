"""A failed attempt's way to the next one: through a retry tier's topic, its bytes untouched.

What changes from attempt to attempt is told in headers, which outdo the body (`taskmill-attempt`,
`taskmill-seq`), so that a dead letter and its replay are the bytes that were enqueued. A wait
rounds up to a tier; one beyond the last tier passes it more than once, with what is left of it in a
header.
"""

from __future__ import annotations

from typing import Any

from taskmill.consumer.dlq import (
    ATTEMPT,
    DUE,
    LEFT,
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


def may_go_on(record: Record) -> bool:
    """Whether `record` fits, with our headers, into a retry topic and into `tasks` again; what a
    compressed batch smuggled past the limits does not."""
    source = record.source
    theirs = [one for one in source.headers if one[0] not in REPLACED]
    beside = len(source.key or b"") + header_bytes(theirs)
    return beside <= HEADROOM_BYTES // 4


def retry_record(outcome: Outcome, topic: str, partitions: int, left_ms: int) -> dict[str, Any]:
    """The arguments of `produce` that hand a retrying `outcome` to the tier of `topic`."""
    record = outcome.record
    source, task = record.source, record.task
    assert task is not None, "only a task is tried again"
    assert source.key is not None, "a task has a key"
    ours = failure_headers(outcome)
    ours[ATTEMPT] = str(task.attempt + 1)
    ours[SEQ] = str(record.seq + 1)
    ours[DUE] = str((outcome.finished_at or source.timestamp) + (outcome.retry_ms or 0))
    if left_ms:
        ours[LEFT] = str(left_ms)
    theirs = [(n, v) for n, v in source.headers if n not in (PARTITION_HEADER, LEFT)]
    return {
        "topic": topic,
        "key": source.key,
        "value": source.value,
        "partition": partition_for(source.key, partitions),
        "headers": merged(theirs, ours),
    }
