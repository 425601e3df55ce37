"""Streams, the feed behind them, and who waits for results, over a store that fails and tokens that
end. No broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request

from taskmill.console.api import feed as feeds
from taskmill.console.api import stream as streams
from taskmill.console.api.access import admit
from taskmill.console.api.asked import ChangesOf, ResultOf
from taskmill.console.api.feed import Feed
from taskmill.console.api.look import Look
from taskmill.console.api.problems import Refused
from taskmill.console.api.reads import Reads
from taskmill.console.api.stream import Stream
from taskmill.console.store.rows import Freshness
from taskmill.console.token import Token
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable

TOKEN = Token("0" * 12, frozenset({"read"}), None, None, "", 0, "")
pytestmark = pytest.mark.timeout(20)


class Tokens:
    """Knows one token, until `then` says otherwise."""

    def __init__(self) -> None:
        self.then: Callable[[], Token | None] = lambda: TOKEN

    def check(self, secret: str) -> Token | None:
        return self.then()


class FailingStore:
    """Is fresh and empty; `fails`: what it raises, once each, when it is asked for changes."""

    uuid = "u"

    def __init__(self) -> None:
        self.fails: list[Exception] = []
        self.looks = 0

    def freshness(self) -> Freshness:
        return Freshness(SYSTEM_CLOCK.now_ms(), 0, ())

    def last_change(self) -> int:
        return 5

    def changes(self, after: int, limit: int) -> list[Any]:
        self.looks += 1
        if self.fails:
            raise self.fails.pop(0)
        return []

    def task(self, queue: str, id: str) -> None:
        return None


class Services:
    clock = SYSTEM_CLOCK
    settings = Settings(bootstrap_servers="127.0.0.1:9")

    def __init__(self) -> None:
        self.tokens, self.store = Tokens(), FailingStore()
        self.reads = Reads(self.store, SYSTEM_CLOCK)
        self.feed = Feed(self.reads, SYSTEM_CLOCK)
        self.ending = asyncio.Event()


class Opened:
    """A stream as a server runs it: its status and text, until it ends or its client goes."""

    def __init__(self, stream: Stream, services: Services, **headers: str) -> None:
        said = {"authorization": "Bearer x", **headers}
        raw = [(n.replace("_", "-").encode(), v.encode()) for n, v in said.items()]
        self.scope: dict[str, Any] = {"type": "http", "headers": raw, "method": "GET", "path": "/"}
        self.request = Request(self.scope, self._receive)
        admit(services.tokens, self.request)
        self.gone = asyncio.Event()
        self.text = ""
        self._stream = stream

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.text += message.get("body", b"").decode()

    async def run(self) -> None:
        response = await self._stream.open(self.request, ChangesOf())
        await response(self.scope, self._receive, self._send)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def run(act: Callable[[Services], Awaitable[None]]) -> None:
    async def whole() -> None:
        services = Services()
        try:
            await act(services)
        finally:
            services.feed.close()
            services.reads.close()

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_LOOK_S", 0.02)
    monkeypatch.setattr(feeds, "_LOOK_S", 0.01)
    monkeypatch.setattr(feeds, "_AGAIN_S", 0.01)


@pytest.mark.parametrize("limit", ["MOST_STREAMS", "MOST_OF_TOKEN"])
def test_no_more_streams_are_open_than_may_be_however_fast_they_come(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(streams, limit, 3)

    async def act(services: Services) -> None:
        stream = Stream(services)  # type: ignore[arg-type]
        opened = [Opened(stream, services) for _ in range(10)]
        tasks = [asyncio.create_task(one.run()) for one in opened]
        await until(lambda: sum("hello" in one.text for one in opened) == 3)
        await until(lambda: sum(task.done() for task in tasks) == 7)
        kinds = {task.exception().kind for task in tasks if task.done()}  # type: ignore[union-attr]
        assert kinds == {"unavailable"}
        for one in opened:
            one.gone.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Each that went has made room, also one that went before it was answered.
        early = Opened(stream, services)
        early.gone.set()
        await early.run()
        more = [Opened(stream, services) for _ in range(3)]
        tasks = [asyncio.create_task(one.run()) for one in more]
        await until(lambda: all("hello" in one.text for one in more))
        services.ending.set()
        await asyncio.gather(*tasks)

    run(act)


@pytest.mark.parametrize("away", [None, Unreachable("Kafka has not said which hold")])
def test_a_stream_whose_token_no_longer_counts_or_cannot_be_checked_ends_quietly(
    away: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(services: Services) -> None:
        opened = Opened(Stream(services), services)  # type: ignore[arg-type]
        task = asyncio.create_task(opened.run())
        await until(lambda: "hello" in opened.text)

        def refuse() -> Token | None:
            if away is not None:
                raise away
            return None

        services.tokens.then = refuse
        await task

    run(act)
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_stream_that_cannot_be_told_what_it_missed_ends_and_may_come_again() -> None:
    async def act(services: Services) -> None:
        services.store.fails = [Unreachable("away")]
        opened = Opened(Stream(services), services, last_event_id="u-2")  # type: ignore[arg-type]
        await opened.run()
        assert opened.text.startswith("retry: 2000\nid: u-2\n")

    run(act)


def test_the_feed_outlives_whatever_a_look_raises() -> None:
    async def act(services: Services) -> None:
        with services.feed.listen(lambda changes: None):
            await services.feed.place()
            services.store.fails = [
                Unreachable("away"), TaskmillError("refused"), ZeroDivisionError("a bug"),
            ]  # fmt: skip
            await until(lambda: not services.store.fails)
            before = services.store.looks
            await until(lambda: services.store.looks > before + 2)
            assert services.feed.position == 5

    run(act)


def test_who_waits_for_a_result_is_not_told_it_once_the_token_no_longer_counts() -> None:
    async def act(services: Services) -> None:
        look = Look(services)  # type: ignore[arg-type]
        opened = Opened(Stream(services), services)  # type: ignore[arg-type]
        asked = ResultOf(wait="60s")
        task = asyncio.create_task(look.result(opened.request, "a", asked))
        await until(lambda: bool(services.feed._waiting))
        services.tokens.then = lambda: None
        for event in services.feed._waiting["default", "a"]:
            event.set()  # it changed
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(task, 10)
        assert refused.value.status == 401

    run(act)
