"""How many tasks came in each minute: counted once, and kept for minutes that are over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from taskmill.console.api.reads import Reads

_MINUTE_MS = 60_000
#: A minute may grow for so long after its end: a worker may tell late of a task that came in it.
_SETTLED_MS = 3 * _MINUTE_MS
#: Minutes that are kept.
_MOST = 400


class Arrivals:
    """From the event loop alone."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        #: By minute, then by queue.
        self._known: dict[int, dict[str, int]] = {}

    async def by_minute(self, since: int, until: int, sees: Callable[[str], bool]) -> Counter[int]:
        """Tasks enqueued in the minutes from `since` up to `until` (starts of minutes, in UTC
        milliseconds), in queues that `sees` takes. Raises Refused, 503."""
        first = since
        while first in self._known and first < until - _SETTLED_MS:
            first += _MINUTE_MS
        rows = await self._reads.ask(self._reads.store.arrivals, first, until)
        found: dict[int, dict[str, int]] = {
            minute: {} for minute in range(first, until, _MINUTE_MS)
        }
        for queue, minute, number in rows:
            found[minute][queue] = number
        self._known |= found
        for minute in sorted(self._known)[:-_MOST]:
            del self._known[minute]
        return Counter(
            {
                minute: sum(n for queue, n in self._known[minute].items() if sees(queue))
                for minute in range(since, until, _MINUTE_MS)
            }
        )
