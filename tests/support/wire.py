"""taskmill's records with fastavro alone: what the tests put on Kafka and read from it themselves.

It knows the .avsc files and docs/wire.md, and nothing of the code under test.
"""

from __future__ import annotations

import itertools
import json
import struct
from importlib.resources import files
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

#: 2026-01-02T03:04:05.678Z, for tasks whose time does not matter.
NOW_MS = 1_767_323_045_678


class _Kind:
    """One kind of record: its schema and what its values start with."""

    def __init__(self, name: str) -> None:
        text = (files("taskmill.schemas") / f"{name}.avsc").read_text()
        raw = json.loads(text)
        for field in _fields(raw):
            field.pop("logicalType", None)  # times stay numbers
        self.schema = parse_schema(raw)
        canonical = to_parsing_canonical_form(json.loads(text))
        self.prefix = bytes.fromhex("c301" + fingerprint(canonical, "CRC-64-AVRO"))

    def encode(self, fields: dict[str, Any]) -> bytes:
        body = BytesIO()
        body.write(self.prefix)
        schemaless_writer(body, self.schema, fields)
        return body.getvalue()

    def decode(self, value: bytes) -> dict[str, Any]:
        assert value[:10] == self.prefix, f"not in single-object encoding: {value[:10]!r}"
        body = BytesIO(value[10:])
        fields = schemaless_reader(body, self.schema, None)
        assert isinstance(fields, dict)
        assert not body.read(), "bytes behind the record"
        return fields


def _fields(node: Any) -> list[dict[str, Any]]:
    """Every object of a schema, at any depth."""
    if isinstance(node, list):
        return [found for one in node for found in _fields(one)]
    if not isinstance(node, dict):
        return []
    return [node, *(found for one in node.values() for found in _fields(one))]


_TASK, _STATE, _RESULT = _Kind("Task"), _Kind("TaskState"), _Kind("TaskResult")
_FIRST_STATE = _Kind("TaskState-v1")
_SCHEDULE, _SCHEDULE_STATE = _Kind("Schedule"), _Kind("ScheduleState")


def task_value(id: str, name: str, args: Any = None, **fields: Any) -> bytes:
    """The value of a Task; `args` becomes its JSON payload, `fields` are set as they are."""
    payload = json.dumps({} if args is None else args).encode()
    known = {"id": id, "name": name, "payload": payload, "enqueued_at": NOW_MS}
    return _TASK.encode({**known, **fields})


def read_task(value: bytes) -> dict[str, Any]:
    """The fields of a Task's value."""
    return _TASK.decode(value)


def read_state(value: bytes) -> dict[str, Any]:
    """The fields of a TaskState's value, whichever of its versions that is in."""
    kind = _FIRST_STATE if value.startswith(_FIRST_STATE.prefix) else _STATE
    return kind.decode(value)


def read_result(value: bytes) -> dict[str, Any]:
    """The fields of a TaskResult's value."""
    return _RESULT.decode(value)


def schedule_value(id: str, task: str, args: Any = None, **fields: Any) -> bytes:
    """The value of a Schedule; as `task_value`."""
    payload = json.dumps({} if args is None else args).encode()
    known = {"id": id, "task": task, "payload": payload, "updated_at": NOW_MS}
    return _SCHEDULE.encode({**known, **fields})


def read_schedule(value: bytes) -> dict[str, Any]:
    """The fields of a Schedule's value."""
    return _SCHEDULE.decode(value)


def read_schedule_state(value: bytes) -> dict[str, Any]:
    """The fields of a ScheduleState's value."""
    return _SCHEDULE_STATE.decode(value)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key`, by the murmur2 of docs/wire.md, written out once more."""
    mask = 0xFFFFFFFF
    m, h = 0x5BD1E995, (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for (k,) in struct.iter_unpack("<I", key[:whole]):
        k = k * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    rest = key[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) % 2**31 % partitions


def ids_on(partition: int, partitions: int, count: int = 1, stem: str = "t") -> list[str]:
    """IDs that belong on `partition`, the first so many of `stem`-0, `stem`-1, …"""
    numbered = (f"{stem}-{n}" for n in itertools.count())
    ours = (id for id in numbered if partition_of(id.encode(), partitions) == partition)
    return list(itertools.islice(ours, count))
