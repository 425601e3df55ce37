"""What a log line says of a record's task: `extra` of the lines that are about one."""

from __future__ import annotations

from typing import Any

from taskmill.consumer.record import Record
from taskmill.runtime.log_fields import trace_id_of


def fields_of(record: Record) -> dict[str, Any]:
    """Its task's ID, name, queue and attempt, and its trace, as far as they are known."""
    fields: dict[str, Any] = {"queue": record.lease.queue}
    task = record.task
    if task is not None:
        fields |= {"task_id": task.id, "task": task.name, "attempt": task.attempt}
    if (trace_id := trace_id_of(record.source.headers)) is not None:
        fields["trace_id"] = trace_id
    return fields
