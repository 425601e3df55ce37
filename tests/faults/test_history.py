"""The check of histories is itself checked: each planted violation is found, and only that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from faults.history import (
    Acked,
    Asked,
    Away,
    Committed,
    History,
    Identity,
    Letter,
    Outcome,
    Place,
    Start,
    StartFile,
    check,
)


def good() -> History:
    """Four tasks on one partition: done, failed, garbage, replayed; and a take-over between."""
    history = History()
    sorts = [
        Asked(Identity(b"done")),
        Asked(Identity(b"failed")),
        Asked(Identity(b"odd"), is_garbage=True),
        Asked(Identity(b"done", 1), at_most_once=True),
    ]
    for offset, asked in enumerate(sorts):
        history.asked.append(asked)
        history.ack(Acked(1.0, asked, Place(0, offset)))
        history.place(asked.identity.key, 0, offset)
    odd = Identity(Place(0, 2).key("tasks"))
    history.starts += [
        Start(2.0, 11, Identity(b"done"), 0, 1),
        Start(2.0, 11, Identity(b"failed"), 0, 1),
        Start(4.0, 12, Identity(b"done", 1), 0, 1),
    ]
    history.outcomes += [
        Outcome(3.0, Identity(b"done"), 0, "succeeded", "w1", 0, 0, Place(0, 0)),
        Outcome(3.0, Identity(b"failed"), 0, "dead", "w1", 0, 1, Place(0, 1)),
        Outcome(5.0, odd, 0, "dead", "w2", 0, 3, Place(0, 2)),
        Outcome(5.0, Identity(b"done", 1), 0, "succeeded", "w2", 0, 4, Place(0, 3)),
    ]
    history.letters += [
        Letter(3.0, "failed", Place(0, 1)),
        Letter(5.0, "undecodable", Place(0, 2)),
    ]
    history.committed += [Committed(3.0, 0, 2), Committed(5.0, 0, 4)]
    history.restores.update({("w1", 0): 1, ("w2", 0): 1})
    return history


def test_a_good_history_has_no_violation() -> None:
    assert check(good()) == []


def _lost(history: History) -> None:
    del history.outcomes[3]


def _twice(history: History) -> None:
    history.outcomes.append(history.outcomes[0]._replace(time=6.0, worker="w2", offset=7))


def _retried_twice(history: History) -> None:
    first = history.outcomes[0]
    history.outcomes.insert(0, first._replace(status="retrying", offset=-1))


def _from_nowhere(history: History) -> None:
    stranger = Identity(b"stranger")
    history.starts.append(Start(2.0, 12, stranger, 0, 1))
    history.outcomes.append(
        Outcome(5.0, stranger, 0, "succeeded", "w2", 0, 9, Place(0, 3)),
    )


def _never_began(history: History) -> None:
    del history.starts[0]


def _failed_unbegun(history: History) -> None:
    del history.starts[1]


def _again(history: History) -> None:
    history.starts.append(Start(3.5, 12, Identity(b"done"), 0, 1))


def _once_begun_twice(history: History) -> None:
    history.starts.append(Start(4.5, 13, Identity(b"done", 1), 0, 1))


def _no_letter(history: History) -> None:
    del history.letters[0]


def _two_letters(history: History) -> None:
    history.letters.append(history.letters[0])


def _backwards(history: History) -> None:
    history.committed.insert(1, Committed(4.0, 0, 1))


def _behind(history: History) -> None:
    del history.committed[-1]


def _passed_over(history: History) -> None:
    history.place(b"unacknowledged", 0, 1)


def _vanished(history: History) -> None:
    del history.placed[0]


def _vanished_from_nobody_knows_where(history: History) -> None:
    history.acked[1] = history.acked[1]._replace(place=None)
    assert check(history) == []
    del history.placed[1]


def _unfenced(history: History) -> None:
    late = history.outcomes[1]
    history.outcomes[1] = late._replace(offset=8)


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (_lost, "lost: acknowledged"),
        (_twice, "two terminal outcomes"),
        (_retried_twice, "two outcomes of one seq"),
        (_from_nowhere, "from nowhere"),
        (_never_began, "never began"),
        (_failed_unbegun, "never began"),
        (_again, "run again though done"),
        (_once_begun_twice, "at most once, and begun 2 times"),
        (_no_letter, "dead without a letter"),
        (_two_letters, "a letter too many"),
        (_backwards, "offsets went back"),
        (_behind, "pending: "),
        (_passed_over, "passed over"),
        (_vanished, "vanished"),
        (_vanished_from_nobody_knows_where, "vanished"),
        (_unfenced, "not fenced"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[History], None], told: str) -> None:
    history = good()
    plant(history)
    found = check(history)
    assert any(line.startswith(told) for line in found), found


def test_a_worker_that_stood_still_may_begin_what_it_had_lost_but_not_commit_it() -> None:
    history = good()
    history.away.append(Away(12, 2.5, 3.4))
    _again(history)
    assert check(history) == []
    history.outcomes.append(history.outcomes[0]._replace(offset=9))
    assert check(history)


def test_many_violations_of_a_kind_are_counted_and_not_all_told() -> None:
    history = good()
    history.letters += [Letter(5.0, "failed", Place(0, n)) for n in range(50, 80)]
    assert check(history)[-1] == "… and 20 more of that kind"


def test_what_is_pending_is_known_while_the_history_grows() -> None:
    history = History()
    first, second = Asked(Identity(b"a")), Asked(Identity(b"a", 1))
    state = {
        "seq": 0,
        "worker": "w",
        "source_partition": 0,
        "source_offset": 0,
        "generation": 0,
        "status": "running",
    }
    history.ack(Acked(1.0, first, Place(0, 0)))
    history.state(b"a", state, 0, 0)
    history.ack(Acked(1.0, second, Place(0, 1)))
    assert [one.asked for one in history.pending] == [first, second]
    # The outcome of the newest settles what it overtook, and what is acknowledged after it was.
    history.state(b"a", {**state, "generation": 1, "status": "succeeded"}, 0, 1)
    history.ack(Acked(1.0, first, Place(0, 2)))
    assert history.pending == []


def test_starts_are_read_as_they_are_noted_and_half_a_line_later(tmp_path: Path) -> None:
    path = tmp_path / "starts"
    file = StartFile(path)
    assert list(file.new()) == []
    StartFile.note(path, "an id", 1, 2, 3)
    (start,) = file.new()
    assert (start.identity, start.seq, start.attempt) == (Identity(b"an id", 1), 2, 3)
    with path.open("ab") as half:
        half.write(b"5000000000 7 0 0 1 ot")
        half.flush()
        assert list(file.new()) == []
        half.write(b"her\n")
    assert list(file.new()) == [Start(5.0, 7, Identity(b"other"), 0, 1)]
