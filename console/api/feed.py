"""What changes in the store, for all who wait: one poller, however many listen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from taskmill.console.api import shown
from taskmill.console.api.problems import Refused
from taskmill.console.api.reads import Reads
from taskmill.console.store.rows import TaskRow
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import TaskmillError

logger = logging.getLogger("taskmill.console")

#: Between two looks, while anybody listens; after one that failed.
_LOOK_S, _AGAIN_S = 0.1, 1.0
#: Changes that are read in one go.
PAGE = 1_000


class Change:
    """A changed task, and its document, which is made once for all who are told."""

    __slots__ = ("_text", "row")

    def __init__(self, row: TaskRow) -> None:
        self.row = row
        self._text: str | None = None

    @property
    def text(self) -> str:
        """As JSON, in one line."""
        if self._text is None:
            self._text = shown.task(self.row).model_dump_json()
        return self._text


Listener = Callable[[list[Change]], None]


class Feed:
    """Tells listeners of changed tasks, in the order of their numbers. On the event loop alone."""

    def __init__(self, reads: Reads, clock: Clock) -> None:
        self._reads = reads
        self._clock = clock
        self._listeners: set[Listener] = set()
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._poller: asyncio.Task[None] | None = None
        #: The number of the last change that was told; None while nobody listens.
        self.position: int | None = None
        self._placed = asyncio.Event()

    async def place(self) -> int:
        """The number of the last change that the listeners were told of. Raises Refused, 503, where
        the store does not answer."""
        try:
            await asyncio.wait_for(self._placed.wait(), 5.0)
        except TimeoutError:
            raise Refused("unavailable", "the store does not answer") from None
        assert self.position is not None, "it is placed"
        return self.position

    @contextmanager
    def listen(self, listener: Listener) -> Iterator[None]:
        """Have `listener` called with what changes; it must not block."""
        self._listeners.add(listener)
        self._wake()
        try:
            yield
        finally:
            self._listeners.discard(listener)

    @contextmanager
    def watch(self, queue: str, id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever that task changes."""
        event, key = asyncio.Event(), (queue, id)
        self._waiting.setdefault(key, set()).add(event)
        self._wake()
        try:
            yield event
        finally:
            events = self._waiting[key]
            events.discard(event)
            if not events:
                del self._waiting[key]

    def close(self) -> None:
        """Look no more."""
        if self._poller is not None:
            self._poller.cancel()

    def _wake(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="taskmill-feed")

    async def _poll(self) -> None:
        try:
            while self._listeners or self._waiting:
                try:
                    more = await self._look()
                except (Refused, TaskmillError) as error:
                    logger.warning("no changes for those who wait: %s", error)
                    await asyncio.sleep(_AGAIN_S)
                except Exception:
                    # Those who listen would wait for ever.
                    logger.exception("the feed of changes failed, and goes on")
                    await asyncio.sleep(_AGAIN_S)
                else:
                    # A full page has more behind it.
                    await asyncio.sleep(0 if more else _LOOK_S)
        finally:
            self.position = None
            self._placed.clear()

    async def _look(self) -> bool:
        if self.position is None:
            self.position = await self._reads.ask(self._reads.store.last_change)
            self._placed.set()
            # What changed just before may not have been told to anybody: look once more.
            for events in self._waiting.values():
                for event in events:
                    event.set()
            return False
        rows = await self._reads.ask(self._reads.store.changes, self.position, PAGE)
        if not rows:
            return False
        self.position = rows[-1].changed
        changes = [Change(row) for row in rows]
        for listener in tuple(self._listeners):
            listener(changes)
        if self._waiting:
            for row in rows:
                for event in self._waiting.get((row.queue, row.id), ()):
                    event.set()
        return len(rows) >= PAGE
