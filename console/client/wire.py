"""What is sent and what is answered, as values: nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from taskmill.runtime.clock import Clock, Deadline

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

BASE = "/api/v1"
#: An attempt is given up after this, and what it was told to wait on purpose.
ATTEMPT_S = 10.0


class Request(NamedTuple):
    """`path` is below BASE and encoded; `wait_s`: how long the console may wait on purpose."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    wait_s: float = 0.0


class Answer(NamedTuple):
    """An answer, whole; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(NamedTuple):
    """No answer: why. `is_unsent`: the console surely did not get the request."""

    why: str
    is_unsent: bool


class Try(NamedTuple):
    """To be sent; an answer is waited for so long."""

    request: Request
    timeout_s: float


class Pause(NamedTuple):
    """To be waited."""

    seconds: float


class Way(NamedTuple):
    """What steps need to know: whom they ask, by which clock, and how long they may go on."""

    address: str
    clock: Clock
    jitter: Callable[[], float]
    deadline: Deadline


#: Yields what is to be done, is sent what came of it (None: of a pause), returns what it is about.
Steps = Generator[Try | Pause, Answer | Lost | None, R]


class Action(Protocol[R_co]):
    """What a client can carry out, without knowing what it is."""

    def steps(self, way: Way) -> Steps[R_co]:
        """Begin."""
        ...


class Operation(NamedTuple, Generic[R]):
    """One request, and how its answer is read. `is_repeatable`: sent twice, it is done once."""

    request: Request
    read: Callable[[Answer], R]
    is_repeatable: bool = True

    def steps(self, way: Way) -> Steps[R]:
        """Send it until there is an answer that counts."""
        # exchange.py is made of these values.
        from taskmill.console.client.exchange import exchange

        return exchange(self, way)


class Pages(NamedTuple, Generic[R]):
    """A list that comes in pages: the request of the first, and what is in each (`next` behind
    it)."""

    request: Request
    read: Callable[[Answer], tuple[list[R], str | None]]

    def page(self, cursor: str | None) -> Operation[tuple[list[R], str | None]]:
        """One page."""
        query = self.request.query
        if cursor is not None:
            query = (*query, ("cursor", cursor))
        return Operation(self.request._replace(query=query), self.read)


def path(*parts: str) -> str:
    """A path of parts that may hold any character."""
    return "".join(f"/{_encoded(part)}" for part in parts)


def _encoded(part: str) -> str:
    # What is dots alone would be taken for a step up.
    return quote(part, safe="") if part.strip(".") else part.replace(".", "%2E")


def query(**said: Any) -> tuple[tuple[str, str], ...]:
    """The parameters that are not None; a sequence is one that is there many times."""
    found: list[tuple[str, str]] = []
    for name, value in said.items():
        if value is None:
            continue
        many: Iterable[Any] = (
            value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
        )
        found += [(name, _text(one)) for one in many]
    return tuple(found)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
