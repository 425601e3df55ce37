"""Planted mistakes of the worker that drives the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.broker import Log
from simulation.bug import Bug, Metadata
from taskmill.consumer.protocol import Phase, Protocol
from taskmill.consumer.protocol import Transaction as Work
from taskmill.consumer.record import Lease

if TYPE_CHECKING:
    from simulation.committer import Committer, Send
    from simulation.worker import Worker


class MarkBeforeCommit(Bug):
    """Marks enter the local table when their transaction begins."""

    def begun(self, worker: Worker, work: Work) -> None:
        reached = {p: worker.tables[p].checkpoint for p in work.outcomes}
        worker.apply(work, reached)


class OffsetsWithoutMarks(Bug):
    """The transaction moves offsets, and writes no state."""

    def sends(self, sends: list[Send]) -> list[Send]:
        return [send for send in sends if send[3] is None]


class LostLeaseCommitted(Bug):
    """A transaction goes on though one of its leases has ended since it began. Too rare a thing for
    random schedules: test_simulation.py writes it out."""

    def is_held(self, work: Work) -> bool:
        return True


class FreshMetadata(LostLeaseCommitted):
    """Group metadata is asked for at commit time; nor is there a second look at the leases."""

    head = (None, None, 1, 2)

    def metadata(self, worker: Worker, work: Work) -> Any:
        return worker.world.group.fresh(worker.client)


class RestoreToStableEnd(Bug):
    """A restore ends at the last stable offset: what a read_committed consumer's watermark says."""

    head = (None, None, 1, 2)

    def changelog_end(self, log: Log, early: int) -> int:
        return log.stable_end


class EndBeforeOffset(Bug):
    """A restore asks for the changelog's end first, then for the stable offset."""

    head = (None, None, 1, 2)

    def changelog_end(self, log: Log, early: int) -> int:
        return early


class ProducerReused(Bug):
    """After a commit without answer the same producer does it again."""

    def destroy(self, committer: Committer) -> None:
        """It is kept."""

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        worker.protocol.aborted(work)
        return []


class UnknownIsAborted(Bug):
    """After a commit without answer a new producer does it again, without a look at the state."""

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        worker.protocol.aborted(work)
        return []


class UnknownIsCommitted(Bug):
    """A commit without answer is taken for one that happened."""

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        worker.protocol.committed(work)
        return []


class RandomTransactionalId(Bug):
    """Each process has a transactional.id of its own."""

    def transactional_id(self, worker: Worker) -> str:
        return f"random-{worker.birth}"


class DeliverBeforeSeek(Bug):
    """A partition's records are taken as soon as it is restored, from wherever they come."""

    head = (None, 0, None, 1)

    def lease(self, protocol: Protocol, p: int) -> Lease | None:
        part = protocol._parts.get(p)
        return part.lease if part is not None and part.phase is Phase.RUNNING else None


class AlwaysFollows(Bug):
    """A partition that comes back is kept, whoever had it in between."""

    head = (1, None, 1, 2)

    def follows(self, before: Metadata | None, now: Metadata) -> bool:
        return True
