"""What can be asked of a console about tasks: each call is made into a value, and nothing is sent.

Times that a call takes (`since`, `at`) are ISO 8601, a datetime, or a time ago ("1h"); durations
are written "30s", "5m". Each raises what its answer says: InvalidInput, NotAllowed, NotFound,
Conflict; Unreachable where there is none in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from taskmill.console.api import models as m
from taskmill.console.client.failures import document
from taskmill.console.client.wire import Answer, Operation, Pages, Request, path, query
from taskmill.producer.ids import new_id
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import ConfigError, InvalidArguments, InvalidInput
from taskmill.schemas.codec import check_id
from taskmill.schemas.states import Status

Moment = str | datetime
Words = str | Sequence[str] | None
M = TypeVar("M", bound=BaseModel)
#: What goes with a body.
JSON_BODY = (("content-type", "application/json"),)


def me() -> Operation[m.Me]:
    """What the token may do."""
    return Operation(Request("GET", "/me"), document(m.Me))


# ---- enqueueing -------------------------------------------------------------------------------


def enqueue(
    name: str,
    args: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,
    queue: str = "default",
    delay: str | None = None,
    at: Moment | None = None,
    timeout: str | None = None,
    expires: str | None = None,
    deadline: str | None = None,
    max_attempts: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Operation[m.Enqueued]:
    """Put a task on its queue; returns once Kafka has acknowledged it. `args`: by name.

    Without `id` it has one that is made here, so that a request that is sent again is no second
    task. `duplicate` in the answer: there was one of that `id` before.
    """
    said = {
        "name": name,
        "args": dict(args or {}),
        "id": id,
        "queue": queue,
        "delay": delay,
        "at": at.isoformat() if isinstance(at, datetime) else at,
        "timeout": timeout,
        "expires": expires,
        "deadline": deadline,
        "max_attempts": max_attempts,
        "headers": None if headers is None else dict(headers),
    }
    task = new_task(said)
    read = document(m.Enqueued)

    def read_own(answer: Answer) -> m.Enqueued:
        # A duplicate of an ID made for this call is what an attempt before this one sent.
        return read(answer).model_copy(update={"duplicate": False})

    request = Request("POST", "/tasks", body=body_of(task), headers=JSON_BODY)
    return Operation(request, read if id is not None else read_own)


def enqueue_many(
    tasks: Iterable[m.NewTask | Mapping[str, Any]], *, mode: Literal["all", "each"] = "all"
) -> Operation[m.BatchAnswer]:
    """Put up to 10,000 tasks on their queues. `tasks`: NewTask, or what `enqueue` takes by name.

    `all`: nothing is sent where one is wrong; `each`: the answer says it of each, in order.
    """
    batch = {"tasks": [new_task(task) for task in tasks], "mode": mode}
    body = body_of(made(m.Batch, batch))
    return Operation(
        Request("POST", "/tasks:batch", body=body, headers=JSON_BODY), document(m.BatchAnswer)
    )


def new_task(said: m.NewTask | Mapping[str, Any]) -> m.NewTask:
    """A task to be sent, with an ID. Raises InvalidInput, one line."""
    task = said if isinstance(said, m.NewTask) else made(m.NewTask, dict(said))
    return task if task.id is not None else task.model_copy(update={"id": new_id()})


def made(model: type[M], said: Mapping[str, Any]) -> M:
    """A document of what was given by name. Raises InvalidInput, one line."""
    try:
        return model.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def body_of(model: BaseModel) -> bytes:
    """A document as JSON. Raises InvalidArguments."""
    try:
        return model.model_dump_json(exclude_none=True).encode()
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise InvalidArguments(f"what is sent cannot be serialised as JSON: {why}") from None


# ---- looking ----------------------------------------------------------------------------------


def task(id: str, *, queue: str = "default") -> Operation[m.TaskDetail]:
    """A task whole: state, arguments, result, attempts."""
    return Operation(_of_task("GET", id, queue=queue), document(m.TaskDetail))


def result(id: str, *, queue: str = "default", wait: str = "0s") -> Operation[m.TaskResult]:
    """How a task stands, and its result or error once it has ended; waits up to `wait` (60 s at
    the most) for that. Raises Gone where its `result_ttl` is over. `ended` waits longer."""
    request = _of_task("GET", id, "result", queue=queue, wait=wait)
    return Operation(request._replace(wait_s=_wait_s(wait)), document(m.TaskResult))


def tasks(
    *,
    status: Status | str | Sequence[Status | str] | None = None,
    name: Words = None,
    queue: Words = None,
    since: Moment | None = None,
    until: Moment | None = None,
    prefix: str | None = None,
    parent: str | None = None,
    page: int = 100,
) -> Pages[m.Task]:
    """Tasks, newest first, page by page as they are taken. `since`, `until`: when they were
    enqueued; `prefix`: of their IDs; `parent`: the task that enqueued them."""
    said = query(
        status=status, name=name, queue=queue, since=since, until=until, prefix=prefix,
        parent=parent, limit=page,
    )  # fmt: skip
    read = document(m.TaskPage)

    def of_page(answer: Answer) -> tuple[list[m.Task], str | None]:
        found = read(answer)
        return found.tasks, found.next

    return Pages(Request("GET", "/tasks", said), of_page)


def changes(*, status: Words = None, name: Words = None, queue: Words = None) -> Request:
    """The stream of tasks as they change (see Event)."""
    return Request("GET", "/tasks/stream", query(status=status, name=name, queue=queue))


# ---- acting -----------------------------------------------------------------------------------


def cancel(id: str, *, queue: str = "default", unseen: bool = False) -> Operation[m.Asked]:
    """Have a task end, wherever it stands: a worker of its queue sees to that. Raises Conflict
    where it has ended, NotFound for an ID that is not known; with `unseen`, what comes under that
    later is not run."""
    request = _of_task("POST", id, "cancel", queue=queue)
    if unseen:
        request = request._replace(query=(*request.query, ("unseen", "true")))
    return Operation(request, document(m.Asked))


def run_again(id: str, *, queue: str = "default") -> Operation[m.RunAgain]:
    """Run a finished task once more, as a new generation. Raises Conflict where it has not
    ended. Not sent again where it may have been carried out."""
    request = _of_task("POST", id, "run", queue=queue)._replace(wait_s=20.0)
    return Operation(request, document(m.RunAgain), is_repeatable=False)


def _of_task(method: str, id: str, *word: str, **said: str) -> Request:
    check_id(id)
    return Request(method, path("tasks", id, *word), query(**said))


def _wait_s(wait: str) -> float:
    try:
        return parse_duration(wait)
    except ConfigError as error:
        raise InvalidInput(str(error)) from None
