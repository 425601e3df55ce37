"""What a step means, and how often each action comes: the profiles that schedules follow."""

from __future__ import annotations

#: Threads of a worker that go on: poll 0, commit 1, restore 2, control 3.
RUNNING = [(0, 1, 2, 3), (0, 1, 2), (0, 1, 2, 3), (0, 2, 3), (1, 2), (0, 1)]
#: What `fail` may bring about, and in how many ways; see the places that ask for it.
FAULTS = [
    *[("end", 4)] * 4,
    ("hang", 1),
    ("queue", 1),
    ("write", 2),
    ("abort", 1),
    ("read", 3),
    ("stand", 5),
    ("stand", 5),
    ("seek", 1),
    ("patience", 1),
]

_WEIGHTS = {
    "turn": 30,
    "produce": 32,
    "complete": 40,
    "fail": 20,
    "ask": 4,
    "note": 8,
    "survive": 4,
    "mark": 6,
    "crash": 4,
    "restart": 8,
    "freeze": 5,
    "expire": 5,
    "take_over": 5,
    "hand_over": 3,
    "rebalance": 6,
    "heartbeat": 2,
    "time_out": 3,
    "arrive": 4,
    "compact": 4,
    "refetch": 2,
    "leave": 2,
    "drain": 1,
}


def _table(**changed: int) -> list[str]:
    """256 actions, methods of World, by weight; what is left over goes to `run`."""
    weights = _WEIGHTS | changed
    left = 256 - sum(weights.values())
    assert left > 0, "an action weighs too much"
    return ["run"] * left + [name for name, weight in weights.items() for _ in range(weight)]


#: A schedule follows one of these: what happens all the time hides what needs it not to happen.
PROFILES = [
    _table(),
    # Nothing dies; answers are lost.
    _table(
        fail=50, crash=0, restart=0, freeze=0, expire=0, take_over=0, hand_over=0, drain=0, arrive=8
    ),
    # Ownership moves, under threads that are somewhere in between.
    _table(
        turn=60,
        produce=28,
        rebalance=12,
        take_over=20,
        hand_over=8,
        freeze=6,
        fail=30,
        crash=0,
        leave=0,
        drain=0,
    ),
    # Processes die, and markers are late.
    _table(turn=40, crash=14, restart=24, mark=12, fail=24, compact=8, freeze=0, ask=2),
]
