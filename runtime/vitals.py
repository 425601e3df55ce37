"""Whether a process lives and is ready: looked at once a second by a thread of its own.

Healthy: its main loops have moved lately. A broker that is away is no reason to be restarted: loops
move then too. Ready: it does what it is there for, or stands by; and the broker answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import bootstrap_servers, client_config
from taskmill.runtime.meter import Meter

logger = logging.getLogger("taskmill.metrics")

#: How often is looked.
LOOK_S = 1.0
#: A loop that has not moved for so long stands still: several times the longest wait that any is
#: allowed (12 s for a transaction that gives no answer, consumer/commit.py).
STILL_S = 60.0
#: How often the broker is asked whether it is there, and how long it may take to say so.
ASK_S, ANSWER_S = 5.0, 2.0


class Pulse:
    """When each of a process's main loops has moved last. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moved: dict[str, float] = {}

    def beat(self, loop: str) -> None:
        """`loop` has moved, or has begun."""
        self._moved[loop] = self._clock.monotonic()

    def end(self, loop: str) -> None:
        """`loop` is done, and will not move any more."""
        self._moved.pop(loop, None)

    def still(self) -> str | None:
        """One line on a loop that stands still; None: all move."""
        now = self._clock.monotonic()
        for loop, moved in list(self._moved.items()):
            if now - moved > STILL_S:
                return f"{loop} stands still for {now - moved:.0f} s"
        return None


class Vitals:
    """Looks while `start`ed. `healthy` and `ready` give the last look's answer: None, or one line
    why not."""

    def __init__(
        self,
        settings: Settings,
        meter: Meter,
        pulse: Pulse,
        clock: Clock,
        sample: Callable[[], None],
        unready: Callable[[], str | None],
        more: Mapping[str, Any] = {},
    ) -> None:
        """`sample` brings gauges up to date; `unready`: why it is not ready, the broker apart.
        Both are quick. `more` is said with each look."""
        self._more = dict(more)
        self._broker = _Broker(settings, clock)
        self._meter = meter
        self._pulse = pulse
        self._sample = sample
        self._why = unready
        self._stopping = threading.Event()
        self._away: str | None = "Kafka has not been asked yet"
        self._not_ready: str | None = "starting"
        self._thread = threading.Thread(target=self._main, name="taskmill-vitals", daemon=True)

    def healthy(self) -> str | None:
        return self._pulse.still()

    def ready(self) -> str | None:
        return "stopping" if self._stopping.is_set() else self._not_ready

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look once more, so that what was counted elsewhere is counted to its end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(2 * ANSWER_S)
        self.look()

    def look(self) -> None:
        """Once. Never raises."""
        try:
            self._sample()
            self._not_ready = self._why() or self._away
        except Exception as error:
            logger.exception("metrics cannot be brought up to date")
            self._not_ready = f"its metrics cannot be brought up to date ({type(error).__name__})"
        self._meter.say({"healthy": self.healthy(), "ready": self.ready(), **self._more})

    def _main(self) -> None:
        while not self._stopping.is_set():
            self._away = self._broker.away()
            self.look()
            self._stopping.wait(LOOK_S)


class _Broker:
    """Asks whether Kafka is there, now and then."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._admin: AdminClient | None = None
        self._asked_at: float | None = None
        self._away: str | None = None

    def away(self) -> str | None:
        """One line, where it did not answer when it was asked last."""
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at < (1 if self._away else ASK_S):
            return self._away
        self._asked_at = now
        try:
            if self._admin is None:
                config = client_config(self._settings, "vitals", clock=self._clock)
                self._admin = AdminClient(config)
            self._admin.describe_cluster(request_timeout=ANSWER_S).result(2 * ANSWER_S)
            self._away = None
        except (KafkaException, TimeoutError) as error:
            # One that has failed may ask a dead controller for minutes.
            self._admin = None
            where = bootstrap_servers(self._settings)
            logger.debug("Kafka at %s: %s", where, error)
            self._away = f"Kafka at {where} does not answer"
        return self._away
