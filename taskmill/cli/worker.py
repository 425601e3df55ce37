"""`taskmill worker`: consumes queues until told to stop."""

from __future__ import annotations

import click

from taskmill.cli.duration import Duration
from taskmill.cli.output import log_to_stderr
from taskmill.cli.target import app_option, load_app


@click.command()
@app_option(required=True)
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    help="A queue to consume; many times over. Default: all that the App's tasks are sent to.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100_000),
    help="Handlers at once. Default: 100 async ones, 2 × cores in threads, cores in processes.",
)
@click.option(
    "--drain-timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="After SIGTERM, wait this long for running handlers. A second signal stops at once.",
)
def worker(
    target: str, queues: tuple[str, ...], concurrency: int | None, drain_timeout: float
) -> int:
    """Run the tasks of an App: one member of its queues' consumer groups."""
    from taskmill.consumer.worker import Worker

    app = load_app(target)
    log_to_stderr(app.settings.log_level)
    names = queues or tuple(app.tasks.queues) or ("default",)
    return Worker(
        app, names, concurrency=concurrency, drain_timeout=drain_timeout, target=target
    ).run()
