"""One kind of record on the wire: how its values start, and every schema they can be read from.

Single-object encoding is `c3 01`, 8 bytes of fingerprint, body; Confluent's format is `00`, 4
bytes of schema ID (big-endian), body.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, cast

from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import SchemaParseException

from taskmill.runtime.errors import DecodeError, InvalidInput
from taskmill.schemas.avsc import MARKER, RELEASED, Schema, Version, released, version
from taskmill.schemas.registry import SETTING, Registry

_SINGLE_OBJECT_BYTES = 10
_CONFLUENT_MAGIC = b"\x00"
_CONFLUENT_BYTES = 5
#: What an error message repeats of another library's message, or of bytes found.
_QUOTED = 200


class Framing:
    """Writes one kind of record in its newest version, reads it in every version."""

    def __init__(self, versions: Sequence[Version], registry: Registry | None = None) -> None:
        """`versions`, newest first; with a `registry`, values are written in Confluent's format."""
        self.record = versions[0].record
        self._own = versions[0]
        self._registry = registry
        self._writers: dict[bytes, Schema] = {v.prefix: v.schema for v in versions}
        #: What our values start with; empty until the registry has told our schema's ID.
        self.prefix = b"" if registry else self._own.prefix
        #: What values in our own version are expected to start with. A guess that only saves time.
        self.expected = self._own.prefix

    def register(self) -> bytes:
        """Get our schema's ID from the registry; returns the prefix, which stays.

        The subject is the record's full name (RecordNameStrategy): one schema, many topics.
        Raises ConfigError, Unreachable.
        """
        assert self._registry is not None
        schema_id = self._registry.register(self._own.schema["name"], self._own.text)
        self.prefix = self.expected = confluent_prefix(schema_id)
        self._writers[self.prefix] = self._own.schema
        return self.prefix

    def encode(self, fields: dict[str, Any]) -> bytes:
        """`fields`, by name, as a value. Raises InvalidInput that names what does not fit."""
        body = BytesIO()
        body.write(self.prefix or self.register())
        try:
            schemaless_writer(body, self._own.schema, fields, disable_tuple_notation=True)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidInput(
                f"{self._culprit(fields)} cannot be encoded: {one_line(error)}"
            ) from None
        return body.getvalue()

    def _culprit(self, fields: dict[str, Any]) -> str:
        """The first field that cannot be encoded; fastavro's errors do not always name it."""
        for field in self._own.schema["fields"]:
            try:
                schemaless_writer(BytesIO(), field["type"], fields[field["name"]])
            except (TypeError, ValueError, AttributeError, OverflowError):
                return f"{field['name']} of the {self.record}"
        return f"the {self.record}"

    def decode(self, value: bytes | None) -> dict[str, Any]:
        """The fields of `value`, by name, in this version's form whatever version wrote it.

        Raises DecodeError; Unreachable where the registry has to be asked and does not answer.
        """
        start, writer = self._writer(value)
        assert value is not None
        body = BytesIO(value)
        body.seek(start)
        reader = None if writer is self._own.schema else self._own.schema
        try:
            fields: Any = schemaless_reader(body, writer, reader)
        except EOFError:
            raise DecodeError(f"{self.record} is cut short at {len(value)} bytes") from None
        except MemoryError:
            # No length in the bytes can cause it (a BytesIO gives what it has): the machine is
            # short of memory, which is no fault of this record.
            raise
        except Exception as error:
            raise DecodeError(f"bytes are no {self.record}: {one_line(error)}") from None
        rest = value[body.tell() :]
        if rest:
            size = f"{len(rest)} byte{'s' if len(rest) > 1 else ''}"
            shown = rest[:8].hex() + ("…" if len(rest) > 8 else "")
            raise DecodeError(f"{size} too many after the {self.record}: {shown}")
        return cast(dict[str, Any], fields)

    def reads(self, value: bytes | None) -> bool:
        """Whether `value` says that it is a record of this kind. Raises what `decode` does."""
        if not value:
            return False
        if (
            value[:_SINGLE_OBJECT_BYTES] in self._writers
            or value[:_CONFLUENT_BYTES] in self._writers
        ):
            return True
        if self._registry is None or not _is_confluent(value):
            return False
        return self._fetch(value[:_CONFLUENT_BYTES]).record == self.record

    def _writer(self, value: bytes | None) -> tuple[int, Schema]:
        """Where the body of `value` starts, and the schema that wrote it."""
        if not value:
            what = "no value (a tombstone)" if value is None else "empty value"
            raise DecodeError(f"{what}, where a {self.record} should be")
        writer = self._writers.get(value[:_SINGLE_OBJECT_BYTES])
        if writer is not None:
            return _SINGLE_OBJECT_BYTES, writer
        if not _is_confluent(value):
            raise DecodeError(_unknown_start(value, self.record))
        prefix = value[:_CONFLUENT_BYTES]
        writer = self._writers.get(prefix)
        if writer is None:
            found = self._fetch(prefix)
            if found.record != self.record:
                raise DecodeError(
                    f"schema ID {_schema_id(prefix)} is a {found.record}, not a {self.record}"
                )
            # The same canonical form reads the same bytes, whatever its documentation says.
            writer = self._writers.get(found.prefix, found.schema)
            self._writers[prefix] = writer
            if writer is self._own.schema:
                self.expected = prefix
        return _CONFLUENT_BYTES, writer

    def _fetch(self, prefix: bytes) -> Version:
        """The schema that the registry has under the ID in `prefix`."""
        schema_id = _schema_id(prefix)
        if self._registry is None:
            raise DecodeError(
                f"value is in Confluent's format (schema ID {schema_id}): "
                f"set {SETTING} to the registry's address"
            )
        text = self._registry.schema(schema_id)
        try:
            return version(text)
        except (ValueError, TypeError, KeyError, SchemaParseException) as error:
            raise DecodeError(
                f"schema ID {schema_id} is no record schema: {one_line(error)}"
            ) from None


def confluent_prefix(schema_id: int) -> bytes:
    """What a value in Confluent's format starts with. `schema_id` from 0 to 2^31 - 1."""
    return _CONFLUENT_MAGIC + schema_id.to_bytes(4, "big")


def as_confluent(value: bytes, schema_id: int) -> bytes:
    """`value`, in single-object encoding, in Confluent's format instead."""
    return confluent_prefix(schema_id) + value[_SINGLE_OBJECT_BYTES:]


def _is_confluent(value: bytes) -> bool:
    return value[:1] == _CONFLUENT_MAGIC and len(value) >= _CONFLUENT_BYTES


def _schema_id(prefix: bytes) -> int:
    return int.from_bytes(prefix[1:], "big")


def _unknown_start(value: bytes, record: str) -> str:
    if value[:2] != MARKER:
        return (
            f"value starts with {value[:8].hex()}: neither Avro single-object (c301) "
            "nor Confluent (00 and a schema ID)"
        )
    if len(value) < _SINGLE_OBJECT_BYTES:
        return f"{record} is cut short at {len(value)} bytes"
    prefix = value[:_SINGLE_OBJECT_BYTES]
    for other in RELEASED:
        if any(known.prefix == prefix for known in released(other)):
            return f"value is a {other}, not a {record}"
    fingerprint = int.from_bytes(prefix[2:], "little")
    return f"schema fingerprint 0x{fingerprint:016x} is not known here"


def one_line(error: Exception) -> str:
    """What another library's `error` says, on one line and not too long."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"
