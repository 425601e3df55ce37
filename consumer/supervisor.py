"""Keeps N worker processes at work: starts them, replaces those that die, ends them together.

Each process is a whole worker, with its own consumer, producer and slot, and shares nothing with
the others but their supervisor. Each is kept by a thread of its own, so what one needs (its
transactions ended, a pause before its successor) holds up no other.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NamedTuple

from taskmill.consumer.fence import end_transactions
from taskmill.consumer.fleet import Fleet
from taskmill.consumer.link import Holding, Place, SupervisorEnd
from taskmill.consumer.slots import Slot
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.errors import ConfigError, TaskmillError
from taskmill.runtime.metrics_server import MetricsServer

logger = logging.getLogger("taskmill.supervisor")

#: A process that died is replaced after this long, doubling up to the maximum; what lived for
#: HEALTHY_S starts from the first again.
RESTART_S, RESTART_MAX_S, HEALTHY_S = 0.1, 30.0, 60.0
#: A dead worker's transactions are ended within this, or left to its successor. It takes some
#: 50 ms; much longer means that the broker is away, and nobody reads from it either.
FENCE_S = 3.0
#: A drained worker still leaves its groups and ends its lifespan. A commit under way at the end of
#: the drain timeout has 12 s of its own (consumer/commit.py).
GRACE_S = 15.0


#: How often it is looked whether a worker has said where metrics are to be served.
PORT_LOOK_S = 0.2


class Backoff:
    """How long to wait before a process is replaced."""

    def __init__(self) -> None:
        self._next = RESTART_S

    def after(self, lived_s: float) -> float:
        """Seconds to wait after the end of one that lived so long."""
        if lived_s >= HEALTHY_S:
            self._next = RESTART_S
        pause = self._next
        self._next = min(2 * pause, RESTART_MAX_S)
        return pause


class Refusal(NamedTuple):
    """A worker says that none in its place could work: the configuration is wrong."""

    why: str


class Supervisor:
    """Runs `processes` workers until told to stop.

    command: the arguments of a worker process, given the file descriptor of its end of the line
    (see WorkerEnd). drain_timeout: the workers' own, in seconds. metrics_port: where the metrics of
    all are served; None: where their App says, if it does.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        processes: int,
        drain_timeout: float,
        metrics_port: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._metrics_port = metrics_port
        self._server: MetricsServer | None = None
        self._draining = False
        self.fleet = Fleet(processes, clock)
        self._drain_timeout = drain_timeout
        self._clock = clock
        #: Signals, refusals, and keepers that have ended.
        self._told: SimpleQueue[int | Refusal | Keeper] = SimpleQueue()
        self._keepers = [
            Keeper(n, command, self._told.put, self.fleet, clock) for n in range(processes)
        ]

    def run(self) -> int:
        """Until SIGTERM or SIGINT, which drain the workers; a second one kills them at once.

        Returns the exit code: 0 all drained, 1 some did not. Raises ConfigError where a worker
        says that the configuration is wrong; the others are drained first.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        logger.info("supervisor of %d workers, pid %d", len(self._keepers), os.getpid())
        if self._metrics_port is not None:
            self._serve(self._metrics_port)
        for keeper in self._keepers:
            keeper.start()
        if self._server is None:
            threading.Thread(target=self._await_port, name="taskmill-port", daemon=True).start()
        first = self._told.get()
        drained = self._drain()
        if isinstance(first, Refusal):
            raise ConfigError(first.why)
        # A keeper that ends before it is told to has failed, in a way that nobody foresaw.
        return 0 if drained and isinstance(first, int) else 1

    def _serve(self, port: int) -> None:
        self._server = MetricsServer(port, self.fleet.read, self._unhealthy, self._unready)

    def _await_port(self) -> None:
        """The port may be set in the App, which the workers alone import."""
        while (said := self.fleet.port()) is None:
            self._clock.sleep(PORT_LOOK_S)
        (port,) = said
        try:
            if port is not None:
                self._serve(port)
        except ConfigError as error:
            self._told.put(Refusal(str(error)))

    def _unhealthy(self) -> str | None:
        for keeper in self._keepers:
            if keeper.over and not self._draining:
                return f"the thread that keeps worker {keeper.index} has ended"
        return self.fleet.unhealthy()

    def _unready(self) -> str | None:
        return "draining" if self._draining else self.fleet.unready()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._draining = True
        self._told.put(number)

    def _drain(self) -> bool:
        """End all workers; False where one had to be killed or failed."""
        self._draining = True
        logger.info(
            "draining, %g s at the most; a second signal stops at once", self._drain_timeout
        )
        deadline = Deadline(self._drain_timeout + GRACE_S, self._clock)
        for keeper in self._keepers:
            keeper.drain()
        while not all(keeper.over for keeper in self._keepers):
            with suppress(Empty):
                if not isinstance(self._told.get(timeout=deadline.left()), int):
                    continue
            # A signal, or the deadline: in the middle of whatever it is, the rest ends now.
            killed = sum(keeper.kill() for keeper in self._keepers)
            if killed:
                logger.warning("killed %d: what they ran will run again elsewhere", killed)
                return False
            break
        return all(keeper.drained for keeper in self._keepers)


class Keeper:
    """Keeps one worker process: starts it, waits for its end, starts the next, in a thread."""

    def __init__(
        self,
        index: int,
        command: Callable[[int], Sequence[str]],
        tell: Callable[[Refusal | Keeper], None],
        fleet: Fleet,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self.index = index
        self._slot = index
        self._command = command
        self._tell = tell
        self._clock = clock
        self._backoff = Backoff()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._killed = False
        self._child: subprocess.Popen[bytes] | None = None
        #: Whether the thread has done its work, and whether what ran when it was told to end did so
        #: as it should.
        self.over = False
        self.drained = True
        self._thread = threading.Thread(
            target=self._main, name=f"taskmill-keeper-{index}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """Let the process end what it runs, and start no other."""
        self._end(signal.SIGTERM)

    def kill(self) -> bool:
        """Kill the process, if there is one; whether there was."""
        self._killed = True
        child = self._end(signal.SIGKILL)
        if child is None:
            return False
        child.wait()
        return True

    def _end(self, number: signal.Signals) -> subprocess.Popen[bytes] | None:
        """Signal the living process, and let no other start."""
        with self._lock:
            self._ending.set()
            child = self._child
            if child is None or child.poll() is not None:
                return None
            child.send_signal(number)
            return child

    # ---- the thread -----------------------------------------------------------------------------

    def _main(self) -> None:
        # Processes inherit the mask. A terminal's Ctrl-C goes to all of its group, but a worker
        # must not be hurt by it before it can handle it, in the middle of its imports.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            while not self._ending.is_set():
                self._one_life()
        finally:
            self.over = True
            self._tell(self)

    def _one_life(self) -> None:
        born = self._clock.monotonic()
        try:
            meter = self._fleet.born(self.index)
            with closing(SupervisorEnd(Place(self.index, self._slot, meter))) as link:
                try:
                    child = self._start(link, meter)
                finally:
                    os.close(meter)
                if child is None:
                    return
                code = child.wait()
                said = link.read()
        except OSError as error:
            # No memory, no free descriptor: as likely to pass as what ends a process.
            self._pause(f"process {self.index} cannot be started: {error.strerror}", born)
            return
        finally:
            self._fleet.died(self.index)
        if said.holding is not None:
            self._slot = said.holding.slot
        who = f"slot {self._slot}" if said.holding else f"process {self.index}"
        what = f"{who} (pid {child.pid}) ended with {how_it_ended(code)}"
        # An end by SIGTERM itself: it had not begun to work, or it would have drained.
        clean = code in (0, -signal.SIGTERM)
        self.drained = clean or not self._ending.is_set()
        if said.refusal is not None:
            self._ending.set()
            self._tell(Refusal(said.refusal))
        elif clean or said.holding is None or self._killed:
            self._pause(what, born)
        else:
            with self._held(said.holding) as fenced:
                self._pause(f"{what}; {fenced}", born)

    def _start(self, link: SupervisorEnd, meter: int) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._ending.is_set():
                return None
            child = self._child = subprocess.Popen(
                self._command(link.fileno),
                stdin=subprocess.DEVNULL,
                pass_fds=(link.fileno, meter),
            )
        link.started()
        return child

    def _pause(self, what: str, born: float) -> None:
        """Say in one line what happened, and wait until the successor may start."""
        if self._ending.is_set():
            if not self.drained:
                logger.warning("%s", what)
            return
        self._fleet.replaced()
        pause = self._backoff.after(self._clock.monotonic() - born)
        logger.warning("%s; a new one starts in %g s", what, pause)
        self._ending.wait(pause)

    @contextmanager
    def _held(self, holding: Holding) -> Iterator[str]:
        """Holds the dead worker's slot, its transactions ended; yields what became of them.

        Nobody else can take the slot meanwhile, or `init_transactions` would fence the living.
        """
        settings = holding.settings
        try:
            slot = Slot.claim(settings.state_dir, holding.slot)
        except ConfigError as error:
            yield str(error)
            return
        if slot is None:
            # Whoever has it ended the transactions, as each worker does at its start.
            yield "its slot is taken already"
            return
        try:
            began = self._clock.monotonic()
            try:
                end_transactions(settings, holding.transactional_ids, FENCE_S, self._clock)
                fenced = f"its transactions ended in {self._clock.monotonic() - began:.2f} s"
            except TaskmillError as error:
                fenced = f"its transactions are left to its successor ({error})"
            yield fenced
        finally:
            slot.release()


def how_it_ended(code: int) -> str:
    """A process's end in words: `signal SIGKILL`, `exit code 1`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"
