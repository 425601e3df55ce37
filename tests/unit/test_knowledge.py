"""Up to when a store says that it knows all, whatever clocks do."""

from __future__ import annotations

from taskmill.console.projection.decode import TopicOf
from taskmill.console.projection.knowledge import Knowledge
from taskmill.console.projection.sight import Sight
from taskmill.runtime.topics import Kind

TOPIC = TopicOf("tasks", Kind.TASKS, "q", "id", 2)
BOTH = [("tasks", 0), ("tasks", 1)]
HOUR_MS = 3_600_000


def sight(asked_at: int, *ends: int) -> Sight:
    return Sight(asked_at, {"tasks": TOPIC}, dict(zip(BOTH, ends, strict=True)), {}, True)


def test_it_is_known_up_to_the_last_question_where_all_was_read_by_then() -> None:
    known = Knowledge(0)
    known.begin(BOTH)
    assert known.progress(sight(1_000, 5, 5), {BOTH[0]: 5, BOTH[1]: 4}).as_of == 0
    told = known.progress(sight(2_000, 5, 5), {BOTH[0]: 5, BOTH[1]: 5})
    assert (told.as_of, told.topics["tasks"]) == (2_000, (0, 2_000))
    # One is behind: known up to its last record.
    known.read(BOTH[1], 2_500, 3_000)
    assert known.progress(sight(3_000, 5, 9), {BOTH[0]: 5, BOTH[1]: 6}).as_of == 2_500


def test_a_clock_that_was_ahead_does_not_vouch_for_what_is_not_read() -> None:
    # Another console's clock, or this one's before it was set right.
    known = Knowledge(HOUR_MS)
    known.begin(BOTH)
    assert known.progress(sight(1_000, 5, 5), {BOTH[0]: 5, BOTH[1]: 5}).as_of == 1_000
    for asked_at in (2_000, 40_000):
        told = known.progress(sight(asked_at, 5, 500_000), {BOTH[0]: 5, BOTH[1]: 5})
        assert told.as_of <= 1_000, "half a million records are not read"
