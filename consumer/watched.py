"""A worker as it is watched: its meter kept up to date, and served unless a supervisor does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from taskmill._version import __version__
from taskmill.consumer.engine import Engine
from taskmill.consumer.gauges import Gauges
from taskmill.consumer.timeouts import Timekeeper
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.meter import Meter
from taskmill.runtime.metrics_server import MetricsServer
from taskmill.runtime.vitals import Pulse, Vitals


class Watched:
    """Made where `settings.metrics_port` is set."""

    def __init__(
        self,
        settings: Settings,
        meter: Meter,
        pulse: Pulse,
        gauges: Gauges,
        unready: Callable[[], str | None],
        *,
        is_supervised: bool,
        clock: Clock,
    ) -> None:
        """`unready`: one line why the worker is not ready, if it knows."""
        self._port = settings.metrics_port
        self._meter = meter
        self._is_supervised = is_supervised
        self._server: MetricsServer | None = None
        said = {"port": self._port}
        self._vitals = Vitals(settings, meter, pulse, clock, gauges.sample, unready, said)

    def start(self) -> None:
        """Serve, and look from now on. Raises ConfigError where the port cannot be had."""
        self._meter.set("taskmill_worker_info", __version__, to=1)
        if not self._is_supervised and self._port is not None:
            vitals = self._vitals
            self._server = MetricsServer(self._port, self._meter.read, vitals.healthy, vitals.ready)
        self._vitals.start()

    def stop(self) -> None:
        """The worker has ended."""
        self._vitals.stop()
        if self._server is not None:
            self._server.close()


def watched(
    settings: Settings,
    meter: Meter,
    pulse: Pulse,
    engines: Mapping[str, Engine],
    queues: Sequence[str],
    timekeeper: Timekeeper,
    is_draining: Callable[[], bool],
    *,
    is_supervised: bool,
    clock: Clock,
) -> Watched | None:
    """A worker's of these parts; None where nobody asks for metrics."""
    if settings.metrics_port is None:
        return None
    gauges = Gauges(meter, engines, timekeeper, clock)

    def unready() -> str | None:
        return "draining" if is_draining() else gauges.unready(queues)

    return Watched(
        settings, meter, pulse, gauges, unready, is_supervised=is_supervised, clock=clock
    )
