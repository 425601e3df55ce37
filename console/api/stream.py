"""`GET /tasks/stream`: what changes, as server-sent events that can be resumed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from taskmill.console.api.access import Caller, admit, caller_of
from taskmill.console.api.asked import ChangesOf
from taskmill.console.api.feed import PAGE, Change
from taskmill.console.api.look import queues_of
from taskmill.console.api.problems import Refused
from taskmill.console.api.services import Services
from taskmill.runtime.errors import TaskmillError

logger = logging.getLogger("taskmill.console")

#: Streams at once, those of one token, and changes that one may be behind before it is ended (and
#: resumed).
MOST_STREAMS, MOST_OF_TOKEN, _MOST_WAITING = 200, 100, 10_000
#: A client that was away for longer than so many changes is told to load its lists anew.
_MOST_MISSED = 100_000
#: A comment goes out after so long without an event, so that nobody takes it for dead.
_BEAT_S = 10.0
#: How often a token is looked at again, and whether the console is to end.
_LOOK_S = 2.0


class Stream:
    """The streams that are open."""

    def __init__(self, services: Services) -> None:
        self._services = services
        #: How many, by token.
        self._open: Counter[str] = Counter()

    async def open(self, request: Request, asked: Annotated[ChangesOf, Query()]) -> Response:
        """Stream tasks as they change: `task` events, each a task's document.

        IDs of events are `STORE-NUMBER`; with one as `Last-Event-ID` it goes on behind it. `hello`
        begins a stream; `reset` says that what was missed is not known: load lists anew.
        """
        caller = caller_of(request)
        queues, token = queues_of(asked.queue, caller), caller.token.id
        if self._open.total() >= MOST_STREAMS:
            raise Refused("unavailable", f"{MOST_STREAMS} streams are open already")
        if self._open[token] >= MOST_OF_TOKEN:
            raise Refused("unavailable", f"{MOST_OF_TOKEN} streams of this token are open already")
        # From here on: those that come while this one waits count it.
        self._open[token] += 1
        try:
            await self._services.reads.as_of()
        except BaseException:
            self._left(token)
            raise
        return _Events(self._told(request, asked, frozenset(queues)), partial(self._left, token))

    def _left(self, token: str) -> None:
        self._open[token] -= 1
        if not self._open[token]:
            del self._open[token]

    async def _told(
        self, request: Request, asked: ChangesOf, queues: frozenset[str]
    ) -> AsyncIterator[str]:
        """The events, until something is away: who follows comes again, behind the last one."""
        async with aclosing(self._events(request, asked, queues)) as events:
            try:
                async for text in events:
                    yield text
            except (Refused, TaskmillError) as error:
                logger.info("a stream ends: %s", error)

    async def _events(
        self, request: Request, asked: ChangesOf, queues: frozenset[str]
    ) -> AsyncGenerator[str]:
        services, uuid = self._services, self._services.reads.store.uuid
        waiting: asyncio.Queue[Change | None] = asyncio.Queue(_MOST_WAITING + 1)

        def tell(changes: list[Change]) -> None:
            for change in changes:
                if waiting.qsize() >= _MOST_WAITING:
                    # Too slow: it is ended, and resumes where it was.
                    waiting.put_nowait(None)
                    return
                waiting.put_nowait(change)

        takes = _taker(asked, queues, caller_of(request))
        with services.feed.listen(tell):
            last = await services.feed.place()
            since = _resumed(request.headers.get("last-event-id"), uuid, last)
            kind = "reset" if since is None else "hello"
            yield f"retry: 2000\nid: {uuid}-{last if since is None else since}\n"
            yield f'event: {kind}\ndata: {{"store":"{uuid}"}}\n\n'
            if since is not None:
                async for change in self._missed(since, last):
                    if takes(change):
                        yield _event(uuid, change)
            async for text in self._live(request, waiting, last):
                if isinstance(text, str):
                    yield text
                elif takes(text):
                    yield _event(uuid, text)

    async def _missed(self, since: int, last: int) -> AsyncIterator[Change]:
        """What changed behind `since`, up to `last`."""
        reads = self._services.reads
        while since < last:
            rows = await reads.ask(reads.store.changes, since, PAGE)
            for row in rows:
                if row.changed <= last:
                    yield Change(row)
            if len(rows) < PAGE:
                return
            since = rows[-1].changed

    async def _live(
        self, request: Request, waiting: asyncio.Queue[Change | None], last: int
    ) -> AsyncIterator[str | Change]:
        """Changes behind `last`, and comments; until the console ends or the token no longer
        counts."""
        clock = self._services.clock
        beat = looked = clock.monotonic()
        while not self._services.ending.is_set():
            change, is_idle = None, False
            try:
                change = await asyncio.wait_for(waiting.get(), _LOOK_S)
            except TimeoutError:
                is_idle = True
            now = clock.monotonic()
            if change is None and not is_idle:
                return
            if change is not None and change.row.changed > last:
                beat = now
                yield change
            elif now - beat >= _BEAT_S:
                beat = now
                yield ": still here\n\n"
            if now - looked >= _LOOK_S:
                looked = now
                try:
                    admit(self._services.tokens, request).check_scope("read")
                except Refused:
                    return


class _Events(StreamingResponse):
    """`events`; `left` is called once, however it ends, if it began or not."""

    def __init__(self, events: AsyncIterator[str], left: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, 200, headers, "text/event-stream")
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


def _taker(asked: ChangesOf, queues: frozenset[str], caller: Caller) -> Callable[[Change], bool]:
    statuses, names = frozenset(asked.status), frozenset(asked.name)

    def takes(change: Change) -> bool:
        row = change.row
        return (
            caller.sees(row.queue)
            and (not queues or row.queue in queues)
            and (not statuses or row.status in statuses)
            and (not names or row.name in names)
        )

    return takes


def _resumed(said: str | None, uuid: str, last: int) -> int | None:
    """The number behind which to go on; None: what was missed cannot be told."""
    if not said:
        return last
    store, _, number = said.rpartition("-")
    if store != uuid or not number.isascii() or not number.isdigit() or len(number) > 18:
        return None
    since = int(number)
    return since if last - _MOST_MISSED <= since <= last else None


def _event(uuid: str, change: Change) -> str:
    return f"id: {uuid}-{change.row.changed}\nevent: task\ndata: {change.text}\n\n"
