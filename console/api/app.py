"""The API as an ASGI application: its table of routes, and how every failure is told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from taskmill._version import __version__
from taskmill.console.api import models as m
from taskmill.console.api import operations as o
from taskmill.console.api.access import ANY, admit
from taskmill.console.api.act import Act
from taskmill.console.api.calendar import Calendar
from taskmill.console.api.edge import MAX_BODY_BYTES, Edge, request_id
from taskmill.console.api.enqueue import Enqueue
from taskmill.console.api.front import Front
from taskmill.console.api.letters import DeadLetters
from taskmill.console.api.look import Look
from taskmill.console.api.openapi import describe
from taskmill.console.api.overview import Glance
from taskmill.console.api.problems import Refused, of_details, of_error
from taskmill.console.api.queues import QueueRoutes
from taskmill.console.api.replays import Replays
from taskmill.console.api.routes import BASE, Answers, add_route, guarded
from taskmill.console.api.routes import Route as Entry
from taskmill.console.api.services import Services
from taskmill.console.api.site import add_site
from taskmill.console.api.stream import Stream
from taskmill.runtime.errors import TaskmillError

logger = logging.getLogger("taskmill.console")

_GZIP_BYTES = 1_024


def create_app(services: Services, replays: Replays) -> ASGIApp:
    """The application. `services` are started and closed by whoever serves it."""
    routes = table(services, replays)
    app = bare_app(services, routes)
    many = {one.path: one.handler for one in routes if one.scope == "enqueue"}
    front = Front(app, services.tokens, "enqueue", many, BASE)
    return Edge(front, services.clock, max(MAX_BODY_BYTES, 8 * services.settings.max_task_bytes))


def bare_app(services: Services, routes: list[Entry]) -> FastAPI:
    """The application without its edge, of these routes and the open ones."""
    app = FastAPI(
        title="taskmill",
        version=__version__,
        description="Tasks on Apache Kafka: enqueue them, and see what became of them.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.route_class = guarded(services.tokens)
    for route in routes:
        add_route(app, route)
    document = describe(app, routes)

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    app.router.add_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
    add_site(app, services)
    app.add_middleware(GZipMiddleware, minimum_size=_GZIP_BYTES, compresslevel=5)
    _tell_failures(app, services)
    return app


def table(services: Services, replays: Replays) -> list[Entry]:
    """Every route that asks for a token. One whose path ends in a word comes before one whose path
    ends in any text."""
    enqueue, look, stream = Enqueue(services), Look(services), Stream(services)
    act, letters = Act(services, look, replays), DeadLetters(services, replays)
    calendar, queues = Calendar(services), QueueRoutes(services)
    task, schedule = "/tasks/{id:text}", "/schedules/{id:text}"
    one_task, one_schedule = "/tasks/{id:whole}", "/schedules/{id:whole}"
    enqueued: Answers = {202: m.Enqueued, 200: m.Enqueued}
    replayed: Answers = {202: o.Replay, 200: o.ReplayPreview}
    ended: Answers = {200: m.TaskResult, 202: m.TaskResult}
    put: Answers = {200: o.Schedule, 201: o.Schedule}
    letter = "/dlq/{queue:word}/{partition:word}/{offset:word}"
    return [
        Entry("GET", "/me", look.me, ANY, {200: m.Me}),
        Entry("POST", "/tasks", enqueue.one, "enqueue", enqueued, (413,), m.NewTask),
        Entry("POST", "/tasks:batch", enqueue.many, "enqueue", {202: m.BatchAnswer}, (), m.Batch),
        Entry("GET", "/tasks", look.page, "read", {200: m.TaskPage}),
        Entry(
            "GET", "/tasks/stream", stream.open, "read", {200: None}, (), None, "text/event-stream"
        ),
        Entry("GET", f"{task}/result", look.result, "read", ended, (404, 410)),
        Entry("POST", f"{task}/cancel", act.cancel, "operate", {202: m.Asked}, (404, 409, 422)),
        Entry("POST", f"{task}/run", act.run, "operate", {202: m.RunAgain}, (404, 409, 422)),
        Entry("GET", one_task, look.one, "read", {200: m.TaskDetail}, (404,)),
        Entry("GET", "/dlq", letters.page, "read", {200: o.LetterPage}),
        Entry("GET", "/dlq/groups", letters.groups, "read", {200: o.LetterGroups}),
        Entry("POST", "/dlq/replay", letters.replay, "operate", replayed, (409,), o.ReplayOrder),
        Entry("GET", "/dlq/replays", letters.replays, "read", {200: o.Replays}),
        Entry("GET", "/dlq/replays/{id:word}", letters.one_replay, "read", {200: o.Replay}, (404,)),
        Entry("GET", letter, letters.one, "read", {200: o.LetterDetail}, (404,)),
        Entry("GET", "/schedules", calendar.page, "read", {200: o.Schedules}),
        Entry(
            "POST", f"{schedule}/trigger", calendar.trigger, "operate", {202: o.Triggered},
            (404, 409, 422),
        ),
        Entry(
            "POST", f"{schedule}/pause", calendar.pause, "operate", {200: o.Schedule},
            (404, 409, 422),
        ),
        Entry(
            "POST", f"{schedule}/resume", calendar.resume, "operate", {200: o.Schedule},
            (404, 409, 422),
        ),
        Entry("GET", one_schedule, calendar.one, "read", {200: o.Schedule}, (404,)),
        Entry("PUT", one_schedule, calendar.put, "operate", put, (409,), o.NewSchedule),
        Entry("DELETE", one_schedule, calendar.remove, "operate", {204: None}, (404,)),
        Entry("GET", "/queues", queues.page, "read", {200: o.Queues}),
        Entry(
            "POST", "/queues/{queue:word}/pause", queues.pause, "operate", {200: o.Paused},
            (404, 422),
        ),
        Entry(
            "POST", "/queues/{queue:word}/resume", queues.resume, "operate", {200: o.Paused},
            (404, 422),
        ),
        Entry("GET", "/workers", queues.workers, "read", {200: o.Workers}),
        Entry("GET", "/overview", Glance(services, queues).overview, "read", {200: o.Overview}),
    ]  # fmt: skip


def _tell_failures(app: FastAPI, services: Services) -> None:
    """Every failure as a problem document."""

    def tell(refusal: Refused) -> Response:
        return refusal.response(request_id.get())

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused), "registered for it"
        return tell(error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError), "registered for it"
        details: list[Any] = [
            # Beside where it was said: in the query or the path.
            {**one, "loc": tuple(one["loc"])[1:]}
            for one in error.errors()
        ]
        return tell(of_details(details, "request"))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "registered for it"
        if isinstance(error.__cause__, Refused):
            return tell(error.__cause__)
        if request.url.path.startswith("/api/"):
            try:
                # What there is, nobody without a token is told.
                admit(services.tokens, request)
            except Refused as refusal:
                return tell(refusal)
            except TaskmillError as away:
                return tell(of_error(away))
        return tell(_http_refusal(request, error))

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, TaskmillError), "registered for it"
        return tell(of_error(error))

    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, asyncio.CancelledError):
            raise error
        logger.error("request %s failed", request_id.get(), exc_info=error)
        return tell(Refused("failed", f"request {request_id.get()} failed: the log tells why"))

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(TaskmillError, ours)
    app.add_exception_handler(Exception, failed)


def _http_refusal(request: Request, error: HTTPException) -> Refused:
    path = request.url.path
    if error.status_code == 405:
        methods: set[str] = set()
        for route in request.app.routes:
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
                methods |= route.methods or set()
        allowed = ", ".join(sorted(methods)) or "GET, HEAD"
        detail = f"{request.method} is no method of {path[:200]}; it has {allowed}"
        return Refused("method", detail, headers={"Allow": allowed})
    if error.status_code == 404:
        return Refused("not-found", f"no route {path[:200]}; those that there are: /openapi.json")
    kind = "failed" if error.status_code >= 500 else "malformed"
    return Refused(kind, str(error.detail))


__all__ = ["BASE", "bare_app", "create_app", "table"]
