"""The App's lifespan: what is set up once a process before its tasks, and torn down after."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any

from taskmill.runtime.errors import ConfigError

LifespanFunction = Callable[[], Any]
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def no_lifespan() -> AsyncIterator[None]:
    """The lifespan of an App that declares none."""
    yield None


def as_lifespan(fn: LifespanFunction) -> Lifespan:
    """`fn` as a function that returns an async context manager, whose value are the resources.

    `fn` takes no arguments and yields once: a generator, an async one, or a function already
    wrapped by contextlib. A plain one blocks the event loop while it sets up and tears down.
    Raises ConfigError.
    """
    if not callable(fn) or inspect.signature(fn).parameters:
        raise ConfigError("@app.lifespan: a function without parameters that yields once")
    if inspect.isasyncgenfunction(fn):
        return asynccontextmanager(fn)
    enter = contextmanager(fn) if inspect.isgeneratorfunction(fn) else fn

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Any]:
        made = enter()
        if isinstance(made, AbstractAsyncContextManager):
            async with made as resources:
                yield resources
        elif isinstance(made, AbstractContextManager):
            with made as resources:
                yield resources
        else:
            if inspect.iscoroutine(made):
                made.close()
            raise ConfigError(
                f"@app.lifespan: {fn!r:.100} neither yields nor returns a context manager"
            )

    return lifespan
