"""A queue whose tasks can be made dead, and mended, for tests of dead letters and replays."""

from __future__ import annotations

from support.queues import Queue
from support.wire import task_value
from support.workers import runs

PARTITIONS = 2


class LetterBox(Queue):
    """A queue whose brittle tasks can be made dead, and mended."""

    def die(self, ids: list[str], kind: str = "", **headers: bytes) -> None:
        """Put tasks of these IDs, and wait until they are dead."""
        for id in ids:
            value = task_value(id, "brittle", {"kind": kind})
            self.oracle.put(id.encode(), value, headers=headers)
        self.oracle.wait_states(ids)

    def mend(self) -> None:
        (self.folder / "mended").touch()

    def generations(self) -> dict[str, list[int]]:
        """In which generations each ID ran, in order."""
        found: dict[str, list[int]] = {}
        for line in runs(self.folder):
            id, _, generation = line.rpartition(" ")
            found.setdefault(id, []).append(int(generation))
        return found

    def wait_replayed(self, ids: list[str], generation: int = 1) -> None:
        """Wait until these ran in that generation, and that is committed."""
        self.oracle.wait_consumed()
        for id in ids:
            states = self.oracle.states()[id.encode()]
            assert [s["status"] for s in states if s["generation"] == generation] == ["succeeded"]
