"""The Avro schemas of this package: their files, their fingerprints, every released version."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from fastavro import parse_schema
from fastavro.schema import fingerprint as fastavro_fingerprint
from fastavro.schema import to_parsing_canonical_form

#: An Avro schema as parsed JSON.
Schema = Any

#: First bytes of Avro's single-object encoding (Avro 1.12 specification).
MARKER = b"\xc3\x01"

#: Every released version of each record, newest first. The first one is written; a value in any of
#: them is read. What a released file says never changes: tests/golden holds bytes of each. The
#: newest has the plain name; those before it are renamed NAME-vN.avsc.
RELEASED: dict[str, tuple[str, ...]] = {
    "Task": ("Task.avsc",),
    "TaskState": ("TaskState.avsc", "TaskState-v1.avsc"),
    "TaskResult": ("TaskResult.avsc",),
    "Control": ("Control.avsc",),
    "Schedule": ("Schedule.avsc",),
    "ScheduleState": ("ScheduleState.avsc",),
}


class Version(NamedTuple):
    """One version of a record's schema."""

    #: Name of the record, without its namespace.
    record: str
    #: The schema, ready for fastavro, times left as plain integers.
    schema: Schema
    #: What a value of it starts with: MARKER and the fingerprint, 10 bytes.
    prefix: bytes
    #: The schema's own text, with documentation.
    text: str


def text(file: str) -> str:
    """The text of one of this package's .avsc files."""
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")


def version(source: str) -> Version:
    """`source`, a record schema's JSON text, as a Version. Raises what fastavro raises."""
    schema: Any = parse_schema(without_logical_types(json.loads(source)))
    return Version(
        record=schema["name"].rpartition(".")[2],
        schema=schema,
        prefix=MARKER + fingerprint(schema),
        text=source,
    )


@cache
def released(record: str) -> tuple[Version, ...]:
    """All versions of `record` (a name in RELEASED), newest first."""
    return tuple(version(text(file)) for file in RELEASED[record])


def canonical_form(schema: Schema) -> str:
    """Avro's Parsing Canonical Form: what of a schema decides how bytes are read."""
    form: str = to_parsing_canonical_form(schema)
    return form


def fingerprint(schema: Schema) -> bytes:
    """CRC-64-AVRO of the canonical form; 8 bytes, little-endian, as values carry it."""
    return bytes.fromhex(fastavro_fingerprint(canonical_form(schema), "CRC-64-AVRO"))


def without_logical_types(schema: Schema) -> Schema:
    """`schema` without `logicalType`, so that times stay integers: no datetime is made twice."""
    if isinstance(schema, dict):
        return {k: without_logical_types(v) for k, v in schema.items() if k != "logicalType"}
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    return schema
