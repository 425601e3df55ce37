"""Where a queue's tasks go, while Kafka is away."""

from __future__ import annotations

import pytest

from support.clocks import HandClock
from taskmill.producer.routes import REFRESH_S, Route, Routes
from taskmill.runtime.clock import Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import Unreachable


def away(topic: str, timeout_s: float) -> int | None:
    raise Unreachable("Kafka is away")


def test_a_look_up_that_another_thread_makes_is_waited_for_until_the_deadline_only() -> None:
    routes = Routes(Settings(bootstrap_servers="127.0.0.1:9"), away)
    with routes._lock, pytest.raises(Unreachable, match="'mail' were not found in time"):
        routes.get("mail", Deadline(0.05))


def test_a_count_that_cannot_be_asked_again_stays() -> None:
    clock = HandClock()
    routes = Routes(Settings(bootstrap_servers="127.0.0.1:9"), away, clock)
    routes._routes["mail"] = Route("t.tasks.mail", 3, [[], [], []], clock.monotonic())
    route = routes.get("mail", Deadline(1, clock))
    assert route.partitions == 3
    clock.sleep(REFRESH_S / 2)
    assert routes.known("mail") is route
