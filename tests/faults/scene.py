"""A scene of faults: a queue under load, its workers, a reader of all topics, and the history.

A scene lasts for many points, so that a point costs seconds; a `Stage` keeps scenes between tests:

    @pytest.mark.proof("worker killed")
    def test_...(stage: Stage, seed: int) -> None:
        with stage.point("classic", seed) as scene:     # makes the scene, or takes the kept one
            scene.keep(2)                               # two workers live
            scene.load()                                # a burst, and then a steady flow
            scene.wait_outcomes(100)                    # somewhere in the midst of it
            scene.kill(scene.any_worker())              # the fault, at a moment of `scene.dice`
            scene.keep(2)                               # healed
            scene.heal_and_drain()                      # ≤ 30 s, then the whole history is checked

What a point changes beyond that (a proxy, stopped workers) it puts right before `heal_and_drain`,
which counts its 30 s from there. A point that fails takes its scene with it, logs printed; the next
one gets a new scene. Faults of another kind need no more than the scene's `settings`, `history`,
`workers` and `dice`; `Stage(make)` takes any function from a name to a Scene. A worker that is cut
off from its broker without being stopped is told to the history by `cut_off`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka import IsolationLevel

from faults import logs
from faults.app import STARTS
from faults.history import Away, History, check
from faults.load import Flow, Load
from faults.sessions import shorten_session
from faults.watch import Watch
from support.oracle import Oracle
from support.workers import WorkerProcess
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics, ensure

TARGET = "faults.app:app"
#: So few that each sees much work, and uneven among two workers.
PARTITIONS = 3
#: Everything is drained so long after healing: the promise that every point checks.
DRAINED_S = 30.0
#: A point's load: a burst that makes a backlog, then so many records a second. Two workers with
#: CONCURRENCY handlers of some 50 ms each do three times that.
BURST, RATE, CONCURRENCY = 150, 100.0, 15
#: Tasks are innocent of their workers' ends here.
INNOCENT = {"TASKMILL_CRASH_LOOP_LIMIT": "1000000"}


class Scene:
    """See the module. `direct`: where the broker is reached past whatever the fault puts between;
    `env`: more of the workers' environment."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        target: str = TARGET,
        direct: str | None = None,
        flaky: float = 0.0,
        delayed: float = 0.0,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.bootstrap = direct or str(settings.bootstrap_servers)
        self._options = ("--concurrency", str(CONCURRENCY), *options)
        self._env, self._target = {**(env or {})}, target
        self.topics = Topics(settings.prefix, "default")
        ensure(settings.model_copy(update={"bootstrap_servers": self.bootstrap}), "default")
        self.oracle = Oracle(self.bootstrap, settings.prefix)
        self.group = self.oracle.group
        if settings.group_protocol == "consumer":
            shorten_session(self.bootstrap, self.group)
        self.history = History(self.topics.tasks)
        self.dice = Random(0)
        self.point = 0
        self._load = Load(settings.partitions, flaky, delayed)
        self.flow = Flow(self.bootstrap, self.topics.tasks, self._load, self.history)
        self.watch = Watch(self.oracle, self.history, folder / STARTS)
        #: Those that live, stopped or not; and all that ever did.
        self.workers: list[WorkerProcess] = []
        self.all_workers: list[WorkerProcess] = []
        self.schedulers: list[WorkerProcess] = []
        self._dead_schedulers: list[WorkerProcess] = []
        self._leaving: list[WorkerProcess] = []
        self._orphaned: list[WorkerProcess] = []
        self._stopped: dict[int, float] = {}

    def begin(self, seed: int) -> None:
        """A new point: its dice, and IDs of its own."""
        self.point += 1
        self.dice = Random(seed)
        self._load.begin(f"p{self.point}-{seed}", seed)
        self._seen = len(self.history.outcomes)

    # ---- load -------------------------------------------------------------------------------

    def load(self, burst: int = BURST, rate: float = RATE) -> None:
        """Put `burst` records now, and from now on `rate` a second."""
        self._seen = len(self.history.outcomes)
        self.flow.put(burst)
        self.flow.run(rate)

    def next_ids(self, count: int) -> list[bytes]:
        """The IDs that the load will give to its next so many tasks."""
        return self._load.next_ids(count)

    def wait_outcomes(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until `count` outcomes were seen since `load`."""
        wanted = self._seen + count
        self.watch.until(
            lambda: len(self.history.outcomes) >= wanted, f"{count} outcomes", timeout_s
        )

    def somewhere(self) -> None:
        """Wait for a moment of the dice: some outcomes, then a point in the commit cycle."""
        self.wait_outcomes(self.dice.randrange(1, BURST))
        # A cycle of consuming, running and committing takes about this long.
        time.sleep(self.dice.uniform(0, 0.02))

    # ---- workers ----------------------------------------------------------------------------

    def start(self, *options: str) -> WorkerProcess:
        worker = WorkerProcess(
            self.settings,
            self.folder,
            *self._options,
            *options,
            target=self._target,
            env={**INNOCENT, **self._env},
        )
        self.workers.append(worker)
        self.all_workers.append(worker)
        return worker

    def keep(self, count: int) -> None:
        """Start or end (by SIGTERM) workers until `count` live; waits for those that end."""
        while len(self.workers) < count:
            self.start()
        while len(self.workers) > count:
            self.leave(self.any_worker())
        self._see_them_off()

    def schedule(self, count: int) -> None:
        """Start schedulers until `count` live, and wait until the new ones serve."""
        while len(self.schedulers) < count:
            one = WorkerProcess(self.settings, self.folder, target="", role="scheduler")
            self.schedulers.append(one)
            one.wait_for("passing on")

    def kill_scheduler(self) -> None:
        """SIGKILL one of them, by the dice."""
        one = self.dice.choice(self.schedulers)
        self.schedulers.remove(one)
        self._dead_schedulers.append(one)
        one.kill()

    @property
    def attempts(self) -> dict[bytes, int]:
        """How often each flaky task of the load is to be attempted."""
        return self._load.attempts

    @property
    def due(self) -> dict[bytes, int]:
        """When each delayed task of the load may start (UTC ms)."""
        return self._load.due

    def held(self, worker: WorkerProcess) -> set[int]:
        """The partitions that it holds now, as its log says."""
        incremental = self.settings.group_protocol == "consumer"
        return logs.held(list(worker.lines), incremental=incremental)

    def wait_shared(self, *workers: WorkerProcess, timeout_s: float = 30.0) -> None:
        """Wait until these (default: all that live) hold all partitions, and each holds some."""
        among, wanted = workers or tuple(self.workers), set(range(self.settings.partitions))

        def shared() -> bool:
            shares = [self.held(worker) for worker in among]
            return all(shares) and set().union(*shares) == wanted

        self.watch.until(
            shared,
            lambda: f"shared among {[(w.pid, self.held(w)) for w in among]}",
            timeout_s,
        )

    def any_worker(self) -> WorkerProcess:
        """One of the living, by the dice."""
        return self.dice.choice(self.workers)

    def kill(self, worker: WorkerProcess) -> None:
        """SIGKILL."""
        self._forget(worker)
        worker.kill()

    def kill_alone(self, supervisor: WorkerProcess) -> None:
        """SIGKILL to a supervisor and none of its workers; they must end by themselves in time."""
        self._forget(supervisor)
        supervisor.signal(signal.SIGKILL)
        self._orphaned.append(supervisor)

    def children(self, supervisor: WorkerProcess) -> list[int]:
        """The pids of the newest worker in each slot of a supervisor's."""
        return list(logs.pids(list(supervisor.lines)).values())

    def leave(self, worker: WorkerProcess) -> None:
        """SIGTERM; the point's end waits for its own."""
        self._forget(worker)
        worker.signal(signal.SIGTERM)
        self._leaving.append(worker)

    def end(self, worker: WorkerProcess, timeout_s: float = 30.0) -> int:
        """SIGTERM, and wait for its end; the exit code."""
        self._forget(worker)
        return worker.terminate(timeout_s)

    def _see_them_off(self) -> None:
        """Wait for the end of those that leave."""
        for worker in self._leaving:
            code = worker.wait()
            # Before it has said its name, it does not heed signals yet.
            assert code == 0 or not logs.pids(worker.lines), f"{worker.pid} left with {code}"
        self._leaving.clear()

    def _forget(self, worker: WorkerProcess) -> None:
        self.workers.remove(worker)
        self._stopped.pop(worker.pid, None)

    def stop(self, worker: WorkerProcess) -> None:
        """SIGSTOP."""
        self._stopped.setdefault(worker.pid, time.monotonic())
        worker.signal(signal.SIGSTOP)

    def go_on(self, worker: WorkerProcess) -> None:
        """SIGCONT, if it was stopped."""
        since = self._stopped.pop(worker.pid, None)
        if since is not None:
            self.history.away.append(Away(worker.pid, since, time.monotonic()))
            worker.signal(signal.SIGCONT)

    def stop_in_transaction(self, worker: WorkerProcess) -> None:
        """SIGSTOP it, which must be the only one at work, with a transaction open.

        Its load must go on. Tried until the broker says that one is: a stopped worker's requests
        that are under way already still end it.
        """
        for _ in range(300):
            self.stop(worker)
            time.sleep(0.03)
            if self.open_transactions():
                return
            self.go_on(worker)
            time.sleep(self.dice.uniform(0, 0.01))
        raise AssertionError("300 times stopped, and never inside a transaction")

    def open_transactions(self) -> list[int]:
        """Partitions of `state` on which a transaction is open: its end is not stable."""
        state = self.topics.state
        stable = self.oracle.ends(state, IsolationLevel.READ_COMMITTED)
        ends = self.oracle.ends(state, IsolationLevel.READ_UNCOMMITTED)
        return [p for p, end in ends.items() if stable[p] < end]

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """While this lasts, any worker may lose its partitions without being told."""
        since = time.monotonic()
        try:
            yield
        finally:
            until = time.monotonic()
            self.history.away += [Away(w.pid, since, until) for w in self.all_workers]

    # ---- the end of a point -----------------------------------------------------------------

    def heal_and_drain(self, limit_s: float = DRAINED_S) -> float:
        """Let stopped workers go on, end the load, wait until all is drained, check the history.

        Returns how many seconds it took. Raises AssertionError: not drained in time, violations.
        """
        for worker in list(self.workers):
            self.go_on(worker)
        healed = time.monotonic()
        self.flow.rest(limit_s)
        left = limit_s - (time.monotonic() - healed)
        self.watch.until(self._is_drained, self._undrained, left)
        took = time.monotonic() - healed
        self.check()
        return took

    def _is_drained(self) -> bool:
        """Every acknowledged record is there and has its outcome; the group is past them all."""
        history = self.history
        if len(history.placed) < len(history.acked) or history.pending:
            return False
        return all(self.watch.offsets.get(p, 0) >= end for p, end in history.ends.items())

    def _undrained(self) -> str:
        pending = self.history.pending
        return (
            f"{len(pending)} of {len(self.history.acked)} acknowledged are pending, such as "
            f"{pending[:5]}; committed offsets {self.watch.offsets}"
        )

    def check(self) -> None:
        """The whole history, from the scene's first point on."""
        self.watch.take_starts()
        for worker in self.workers:
            assert worker.process.poll() is None, f"worker {worker.pid} ended by itself"
        self._see_them_off()
        for supervisor in self._orphaned:
            # Its workers hold its standard error open.
            supervisor.wait_over()
        self._orphaned.clear()
        self.history.restores.clear()
        for worker in self.all_workers:
            self.history.restores.update(logs.restores(list(worker.lines)))
        violations = check(self.history)
        assert not violations, "\n".join(violations)

    def tell(self) -> None:
        """Print the workers' logs, for a test that failed."""
        for worker in (*self.all_workers, *self.schedulers, *self._dead_schedulers):
            print(f"--- worker {worker.pid}, exit {worker.process.poll()}\n{worker.log}")

    def close(self) -> None:
        for worker in (*self.all_workers, *self.schedulers):
            worker.kill()
        self.flow.close()
        self.watch.close()


class Stage:
    """Keeps scenes between tests, by name; `make` makes the scene of a name."""

    def __init__(self, make: Callable[[str], Scene]) -> None:
        self._make = make
        self._scenes: dict[str, Scene] = {}

    @contextmanager
    def point(self, name: str, seed: int) -> Iterator[Scene]:
        """The scene of `name`, at a new point. One that fails is told, closed and forgotten."""
        print(f"seed {seed}")
        scene = self._scenes.pop(name, None) or self._make(name)
        try:
            scene.begin(seed)
            yield scene
        except BaseException:
            scene.tell()
            scene.close()
            raise
        self._scenes[name] = scene

    def close(self) -> None:
        for scene in self._scenes.values():
            scene.close()


def make_scenes(
    bootstrap: str,
    prefix: str,
    folders: pytest.TempPathFactory,
    *options: str,
    flaky: float = 0.0,
    delayed: float = 0.0,
    **more: Any,
) -> Callable[[str], Scene]:
    """Makes scenes by group protocol, "classic" or "consumer", each under a prefix of its own;
    `options` are the workers', `more` their settings."""

    def make(protocol: str) -> Scene:
        folder = folders.mktemp("scene")
        settings = Settings(
            bootstrap_servers=bootstrap,
            prefix=f"{prefix}-{folder.name}",
            partitions=PARTITIONS,
            state_dir=folder / "state",
            group_protocol=protocol,  # type: ignore[arg-type]
            **more,
        )
        return Scene(settings, folder, options=options, flaky=flaky, delayed=delayed)

    return make
