"""What reads a scene's topics, offsets and starts into its history while faults happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from faults.history import Committed, History, StartFile
from support.oracle import Oracle
from support.wire import read_state
from support.witness import Witness

#: The group's offsets are asked for this often.
ASK_S = 0.2
#: A coordinator that is away, or was asked before it knew that it is one, gives no answer at all.
ANSWER_S = 3.0


class Reader(Witness):
    """A read_committed reader of tasks, state and DLQ that writes into a history."""

    def __init__(self, oracle: Oracle, history: History) -> None:
        super().__init__(oracle.bootstrap, [oracle.tasks, oracle.state, oracle.dlq])
        self._oracle, self._history = oracle, history

    def _keep(self, message: Any) -> None:
        topic, key = message.topic(), message.key()
        partition, offset = message.partition(), message.offset()
        if topic == self._oracle.tasks:
            self._history.place(key, partition, offset)
        elif topic == self._oracle.dlq:
            self._history.letter(key, dict(message.headers()))
        else:
            self._history.state(key, read_state(message.value()), partition, offset)


class Watch:
    """Two threads: one reads the topics as they grow, one asks for the group's offsets."""

    def __init__(self, oracle: Oracle, history: History, starts: Path) -> None:
        self._oracle, self._history, self._starts = oracle, history, StartFile(starts)
        self._prefix = oracle.tasks.split(".")[0]
        self._reader = Reader(oracle, history)
        self._ending = threading.Event()
        self._changed = threading.Condition()
        #: The group's stable offsets, as last seen.
        self.offsets: dict[int, int] = {}
        #: What ended a thread.
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(main,), daemon=True, name=main.__name__)
            for main in (self._reading, self._asking)
        ]
        for thread in self._threads:
            thread.start()

    def _guarded(self, main: Callable[[], None]) -> None:
        try:
            main()
        except BaseException as error:
            self.failure = error
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _reading(self) -> None:
        while not self._ending.is_set():
            self._reader.step()
            self._tell()

    def _asking(self) -> None:
        while not self._ending.wait(ASK_S):
            try:
                offsets = self._oracle.committed(ANSWER_S)
            except KafkaException:
                # The coordinator is busy with a transaction, or was away. An admin client keeps the
                # leader epochs that it knew before a restart, so a new one asks.
                self._oracle = Oracle(self._oracle.bootstrap, self._prefix)
                continue
            now = time.monotonic()
            for p, offset in offsets.items():
                if offset != self.offsets.get(p):
                    self._history.committed.append(Committed(now, p, offset))
            self.offsets = offsets
            self._tell()

    def take_starts(self) -> None:
        """Add the starts that were noted since the last time to the history."""
        self._history.starts += self._starts.new()

    def until(
        self, holds: Callable[[], bool], what: str | Callable[[], str], timeout_s: float
    ) -> None:
        """Wait until `holds()`, asked whenever something was seen; fails after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not holds():
                if self.failure is not None:
                    raise self.failure
                left = deadline - time.monotonic()
                if left <= 0:
                    text = what if isinstance(what, str) else what()
                    raise AssertionError(f"not within the limit: {text}")
                self._changed.wait(min(left, 1.0))

    def close(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30)
        self._reader.close()
