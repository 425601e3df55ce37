"""The methods that both clients have, from one list: what they send is the same.

A client of threads returns what an answer says, one of asyncio an awaitable of it; a type checker
tells which by the class that a method is taken from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar, overload

from taskmill.console.client import calls, ended, more_calls
from taskmill.console.client.wire import Action, Pages

P = ParamSpec("P")
R = TypeVar("R")


class Sync:
    """Sends on the calling thread."""

    def send(self, action: Action[R]) -> R:
        raise NotImplementedError

    def each(self, pages: Pages[R]) -> Iterator[R]:
        raise NotImplementedError


class Async:
    """Sends on an event loop."""

    async def send(self, action: Action[R]) -> R:
        raise NotImplementedError

    def each(self, pages: Pages[R]) -> AsyncIterator[R]:
        raise NotImplementedError


class Call(Generic[P, R]):
    """A method that sends what `make` makes of its arguments."""

    def __init__(self, make: Callable[P, Action[R]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, owner: None, kind: type) -> Call[P, R]: ...

    def __get__(self, owner: Sync | Async | None, kind: type) -> Any:
        if owner is None:
            return self
        make = self._make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return owner.send(make(*args, **kwargs))

        return method


class Listing(Generic[P, R]):
    """A method that goes through the pages that `make` makes of its arguments."""

    def __init__(self, make: Callable[P, Pages[R]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, Iterator[R]]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, AsyncIterator[R]]: ...
    @overload
    def __get__(self, owner: None, kind: type) -> Listing[P, R]: ...

    def __get__(self, owner: Sync | Async | None, kind: type) -> Any:
        if owner is None:
            return self
        make = self._make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return owner.each(make(*args, **kwargs))

        return method


class Calls:
    """All that a console can be asked for."""

    me = Call(calls.me)
    enqueue = Call(calls.enqueue)
    enqueue_many = Call(calls.enqueue_many)
    task = Call(calls.task)
    tasks = Listing(calls.tasks)
    result = Call(calls.result)
    ended = Call(ended.ended)
    cancel = Call(calls.cancel)
    run_again = Call(calls.run_again)

    letters = Listing(more_calls.letters)
    letter = Call(more_calls.letter)
    letter_groups = Call(more_calls.letter_groups)
    replay = Call(more_calls.replay)
    preview_replay = Call(more_calls.preview_replay)
    replays = Call(more_calls.replays)
    replay_status = Call(more_calls.replay_status)

    schedules = Call(more_calls.schedules)
    schedule = Call(more_calls.schedule)
    put_schedule = Call(more_calls.put_schedule)
    remove_schedule = Call(more_calls.remove_schedule)
    trigger = Call(more_calls.trigger)
    pause_schedule = Call(more_calls.pause_schedule)
    resume_schedule = Call(more_calls.resume_schedule)

    queues = Call(more_calls.queues)
    pause = Call(more_calls.pause)
    resume = Call(more_calls.resume)
    workers = Call(more_calls.workers)
    overview = Call(more_calls.overview)
