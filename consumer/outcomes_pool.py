"""A bounded pool of PostgreSQL connections, for coroutines of one loop or for threads.

A connection is made when it is needed and kept as long as it is sound; a failure to make one is
its caller's to wait out, so that a database that is back is noticed at the next try.

The flow of an attempt (outcomes_run.py) is written once, as coroutines, for psycopg's two kinds of
connection: `settled` awaits what a call of the async kind returned and passes on what one of the
other kind did; `finish` runs a coroutine that therefore never suspends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from taskmill.runtime.errors import ConfigError

T = TypeVar("T")

#: A connection of either kind.
Connection = Any

#: The server asks a silent client after 10 s, and gives it up 15 s later: the transaction of a
#: machine that is gone would else hold its rows for the two hours of TCP's default.
_KEEPALIVE = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c client_encoding=UTF8"
)
#: To make a connection, in seconds, where the URL says nothing.
_CONNECT_TIMEOUT_S = 10


def connection_parameters(url: str) -> dict[str, Any]:
    """libpq's parameters from a URL, and ours where it has none.

    Raises ConfigError, which does not repeat the URL: there is a password in it.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigError(
            "TASKMILL_OUTCOMES_URL is no address of a PostgreSQL database: "
            "postgresql://user:password@host:port/database, special characters as %XX"
        ) from None
    options = f"{_KEEPALIVE} {given.get('options') or ''}".strip()
    return {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "fallback_application_name": "taskmill",
        **given,
        "options": options,
    }


class Pool:
    """Up to `size` connections. `use` waits for a free place; `open` is for its holder."""

    def __init__(self, parameters: dict[str, Any], size: int, *, is_async: bool) -> None:
        self._parameters = parameters
        self._connect: Callable[..., Any] = (
            psycopg.AsyncConnection.connect if is_async else psycopg.Connection.connect
        )
        self._places: Any = asyncio.Semaphore(size) if is_async else threading.Semaphore(size)
        self._idle: list[Connection] = []
        self._is_closed = False

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """The right to one connection at a time."""
        await settled(self._places.acquire())
        try:
            yield
        finally:
            self._places.release()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction. Raises psycopg.OperationalError.

        It is kept for the next one only if it is left so again.
        """
        connection = self._kept()
        if connection is None:
            connection = await settled(self._connect(**self._parameters, autocommit=True))
        try:
            yield connection
        finally:
            await self._leave(connection)

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def _leave(self, connection: Connection) -> None:
        is_sound = connection.info.transaction_status == TransactionStatus.IDLE
        if is_sound and not self._is_closed:
            # What a handler may have set on it is not the next one's.
            connection.row_factory = tuple_row
            self._idle.append(connection)
            return
        broken = connection.broken
        await settled(connection.close())
        if broken:  # the server went, most likely, and the others with it
            await self._close_idle()

    async def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        self._is_closed = True
        await self._close_idle()

    async def _close_idle(self) -> None:
        while self._idle:
            await settled(self._idle.pop().close())


async def settled(value: Any) -> Any:
    """What `value` comes to: awaited, where it is an async call's."""
    return await value if isawaitable(value) else value


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """`manager` as an async context manager, of whichever kind it is."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


@asynccontextmanager
async def pipelined(connection: Connection) -> AsyncIterator[None]:
    """Statements in here travel together. Raises what the first that failed met: psycopg may raise
    what that did to the others, "pipeline aborted", by how the answers came in."""
    try:
        async with entered(connection.pipeline()):
            yield
    except psycopg.errors.PipelineAborted as error:
        raise (error.__context__ or error) from None


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of `coroutine`, which is known not to suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a coroutine over plain connections suspended")
