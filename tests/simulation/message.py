"""What lies on the simulated `tasks`: a task, or bytes that are none."""

from __future__ import annotations

from itertools import count

from taskmill.consumer.record import Lease, Reason, Record, Source
from taskmill.consumer.table import position_key
from taskmill.schemas.models import JSON, Task

TOPIC = "tasks"
#: The name of tasks that are declared `delivery="at_most_once"`.
AT_MOST_ONCE = "once"
_UNDECODABLE = (Reason.UNDECODABLE, "garbage")
_serials = count()


class Message:
    """`home` is the partition that the key belongs to; re-routing produces the same object."""

    __slots__ = ("generation", "home", "is_garbage", "key", "seq", "serial", "task", "value")

    def __init__(
        self, number: int, home: int, generation: int = 0, seq: int = 0, *, garbage: bool = False
    ) -> None:
        name = AT_MOST_ONCE if number % 4 == 3 else "work"
        self.key = b"%d" % number
        self.home = home
        self.generation = generation
        self.seq = seq
        self.is_garbage = garbage
        #: Several sizes, so that a byte counted wrongly shows.
        self.value = bytes(1 + (number * 7 + seq) % 5)
        self.task = Task(str(number), name, b"{}", JSON, 0, generation=generation, seq=seq)
        self.serial = next(_serials)

    def next_seq(self) -> Message:
        """What the platform hands over to itself for the next attempt."""
        return Message(int(self.key), self.home, self.generation, self.seq + 1)

    def decode(self, lease: Lease, offset: int) -> Record:
        """As decode.Decoder does it: the place of the key first, then the bytes."""
        p, key = lease.partition, self.key
        source = Source(TOPIC, p, offset, 0, key, self.value, ())
        if self.home != p:
            return Record(lease, offset, key, 0, 0, None, source, None, self.home)
        if self.is_garbage:
            mark_key = position_key(TOPIC, p, offset)
            return Record(lease, offset, mark_key, 0, 0, None, source, _UNDECODABLE)
        return Record(lease, offset, key, self.generation, self.seq, self.task, source)

    def __repr__(self) -> str:
        kind = "garbage " if self.is_garbage else ""
        return f"{kind}{self.key.decode()}/g{self.generation}/s{self.seq}"
