"""What one call of a task may say of how it is handled: `.options(…)`, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypedDict

from taskmill.producer.definition import NO_HEADERS, TaskCall, TaskDefinition
from taskmill.producer.ids import new_id
from taskmill.producer.retry import check_max_attempts
from taskmill.producer.time_limits import (
    AT_ONCE,
    NO_LIMITS,
    Start,
    TimeLimits,
    start_of,
    time_limits,
)
from taskmill.runtime.config import check_queue
from taskmill.runtime.errors import InvalidArguments
from taskmill.schemas.codec import check_id


class CallOptions(TypedDict, total=False):
    """Options for one call; one that is None is not given.

    `id`: 1 to 512 bytes of UTF-8, unique in its queue, the deduplication key: several calls with
    one run once. `headers`: text that the handler finds in `Context.headers`.
    `delay`: a duration, such as "5m", before which it does not start; or `at`: the time, a datetime
    with a time zone or ISO 8601 text; one in the past is at once.
    `timeout`, `expires`, `deadline`: durations, in place of those that the task declares;
    `max_attempts`, in place of its policy's.
    """

    id: str | None
    queue: str | None
    headers: Mapping[str, str] | None
    delay: str | None
    at: datetime | str | None
    timeout: str | None
    expires: str | None
    deadline: str | None
    max_attempts: int | None


class Options(NamedTuple):
    """CallOptions, checked."""

    id: str | None
    key: bytes
    queue: str
    headers: dict[str, str]
    limits: TimeLimits = NO_LIMITS
    max_attempts: int | None = None
    start: Start = AT_ONCE

    @classmethod
    def of(cls, given: CallOptions, queue: str) -> Options:
        """`queue`: where they name none. Raises InvalidTaskId, InvalidArguments for headers,
        ConfigError for a queue, a duration, a time or a number of attempts."""
        id, headers, attempts = given.get("id"), given.get("headers"), given.get("max_attempts")
        named = given.get("queue")
        if attempts is not None:
            check_max_attempts("", attempts)
        return cls(
            id,
            check_id(id) if id is not None else b"",
            check_queue(queue if named is None else named),
            check_headers(headers) if headers else NO_HEADERS,
            time_limits("", given.get("timeout"), given.get("expires"), given.get("deadline")),
            attempts,
            start_of(given.get("delay"), given.get("at")),
        )

    def call(self, name: str, payload: bytes, definition: TaskDefinition | None) -> TaskCall[Any]:
        """The call of task `name` under these options; an ID is made where none is given."""
        made = self.id if self.id is not None else new_id()
        return TaskCall(
            name,
            made,
            self.key or made.encode(),
            payload,
            self.queue,
            self.headers,
            self.id is None,
            definition,
            self.limits,
            self.max_attempts,
            self.start,
        )


def is_past(call: TaskCall[Any], now_ms: int) -> bool:
    """Whether a time was given for `call` that is past by `now_ms`: it runs at once."""
    return call.start.at_ms is not None and call.start.at_ms <= now_ms


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A copy of `headers`. Raises InvalidArguments unless all are text."""
    for key, value in headers.items():
        for part in (key, value):
            if not isinstance(part, str) or not _is_utf8(part):
                raise InvalidArguments(f"header {key!r:.100}: names and values are text (str)")
    return dict(headers)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
