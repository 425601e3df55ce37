"""Client and AsyncClient: each sends what the calls say, by httpx, on a thread or an event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from taskmill.console.client.address import Headed, address_of, httpx_module
from taskmill.console.client.calls import Words, changes
from taskmill.console.client.events import SILENCE_S, Event, Follow
from taskmill.console.client.exchange import away
from taskmill.console.client.failures import failure
from taskmill.console.client.lost import Patience, lost
from taskmill.console.client.surface import Async, Calls, Sync
from taskmill.console.client.wire import Action, Answer, Lost, Pages, Pause, Try, Way
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline

if TYPE_CHECKING:
    import httpx

R = TypeVar("R")

TIMEOUT_S = 30.0


class _Either:
    """What both have: whom they ask, as who, and how long they try."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Clock = SYSTEM_CLOCK,
        transport: Any = None,
        verify: Any = True,
    ) -> None:
        """`url`: of a console, such as http://127.0.0.1:8420. What does not answer, or says that it
        is behind, is asked again for `timeout_s`. `verify`: an SSL context; `transport`: httpx's.

        Raises ConfigError, one line, for a URL, and where httpx is not installed.
        """
        self.address = address_of(url)
        self._timeout_s = timeout_s
        self._clock = clock
        self._httpx = httpx_module()
        self._head = Headed(self.address, token)
        self._options: dict[str, Any] = {
            "transport": transport,
            "verify": verify,
            # Each waits for its own answer: none for a place in the pool.
            "limits": self._httpx.Limits(max_connections=None, max_keepalive_connections=20),
        }

    def _way(self) -> Way:
        return Way(
            self.address, self._clock, random.random, Deadline(self._timeout_s, self._clock)
        )  # fmt: skip

    def _timeout(self, seconds: float) -> httpx.Timeout:
        found: httpx.Timeout = self._httpx.Timeout(seconds, connect=min(seconds, 5.0))
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, token={self._head.shown})"


def _context(module: Any, address: str, verify: Any) -> Any:
    """What `verify` may be for many clients: certificates take some 20 ms to read."""
    if verify is not None or not address.startswith("https:"):
        return True if verify is None else verify
    return module.create_ssl_context()


class Client(_Either, Calls, Sync):
    """Asks a console, from any thread. Close it, or use it with `with`."""

    def __init__(self, url: str, token: str | None = None, **more: Any) -> None:
        super().__init__(url, token, **more)
        self.ssl = self._options["verify"] = _context(self._httpx, self.address, more.get("verify"))
        self._http = self._httpx.Client(**self._options)

    __init__.__doc__ = _Either.__init__.__doc__

    def send(self, action: Action[R]) -> R:
        """Carry out what a call made. Raises what its answer says, or Unreachable."""
        steps, outcome = action.steps(self._way()), None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                value: R = end.value
                return value
            if isinstance(step, Pause):
                self._clock.sleep(step.seconds)
                outcome = None
            else:
                outcome = self._try(step)

    def _try(self, step: Try) -> Answer | Lost:
        try:
            request = self._head.request(self._http, step.request, self._timeout(step.timeout_s))
            got = self._http.send(request)
        except self._httpx.RequestError as error:
            return lost(error)
        return Answer(got.status_code, got.headers, got.content)

    def each(self, pages: Pages[R]) -> Iterator[R]:
        """Go through all pages, each loaded once it is reached."""
        cursor: str | None = None
        while True:
            items, cursor = self.send(pages.page(cursor))
            yield from items
            if cursor is None:
                return

    def stream(
        self,
        *,
        status: Words = None,
        name: Words = None,
        queue: Words = None,
        last_id: str | None = None,
    ) -> Iterator[Event]:
        """Tasks as they change, without an end; resumed where the connection is lost.

        `last_id`: of an event before, to go on behind it. Raises Unreachable once the console has
        been away for `timeout_s`.
        """
        follow = Follow(changes(status=status, name=name, queue=queue), last_id)
        patience = Patience(self._way)
        while True:
            follow.begin()
            try:
                request = self._head.request(self._http, follow.request, self._timeout(SILENCE_S))
                got = self._http.send(request, stream=True)
                try:
                    if got.status_code != 200:
                        answer = Answer(got.status_code, got.headers, got.read())
                        patience.check(failure(answer, self.address))
                    else:
                        for chunk in got.iter_bytes():
                            patience.renew()
                            yield from follow.feed(chunk)
                finally:
                    got.close()
            except self._httpx.RequestError as error:
                patience.check(away(lost(error), self.address))
            self._clock.sleep(patience.pause(follow.retry_s))

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(_Either, Calls, Async):
    """Asks a console, from one event loop. Close it with `aclose`, or use it with `async with`."""

    def __init__(self, url: str, token: str | None = None, **more: Any) -> None:
        super().__init__(url, token, **more)
        self._http = self._httpx.AsyncClient(**self._options)

    __init__.__doc__ = _Either.__init__.__doc__

    async def send(self, action: Action[R]) -> R:
        """Carry out what a call made. Raises what its answer says, or Unreachable."""
        steps, outcome = action.steps(self._way()), None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                value: R = end.value
                return value
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._try(step)

    async def _try(self, step: Try) -> Answer | Lost:
        try:
            request = self._head.request(self._http, step.request, self._timeout(step.timeout_s))
            got = await self._http.send(request)
        except self._httpx.RequestError as error:
            return lost(error)
        return Answer(got.status_code, got.headers, got.content)

    async def each(self, pages: Pages[R]) -> AsyncIterator[R]:
        """Go through all pages, each loaded once it is reached."""
        cursor: str | None = None
        while True:
            items, cursor = await self.send(pages.page(cursor))
            for item in items:
                yield item
            if cursor is None:
                return

    async def stream(
        self,
        *,
        status: Words = None,
        name: Words = None,
        queue: Words = None,
        last_id: str | None = None,
    ) -> AsyncIterator[Event]:
        """As `Client.stream`. Left early, it is to be closed: `contextlib.aclosing`."""
        follow = Follow(changes(status=status, name=name, queue=queue), last_id)
        patience = Patience(self._way)
        while True:
            follow.begin()
            try:
                request = self._head.request(self._http, follow.request, self._timeout(SILENCE_S))
                got = await self._http.send(request, stream=True)
                try:
                    if got.status_code != 200:
                        answer = Answer(got.status_code, got.headers, await got.aread())
                        patience.check(failure(answer, self.address))
                    else:
                        async for chunk in got.aiter_bytes():
                            patience.renew()
                            for event in follow.feed(chunk):
                                yield event
                finally:
                    await got.aclose()
            except self._httpx.RequestError as error:
                patience.check(away(lost(error), self.address))
            await asyncio.sleep(patience.pause(follow.retry_s))

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
