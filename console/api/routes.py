"""The table of routes: each says which scope it needs, or it cannot be made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api.access import ANY, IMPLIED, TokenCheck, admit
from taskmill.console.api.models import Problem
from taskmill.console.api.problems import KINDS
from taskmill.console.api.tally import ROUTE

BASE = "/api/v1"

Handler = Callable[..., Awaitable[Response]]
#: Documents by status; None: no document.
Answers = Mapping[int, type[BaseModel] | None]


class Route(NamedTuple):
    """One method of one path. `answers`: the documents of its 2xx, by status (None: no body);
    `fails`: its 4xx beside those that every route has; `body`: what it takes."""

    method: str
    path: str
    handler: Handler
    scope: str
    answers: Answers
    fails: tuple[int, ...] = ()
    body: type[BaseModel] | None = None
    #: Of an answer that is no JSON.
    media_type: str | None = None


def answer(
    document: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A document as an answer."""
    return Response(document.model_dump_json(), status, headers, "application/json")


def guarded(tokens: TokenCheck) -> type[APIRoute]:
    """The class of routes that admit nobody without a token of their scope."""

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()
            # KeyError: a route that does not say its scope cannot be made.
            scope = (self.openapi_extra or {})["x-scope"]
            if scope != ANY and scope not in IMPLIED:
                raise ValueError(f"{self.path}: no scope {scope!r}")

            name = self.path_format.removeprefix(BASE)

            async def handler(request: Request) -> Response:
                request.scope[ROUTE] = name
                admit(tokens, request).check_scope(scope)
                return await inner(request)

            return handler

    return Guarded


def add_route(app: FastAPI, route: Route) -> None:
    """Add one to the application, whose routes are of a guarded class."""
    # Bad queries and paths, no or not enough of a token, a failure, something away.
    fails = {400, 401, 403, 500, 503, *route.fails}
    extra: dict[str, Any] = {"x-scope": route.scope, "security": [{"token": []}]}
    if route.body is not None:
        fails |= {413, 415, 422}
        reference = {"$ref": f"#/components/schemas/{route.body.__name__}"}
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": _title(status)} for status in sorted(fails)
    }
    first, *_ = route.answers
    for status, model in route.answers.items():
        responses[status] = {"description": _DESCRIPTIONS[status]}
        if route.media_type is not None:
            responses[status]["content"] = {route.media_type: {"schema": {"type": "string"}}}
        elif model is not None:
            responses[status]["model"] = model
    handler = route.handler
    app.add_api_route(
        BASE + route.path,
        handler,
        methods=[route.method],
        status_code=first,
        response_model=None,
        response_class=Response,
        responses=responses,
        openapi_extra=extra,
        name=f"{route.method} {route.path}",
        summary=_summary(handler),
        description=(handler.__doc__ or "").strip(),
    )


_DESCRIPTIONS = {
    200: "It is so.",
    201: "It was made.",
    202: "It is accepted, and not done yet.",
    204: "It is gone.",
}


def _title(status: int) -> str:
    return next(kind.title for kind in KINDS.values() if kind.status == status)


def _summary(handler: Handler) -> str:
    return (handler.__doc__ or "").strip().split("\n", 1)[0].rstrip(".")
