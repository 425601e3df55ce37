"""What is open to all: whether the console lives and is ready, metrics, the dashboard's page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from taskmill.console.api.models import Document
from taskmill.console.api.problems import Refused
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.runtime.metric_page import Page as MetricPage

#: Nothing from elsewhere, nothing inline, in no frame.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)
_PAGE_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Asked for again after an upgrade; unchanged, it is not sent again.
    "cache-control": "no-cache",
    "x-frame-options": "DENY",
}

Call = Callable[[Request], Awaitable[Response]]


class Health(Document):
    """Whether it is well."""

    status: str


class Page(StaticFiles):
    """The dashboard's files, under a strict policy."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        for name, value in _PAGE_HEADERS.items():
            response.headers[name] = value
        return response


class PageMount(Mount):
    """The page's place: every path that is not the API's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            return Match.NONE, {}
        return super().matches(scope)


class Site:
    """The open routes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._counted = CollectorRegistry(auto_describe=False)
        self._counted.register(MetricPage(services.counted.read))

    async def healthz(self, _: Request) -> Response:
        """Tell that this process answers."""
        return answer(Health(status="ok"))

    async def readyz(self, _: Request) -> Response:
        """Tell whether Kafka and the store answer, and the store is not behind; else 503."""
        services = self._services
        if services.ending.is_set():
            raise Refused("unavailable", "the console is about to end")
        services.brokers.check()
        if not services.brokers.is_known:
            raise Refused("unavailable", "Kafka has not answered yet")
        await services.reads.ask(services.reads.store.ping)
        await services.reads.as_of()
        return answer(Health(status="ready"))

    async def metrics(self, _: Request) -> Response:
        """Metrics in Prometheus' text format."""
        page = generate_latest(REGISTRY) + generate_latest(self._counted)
        return Response(page, media_type=CONTENT_TYPE_LATEST)


def add_site(app: FastAPI, services: Services) -> None:
    """Add the open routes, the page last: it takes every path that is left."""
    site = Site(services)
    for path, call in (
        ("/healthz", site.healthz),
        ("/readyz", site.readyz),
        ("/metrics", site.metrics),
    ):
        app.router.add_route(path, call, methods=["GET"], include_in_schema=False)
    page = Page(directory=page_folder(services.page), html=True)
    app.router.routes.append(PageMount("/", page, name="page"))


def page_folder(given: Path | None) -> Path:
    """Where the dashboard's files are."""
    return given or Path(__file__).resolve().parent.parent / "page"
