"""A queue of a test's own with the workers that it starts, all of which end with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from support.oracle import Oracle
from support.workers import WorkerProcess
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure


class Queue:
    """The queue `default` under `settings`; a context manager, which kills what was started."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        ensure(settings, "default")
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        self.workers: list[WorkerProcess] = []

    def add(self, *options: str, settings: Settings | None = None, **process: Any) -> WorkerProcess:
        """Start a worker with these options; `process` as WorkerProcess takes it."""
        worker = WorkerProcess(settings or self.settings, self.folder, *options, **process)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            print(f"--- worker {worker.pid}\n{worker.log}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
