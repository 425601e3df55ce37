"""Workers as people start them, `taskmill worker`, and what shows of their work from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from load import PATIENCE_S, group_of
from measure import HERE

from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics


class Fleet:
    """One `taskmill worker` command: a process, or with --processes a supervisor and its children.

    Its log is kept in `lines`. Killed at the end, with all that it started.
    """

    def __init__(self, settings: Settings, *options: str, node: str = "a") -> None:
        self.lines: list[str] = []
        self.began = time.perf_counter()
        folder = settings.state_dir / node
        folder.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskmill", "worker", "-A", "jobs:app", *options],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(HERE),
                "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
                "TASKMILL_PREFIX": settings.prefix,
                "TASKMILL_STATE_DIR": str(folder),
                "TASKMILL_PARTITIONS": str(settings.partitions),
                "TASKMILL_GROUP_PROTOCOL": settings.group_protocol,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Wait until `times` lines of the log match."""
        wanted = re.compile(pattern)
        wait(
            lambda: sum(1 for line in list(self.lines) if wanted.search(line)) >= times,
            f"{times} × {pattern!r} in the log:\n{''.join(self.lines[-20:])}",
        )

    def drain(self) -> float:
        """SIGTERM it; seconds until it has ended."""
        began = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        assert code == 0, f"exit code {code}\n{''.join(self.lines[-20:])}"
        return time.perf_counter() - began

    def kill(self) -> None:
        """SIGKILL it and all that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended, and all of it
        self.process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


#: The group's coordinator is only being made out.
_SOON = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)


class Progress:
    """How far the group of a queue's workers has committed, asked of the broker."""

    def __init__(self, settings: Settings) -> None:
        topic = Topics(settings.prefix, "default").tasks
        self._partitions = [TopicPartition(topic, p) for p in range(settings.partitions)]
        self._group, self._bootstrap = group_of(settings), settings.bootstrap_servers
        # Uncommitted: the question is not to wait for an open transaction.
        config: dict[str, Any] = {
            "bootstrap.servers": self._bootstrap,
            "group.id": self._group,
            "isolation.level": "read_uncommitted",
        }
        self._client = Consumer(config)

    def offsets(self) -> list[int]:
        """The committed offset of each partition, 0 where there is none."""
        try:
            found = self._client.committed(self._partitions, timeout=10)
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() not in _SOON:
                raise
            return [0] * len(self._partitions)  # a group that is new has no coordinator at first
        return [max(0, tp.offset) for tp in found]

    def wait(self, total: int) -> float:
        """Wait until so many records are committed; the time (perf_counter) of it."""
        wait(lambda: sum(self.offsets()) >= total, f"{total} records committed", every_s=0.02)
        return time.perf_counter()

    def wait_shared(self, members: int) -> None:
        """Wait until so many members share the partitions evenly."""
        # It tells at level 6 of what it had not served when it ends.
        admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 4})

        def is_shared() -> bool:
            (answer,) = admin.describe_consumer_groups([self._group]).values()
            try:
                found = answer.result().members
            except KafkaException:
                return False  # nobody has joined yet
            shares = [len(member.assignment.topic_partitions) for member in found]
            return shares == [len(self._partitions) // members] * members

        wait(is_shared, f"{members} members in group {self._group}")

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Trickle:
    """Watches the committed offsets under a steady load: how long does each partition rest?"""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._offsets = progress.offsets()
        now = time.perf_counter()
        self._moved = [now] * len(self._offsets)
        self._longest = [0.0] * len(self._offsets)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(0.005):
            offsets, now = self._progress.offsets(), time.perf_counter()
            with self._lock:
                for p, (old, new) in enumerate(zip(self._offsets, offsets, strict=True)):
                    if new > old:
                        self._longest[p] = max(self._longest[p], now - self._moved[p])
                        self._moved[p] = now
                self._offsets = offsets

    def reset(self) -> None:
        """Forget the pauses so far."""
        with self._lock:
            now = time.perf_counter()
            self._moved = [now] * len(self._moved)
            self._longest = [0.0] * len(self._longest)

    def longest(self) -> float:
        """The longest that any partition stood still since the last reset, in seconds; one that
        stands still now is waited for."""
        began = time.perf_counter()

        def moved() -> bool:
            with self._lock:
                return min(self._moved) > began

        wait(moved, "every partition to move")
        with self._lock:
            return max(self._longest)

    def close(self) -> None:
        self._ending.set()
        self._thread.join()


def wait(true: Callable[[], bool], what: str, every_s: float = 0.002) -> None:
    """Wait until `true()`, asked at such intervals, within the patience of a question.

    A question of the broker costs the cores that are measured: 500 a second took a tenth of one.
    """
    limit = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > limit:
            raise SystemExit(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(every_s)
