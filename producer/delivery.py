"""Delivery reports that somebody waits for: a thread, a coroutine, or one for a whole batch.

The delivery thread calls them, one at a time.
"""

from __future__ import annotations

import asyncio
import threading

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from taskmill.runtime.clock import Clock


class Delivery:
    """The report on one record, waited for by the thread that sent it.

    `appended_at` is the broker's UTC milliseconds; None where it failed, or where the topic is
    one that keeps the client's time instead.
    """

    __slots__ = ("_done", "appended_at", "error")

    def __init__(self) -> None:
        # A lock taken twice is the cheapest thing to wait on: a sixth of an Event.
        self._done = threading.Lock()
        self._done.acquire()
        self.error: KafkaError | None = None
        self.appended_at: int | None = None

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.error = error
        if error is None:
            self.appended_at = _log_append_time(message)
        self._done.release()

    def wait(self, seconds: float) -> bool:
        """Whether the report came in time."""
        return self._done.acquire(timeout=seconds)


class AsyncDelivery:
    """The report on one record, waited for by a coroutine: `done` is a future of its loop."""

    __slots__ = ("_loop", "appended_at", "done", "error")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.error: KafkaError | None = None
        self.appended_at: int | None = None

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.error = error
        if error is None:
            self.appended_at = _log_append_time(message)
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class BatchDelivery:
    """The reports on many records: counted, the failed ones kept by key.

    `earliest` is the brokers' UTC milliseconds before which none of them was appended, else None.
    """

    __slots__ = ("_clock", "_done", "_expected", "_started", "delivered", "earliest", "failed")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._done = threading.Event()
        self._expected = -1
        self.delivered = 0
        self.earliest: int | None = None
        self.failed: dict[bytes, KafkaError] = {}

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed[message.key() or b""] = error
        elif not self.delivered:
            self._note_time(message)
        # Only the delivery thread comes here, so this needs no lock.
        self.delivered += 1
        if self.delivered == self._expected:
            self._done.set()

    def _note_time(self, message: Message) -> None:
        appended_at = _log_append_time(message)
        if appended_at is not None:
            elapsed_s = self._clock.monotonic() - self._started
            self.earliest = appended_at - int(elapsed_s * 1000)

    def wait(self, expected: int, seconds: float) -> bool:
        """Whether `expected` reports came in time."""
        self._expected = expected
        return self.delivered == expected or self._done.wait(seconds)


def _log_append_time(message: Message) -> int | None:
    kind, milliseconds = message.timestamp()
    return milliseconds if kind == TIMESTAMP_LOG_APPEND_TIME else None
