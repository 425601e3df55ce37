"""What a planted mistake may touch: `Bug` is what is right, and everything goes through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.broker import Log
from taskmill.consumer.protocol import Limits, Protocol
from taskmill.consumer.protocol import Transaction as Work
from taskmill.consumer.record import Lease

Metadata = tuple[int, int]
Head = tuple[int | None, int | None, int | None, int | None]

if TYPE_CHECKING:
    from simulation.committer import Committer, Send
    from simulation.worker import Worker


class Bug:
    """No mistake: the protocol as it is, driven as the worker drives it."""

    rules: type[Protocol] = Protocol
    #: Bytes of a schedule's head (see world.World) with which it shows sooner; None: any.
    head: Head = (None, None, None, None)

    def protocol(self, limits: Limits, at_most_once: frozenset[str]) -> Protocol:
        return self.rules(limits, at_most_once)

    def lease(self, protocol: Protocol, p: int) -> Lease | None:
        return protocol.lease(p)

    def begun(self, worker: Worker, work: Work) -> None:
        """A transaction has been taken."""

    def sends(self, sends: list[Send]) -> list[Send]:
        return sends

    def metadata(self, worker: Worker, work: Work) -> Any:
        return work.fence.metadata

    def is_held(self, work: Work) -> bool:
        """Asked once the offsets are accepted: KIP-848 accepts a lost partition's too, as long as
        the member epoch has not moved (more is to be revoked)."""
        return all(lease.held for lease in work.leases.values())

    def transactional_id(self, worker: Worker) -> str:
        return f"slot-{worker.slot}"

    def changelog_end(self, log: Log, early: int) -> int:
        """Where a restore ends; `early` was the log's end before the stable offset was read."""
        return log.end

    def follows(self, before: Metadata | None, now: Metadata) -> bool:
        """Whether `now` is the same member's next generation."""
        return before is not None and now == (before[0] + 1, before[1])

    def destroy(self, committer: Committer) -> None:
        """The outcome of its commit is unknown."""
        committer.producer = None

    def reads_later(self, lease: Lease) -> bool:
        """Whether a restore went without `control`, since Kafka did not answer."""
        return lease.epoch % 4 == 3

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        return worker.protocol.unknown(work)
