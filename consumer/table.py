"""The idempotency table: what has run of a dedup ID, and whether a record of it runs.

One table a partition, over a local copy of `state[p]`. The rule and the fold are pure functions.
What is in flight or awaits its commit is not in here, but in the protocol's overlay.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import Enum
from itertools import islice
from struct import Struct
from typing import NamedTuple

from taskmill.consumer.mark import Entry, read_mark
from taskmill.runtime.changelog import Change
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.store import Put, Store
from taskmill.schemas.codec import CODEC, Codec
from taskmill.schemas.states import TERMINAL, Status

logger = logging.getLogger("taskmill.table")

__all__ = ["Decision", "Entry", "Table", "decide", "fold", "position_key"]


class Decision(Enum):
    """What becomes of a record of `tasks`."""

    RUN = "run"
    #: Counted, not run; its offset passes.
    DUPLICATE = "duplicate"
    #: Its only run may have begun before a crash: to the dead letters.
    ABANDONED = "abandoned"


def decide(
    entry: Entry | None, generation: int, seq: int, *, at_most_once: bool = False
) -> Decision:
    """What becomes of the record (generation, seq) of an ID that the table holds as `entry`."""
    if entry is None or generation > entry.generation:
        return Decision.RUN
    if generation < entry.generation or entry.status in TERMINAL or seq < entry.seq:
        return Decision.DUPLICATE
    if seq > entry.seq:
        return Decision.RUN
    if entry.status is not Status.RUNNING:
        return Decision.DUPLICATE
    # A crash left it running.
    return Decision.ABANDONED if at_most_once else Decision.RUN


def fold(old: Entry | None, new: Entry) -> Entry:
    """The entry that holds after `old`, then `new`: that of the greater (generation, seq).

    Of equal ones the later holds, but what is terminal stays. So the order of writes matters only
    among the states of one (generation, seq), and those are one owner's, in order.
    """
    if old is None:
        return new
    place, was = new[:2], old[:2]
    if place == was:
        return old if old.status in TERMINAL else new
    return new if place > was else old


def position_key(topic: str, partition: int, offset: int) -> bytes:
    """The key of a record that has no usable ID of its own: where it lies.

    No ID begins with 0xFF, which is not UTF-8.
    """
    return b"\xff" + f"{topic}/{partition}/{offset}".encode()


#: Generation, seq, index of the status, time. Wire numbers are 32 bits. 17 bytes.
_ENTRY = Struct("<iiBq")
#: What follows where one of them is set: deliveries, expiry (-1: none), whether `saved` follows.
_MORE = Struct("<iqB")
_STATUSES = tuple(Status)
_INDEX = {status: index for index, status in enumerate(_STATUSES)}


def pack(entry: Entry) -> bytes:
    """`entry` as it lies in the store."""
    generation, seq, status, time_ms, deliveries, saved, expires_at = entry
    packed = _ENTRY.pack(generation, seq, _INDEX[status], time_ms)
    if not deliveries and saved is None and expires_at is None:
        return packed
    more = _MORE.pack(deliveries, -1 if expires_at is None else expires_at, saved is not None)
    return packed + more + (saved or b"")


def unpack(value: bytes) -> Entry:
    """The entry that `pack` made `value` of."""
    generation, seq, index, time_ms = _ENTRY.unpack_from(value)
    status = _STATUSES[index]
    if len(value) == _ENTRY.size:
        return Entry(generation, seq, status, time_ms)
    deliveries, expires_at, is_saved = _MORE.unpack_from(value, _ENTRY.size)
    saved = value[_ENTRY.size + _MORE.size :] if is_saved else None
    return Entry(
        generation, seq, status, time_ms, deliveries, saved, None if expires_at < 0 else expires_at
    )


class Swept(NamedTuple):
    """What one step of a sweep did."""

    removed: int
    #: Entries whose result has outlived its time (result_ttl).
    expired: list[tuple[bytes, Entry]]


class Table:
    """The entries of one partition. For one thread at a time.

    `codec` reads the states that it is restored from. Raises StoreDamaged where the store fails.
    """

    def __init__(self, store: Store, codec: Codec = CODEC) -> None:
        self.store = store
        #: State records that could not be read, since this table was opened.
        self.unreadable = 0
        self._codec = codec
        self._round = store.items()

    def lookup(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """The entry of each key, in order; None where there is none."""
        return [None if v is None else unpack(v) for v in self.store.get_many(keys)]

    def apply(self, marks: Sequence[tuple[bytes, Entry]], offset: int) -> None:
        """Enter the marks of a committed transaction, in the order in which they were written;
        the local copy then reaches `offset` of `state[p]`. Never before the commit.

        Nothing is looked up: the rule has let these records run, so each mark is at least as new
        as what the table holds of its ID.
        """
        self.store.apply([(key, pack(entry)) for key, entry in marks], offset)

    def to_puts(self, changes: Sequence[Change]) -> list[Put]:
        """What the records of `state[p]` mean for the store: the hook of a restore.

        A record that is no TaskState is counted and passed: it blocks nothing. Raises Unreachable
        where a schema registry has to be asked and does not answer.
        """
        decode = self._codec.decode_state
        marks: list[tuple[bytes, Entry | None]] = []
        for key, value, time_ms in changes:
            try:
                mark = None if value is None else read_mark(value, time_ms, decode)
            except DecodeError as error:
                self.unreadable += 1
                if self.unreadable == 1:
                    logger.warning("state of %r passed over, it cannot be read: %s", key, error)
            else:
                marks.append((key, mark))
        return self._folded(marks)

    def _folded(self, marks: Sequence[tuple[bytes, Entry | None]]) -> list[Put]:
        """`marks` folded onto what the table holds; None forgets the key."""
        keys = [key for key, _ in marks]
        entries = dict(zip(keys, self.lookup(keys), strict=True))
        for key, mark in marks:
            entries[key] = None if mark is None else fold(entries[key], mark)
        return [(key, None if entry is None else pack(entry)) for key, entry in entries.items()]

    def sweep(self, now_ms: int, window_ms: int, limit: int) -> Swept:
        """Look at the next `limit` entries, round and round.

        Finished ones older than `window_ms` go: the topic has forgotten them too. Unfinished ones
        stay; those of running tasks are written again in time (Watch).
        """
        gone: list[Put] = []
        expired: list[tuple[bytes, Entry]] = []
        step = list(islice(self._round, limit))
        for key, value in step:
            entry = unpack(value)
            if entry.status in TERMINAL:
                if now_ms - entry.time_ms > window_ms:
                    gone.append((key, None))
                elif entry.expires_at is not None and entry.expires_at <= now_ms:
                    expired.append((key, entry))
        if len(step) < limit:
            self._round = self.store.items()
        if gone:
            self.store.apply(gone, self.store.checkpoint())
        return Swept(len(gone), expired)

    def close(self, clean: bool = True) -> None:
        """Close the store; `clean` where nothing is left to be applied."""
        self.store.close(clean)
