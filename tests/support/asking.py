"""One way to use both clients: a test says what is asked, on a thread or on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing
from types import TracebackType
from typing import Any, Self

from taskmill.console.client import AsyncClient, Client, Event
from taskmill.console.client.wire import Action

WAYS = ("threads", "asyncio")


class Asking:
    """`ask("task", "x")` is `client.task("x")`, or the same awaited; `way` is one of WAYS."""

    def __init__(self, way: str, url: str, token: str | None = None, **more: Any) -> None:
        self._runner = asyncio.Runner()
        self.client: Client | AsyncClient
        if way == "threads":
            self.client = Client(url, token, **more)
        else:
            self.client = AsyncClient(url, token, **more)

    def ask(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """What a call answers. Raises what it raises."""
        answer = getattr(self.client, call)(*args, **kwargs)
        return self._runner.run(_awaited(answer)) if asyncio.iscoroutine(answer) else answer

    def send(self, action: Action[Any]) -> Any:
        """As `ask`, of what a call made."""
        return self.ask("send", action)

    def take(
        self, call: str, most: int | None = None, until: str | None = None, **kwargs: Any
    ) -> list[Any]:
        """What a listing or a stream yields, up to `most`, or an event of that status."""
        found, taken = getattr(self.client, call)(**kwargs), list[Any]()

        def is_last(one: Any) -> bool:
            taken.append(one)
            return len(taken) == most or (until is not None and _status(one) == until)

        if isinstance(self.client, Client):
            with closing(found):
                any(map(is_last, found))
        else:
            self._runner.run(_taken(found, is_last))
        return taken

    def follow(self, until: str, **kwargs: Any) -> list[Event]:
        """The events of a stream up to one of a task whose status is `until`."""
        return self.take("stream", until=until, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(self.client, Client):
            self.client.close()
        else:
            self._runner.run(self.client.aclose())
        self._runner.close()


def _status(event: Event) -> str | None:
    return None if event.task is None else event.task.status


async def _awaited(answer: Any) -> Any:
    return await answer


async def _taken(found: Any, is_last: Callable[[Any], bool]) -> None:
    async with aclosing(found):
        async for one in found:
            if is_last(one):
                return
