"""The table of states: what is legal, and that nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.runtime.errors import IllegalTransition, TaskmillError
from taskmill.schemas.states import (
    STEPS,
    TERMINAL,
    TRANSITIONS,
    UNWRITTEN,
    Status,
    check_transition,
    is_terminal,
)


def test_every_state_has_its_row_and_is_reached_from_a_new_task() -> None:
    assert set(STEPS) == {None, *Status}
    assert set(TRANSITIONS) == {None, *Status}
    reached: set[Status] = set()
    ahead = set(STEPS[None])
    while ahead:
        status = ahead.pop()
        reached.add(status)
        ahead |= STEPS[status] - reached
    assert reached == set(Status)


@pytest.mark.parametrize("status", Status)
def test_only_a_terminal_state_has_no_way_out(status: Status) -> None:
    assert is_terminal(status) == (not STEPS[status]) == (not TRANSITIONS[status])
    assert is_terminal(status) == (status in TERMINAL)


@pytest.mark.parametrize("status", sorted(set(Status) - TERMINAL))
def test_every_open_state_leads_to_an_end(status: Status) -> None:
    assert TRANSITIONS[status] & TERMINAL


@given(st.data())
def test_a_walk_along_the_steps_is_legal_whatever_short_states_were_left_unwritten(
    data: st.DataObject,
) -> None:
    status: Status | None = None
    written: Status | None = None
    for _ in range(12):
        if not STEPS[status]:
            break
        status = data.draw(st.sampled_from(sorted(STEPS[status])))
        if status in UNWRITTEN and data.draw(st.booleans()):
            continue
        check_transition(written, status)
        written = status


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Status.SUCCEEDED, Status.RUNNING),
        (Status.CANCELLED, Status.RETRYING),
        (Status.DEAD, Status.DEAD),
        (Status.RUNNING, Status.QUEUED),
        (Status.RUNNING, Status.WAITING),
        (Status.WAITING, Status.QUEUED),
        (Status.QUEUED, Status.QUEUED),
    ],
)
def test_an_illegal_transition_is_refused_by_name(old: Status, new: Status) -> None:
    with pytest.raises(IllegalTransition, match=f"{old} to {new}: allowed is ") as caught:
        check_transition(old, new)
    assert isinstance(caught.value, TaskmillError)


def test_a_short_task_may_go_from_nothing_to_its_outcome() -> None:
    for status in TERMINAL | {Status.RETRYING}:
        check_transition(None, status)


def test_a_crash_has_the_same_record_run_again() -> None:
    check_transition(Status.RUNNING, Status.RUNNING)


def test_the_picture_names_every_state() -> None:
    from taskmill.schemas import states

    picture = (states.__doc__ or "").split("`cancelled` and")[0]
    assert [status for status in Status if status not in picture] == []
