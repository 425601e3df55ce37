"""`POST /tasks/{id}/…`: what is asked of a task that is there."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api.access import caller_of
from taskmill.console.api.asked import CancelOf
from taskmill.console.api.asked import OneTask as Asking
from taskmill.console.api.look import Look
from taskmill.console.api.models import Asked, RunAgain
from taskmill.console.api.problems import Refused, of_error
from taskmill.console.api.replays import Ordered, Replays
from taskmill.console.api.rerun import OneTask
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.console.store.rows import LetterFilter, TaskRow
from taskmill.consumer.letters import Letters
from taskmill.consumer.replay_order import Order
from taskmill.consumer.replayed import Place
from taskmill.runtime.errors import InvalidInput, TaskmillError
from taskmill.schemas.codec import Codec
from taskmill.schemas.states import is_terminal

#: A replay of one record takes a moment once it has begun.
_RUN_S = 20.0


class Act:
    """Cancels, and runs again."""

    def __init__(self, services: Services, look: Look, replays: Replays) -> None:
        self._services = services
        self._look = look
        self._replays = replays

    async def cancel(
        self, request: Request, id: str, asked: Annotated[CancelOf, Query()]
    ) -> Response:
        """Have a task end, wherever it stands.

        Answered once Kafka has acknowledged it; what becomes of it, the task says. `unseen`: an ID
        that is not known (404 otherwise) ends as cancelled, and what comes under it is not run.
        """
        queue, row = asked.queue, None
        try:
            row, _ = await self._look.find(request, id, queue)
        except Refused as refusal:
            if refusal.kind != "not-found" or not asked.unseen:
                raise
        if row is not None and is_terminal(row.status):
            raise Refused("conflict", f"task {id!r:.530} is {row.status} already")
        self._services.brokers.check()
        name = None if row is None else row.name or None
        try:
            actor = caller_of(request).name
            await self._services.control.acancel(queue, id, name, actor)
        except InvalidInput as error:
            # There is no such queue, where the store knows of nothing in it.
            raise Refused("not-found", str(error)) from None
        except TaskmillError as error:
            raise of_error(error) from None
        return answer(Asked(id=id, queue=queue, status=None if row is None else row.status), 202)

    async def run(self, request: Request, id: str, asked: Annotated[Asking, Query()]) -> Response:
        """Run a finished task again: same ID and arguments, a new generation.

        409 while the queue is being replayed, and for one that has not ended.
        """
        row, _ = await self._look.find(request, id, asked.queue)
        if not is_terminal(row.status):
            raise Refused("conflict", f"task {id!r:.530} is {row.status}: it has not ended")
        services = self._services
        services.brokers.check()
        chosen = LetterFilter(queues=(row.queue,), id=row.id)
        letters = await services.reads.ask(services.reads.store.letters, chosen, None, 1000)
        places = [
            Place(one.partition, one.offset) for one in letters if one.generation <= row.generation
        ]
        sources: list[OneTask] = []
        make = partial(_order, row, places, sources)
        return await services.act(self._run, caller_of(request).name, row, make, sources)

    def _run(self, who: str, row: TaskRow, make: object, sources: list[OneTask]) -> Response:
        try:
            running = self._replays.begin(row.queue, who, make)  # type: ignore[arg-type]
        except TaskmillError as error:
            raise of_error(error) from None
        if not running.has_ended.wait(_RUN_S):
            raise Refused("unavailable", "Kafka takes long; it may yet be run again")
        if running.error is not None:
            if isinstance(running.error, TaskmillError):
                raise of_error(running.error)
            raise running.error
        assert running.job is not None, "it ended well"
        (source,) = sources
        if source.generation is None:
            why = ", ".join(source.left) or "it was run again by this very request"
            raise Refused("conflict", f"task {row.id!r:.530} cannot be run again: {why}")
        return answer(
            RunAgain(
                id=row.id,
                queue=row.queue,
                generation=source.generation,
                replay=running.job.id,
            ),
            202,
        )


def _order(
    row: TaskRow, places: list[Place], sources: list[OneTask], letters: Letters, _: Codec
) -> Ordered:
    sources.append(OneTask(letters, row, places))
    asked = {"id": row.id, "generation": row.generation}
    return Ordered(Order(asked), sources[0], 1)
