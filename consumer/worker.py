"""A worker: the engines of its queues round shared executors, from start to drained."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from taskmill.consumer.app import AppLike
from taskmill.consumer.attempt import Attempts, definitions_by_name
from taskmill.consumer.demands import check_result_ttls, child_of, effects_of
from taskmill.consumer.dispatch import Concurrency, Dispatcher
from taskmill.consumer.engine import Engine, Parts
from taskmill.consumer.failure_log import FailureLog
from taskmill.consumer.link import WorkerEnd
from taskmill.consumer.membership import group_of
from taskmill.consumer.observe import TaskMetrics, begin_at_zero
from taskmill.consumer.pauses import Pauses
from taskmill.consumer.protocol import Limits
from taskmill.consumer.record import Outcome, Record
from taskmill.consumer.scope import Scopes
from taskmill.consumer.slots import Slot
from taskmill.consumer.tiers import tiers_of
from taskmill.consumer.timeouts import Timekeeper
from taskmill.consumer.upkeep import Upkeep
from taskmill.consumer.watch import Watch
from taskmill.consumer.watched import Watched, watched
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import check_queue
from taskmill.runtime.errors import ConfigError, Unreachable
from taskmill.runtime.meter import Meter
from taskmill.runtime.vitals import Pulse
from taskmill.runtime.wake import Wake

if TYPE_CHECKING:
    pass

logger = logging.getLogger("taskmill.worker")

#: What CONTRACT says where nobody says otherwise.
DEFAULT_CONCURRENCY = 100
DEFAULT_DRAIN_S = 30.0
#: A thread hands the interpreter to another one this often. With Python's 5 ms, each hand-over
#: between the poll, loop and commit threads could cost that much; measured in perf/.
SWITCH_INTERVAL_S = 0.0005
#: The cycle collector runs after this many new containers, not after 700: thousands of records
#: are in flight, none of them in a cycle, and looking through them doubled the cost of decoding
#: (3.5 to 9.0 µs a record).
GC_THRESHOLD = 50_000
#: How often a draining worker looks whether its handlers have ended.
DRAIN_LOOK_S = 0.01
#: How often a worker that waits to be told what is paused looks whether it is to stop.
PAUSES_LOOK_S = 0.5
#: A broker that stays away is told of once in this many seconds.
REPEAT_S = 60.0


class Worker:
    """Runs the tasks of `app` that arrive on `queues`.

    concurrency: how many async handlers run at once (default 100); threads are 2 × cores and
    processes one a core. drain_timeout: seconds that `run` waits for running handlers after
    SIGTERM or SIGINT (default 30). target: "module:attribute" of `app`, needed where a task is
    declared `isolate="process"`. limits: see Limits. supervisor: the line to the one whose process
    this is, if it is one of many.
    """

    def __init__(
        self,
        app: AppLike,
        queues: Sequence[str] = ("default",),
        *,
        concurrency: int | None = None,
        drain_timeout: float = DEFAULT_DRAIN_S,
        target: str | None = None,
        limits: Limits | None = None,
        clock: Clock = SYSTEM_CLOCK,
        supervisor: WorkerEnd | None = None,
    ) -> None:
        self._app = app
        self._supervisor = supervisor
        self._clock = clock
        self._drain_timeout = drain_timeout
        self._wake = Wake()
        self._signals = 0
        settings = app.settings
        definitions = definitions_by_name(app.tasks)
        check_result_ttls(definitions, settings)
        cores = os.cpu_count() or 1
        size = Concurrency(
            DEFAULT_CONCURRENCY if concurrency is None else concurrency,
            2 * cores if concurrency is None else concurrency,
            cores if concurrency is None else min(cores, concurrency),
        )
        self._queues = list(dict.fromkeys(map(check_queue, queues)))
        if not self._queues:
            raise ConfigError("a worker needs at least one queue")
        self._limits = limits
        self.slot = Slot(settings.state_dir, supervisor.place.slot if supervisor else None)
        self.meter = Meter(supervisor.place.meter if supervisor else None, clock)
        self.pulse = Pulse(clock)
        app.count_into(self.meter)
        self._scopes = Scopes(partial(group_of, settings.prefix), definitions)
        self._hooks = self._new_hooks(definitions)
        self._timekeeper = Timekeeper(clock, settings.timeout_grace_ms / 1000)
        self._attempts = self._new_attempts(definitions)
        self._effects = effects_of(definitions, self._attempts, settings, clock)
        self._attempts.effects = self._effects
        self._at_most_once = frozenset(
            name for name, d in definitions.items() if d.delivery == "at_most_once"
        )
        self._stored = frozenset(n for n, d in definitions.items() if d.effects is not None)
        self.dispatcher = Dispatcher(
            definitions,
            self._attempts,
            size,
            self._sink,
            clock,
            child_of(app, definitions, target, settings),
        )
        self._parts = Parts(
            settings,
            self.slot,
            app.codec,
            clock,
            self._hooks,
            self.dispatcher,
            self.meter,
            self.pulse,
        )
        self._pauses = Pauses(settings, clock, self._heed_pauses)
        self._upkeep = Upkeep(clock)
        self.engines: dict[str, Engine] = {}
        self._watched = self._new_watched()
        self._outcomes: dict[str, Callable[[list[Outcome]], None]] = {}
        self._only: Callable[[list[Outcome]], None] | None = None

    def _new_hooks(self, definitions: Mapping[str, TaskDefinition]) -> Hooks:
        settings = self._app.settings
        hooks = self._app.hooks.then(FailureLog(), self._scopes)
        if settings.metrics_port is None:
            # Counting costs a microsecond a task: only where somebody reads it.
            return hooks
        tiers = tiers_of(settings)
        begin_at_zero(self.meter, self._queues, list(self._app.tasks), tiers)
        return hooks.then(TaskMetrics(self.meter, definitions, tiers))

    def _new_watched(self) -> Watched | None:
        return watched(
            self._app.settings,
            self.meter,
            self.pulse,
            self.engines,
            self._queues,
            self._timekeeper,
            lambda: self._signals > 0,
            is_supervised=self._supervisor is not None,
            clock=self._clock,
        )

    def _new_attempts(self, definitions: Mapping[str, TaskDefinition]) -> Attempts:
        limit = self._app.settings.max_task_bytes
        attempts = Attempts(definitions, self._clock, self._hooks, limit, self._timekeeper)
        attempts.encode = self._app.encode
        attempts.keep = self._keep
        return attempts

    def _keep(self, record: Record, started_at: int, saved: bytes) -> None:
        """What a handler saves, to the engine of its queue."""
        self.engines[record.lease.queue].core.note(record, started_at, saved)

    def _sink(self, outcomes: list[Outcome]) -> None:
        """Outcomes of the executors, to the engine of their queue."""
        if self._only is not None:
            self._only(outcomes)
            return
        by_queue: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            by_queue.setdefault(outcome.record.lease.queue, []).append(outcome)
        for queue, group in by_queue.items():
            self._outcomes[queue](group)

    # ---- life -----------------------------------------------------------------------------------

    def start(self) -> bool:
        """Start everything. The lifespan of the App is entered first.

        Waits for a broker that is away; False where it was told to stop meanwhile.
        """
        if self._watched is not None:
            self._watched.start()
        if not self._connect() or not self._start_effects():
            return False
        _tune_interpreter()
        self.dispatcher.start()
        self._lifespan = self._app.resources()
        self._attempts.resources = self._on_loop(self._lifespan.__aenter__())
        self._scopes.start(self._attempts)
        for hook in self._hooks.worker_started:
            hook()
        cores = {queue: engine.core for queue, engine in self.engines.items()}
        window_ms = self._app.settings.dedup_window_ms
        watch = Watch(self.dispatcher.running, cores, window_ms, self._clock)
        self._upkeep.add(watch.jobs())
        self._learn_pauses()
        for engine in self.engines.values():
            engine.poller.is_watched = self._watched is not None
            engine.start()
            self._upkeep.add(engine.jobs)
        self._upkeep.start()
        logger.info(
            "worker %s: queues %s, slot %s, pid %d",
            self._app.name,
            ", ".join(self.engines),
            self.slot.name,
            os.getpid(),
        )
        return True

    def _connect(self) -> bool:
        told = 0.0
        while not self._signals:
            try:
                for queue in self._queues:
                    if queue not in self.engines:
                        self.engines[queue] = Engine(
                            self._parts, queue, self._limits, self._at_most_once, self._stored
                        )
            except Unreachable as error:
                now = self._clock.monotonic()
                if not told or now - told >= REPEAT_S:
                    logger.warning("%s; waiting for it", error)
                    told = now
                self._wake.wait(1.0)
                continue
            self._outcomes = {q: engine.core.outcomes.put for q, engine in self.engines.items()}
            self._only = self._outcomes[self._queues[0]] if len(self._queues) == 1 else None
            return True
        return False

    def _start_effects(self) -> bool:
        return self._effects is None or self._effects.start(lambda: self._signals > 0)

    def _learn_pauses(self) -> None:
        """Know which queues are paused before anything of theirs is begun."""
        self._pauses.start()
        while not self._pauses.wait_ready(PAUSES_LOOK_S) and not self._signals:
            pass
        self._heed_pauses()

    def _heed_pauses(self) -> None:
        is_known = self._pauses.wait_ready(0)
        for queue, engine in self.engines.items():
            engine.pause(not is_known or self._pauses.is_paused(queue))

    def _on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.dispatcher.loop.loop).result()

    def drain(self, seconds: float) -> bool:
        """Start nothing new; wait for what runs and its commit. False: not all of it in time.

        What was taken and has not started is left to whoever owns its partition next.
        """
        deadline = Deadline(seconds, self._clock)
        for engine in self.engines.values():
            engine.poller.draining = True
            engine.core.close_gates(deadline)
        self.dispatcher.shed()
        while not self.dispatcher.is_quiet() and not deadline.over():
            self._clock.sleep(DRAIN_LOOK_S)
        settled = [engine.settle(deadline) for engine in self.engines.values()]
        return self.dispatcher.is_quiet() and all(settled)

    def stop(self) -> None:
        """Stop now. What has not committed is not lost: its next owner runs it again."""
        self._upkeep.stop()
        self._pauses.close()
        for engine in self.engines.values():
            engine.stop()
        for hook in self._hooks.worker_stopping:
            hook()
        self._on_loop(self._lifespan.__aexit__(None, None, None))
        if self._effects is not None:
            self._effects.stop()
            self._on_loop(self._effects.close())
        stuck = self.dispatcher.stop(timeout_s=1.0)
        self._timekeeper.stop()
        if stuck:
            logger.warning("%d thread(s) still run a handler; they end with the process", stuck)
        if self._watched is not None:
            self._watched.stop()
        self.slot.release()

    def run(self) -> int:
        """Work until SIGTERM or SIGINT, drain, stop. A second signal stops at once.

        Returns the exit code: 0 drained, 1 something failed or did not end in time.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._supervisor is not None:
            prefix = self._app.settings.prefix
            names = [self.slot.transactional_id(prefix, queue) for queue in self._queues]
            self._supervisor.holds(self.slot.number, names, self._app.settings)
            self._supervisor.watch(self._on_orphaned)
        if not self.start():
            return 0
        failed = None
        while not self._signals and failed is None:
            self._wake.wait(0.5)
            failed = next((e.failure for e in self.engines.values() if e.failure), None)
        if failed is not None:
            logger.error("stopping: %s", failed)
        more = "; a second signal stops at once" if self._supervisor is None else ""
        logger.info("draining, %g s at the most%s", self._drain_timeout, more)
        # With a thread of its queue gone, nothing can be committed any more.
        drained = self.drain(self._drain_timeout if failed is None else 0.0)
        if not drained:
            logger.warning("not drained in time: what still runs will run again elsewhere")
        self.stop()
        return 0 if drained and failed is None else 1

    def _on_orphaned(self) -> None:
        if not self._signals:
            logger.warning("the supervisor is gone")
            self._signals = 1
            self._wake.tell()

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1
        self._wake.tell()
        # A supervised one's group may be signalled beside it (Ctrl-C; systemd): to stop at once is
        # the supervisor's to decide, which kills.
        if self._signals > 1 and self._supervisor is None:
            # Nothing is lost: what has not committed runs again.
            os._exit(128 + number)


def _tune_interpreter() -> None:
    """Settings of the whole process: a worker is a process of its own."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    # What is loaded by now stays: no collection has to look through it again.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
