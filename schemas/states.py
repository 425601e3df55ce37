"""The states of a task: one table of legal steps, as data, with its picture.

    (new) ──> queued ──> waiting ──> running ──> succeeded · dead · cancelled · expired
              ▲  │ │                  ▲ │ │
              │  │ └──────────────────┘ │ │
              │  ▼                      │ │
              ├─ scheduled <────────────┘ │
              └─ retrying <───────────────┘

`cancelled` and `expired` are reached from every open state, `dead` also from `queued` (a task that
cannot be run at all), `succeeded` from `running` alone. `running` follows `running` when a crash
has the same record run again. A replay opens a new generation, which starts at (new) again.

`queued` and `running` are passed without being written when they do not last: a short task's
first state is its outcome. TRANSITIONS is what a reader of states may therefore see; it is
computed from STEPS, never edited.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from taskmill.runtime.errors import IllegalTransition


class Status(StrEnum):
    """Where a task stands. The wire carries the value, local tables the order: only append."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset({Status.SUCCEEDED, Status.DEAD, Status.CANCELLED, Status.EXPIRED})

_STOPPED = {Status.CANCELLED, Status.EXPIRED}

#: Single steps within one generation. None is a task that the table does not know yet.
STEPS: dict[Status | None, frozenset[Status]] = {
    None: frozenset({Status.QUEUED}),
    Status.QUEUED: frozenset(
        {Status.SCHEDULED, Status.WAITING, Status.RUNNING, Status.DEAD, *_STOPPED}
    ),
    Status.SCHEDULED: frozenset({Status.QUEUED, *_STOPPED}),
    Status.WAITING: frozenset({Status.RUNNING, *_STOPPED}),
    Status.RUNNING: frozenset(
        {
            Status.RUNNING,
            Status.SCHEDULED,
            Status.RETRYING,
            Status.SUCCEEDED,
            Status.DEAD,
            *_STOPPED,
        }
    ),
    Status.RETRYING: frozenset({Status.QUEUED, *_STOPPED}),
    **{status: frozenset[Status]() for status in TERMINAL},
}

#: Left out of the record of a task when they are over before the next commit.
UNWRITTEN = frozenset({Status.QUEUED, Status.RUNNING})


def _visible(steps: Iterable[Status]) -> frozenset[Status]:
    """Every state that may be the next one written, given the possible next steps."""
    seen: set[Status] = set()
    ahead = set(steps)
    while ahead:
        status = ahead.pop()
        seen.add(status)
        if status in UNWRITTEN:
            ahead |= STEPS[status] - seen
    return frozenset(seen)


#: From -> to, between one written state of a generation and the next.
TRANSITIONS: dict[Status | None, frozenset[Status]] = {
    status: _visible(steps) for status, steps in STEPS.items()
}


def is_terminal(status: Status) -> bool:
    """Whether a task in `status` is finished within its generation."""
    return status in TERMINAL


def check_transition(old: Status | None, new: Status) -> None:
    """Raise IllegalTransition unless `new` may be written after `old` (None: nothing yet)."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing: it is terminal"
        raise IllegalTransition(f"{old or 'a new task'} to {new}: allowed is {allowed}")
