"""How handles learn of tasks, and ask something of them, where a console is to be asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from taskmill.console.api.models import TaskDetail
from taskmill.console.client import calls
from taskmill.console.client.client import AsyncClient, Client
from taskmill.console.client.ended import Ended
from taskmill.console.client.wire import Action, Steps, Way
from taskmill.producer.answers import as_of, without_large
from taskmill.producer.reads import Orders
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.errors import ClosedError, Conflict, NotFound
from taskmill.schemas.models import JSON, TaskError, TaskState
from taskmill.schemas.states import Status

#: A console that does not answer is given up after this, as Kafka is.
ANSWER_S = 10.0
_MS = 1000


class _Asking:
    """One client a process, and one for each wait of asyncio, which belongs to its loop."""

    def __init__(self, url: str, token: str | None, clock: Clock) -> None:
        self._url, self._token, self._clock = url, token, clock
        self._client = Client(url, token, timeout_s=ANSWER_S, clock=clock)
        self._closed = False

    def _ask(self, action: Action[Any]) -> Any:
        if self._closed:
            raise ClosedError("the App is closed; make a new one to go on")
        return self._client.send(action)

    async def _aask(self, action: Action[Any]) -> Any:
        if self._closed:
            raise ClosedError("the App is closed; make a new one to go on")
        # Made without reading the certificates again, which takes some 20 ms.
        client = AsyncClient(
            self._url, self._token, timeout_s=ANSWER_S, clock=self._clock, verify=self._client.ssl
        )
        async with client:
            return await client.send(action)

    def close(self) -> None:
        """Close its connections."""
        self._closed = True
        self._client.close()


class ConsoleReads(_Asking):
    """Reads (producer/reads.py) by a console's store. `since` is not needed: the store has an
    index."""

    def __init__(self, url: str, token: str | None, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(url, token, clock)

    def state(self, queue: str, task_id: str, since: int | None) -> TaskState | None:
        """What workers told last; None while they have told nothing."""
        found = self._find(queue, task_id)
        return None if found is None or _is_untold(found) else self._known(found)

    def queued(self, queue: str, task_id: str, since: int | None) -> TaskState | None:
        """The task as it was enqueued, where no worker has told of it."""
        found = self._find(queue, task_id)
        return self._known(found) if found is not None and _is_untold(found) else None

    def outcome(
        self, queue: str, task_id: str, since: int | None, timeout: float | None
    ) -> TaskState:
        """The state in which it ended, waited for."""
        return self._whole(self._ask(Ended(task_id, queue, timeout)))

    async def aoutcome(
        self, queue: str, task_id: str, since: int | None, timeout: float | None
    ) -> TaskState:
        """As `outcome`, for asyncio."""
        return self._whole(await self._aask(Ended(task_id, queue, timeout)))

    def _find(self, queue: str, task_id: str) -> TaskDetail | None:
        try:
            found: TaskDetail = self._ask(calls.task(task_id, queue=queue))
        except NotFound:
            return None
        return found

    def _known(self, found: TaskDetail) -> TaskState:
        return as_of(self._clock.now_ms(), state_of(found))

    def _whole(self, found: TaskDetail) -> TaskState:
        state = self._known(found)
        if state.result is None and state.large is not None:
            return without_large(state, self._clock.now_ms())
        return state._replace(large=None)


class ConsoleOrders(_Asking):
    """Orders (producer/reads.py) by a console. `by_kafka` makes the way of those that it does not
    offer."""

    def __init__(
        self,
        url: str,
        token: str | None,
        by_kafka: Callable[[], Orders],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(url, token, clock)
        self._make_kafka = by_kafka
        self._kafka: Orders | None = None

    def cancel(
        self, queue: str, task_id: str, name: str | None = None, actor: str | None = None
    ) -> None:
        """Ask that it end; the console says who asked, by the token. One that has ended stays."""
        self._ask(_Cancel(task_id, queue))

    async def acancel(
        self, queue: str, task_id: str, name: str | None = None, actor: str | None = None
    ) -> None:
        """As `cancel`, for asyncio."""
        await self._aask(_Cancel(task_id, queue))

    def reschedule(
        self, queue: str, state: TaskState, not_before: int, actor: str | None = None
    ) -> None:
        """By Kafka: the API has no such route."""
        if self._kafka is None:
            self._kafka = self._make_kafka()
        self._kafka.reschedule(queue, state, not_before, actor)

    def now_ms(self) -> int:
        """UTC milliseconds, from which delays count."""
        return self._clock.now_ms()

    def close(self) -> None:
        """Close its connections."""
        super().close()
        if self._kafka is not None:
            self._kafka.close()


class _Cancel:
    """A cancellation that means what it means on Kafka: one that has ended stays as it is, and an
    ID that is not known ends as cancelled, whatever comes under it."""

    def __init__(self, id: str, queue: str) -> None:
        self._operation = calls.cancel(id, queue=queue, unseen=True)

    def steps(self, way: Way) -> Steps[None]:
        try:
            yield from self._operation.steps(way)
        except Conflict:
            pass


def state_of(found: TaskDetail) -> TaskState:
    """A document of the API as the record that it was made from."""
    error = found.error
    return TaskState(
        id=found.id,
        name=found.name,
        queue=found.queue,
        status=found.status,
        generation=found.generation,
        seq=found.seq,
        attempt=found.attempt,
        worker=found.worker or "",
        enqueued_at=_ms(found.enqueued_at) or 0,
        started_at=_ms(found.started_at),
        finished_at=_ms(found.finished_at),
        next_attempt_at=_ms(found.next_attempt_at),
        result=_bytes(found),
        content_type=found.content_type,
        error=None if error is None else TaskError(error.type, error.message, error.fingerprint),
        source_partition=found.source_partition or 0,
        source_offset=found.source_offset or 0,
        large=found.large,
        result_expires_at=_ms(found.result_expires_at),
    )


def _is_untold(found: TaskDetail) -> bool:
    """No worker has told of it: the store has it from its own record."""
    return found.status is Status.QUEUED and not found.worker


def _bytes(found: TaskDetail) -> bytes | None:
    if found.result_base64 is not None:
        return base64.b64decode(found.result_base64)
    if found.content_type != JSON:
        return None
    return json.dumps(found.result, ensure_ascii=False, separators=(",", ":")).encode()


def _ms(time: datetime | None) -> int | None:
    if time is None:
        return None
    # Not by way of a float, which has no room for milliseconds of far years.
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * _MS + since.microseconds // 1000
