"""One client a process, made at first use; a forked child makes its own.

After a fork the child has the parent's clients, but none of their threads: to use one hangs, and
so does to destroy it. The child therefore leaves the parent's alone, for good, and starts afresh.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from taskmill.runtime.errors import ClosedError


class Client(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Client)


class PerProcess(Generic[C]):
    """Holds what `make` returns, for this process; closes it when dropped, and at exit."""

    def __init__(self, make: Callable[[], C], owner: str) -> None:
        """`owner` is named by the ClosedError of a `get` after `close`."""
        self._holder = holder = _Holder(make, owner)
        _all.add(holder)
        # Where a program ends without closing, what is on its way gets a moment.
        weakref.finalize(self, holder.close)

    def get(self) -> C:
        """The client of this process. Raises ClosedError after `close`."""
        return self._holder.get()

    def close(self) -> None:
        """Close the client, if there is one, for good. A second call does nothing."""
        self._holder.close()

    @contextmanager
    def replaced(self, client: C) -> Iterator[None]:
        """Meanwhile `get` returns `client`, which is the caller's to close."""
        with self._holder.replaced(client):
            yield


class _Holder(Generic[C]):
    """What outlives a PerProcess for as long as it takes to close."""

    def __init__(self, make: Callable[[], C], owner: str) -> None:
        self._make = make
        self._owner = owner
        self._lock = threading.Lock()
        self._client: C | None = None
        self._closed = False

    def get(self) -> C:
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._owner} is closed; make a new App to go on")
            if self._client is None:
                self._client = self._make()
            return self._client

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            self._closed = True
        if client is not None:
            client.close()

    @contextmanager
    def replaced(self, client: C) -> Iterator[None]:
        with self._lock:
            before, self._client = self._client, client
            was_closed, self._closed = self._closed, False
        try:
            yield
        finally:
            with self._lock:
                self._client, self._closed = before, was_closed

    def forget(self) -> None:
        """In a forked child: drop the parent's client, and never let it be destroyed."""
        self._lock = threading.Lock()
        if self._client is not None:
            # One reference that nobody ever gives back, not even the interpreter's exit.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._client))
            self._client = None


_all: weakref.WeakSet[_Holder[Any]] = weakref.WeakSet()


def _forget_all() -> None:
    for holder in list(_all):
        holder.forget()


os.register_at_fork(after_in_child=_forget_all)
