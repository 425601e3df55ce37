"""Records as JSON for people and programs: times in ISO 8601 UTC, bytes as JSON or base64."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from taskmill.schemas.avsc import released
from taskmill.schemas.models import (
    JSON,
    Control,
    Schedule,
    ScheduleState,
    Task,
    TaskError,
    TaskResult,
    TaskState,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Record = Task | TaskState | TaskResult | Control | Schedule | ScheduleState


def as_json(record: Record) -> dict[str, Any]:
    """`record` as an object that `json.dumps` takes, fields in the schema's order.

    A payload or result whose content type is JSON stands as the value itself, under its own name;
    any other, and one that is no JSON after all, as base64 under `payload_base64` or
    `result_base64`.
    """
    times = _time_fields(type(record).__name__)
    out: dict[str, Any] = {}
    fields: dict[str, Any] = record._asdict()
    for name, value in fields.items():
        if name in times:
            out[name] = [*map(iso, value)] if isinstance(value, list) else iso(value)
        elif isinstance(value, bytes):
            out.update(_payload(name, value, JSON if name == "saved" else fields["content_type"]))
        elif isinstance(value, TaskError):
            out[name] = value._asdict()
        else:
            out[name] = value
    return out


def iso(time_ms: int | None) -> str | int | None:
    """A time of a record as ISO 8601 in UTC to the millisecond.

    One beyond the year 9999, which a foreign client may well write, stays the number it is.
    """
    if time_ms is None:
        return None
    try:
        time = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return time_ms
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _payload(name: str, value: bytes, content_type: str | None) -> dict[str, Any]:
    if content_type == JSON:
        try:
            document = json.loads(value)
            # Python reads more than JSON has (NaN, 1e999), deeper than it then writes, and halves
            # of characters that no encoding prints.
            json.dumps({name: document}, allow_nan=False, ensure_ascii=False, indent=2).encode()
            return {name: document}
        except (ValueError, RecursionError):
            pass  # Said to be JSON, and is not: shown as the bytes that it is.
    return {f"{name}_base64": base64.b64encode(value).decode("ascii")}


@cache
def _time_fields(record: str) -> frozenset[str]:
    """The fields that the schema says are timestamps."""
    schema = json.loads(released(record)[0].text)
    return frozenset(
        field["name"]
        for field in schema["fields"]
        if "timestamp-millis" in json.dumps(field["type"])
    )
