"""What `enqueue` returns: the task's ID, and ways to ask what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from taskmill.producer.control import Ways
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.ids import time_of
from taskmill.producer.reader import RESULT_S, StateReader
from taskmill.producer.results import Results
from taskmill.producer.time_limits import AT_ONCE, start_of
from taskmill.producer.watch import Lying, Seen
from taskmill.runtime.errors import (
    ConfigError,
    InvalidInput,
    ResultExpired,
    ResultLost,
    ResultTimeout,
    TaskFailed,
    Unreachable,
)
from taskmill.schemas.models import JSON, TaskResult, TaskState
from taskmill.schemas.states import Status

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

#: What Kafka can answer at once is given up after this.
ANSWER_S = 10.0
#: A large result may take longer, by as long as it may be invisible.
LARGE_S = ANSWER_S + RESULT_S
#: A search through a partition of tasks or states: at 100,000 a second, six million.
SEARCH_S = 60.0
#: Clocks of the brokers of one cluster differ by less than this.
_BROKER_SKEW_MS = 5_000
#: Clocks of those who make IDs: what Kerberos (RFC 4120) tolerates, whose logins break first.
_CLIENT_SKEW_MS = 300_000


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
        reader = self._ways.reader()
        newest = reader.newest(self.queue, self.id, self._since)
        if self._since is None:
            seen = _read_through(newest, reader)
        else:
            seen = _wait(newest, ANSWER_S, _away(reader, ANSWER_S))
        return None if seen is None else _as_of(reader.now_ms(), seen.state)

    def queued(self) -> TaskState | None:
        """The task as it lies on its topic, for one without a state: `queued`, and where.

        None where it lies there no more, or never did. Reads the topic from the time that the ID
        tells, all of a partition for one that tells none. Raises Unreachable.
        """
        reader = self._ways.reader()
        lying = _read_through(reader.task(self.queue, self.id, self._since), reader)
        return None if lying is None else _as_queued(lying, self.queue)

    def outcome(self, timeout: float | None = None) -> TaskState:
        """The state in which the task ended, waiting for it; a large result or error is in it too.

        There is no result in it where none was stored, or where its `result_ttl` is over.
        `timeout` is in seconds, None: as long as it takes. Raises ResultTimeout, ResultLost, and
        Unreachable where Kafka does not answer.
        """
        reader = self._ways.reader()
        future = reader.end(self.queue, self.id, self._since)
        seen = _ended(_wait(future, timeout, self._too_late(reader, timeout)))
        state = _as_of(reader.now_ms(), seen.state)
        if state.large is None:
            return state
        large = reader.large(self.queue, seen)
        found = _wait(large, LARGE_S, _away(reader, LARGE_S))
        return self._whole(state, found, reader.now_ms())

    async def aoutcome(self, timeout: float | None = None) -> TaskState:
        """As `outcome`, for asyncio."""
        reader = self._ways.reader()
        future = reader.end(self.queue, self.id, self._since)
        seen = _ended(await _await(future, timeout, self._too_late(reader, timeout)))
        state = _as_of(reader.now_ms(), seen.state)
        if state.large is None:
            return state
        large = reader.large(self.queue, seen)
        found = await _await(large, LARGE_S, _away(reader, LARGE_S))
        return self._whole(state, found, reader.now_ms())

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
        made (docs/cancel.md). A task that has ended stays as it is. `name`: the task's, for its
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

    def _whole(self, state: TaskState, large: TaskResult | None, now_ms: int) -> TaskState:
        """`state` with what was set aside for its size."""
        if large is not None:
            return state._replace(
                result=large.result,
                content_type=large.content_type,
                error=large.error or state.error,
                large=None,
            )
        # By the clock of the worker that removed it, its time may be over already.
        state = _as_of(now_ms + _CLIENT_SKEW_MS, state)
        if state.status is Status.SUCCEEDED and state.large is not None:
            raise ResultLost(
                f"task {self.id!r} succeeded, but its result is no longer kept on {state.large}"
            )
        return state

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

    def _too_late(self, reader: StateReader, timeout: float | None) -> Callable[[], Exception]:
        def error() -> Exception:
            if reader.trouble:
                return _unreachable(reader, timeout or 0.0)
            # Of an ID that others may have used nobody knows by then whether there is such a task.
            search = self._since is None
            so_far = ", as far as its states were read by then" if search else "; it goes on"
            return ResultTimeout(f"task {self.id!r} has not ended within {timeout:g} s{so_far}")

        return error

    def __repr__(self) -> str:
        return f"<Handle of task {self.id!r} in queue {self.queue!r}>"


def own_since(appended_at: int | None) -> int | None:
    """`since` of a task under a new ID, acknowledged at `appended_at` by a broker's clock."""
    return None if appended_at is None else appended_at - _BROKER_SKEW_MS


def foreign_since(task_id: str) -> int | None:
    """`since` of an ID that came from elsewhere: a UUIDv7 tells when it was made."""
    made_at = time_of(task_id)
    return None if made_at is None else made_at - _CLIENT_SKEW_MS


def _away(reader: StateReader, within_s: float) -> Callable[[], Exception]:
    return lambda: _unreachable(reader, within_s)


def _unreachable(reader: StateReader, within_s: float) -> Unreachable:
    if reader.trouble:
        what = f"did not answer within {within_s:g} s ({reader.trouble})"
    else:
        what = f"answers, but what it holds was not read through within {within_s:g} s"
    return Unreachable(f"Kafka at {reader.address} {what}")


def _as_queued(lying: Lying, queue: str) -> TaskState:
    task, partition, offset = lying
    return TaskState(
        id=task.id,
        name=task.name,
        queue=queue,
        status=Status.QUEUED,
        generation=task.generation,
        seq=task.seq,
        attempt=task.attempt,
        worker="",
        enqueued_at=task.enqueued_at,
        started_at=None,
        finished_at=None,
        next_attempt_at=None,
        result=None,
        content_type=None,
        error=None,
        source_partition=partition,
        source_offset=offset,
        large=None,
    )


def _as_of(now_ms: int, state: TaskState) -> TaskState:
    """`state` without a result whose time is over by `now_ms`."""
    at = state.result_expires_at
    if at is None or now_ms < at:
        return state
    return state._replace(result=None, content_type=None, large=None)


def _ended(seen: Seen | None) -> Seen:
    assert seen is not None, "an end is waited for until there is one"
    return seen


def _wait(future: Future[T], timeout: float | None, too_late: Callable[[], Exception]) -> T:
    try:
        return future.result(timeout)
    except ResultTimeout:
        raise  # it says more than we could
    except TimeoutError:
        raise too_late() from None
    finally:
        future.cancel()  # whoever leaves, by whatever way, is not to be told any more


def _read_through(future: Future[T], reader: StateReader) -> T:
    """What a search finds, which may take SEARCH_S as long as Kafka answers at all."""
    try:
        try:
            return future.result(ANSWER_S)
        except TimeoutError:
            if reader.trouble:
                raise _unreachable(reader, ANSWER_S) from None
        try:
            return future.result(SEARCH_S - ANSWER_S)
        except TimeoutError:
            raise _unreachable(reader, SEARCH_S) from None
    finally:
        future.cancel()


async def _await(future: Future[T], timeout: float | None, too_late: Callable[[], Exception]) -> T:
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.wrap_future(future)
    except ResultTimeout:
        raise  # it says more than we could
    except TimeoutError:
        raise too_late() from None
