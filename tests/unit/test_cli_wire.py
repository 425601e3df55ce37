"""`encode`, `decode` and `schemas export`, as a person or a script calls them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.records import CONTROL, RESULT, STATE, TASK
from taskmill.cli.main import cli
from taskmill.cli.wire import decode, encode, schemas
from taskmill.runtime.errors import (
    ConfigError,
    InvalidArguments,
    InvalidInput,
    InvalidTaskId,
    TaskmillError,
)
from taskmill.schemas.avsc import RELEASED, text
from taskmill.schemas.codec import CODEC

UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def run(command: Any, *args: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(command, args, input=stdin)


def fails(command: Any, *args: str, stdin: bytes = b"") -> TaskmillError:
    """The error that the frame prints, in one line."""
    error = run(command, *args, stdin=stdin).exception
    assert isinstance(error, TaskmillError), error
    assert "\n" not in str(error)
    return error


def test_encode_writes_the_bytes_of_a_task_and_nothing_else() -> None:
    done = run(encode, "send_receipt", "--args", '{"order_id": 1, "to": "é"}', "--id", "receipt:1")
    assert done.exit_code == 0
    task = CODEC.decode_task(done.stdout_bytes)
    assert (task.id, task.name) == ("receipt:1", "send_receipt")
    assert task.payload == '{"order_id":1,"to":"é"}'.encode()
    assert done.stderr == ""


def test_encode_makes_a_uuid7_and_tells_it_on_stderr() -> None:
    done = run(encode, "n", "--args", "{}")
    assert re.fullmatch(f"id {UUID7}\n", done.stderr)
    assert done.stderr == f"id {CODEC.decode_task(done.stdout_bytes).id}\n"


def test_encode_in_confluents_format_puts_the_schema_id_before_the_same_body() -> None:
    done = run(encode, "n", "--args", "{}", "--id", "i", "--confluent", "258")
    assert done.stdout_bytes[:5] == b"\x00\x00\x00\x01\x02"
    plain = CODEC.encode_task(TASK)[:10] + done.stdout_bytes[5:]
    assert CODEC.decode_task(plain).id == "i"


@pytest.mark.parametrize("schema_id", ["-1", "2147483648", "x"])
def test_a_schema_id_is_a_number_of_31_bits(schema_id: str) -> None:
    done = run(encode, "n", "--args", "{}", "--confluent", schema_id)
    assert done.exit_code == 2
    assert "--confluent" in done.stderr


def test_encode_produces_confluents_format_where_a_registry_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASKMILL_SCHEMA_REGISTRY_URL", "mock://cli")
    done = run(encode, "n", "--args", "{}", "--id", "i")
    assert done.stdout_bytes[:5] == b"\x00\x00\x00\x00\x01"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("{", "--args is no JSON: Expecting property name enclosed in double quotes at line 1, "),
        ("", "--args is no JSON: Expecting value at line 1, column 1"),
        ("[1]", "--args is a JSON array: an object is allowed"),
        ('"a"', "--args is a JSON string"),
        ("1", "--args is a JSON number"),
        ("true", "--args is a JSON boolean"),
        ("null", "--args is a JSON null"),
        ('{"a": NaN}', "--args has a number that JSON cannot carry"),
        ('{"a": 1e999}', "--args has a number that JSON cannot carry"),
        ('{"a": "\\ud800"}', "--args has a string that is not valid Unicode"),
        ("[" * 100_000, "--args is nested too deeply"),
    ],
)
def test_arguments_that_are_no_json_object_are_refused(args: str, says: str) -> None:
    error = fails(encode, "n", "--args", args)
    assert isinstance(error, InvalidArguments)
    assert str(error).startswith(says)


@pytest.mark.parametrize(
    ("name", "task_id", "kind"),
    [("n", "", InvalidTaskId), ("n", "i" * 513, InvalidTaskId), ("", "i", InvalidInput)],
)
def test_an_id_or_name_beyond_its_limit_is_refused(
    name: str, task_id: str, kind: type[TaskmillError]
) -> None:
    error = fails(encode, name, "--args", "{}", "--id", task_id)
    assert isinstance(error, kind)
    assert error.exit_code == 2


def test_encode_does_not_write_bytes_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "taskmill", "encode", "n", "--args", "{}"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    told = "taskmill: stdout is a terminal and these are bytes: redirect it, or add --hex\n"
    assert done.stderr.decode() == told


def test_hex_goes_out_and_comes_in() -> None:
    out = run(encode, "n", "--args", '{"a":1}', "--id", "i", "--hex").stdout
    shown = json.loads(run(decode, "--hex", stdin=f" {out} \n".encode()).stdout)
    assert shown["id"] == "i"
    assert shown["payload"] == {"a": 1}


@pytest.mark.parametrize(
    ("value", "record"),
    [
        (CODEC.encode_task(TASK), "Task"),
        (CODEC.encode_state(STATE), "TaskState"),
        (CODEC.encode_result(RESULT), "TaskResult"),
        (CODEC.encode_control(CONTROL), "Control"),
    ],
)
def test_decode_prints_whichever_record_it_is_as_one_document(value: bytes, record: str) -> None:
    done = run(decode, stdin=value)
    shown = json.loads(done.stdout)
    assert shown["record"] == record
    assert shown["id"] == "receipt:1"


@pytest.mark.parametrize(
    ("stdin", "args", "says"),
    [
        (b"", [], "stdin: empty value"),
        (b"{}", [], "stdin: value starts with 7b7d"),
        (CODEC.encode_task(TASK) + b"\n", [], "stdin: 1 byte too many after the Task: 0a"),
        (b"\x00\x00\x00\x00\x07", [], "set TASKMILL_SCHEMA_REGISTRY_URL"),
        (b"zz", ["--hex"], "stdin is not hexadecimal"),
        (b"\xff", ["--hex"], "stdin is not hexadecimal"),
    ],
)
def test_what_cannot_be_decoded_is_bad_input_told_in_one_line(
    stdin: bytes, args: list[str], says: str
) -> None:
    done = CliRunner().invoke(cli, ["decode", *args], input=stdin)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("taskmill: ")
    assert says in line


def test_a_registry_that_is_away_ends_with_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    for command in (["decode"], ["encode", "n", "--args", "{}"]):
        done = CliRunner().invoke(cli, command, input=b"\x00\x00\x00\x00\x07")
        assert done.exit_code == 3
        assert done.stderr.startswith("taskmill: schema registry http://127.0.0.1:1 did not answer")


def test_a_registry_url_that_is_none_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASKMILL_SCHEMA_REGISTRY_URL", "ftp://me:secret@host")
    error = fails(decode, stdin=b"x")
    assert isinstance(error, ConfigError)
    assert str(error) == "TASKMILL_SCHEMA_REGISTRY_URL: 'ftp://host' is not an http(s):// address"


def test_schemas_export_writes_every_schema_as_it_is_and_says_so(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    done = run(schemas, "export", str(target))
    assert done.exit_code == 0
    for record in RELEASED:
        written = target / f"{record}.avsc"
        assert written.read_text(encoding="utf-8") == text(f"{record}.avsc")
        assert f"wrote {written}: a value of it starts with c301" in done.stdout


def test_schemas_export_tells_a_program_in_json(tmp_path: Path) -> None:
    done = run(schemas, "export", str(tmp_path), "--json")
    written = json.loads(done.stdout)["written"]
    files = [Path(line["file"]).name for line in written]
    assert files == [file for versions in RELEASED.values() for file in versions]
    assert written[0] == {
        "file": str(tmp_path / "Task.avsc"),
        "record": "Task",
        "prefix": CODEC.encode_task(TASK)[:10].hex(),
    }


def test_a_directory_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = fails(schemas, "export", str(tmp_path / "file"))
    assert isinstance(error, InvalidInput)
    assert str(error).startswith(f"cannot write to '{tmp_path}/file': ")
