"""`taskmill worker`: consumes queues until told to stop."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import click

from taskmill.cli.duration import Duration
from taskmill.cli.output import log_by, log_format_option
from taskmill.cli.target import app_option, load_app
from taskmill.consumer.slots import MAX_SLOTS
from taskmill.runtime.errors import ConfigError, TaskmillError

if TYPE_CHECKING:
    from taskmill.consumer.link import WorkerEnd

logger = logging.getLogger("taskmill.worker")


class Work(NamedTuple):
    """What a worker is asked to do, alone or as one of many."""

    target: str
    queues: tuple[str, ...]
    concurrency: int | None
    drain_timeout: float
    log_format: str | None


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
    help="Handlers at once, in each process. Default: 100 async ones, 2 × cores in threads, cores "
    "in processes.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, MAX_SLOTS),
    default=1,
    show_default=True,
    help="Worker processes, each with its share of the partitions. One that dies is replaced. "
    "One page of metrics, on metrics_port, is of all of them.",
)
@click.option(
    "--drain-timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="After SIGTERM, wait this long for running handlers. A second signal stops at once.",
)
@log_format_option
@click.option("--supervised", type=int, hidden=True)  # by the supervisor, for its own processes
def worker(
    target: str,
    queues: tuple[str, ...],
    concurrency: int | None,
    processes: int,
    drain_timeout: float,
    log_format: str | None,
    supervised: int | None,
) -> int:
    """Run the tasks of an App: one member of its queues' consumer groups, or --processes many."""
    work = Work(target, queues, concurrency, drain_timeout, log_format)
    if supervised is not None:
        return _supervised(work, supervised)
    return _work(work) if processes == 1 else _supervise(work, processes)


def _work(work: Work, supervisor: WorkerEnd | None = None) -> int:
    from taskmill.consumer.worker import Worker

    app = load_app(work.target)
    one = Worker(
        app,
        work.queues or tuple(app.tasks.queues) or ("default",),
        concurrency=work.concurrency,
        drain_timeout=work.drain_timeout,
        target=work.target,
        supervisor=supervisor,
    )
    # Of many, whose lines they are must be seen.
    log_by(app.settings, work.log_format, f"slot {one.slot.number}" if supervisor else "")
    return one.run()


def _supervise(work: Work, processes: int) -> int:
    from taskmill.consumer.supervisor import Supervisor
    from taskmill.runtime.config import load_settings

    # The App is imported by the workers alone: what it holds is not held here too.
    settings = load_settings()
    log_by(settings, work.log_format)
    debug = click.get_current_context().find_root().params.get("debug")

    def command(line: int) -> list[str]:
        arguments = ["-A", work.target, "--drain-timeout", f"{work.drain_timeout * 1000:.0f}ms"]
        for queue in work.queues:
            arguments += ["-q", queue]
        if work.concurrency is not None:
            arguments += ["--concurrency", str(work.concurrency)]
        if work.log_format is not None:
            arguments += ["--log-format", work.log_format]
        # -P: a folder named taskmill in the working directory is not this package. What -A names
        # is found there all the same.
        frame = [sys.executable, "-P", "-m", "taskmill", *(["--debug"] if debug else [])]
        return [*frame, "worker", *arguments, "--supervised", str(line)]

    return Supervisor(command, processes, work.drain_timeout, settings.metrics_port).run()


def _supervised(work: Work, fd: int) -> int:
    """A worker process of a supervisor, which is told of a wrong configuration, and tells it."""
    from taskmill.consumer.link import WorkerEnd

    supervisor = WorkerEnd(fd)
    # Blocked up to here, for want of a handler. A handler, not SIG_IGN: processes that tasks start
    # would inherit that.
    signal.signal(signal.SIGINT, _left_to_the_supervisor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        return _work(work, supervisor)
    except TaskmillError as error:
        if error.exit_code != ConfigError.exit_code:
            raise
        logger.debug("refused", exc_info=True)
        supervisor.refuse(str(error))
        return error.exit_code


def _left_to_the_supervisor(number: int, frame: FrameType | None) -> None:
    """Ctrl-C, before the worker works."""
