"""What became of a task by what Kafka holds: questions to a StateReader, and their time limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from taskmill.producer.reads import CLIENT_SKEW_MS
from taskmill.producer.watch import Lying, Seen
from taskmill.runtime.errors import ResultLost, ResultTimeout, Unreachable
from taskmill.schemas.models import TaskResult, TaskState
from taskmill.schemas.states import Status

if TYPE_CHECKING:
    from taskmill.producer.reader import StateReader

T = TypeVar("T")

#: A result becomes visible with its state, or after it: within the ten seconds in which the broker
#: finishes what a crash left half done, and a little.
RESULT_S = 12.0
#: What Kafka can answer at once is given up after this.
ANSWER_S = 10.0
#: A large result may take longer, by as long as it may be invisible.
LARGE_S = ANSWER_S + RESULT_S
#: A search through a partition of tasks or states: at 100,000 a second, six million.
SEARCH_S = 60.0


def state(reader: StateReader, queue: str, task_id: str, since: int | None) -> TaskState | None:
    """What workers told last, without a result whose time is over."""
    newest = reader.newest(queue, task_id, since)
    if since is None:
        seen = _read_through(newest, reader)
    else:
        seen = _wait(newest, ANSWER_S, _away(reader, ANSWER_S))
    return None if seen is None else as_of(reader.now_ms(), seen.state)


def queued(reader: StateReader, queue: str, task_id: str, since: int | None) -> TaskState | None:
    """The task as it lies on its topic."""
    lying = _read_through(reader.task(queue, task_id, since), reader)
    return None if lying is None else _as_queued(lying, queue)


def outcome(
    reader: StateReader, queue: str, task_id: str, since: int | None, timeout: float | None
) -> TaskState:
    """The state in which it ended, and what was set aside for its size."""
    future = reader.end(queue, task_id, since)
    seen = _ended(_wait(future, timeout, _too_late(reader, task_id, since, timeout)))
    found = as_of(reader.now_ms(), seen.state)
    if found.large is None:
        return found
    large = _wait(reader.large(queue, seen), LARGE_S, _away(reader, LARGE_S))
    return _whole(found, large, reader.now_ms())


async def aoutcome(
    reader: StateReader, queue: str, task_id: str, since: int | None, timeout: float | None
) -> TaskState:
    """As `outcome`, for asyncio."""
    future = reader.end(queue, task_id, since)
    seen = _ended(await _await(future, timeout, _too_late(reader, task_id, since, timeout)))
    found = as_of(reader.now_ms(), seen.state)
    if found.large is None:
        return found
    large = await _await(reader.large(queue, seen), LARGE_S, _away(reader, LARGE_S))
    return _whole(found, large, reader.now_ms())


def as_of(now_ms: int, state: TaskState) -> TaskState:
    """`state` without a result whose time is over by `now_ms`."""
    at = state.result_expires_at
    if at is None or now_ms < at:
        return state
    return state._replace(result=None, content_type=None, large=None)


def without_large(state: TaskState, now_ms: int) -> TaskState:
    """`state`, whose large result or error is no longer kept. Raises ResultLost."""
    # By the clock of the worker that removed it, its time may be over already.
    state = as_of(now_ms + CLIENT_SKEW_MS, state)
    if state.status is Status.SUCCEEDED and state.large is not None:
        raise ResultLost(
            f"task {state.id!r} succeeded, but its result is no longer kept on {state.large}"
        )
    return state


def _whole(state: TaskState, large: TaskResult | None, now_ms: int) -> TaskState:
    """`state` with what was set aside for its size."""
    if large is None:
        return without_large(state, now_ms)
    return state._replace(
        result=large.result,
        content_type=large.content_type,
        error=large.error or state.error,
        large=None,
    )


def _too_late(
    reader: StateReader, task_id: str, since: int | None, timeout: float | None
) -> Callable[[], Exception]:
    def error() -> Exception:
        if reader.trouble:
            return _unreachable(reader, timeout or 0.0)
        # Of an ID that others may have used nobody knows by then whether there is such a task.
        so_far = ", as far as its states were read by then" if since is None else "; it goes on"
        return ResultTimeout(f"task {task_id!r} has not ended within {timeout:g} s{so_far}")

    return error


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
