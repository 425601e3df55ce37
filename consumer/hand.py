"""A thread of its own for calls that may never return.

librdkafka's transactional calls take a time-out, and one of them does not always heed it
(send_offsets_to_transaction after its group coordinator was decommissioned: librdkafka #5456,
#5511). Whoever asks through a hand gets an answer or, in time, none; a hand that gave none is left
behind with whatever it holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class NoAnswer(Exception):
    """The call has not returned in time, and may do whatever it does at any time from now on."""


class Hand(Generic[T]):
    """Runs one call after the other. A daemon: a call that hangs does not keep the process."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], T] | None] = SimpleQueue()
        self._answers: SimpleQueue[T | BaseException] = SimpleQueue()
        threading.Thread(target=self._main, name=name, daemon=True).start()

    def call(self, function: Callable[[], T], seconds: float) -> T:
        """What `function` returns or raises. Raises NoAnswer; the hand is of no use then."""
        self._calls.put(function)
        try:
            answer = self._answers.get(timeout=seconds)
        except Empty:
            raise NoAnswer from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        """Let the thread go, once its call has returned."""
        self._calls.put(None)

    def _main(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                self._answers.put(function())
            except BaseException as error:  # the asker's to handle
                self._answers.put(error)
            # Nothing of the last call is held while the next one is awaited.
            del function
