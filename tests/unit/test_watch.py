from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError
from hypothesis import given
from hypothesis import strategies as st

from support.states import make_state
from taskmill.producer.refusal import Refusals
from taskmill.producer.watch import StateWatch
from taskmill.runtime.errors import DecodeError, PayloadTooLarge, TaskmillError, Unreachable
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import TaskState
from taskmill.schemas.states import Status, is_terminal


class Record:
    """As much of a Kafka message as a watch looks at."""

    def __init__(self, value: bytes | None) -> None:
        self._value = value

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, 7


def record(state: TaskState) -> Any:
    return Record(CODEC.encode_state(state))


def watch(*, until_end: bool = False) -> StateWatch:
    return StateWatch(Topics("p", "q"), b"x", None, CODEC, until_end=until_end)


places = st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(list(Status)))


@given(st.lists(places, min_size=1, max_size=8))
def test_the_newest_state_is_the_greatest_generation_and_seq_and_an_end_is_final(
    written: list[tuple[int, int, Status]],
) -> None:
    one = watch()
    for generation, seq, status in written:
        one.offer(record(make_state("x", status, generation=generation, seq=seq)))
    one.looked_back()
    one.reached()
    seen = one.future.result(timeout=0)
    assert seen is not None
    top = max((generation, seq) for generation, seq, _ in written)
    assert (seen.state.generation, seen.state.seq) == top
    ends = [status for *place, status in written if tuple(place) == top and is_terminal(status)]
    last = [status for *place, status in written if tuple(place) == top][-1]
    assert seen.state.status is (ends[0] if ends else last)


def test_no_state_is_an_answer_only_once_past_and_present_were_read() -> None:
    one = watch()
    one.reached()
    assert not one.future.done()
    one.looked_back()
    assert one.future.result(timeout=0) is None


def test_an_end_out_of_the_past_waits_for_the_rest_of_the_past_and_a_new_one_does_not() -> None:
    old, new = watch(until_end=True), watch(until_end=True)
    old.offer(record(make_state("x")))
    assert not old.future.done()
    old.looked_back()
    assert old.future.done()
    new.offer_newest(record(make_state("x", Status.RUNNING)))
    assert not new.future.done()
    new.offer_newest(record(make_state("x")))
    assert new.future.done()


def test_tombstones_are_passed_over_and_foreign_bytes_are_told() -> None:
    one = watch()
    tombstone: Any = Record(None)
    one.offer(tombstone)
    assert one.best is None
    foreign: Any = Record(b"foreign")
    one.offer(foreign)
    with pytest.raises(DecodeError):
        one.future.result(timeout=0)


def test_who_has_gone_is_not_told_and_nothing_breaks() -> None:
    one = watch()
    one.future.cancel()
    one.looked_back()
    one.reached()
    one.fail(TaskmillError("late"))
    assert one.future.cancelled()


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            KafkaError._MSG_TIMED_OUT,
            Unreachable,
            "Kafka at k:1 did not acknowledge task 'x' within",
        ),
        (KafkaError.NOT_ENOUGH_REPLICAS, Unreachable, "enqueueing it again under the same ID"),
        (KafkaError.MSG_SIZE_TOO_LARGE, PayloadTooLarge, "task 'x' is 9 bytes.*topic t takes"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, TaskmillError, "Kafka refused task 'x' on t"),
    ],
)
def test_a_failed_delivery_is_told_by_what_was_wrong(
    code: int, kind: type[TaskmillError], message: str
) -> None:
    refusals = Refusals("k:1", 1.5)
    refusals.noted(KafkaError(KafkaError._AUTHENTICATION))
    error = refusals.of(KafkaError(code), "x", "t", 9)
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error
