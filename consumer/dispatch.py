"""Hands records to the executor that their task asks for: event loop, threads or processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from taskmill.consumer.attempt import Attempts, Prepared
from taskmill.consumer.executors.loop import LoopExecutor, Sink
from taskmill.consumer.executors.processes import ChildSpec, ProcessExecutor
from taskmill.consumer.executors.threads import ThreadExecutor
from taskmill.consumer.record import Lease, Record
from taskmill.producer.definition import TaskDefinition
from taskmill.runtime.clock import Clock

Submit = Callable[[Sequence[Record]], None]


class Concurrency:
    """How many handlers run at once, by kind."""

    __slots__ = ("loop", "processes", "threads")

    def __init__(self, loop: int, threads: int, processes: int) -> None:
        self.loop = loop
        self.threads = threads
        self.processes = processes


class Dispatcher:
    """The executors of a worker; threads and processes exist only where a task needs them."""

    def __init__(
        self,
        definitions: Mapping[str, TaskDefinition],
        attempts: Attempts,
        concurrency: Concurrency,
        sink: Sink,
        clock: Clock,
        child: ChildSpec | None,
    ) -> None:
        self.loop = LoopExecutor(attempts, concurrency.loop, sink, clock)
        self._threads: ThreadExecutor | None = None
        self._processes: ProcessExecutor | None = None
        self._routes: dict[str, Submit] = {}
        self._executors: dict[str, LoopExecutor | ThreadExecutor] = {}
        for name, definition in definitions.items():
            if definition.isolate == "process":
                if self._processes is None:
                    assert child is not None, "the worker has checked that the App can be imported"
                    self._processes = ProcessExecutor(attempts, concurrency.processes, sink, child)
                self._routes[name] = self._processes.submit
                self._executors[name] = self._processes
            elif not definition.is_async:
                if self._threads is None:
                    self._threads = ThreadExecutor(attempts, concurrency.threads, sink)
                self._routes[name] = self._threads.submit
                self._executors[name] = self._threads

    def start(self) -> None:
        for executor in self._all():
            executor.start()

    def submit(self, records: list[Record]) -> None:
        """Run `records`. A task unknown here goes to the loop too, which names it so."""
        if not self._routes:
            self.loop.submit(records)
            return
        by_route: dict[Submit, list[Record]] = {}
        routes, default = self._routes, self.loop.submit
        for record in records:
            assert record.task is not None, "only decoded records are run"
            by_route.setdefault(routes.get(record.task.name, default), []).append(record)
        for submit, group in by_route.items():
            submit(group)

    def cancel(self, leases: list[Lease]) -> None:
        """Stop what runs under ended leases, as far as its kind allows (a thread does not)."""
        if not leases:
            return
        self.loop.cancel(leases)
        if self._processes is not None:
            self._processes.cancel(leases)

    def interrupt(self, records: Sequence[Record]) -> None:
        """`records` are to be cancelled, which their leases say by now: their handlers are told to
        end, and what has not started ends at once. Does not block."""
        by_executor: dict[LoopExecutor | ThreadExecutor, list[Record]] = {}
        for record in records:
            assert record.task is not None, "only decoded records are run"
            executor = self._executors.get(record.task.name, self.loop)
            by_executor.setdefault(executor, []).append(record)
        for executor, group in by_executor.items():
            executor.interrupt(group)

    def take_back(self, queue: str, give: Callable[[list[Record]], None]) -> None:
        """Hand what waits of `queue` to `give`, but for what has passed a gate; any thread may be
        the one that calls it, soon. What runs goes on."""
        for executor in self._all():
            executor.take_back(queue, give)

    def shed(self) -> None:
        """Start nothing more; what runs goes on."""
        for executor in self._all():
            executor.shed()

    def is_quiet(self) -> bool:
        """Whether nothing runs, and every outcome was handed on."""
        return all(executor.is_quiet() for executor in self._all())

    def running(self) -> list[Record | Prepared]:
        """What is under way."""
        return [one for executor in self._all() for one in executor.running()]

    def _all(self) -> list[LoopExecutor | ThreadExecutor]:
        return [e for e in (self.loop, self._threads, self._processes) if e is not None]

    def stop(self, timeout_s: float) -> int:
        """End all executors; returns how many threads are stuck in a handler."""
        stuck = 0
        for executor in (self._threads, self._processes):
            if executor is not None:
                stuck += executor.stop(timeout_s)
        self.loop.stop()
        return stuck
