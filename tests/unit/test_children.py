"""Tasks that handlers enqueue into a queue that cannot be reached: their parents wait, alone."""

from __future__ import annotations

import pytest

from support.clocks import HandClock
from support.protocols import begun, deliver, held, owner, record, succeeded
from taskmill.consumer.children import AGAIN_S, Children
from taskmill.consumer.record import Child, Outcome, Record
from taskmill.consumer.tiers import Tiers
from taskmill.producer.routes import Route
from taskmill.runtime.clock import Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topics import Topics
from taskmill.schemas.states import Status


class Refusing:
    """Routes to all queues but `closed`, which refuses us."""

    def __init__(self) -> None:
        self.is_closed = True

    def get(self, queue: str, deadline: Deadline) -> Route:
        if queue == "closed" and self.is_closed:
            raise TaskmillError("Kafka refused: TOPIC_AUTHORIZATION_FAILED")
        return Route(f"t.tasks.{queue}", 1, [[]], float("inf"))


def parent(one: Record, queue: str) -> Outcome:
    return succeeded(one)._replace(children=(Child(queue, b"k", b"v"),))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def children(clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> Children:
    settings = Settings(bootstrap_servers="127.0.0.1:1")
    made = Children(settings, Tiers(settings, Topics("t", "default"), clock), clock)
    monkeypatch.setattr(made, "_routes", Refusing())
    return made


def test_only_the_parents_of_a_queue_that_refuses_us_wait(
    children: Children, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    lease = held(owner(0))
    alone, away, shut = (record(lease, n) for n in range(3))
    free = [succeeded(alone), parent(away, "open")]
    assert children.vet([*free, parent(shut, "closed")]) == free
    assert "TOPIC_AUTHORIZATION_FAILED" in caplog.text
    assert children.due() == []
    clock.sleep(AGAIN_S)
    assert children.due() == [parent(shut, "closed")]
    assert children.due() == []


def test_a_queue_that_has_refused_us_is_not_asked_again_at_once(
    children: Children, clock: HandClock
) -> None:
    lease = held(owner(0))
    waiting = parent(record(lease, 0), "closed")
    assert children.vet([waiting]) == []
    children._routes.is_closed = False  # type: ignore[attr-defined]
    assert children.vet([parent(record(lease, 1), "closed")]) == []
    clock.sleep(AGAIN_S)
    assert len(children.due()) == 2
    assert children.vet([waiting]) == [waiting]


def test_they_go_on_once_it_takes_us(children: Children, clock: HandClock) -> None:
    lease = held(owner(0))
    shut = parent(record(lease, 0), "closed")
    assert children.vet([shut]) == []
    clock.sleep(AGAIN_S)
    (offered,) = children.due()
    assert children.vet([offered]) == []
    clock.sleep(AGAIN_S)
    children._routes.is_closed = False  # type: ignore[attr-defined]
    (offered,) = children.due()
    assert children.vet([offered]) == [shut]


def test_what_waits_under_an_ended_lease_is_let_go_of(children: Children) -> None:
    protocol = owner(0)
    shut = parent(record(held(protocol), 0), "closed")
    protocol.lost([0])
    assert children.vet([shut]) == [shut]


def test_a_transaction_knows_its_routes_before_it_begins(children: Children) -> None:
    protocol = owner(0)
    one = record(held(protocol), 0)
    protocol.deliver(0, [one], [None])
    protocol.complete([parent(one, "open")])
    transaction = begun(protocol)
    routes = children.routes_of(transaction)
    assert routes is not None
    assert list(routes) == ["open"]


class Closed(Tiers):
    """Tiers none of whose topics can be reached at first."""

    is_closed = True

    def reach(self, outcome: Outcome, deadline: Deadline) -> int:
        if self.is_closed:
            raise TaskmillError("Kafka refused: TOPIC_AUTHORIZATION_FAILED")
        self._counts = {self.topic(outcome): 3}
        return 3


@pytest.fixture
def closed(clock: HandClock) -> Closed:
    return Closed(Settings(bootstrap_servers="127.0.0.1:1"), Topics("t", "default"), clock)


def retrying(one: Record) -> Outcome:
    return succeeded(one)._replace(status=Status.RETRYING, retry_ms=1_000)


def test_only_what_waits_for_a_tier_that_refuses_us_waits(closed: Closed, clock: HandClock) -> None:
    children = Children(Settings(bootstrap_servers="127.0.0.1:1"), closed, clock)
    lease = held(owner(0))
    other, retried = succeeded(record(lease, 0)), retrying(record(lease, 1))
    assert children.vet([other, retried]) == [other]
    closed.is_closed = False
    clock.seconds += AGAIN_S
    assert children.due() == [retried]
    assert children.vet([retried]) == [retried]


def test_a_transaction_finds_its_tiers_again_that_were_forgotten(
    closed: Closed, clock: HandClock
) -> None:
    children = Children(Settings(bootstrap_servers="127.0.0.1:1"), closed, clock)
    protocol = owner(0)
    retried = retrying(record(held(protocol), 0))
    assert deliver(protocol, [retried.record]) == [retried.record]
    protocol.complete([retried])
    transaction = begun(protocol)
    assert children.routes_of(transaction) is None
    closed.is_closed = False
    clock.seconds += AGAIN_S
    assert children.routes_of(transaction) == {}
    assert (closed.topic(retried), closed.partitions(retried)) == ("t.retry.default.1s", 3)
    children.forget(())
    assert children.routes_of(transaction) == {}
    assert closed.partitions(retried) == 3


@pytest.mark.parametrize(
    ("outcome", "topic"),
    [
        ({"retry_ms": 600_000}, "t.retry.default.10m"),
        ({"retry_ms": 600_001}, "t.delayed.default"),
        ({"retry_ms": 1_000, "due_at": 5_000}, "t.delayed.default"),
        ({"due_at": 5_000}, "t.delayed.default"),
    ],
)
def test_what_waits_longer_than_all_tiers_or_exactly_is_delayed(
    closed: Closed, outcome: dict[str, int], topic: str
) -> None:
    one = succeeded(record(held(owner(0)), 0))._replace(**outcome)
    assert closed.topic(one) == topic
    assert closed.is_delayed(one) == (topic == "t.delayed.default")
