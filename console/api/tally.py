"""Requests as metrics: how many of each route, by status, and how long they took."""

from __future__ import annotations

from prometheus_client import Counter, Histogram
from starlette.types import Scope

_REQUESTS = Counter(
    "taskmill_console_requests",
    "Requests that the console answered.",
    ("method", "route", "status"),
)
_SECONDS = Histogram(
    "taskmill_console_request_seconds",
    "How long the console took to answer; of waits and streams, until they ended.",
    ("method", "route"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
#: Where a route leaves its name: what was asked for may be any text.
ROUTE = "taskmill.route"

_counters: dict[tuple[str, str, int], Counter] = {}
_histograms: dict[tuple[str, str], Histogram] = {}


def count(scope: Scope, status: int, seconds: float) -> None:
    """Count a request that was answered. From the event loop alone."""
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    route = scope.get(ROUTE, "other")
    counter = _counters.get((method, route, status))
    if counter is None:
        counter = _REQUESTS.labels(method, route, str(status))
        _counters[method, route, status] = counter
    counter.inc()
    histogram = _histograms.get((method, route))
    if histogram is None:
        histogram = _histograms[method, route] = _SECONDS.labels(method, route)
    histogram.observe(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
