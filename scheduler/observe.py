"""A scheduler as it is watched: what it fires and passes on, what it knows of queues, served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.meter import Meter
from taskmill.runtime.metrics_server import MetricsServer
from taskmill.runtime.topic_table import Kind, queue_of, retry_topic_of
from taskmill.runtime.vitals import Pulse, Vitals
from taskmill.scheduler.queue_gauges import QueueGauges


class Watched:
    """Made where `settings.metrics_port` is set."""

    def __init__(
        self,
        settings: Settings,
        meter: Meter,
        pulse: Pulse,
        passed: Callable[[], Mapping[str, int]],
        schedules: Callable[[], int],
        unready: Callable[[], str | None],
        clock: Clock,
    ) -> None:
        """`passed`: how many were passed on, by topic; `schedules`: how many are served;
        `unready`: one line why the scheduler is not ready, if it knows."""
        self._settings = settings
        self._meter = meter
        self._passed = passed
        self._schedules = schedules
        self._queues = QueueGauges(settings, meter, clock)
        self._vitals = Vitals(settings, meter, pulse, clock, self._sample, unready)
        self._ending = ExitStack()

    def start(self) -> None:
        """Serve, and look from now on. Raises ConfigError where the port cannot be had."""
        vitals, port = self._vitals, self._settings.metrics_port
        assert port is not None, "else nobody is watching"
        server = MetricsServer(port, self._meter.read, vitals.healthy, vitals.ready)
        self._ending.callback(server.close)
        vitals.start()
        self._ending.callback(vitals.stop)
        self._queues.start()
        self._ending.callback(self._queues.stop)

    def stop(self) -> None:
        """The scheduler has ended."""
        self._ending.close()

    def _sample(self) -> None:
        self._meter.set("taskmill_schedules", to=self._schedules())
        for topic, count in self._passed().items():
            labels = place_of(topic, self._settings.prefix)
            self._meter.set("taskmill_passed_on_total", *labels, to=count)


def place_of(topic: str, prefix: str) -> tuple[str, str]:
    """Queue and tier of a topic on which tasks wait."""
    tier = retry_topic_of(topic, prefix)
    return tier if tier is not None else (queue_of(topic, Kind.DELAYED, prefix) or "", "delayed")
