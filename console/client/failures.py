"""What answers that are none of success mean, as errors of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from taskmill.console.api.models import Problem
from taskmill.console.client.wire import Answer
from taskmill.runtime.errors import (
    Conflict,
    Gone,
    InvalidInput,
    NotAllowed,
    NotFound,
    PayloadTooLarge,
    TaskmillError,
    Unreachable,
)

M = TypeVar("M", bound=BaseModel)

_ERRORS: dict[int, type[TaskmillError]] = {
    400: InvalidInput,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: PayloadTooLarge,
    415: InvalidInput,
    422: InvalidInput,
    502: Unreachable,
    503: Unreachable,
    504: Unreachable,
}


def failure(answer: Answer, address: str) -> TaskmillError:
    """The error that an answer of 3xx, 4xx or 5xx is, with the problem's own text."""
    problem = problem_of(answer)
    kind = _ERRORS.get(answer.status, TaskmillError)
    if problem is None:
        told = f"{address} answered {answer.status}: is that a console's address?"
        return (kind if kind is Unreachable else TaskmillError)(told)
    detail = problem.detail
    allowed = problem.errors[0].allowed if problem.errors and len(problem.errors) == 1 else None
    if allowed and allowed not in detail:
        detail += f": expected {allowed}"
    if kind is Unreachable:
        detail = f"the console at {address}: {detail}"
    if answer.status == 401 and (challenge := answer.headers.get("www-authenticate")):
        detail = _no_token(challenge, address, detail)
    error = kind(" ".join(detail.split()))
    error.request_id = problem.request_id
    return error


def _no_token(challenge: str, address: str, detail: str) -> str:
    """What to do about a token that is missing, or is not taken (RFC 6750, 3)."""
    if "invalid_token" not in challenge:
        detail = f"the console at {address} wants a token, and got none"
    return f"{detail}; `taskmill tokens create` makes one, TASKMILL_API_TOKEN takes it"


def problem_of(answer: Answer) -> Problem | None:
    """The problem document; None: it is none."""
    try:
        return Problem.model_validate_json(answer.body, extra="ignore")
    except ValidationError:
        return None


def document(model: type[M]) -> Callable[[Answer], M]:
    """Reads an answer as `model`. What a newer console says beyond that is passed over."""

    def read(answer: Answer) -> M:
        try:
            return model.model_validate_json(answer.body, extra="ignore")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise TaskmillError(
                f"an answer of the console is no {model.__name__} ({where}: {first['msg']}): it is "
                "of another release, or it is no console"
            ) from None

    return read


def nothing(_: Answer) -> None:
    """Reads an answer that says nothing."""
