"""`taskmill dev`: every role of an App on this machine, with a broker, until Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import IO

import click

from taskmill.cli.dev_console import dev_console
from taskmill.cli.output import note
from taskmill.cli.target import app_option, load_app
from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.local_broker import LocalBroker
from taskmill.runtime.topics import ensure

#: The roles that exist, by name: the arguments of the command that each is.
ROLES: dict[str, Callable[[str, Settings], list[str]]] = {
    "worker": lambda target, _: ["worker", "-A", target],
    "scheduler": lambda target, settings: ["scheduler", "-A", target, *_port_after(settings)],
}

#: Above a worker's own limit of 30 s for its running handlers.
DRAIN_S = 40.0
#: How soon an end is seen; signals are seen at once.
_LOOK_S = 0.2


@click.command()
@app_option(required=True)
def dev(target: str) -> int:
    """Run all that an App needs here: a broker, its topics, a worker, a scheduler, a console.

    The local broker is started where no bootstrap_servers is set, and stopped at the end if this
    started it; its data stays. Ctrl-C drains; a second one stops at once.
    """
    app = load_app(target)
    settings = app.settings
    with _broker(settings):
        queues = tuple(app.tasks.queues) or ("default",)
        for queue in queues:
            ensure(settings, queue)
        note(f"Kafka at {bootstrap_servers(settings)}, prefix {settings.prefix}")
        tasks = ", ".join(task.name for task in app.tasks) or "none"
        note(f"App {app.name}: tasks {tasks}; queues {', '.join(queues)}")
        with _signals() as told, dev_console(settings) as console:
            group = Group()
            for role, arguments in ROLES.items():
                group.start(role, arguments(target, settings))
            if console is not None:
                group.start("console", ["console", "-A", target, *console.arguments])
                note(f"console at {console.url}")
            note("Ctrl-C drains and ends")
            return group.run(told)


@contextmanager
def _broker(settings: Settings) -> Iterator[None]:
    """The local broker, unless one is given. Left running where it ran before."""
    if settings.bootstrap_servers is not None:
        yield
        return
    broker = LocalBroker(settings.state_dir, say=note)
    if not broker.status().running:
        note("starting a local Apache Kafka, some seconds")
    started_now = broker.start().started_now
    try:
        yield
    finally:
        if started_now:
            broker.stop()
            note("the local broker has ended; its data stays")


@contextmanager
def _signals() -> Iterator[SimpleQueue[int]]:
    """SIGINT, SIGTERM and SIGHUP, as they come, instead of an end in the middle of something."""
    told: SimpleQueue[int] = SimpleQueue()

    def tell(number: int, frame: FrameType | None) -> None:
        told.put(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, tell) for number in numbers]
    try:
        yield told
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _port_after(settings: Settings) -> list[str]:
    """The scheduler's metrics are on the port after the worker's."""
    port = settings.metrics_port
    return ["--metrics-port", str(port + 1)] if port and port < 65535 else []


class Group:
    """Child processes that live and end together, their output shown line by line."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._threads: list[threading.Thread] = []

    def start(self, role: str, arguments: list[str]) -> None:
        """Start `taskmill ARGUMENTS` as `role`."""
        child = subprocess.Popen(
            # -P: a folder named taskmill in the working directory is not this package. What -A
            # names is found there all the same.
            [sys.executable, "-P", "-m", "taskmill", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A terminal's Ctrl-C goes to a whole process group, and would count twice with ours.
            process_group=0,
        )
        assert child.stdout is not None, "it is a pipe"
        thread = threading.Thread(target=_show, args=(role, child.stdout), daemon=True)
        thread.start()
        self._children[role] = child
        self._threads.append(thread)

    def run(self, told: SimpleQueue[int]) -> int:
        """Until a signal, which drains them, or until one ends by itself; the exit code."""
        code = 0
        try:
            while not (ended := self._ended()):
                if _next(told):
                    code = self._drain(told)
                    break
            else:
                note(f"{', '.join(ended)} ended by itself: ending the others")
                code = max(1, self._drain(told))
        finally:
            for child in self._children.values():
                child.kill()
                child.wait()
            for thread in self._threads:
                thread.join()
        return code

    def _ended(self) -> list[str]:
        return [role for role, child in self._children.items() if child.poll() is not None]

    def _drain(self, told: SimpleQueue[int]) -> int:
        """Ask all to end, again at each further signal; 1 where one failed or had to be killed."""
        self._ask()
        deadline = Deadline(DRAIN_S, SYSTEM_CLOCK)
        while len(self._ended()) < len(self._children) and not deadline.over():
            if _next(told):
                self._ask()
        return int(any(child.poll() != 0 for child in self._children.values()))

    def _ask(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)


def _next(told: SimpleQueue[int]) -> bool:
    """Whether a signal came within a moment."""
    try:
        told.get(timeout=_LOOK_S)
    except Empty:
        return False
    return True


def _show(role: str, lines: IO[str]) -> None:
    """What a child says, each line after its role's name, until it ends."""
    mark = click.style(f"{role} |", fg="cyan")
    for line in lines:
        note(f"{mark} {line.rstrip()}")
