"""An outcome as its TaskState record, and as a TaskResult where it is too large for one."""

from __future__ import annotations

from typing import Any

from taskmill.consumer.failure import cut
from taskmill.consumer.record import Note, Outcome
from taskmill.consumer.retry import next_attempt_at
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import JSON, TaskError, TaskResult, TaskState
from taskmill.schemas.states import Status

#: DESIGN §2: a state record is small, so that the whole table restores quickly.
MAX_STATE_BYTES = 512
#: What of a result fits beside the other fields with IDs and names of common length.
INLINE_RESULT_BYTES = 192
#: An error's message is cut to this in the state; the dead letter has more of it.
INLINE_MESSAGE_CHARS = 120


def is_large(result: bytes | None) -> bool:
    """Whether `result` lies on the results topic."""
    return result is not None and len(result) > INLINE_RESULT_BYTES


def _cut(error: TaskError) -> TaskError:
    """`error`, so short that a state holds it."""
    message = cut(error.message, INLINE_MESSAGE_CHARS)
    return TaskError(cut(error.type, 100), message, error.fingerprint)


class StateEncoder:
    """Encodes outcomes of one queue and worker. Large parts pile up until `take_large`."""

    def __init__(self, codec: Codec, queue: str, worker: str, results_topic: str) -> None:
        self._encode = codec.encode_state
        self._encode_result = codec.encode_result
        self._queue = queue
        self._worker = worker
        self._results_topic = results_topic
        self._large: list[dict[str, Any]] = []

    def state(self, outcome: Outcome) -> bytes:
        """The bytes of `outcome`'s mark: MAX_STATE_BYTES at most, but for very long IDs."""
        record, task, error = outcome.record, outcome.record.task, None
        result, large = outcome.result, None
        if outcome.failure is not None:
            error = outcome.failure.error
            if outcome.retry_ms is not None:
                error = _cut(error)  # the record that waits has all of it
            elif len(error.message) > INLINE_MESSAGE_CHARS or len(error.type) > 100:
                large = self._results_topic
        if is_large(result):
            large = self._results_topic
        if large is not None:
            self._set_aside(outcome)
            result = None
            if error is not None:
                error = _cut(error)
        assert outcome.status is not None, "an outcome without status leaves no mark"
        source = record.source
        return self._encode(
            TaskState(
                task.id if task is not None else record.mark_key[1:].decode(),
                task.name if task is not None else "",
                self._queue,
                outcome.status,
                record.generation,
                record.seq,
                task.attempt if task is not None else 0,
                self._worker,
                task.enqueued_at if task is not None else source.timestamp,
                outcome.started_at,
                outcome.finished_at,
                next_attempt_at(outcome) if outcome.goes_on else None,
                result,
                None if result is None else JSON,
                error,
                source.partition,
                source.offset,
                large,
                saved=outcome.saved,
                result_expires_at=outcome.expires_at,
            )
        )

    def running(self, note: Note) -> bytes:
        """The bytes of the mark that `note`'s record runs."""
        record, task = note.record, note.record.task
        assert task is not None, "only a task runs"
        return self._encode(
            TaskState(
                id=task.id,
                name=task.name,
                queue=self._queue,
                status=Status.RUNNING,
                generation=record.generation,
                seq=record.seq,
                attempt=task.attempt,
                worker=self._worker,
                enqueued_at=task.enqueued_at,
                started_at=note.started_at,
                finished_at=None,
                next_attempt_at=None,
                result=None,
                content_type=None,
                error=None,
                source_partition=record.source.partition,
                source_offset=record.source.offset,
                large=None,
                deliveries=note.deliveries,
                saved=note.saved,
            )
        )

    def _set_aside(self, outcome: Outcome) -> None:
        record, failure = outcome.record, outcome.failure
        body = TaskResult(
            record.task.id if record.task is not None else record.mark_key[1:].decode(),
            record.generation,
            record.seq,
            outcome.result,
            None if outcome.result is None else JSON,
            failure.error if failure is not None else None,
            failure.stack if failure is not None else None,
        )
        self._large.append(
            {
                "key": record.mark_key,
                "value": self._encode_result(body),
                "partition": record.lease.partition,
            }
        )

    def take_large(self) -> list[dict[str, Any]]:
        """What goes to the results topic in the same transaction: keyed messages."""
        large, self._large = self._large, []
        return large
