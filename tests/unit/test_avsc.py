"""Fingerprints against the Avro project's own vectors, and the schemas against the models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskmill.schemas import models
from taskmill.schemas.avsc import RELEASED, canonical_form, fingerprint, released

#: Fields that hold times, and are not named so.
TIMES = {"not_before", "deadline", "since", "decided_until", "held", "last_nominal"}

#: From the Avro project: share/test/data/schema-tests.txt (input, canonical form, fingerprint).
VECTORS = [
    ('{"type":"null"}', '"null"', 7195948357588979594),
    ('"boolean"', '"boolean"', -6970731678124411036),
    ('"int"', '"int"', 8247732601305521295),
    ('"long"', '"long"', -3434872931120570953),
    ('"bytes"', '"bytes"', 5746618253357095269),
    ('{"type":"string"}', '"string"', -8142146995180207161),
    ('[ "int" , {"type":"boolean"} ]', '["int","boolean"]', 5392556393470105090),
    (
        '{"fields":[], "type":"record", "name":"foo", "namespace":"x.y"}',
        '{"name":"x.y.foo","type":"record","fields":[]}',
        5916914534497305771,
    ),
    (
        '{"fields":[], "type":"record", "name":"foo", "doc":"foo", "aliases":["foo","bar"]}',
        '{"name":"foo","type":"record","fields":[]}',
        -4824392279771201922,
    ),
    (
        '{"fields":[{"type":{"type":"boolean"}, "name":"f1"}], "type":"record", "name":"foo"}',
        '{"name":"foo","type":"record","fields":[{"name":"f1","type":"boolean"}]}',
        7843277075252814651,
    ),
    (
        '{"type":"enum", "name":"foo", "symbols":["A1"]}',
        '{"name":"foo","type":"enum","symbols":["A1"]}',
        -6342190197741309591,
    ),
    (
        '{ "values":"string", "type":"map"}',
        '{"type":"map","values":"string"}',
        -8732877298790414990,
    ),
    (
        (
            '{"name":"PigValue","type":"record",'
            '"fields":[{"name":"value", "type":["null", "int", "long", "PigValue"]}]}'
        ),
        (
            '{"name":"PigValue","type":"record",'
            '"fields":[{"name":"value","type":["null","int","long","PigValue"]}]}'
        ),
        -1759257747318642341,
    ),
]


@pytest.mark.parametrize(("source", "form", "number"), VECTORS)
def test_form_and_fingerprint_are_those_of_the_avro_project(
    source: str, form: str, number: int
) -> None:
    schema = json.loads(source)
    assert canonical_form(schema) == form
    assert int.from_bytes(fingerprint(schema), "little", signed=True) == number


def rabin(data: bytes) -> int:
    """CRC-64-AVRO bit by bit, as the specification's fingerprint64 without its table."""
    empty = 0xC15D213AA4D7A795
    result = empty
    for byte in data:
        result ^= byte
        for _ in range(8):
            result = result >> 1 ^ (empty if result & 1 else 0)
    return result


@pytest.mark.parametrize("record", RELEASED)
def test_a_value_starts_with_the_marker_and_the_fingerprint_low_byte_first(record: str) -> None:
    version = released(record)[0]
    form = canonical_form(json.loads(version.text))
    assert version.prefix == b"\xc3\x01" + rabin(form.encode()).to_bytes(8, "little")


@pytest.mark.parametrize("record", RELEASED)
def test_fields_and_defaults_of_the_schema_are_those_of_the_model(record: str) -> None:
    schema = json.loads(released(record)[0].text)
    model: Any = getattr(models, record)
    assert schema["namespace"] == "taskmill"
    assert tuple(field["name"] for field in schema["fields"]) == model._fields
    for field in schema["fields"]:
        if field["name"] in model._field_defaults:
            assert field["default"] == model._field_defaults[field["name"]], field["name"]


@pytest.mark.parametrize("record", RELEASED)
def test_every_field_is_documented_and_every_optional_one_is_null_by_default(record: str) -> None:
    for field in json.loads(released(record)[0].text)["fields"]:
        assert field["doc"].endswith("."), field["name"]
        if isinstance(field["type"], list):
            assert field["type"][0] == "null", field["name"]
            assert field["default"] is None, field["name"]


@pytest.mark.parametrize("record", RELEASED)
def test_every_time_is_a_timestamp_in_milliseconds(record: str) -> None:
    for field in json.loads(released(record)[0].text)["fields"]:
        is_time = field["name"].endswith("_at") or field["name"] in TIMES
        assert ("timestamp-millis" in json.dumps(field["type"])) == is_time, field["name"]
