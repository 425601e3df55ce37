"""How handles learn what became of tasks: an interface, that of Kafka and of a console alike."""

from __future__ import annotations

from typing import Protocol

from taskmill.schemas.models import TaskState

#: Clocks of those who make IDs: what Kerberos (RFC 4120) tolerates, whose logins break first.
CLIENT_SKEW_MS = 300_000


class Reads(Protocol):
    """Answers what became of a task, from any thread; `since` as in Handle.

    All raise Unreachable, ClosedError.
    """

    def state(self, queue: str, task_id: str, since: int | None) -> TaskState | None:
        """What workers told last; None while they have told nothing."""
        ...

    def queued(self, queue: str, task_id: str, since: int | None) -> TaskState | None:
        """The task as it lies on its topic; None where it does not."""
        ...

    def outcome(
        self, queue: str, task_id: str, since: int | None, timeout: float | None
    ) -> TaskState:
        """The state in which it ended, waited for. Raises ResultTimeout, ResultLost."""
        ...

    async def aoutcome(
        self, queue: str, task_id: str, since: int | None, timeout: float | None
    ) -> TaskState:
        """As `outcome`, for asyncio."""
        ...

    def close(self) -> None:
        """End; who still waits gets a ClosedError."""
        ...


class Orders(Protocol):
    """Asks something of tasks, from any thread: returns once that is acknowledged."""

    def cancel(
        self, queue: str, task_id: str, name: str | None = None, actor: str | None = None
    ) -> None:
        """That it end. Raises InvalidInput, Unreachable, ClosedError."""
        ...

    async def acancel(
        self, queue: str, task_id: str, name: str | None = None, actor: str | None = None
    ) -> None:
        """As `cancel`, for asyncio."""
        ...

    def reschedule(
        self, queue: str, state: TaskState, not_before: int, actor: str | None = None
    ) -> None:
        """That the scheduled task of `state` wait until `not_before` (UTC ms) instead."""
        ...

    def now_ms(self) -> int:
        """UTC milliseconds, from which delays count."""
        ...

    def close(self) -> None:
        """Deliver what is on its way, and end."""
        ...
