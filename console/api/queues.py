"""`/queues` and `/workers`: how queues stand by what Kafka says, who works on them; pauses."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api.access import Caller, caller_of
from taskmill.console.api.models import QueueName, moment
from taskmill.console.api.operations import Paused, Queue, Queues, Worker, Workers
from taskmill.console.api.problems import Refused, of_error
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.console.queues import Member, QueueView
from taskmill.consumer.pauses import set_paused
from taskmill.runtime.errors import ConfigError, TaskmillError

#: A look takes some tenths of a second: one serves all who ask meanwhile.
_FRESH_S = 2.0


class QueueRoutes:
    """Reads of what Kafka says, and pauses."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looking: asyncio.Task[list[QueueView]] | None = None

    async def page(self, request: Request) -> Response:
        """List queues: depth, lag, the age of the oldest task, whether paused."""
        views = await self.views(caller_of(request))
        return answer(Queues(queues=[_queue(one) for one in views]))

    async def workers(self, request: Request) -> Response:
        """List workers: which partitions each holds."""
        views = await self.views(caller_of(request))
        found = [_worker(view, member) for view in views for member in view.members]
        return answer(Workers(workers=found))

    async def pause(self, request: Request, queue: QueueName) -> Response:
        """Have no task of a queue begun; what runs goes on. Lasts, whatever restarts."""
        return await self._set(request, queue, True)

    async def resume(self, request: Request, queue: QueueName) -> Response:
        """Let a paused queue go on."""
        return await self._set(request, queue, False)

    async def views(self, caller: Caller) -> list[QueueView]:
        """The queues that a caller may see, as of a moment ago. Raises Refused, 503."""
        self._services.brokers.check()
        if self._looking is None:
            # One looks for all: each would hold a thread, which other acts need, until it had.
            self._looking = asyncio.create_task(self._look())
        views = await asyncio.shield(self._looking)
        return [one for one in views if caller.sees(one.queue)]

    async def _look(self) -> list[QueueView]:
        services = self._services
        try:
            return await services.act(services.queues.look, _FRESH_S)
        except TaskmillError as error:
            raise of_error(error) from None
        finally:
            self._looking = None

    async def _set(self, request: Request, queue: str, paused: bool) -> Response:
        caller, services = caller_of(request), self._services
        caller.check_queue(queue)
        services.brokers.check()
        try:
            await services.act(
                set_paused, services.settings, [queue], paused, caller.name, services.clock
            )
        except ConfigError as error:
            raise Refused("not-found", str(error)) from None
        except TaskmillError as error:
            raise of_error(error) from None
        return answer(Paused(queue=queue, paused=paused))


def _queue(view: QueueView) -> Queue:
    depth, pause = view.depth, view.pause if view.paused else None
    return Queue(
        queue=view.queue,
        partitions=len(depth.partitions),
        lag=depth.lag.records,
        lag_is_exact=depth.lag.is_exact,
        oldest_age_ms=depth.oldest_age_ms,
        delayed=0 if depth.delayed is None else depth.delayed.records,
        delayed_is_exact=depth.delayed is not None and depth.delayed.is_exact,
        retrying=sum(one.records for one in depth.retrying.values()),
        retrying_is_exact=all(one.is_exact for one in depth.retrying.values()),
        letters=0 if depth.letters is None else depth.letters.records,
        letters_is_exact=depth.letters is not None and depth.letters.is_exact,
        paused=view.paused,
        paused_at=None if pause is None else moment(pause.at),
        paused_by=None if pause is None else pause.by,
        rate_in=view.rate_in,
        rate_out=view.rate_out,
        workers=len(view.members),
    )


def _worker(view: QueueView, member: Member) -> Worker:
    held = set(member.partitions)
    return Worker(
        queue=view.queue,
        worker=member.worker,
        version=member.version,
        client_id=member.client_id,
        host=member.host,
        partitions=sorted(held),
        lag=sum(one.lag for one in view.depth.partitions if one.partition in held),
    )
