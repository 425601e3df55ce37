"""What the API makes of bytes and words that anybody may send: no depth, no pattern holds it up."""

from __future__ import annotations

import json
import re

import pytest
from confluent_kafka import Message

from taskmill.console.api.models import TaskResult, moment
from taskmill.console.api.operations import ReplayOrder
from taskmill.console.api.shown import content
from taskmill.console.api.words import Expression
from taskmill.console.projection.batch import Batch
from taskmill.console.projection.decode import Reading, TopicOf
from taskmill.consumer.record import Reason
from taskmill.consumer.replay_journal import Job
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.topics import Kind
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import JSON
from taskmill.schemas.states import Status


@pytest.mark.parametrize("depth", [1, 100, 190, 196, 200, 255, 300, 5_000])
def test_json_of_any_depth_is_answered_and_can_be_read_by_clients(depth: int) -> None:
    value = b"[" * depth + b"]" * depth
    found, in_base64 = content(value, JSON)
    assert (found is None) == (in_base64 is not None)
    assert (in_base64 is None) == (depth <= 196) or 190 < depth < 200
    told = TaskResult(
        id="a", queue="q", name="add", status=Status.SUCCEEDED, generation=0, finished_at=None,
        result=found, result_base64=in_base64, content_type=JSON, error=None, as_of=moment(0),
    )  # fmt: skip
    assert TaskResult.model_validate_json(told.model_dump_json()) == told


@pytest.mark.parametrize(
    "value", [b"NaN", b"[Infinity]", b"1e999", b'"\\ud800"', b"{", b"", b"\xff"]
)
def test_what_is_said_to_be_json_and_is_none_stands_as_base64(value: bytes) -> None:
    assert content(value, JSON)[0] is None
    assert content(value, JSON)[1] is not None


def test_an_expression_takes_no_longer_than_its_text() -> None:
    # With `re`, this one takes longer than the universe has.
    assert Expression("(a+)+$").search("a" * 4_000 + "b") is None
    for pattern, text in (
        ("Key.*a", "x KeyError: 'a'"),
        ("(?i)ÉCHEC", "échec"),
        (r"^\w+: $", "É: "),
    ):
        assert bool(Expression(pattern).search(text)) == bool(re.search(pattern, text))
    for pattern, why in (("(", "unclosed group"), ("(?=a)", "look"), ("a{999}{999}{999}", "size")):
        with pytest.raises(ValueError, match=why):
            Expression(pattern)


def test_an_order_is_known_again_as_it_was_written_down() -> None:
    order = ReplayOrder(offsets=(1, 5), id=["a"], reason=[Reason.FAILED], rate=2.0)
    asked = order.model_dump(mode="json", exclude_defaults=True)
    job = Job("r", "q", "letters", "me", asked, 1, None, None, by="ci (token 1)")
    assert Job.from_bytes(job.to_bytes()) == job
    newer = {**json.loads(job.to_bytes()), "more": 1}
    assert Job.from_bytes(json.dumps(newer).encode()) == job


def said(value: bytes) -> Message:
    return Message(topic="replayed", partition=0, offset=0, value=value)


@pytest.mark.parametrize(
    "told",
    [
        {"at": float("inf")},
        {"at": 10**30},
        {"at": -1},
        {"letters": [[0, 10**30]]},
        {"letters": [[float("nan"), 1]]},
        {"letters": [[0]]},
        {"letters": 5},
        [],
    ],
)
def test_a_word_of_a_replay_that_is_none_is_counted_and_passed_over(told: object) -> None:
    whole = {"at": 1, "replay": "r", "dlq_id": "d", "letters": [[0, 1]]}
    value = json.dumps({**whole, **told} if isinstance(told, dict) else told).encode()
    reading, batch = Reading(CODEC, 1_000_000, SYSTEM_CLOCK), Batch()
    topic = TopicOf("replayed", Kind.REPLAYED, "q", "t", 1)
    reading.add(batch, topic, said(value))
    assert reading.unreadable.total() == 1
    assert not batch.replays
    reading.add(batch, topic, said(json.dumps(whole).encode()))
    assert len(batch.replays) == 1
