"""`GET /tasks…`: lists, one task, and its result, which may be waited for."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api import cursors, shown
from taskmill.console.api.access import Caller, admit, caller_of
from taskmill.console.api.asked import OneTask, ResultOf, TasksOf
from taskmill.console.api.models import MAX_WAIT_S, Me, TaskPage, moment
from taskmill.console.api.problems import Refused
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.console.api.words import moment_ms, seconds
from taskmill.console.store.rows import TaskCursor, TaskFilter, TaskRow
from taskmill.producer.ids import time_of
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import InvalidTaskId
from taskmill.schemas.codec import check_id
from taskmill.schemas.json_form import iso
from taskmill.schemas.states import is_terminal

#: Requests that wait for results at once.
MOST_WAITING = 5_000


class Look:
    """Reads of tasks."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting = 0

    async def me(self, request: Request) -> Response:
        """Tell what the token may do."""
        caller = caller_of(request)
        token = caller.token
        return answer(
            Me(
                token=token.id,
                scopes=sorted(token.scopes),
                queues=None if token.queues is None else sorted(token.queues),
                expires_at=None if token.expires_at is None else moment(token.expires_at),
            )
        )

    async def page(self, request: Request, asked: Annotated[TasksOf, Query()]) -> Response:
        """List tasks, newest first."""
        chosen, reads = task_filter(asked, caller_of(request), self._services), self._services.reads
        said = asked.model_dump(exclude={"cursor", "limit"})
        mark = cursors.mark_of("tasks", sorted(said.items()))
        key = cursors.decode(asked.cursor, mark, (int, str, str))
        as_of = await reads.as_of()
        after = None if key is None else TaskCursor(*key)
        rows = await reads.ask(reads.store.tasks, chosen, after, asked.limit + 1)
        more = len(rows) > asked.limit
        rows = rows[: asked.limit]
        after_last = None
        if more:
            last = rows[-1]
            after_last = cursors.encode(mark, (last.enqueued_at, last.queue, last.id))
        return answer(
            TaskPage(tasks=[shown.task(row) for row in rows], next=after_last, as_of=moment(as_of))
        )

    async def one(self, request: Request, id: str, asked: Annotated[OneTask, Query()]) -> Response:
        """Show a task whole."""
        row, as_of = await self.find(request, id, asked.queue)
        reads = self._services.reads
        attempts = await reads.ask(reads.store.attempts, row.queue, row.id)
        return answer(shown.detail(row, attempts, as_of))

    async def result(
        self, request: Request, id: str, asked: Annotated[ResultOf, Query()]
    ) -> Response:
        """Tell what became of a task: 200 once it has ended, 202 while it has not.

        `wait` waits for its end, also where the task is not known yet.
        """
        wait = seconds("wait", asked.wait, MAX_WAIT_S)
        if not wait:
            row, as_of = await self.find(request, id, asked.queue)
            return self._result(row, as_of)
        caller_of(request).check_queue(asked.queue)
        if self._waiting >= MOST_WAITING:
            raise Refused("unavailable", f"{MOST_WAITING} requests wait already")
        self._waiting += 1
        gone = asyncio.create_task(_disconnected(request))
        try:
            return await self._wait(request, id, asked.queue, wait, gone)
        finally:
            gone.cancel()
            self._waiting -= 1

    async def _wait(
        self, request: Request, id: str, queue: str, wait: float, gone: asyncio.Task[None]
    ) -> Response:
        deadline = Deadline(wait, self._services.clock)
        with self._services.feed.watch(queue, id) as changed:
            while True:
                changed.clear()
                is_last = deadline.over() or gone.done() or self._services.ending.is_set()
                try:
                    row, as_of = await self.find(request, id, queue)
                    if is_last or is_terminal(row.status):
                        return self._result(row, as_of)
                except Refused as refusal:
                    if is_last or refusal.kind != "not-found":
                        raise
                either = [
                    asyncio.create_task(changed.wait()),
                    asyncio.create_task(self._services.ending.wait()),
                ]
                await asyncio.wait(
                    [*either, gone], timeout=deadline.left(), return_when=asyncio.FIRST_COMPLETED
                )
                for one in either:
                    one.cancel()
                # A revocation counts for those who wait, too.
                admit(self._services.tokens, request).check_scope("read")

    async def find(self, request: Request, id: str, queue: str) -> tuple[TaskRow, int]:
        """The task and as of when. Raises Refused: 400, 403, 404, 503."""
        caller_of(request).check_queue(queue)
        try:
            check_id(id)
        except InvalidTaskId as error:
            raise Refused("malformed", str(error)) from None
        reads = self._services.reads
        as_of = await reads.as_of()
        row = await reads.ask(reads.store.task, queue, id)
        if row is None:
            raise Refused("not-found", self._missing(id, queue, as_of))
        return row, as_of

    def _missing(self, id: str, queue: str, as_of: int) -> str:
        """Whether it may be too old, as far as its ID tells."""
        settings = self._services.settings
        days = settings.dedup_window_ms / 86_400_000
        what = f"no task {id!r:.530} in queue {queue!r}, as of {iso(as_of)}"
        made_at = time_of(id)
        if made_at is None:
            return f"{what}: it was not enqueued, or ended more than {days:g} d ago: too old"
        if made_at < as_of - settings.dedup_window_ms:
            return (
                f"{what}: its ID was made at {iso(made_at)}, it may be too old (what ended is kept "
                f"for {days:g} d)"
            )
        return f"{what}: its ID was made at {iso(made_at)}, so it is not too old: not enqueued"

    def _result(self, row: TaskRow, as_of: int) -> Response:
        expired_at = row.result_expires_at
        is_kept = row.result is not None or expired_at is None
        if not is_kept and expired_at is not None and is_terminal(row.status):
            raise Refused(
                "gone", f"task {row.id!r:.530}: its result was kept until {iso(expired_at)}"
            )
        return answer(shown.result(row, as_of), 200 if is_terminal(row.status) else 202)


def task_filter(asked: TasksOf, caller: Caller, services: Services) -> TaskFilter:
    """What is asked, within the caller's queues. Raises Refused."""
    now = services.clock.now_ms()
    return TaskFilter(
        statuses=tuple(asked.status),
        names=tuple(asked.name),
        queues=queues_of(asked.queue, caller),
        since=moment_ms("since", asked.since, now),
        until=moment_ms("until", asked.until, now),
        id_prefix=asked.prefix,
        parent=asked.parent,
    )


def queues_of(asked: list[str], caller: Caller) -> tuple[str, ...]:
    """The queues that are meant; none: all. Raises Refused, 403."""
    for queue in asked:
        caller.check_queue(queue)
    if asked or caller.queues is None:
        return tuple(asked)
    return tuple(sorted(caller.queues))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
