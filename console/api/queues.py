"""`/queues` and `/workers`: how queues stand by what Kafka says, who works on them; pauses."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api.access import Caller, caller_of
from taskmill.console.api.models import QueueName
from taskmill.console.api.operations import Paused, Queue, Queues, Worker, Workers
from taskmill.console.api.problems import Refused, of_error
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.runtime.errors import TaskmillError


class QueueRoutes:
    """Reads of what the watch saw last, and pauses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def page(self, request: Request) -> Response:
        """List queues: depth, lag, the age of the oldest task, whether paused."""
        self._services.brokers.check()
        return answer(Queues(queues=self.seen(caller_of(request))))

    async def workers(self, request: Request) -> Response:
        """List workers: which partitions each holds."""
        self._services.brokers.check()
        caller = caller_of(request)
        found = []
        for one in self._rows(caller):
            found += [
                Worker(
                    queue=one.queue,
                    worker=member.worker,
                    host=member.host,
                    version=member.version,
                    partitions=sorted(member.partitions),
                )
                for member in one.members
            ]
        return answer(Workers(workers=found))

    async def pause(self, request: Request, queue: QueueName) -> Response:
        """Have no task of a queue begun; what runs goes on. Lasts, whatever restarts."""
        return await self._set(request, queue, True)

    async def resume(self, request: Request, queue: QueueName) -> Response:
        """Let a paused queue go on."""
        return await self._set(request, queue, False)

    def seen(self, caller: Caller) -> list[Queue]:
        """The queues that a caller may see."""
        return [
            Queue(
                queue=one.queue,
                partitions=one.partitions,
                lag=one.lag,
                oldest_age_ms=one.oldest_age_ms,
                delayed=one.delayed,
                retrying=one.retrying,
                letters=one.letters,
                paused=one.paused,
                workers=len(one.members),
            )
            for one in self._rows(caller)
        ]

    def _rows(self, caller: Caller) -> list[Any]:
        return [one for one in self._services.queues.all() if caller.sees(one.queue)]

    async def _set(self, request: Request, queue: str, paused: bool) -> Response:
        caller, services = caller_of(request), self._services
        caller.check_queue(queue)
        services.brokers.check()
        if queue not in services.brokers.queues:
            raise Refused("not-found", f"no queue {queue!r:.110}")
        change = services.queues.pause if paused else services.queues.resume
        try:
            await services.act(change, queue, caller.name)
        except TaskmillError as error:
            raise of_error(error) from None
        return answer(Paused(queue=queue, paused=paused))
