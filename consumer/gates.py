"""Records that start only once a `running` mark of theirs is committed: who waits, who may pass.

Two sorts wait. Tasks declared `delivery="at_most_once"`: the mark tells a later owner that their
only run may have begun. And *suspects*, what may have been in flight when a worker ended without a
word: their marks count how often that happened. Those that were in flight twice run one after the
other, so that the next sudden end tells which one brings it about.
"""

from __future__ import annotations

from collections import deque

from taskmill.consumer.record import Lease, Note, Record


class Gates:
    """At most `limit` have passed and not ended; a draining worker has no more than that to run."""

    __slots__ = ("_alone", "_limit", "_passed", "_seen", "_suspects", "_waiting", "closed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Note] = deque()
        self._suspects: deque[Note] = deque()
        self._passed: dict[tuple[int, int], Record] = {}
        #: The suspect that runs, and the one that ran when it was last asked.
        self._alone: Record | None = None
        self._seen: Record | None = None
        #: Nobody passes any more: the worker drains.
        self.closed = False

    def wait(self, note: Note, *, alone: bool) -> None:
        """`note`'s record waits for its turn; `alone`: for the end of the suspect before it."""
        (self._suspects if alone else self._waiting).append(note)

    def next(self) -> list[Note]:
        """The notes to be committed now, so that their records may start."""
        turn: list[Note] = []
        if self.closed:
            return turn
        while self._waiting and len(self._passed) < self._limit:
            self._pass(self._waiting.popleft(), turn)
        while self._suspects and self._alone is None:
            note = self._suspects.popleft()
            if self._pass(note, turn):
                self._alone = note.record
        return turn

    def _pass(self, note: Note, turn: list[Note]) -> bool:
        record = note.record
        if not record.lease.held:
            return False
        self._passed[record.lease.partition, record.offset] = record
        turn.append(note)
        return True

    def ended(self, record: Record) -> None:
        """An outcome of `record` is there."""
        place = record.lease.partition, record.offset
        if self._passed.get(place) is record:
            del self._passed[place]
        if self._alone is record:
            self._alone = None

    def drop(self, lease: Lease) -> None:
        """`lease` has ended: what it brought neither waits nor runs."""
        for record in [r for r in self._passed.values() if r.lease is lease]:
            self.ended(record)

    def let_next(self) -> None:
        """Asked at intervals: a suspect that has survived a whole one is not waited for."""
        if self._alone is self._seen:
            self._alone = None
        self._seen = self._alone

    @property
    def busy(self) -> bool:
        """Whether anybody waits or has passed."""
        return bool(self._passed or self._waiting or self._suspects)
