"""Which letters a filter takes, what they say of themselves, and how options are read."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import pytest

from taskmill.cli.duration import Moment, MomentType, Percent, Rate
from taskmill.cli.letter_filter import chosen
from taskmill.consumer.letter_stats import Stats
from taskmill.consumer.letters import Filter, Letter
from taskmill.consumer.replay_journal import Job
from taskmill.consumer.replayed import Entry, Place, Replayed, ReplayedIndex
from taskmill.runtime.errors import TaskmillError

NOTHING: dict[str, Any] = {
    "queue": "default",
    "name": (),
    "reason": (),
    "error": None,
    "fingerprint": (),
    "since": None,
    "until": None,
    "id": (),
    "partition": None,
    "offsets": None,
    "all": False,
}


def letter(at: int = 1_000, **told: str) -> Letter:
    headers = {"task": "send", "reason": "failed", "error-type": "ValueError", **told}
    named = [(f"taskmill-{name}", text.encode()) for name, text in headers.items()]
    return Letter(Place(1, 7), at, b"id", b"value", named)


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        (Filter(), True),
        (Filter(names=("send", "other")), True),
        (Filter(names=("other",)), False),
        (Filter(reasons=("failed",)), True),
        (Filter(reasons=("rejected",)), False),
        (Filter(error=re.compile("Value.*bad")), True),
        (Filter(error=re.compile("^bad")), False),
        (Filter(fingerprints=("ab",)), True),
        (Filter(fingerprints=("b",)), False),
        (Filter(since=1_000), True),
        (Filter(since=1_001), False),
        (Filter(until=1_001), True),
        (Filter(until=1_000), False),
        (Filter(ids=("id",)), True),
        (Filter(ids=("di",)), False),
        (Filter(partition=1), True),
        (Filter(partition=0), False),
        (Filter(offsets=(7, 7)), True),
        (Filter(offsets=(8, 9)), False),
    ],
)
def test_a_filter_takes_what_all_of_it_takes(chosen: Filter, taken: bool) -> None:
    one = letter(**{"error-message": "is bad", "error-fingerprint": "abc"})
    assert chosen.takes(one) is taken


def test_what_was_replayed_is_taken_on_demand_only() -> None:
    one = Letter(Place(0, 0), 1, b"id", b"", (), Replayed("r", 1, 1))
    assert not Filter().takes(one)
    assert Filter(replayed_too=True).takes(one)


def test_a_letter_without_headers_or_key_can_be_looked_at() -> None:
    one = Letter(Place(0, 0), 1, None, None, [("x", None), ("taskmill-reason", b"\xff")])
    assert (one.id, one.task, one.reason, one.fingerprint) == (None, None, "�", "")
    assert one.error == "?: "
    assert one.omitted is None
    assert Letter(Place(0, 0), 1, b"\xff", None, ()).id == "\\xff"


def test_a_letter_that_is_not_whole_says_where_the_rest_is() -> None:
    told = {"original-topic": "t", "original-partition": "2", "original-offset": "3"}
    one = letter(**told, **{"value-omitted": "9 bytes", "headers-omitted": "9 bytes"})
    assert one.omitted == "its value and headers did not fit, and lie at t [2] offset 3"


def test_letters_are_counted_by_what_they_share() -> None:
    stats = Stats(
        [
            letter(at=5, **{"error-message": "old", "error-fingerprint": "f"}),
            letter(at=9, **{"error-message": "new", "error-fingerprint": "f"}),
            letter(at=7, reason="rejected", task="other", **{"error-fingerprint": "g"}),
        ]
    )
    assert stats.count == 3
    (first, _) = stats.groups("fingerprint")
    assert first == ("f", 2, 5, 9, "ValueError: new")
    assert [(g.value, g.letters) for g in stats.groups("reason")] == [
        ("failed", 2),
        ("rejected", 1),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"error": "("}, "is no regular expression"),
        ({"offsets": "5-3"}, "the last is before the first"),
        ({"offsets": "x"}, "expected A-B, A- or A"),
        ({"since": Moment("1h", 5), "until": Moment("2h", 4)}, "1h is not before --until 2h"),
    ],
)
def test_a_wrong_option_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(click.BadParameter, match=re.escape(message)):
        chosen({**NOTHING, **given})


def test_options_are_noted_as_they_were_given() -> None:
    given = {
        **NOTHING,
        "since": Moment("1h", 5),
        "reason": ("b", "a"),
        "offsets": "4-",
        "all": True,
    }
    one = chosen(given)
    assert one.asked == {"since": "1h", "reason": ["a", "b"], "offsets": "4-", "all": True}
    assert one.filter.since == 5
    assert one.filter.offsets is not None
    assert one.filter.offsets[0] == 4
    assert one.filter.offsets[1] > 10**15
    assert chosen({**NOTHING, "offsets": "4"}).filter.offsets == (4, 4)
    assert chosen(NOTHING).asked == {}
    assert chosen({**NOTHING, "partition": 0}).asked == {"partition": 0}


def test_times_rates_and_shares() -> None:
    moment = MomentType()
    assert moment.convert("2026-01-02T03:04:05Z", None, None).ms == 1_767_323_045_000
    assert moment.convert("2026-01-02T03:04:05", None, None).ms == 1_767_323_045_000
    assert moment.convert("2026-01-02T04:04:05+01:00", None, None).ms == 1_767_323_045_000
    assert moment.convert("1960-01-01", None, None).ms == 0
    assert moment.convert("999999999999d", None, None).ms == 0
    hour, two = moment.convert("1h", None, None), moment.convert("2h", None, None)
    assert 3_590_000 < hour.ms - two.ms < 3_610_000
    assert Rate().convert("50/s", None, None) == 50
    assert Rate().convert("30/m", None, None) == 0.5
    assert Percent().convert("20%", None, None) == 0.2
    for kind, bad in [
        (moment, "yesterday"),
        (moment, "99999-01-01"),
        (Rate(), "0/s"),
        (Rate(), "5/d"),
        (Percent(), "101%"),
        (Percent(), "20"),
    ]:
        with pytest.raises(click.BadParameter, match="expected"):
            kind.convert(bad, None, None)


def added(index: ReplayedIndex, key: bytes | None, entry: Entry) -> None:
    record = index.record(key, entry)
    index.add(record["key"], record["value"])


def test_what_was_replayed_counts_by_place_and_topic_and_gives_no_generation_twice() -> None:
    index = ReplayedIndex("t", "here")
    added(index, b"id", Entry(Replayed("r", 5, 3), True, (Place(1, 7), Place(2, 8))))
    of_old_topic = ReplayedIndex("t", "gone").record(
        b"k", Entry(Replayed("r", 5, 1), True, (Place(0, 1),))
    )
    index.add(of_old_topic["key"], of_old_topic["value"])
    assert index.letters == dict.fromkeys((Place(1, 7), Place(2, 8)), Replayed("r", 5, 3))
    assert index.counts == {"r": 2}
    assert index.next_generation(b"id", 0) == 4
    assert index.next_generation(b"id", 0) == 5
    assert index.next_generation(b"new", 6) == 7
    with pytest.raises(TaskmillError, match="cannot be read"):
        index.add(b"k", b"{}")


def test_garbage_under_an_id_does_not_count_among_its_generations() -> None:
    index = ReplayedIndex("t", "here")
    added(index, b"id", Entry(Replayed("r", 5, 3), False, (Place(1, 7),)))
    assert index.letters.keys() == {Place(1, 7)}
    assert (index.generations, index.replays) == ({}, {})


def test_the_last_replay_of_an_id_is_known() -> None:
    index = ReplayedIndex("t", "here")
    for replay, generation in (("a", 1), ("b", 2), ("late", 1)):
        added(index, b"id", Entry(Replayed(replay, 5, generation), True, ()))
    assert index.replays == {b"id": "b"}


def test_a_job_is_written_and_read() -> None:
    job = Job("r", "default", "letters", "me@here:1", {"id": ["a"]}, 1, None, 2, 3, {"w": 1})
    assert Job.from_bytes(job.to_bytes()) == job
    for bad in (b"", b"[]", json.dumps({"id": 1}).encode()):
        with pytest.raises(TaskmillError, match="cannot be read"):
            Job.from_bytes(bad)
