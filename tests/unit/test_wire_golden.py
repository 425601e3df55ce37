"""Old bytes: what a release wrote stays readable, and what this one writes stays the same.

tests/golden/RECORD-vN.json has the fields of each case, RECORD-vN.hex its bytes, a line a case.
A released file of either kind is never edited; a new version of a schema adds a pair.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from taskmill.schemas import models
from taskmill.schemas.avsc import RELEASED, released
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

GOLDEN = Path(__file__).parent.parent / "golden"

#: What values of each version start with. A change here is a new version, never an edit.
FROZEN = {
    "Task": ["c301b825e198d4fe712b"],
    "TaskState": ["c301eccc4ebdcb3676c1", "c3012af0f1dc85882eb2"],
    "TaskResult": ["c301ccba8a919d93e94c"],
    "Control": ["c301c292602d161af230"],
    "Schedule": ["c301b5e25120f7091603"],
    "ScheduleState": ["c3017b38cbe5acfa8b8c"],
}
ENCODE = {
    "Task": "encode_task",
    "TaskState": "encode_state",
    "TaskResult": "encode_result",
    "Control": "encode_control",
    "Schedule": "encode_schedule",
    "ScheduleState": "encode_schedule_state",
}


def case_from(record: str, fields: dict[str, Any]) -> Any:
    """A case of a .json file as a record: bytes stand as {"utf8": …} or {"hex": …}."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and "utf8" in value:
            value = value["utf8"].encode()
        elif isinstance(value, dict) and "hex" in value:
            value = bytes.fromhex(value["hex"])
        elif name == "status":
            value = Status(value)
        elif name == "error" and value is not None:
            value = TaskError(**value)
        values[name] = value
    return getattr(models, record)(**values)


def cases(record: str, number: int) -> list[tuple[Any, bytes]]:
    fields = json.loads((GOLDEN / f"{record}-v{number}.json").read_text(encoding="utf-8"))
    lines = (GOLDEN / f"{record}-v{number}.hex").read_text(encoding="ascii").split()
    assert len(fields) == len(lines) > 0
    return [
        (case_from(record, each), bytes.fromhex(line))
        for each, line in zip(fields, lines, strict=True)
    ]


@pytest.mark.parametrize("record", RELEASED)
def test_the_fingerprint_of_every_released_version_is_frozen(record: str) -> None:
    newest_first = [version.prefix.hex() for version in released(record)]
    assert newest_first == list(reversed(FROZEN[record]))


@pytest.mark.parametrize("record", RELEASED)
def test_every_released_version_has_its_golden_bytes(record: str) -> None:
    for number, prefix in enumerate(FROZEN[record], start=1):
        for _, value in cases(record, number):
            assert value[:10].hex() == prefix


@pytest.mark.parametrize("record", RELEASED)
def test_golden_bytes_of_every_version_are_read_as_they_were_meant(record: str) -> None:
    for number in range(1, len(FROZEN[record]) + 1):
        for expected, value in cases(record, number):
            assert CODEC.decode(value) == expected


@pytest.mark.parametrize("record", RELEASED)
def test_the_newest_version_is_written_byte_for_byte(record: str) -> None:
    encode = getattr(CODEC, ENCODE[record])
    for expected, value in cases(record, len(FROZEN[record])):
        assert encode(expected).hex() == value.hex()
