"""Confluent's Schema Registry: a schema by its ID, the ID of a schema; answers are kept.

Confluent's own client does the talking (extra `registry`), only with limits: by default it waits
without end, and a worker decodes in the loop that polls Kafka.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.errors import ConfigError, DecodeError, Unreachable

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

SETTING = "TASKMILL_SCHEMA_REGISTRY_URL"

#: Two tries, two seconds to connect and two for the answer: whoever waits has to poll Kafka again.
_LIMITS = {"timeout": 2, "max.retries": 1, "retries.wait.ms": 200}
#: How long an ID stays unknown without asking again: a run of bad records costs one question.
_UNKNOWN_FOR_S = 10.0
#: More unknown IDs than this are forgotten together; each costs about 100 bytes.
_MAX_UNKNOWN = 10_000
#: Up to the last @ of an address: a password may hold one, or a slash.
_USERINFO = re.compile(r"//\S*@")
_NEXT = re.compile(r",(?=[a-z]+://)")


class Registry:
    """One registry. Safe to share between threads and codecs."""

    def __init__(
        self, client: SchemaRegistryClient, address: str, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._client = client
        self._address = address
        self._clock = clock
        self._unknown: dict[int, float] = {}

    @classmethod
    def connect(cls, url: str, clock: Clock = SYSTEM_CLOCK) -> Registry:
        """The registry at `url` (`http://…`, `https://…`; `mock://…` is one in this process).

        Nothing is asked yet. Raises ConfigError for a URL that is none, or without the extra.
        """
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise ConfigError(
                f"{SETTING} is set, which needs more packages ({error.name} is missing): "
                "pip install taskmill[registry]"
            ) from None
        if not url.startswith(("http://", "https://", "mock://")):
            raise ConfigError(f"{SETTING}: {without_password(url)!r} is not an http(s):// address")
        try:
            client = SchemaRegistryClient.new_client({"url": url, **_LIMITS})
        except (ValueError, OSError) as error:
            raise ConfigError(f"{SETTING}: {without_password(_line(error))}") from None
        return cls(client, without_password(url), clock)

    def schema(self, schema_id: int) -> str:
        """The text of an Avro schema.

        Raises DecodeError where the registry has no such Avro schema, Unreachable where it does
        not say.
        """
        asked = self._unknown.get(schema_id)
        if asked is not None and self._clock.monotonic() - asked < _UNKNOWN_FOR_S:
            raise self._no_schema(schema_id)
        try:
            found: Any = self._client.get_schema(schema_id)
        except Exception as error:
            if not _says_unknown(error):
                raise self._unreachable(error) from error
            if len(self._unknown) >= _MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = self._clock.monotonic()
            raise self._no_schema(schema_id) from None
        if not found.schema_str:
            raise self._unreachable(ValueError("the answer holds no schema"))
        if (found.schema_type or "AVRO") != "AVRO" or found.references:
            raise DecodeError(
                f"schema ID {schema_id} is {found.schema_type or 'AVRO'}"
                f"{' with references' if found.references else ''}, not one Avro schema"
            )
        return str(found.schema_str)

    def register(self, subject: str, text: str) -> int:
        """The ID of the Avro schema `text` under `subject`, registered now if it was not.

        Raises ConfigError where the registry refuses it, Unreachable where it does not answer.
        """
        from confluent_kafka.schema_registry import Schema

        try:
            return int(self._client.register_schema(subject, Schema(text, "AVRO")))
        except Exception as error:
            status = _status(error)
            if status is None or not 400 <= status < 500 or status in (408, 429):
                raise self._unreachable(error) from error
            raise ConfigError(
                f"schema registry {self._address} refuses subject {subject}: {_line(error)}"
            ) from None

    def close(self) -> None:
        """Close the connections. Nothing can be asked afterwards; twice is fine."""
        self._client.close()

    def _no_schema(self, schema_id: int) -> DecodeError:
        return DecodeError(f"schema ID {schema_id} is not known to the registry {self._address}")

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"schema registry {self._address} did not answer: {_line(error)}")


def without_password(url: str) -> str:
    """`url` without the user and password that it may carry."""
    return ",".join(_USERINFO.sub("//", one) for one in _NEXT.split(url))


def _status(error: Exception) -> int | None:
    """HTTP status of an answer of the registry; None where there was none."""
    status = getattr(error, "http_status_code", None)
    return status if isinstance(status, int) else None


def _says_unknown(error: Exception) -> bool:
    """Whether it is the registry that says so: a proxy or a wrong path answers 404 as well, and
    then no record may be taken for bad. The registry's own codes are 40401, 40402, 40403.
    """
    code = getattr(error, "error_code", None)
    return _status(error) == 404 and isinstance(code, int) and 40400 <= code < 40500


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
