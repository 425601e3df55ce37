"""`POST /tasks` and `POST /tasks:batch`: answered once Kafka has acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api.access import Caller, caller_of
from taskmill.console.api.batch import of_all, read_batch
from taskmill.console.api.calls import body_of, call_of, check_size, json_body, location
from taskmill.console.api.edge import request_id
from taskmill.console.api.models import NewTask
from taskmill.console.api.problems import Refused, of_error
from taskmill.console.api.services import NO_HOOKS, Services
from taskmill.console.store.known import known_ids
from taskmill.producer.definition import TaskCall
from taskmill.producer.encoding import TaskEncoder
from taskmill.runtime.errors import EnqueueError, TaskmillError

logger = logging.getLogger("taskmill.console")

_JSON = "application/json"
#: The store is asked whether it knows an ID for so long; then Kafka is asked to take the task.
_KNOWN_S = 1.0


class Enqueue:
    """The way in."""

    def __init__(self, services: Services) -> None:
        self._services = services
        limit = services.settings.max_task_bytes
        self._encoder = TaskEncoder(services.codec, limit, lambda: NO_HOOKS, services.clock)

    async def one(self, request: Request) -> Response:
        """Put a task on its queue."""
        task = await body_of(request, NewTask)
        caller_of(request).check_queue(task.queue)
        call = call_of(task)
        services = self._services
        services.brokers.check()
        if task.queue not in services.brokers.queues:
            await services.send(services.brokers.check_queue, task.queue)
        known = False
        if task.id is not None:
            known = task.id in await self._known(task.queue, [task.id])
        if not known:
            try:
                await services.enqueuer.aenqueue(call)
            except TaskmillError as error:
                raise of_error(error, "args") from None
        document = {"id": call.id, "queue": call.queue, "duplicate": known}
        headers = {"location": location(call.id, call.queue)}
        return Response(to_json(document), 200 if known else 202, headers, _JSON)

    async def many(self, request: Request) -> Response:
        """Put many tasks on their queues: all of them or none, or an answer for each."""
        batch = read_batch(await json_body(request))
        services, caller = self._services, caller_of(request)
        services.brokers.check()
        wrong = await self._wrong_queues({task.queue for task in batch.tasks.values()}, caller)
        calls: dict[int, TaskCall[Any]] = {}
        refused = dict(batch.refused)
        for place, task in batch.tasks.items():
            try:
                if task.queue in wrong:
                    raise wrong[task.queue]
                calls[place] = call_of(task)
            except Refused as error:
                refused[place] = error
        self._check_sizes(calls, refused)
        if refused and batch.is_all:
            raise of_all(refused, batch.total)
        known = await self._duplicates(batch.tasks, calls)
        failed = await self._send({p: c for p, c in calls.items() if p not in known})
        return self._answer(batch.total, calls, known, {**refused, **failed})

    async def _wrong_queues(self, queues: Iterable[str], caller: Caller) -> dict[str, Refused]:
        wrong: dict[str, Refused] = {}
        brokers = self._services.brokers
        for queue in queues:
            try:
                caller.check_queue(queue)
                if queue not in brokers.queues:
                    await self._services.send(brokers.check_queue, queue)
            except Refused as error:
                if error.kind == "unavailable":
                    raise
                wrong[queue] = error
        return wrong

    def _check_sizes(self, calls: dict[int, TaskCall[Any]], refused: dict[int, Refused]) -> None:
        """Only those that may be too large are encoded for it."""
        limit = self._services.settings.max_task_bytes
        for place, call in tuple(calls.items()):
            if len(call.payload) + 4 * len(call.headers) > limit // 2 or call.headers:
                try:
                    check_size(self._encoder, call)
                except Refused as error:
                    refused[place] = error
                    del calls[place]

    async def _duplicates(
        self, tasks: dict[int, NewTask], calls: dict[int, TaskCall[Any]]
    ) -> frozenset[int]:
        """The places of those whose ID the store holds."""
        named: dict[str, dict[int, str]] = {}
        for place in calls:
            task = tasks[place]
            if task.id is not None:
                named.setdefault(task.queue, {})[place] = task.id
        found: set[int] = set()
        for queue, ids in named.items():
            known = await self._known(queue, list(ids.values()))
            found.update(place for place, id in ids.items() if id in known)
        return frozenset(found)

    async def _known(self, queue: str, ids: list[str]) -> frozenset[str]:
        """Those of `ids` that the store holds. Where it does not say, none: the worker, which does
        know, drops a duplicate."""
        reads = self._services.reads
        try:
            async with asyncio.timeout(_KNOWN_S):
                return frozenset(await reads.ask(known_ids, reads.store, queue, ids))
        except (TimeoutError, Refused):
            return frozenset()

    async def _send(self, calls: dict[int, TaskCall[Any]]) -> dict[int, Refused]:
        """Send them; those that were not accepted. Raises Refused where none was."""
        if not calls:
            return {}
        places = list(calls)
        try:
            await self._services.send(self._services.enqueuer.enqueue_many, list(calls.values()))
        except EnqueueError as error:
            return {places[at]: of_error(one, "args") for at, one in error.failed.items()}
        except TaskmillError as error:
            raise of_error(error, "tasks") from None
        return {}

    def _answer(
        self,
        total: int,
        calls: dict[int, TaskCall[Any]],
        known: frozenset[int],
        refused: dict[int, Refused],
    ) -> Response:
        items: list[dict[str, Any]] = []
        for place in range(total):
            call, error = calls.get(place), refused.get(place)
            item: dict[str, Any] = {
                "status": 200 if place in known else 202,
                "id": None if call is None else call.id,
                "queue": None if call is None else call.queue,
                "duplicate": place in known,
                "problem": None,
            }
            if error is not None:
                item["status"] = error.status
                item["problem"] = error.problem(request_id.get()).model_dump(mode="json")
            items.append(item)
        if len(refused) == total and all(one.kind == "unavailable" for one in refused.values()):
            raise refused[0]
        document = {
            "accepted": total - len(known) - len(refused),
            "duplicates": len(known),
            "refused": len(refused),
            "tasks": items,
        }
        return Response(to_json(document), 202, None, _JSON)
