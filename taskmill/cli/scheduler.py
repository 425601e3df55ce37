"""`taskmill scheduler`: passes on what waits for its time, until told to stop."""

from __future__ import annotations

import click

from taskmill.cli.output import log_to_stderr
from taskmill.cli.target import app_option, load_app
from taskmill.runtime.config import load_settings


@click.command()
@app_option(help="Take this App's settings, and serve the queues of its tasks alone.")
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    help="A queue to serve; many times over. Default: the App's, or all that there are.",
)
def scheduler(target: str | None, queues: tuple[str, ...]) -> int:
    """Pass tasks that wait for their next attempt on to their queue, once they are due.

    Retries wait as long as no scheduler runs. Run two, on two machines, and one may fail.
    """
    from taskmill.scheduler.scheduler import Scheduler

    app = load_app(target) if target else None
    settings = load_settings() if app is None else app.settings
    if app is not None and not queues:
        queues = tuple(app.tasks.queues) or ("default",)
    one = Scheduler(settings, queues)
    log_to_stderr(settings.log_level)
    return one.run()
