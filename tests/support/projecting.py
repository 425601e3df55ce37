"""Consoles that project: in the test's process, or in one of their own that it may kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from confluent_kafka import Producer

from support.states import StateWriter, make_state
from support.workers import environment
from taskmill.console.projection.projector import Projector
from taskmill.console.store.open import open_store
from taskmill.console.store.store import Store
from taskmill.runtime.config import Settings
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import JSON, Task, TaskError
from taskmill.schemas.states import Status

#: Another console is taken for dead after this.
LEASE_S = 2.0

_CHILD = f"""
import sys, threading
from taskmill.runtime.config import load_settings
from taskmill.console.store.open import open_store
from taskmill.console.projection.projector import Projector
projector = Projector(load_settings(), open_store(sys.argv[1]), lease_s={LEASE_S})
projector.start()
print("up", flush=True)
threading.Event().wait()
"""


def child(settings: Settings, url: str) -> subprocess.Popen[bytes]:
    """A process that projects until it is killed; it has opened its store."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, url],
        env={**os.environ, **environment(settings)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL it."""
    process.kill()
    process.communicate(timeout=10)


@contextmanager
def projecting(settings: Settings, url: str) -> Iterator[tuple[Store, Projector]]:
    """A console that projects, in this process."""
    store = open_store(url)
    projector = Projector(settings, store, lease_s=LEASE_S)
    projector.start()
    try:
        yield store, projector
    finally:
        projector.close()
        store.close()


def until(true: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
    """Wait until `true()`."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.02)


def caught_up(store: Store) -> None:
    """Wait until the store knows all that was written before this call."""
    now = time.time() * 1000
    until(lambda: store.freshness().as_of >= now, f"as_of {now}: {store.freshness()}")


class Life:
    """Writes what becomes of tasks as producers and workers would, at the dice's will."""

    def __init__(self, settings: Settings, seed: int, queue: str = "default") -> None:
        self.random = Random(seed)
        self._settings, self._topics = settings, Topics(settings.prefix, queue)
        self._writer = StateWriter(settings, queue)
        self._producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "linger.ms": 0})
        self._count = 0

    def put_task(self, task_id: str, *, payload: bytes = b"{}", **numbers: int) -> None:
        """A record on `tasks`; `numbers` are those of its headers, by name."""
        key = task_id.encode()
        n = self._settings.partitions
        p = partition_for(key, n)
        headers: list[tuple[str, str | bytes | None]] = [("taskmill-partition", f"{p}/{n}")]
        headers += [(f"taskmill-{name}", str(number)) for name, number in numbers.items()]
        now = int(time.time() * 1000)
        value = CODEC.encode_task(Task(task_id, "add", payload, JSON, now))
        self._producer.produce(self._topics.tasks, value, key, p, headers=headers)

    def put_raw(self, topic: str, value: bytes) -> None:
        """Any bytes, under a key that is no task's."""
        p = partition_for(b"raw", self._settings.partitions)
        self._producer.produce(topic, value, b"raw", p)
        self._producer.flush(10)

    def some(self, count: int) -> None:
        """The lives of so many tasks, in one transaction; each tenth is aborted."""
        tasks = range(self._count, self._count + count)
        self._count += count
        with self._writer.transaction(commit=self.random.random() > 0.1) as states:
            for number in tasks:
                self._one(states, f"t{number}")
        self._producer.flush(10)

    def _one(self, states: StateWriter, task_id: str) -> None:
        dice, now = self.random.random(), int(time.time() * 1000)
        times = {"enqueued_at": now - 9, "started_at": now - 5, "finished_at": now}
        self.put_task(task_id, payload=b'{"n": %d}' % self.random.randrange(10**6))
        if dice < 0.1:
            self.put_task(task_id, payload=b'{"twin": 1}')
        if dice < 0.2:
            return
        if dice < 0.3:
            running = {"enqueued_at": now - 9, "started_at": now - 5, "finished_at": None}
            states.put(make_state(task_id, Status.RUNNING, **running))
        if dice < 0.5:
            error = TaskError("OSError", "later\0", "f1")
            states.put(make_state(task_id, Status.RETRYING, error=error, **times))
            self.put_task(task_id, seq=1, attempt=2)
            states.put(make_state(task_id, Status.DEAD, seq=1, attempt=2, **times))
        elif dice < 0.6:
            states.put_large(make_state(task_id, **times), b"9" * 900)
        else:
            states.put(make_state(task_id, **times))
        if dice < 0.4:
            self.put_task(task_id, generation=1)
            states.put(make_state(task_id, generation=1, **times))
