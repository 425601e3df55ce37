"""docs/wire.md says what is so: its bytes, its tables, its names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.records import TASK
from taskmill.consumer.dlq import dead_letter
from taskmill.consumer.record import Failure, Lease, Outcome, Reason, Record, Source
from taskmill.runtime.partition import murmur2, partition_for
from taskmill.schemas.avsc import RELEASED, released
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

DOC = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The only code block of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    return str(found)


def section(title: str) -> str:
    return DOC.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_hex_dump_is_the_task_that_it_describes() -> None:
    dump = re.findall(r"^((?:[0-9a-f]{2} )+)", block("hexdump"), re.MULTILINE)
    assert bytes.fromhex("".join(dump)) == CODEC.encode_task(TASK)


def test_the_prefixes_are_those_of_the_released_schemas() -> None:
    for record in RELEASED:
        assert re.search(rf"\| {record} \|.*`{released(record)[0].prefix.hex()}`", DOC)


def test_the_keys_lie_where_the_table_says() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| (\d+) \|$", DOC, re.MULTILINE)
    assert len(rows) == 5
    for key, number, partition in rows:
        assert murmur2(key.encode()) & 0x7FFFFFFF == int(number)
        assert partition_for(key.encode(), 12) == int(partition)


@pytest.mark.parametrize("record", RELEASED)
def test_every_field_is_in_its_table(record: str) -> None:
    table = section(record)
    for field in json.loads(released(record)[0].text)["fields"]:
        assert f"`{field['name']}`" in table, field["name"]


def test_every_status_is_named() -> None:
    for status in Status:
        assert f"`{status}`" in section("TaskState"), status


def test_every_reason_and_header_of_a_dead_letter_is_named() -> None:
    for reason in Reason:
        assert f"`{reason.value}`" in section("Bad records"), reason
    source = Source("t", 0, 0, 0, b"k", b"v", [])
    failure = Failure(Reason.FAILED, TaskError("E", "m", "f"), "stack")
    record = Record(Lease(0, 1), 0, b"k", 0, 0, TASK, source)
    letter = dead_letter(Outcome(record, Status.DEAD, failure=failure), "t", 3, 0)
    for name, _ in letter["headers"]:
        assert f"`{name}`" in section("Bad records"), name


def test_the_example_is_at_most_thirty_lines_and_needs_nothing_of_taskmill() -> None:
    example = block("python")
    assert len(example.splitlines()) <= 30
    assert "import taskmill" not in example
    assert "from taskmill" not in example
    compile(example, "docs/wire.md", "exec")
