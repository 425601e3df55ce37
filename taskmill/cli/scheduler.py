"""`taskmill scheduler`: enqueues what waits for its time, until told to stop."""

from __future__ import annotations

import click

from taskmill.cli.output import log_by, log_format_option
from taskmill.cli.target import app_option, load_app
from taskmill.runtime.config import load_settings


@click.command()
@app_option(
    help="Take this App's settings, serve the queues of its tasks alone, and bring Kafka up to "
    "date with the schedules that it declares."
)
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    help="A queue to serve; many times over. Default: the App's, or all that there are.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve metrics here, not on metrics_port: for one beside a worker. 0: any free port.",
)
@log_format_option
def scheduler(
    target: str | None, queues: tuple[str, ...], metrics_port: int | None, log_format: str | None
) -> int:
    """Fire schedules, and pass tasks that wait for their next attempt on, once they are due.

    All that waits as long as no scheduler runs. Run two, on two machines, and one may fail.
    """
    from taskmill.scheduler.scheduler import Scheduler

    app = load_app(target) if target else None
    settings = load_settings() if app is None else app.settings
    if app is not None and not queues:
        queues = tuple(app.tasks.queues) or ("default",)
    if metrics_port is not None:
        settings = settings.model_copy(update={"metrics_port": metrics_port})
    one = Scheduler(settings, queues)
    log_by(settings, log_format)
    if app is not None:
        one.declare(app.name, app.schedules.values())
    return one.run()
