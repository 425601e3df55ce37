"""Confluent's wire format through Confluent's own client.

The back end is a real registry (Redpanda's, which speaks Confluent's API) where a Docker engine
answers, else the client's own `mock://`; each test's ID says which. Failures over HTTP:
test_registry_failures.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from fastavro import parse_schema, schemaless_writer

from support.records import RESULT, STATE, TASK
from taskmill.runtime.errors import DecodeError
from taskmill.schemas.avsc import released, text, version
from taskmill.schemas.codec import CODEC, Codec
from taskmill.schemas.framing import as_confluent
from taskmill.schemas.registry import Registry

RETRIED = TASK._replace(attempt=2, headers={"k": "v"})


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    asked = [docker, "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(asked, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture(scope="module", params=["docker" if _docker_answers() else "mock"])
def client(request: pytest.FixtureRequest) -> Iterator[SchemaRegistryClient]:
    """A client of the registry that all tests here share."""
    if request.param == "mock":
        yield SchemaRegistryClient.new_client({"url": "mock://taskmill"})
        return
    from testcontainers.community.kafka import RedpandaContainer

    container = RedpandaContainer().start(timeout=120)
    url = container.get_schema_registry_address()
    try:
        with SchemaRegistryClient.new_client({"url": url}) as real:
            yield real
    finally:
        container.stop()


@pytest.fixture
def codec(client: SchemaRegistryClient) -> Codec:
    """A codec that has not asked the registry anything yet."""
    return Codec(registry=Registry(client, "the registry"))


def register(client: SchemaRegistryClient, schema: Any, kind: str = "AVRO") -> int:
    subject = f"t-{uuid.uuid4().hex[:8]}"
    source = schema if isinstance(schema, str) else json.dumps(schema)
    return int(client.register_schema(subject, Schema(source, kind)))


def _avro(schema: Any, fields: dict[str, Any]) -> bytes:
    out = BytesIO()
    schemaless_writer(out, parse_schema(schema), fields)
    return out.getvalue()


def test_values_carry_the_id_of_the_schema_registered_under_the_records_name(
    client: SchemaRegistryClient, codec: Codec
) -> None:
    value = codec.encode_task(TASK)
    assert value[:1] == b"\x00"
    registered = client.get_latest_version("taskmill.Task")
    assert int.from_bytes(value[1:5], "big") == registered.schema_id
    assert json.loads(registered.schema.schema_str)["name"] == "Task"
    assert value == as_confluent(CODEC.encode_task(TASK), registered.schema_id)


@pytest.mark.parametrize("task", [TASK, RETRIED], ids=["by hand", "by fastavro"])
def test_every_record_comes_back_through_another_codec(
    client: SchemaRegistryClient, codec: Codec, task: Any
) -> None:
    other = Codec(registry=Registry(client, "the registry"))
    for record, encode in (
        (task, codec.encode_task),
        (STATE, codec.encode_state),
        (RESULT, codec.encode_result),
    ):
        assert other.decode(encode(record)) == record
    for _ in range(2):
        assert other.decode_task(codec.encode_task(task)) == task


def test_single_object_values_are_read_beside_them(codec: Codec) -> None:
    assert codec.decode_task(CODEC.encode_task(TASK)) == TASK
    assert codec.decode_state(CODEC.encode_state(STATE)) == STATE


def test_a_body_without_its_frame_is_refused_before_the_registry_was_asked(codec: Codec) -> None:
    with pytest.raises(DecodeError):
        codec.decode_task(CODEC.encode_task(TASK)[10:])


def test_a_schema_that_fits_is_resolved_to_ours(client: SchemaRegistryClient, codec: Codec) -> None:
    schema = json.loads(text("Task.avsc"))
    # A client's own subset, in its own order, with a field that we do not know.
    kept = ("enqueued_at", "payload", "name", "id")
    fields = {field["name"]: field for field in schema["fields"]}
    schema["fields"] = [fields[name] for name in kept]
    schema["fields"].append({"name": "shop", "type": "string"})
    schema_id = register(client, schema)
    body = _avro(schema, {**TASK._asdict(), "shop": "eu"})
    value = b"\x00" + schema_id.to_bytes(4, "big") + body
    assert codec.decode_task(value) == TASK
    assert codec.decode(value) == TASK


def test_other_words_for_the_same_schema_take_the_short_way(
    client: SchemaRegistryClient, codec: Codec
) -> None:
    schema = json.loads(text("Task.avsc"))
    schema["doc"] = f"Ours, {uuid.uuid4()}."
    value = as_confluent(CODEC.encode_task(TASK), register(client, schema))
    assert codec.decode_task(value) == TASK
    assert codec._tasks.expected == value[:5]
    assert codec.decode_task(value) == TASK


@pytest.mark.parametrize(
    ("schema", "kind", "says"),
    [
        ({"type": "record", "name": "Order", "fields": []}, "AVRO", "is a Order, not a Task"),
        ({"type": "record", "name": "Task", "fields": []}, "AVRO", "bytes are no Task: "),
        ('"string"', "AVRO", "is no record schema"),
        ('syntax = "proto3"; message Task {}', "PROTOBUF", "is PROTOBUF, not one Avro schema"),
    ],
)
def test_a_schema_that_does_not_fit_makes_the_value_a_bad_one(
    client: SchemaRegistryClient, codec: Codec, schema: Any, kind: str, says: str
) -> None:
    value = as_confluent(CODEC.encode_task(TASK), register(client, schema, kind))
    with pytest.raises(DecodeError, match=says):
        codec.decode_task(value)


def test_an_id_that_the_registry_does_not_know_makes_the_value_a_bad_one(codec: Codec) -> None:
    value = as_confluent(CODEC.encode_task(TASK), 1_999_999_999)
    with pytest.raises(DecodeError, match=r"^schema ID 1999999999 is not known to "):
        codec.decode_task(value)


def test_a_codec_is_made_from_the_url_alone() -> None:
    codec = Codec("mock://alone")
    assert codec.decode_task(codec.encode_task(RETRIED)) == RETRIED


def test_our_schema_is_registered_as_released(client: SchemaRegistryClient, codec: Codec) -> None:
    codec.encode_state(STATE)
    registered = client.get_latest_version("taskmill.TaskState").schema.schema_str
    assert version(registered).prefix == released("TaskState")[0].prefix
