"""The store as routes ask it: off the event loop, in time, and refused where it is behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from taskmill.console.api.problems import Refused
from taskmill.console.store.rows import Freshness
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import TaskmillError, Unreachable

logger = logging.getLogger("taskmill.console")

P = ParamSpec("P")
T = TypeVar("T")

#: Reads at once: a store on one disk, or in a pool of as many connections.
THREADS = 8
#: A read that takes longer is given up; the store is away, or far too slow.
_PATIENCE_S = 10.0
#: How old what is known of its freshness may be.
_FRESH_S = 0.25
#: Behind by more than this, no answer is better than one of it.
BEHIND_MS = 30_000


class Reads:
    """Asks the store. From the event loop alone."""

    def __init__(self, store: Any, clock: Clock, behind_ms: int = BEHIND_MS) -> None:
        """`store`: what the projection writes (console/store)."""
        self.store = store
        self._clock = clock
        self._behind_ms = behind_ms
        self._threads = ThreadPoolExecutor(THREADS, "taskmill-read")
        self._known: Freshness | None = None
        self._known_at = 0.0
        self._asking: asyncio.Task[Freshness] | None = None

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `read` says, off the loop. Raises Refused, 503, where the store is away."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await loop.run_in_executor(self._threads, lambda: read(*args, **kwargs))
        except TimeoutError:
            raise Refused("unavailable", f"the store gave no answer in {_PATIENCE_S:g} s") from None
        except Unreachable as error:
            raise Refused("unavailable", str(error)) from None
        except TaskmillError:
            raise
        except Exception as error:
            if _is_of_database(error):
                logger.exception("the store failed")
                raise Refused("unavailable", "the store does not answer") from None
            raise

    async def freshness(self) -> Freshness:
        """How fresh the store is, as of a moment ago: what is read after this is no older."""
        if self._known is not None and self._clock.monotonic() - self._known_at < _FRESH_S:
            return self._known
        if self._asking is None:
            # One asks for all; that one of them goes away is no reason to ask again.
            self._asking = asyncio.create_task(self._ask_freshness())
        found: Freshness = await asyncio.shield(self._asking)
        return found

    async def as_of(self) -> int:
        """Up to when the rows that are read now are complete. Raises Refused, 503, where that is
        too long ago."""
        known = await self.freshness()
        behind = self._clock.now_ms() - known.as_of
        if behind > self._behind_ms:
            why = f"by {behind / 1000:.0f} s" if known.as_of else "it is not filled yet"
            raise Refused(
                "unavailable",
                f"the store is behind Kafka ({why}; {known.lag} records are left): "
                "what it holds may be wrong by now",
            )
        return known.as_of

    async def _ask_freshness(self) -> Freshness:
        try:
            found: Freshness = await self.ask(self.store.freshness)
            self._known, self._known_at = found, self._clock.monotonic()
            return found
        finally:
            self._asking = None


def _is_of_database(error: Exception) -> bool:
    """Whether it is the database's: sqlalchemy is not imported for the question."""
    return any(kind.__module__.startswith("sqlalchemy") for kind in type(error).__mro__)
