"""What `taskmill top` shows: one look at a console, and the thread that takes one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.schemas.json_form import iso

if TYPE_CHECKING:
    from taskmill.console.api.operations import LetterGroup, Overview, Queue, QueueOverview
    from taskmill.console.client import Client

#: Rates and times are of so many minutes, failures of the last hour.
MINUTES = 5
FAILED_SINCE = "1h"


class QueueLine(NamedTuple):
    """A queue: what the store counted, and what Kafka says (None: a console that does not know)."""

    counted: QueueOverview
    live: Queue | None


class Look(NamedTuple):
    """What a console said at `at_ms`; `trouble`: why there is nothing newer."""

    at_ms: int
    overview: Overview
    queues: list[QueueLine]
    failures: list[LetterGroup]
    trouble: str = ""

    def as_json(self) -> dict[str, Any]:
        """As an object of `top --json`."""
        overview = self.overview
        queues = []
        for one in self.queues:
            live = {} if one.live is None else one.live.model_dump(mode="json")
            queues.append({**live, **one.counted.model_dump(mode="json")})
        return {
            "at": iso(self.at_ms),
            "as_of": overview.model_dump(mode="json")["as_of"],
            "lag": overview.lag,
            "minutes": MINUTES,
            "totals": overview.totals,
            "queues": queues,
            "failures": [one.model_dump(mode="json") for one in self.failures],
        }


def look(client: Client, clock: Clock) -> Look:
    """Ask once. Raises what the console says."""
    overview = client.overview(minutes=MINUTES)
    live = {one.queue: one for one in client.queues().queues}
    failures = client.letter_groups(since=FAILED_SINCE).groups
    lines = [QueueLine(one, live.get(one.queue)) for one in overview.queues]
    # The busiest first, but in an order that does not change with every look.
    lines.sort(
        key=lambda one: (not one.counted.finished and not one.counted.lag, one.counted.queue)
    )
    return Look(clock.now_ms(), overview, lines, failures)


class Looker:
    """Looks every `interval_s` on a thread of its own; `tell` is called when there is news."""

    def __init__(
        self,
        ask: Callable[[], Look],
        first: Look,
        interval_s: float,
        tell: Callable[[], None],
    ) -> None:
        self._ask = ask
        self._interval_s = interval_s
        self._tell = tell
        self._ended = threading.Event()
        self._now = threading.Event()
        self.newest = first
        #: What ends it: no token, no console of this release.
        self.error: TaskmillError | None = None
        self._thread = threading.Thread(target=self._main, name="taskmill-top", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hurry(self) -> None:
        """Look now."""
        self._now.set()

    def stop(self) -> None:
        """End; a look that is under way is not waited for."""
        self._ended.set()
        self._now.set()

    def _main(self) -> None:
        while True:
            self._now.wait(self._interval_s)
            self._now.clear()
            if self._ended.is_set():
                return
            try:
                self.newest = self._ask()
            except Unreachable as error:
                self.newest = self.newest._replace(trouble=str(error))
            except TaskmillError as error:
                self.error = error
                self._ended.set()
            self._tell()
