"""A planned next version of the schema: what each release reads of the other's values."""

from __future__ import annotations

import json

import pytest

from support.records import CONTROL, RESULT, STATE, TASK
from taskmill.runtime.errors import DecodeError
from taskmill.schemas.avsc import RELEASED, Version, released, version
from taskmill.schemas.codec import CODEC
from taskmill.schemas.framing import Framing

RECORDS = {
    "Task": CODEC.encode_task(TASK._replace(headers={"k": "v"})),
    "TaskState": CODEC.encode_state(STATE),
    "TaskResult": CODEC.encode_result(RESULT),
    "Control": CODEC.encode_control(CONTROL),
}


def next_version(record: str) -> Version:
    """Version 2 as it may be: a field added in the middle, with a default, and one at the end."""
    schema = json.loads(released(record)[0].text)
    schema["fields"].insert(1, {"name": "tenant", "type": ["null", "string"], "default": None})
    schema["fields"].append({"name": "weight", "type": "int", "default": 7})
    return version(json.dumps(schema))


@pytest.mark.parametrize("record", RECORDS)
def test_a_new_release_reads_old_values_and_fills_in_the_defaults(record: str) -> None:
    old, new = released(record)[0], next_version(record)
    before = Framing([old]).decode(RECORDS[record])
    after = Framing([new, old]).decode(RECORDS[record])
    assert after == {**before, "tenant": None, "weight": 7}


@pytest.mark.parametrize("record", RECORDS)
def test_an_old_release_that_ships_the_next_schema_reads_new_values(record: str) -> None:
    old, new = released(record)[0], next_version(record)
    before = Framing([old]).decode(RECORDS[record])
    value = Framing([new, old]).encode({**before, "tenant": "shop", "weight": 1})
    assert value[:10] == new.prefix != old.prefix
    assert Framing([old, new]).decode(value) == before


@pytest.mark.parametrize("record", RECORDS)
def test_an_older_release_refuses_a_schema_that_it_does_not_know(record: str) -> None:
    old, new = released(record)[0], next_version(record)
    before = Framing([old]).decode(RECORDS[record])
    value = Framing([new]).encode({**before, "tenant": None, "weight": 7})
    fingerprint = int.from_bytes(new.prefix[2:], "little")
    with pytest.raises(DecodeError, match=f"schema fingerprint 0x{fingerprint:016x} is not known"):
        Framing([old]).decode(value)


@pytest.mark.parametrize("record", RELEASED)
def test_documentation_defaults_and_logical_types_are_free_to_change(record: str) -> None:
    schema = json.loads(released(record)[0].text)
    schema["doc"] = "Other words."
    for field in schema["fields"]:
        field.pop("doc")
    changed = version(json.dumps(schema))
    assert changed.prefix == released(record)[0].prefix


def test_the_order_of_fields_is_the_models_whatever_wrote_the_value() -> None:
    schema = json.loads(released("Task")[0].text)
    schema["fields"].reverse()
    reversed_version = version(json.dumps(schema))
    value = Framing([reversed_version]).encode(TASK._asdict())
    fields = Framing([released("Task")[0], reversed_version]).decode(value)
    assert fields == TASK._asdict()
