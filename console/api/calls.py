"""From what a request says of a task to the call of it; what is wrong names its field."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from taskmill.console.api.models import NewTask
from taskmill.console.api.problems import Refused, of_error, of_validation
from taskmill.producer.definition import DEFAULT_QUEUE, TaskCall, check_name
from taskmill.producer.encoding import TaskEncoder
from taskmill.producer.options import CallOptions, Options
from taskmill.producer.undeclared import dump_undeclared
from taskmill.runtime.errors import TaskmillError

M = TypeVar("M", bound=BaseModel)

_OPTIONS = (
    "id",
    "queue",
    "delay",
    "at",
    "timeout",
    "expires",
    "deadline",
    "max_attempts",
    "headers",
)
#: Fields that need no options.
_PLAIN = frozenset({"name", "args", "queue"})
_JSON = ("application/json", "")


async def body_of(request: Request, model: type[M]) -> M:
    """The body of a request as `model`. Raises Refused: 400, 413, 415 or 422."""
    try:
        return model.model_validate_json(await json_body(request))
    except ValidationError as error:
        raise of_validation(error) from None


async def json_body(request: Request) -> bytes:
    """The bytes of a body that says it is JSON. Raises Refused, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _JSON:
        raise Refused("media-type", f"the body is {kind[:80]!r}; application/json is taken")
    try:
        return await request.body()
    except ClientDisconnect:
        raise Refused("malformed", "the connection ended before the body did") from None


def call_of(task: NewTask) -> TaskCall[Any]:
    """The call. Raises Refused, which names the field."""
    options = _plain(task.queue) if task.model_fields_set <= _PLAIN else _options(task)
    try:
        return options.call(task.name, dump_undeclared(task.name, task.args), None)
    except TaskmillError as error:
        raise of_error(error, "args" if _is_name(task.name) else "name") from None


def _options(task: NewTask) -> Options:
    given: CallOptions = {
        name: value for name in _OPTIONS if (value := getattr(task, name)) is not None
    }  # type: ignore[assignment]
    try:
        return Options.of(given, DEFAULT_QUEUE)
    except TaskmillError as error:
        raise of_error(error, _culprit(dict(given))) from None


@lru_cache(maxsize=1024)
def _plain(queue: str) -> Options:
    """Of tasks that say no more than their queue: most."""
    return Options.of({}, queue)


def check_size(encoder: TaskEncoder, call: TaskCall[Any]) -> None:
    """Raises Refused, 413, for a task that Kafka would not take."""
    try:
        encoder.encode(call)
    except TaskmillError as error:
        raise of_error(error, "args") from None


def location(id: str, queue: str) -> str:
    """The address of a task."""
    return f"/api/v1/tasks/{quote(id, safe='')}?queue={queue}"


def _culprit(given: dict[str, Any]) -> str:
    """The option that cannot be, each tried alone."""
    for name, value in given.items():
        try:
            Options.of({name: value}, DEFAULT_QUEUE)  # type: ignore[misc]
        except TaskmillError:
            return name
    return "at"  # with a delay: one of them is allowed


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except TaskmillError:
        return False
    return True
