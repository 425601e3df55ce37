"""Schedules: made from a seed, run, replayed, shrunk.

cd tests && python -m simulation 1234                 # replay a seed, shrink it, tell it
cd tests && python -m simulation 1234 --bug NAME      # the same with a planted mistake
cd tests && python -m simulation --count 1000000      # many, from seed 0 (or a given one) on
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from simulation.bug import Bug
from simulation.profiles import PROFILES
from simulation.world import World

#: Steps of four bytes each, after a head of four.
STEPS = 100


def schedule(seed: int, bug: Bug | None = None, steps: int = STEPS) -> bytes:
    """The schedule of `seed`; with the head that `bug` asks for."""
    plan = Random(seed).randbytes(4 + 4 * steps)
    wanted = bug.head if bug is not None else (None,) * 4
    head = [byte if want is None else want for want, byte in zip(wanted, plan[:4], strict=True)]
    return bytes(head) + plan[4:]


def run(plan: bytes, bug: Bug | None = None) -> World:
    """Run `plan` and then everything to its end. Raises what is broken, Violation mostly."""
    world = World(plan[:4], bug or Bug())
    for at in range(4, len(plan), 4):
        world.step(plan[at : at + 4])
    world.settle()
    return world


class Failed(NamedTuple):
    """What a schedule breaks: where it was noticed, which is kept while it shrinks, and how."""

    place: tuple[str, int]
    text: str


def failure(plan: bytes, bug: Bug | None = None) -> Failed | None:
    """What `plan` breaks; None: nothing."""
    try:
        run(plan, bug)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return Failed((frame.filename, frame.lineno or 0), f"{type(error).__name__}: {error}")
    return None


def shrink(plan: bytes, bug: Bug | None = None) -> bytes:
    """The same failure with as few steps, and as small numbers, as are found greedily."""
    found = failure(plan, bug)
    assert found is not None, "only what fails is shrunk"
    while True:
        for candidate in _smaller(plan):
            told = failure(candidate, bug)
            if told is not None and told.place == found.place:
                plan = candidate
                break
        else:
            return plan


def _smaller(plan: bytes) -> Iterator[bytes]:
    head, body = plan[:4], plan[4:]
    size = len(body) // 4
    chunk = size
    while chunk:
        for start in range(0, size, chunk):
            yield head + body[: 4 * start] + body[4 * (start + chunk) :]
        chunk //= 2
    for at, byte in enumerate(plan):
        # The first byte of a step is its action, which has no order.
        if byte and (at < 4 or at % 4):
            for less in {0, byte // 2, byte - 1}:
                if less < byte:
                    yield plan[:at] + bytes([less]) + plan[at + 1 :]


def told(plan: bytes) -> list[str]:
    """`plan` in words."""
    lines = [f"head {list(plan[:4])}"]
    actions = PROFILES[plan[3] % len(PROFILES)]
    for at in range(4, len(plan), 4):
        action, *rest = plan[at : at + 4]
        lines.append(f"{actions[action]} {rest}")
    return lines
