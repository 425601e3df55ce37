"""What a role serves to whoever watches it: pages, probes, and a fleet of workers as one."""

from __future__ import annotations

import gzip
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest

from support.clocks import HandClock
from taskmill.consumer.fleet import Fleet
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.meter import Meter
from taskmill.runtime.metrics_server import MetricsServer
from taskmill.runtime.vitals import STILL_S, Pulse

FINISHED = "taskmill_tasks_finished_total"


class Served:
    """A server of a meter, whose verdicts the test says."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.healthy: str | None = None
        self.ready: str | None = None
        self.server = MetricsServer(0, self.meter.read, lambda: self.healthy, lambda: self.ready)

    def ask(self, path: str, method: str = "GET", **headers: str) -> HTTPResponse:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        asked = urllib.request.Request(url, method=method, headers=headers)
        try:
            answer = urllib.request.urlopen(asked, timeout=10)
        except urllib.error.HTTPError as error:
            answer = error  # type: ignore[assignment]
        assert isinstance(answer, HTTPResponse | urllib.error.HTTPError)
        return answer  # type: ignore[return-value]


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.server.close()


def test_the_page_comes_as_text_as_openmetrics_and_packed(served: Served) -> None:
    for number in range(20):
        served.meter.add(FINISHED, "q", f"task-{number}", "dead")
    with served.ask("/metrics") as answer:
        plain = answer.read()
        assert answer.headers["Content-Type"].startswith("text/plain")
    assert plain.count(b"\n" + FINISHED.encode()) == 20
    with served.ask("/metrics", **{"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(answer.read()) == plain
    with served.ask("/metrics?x=1", Accept="application/openmetrics-text; version=1.0.0") as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_is_told_ok_or_in_one_line_why_not(served: Served, path: str) -> None:
    with served.ask(path) as answer:
        assert (answer.status, answer.read()) == (200, b"ok\n")
    served.healthy = served.ready = "consuming default stands still for 61 s"
    with served.ask(path) as answer:
        assert (answer.status, answer.read()) == (503, f"{served.ready}\n".encode())


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
def test_head_is_get_without_the_body(served: Served, path: str) -> None:
    with served.ask(path) as full, served.ask(path, "HEAD") as head:
        assert head.status == full.status == (404 if path == "/nothing" else 200)
        assert head.headers["Content-Length"] == str(len(full.read()))
        assert head.read() == b""


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"metrics port {port} .*0 takes a free one"):
            MetricsServer(port, Meter().read, lambda: None, lambda: None)


def test_a_loop_that_has_not_moved_for_long_is_named() -> None:
    clock = HandClock()
    pulse = Pulse(clock)
    assert pulse.still() is None
    pulse.beat("consuming a")
    pulse.beat("committing a")
    clock.seconds += STILL_S
    assert pulse.still() is None
    pulse.beat("consuming a")
    clock.seconds += 1
    assert pulse.still() == "committing a stands still for 61 s"
    pulse.end("committing a")
    assert pulse.still() is None


# ---- a fleet ------------------------------------------------------------------------------------


class Worker:
    """The worker's end of a fleet's memory."""

    def __init__(self, fleet: Fleet, number: int, clock: HandClock) -> None:
        fd = fleet.born(number)
        self.meter = Meter(fd, clock)
        os.close(fd)

    def says(self, ready: str | None = None, healthy: str | None = None) -> None:
        self.meter.say({"healthy": healthy, "ready": ready, "port": 9})


def test_a_dead_workers_counts_stay_and_its_gauges_go() -> None:
    clock = HandClock()
    fleet = Fleet(2, clock)
    one, other = Worker(fleet, 0, clock), Worker(fleet, 1, clock)
    for worker, many in ((one, 10), (other, 5)):
        worker.meter.add(FINISHED, "q", "t", "succeeded", by=many)
        worker.meter.set("taskmill_tasks_in_flight", "q", to=many)

    def told() -> tuple[float, float, float, float]:
        found = fleet.read()
        return (
            found[FINISHED, ("q", "t", "succeeded")][0],
            found["taskmill_tasks_in_flight", ("q",)][0],
            found["taskmill_worker_processes", ()][0],
            found["taskmill_worker_restarts_total", ()][0],
        )

    assert told() == (15, 15, 2, 0)
    fleet.died(0)
    fleet.died(0)
    fleet.replaced()
    assert told() == (15, 5, 1, 1)
    again = Worker(fleet, 0, clock)
    again.meter.add(FINISHED, "q", "t", "succeeded")
    assert told() == (16, 5, 2, 1)


def test_a_fleet_is_ready_once_all_are_and_healthy_while_none_stands_still() -> None:
    clock = HandClock()
    clock.seconds = 1_000
    fleet = Fleet(2, clock)
    assert fleet.unready() == "worker 0 has not started yet"
    assert fleet.unhealthy() is None
    assert fleet.port() is None
    one, other = Worker(fleet, 0, clock), Worker(fleet, 1, clock)
    one.says()
    assert fleet.port() == (9,)
    assert fleet.unready() == "worker 1 has not started yet"
    other.says(ready="queue default: 3 of 6 partitions are not restored yet")
    assert fleet.unready() == "worker 1: queue default: 3 of 6 partitions are not restored yet"
    other.says()
    assert fleet.unready() is None
    clock.seconds += STILL_S + 1
    one.says(healthy="consuming default stands still for 61 s")
    assert fleet.unhealthy() == "worker 0: consuming default stands still for 61 s"
    one.says()
    assert fleet.unhealthy() == "worker 1 has said nothing for 61 s"
    fleet.died(1)
    assert fleet.unhealthy() is None
    assert fleet.unready() == "worker 1 has not started yet"
