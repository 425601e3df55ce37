"""Records that start only once a `running` mark of theirs is committed: who waits, who may pass.

Two sorts wait. Tasks declared `delivery="at_most_once"`: the mark tells a later owner that their
only run may have begun. And *suspects*, what may have been in flight when a worker ended without a
word: their marks count how often that happened. Those that one more end would condemn run one after
the other, beside no other suspect, so that the next sudden end tells which one brings it about.
"""

from __future__ import annotations

from collections import deque

from taskmill.consumer.record import Lease, Note, Record

_Place = tuple[int, int]


class Gates:
    """At most `limit` have passed and not ended; a draining worker has no more than that to run."""

    __slots__ = (
        "_alone",
        "_limit",
        "_others",
        "_others_seen",
        "_others_waiting",
        "_passed",
        "_seen",
        "_suspects",
        "_waiting",
        "closed",
        "held",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Note] = deque()
        #: Suspects that one more end would condemn; the others, which may run beside each other.
        self._suspects: deque[Note] = deque()
        self._others_waiting: deque[Note] = deque()
        self._passed: dict[_Place, Record] = {}
        #: The suspect that runs alone, and the one that did when it was last asked.
        self._alone: Record | None = None
        self._seen: Record | None = None
        #: The other suspects that run, and those that did.
        self._others: dict[_Place, Record] = {}
        self._others_seen: dict[_Place, Record] = {}
        #: Nobody passes any more: the worker drains.
        self.closed = False
        #: Nobody passes for now: the queue is paused.
        self.held = False

    def wait(self, note: Note, *, alone: bool) -> None:
        """`note`'s record waits for its turn; `alone`: one more end would condemn it."""
        if alone:
            self._suspects.append(note)
        else:
            (self._others_waiting if note.deliveries else self._waiting).append(note)

    def next(self) -> list[Note]:
        """The notes to be committed now, so that their records may start."""
        turn: list[Note] = []
        if self.closed or self.held:
            return turn
        while self._waiting and len(self._passed) < self._limit:
            self._pass(self._waiting.popleft(), turn)
        while self._others_waiting and self._alone is None and len(self._passed) < self._limit:
            note = self._others_waiting.popleft()
            if self._pass(note, turn):
                self._others[_place(note.record)] = note.record
        while self._suspects and self._alone is None and not self._others:
            note = self._suspects.popleft()
            if self._pass(note, turn):
                self._alone = note.record
        return turn

    def _pass(self, note: Note, turn: list[Note]) -> bool:
        record = note.record
        if not record.lease.held:
            return False
        self._passed[_place(record)] = record
        turn.append(note)
        return True

    def ended(self, record: Record) -> None:
        """An outcome of `record` is there."""
        place = _place(record)
        if self._passed.get(place) is record:
            del self._passed[place]
            self._others.pop(place, None)
        if self._alone is record:
            self._alone = None

    def withdraw(self, record: Record) -> bool:
        """`record` is not to start any more; False where it does not wait."""
        for queue in (self._waiting, self._others_waiting, self._suspects):
            for at, note in enumerate(queue):
                if note.record is record:
                    del queue[at]
                    return True
        return False

    def drop(self, lease: Lease) -> None:
        """`lease` has ended: what it brought neither waits nor runs."""
        for record in [r for r in self._passed.values() if r.lease is lease]:
            self.ended(record)

    def let_next(self) -> None:
        """Asked at intervals: suspects that have survived a whole one are not waited for."""
        if self._alone is self._seen:
            self._alone = None
        self._seen = self._alone
        for place, record in self._others_seen.items():
            if self._others.get(place) is record:
                del self._others[place]
        self._others_seen = dict(self._others)

    @property
    def busy(self) -> bool:
        """Whether anybody waits or has passed."""
        return bool(self._passed or self._waiting or self._others_waiting or self._suspects)


def _place(record: Record) -> _Place:
    return record.lease.partition, record.offset
