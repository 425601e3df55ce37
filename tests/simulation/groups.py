"""The group coordinator in both styles: classic eager with static members, and KIP-848.

Both answer `event` (the rebalance callback that is due for a client), take `revoked` (its answer to
a revocation) and judge a TxnOffsetCommit by the metadata handed in. `tenure[p]` counts the owners
that p has had: a lease taken under another tenure is stale, whatever its holder believes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

from simulation.client import Client, Event


class Group:
    """What both styles share. Bit p of `rotation` moves partition p."""

    incremental: bool

    def __init__(self, partitions: int) -> None:
        self.partitions = range(partitions)
        self.owner: dict[int, int | None] = dict.fromkeys(self.partitions)
        self.tenure: dict[int, int] = dict.fromkeys(self.partitions, 0)
        self.rotation = 0
        self._ids = count(1)

    def _own(self, p: int, member: int | None) -> None:
        if self.owner[p] != member:
            self.owner[p] = member
            self.tenure[p] += 1

    def _targets(self, members: list[int]) -> dict[int, int]:
        return {p: members[(p + (self.rotation >> p)) % len(members)] for p in self.partitions}


class ClassicGroup(Group):
    """Eager: everything is revoked, all rejoin, all is assigned anew, one generation later."""

    incremental = False

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.generation = 0
        self.members: dict[int, int] = {}
        self._joining = False
        self._joined: set[int] = set()

    def event(self, client: Client) -> Event | None:
        member = client.member
        if member not in self.members:
            client.member, client.generation = None, -1
            if client.assigned:
                return Event("lost", sorted(client.assigned))
            self._join(client)
            return None
        assert member is not None
        if self._joining and member not in self._joined:
            if client.assigned:
                return Event("revoke", sorted(client.assigned))
            self._joined.add(member)
            self._complete()
        if self._joining or client.generation == self.generation:
            return None
        client.generation = self.generation
        mine = [p for p in self.partitions if self.owner[p] == member]
        return Event("assign", mine, (self.generation, member))

    def _join(self, client: Client) -> None:
        client.member = member = next(self._ids)
        for old, slot in list(self.members.items()):
            if slot == client.slot:
                # A static member that came back within its session: no rebalance, a new member ID.
                del self.members[old]
                self._joined.discard(old)
                for p in self.partitions:
                    if self.owner[p] == old:
                        self._own(p, member)
                break
        else:
            self.rebalance()
        self.members[member] = client.slot
        if self._joining:
            self._joined.add(member)
            self._complete()

    def revoked(self, client: Client, partitions: list[int]) -> None:
        client.unassign(partitions)
        if client.member in self.members:
            self._joined.add(client.member)
            self._complete()

    def rebalance(self) -> None:
        if not self._joining:
            self._joining, self._joined = True, set()

    def expire(self, member: int) -> None:
        """Its session ended, or it left."""
        if self.members.pop(member, None) is None:
            return
        for p in self.partitions:
            if self.owner[p] == member:
                self._own(p, None)
        self.rebalance()
        self._joined.discard(member)
        self._complete()

    def heartbeat(self, client: Client) -> None:
        """Nothing changes between callbacks in this style."""

    def _complete(self) -> None:
        if not self._joined.issuperset(self.members) or not self.members:
            return
        self.generation += 1
        self._joining = False
        members = sorted(self.members, key=self.members.__getitem__)
        for p, member in self._targets(members).items():
            self._own(p, member)

    def refusal(self, metadata: Any, offsets: Iterable[int]) -> str | None:
        generation, member = metadata
        if member not in self.members:
            return "UNKNOWN_MEMBER_ID"
        return None if generation == self.generation else "ILLEGAL_GENERATION"

    def fresh(self, client: Client) -> Any:
        """Metadata as the client would give it now, between callbacks."""
        return (self.generation, client.member)


class _Member:
    __slots__ = ("epoch", "owned", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.epoch = 0
        #: Partition -> the member epoch at which it was assigned.
        self.owned: dict[int, int] = {}


class ConsumerGroup(Group):
    """KIP-848: what must go is revoked, what is free is added; a member epoch each."""

    incremental = True

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.epoch = 0
        self.members: dict[int, _Member] = {}
        self._target: dict[int, int] = {}

    def event(self, client: Client) -> Event | None:
        if client.member not in self.members:
            if client.assigned:
                return Event("lost", sorted(client.assigned))
            # A fenced member comes back under the ID that it chose itself.
            client.member = client.member or next(self._ids)
            self.members[client.member] = _Member(client.slot)
            self.rebalance()
        assert client.member is not None
        member = self.members[client.member]
        self.heartbeat(client)
        going = [p for p in member.owned if self._target[p] != client.member]
        if going:
            return Event("revoke", going)
        coming = [p for p in member.owned if p not in client.assigned]
        if coming:
            return Event("assign", coming, (member.epoch, client.member))
        return None

    def heartbeat(self, client: Client) -> None:
        """The background heartbeat: reconciles, and may raise the member epoch, in silence."""
        member = self.members.get(client.member or 0)
        if member is None:
            return
        for p in list(member.owned):
            if self._target[p] != client.member and p not in client.assigned:
                self._release(member, p)
        if any(self._target[p] != client.member for p in member.owned):
            return
        member.epoch = self.epoch
        for p in self.partitions:
            if self._target[p] == client.member and self.owner[p] is None:
                member.owned[p] = member.epoch
                self._own(p, client.member)

    def _release(self, member: _Member, p: int) -> None:
        del member.owned[p]
        self._own(p, None)

    def revoked(self, client: Client, partitions: list[int]) -> None:
        client.unassign(partitions)
        member = self.members.get(client.member or 0)
        if member is not None:
            for p in partitions:
                if p in member.owned:
                    self._release(member, p)
            # The heartbeat that tells of it raises the epoch too, unless more must be revoked.
            self.heartbeat(client)

    def rebalance(self) -> None:
        self.epoch += 1
        if self.members:
            self._target = self._targets(sorted(self.members))

    def expire(self, member: int) -> None:
        gone = self.members.pop(member, None)
        if gone is None:
            return
        for p in list(gone.owned):
            self._release(gone, p)
        self.rebalance()

    def refusal(self, metadata: Any, offsets: Iterable[int]) -> str | None:
        """The current member epoch passes for anything (that is the danger of fresh metadata); an
        older one for what was assigned by then and never left."""
        epoch, name = metadata
        member = self.members.get(name)
        if member is None:
            return "UNKNOWN_MEMBER_ID"
        if epoch == member.epoch:
            return None
        for p in offsets:
            if member.owned.get(p, epoch + 1) > epoch:
                return "ILLEGAL_GENERATION"
        return None

    def fresh(self, client: Client) -> Any:
        """Metadata as the client would give it now, between callbacks."""
        member = self.members.get(client.member or 0)
        return (member.epoch if member is not None else -1, client.member)
