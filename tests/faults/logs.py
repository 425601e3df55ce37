"""What workers' logs tell of a fault test: who holds, and who restored, which partitions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_RESTORED = re.compile(r"restored \S+\.state\.\S+ \[(\d+)\]")
_MOVED = re.compile(r"(assigned|revoked|lost) \[([\d, ]*)\]")
_SLOT = re.compile(r"slot (\S+), pid (\d+)")
#: What a supervisor's workers put before their lines.
_OF_SLOT = re.compile(r"\[slot (\d+)\]")


def held(lines: Sequence[str], *, incremental: bool) -> set[int]:
    """The partitions that one worker holds; `incremental`: what it was assigned is added."""
    found: set[int] = set()
    for line in lines:
        if moved := _MOVED.search(line):
            these = {int(p) for p in moved[2].split(",") if p.strip()}
            if moved[1] != "assigned":
                found -= these
            else:
                found = found | these if incremental else these
    return found


def pids(lines: Sequence[str]) -> dict[str, int]:
    """The pid of the newest worker in each slot: of one worker, or of a supervisor's."""
    return {found[1]: int(found[2]) for line in lines if (found := _SLOT.search(line))}


def restores(lines: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Slot and partition of each restore that is told of, by one worker or a supervisor's."""
    slot = ""
    for line in lines:
        if found := _SLOT.search(line):
            slot = found[1]
        if found := _RESTORED.search(line):
            of = _OF_SLOT.search(line)
            # All of one supervisor have its node's name before their number.
            yield slot.rsplit(".", 1)[0] + f".{of[1]}" if of else slot, int(found[1])
