"""Rows of the store as documents."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json

from taskmill.console.api.models import (
    Attempt,
    Task,
    TaskDetail,
    TaskError,
    TaskResult,
    error_of,
    maybe,
    moment,
)
from taskmill.console.api.operations import Letter, LetterReplayed
from taskmill.console.store.rows import AttemptRow, LetterRow, TaskRow
from taskmill.schemas.models import JSON


def task(row: TaskRow) -> Task:
    """A task of a list."""
    return Task(**_fields(row))


def detail(row: TaskRow, attempts: Iterable[AttemptRow], as_of: int) -> TaskDetail:
    """A task whole."""
    args, args_base64 = content(row.payload, row.payload_type)
    result, result_base64 = content(row.result, row.content_type)
    return TaskDetail(
        **_fields(row),
        args=args,
        args_base64=args_base64,
        result=result,
        result_base64=result_base64,
        content_type=row.content_type,
        stack=row.stack,
        attempts=[_attempt(one) for one in attempts],
        as_of=moment(as_of),
    )


def result(row: TaskRow, as_of: int) -> TaskResult:
    """How it ended, or that it has not."""
    value, in_base64 = content(row.result, row.content_type)
    return TaskResult(
        id=row.id,
        queue=row.queue,
        name=row.name,
        status=row.status,
        generation=row.generation,
        finished_at=maybe(row.finished_at),
        result=value,
        result_base64=in_base64,
        content_type=row.content_type,
        error=error_of(row.error_type, row.error_message, row.fingerprint),
        as_of=moment(as_of),
    )


def content(value: bytes | None, content_type: str | None) -> tuple[Any, str | None]:
    """Bytes as the JSON that they are, or else in base64."""
    if value is None:
        return None, None
    if content_type == JSON:
        try:
            document = from_json(value, allow_inf_nan=False)
            # 1e999 is no number; and what lies so deep, inside an answer clients cannot read.
            text = json.dumps([[document]], allow_nan=False, ensure_ascii=False)
            from_json(text.encode())
            return document, None
        except (ValueError, RecursionError):
            pass
    return None, base64.b64encode(value).decode("ascii")


def letter(row: LetterRow) -> Letter:
    """A letter of a list."""
    return Letter(**letter_fields(row))


def letter_fields(row: LetterRow) -> dict[str, Any]:
    """What the store says of a letter."""
    replayed = None
    if row.replayed_at is not None:
        replayed = LetterReplayed(replay=row.replay, at=maybe(row.replayed_at), generation=None)
    error = TaskError(type=row.error_type, message=row.error_message, fingerprint=row.fingerprint)
    return {
        "queue": row.queue,
        "partition": row.partition,
        "offset": row.offset,
        "id": row.id,
        "name": row.name,
        "reason": row.reason,
        "error": error,
        "attempts": row.attempts,
        "died_at": moment(row.died_at),
        "replayed": replayed,
    }


def _fields(row: TaskRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "queue": row.queue,
        "name": row.name,
        "status": row.status,
        "generation": row.generation,
        "seq": row.seq,
        "attempt": row.attempt,
        "worker": row.worker,
        "enqueued_at": maybe(row.enqueued_at),
        "started_at": maybe(row.started_at),
        "finished_at": maybe(row.finished_at),
        "next_attempt_at": maybe(row.next_attempt_at),
        "error": error_of(row.error_type, row.error_message, row.fingerprint),
        "parent_id": row.parent_id,
        "lock_key": row.lock_key,
        "source_partition": row.partition,
        "source_offset": row.offset,
        "large": row.large,
        "result_expires_at": maybe(row.result_expires_at),
        "updated_at": moment(row.updated_at),
    }


def _attempt(row: AttemptRow) -> Attempt:
    return Attempt(
        generation=row.generation,
        seq=row.seq,
        attempt=row.attempt,
        status=row.status,
        worker=row.worker,
        started_at=maybe(row.started_at),
        finished_at=maybe(row.finished_at),
        next_attempt_at=maybe(row.next_attempt_at),
        error=error_of(row.error_type, row.error_message, row.fingerprint),
    )
