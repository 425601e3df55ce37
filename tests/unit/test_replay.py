"""Replays against transactions that fail, or perhaps did; canaries; pace. No broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from support.clocks import HandClock
from taskmill.consumer.dlq import GENERATION
from taskmill.consumer.replay import Replay
from taskmill.consumer.replay_journal import DONE, Job
from taskmill.consumer.replay_order import Move, Order
from taskmill.consumer.replayed import ReplayedIndex
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable

JOB = Job("r", "default", "letters", "me@here:1", {}, 1, None, None)


class FakeTransactions:
    """Commits, or raises before or after it did, as `plan` says: "ok", "lost", "unheard"."""

    def __init__(self, plan: list[str], code: int) -> None:
        self.plan, self.code = plan, code
        self.records: list[dict[str, Any]] = []
        self.opened = 0

    def open(self) -> None:
        self.opened += 1

    def transact(self, records: list[dict[str, Any]]) -> None:
        what = self.plan.pop(0) if self.plan else "ok"
        if what != "lost":
            self.records += records
        if what != "ok":
            raise KafkaException(KafkaError(self.code))


class FakeTurn:
    def check(self) -> None:
        pass


class ListSource:
    what = "letters"

    def __init__(self, moves: list[Move]) -> None:
        self.left: Counter[str] = Counter()
        self._moves = moves

    def moves(self, job: Job) -> Generator[Move, None, None]:
        yield from self._moves


def move(n: int, value: bytes = b"value") -> Move:
    headers = [("x-own", b"1"), ("taskmill-error-stack", b"s"), (GENERATION, b"0")]
    return Move("tasks", 0, b"%d" % n, value, headers, 1)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def make(clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`make(plan, code)`: a replay on such transactions, which reads back what they committed."""
    made: list[Replay] = []

    def make(plan: list[str], code: int = KafkaError._TIMED_OUT) -> tuple[Replay, FakeTransactions]:
        settings = Settings(bootstrap_servers="127.0.0.1:9", max_task_bytes=2_000)
        index = ReplayedIndex("replayed", None)
        replay = Replay(settings, "default", index, lambda _: None, clock)
        made.append(replay)
        fake = FakeTransactions(plan, code)
        seen = 0

        def refresh(*_: object) -> None:
            nonlocal seen
            for record in fake.records[seen:]:
                if record["topic"] == "replayed":
                    index.add(record["key"], record["value"])
            seen = len(fake.records)

        monkeypatch.setattr(replay, "_transactions", fake)
        monkeypatch.setattr(replay, "_turn", FakeTurn())
        monkeypatch.setattr(replay, "_admin", lambda: None)
        monkeypatch.setattr(index, "refresh", refresh)
        return replay, fake

    yield make
    for one in made:
        one._reader.close()


def put(fake: FakeTransactions) -> Counter[bytes]:
    """How often each key was put on `tasks`."""
    return Counter(record["key"] for record in fake.records if record["topic"] == "tasks")


@pytest.mark.parametrize(
    "plan", [[], ["lost"], ["unheard"], ["lost", "unheard"], ["ok", "unheard", "ok", "lost"]]
)
def test_each_is_put_once_whatever_is_heard_of_a_transaction(make: Any, plan: list[str]) -> None:
    replay, fake = make(list(plan))
    moves = [move(n) for n in range(1_200)]
    ended = replay._work(Order({}), ListSource(moves), JOB)
    assert (ended.status, ended.replayed, ended.left) == (DONE, 1_200, {})
    assert put(fake) == dict.fromkeys((b"%d" % n for n in range(1_200)), 1)


def test_who_was_fenced_stops(make: Any) -> None:
    replay, fake = make(["lost"], KafkaError._FENCED)
    with pytest.raises(TaskmillError, match="another replay took over"):
        replay._work(Order({}), ListSource([move(1)]), JOB)
    assert not put(fake)


def test_a_broker_that_commits_nothing_is_told_after_a_while(make: Any) -> None:
    replay, _ = make(["lost"] * 10_000)

    with pytest.raises(Unreachable, match="the same command goes on"):
        replay._work(Order({}), ListSource([move(1)]), JOB)


def test_a_record_has_its_own_headers_and_those_of_the_replay(make: Any) -> None:
    replay, fake = make([])
    replay._work(Order({}), ListSource([move(1)]), JOB)
    (record,) = (one for one in fake.records if one["topic"] == "tasks")
    headers = dict(record["headers"])
    assert headers.pop("taskmill-replayed-at").isdigit()
    assert headers == {
        "x-own": b"1",
        "taskmill-replay": b"r",
        "taskmill-generation": b"1",
    }


def test_what_tasks_would_not_take_is_left_and_holds_up_nobody(make: Any) -> None:
    replay, fake = make([])
    source = ListSource([move(1, bytes(70_000)), move(2)])
    ended = replay._work(Order({}), source, JOB)
    assert ended.left == {"too large for tasks with a replay's headers": 1}
    assert put(fake) == {b"2": 1}


def test_a_limit_counts_what_was_done_before(make: Any) -> None:
    replay, fake = make([])
    replay._done = 3
    ended = replay._work(Order({}, limit=5), ListSource([move(n) for n in range(9)]), JOB)
    assert (ended.replayed, len(put(fake))) == (5, 2)


def test_a_rate_is_kept_and_what_was_not_used_is_not_made_up_for(
    make: Any, clock: HandClock
) -> None:
    replay, _ = make([])
    began = clock.monotonic()
    sent: list[tuple[float, int]] = []
    moves = iter([move(n) for n in range(100)])
    for batch in replay._paced(Order({}, rate=10.0), moves):
        sent.append((clock.monotonic() - began, len(batch)))
        if len(sent) == 2:
            clock.seconds += 60  # a broker that was away
    assert [count for _, count in sent] == [10] * 10
    late = [at for at, _ in sent][2:]
    assert late[0] >= 60
    assert late[-1] - late[0] >= 5.5
