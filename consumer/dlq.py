"""Dead letters: the original bytes and key, untouched, with headers that say what happened.

Every header is a UTF-8 string, times in UTC milliseconds. Those named `taskmill-original-*` and
`taskmill-first-failure` are written once and kept by whatever handles the letter later.
"""

from __future__ import annotations

from typing import Any

from taskmill.consumer.failure import cut
from taskmill.consumer.record import Headers, Outcome, Source
from taskmill.runtime.partition import partition_for

PREFIX = "taskmill-"
#: These outdo what the body says, so that its bytes stay as they were enqueued.
GENERATION = f"{PREFIX}generation"
ATTEMPT, SEQ = f"{PREFIX}attempt", f"{PREFIX}seq"
#: When the next attempt is due, in UTC milliseconds, for people; before when this record may not
#: start, which outdoes the body's not_before.
DUE, NOT_BEFORE = f"{PREFIX}due", f"{PREFIX}not-before"
#: Of a replayed record, kept by its letter: the replay's name, and when it was (UTC ms); its times
#: to expire and its deadline count from there.
REPLAY, REPLAYED_AT = f"{PREFIX}replay", f"{PREFIX}replayed-at"
#: Of a record on its way to its next attempt, and of no letter.
_ON_THE_WAY = frozenset({ATTEMPT, SEQ, DUE, NOT_BEFORE})

#: With the largest value, both still fit into what the DLQ takes beyond it (1 MiB).
MAX_BESIDE_BYTES = 256 * 1024

#: Headers that each failure writes anew.
REPLACED = _ON_THE_WAY | {
    f"{PREFIX}{name}"
    for name in (
        "last-failure",
        "attempts",
        "reason",
        "error-type",
        "error-message",
        "error-fingerprint",
        "error-stack",
    )
}

#: What of the original a letter does not hold, and how large it is.
OMITTED = tuple(f"{PREFIX}{part}-omitted" for part in ("key", "value", "headers"))

_WRITTEN_ONCE = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "original-topic",
        "original-partition",
        "original-offset",
        "original-timestamp",
        "first-failure",
    )
)


def dead_letter(
    outcome: Outcome, topic: str, partitions: int, max_value_bytes: int
) -> dict[str, Any]:
    """The arguments of `produce` that dead-letter `outcome` (its `failure` is set).

    A value over `max_value_bytes`, which a compressed batch can smuggle past the limit of `tasks`,
    is left where it lies, and so are a key and headers over MAX_BESIDE_BYTES each: the letter says
    so, and how large they are. A letter that the DLQ does not take would make its transaction fail
    for ever.
    """
    source, task = outcome.record.source, outcome.record.task
    ours = failure_headers(outcome)
    value = source.value
    if value is not None and len(value) > max_value_bytes:
        ours[f"{PREFIX}value-omitted"] = f"{len(value)} bytes"
        value = None
    key = source.key
    if key is not None and len(key) > MAX_BESIDE_BYTES:
        ours[f"{PREFIX}key-omitted"] = f"{len(key)} bytes"
        key = None
    headers: Headers = [(n, v) for n, v in source.headers if n not in _ON_THE_WAY]
    size = header_bytes(headers)
    if size > MAX_BESIDE_BYTES:
        ours[f"{PREFIX}headers-omitted"] = f"{size} bytes"
        headers = ()
    if task is not None:
        ours[f"{PREFIX}task"] = cut(task.name, 256)
    return {
        "topic": topic,
        "key": key,
        "value": value,
        "partition": _partition(source, partitions),
        "headers": merged(headers, ours),
    }


def failure_headers(outcome: Outcome) -> dict[str, str]:
    """What the headers of a failed attempt's record say of it."""
    source, failure, task = outcome.record.source, outcome.failure, outcome.record.task
    assert failure is not None, "it failed"
    failed_at = str(outcome.finished_at or source.timestamp)
    return {
        "taskmill-original-topic": source.topic,
        "taskmill-original-partition": str(source.partition),
        "taskmill-original-offset": str(source.offset),
        "taskmill-original-timestamp": str(source.timestamp),
        "taskmill-first-failure": failed_at,
        "taskmill-last-failure": failed_at,
        "taskmill-attempts": str(task.attempt if task else 0),
        "taskmill-reason": failure.reason.value,
        "taskmill-error-type": failure.error.type,
        "taskmill-error-message": failure.error.message,
        "taskmill-error-fingerprint": failure.error.fingerprint,
        "taskmill-error-stack": failure.stack,
    }


def header_bytes(headers: Headers) -> int:
    """What `headers` take in a record, at the most: 8 bytes each for their lengths."""
    return sum(8 + len(name.encode()) + len(content or b"") for name, content in headers)


def _partition(source: Source, partitions: int) -> int:
    """By key, as everywhere; a record without one goes by where it came from."""
    if source.key:
        return partition_for(source.key, partitions)
    return source.partition % partitions


def merged(original: Headers, ours: dict[str, str]) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then ours; what is written once keeps its first value."""
    present = {name for name, _ in original}
    kept = [(n, v) for n, v in original if n not in ours or n in _WRITTEN_ONCE]
    added = [
        (name, value.encode())
        for name, value in ours.items()
        if not (name in _WRITTEN_ONCE and name in present)
    ]
    return kept + added
