"""`/schedules`: tasks that the clock enqueues, seen and changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api import shown
from taskmill.console.api.access import Caller, caller_of
from taskmill.console.api.calls import body_of
from taskmill.console.api.models import maybe, moment
from taskmill.console.api.operations import NewSchedule, Schedule, Schedules, Triggered
from taskmill.console.api.problems import Refused, field, of_error
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.producer.ids import new_id
from taskmill.producer.undeclared import dump_undeclared
from taskmill.runtime.errors import TaskmillError
from taskmill.scheduler.board import Board, Posted
from taskmill.scheduler.firing import run_task
from taskmill.scheduler.policy import is_finished, next_times
from taskmill.scheduler.reconcile import differences, merged
from taskmill.scheduler.schedule import (
    HAND,
    ScheduleForm,
    check,
    check_schedule_id,
    declared_by,
)
from taskmill.schemas.models import Schedule as Record

T = TypeVar("T")

#: Times to come that are shown.
_NEXT = 5
_FORM = frozenset(ScheduleForm.model_fields)


class Calendar:
    """Each asks Kafka at the moment, on a thread."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def page(self, request: Request) -> Response:
        """List schedules: when each is due, what it runs, how it went so far."""
        caller, now = caller_of(request), self._services.clock.now_ms()
        found = await self._do(lambda board: board.all())
        seen = [one for one in found if caller.sees(_queue_of(one))]
        return answer(Schedules(schedules=[document(one, now) for one in seen]))

    async def one(self, request: Request, id: str) -> Response:
        """Show a schedule."""
        posted = await self._do(partial(_find, id, caller_of(request)))
        return answer(document(posted, self._services.clock.now_ms()))

    async def put(self, request: Request, id: str) -> Response:
        """Make a schedule (201), or put this in place of what it is (200).

        A pause stays, and so do the times that count where they do not change. 409 for one that an
        App declares.
        """
        new = await body_of(request, NewSchedule)
        caller, services = caller_of(request), self._services
        caller.check_queue(new.queue)
        record = _record(id, new, services.clock.now_ms())
        services.brokers.check()
        if new.queue not in services.brokers.queues:
            await services.act(services.brokers.check_queue, new.queue)
        posted, is_new = await self._do(partial(_put, record, caller))
        shown_now = document(posted, services.clock.now_ms())
        return answer(shown_now, 201 if is_new else 200)

    async def remove(self, request: Request, id: str) -> Response:
        """Remove a schedule. Runs that were enqueued go on; one that an App declares comes back."""
        await self._do(partial(_remove, id, caller_of(request)))
        return Response(status_code=204)

    async def trigger(self, request: Request, id: str) -> Response:
        """Enqueue a schedule's task now, paused or not; it counts as none of its runs."""
        task, schedule = await self._do(
            partial(_trigger, id, caller_of(request), self._services.clock.now_ms())
        )
        self._services.counted.run(schedule.queue, schedule.task)
        told = Triggered(id=task, schedule=id, name=schedule.task, queue=schedule.queue)
        return answer(told, 202)

    async def pause(self, request: Request, id: str) -> Response:
        """Have nothing of a schedule fired until it is resumed."""
        return await self._set_paused(request, id, True)

    async def resume(self, request: Request, id: str) -> Response:
        """Let a paused schedule go on with its next time."""
        return await self._set_paused(request, id, False)

    async def _set_paused(self, request: Request, id: str, paused: bool) -> Response:
        now = self._services.clock.now_ms()
        posted = await self._do(partial(_pause, id, caller_of(request), paused, now))
        return answer(document(posted, now))

    async def _do(self, do: Callable[[Board], T]) -> T:
        """On a board of its own, on a thread. Raises Refused."""
        self._services.brokers.check()
        return await self._services.act(self._on_board, do)

    def _on_board(self, do: Callable[[Board], T]) -> T:
        services = self._services
        try:
            with Board(services.quick, services.codec, services.clock) as board:
                return do(board)
        except TaskmillError as error:
            raise of_error(error) from None


def _queue_of(posted: Posted) -> str | None:
    return None if posted.schedule is None else posted.schedule.queue


def _find(id: str, caller: Caller, board: Board) -> Posted:
    posted = board.find(id)
    # Of one that it may not see, a token is not told that it is there.
    if posted is None or not caller.sees(_queue_of(posted)):
        raise Refused("not-found", f"no schedule {id!r:.270}")
    return posted


def _heeded(posted: Posted) -> Record:
    if posted.schedule is None or posted.rule is None:
        raise Refused("conflict", f"schedule {posted.id!r:.270} is broken: {posted.broken}")
    return posted.schedule


def _record(id: str, new: NewSchedule, now_ms: int) -> Record:
    """The record. Raises Refused, which names the field."""
    try:
        check_schedule_id(id)
    except TaskmillError as error:
        raise Refused("malformed", str(error)) from None
    said = {
        name: value
        for name, value in new.model_dump(include=set(_FORM)).items()
        if value is not None
    }
    try:
        payload = dump_undeclared(new.task, new.args)
        return ScheduleForm.of(id, said).record(id, payload, HAND, now_ms)
    except TaskmillError as error:
        text = str(error)
        told = text.partition(": ")[2]
        name = next((one for one in _NAMES if _begins_with(one, told)), None)
        raise (field("invalid", name, text) if name else of_error(error)) from None


#: Longer names first: one may be part of another.
_NAMES = sorted(NewSchedule.model_fields, key=len, reverse=True)


def _begins_with(name: str, text: str) -> bool:
    """Whether a message begins with the name of a field, as those of schedules do."""
    if name == "tz" and text.startswith("zone "):
        return True
    return text.startswith((f"{name}:", f"{name}=", f"{name} ", f"a {name} "))


def _put(new: Record, caller: Caller, board: Board) -> tuple[Posted, bool]:
    posted = board.find(new.id)
    if posted is not None and not caller.sees(_queue_of(posted)):
        raise Refused("forbidden", "the token does not hold for the queue of that schedule")
    old = None if posted is None else posted.schedule
    app = None if old is None else declared_by(old)
    if app is not None:
        raise Refused(
            "conflict",
            f"schedule {new.id!r:.270} is declared by App {app!r}: change it there, or pause it",
        )
    schedule = merged(new, old)
    if old is None or differences(new, old):
        board.write([schedule])
    state = None if posted is None else posted.state
    return Posted(new.id, schedule, state, check(schedule)), posted is None


def _remove(id: str, caller: Caller, board: Board) -> None:
    _find(id, caller, board)
    board.remove([id])


def _trigger(id: str, caller: Caller, now_ms: int, board: Board) -> tuple[str, Record]:
    schedule = _heeded(_find(id, caller, board))
    task = run_task(schedule, now_ms, now_ms, new_id()[-12:])
    board.enqueue(schedule.queue, [task])
    return task.id, schedule


def _pause(id: str, caller: Caller, paused: bool, now_ms: int, board: Board) -> Posted:
    posted = _find(id, caller, board)
    schedule = _heeded(posted)
    if schedule.paused is paused:
        return posted
    since = schedule.updated_at if schedule.since is None else schedule.since
    changed = schedule._replace(paused=paused, updated_at=now_ms, since=since if paused else now_ms)
    board.write([changed])
    return posted._replace(schedule=changed)


def document(posted: Posted, now_ms: int) -> Schedule:
    """A schedule as people see it."""
    record, state = posted.schedule, posted.state
    fields: dict[str, Any] = dict.fromkeys(Schedule.model_fields)
    if record is not None:
        fields |= {name: getattr(record, name) for name in _COPIED}
        fields |= {name: maybe(getattr(record, name)) for name in ("start_at", "end_at")}
        fields["updated_at"] = maybe(record.updated_at)
        fields["declared_by"] = declared_by(record)
        fields["args"], fields["args_base64"] = shown.content(record.payload, record.content_type)
    if state is not None:
        fields |= {name: getattr(state, name) for name in ("last_task_id", "last_queue")}
        fields |= {name: maybe(getattr(state, name)) for name in ("last_nominal", "fired_at")}
    status, times = "broken", []
    if record is not None and posted.rule is not None:
        times = next_times(record, posted.rule, now_ms, _NEXT)
        is_over = not times or (state is not None and is_finished(record, state))
        status = "paused" if record.paused else "over" if is_over else "on"
    fields |= {
        "id": posted.id,
        "status": status,
        "broken": posted.broken,
        "next": [moment(time) for time in times] if status == "on" else [],
        "runs": 0 if state is None else state.runs,
        "missed": 0 if state is None else state.missed,
        "skipped": 0 if state is None else state.skipped,
    }
    return Schedule(**fields)


#: Fields that stand as they are.
_COPIED = (
    *("task", "queue", "cron", "every_ms", "tz", "misfire", "misfire_max", "catch_up_ms"),
    *("overlap", "jitter_ms", "max_runs", "timeout_ms", "expires_ms", "deadline_ms"),
    *("max_attempts", "headers"),
)
