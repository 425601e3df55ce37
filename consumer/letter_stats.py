"""Dead letters counted by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from taskmill.consumer.letters import Letter


class Group(NamedTuple):
    """Letters that have `value` in common; `first` and `last`: when the first and the last of them
    were written, UTC ms; `error`: of the last one."""

    value: str
    letters: int
    first: int
    last: int
    error: str


class Stats:
    """Letters by reason, by task, by fingerprint."""

    def __init__(self, letters: Iterable[Letter] = ()) -> None:
        self.count = 0
        self._groups: dict[str, dict[str, Group]] = {"reason": {}, "task": {}, "fingerprint": {}}
        for letter in letters:
            self.add(letter)

    def add(self, letter: Letter) -> None:
        """Count `letter`."""
        self.count += 1
        values = {
            "reason": letter.reason,
            "task": letter.task or "-",
            "fingerprint": letter.fingerprint or "-",
        }
        for kind, value in values.items():
            groups, error, at = self._groups[kind], letter.error, letter.at
            known = groups.get(value)
            if known is None:
                groups[value] = Group(value, 1, at, at, error)
                continue
            groups[value] = Group(
                value,
                known.letters + 1,
                min(known.first, at),
                max(known.last, at),
                error if at >= known.last else known.error,
            )

    def groups(self, kind: str) -> list[Group]:
        """The groups by "reason", "task" or "fingerprint", the largest first."""
        return sorted(self._groups[kind].values(), key=lambda g: (-g.letters, g.value))

    @property
    def kinds(self) -> tuple[str, ...]:
        """What letters are grouped by."""
        return tuple(self._groups)
