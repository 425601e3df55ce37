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
from typing import IO, NamedTuple

import click

from taskmill.cli.dev_console import dev_console
from taskmill.cli.output import log_format_option, note
from taskmill.cli.reload import Sources, folders_of, try_app
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
@click.option(
    "--reload",
    "reloads",
    is_flag=True,
    help="Start the App's processes anew, drained, when a file of its modules changes. Code that "
    "cannot be imported is told of, and those that run are kept.",
)
@log_format_option
def dev(target: str, reloads: bool, log_format: str | None) -> int:
    """Run all that an App needs here: a broker, its topics, a worker, a scheduler, a console.

    The local broker is started where no bootstrap_servers is set, and stopped at the end if this
    started it; its data stays. Ctrl-C drains; a second one stops at once.
    """
    before = set(sys.modules)
    app = load_app(target)
    sources = _sources(before) if reloads else None
    settings = app.settings
    with _broker(settings):
        queues = tuple(app.tasks.queues) or ("default",)
        for queue in queues:
            ensure(settings, queue)
        note(f"Kafka at {bootstrap_servers(settings)}, prefix {settings.prefix}")
        tasks = ", ".join(task.name for task in app.tasks) or "none"
        note(f"App {app.name}: tasks {tasks}; queues {', '.join(queues)}")
        with _signals() as told, dev_console(settings) as console:
            group = Group(None if sources is None else Reload(target, sources))
            form = ["--log-format", log_format] if log_format is not None else []
            for role, arguments in ROLES.items():
                group.start(role, [*arguments(target, settings), *form])
            if console is not None:
                command = ["console", "-A", target, *console.arguments, *form]
                group.start("console", command, stays=True)
                note(f"console at {console.url}")
            note("Ctrl-C drains and ends")
            return group.run(told)


def _sources(before: set[str]) -> Sources:
    """The files of the modules that were imported since, the App's."""
    modules = [module for name, module in list(sys.modules.items()) if name not in before]
    return Sources(folders_of(modules))


class Reload(NamedTuple):
    """What is looked at for changes, and what is imported to find out whether they are sound."""

    target: str
    sources: Sources


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

    def __init__(self, reload: Reload | None = None) -> None:
        """With `reload`, they are started anew when files change, and one that ends by itself is
        waited for until they do."""
        self._reload = reload
        self._anew: dict[str, list[str]] = {}
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._threads: list[threading.Thread] = []

    def start(self, role: str, arguments: list[str], *, stays: bool = False) -> None:
        """Start `taskmill ARGUMENTS` as `role`, which `stays` when others are started anew."""
        child = subprocess.Popen(
            # -P: a folder named taskmill in the working directory is not this package. What -A
            # names is found there all the same. -B: see try_app.
            [sys.executable, "-P", *(["-B"] if self._reload else []), "-m", "taskmill", *arguments],
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
        if not stays:
            self._anew[role] = arguments
        self._children[role] = child
        self._threads.append(thread)

    def run(self, told: SimpleQueue[int]) -> int:
        """Until a signal, which drains them, or until one ends by itself; the exit code."""
        try:
            return self._run(told) if self._reload is None else self._run_anew(told, self._reload)
        finally:
            for child in self._children.values():
                child.kill()
                child.wait()
            for thread in self._threads:
                thread.join()

    def _run(self, told: SimpleQueue[int]) -> int:
        while not (ended := self._ended()):
            if _next(told):
                return self._drain(told)
        note(f"{', '.join(ended)} ended by itself: ending the others")
        return max(1, self._drain(told))

    def _run_anew(self, told: SimpleQueue[int], reload: Reload) -> int:
        """As `_run`, and all anew when the App has changed and can be imported."""
        mourned: list[str] = []
        while not _next(told):
            if (ended := self._ended()) != mourned:
                mourned = ended
                note(f"{', '.join(ended)} ended by itself: waiting for a change")
            if not (changed := reload.sources.changed()):
                continue
            note(f"{', '.join(path.name for path in changed)} changed")
            if (wrong := _wrong_with(reload.target, told)) is None:
                break  # by a signal
            if wrong:
                note(f"{wrong}: what runs goes on as it was, until the next change")
                continue
            if not self._end_for_now(told):
                break
            for role, arguments in self._anew.items():
                self.start(role, arguments)
            mourned = []
        return self._drain(told)

    def _end_for_now(self, told: SimpleQueue[int]) -> bool:
        """Drain those that are started anew; False where a signal says that this is the end."""
        children = [self._children[role] for role in self._anew]
        for child in children:
            child.send_signal(signal.SIGTERM)
        deadline = Deadline(DRAIN_S, SYSTEM_CLOCK)
        while any(child.poll() is None for child in children) and not deadline.over():
            if _next(told):
                return False
        for child in children:
            child.kill()
            child.wait()
        return True

    def _ended(self) -> list[str]:
        return [role for role, child in self._children.items() if child.poll() is not None]

    def _drain(self, told: SimpleQueue[int]) -> int:
        """Ask all to end, again at each further signal; 1 where one failed or had to be killed."""
        self._ask()
        deadline = Deadline(DRAIN_S, SYSTEM_CLOCK)
        while len(self._ended()) < len(self._children) and not deadline.over():
            if _next(told):
                self._ask()
        # One that was still starting had not begun to heed the signal, and nothing else either.
        well = (0, -signal.SIGTERM)
        return int(any(child.poll() not in well for child in self._children.values()))

    def _ask(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)


def _wrong_with(target: str, told: SimpleQueue[int]) -> str | None:
    """Why the App cannot be imported as it is now, empty where it can; None: a signal came."""
    with try_app(target) as attempt:
        while True:
            try:
                said = attempt.communicate(timeout=_LOOK_S)[1].strip().splitlines()
                break
            except subprocess.TimeoutExpired:
                if not told.empty():
                    told.get()
                    attempt.kill()
                    return None
    return "" if attempt.returncode == 0 else said[-1] if said else "it cannot be imported"


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
    with lines:
        for line in lines:
            note(f"{mark} {line.rstrip()}")
