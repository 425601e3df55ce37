"""Grafana dashboards as code: deploy/generate.py writes what `files` gives to deploy/grafana."""

from __future__ import annotations

from collections.abc import Iterator

from dashboards import kafka, letters, overview, queue, scheduler, worker


def files() -> Iterator[tuple[str, str]]:
    """Name and text of each dashboard's file."""
    for module in (overview, queue, worker, letters, scheduler, kafka):
        yield f"{module.__name__.rpartition('.')[2]}.json", module.dashboard()
