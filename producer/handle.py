"""What `enqueue` returns: the task's ID, and ways to ask what became of it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from taskmill.producer.control import Ways
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.ids import time_of
from taskmill.producer.reads import CLIENT_SKEW_MS
from taskmill.producer.results import Results
from taskmill.producer.time_limits import AT_ONCE, start_of
from taskmill.runtime.errors import (
    ConfigError,
    InvalidInput,
    ResultExpired,
    TaskFailed,
)
from taskmill.schemas.models import JSON, TaskState
from taskmill.schemas.states import Status

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

#: Clocks of the brokers of one cluster differ by less than this.
_BROKER_SKEW_MS = 5_000


class Handle(Generic[R_co]):
    """A task that was accepted, or (from `app.handle`) one known by its ID.

    `since`: UTC milliseconds by the brokers' clocks before which it has no state; None where an
    earlier task may have had the same ID: then states are looked for as far back as Kafka keeps
    them, the deduplication window.
    """

    __slots__ = ("_definition", "_since", "_ways", "id", "queue")

    def __init__(
        self,
        id: str,
        queue: str,
        ways: Ways,
        definition: TaskDefinition | None,
        since: int | None,
    ) -> None:
        self.id = id
        self.queue = queue
        self._ways = ways
        self._definition = definition
        self._since = since

    def status(self) -> Status:
        """Where the task stands; `queued` while no worker has told of it. Raises Unreachable."""
        state = self.state()
        return Status.QUEUED if state is None else state.status

    def state(self) -> TaskState | None:
        """All that workers told last, None while they have told nothing. Raises Unreachable.

        A result whose `result_ttl` is over is not in it any more.
        """
        return self._ways.reader().state(self.queue, self.id, self._since)

    def queued(self) -> TaskState | None:
        """The task as it lies on its topic, for one without a state: `queued`, and where.

        None where it lies there no more, or never did. Reads the topic from the time that the ID
        tells, all of a partition for one that tells none. Raises Unreachable.
        """
        return self._ways.reader().queued(self.queue, self.id, self._since)

    def outcome(self, timeout: float | None = None) -> TaskState:
        """The state in which the task ended, waiting for it; a large result or error is in it too.

        There is no result in it where none was stored, or where its `result_ttl` is over.
        `timeout` is in seconds, None: as long as it takes. Raises ResultTimeout, ResultLost, and
        Unreachable where Kafka does not answer.
        """
        return self._ways.reader().outcome(self.queue, self.id, self._since, timeout)

    async def aoutcome(self, timeout: float | None = None) -> TaskState:
        """As `outcome`, for asyncio."""
        return await self._ways.reader().aoutcome(self.queue, self.id, self._since, timeout)

    def result(self, timeout: float | None = None) -> R_co:
        """What the task returned, waiting for it: `timeout` seconds, None: as long as it takes.

        None for a task declared `store_result=False`. The task goes on where `timeout` is over.
        Raises TaskFailed where it ended without a result, ResultTimeout, Unreachable where Kafka
        has not answered by then (without `timeout` it is waited for), InvalidResult where the
        result is not of the declared type, ResultExpired where its `result_ttl` is over,
        ResultLost.
        """
        return self._value(self.outcome(timeout))

    async def aresult(self, timeout: float | None = None) -> R_co:
        """As `result`, for asyncio."""
        return self._value(await self.aoutcome(timeout))

    def cancel(self, *, name: str | None = None, actor: str | None = None) -> None:
        """Ask that the task be cancelled; returns once that is acknowledged, not once it has ended.

        What has not begun is not run, a handler that runs is told to end, a next attempt is not
        made (docs/cancel.md). A task that has ended stays as it is; an ID that is not known ends as
        cancelled, and what comes under it later is not run. `name`: the task's, for its
        state, where this handle is `app.handle`'s; `actor`: who asks. Raises Unreachable,
        ClosedError, and InvalidInput where there is no such queue.
        """
        self._ways.sender().cancel(self.queue, self.id, self._name_or(name), actor)

    async def acancel(self, *, name: str | None = None, actor: str | None = None) -> None:
        """As `cancel`, for asyncio."""
        await self._ways.sender().acancel(self.queue, self.id, self._name_or(name), actor)

    def reschedule(
        self,
        *,
        delay: str | None = None,
        at: datetime | str | None = None,
        actor: str | None = None,
    ) -> None:
        """Ask that the task, which is scheduled, start at another time: after `delay` from now, or
        `at` (as in CallOptions); returns once that is acknowledged (docs/delayed.md).

        Raises ConfigError for a time that is none, InvalidInput where the task is not scheduled,
        Unreachable, ClosedError.
        """
        start = start_of(delay, at)
        if start is AT_ONCE:
            raise ConfigError("reschedule needs delay=… or at=…")
        state = self.state()
        if state is None or state.status is not Status.SCHEDULED:
            status = Status.QUEUED if state is None else state.status
            raise InvalidInput(
                f"task {self.id!r} is {status}: only one that is scheduled can have another time"
            )
        sender = self._ways.sender()
        not_before = start.not_before(sender.now_ms())
        assert not_before is not None, "one of them was given"
        sender.reschedule(self.queue, state, not_before, actor)

    async def areschedule(self, **given: Any) -> None:
        """As `reschedule`, for asyncio."""
        await asyncio.to_thread(self.reschedule, **given)

    def _name_or(self, name: str | None) -> str | None:
        return name if self._definition is None else self._definition.name

    def _value(self, state: TaskState) -> R_co:
        if state.status is not Status.SUCCEEDED:
            kind, message = (state.error.type, state.error.message) if state.error else ("", "")
            raise TaskFailed(self.id, str(state.status), kind, message)
        if state.result is None:
            if state.result_expires_at is not None:
                raise ResultExpired(self.id, state.result_expires_at)
            return cast(R_co, None)
        if state.content_type != JSON:
            return cast(R_co, state.result)
        if self._definition is None:
            return cast(R_co, Results(state.name, Any).load(state.result))
        return cast(R_co, self._definition.load_result(state.result))

    def __repr__(self) -> str:
        return f"<Handle of task {self.id!r} in queue {self.queue!r}>"


def own_since(appended_at: int | None) -> int | None:
    """`since` of a task under a new ID, acknowledged at `appended_at` by a broker's clock."""
    return None if appended_at is None else appended_at - _BROKER_SKEW_MS


def foreign_since(task_id: str) -> int | None:
    """`since` of an ID that came from elsewhere: a UUIDv7 tells when it was made."""
    made_at = time_of(task_id)
    return None if made_at is None else made_at - CLIENT_SKEW_MS
