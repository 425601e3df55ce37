"""Tasks with a time: their keys and records, who hands them over, and whose clock is believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.clocks import HandClock
from support.protocols import begun, deliver, held, owner, record
from support.wire import NOW_MS, task_value
from taskmill.consumer.decode import Decoder
from taskmill.consumer.delayed import MAX_MS, DelayedKey, Move, delayed_record, due_key
from taskmill.consumer.record import Failure, Lease, Outcome, Reason, Record
from taskmill.consumer.table import Entry
from taskmill.runtime.partition import partition_for
from taskmill.runtime.store import MemoryStore
from taskmill.scheduler.broker_time import BrokerTime
from taskmill.scheduler.held import Headers, pack, unpack
from taskmill.scheduler.moves import moved
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

DAY_MS = 86_400_000
ids = st.text(min_size=1, max_size=60).map(str.encode)
moments = st.integers(0, MAX_MS)

# ---- keys ----------------------------------------------------------------------------------------


@given(moments, ids, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_a_key_comes_apart_as_it_was_put_together(
    due_at: int, id: bytes, generation: int, seq: int
) -> None:
    key = DelayedKey(due_at, id, generation, seq)
    assert DelayedKey.unpack(key.pack()) == key


@given(st.lists(st.tuples(moments, ids), min_size=2, max_size=20), st.integers(0, MAX_MS - 1))
def test_keys_lie_in_the_order_in_which_they_are_due(
    found: list[tuple[int, bytes]], now: int
) -> None:
    keys = sorted(DelayedKey(due_at, id, 0, 1).pack() for due_at, id in found)
    assert [DelayedKey.unpack(key).due_at for key in keys] == sorted(at for at, _ in found)
    end = due_key(now + 1)
    assert all((key < end) == (DelayedKey.unpack(key).due_at <= now) for key in keys)


@pytest.mark.parametrize(
    "key", [b"", b"x", b"1767323045678", b"1767323045678/a/0", b"1767323045678//0/1", b"k/0/1"]
)
def test_what_is_no_such_key_says_so(key: bytes) -> None:
    with pytest.raises(ValueError, match=r"key|unpack|literal"):
        DelayedKey.unpack(key)


headers = st.lists(st.tuples(st.text(max_size=9), st.one_of(st.none(), st.binary(max_size=9))))


@given(headers, st.binary(max_size=40))
def test_what_is_held_comes_apart_as_it_was_put_together(found: Headers, value: bytes) -> None:
    assert unpack(pack(found, value)) == (found, value)


# ---- records -------------------------------------------------------------------------------------


def scheduled(due_at: int, **changes: Any) -> Outcome:
    one = record(held(owner(0)), 7, "some/id")
    one = one._replace(source=one.source._replace(timestamp=NOW_MS, **changes))
    return Outcome(one, Status.SCHEDULED, due_at=due_at)


def test_a_delayed_record_has_its_bytes_and_says_the_rest_in_its_key_and_headers() -> None:
    theirs: Sequence[tuple[str, bytes | None]] = [
        ("x", b"own"),
        ("taskmill-partition", b"0/1"),
        ("taskmill-attempt", b"3"),
        ("taskmill-not-before", b"1"),
        ("taskmill-seq", b"0"),
    ]
    outcome = scheduled(NOW_MS + 500, headers=theirs)
    made = delayed_record(outcome, "t.delayed.q", 12, DAY_MS)
    assert made == {
        "topic": "t.delayed.q",
        "key": b"%d/some/id/0/1" % (NOW_MS + 500),
        "value": outcome.record.source.value,
        "partition": partition_for(b"some/id", 12),
        "headers": [
            ("x", b"own"),
            ("taskmill-attempt", b"3"),
            ("taskmill-seq", b"1"),
            ("taskmill-not-before", b"%d" % (NOW_MS + 500)),
        ],
    }


def test_a_long_wait_is_made_in_steps() -> None:
    due_at = NOW_MS + 10 * DAY_MS
    made = delayed_record(scheduled(due_at), "t.delayed.q", 12, 4 * DAY_MS)
    assert DelayedKey.unpack(made["key"]).due_at == NOW_MS + 4 * DAY_MS
    assert ("taskmill-not-before", b"%d" % due_at) in made["headers"]


def test_an_exact_retry_says_what_that_of_a_tier_would() -> None:
    failure = Failure(Reason.FAILED, TaskError("ValueError", "x", "f" * 16), "stack")
    outcome = scheduled(NOW_MS + 999)._replace(
        status=Status.RETRYING, failure=failure, retry_ms=999, finished_at=NOW_MS
    )
    told = dict(delayed_record(outcome, "t.delayed.q", 12, DAY_MS)["headers"])
    assert (told["taskmill-attempt"], told["taskmill-seq"]) == (b"2", b"1")
    assert told["taskmill-not-before"] == b"%d" % (NOW_MS + 999)
    assert told["taskmill-error-message"] == b"x"
    assert "taskmill-due" not in told


# ---- who hands over ------------------------------------------------------------------------------


class Message:
    """As much of a Kafka message as is looked at; the broker stamped it NOW_MS."""

    def __init__(self, headers: Headers, **fields: Any) -> None:
        self._headers = headers
        self._value = task_value("id", "noop", enqueued_at=NOW_MS - 5, **fields)

    def key(self) -> bytes:
        return b"id"

    def value(self) -> bytes:
        return self._value

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 2, NOW_MS

    def headers(self) -> Headers:
        return self._headers


def decoded(headers: Headers, **fields: Any) -> Record:
    lease = Lease(partition_for(b"id", 2), 1)
    decoder = Decoder(CODEC, "tasks", 2, 1_000)
    one = decoder.decode(Message(headers, **fields), lease)  # type: ignore[arg-type]
    assert one.fault is None
    return one


def said(at_ms: int) -> tuple[str, bytes]:
    return "taskmill-not-before", b"%d" % at_ms


@pytest.mark.parametrize(
    ("not_before", "header", "due_at"),
    [
        (None, None, None),
        (NOW_MS, None, None),
        (NOW_MS + 1, None, NOW_MS + 1),
        (NOW_MS + 1, NOW_MS, None),
        (NOW_MS, NOW_MS + 2, NOW_MS + 2),
        (None, NOW_MS + 2, NOW_MS + 2),
    ],
)
def test_a_time_that_has_not_come_by_the_brokers_clock_is_waited_for(
    not_before: int | None, header: int | None, due_at: int | None
) -> None:
    told: Headers = [] if header is None else [said(header)]
    assert decoded(told, not_before=not_before).due_at == due_at


def test_the_time_of_a_first_attempt_is_the_tasks_and_that_of_a_retry_is_not() -> None:
    moved = decoded([said(NOW_MS)], not_before=NOW_MS - 9).task
    retry = decoded([said(NOW_MS), ("taskmill-attempt", b"2")], not_before=NOW_MS - 9).task
    assert moved is not None
    assert retry is not None
    assert (moved.not_before, retry.not_before) == (NOW_MS, NOW_MS - 9)


def test_what_is_replayed_does_not_wait_for_its_time_once_more() -> None:
    replayed = decoded([("taskmill-replayed-at", b"%d" % NOW_MS)], not_before=NOW_MS + 9)
    assert replayed.due_at is None


def test_headers_that_are_too_large_to_be_delayed_make_a_letter_of_it() -> None:
    lease = Lease(partition_for(b"id", 2), 1)
    message: Any = Message([("x", bytes(20_000))], not_before=NOW_MS + 1)
    one = Decoder(CODEC, "tasks", 2, 1_000).decode(message, lease)
    assert one.fault is not None
    assert one.fault[0] is Reason.REJECTED


def test_a_task_whose_time_has_not_come_is_handed_over_and_does_not_run() -> None:
    protocol = owner(0)
    one = record(held(protocol), 0, "later")._replace(due_at=NOW_MS)
    twin = record(held(protocol), 1, "later")._replace(due_at=NOW_MS)
    assert deliver(protocol, [one, twin]) == []
    transaction = begun(protocol)
    first, second = transaction.outcomes[0]
    assert (first.status, first.due_at) == (Status.SCHEDULED, NOW_MS)
    assert second.status is None, "a twin is a duplicate, and hands nothing over"
    assert transaction.offsets == {0: 2}


def test_what_an_attempt_saved_waits_with_it() -> None:
    protocol = owner(0)
    entry = Entry(0, 1, Status.RETRYING, 0, saved=b"[1]")
    one = record(held(protocol), 0, "later", seq=2)._replace(due_at=NOW_MS)
    assert deliver(protocol, [one], {b"later": entry}) == []
    assert begun(protocol).outcomes[0][0].saved == b"[1]"


# ---- the broker's clock --------------------------------------------------------------------------


def test_the_wall_clock_is_believed_until_the_broker_says_otherwise() -> None:
    clock = HandClock()
    time = BrokerTime(clock)
    assert time.now_ms() == clock.ms
    # The broker's stamp comes a way later than what was sent.
    time.stamped(clock.monotonic(), clock.ms + 3)
    clock.ms += 10_000
    clock.seconds += 10
    assert time.now_ms() == clock.ms


@pytest.mark.parametrize("step_ms", [20, 3_600_000])
def test_a_step_forward_makes_nothing_early(step_ms: int) -> None:
    clock = HandClock()
    time = BrokerTime(clock)
    time.stamped(clock.monotonic(), clock.ms)
    true = clock.ms + 10_000
    clock.seconds += 10
    clock.ms = true + step_ms
    assert time.now_ms() == true


def test_a_step_back_is_followed_since_late_is_not_early() -> None:
    clock = HandClock()
    time = BrokerTime(clock)
    time.stamped(clock.monotonic(), clock.ms)
    clock.ms -= 60_000
    assert time.now_ms() == clock.ms


def test_a_clock_that_was_wrong_from_the_start_is_found_out_by_the_first_stamp() -> None:
    clock = HandClock()
    time, true = BrokerTime(clock), clock.ms
    clock.ms += 3_600_000
    assert time.now_ms() == clock.ms
    time.stamped(clock.monotonic(), true)
    assert time.now_ms() == true
    time.forget()
    assert time.now_ms() == clock.ms


# ---- another time --------------------------------------------------------------------------------


def held_in(store: MemoryStore, id: bytes, due_at: int, seq: int = 1) -> bytes:
    """A task that waits in `store`; its key."""
    key = DelayedKey(due_at, id, 0, seq).pack()
    store.apply([(key, pack([("x", b"own"), said(due_at)], b"bytes of " + id))], 1)
    return key


def ask(store: MemoryStore, move: Move) -> bytes:
    key, value = move.pack()
    store.apply([(key, value)], 2)
    return key


@given(ids, st.integers(0, 9), st.integers(0, 9), moments, moments)
def test_a_move_comes_apart_as_it_was_put_together(
    id: bytes, generation: int, seq: int, was: int, due_at: int
) -> None:
    move = Move(id, generation, seq, was, due_at)
    key, value = move.pack()
    assert Move.unpack(key, value) == move
    assert key > due_key(MAX_MS)
    assert DelayedKey(was, id, generation, seq).pack().endswith(move.suffix)


@pytest.mark.parametrize("known", [NOW_MS, NOW_MS - 77], ids=["its time", "a step's time"])
def test_what_waits_is_given_another_time(known: int) -> None:
    store, place = MemoryStore(), ("t.delayed.q", 3)
    old, other = held_in(store, b"a/b", NOW_MS), held_in(store, b"b", NOW_MS)
    asked = ask(store, Move(b"a/b", 0, 1, known, NOW_MS + 500))
    messages, changes = moved(place, store, NOW_MS + DAY_MS)
    store.apply(changes[place], 3)
    new = DelayedKey(NOW_MS + 500, b"a/b", 0, 1).pack()
    assert {m["key"]: m.get("value") for m in messages} == {
        old: None,
        new: b"bytes of a/b",
        asked: None,
    }
    assert {(m["topic"], m["partition"]) for m in messages} == {place}
    assert [key for key, _ in store.items()] == [other, new]
    assert unpack(dict(store.items())[new])[0] == [("x", b"own"), said(NOW_MS + 500)]


def test_what_has_been_passed_on_is_not_moved_and_what_stays_stays() -> None:
    store, place = MemoryStore(), ("t.delayed.q", 3)
    same = held_in(store, b"same", NOW_MS)
    gone = ask(store, Move(b"gone", 0, 1, NOW_MS, NOW_MS + 500))
    older = ask(store, Move(b"same", 0, 0, NOW_MS, NOW_MS + 500))
    ask(store, Move(b"same", 0, 1, NOW_MS, NOW_MS))
    messages, changes = moved(place, store, NOW_MS + DAY_MS)
    store.apply(changes[place], 3)
    assert [key for key, _ in store.items()] == [same]
    assert {gone, older} <= {m["key"] for m in messages if "value" not in m}


def test_a_late_time_is_reached_in_steps() -> None:
    store, place = MemoryStore(), ("t.delayed.q", 3)
    held_in(store, b"a", NOW_MS)
    ask(store, Move(b"a", 0, 1, NOW_MS, NOW_MS + 9 * DAY_MS))
    _, changes = moved(place, store, NOW_MS + DAY_MS)
    store.apply(changes[place], 3)
    ((key, packed),) = store.items()
    assert DelayedKey.unpack(key).due_at == NOW_MS + DAY_MS
    assert said(NOW_MS + 9 * DAY_MS) in unpack(packed)[0]
