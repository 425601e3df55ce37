"""The decorator `@app.task`, with and without options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from taskmill.producer.context import Context
from taskmill.producer.definition import DEFAULT_QUEUE, Effects, Isolation, Promise
from taskmill.producer.function import Sender, TaskFunction
from taskmill.producer.registry import Registry
from taskmill.producer.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")

#: The options where a call does not name them.
_UNSAID: Mapping[str, Any] = {
    "name": None,
    "queue": DEFAULT_QUEUE,
    "aliases": (),
    "isolate": None,
    "delivery": "at_least_once",
    "effects": None,
    "store_result": True,
    "result_ttl": None,
    "timeout": None,
    "expires": None,
    "deadline": None,
    "retry": None,
}


class Declare:
    """Declares a function as a task: `@app.task` or `@app.task(name=…, queue=…)`.

    To a type checker, a Context parameter that comes first is none of the call's arguments;
    taskmill itself finds it by its annotation, wherever it stands.
    """

    def __init__(
        self, registry: Registry, sender: Callable[[], Sender], options: Mapping[str, Any] = {}
    ) -> None:
        self._registry = registry
        self._sender = sender
        self._options = options

    @overload
    def __call__(
        self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> TaskFunction[Concatenate[Context, P], Coroutine[Any, Any, R], P, R]: ...

    @overload
    def __call__(
        self, fn: Callable[Concatenate[Context, P], R], /
    ) -> TaskFunction[Concatenate[Context, P], R, P, R]: ...

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> TaskFunction[P, Coroutine[Any, Any, R], P, R]: ...

    @overload
    def __call__(self, fn: Callable[P, R], /) -> TaskFunction[P, R, P, R]: ...

    @overload
    def __call__(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        aliases: tuple[str, ...] = (),
        isolate: Isolation | None = None,
        delivery: Promise = "at_least_once",
        effects: Effects | None = None,
        store_result: bool = True,
        result_ttl: str | None = None,
        timeout: str | None = None,
        expires: str | None = None,
        deadline: str | None = None,
        retry: Retry | None = None,
    ) -> Declare: ...

    def __call__(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        aliases: tuple[str, ...] = (),
        isolate: Isolation | None = None,
        delivery: Promise = "at_least_once",
        effects: Effects | None = None,
        store_result: bool = True,
        result_ttl: str | None = None,
        timeout: str | None = None,
        expires: str | None = None,
        deadline: str | None = None,
        retry: Retry | None = None,
    ) -> Any:
        """Declare `fn`, or return a decorator that does with these options.

        `name`: the function's own by default, unique in the App. `aliases`: further names that
        reach it, for tasks sent before a renaming. `isolate="process"`: run it in a process of
        its own, for work that holds the interpreter. `delivery="at_most_once"`: it is never
        started again once it may have begun, and where its worker ends before it does, it goes to
        the dead letters as `abandoned`. `effects="postgresql"`: run it inside one
        transaction of `Context.connection`, which also holds its outcome, so that what it does
        there happens exactly once. `store_result=False`: what it returns is kept nowhere, and need
        not be JSON; `handle.result()` waits for its end and returns None, or raises as for any
        other that failed. `result_ttl="1d"`: its result is gone so long after its end
        (ResultExpired), while its state stays. `timeout="30s"`: an attempt that runs longer is
        stopped, as far as its kind allows, and has failed. `expires="1h"`: not started so long
        after its enqueue, it ends as `expired`. `deadline="1d"`: nothing of it runs beyond so long
        after its enqueue. `retry=Retry(…)`: how it is tried again where it fails, in place of the
        App's. Raises ConfigError.
        """
        given = {
            "name": name,
            "queue": queue,
            "aliases": aliases,
            "isolate": isolate,
            "delivery": delivery,
            "effects": effects,
            "store_result": store_result,
            "result_ttl": result_ttl,
            "timeout": timeout,
            "expires": expires,
            "deadline": deadline,
            "retry": retry,
        }
        # What was given before stands where this call leaves an option out.
        said = {key: value for key, value in given.items() if value != _UNSAID[key]}
        options = {**self._options, **said}
        if fn is None:
            return Declare(self._registry, self._sender, options)
        # Annotations may name what only the enclosing function knows.
        scope = sys._getframe(1).f_locals
        function: TaskFunction[..., Any, ..., Any] = TaskFunction(
            fn, self._sender, scope=scope, **options
        )
        self._registry.add(function)
        return function
