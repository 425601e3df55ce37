"""`encode`, `decode` and `schemas export`: the wire for people who use another Kafka client."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from taskmill.cli.output import json_option, note, print_json
from taskmill.producer.ids import new_id
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import ConfigError, DecodeError, InvalidArguments, InvalidInput
from taskmill.schemas import json_form
from taskmill.schemas.avsc import RELEASED, released
from taskmill.schemas.codec import CODEC, Codec, check_id
from taskmill.schemas.framing import as_confluent
from taskmill.schemas.models import JSON, Task

#: A schema ID is a 32-bit signed integer in the registry.
_SCHEMA_ID = click.IntRange(0, 2**31 - 1)


@click.command()
@click.argument("name")
@click.option(
    "--args", "args_text", required=True, metavar="JSON", help="Arguments, a JSON object."
)
@click.option("--id", "task_id", metavar="ID", help="Dedup ID; left out: a UUIDv7, told on stderr.")
@click.option(
    "--confluent",
    "schema_id",
    type=_SCHEMA_ID,
    metavar="SCHEMA_ID",
    help="Confluent's format, with the ID that the registry gave Task.avsc.",
)
@click.option("--hex", "as_hex", is_flag=True, help="Hexadecimal text instead of bytes.")
def encode(
    name: str, args_text: str, task_id: str | None, schema_id: int | None, as_hex: bool
) -> None:
    """Write the bytes of a Task to stdout: the value of a record keyed by its ID.

    The record's partition has to be the key's by murmur2 (docs/wire.md).
    """
    if not as_hex and sys.stdout.isatty():
        raise ConfigError("stdout is a terminal and these are bytes: redirect it, or add --hex")
    payload = _payload(args_text)
    known_id = new_id() if task_id is None else task_id
    check_id(known_id)
    task = Task(known_id, name, payload, JSON, SYSTEM_CLOCK.now_ms())
    if schema_id is not None:
        value = as_confluent(CODEC.encode_task(task), schema_id)
    else:
        with closing(Codec(load_settings().schema_registry_url)) as codec:
            value = codec.encode_task(task)
    if task_id is None:
        note(f"id {known_id}")
    if as_hex:
        click.echo(value.hex())
    else:
        sys.stdout.buffer.write(value)


@click.command()
@click.option("--hex", "from_hex", is_flag=True, help="Read hexadecimal text instead of bytes.")
def decode(from_hex: bool) -> None:
    """Read one value from stdin, a Task, TaskState, TaskResult or Control, and print it as JSON."""
    if sys.stdin.isatty():
        note("reading one value from the terminal, up to Ctrl-D")
    value = sys.stdin.buffer.read()
    if from_hex:
        try:
            value = bytes.fromhex(value.decode("ascii"))
        except ValueError:
            raise InvalidInput("stdin is not hexadecimal text") from None
    with closing(Codec(load_settings().schema_registry_url)) as codec:
        try:
            record = codec.decode(value)
        except DecodeError as error:
            raise InvalidInput(f"stdin: {error}") from None
    print_json({"record": type(record).__name__, **json_form.as_json(record)})


@click.group()
def schemas() -> None:
    """The Avro schemas of what lies on the topics."""


@schemas.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def export(directory: Path, as_json: bool) -> None:
    """Write the .avsc files to DIR, which is made if missing."""
    written: list[dict[str, Any]] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for record, files in RELEASED.items():
            for file, version in zip(files, released(record), strict=True):
                path = directory / file
                path.write_text(version.text, encoding="utf-8")
                written.append(
                    {"file": str(path), "record": record, "prefix": version.prefix.hex()}
                )
    except OSError as error:
        raise InvalidInput(f"cannot write to {str(directory)!r}: {error.strerror}") from None
    if as_json:
        print_json({"written": written})
        return
    for line in written:
        click.echo(f"wrote {line['file']}: a value of it starts with {line['prefix']}")


def _payload(args_text: str) -> bytes:
    """The payload of `--args`: a compact JSON object in UTF-8."""
    try:
        args = json.loads(args_text)
        payload = json.dumps(args, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        encoded = payload.encode()
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidArguments(f"--args is no JSON: {error.msg} at {where}") from None
    except UnicodeEncodeError:
        raise InvalidArguments("--args has a string that is not valid Unicode") from None
    except RecursionError:
        raise InvalidArguments("--args is nested too deeply") from None
    except ValueError:
        # NaN, 1e999, 5,000 digits: Python's own limits and extensions.
        raise InvalidArguments("--args has a number that JSON cannot carry safely") from None
    if not isinstance(args, dict):
        raise InvalidArguments(f"--args is a JSON {_kind(args)}: an object is allowed")
    return encoded


def _kind(document: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(document), "number")
