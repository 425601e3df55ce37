"""What goes wrong, as problem documents (RFC 9457): one exception, one table, one response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.responses import Response

from taskmill.console.api.models import FieldProblem, Problem
from taskmill.runtime.errors import (
    ConfigError,
    InvalidInput,
    PayloadTooLarge,
    TaskmillError,
    Unreachable,
)

MEDIA_TYPE = "application/problem+json"
#: What "come again" means: long enough for a broker's election or a database's restart to go on.
RETRY_AFTER_S = 2


class Kind(NamedTuple):
    """A type of problem: its status, and its title, the same for all of it."""

    status: int
    title: str


#: By the last part of `type`.
KINDS: dict[str, Kind] = {
    "malformed": Kind(400, "The request is malformed"),
    "unauthorized": Kind(401, "A valid token is needed"),
    "forbidden": Kind(403, "The token does not allow this"),
    "not-found": Kind(404, "There is no such thing"),
    "method": Kind(405, "This route has no such method"),
    "conflict": Kind(409, "It does not go with how things stand"),
    "gone": Kind(410, "It is no longer kept"),
    "too-large": Kind(413, "The request is too large"),
    "media-type": Kind(415, "The body is of another type"),
    "invalid": Kind(422, "The request cannot be accepted"),
    "failed": Kind(500, "The console failed"),
    "unavailable": Kind(503, "Something that this needs is away or behind"),
}


class Refused(Exception):
    """A request ends here, with a problem document. `kind` is a key of KINDS."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Iterable[FieldProblem] = (),
        scope: str | None = None,
        replay: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = list(errors) or None
        self.scope = scope
        self.replay = replay
        self.headers = dict(headers or {})
        if kind == "unavailable":
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        elif kind == "unauthorized":
            self.headers.setdefault("WWW-Authenticate", 'Bearer realm="taskmill"')

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind].status

    def problem(self, request_id: str) -> Problem:
        """The document."""
        return Problem.model_validate(
            {
                "type": f"/problems/{self.kind}",
                "title": KINDS[self.kind].title,
                "status": self.status,
                "detail": self.detail,
                "request_id": request_id,
                "errors": self.errors,
                "scope": self.scope,
                "replay": self.replay,
            }
        )

    def response(self, request_id: str) -> Response:
        """The answer."""
        body = to_json(self.problem(request_id).model_dump(mode="json"))
        return Response(body, self.status, self.headers, MEDIA_TYPE)


def field(kind: str, name: str, message: str, allowed: str | None = None) -> Refused:
    """A refusal of one field."""
    one = FieldProblem(field=name, message=message, allowed=allowed)
    detail = message if message.startswith(name) else f"{name}: {message}"
    return Refused(kind, detail, errors=[one])


def of_error(error: TaskmillError, name: str | None = None) -> Refused:
    """How an error of ours is told; `name`: the field that it is about, where one is."""
    text = str(error)
    if isinstance(error, Unreachable):
        return Refused("unavailable", text)
    if isinstance(error, PayloadTooLarge):
        return field("too-large", name or "args", text)
    if isinstance(error, (ConfigError, InvalidInput)):
        return field("invalid", name, text) if name else Refused("invalid", text)
    return Refused("failed", text)


def of_validation(error: ValidationError) -> Refused:
    """A body that pydantic refused: 400 where it is no JSON, else 422 with each field."""
    return of_details(error.errors(include_url=False, include_context=False), "body")


#: Fields that the command line has, or will have, and the API not yet.
_LATER = {"priority", "lock"}


def of_details(details: list[Any] | list[ErrorDetails], where: str) -> Refused:
    """`where`: "body", or "request" for what is beside it (a query, a path): that is 400."""
    if any(one["type"] == "json_invalid" for one in details):
        why = details[0]["msg"].removeprefix("Invalid JSON: ")
        error = details[0].get("ctx", {}).get("error") if "ctx" in details[0] else None
        return Refused("malformed", f"the body is no JSON: {error or why}")
    problems = [_field_problem(one) for one in details[:20]]
    first = problems[0]
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    kind = "invalid" if where == "body" else "malformed"
    return Refused(kind, f"{first.field}: {first.message}{more}", errors=problems)


def _field_problem(one: Any) -> FieldProblem:
    path = [str(part) for part in one["loc"]]
    message, allowed = str(one["msg"]).removeprefix("Value error, "), None
    if one["type"] == "extra_forbidden":
        last = path[-1] if path else ""
        later = last in _LATER
        message = "is not offered yet" if later else "is no field or parameter of this"
    elif "expected" in (one.get("ctx") or {}):
        allowed = str(one["ctx"]["expected"])
    return FieldProblem(field=".".join(path) or "body", message=_plain(message), allowed=allowed)


def _plain(text: str) -> str:
    """What is printed as JSON, whatever somebody sent."""
    return text.encode("utf-8", "backslashreplace").decode()[:500]
