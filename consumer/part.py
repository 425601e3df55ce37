"""What a worker holds of one partition index, and how much of all of them it may hold."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.consumer.window import Window


class Limits(NamedTuple):
    """What is held in memory at the most. Reasons for the numbers: ARCHITECTURE.md, "Bounds"."""

    #: Records delivered and not settled, over all partitions.
    in_flight: int = 12_000
    #: Their values' bytes.
    in_flight_bytes: int = 64 * 1024 * 1024
    #: Offsets between a partition's watermark and its newest record.
    span: int = 50_000
    #: Outcomes in one transaction: a bound on its size and time, far below its time-out.
    per_transaction: int = 4_000


class Phase(Enum):
    RESTORING = "restoring"
    RUNNING = "running"
    SUSPENDED = "suspended"


class Counts:
    """What happened, counted; read by the metrics."""

    __slots__ = ("dropped", "duplicates", "recovered", "refetched", "rerouted", "superseded")

    def __init__(self) -> None:
        self.duplicates = 0
        #: Outcomes of a lost lease.
        self.dropped = 0
        #: Outcomes found committed after a commit whose answer was lost.
        self.recovered = 0
        #: Records delivered again to a kept partition.
        self.refetched = 0
        self.rerouted = 0
        #: Outcomes not marked: a newer generation or seq of the ID came while they ran.
        self.superseded = 0


class Part:
    """One held partition index."""

    __slots__ = (
        "bytes",
        "fetching",
        "lease",
        "live",
        "overtaken",
        "paused",
        "phase",
        "ready",
        "unknown",
        "window",
    )

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.phase = Phase.RESTORING
        self.window = Window(0)
        #: ID -> the newest record of that ID that runs or awaits its commit (the overlay).
        self.live: dict[bytes, Record] = {}
        #: Outcomes that await a transaction, in order of completion.
        self.ready: list[Outcome] = []
        #: Whether a newer record of an ID came while an older one was in flight.
        self.overtaken = False
        #: Whether the consumer fetches from `window.next_offset` on (rule 5).
        self.fetching = False
        self.paused = False
        self.bytes = 0
        #: Outcomes of the transaction whose answer was lost, until the restore.
        self.unknown: list[Outcome] = []
