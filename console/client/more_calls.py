"""What can be asked of a console about all else: dead letters, schedules, queues, workers."""

from __future__ import annotations

from typing import Any

from taskmill.console.api import operations as o
from taskmill.console.client.calls import JSON_BODY, Moment, Words, body_of, made
from taskmill.console.client.failures import document, nothing
from taskmill.console.client.wire import Answer, Operation, Pages, Request, path, query
from taskmill.consumer.record import Reason

#: A replay begins once it has its turn; a preview reads all letters.
_REPLAY_S = 30.0


def queues() -> Operation[o.Queues]:
    """How queues stand: depth, lag, oldest age, dead letters, paused."""
    return Operation(Request("GET", "/queues"), document(o.Queues))


def pause(queue: str) -> Operation[o.Paused]:
    """Have no task of a queue begun; lasts until `resume`."""
    return Operation(Request("POST", path("queues", queue, "pause")), document(o.Paused))


def resume(queue: str) -> Operation[o.Paused]:
    """Let a paused queue go on."""
    return Operation(Request("POST", path("queues", queue, "resume")), document(o.Paused))


def workers() -> Operation[o.Workers]:
    """Who works on which partitions."""
    return Operation(Request("GET", "/workers"), document(o.Workers))


def overview(*, minutes: int = 60) -> Operation[o.Overview]:
    """Totals by status; rates, times and lag of each queue; a series by minute."""
    return Operation(Request("GET", "/overview", query(minutes=minutes)), document(o.Overview))


# ---- dead letters -----------------------------------------------------------------------------


def letters(
    *,
    queue: Words = None,
    name: Words = None,
    reason: Words = None,
    fingerprint: Words = None,
    error: str | None = None,
    id: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    replayed: bool = False,
    page: int = 100,
) -> Pages[o.Letter]:
    """Dead letters, newest first. `error`: part of "type: message"; `replayed`: those as well that
    were put back."""
    said = query(
        queue=queue, name=name, reason=reason, fingerprint=fingerprint, error=error, id=id,
        since=since, until=until, replayed=replayed, limit=page,
    )  # fmt: skip
    read = document(o.LetterPage)

    def of_page(answer: Answer) -> tuple[list[o.Letter], str | None]:
        found = read(answer)
        return found.letters, found.next

    return Pages(Request("GET", "/dlq", said), of_page)


def letter_groups(
    *, queue: Words = None, name: Words = None, since: Moment | None = None
) -> Operation[o.LetterGroups]:
    """Dead letters by what failed, the largest group first."""
    said = query(queue=queue, name=name, since=since)
    return Operation(Request("GET", "/dlq/groups", said), document(o.LetterGroups))


def letter(queue: str, partition: int, offset: int) -> Operation[o.LetterDetail]:
    """A dead letter whole."""
    place = path("dlq", queue, str(partition), str(offset))
    return Operation(Request("GET", place), document(o.LetterDetail))


def replay(**order: Any) -> Operation[o.Replay]:
    """Put dead letters back, each once; takes what ReplayOrder has, and answers once it has begun.

    Raises Conflict where the queue is being replayed. Not sent again where it may have begun.
    """
    return Operation(_order(order, dry_run=False), document(o.Replay), is_repeatable=False)


def preview_replay(**order: Any) -> Operation[o.ReplayPreview]:
    """What `replay` of the same order would put back."""
    return Operation(_order(order, dry_run=True), document(o.ReplayPreview))


def _order(said: dict[str, Any], *, dry_run: bool) -> Request:
    if isinstance(reason := said.get("reason"), (list, tuple)):
        said = {**said, "reason": [_reason(one) for one in reason]}
    if isinstance(offsets := said.get("offsets"), list):
        said = {**said, "offsets": tuple(offsets)}
    body = body_of(made(o.ReplayOrder, {**said, "dry_run": dry_run}))
    return Request("POST", "/dlq/replay", body=body, headers=JSON_BODY, wait_s=_REPLAY_S)


def _reason(said: Any) -> Any:
    """The reason of that word; what is none is refused with the order."""
    try:
        return Reason(said)
    except ValueError:
        return said


def replays(*, queue: str = "default") -> Operation[o.Replays]:
    """The replays that there were, the newest first."""
    return Operation(Request("GET", "/dlq/replays", query(queue=queue)), document(o.Replays))


def replay_status(id: str, *, queue: str = "default") -> Operation[o.Replay]:
    """How far a replay is, or what came of it."""
    request = Request("GET", path("dlq", "replays", id), query(queue=queue))
    return Operation(request, document(o.Replay))


# ---- schedules --------------------------------------------------------------------------------


def schedules() -> Operation[o.Schedules]:
    """All schedules, by ID."""
    return Operation(Request("GET", "/schedules"), document(o.Schedules))


def schedule(id: str) -> Operation[o.Schedule]:
    """A schedule: when it is due, how it went so far."""
    return Operation(_of_schedule("GET", id), document(o.Schedule))


def put_schedule(id: str, task: str, **said: Any) -> Operation[o.Schedule]:
    """Make a schedule, or put this in place of what it is; `said`: what NewSchedule has."""
    body = body_of(made(o.NewSchedule, {"task": task, **said}))
    request = _of_schedule("PUT", id)._replace(body=body, headers=JSON_BODY)
    return Operation(request, document(o.Schedule))


def remove_schedule(id: str) -> Operation[None]:
    """Remove a schedule; runs that were enqueued go on."""
    return Operation(_of_schedule("DELETE", id), nothing, is_repeatable=False)


def trigger(id: str) -> Operation[o.Triggered]:
    """Enqueue a schedule's task now. Not sent again where it may have been."""
    return Operation(_of_schedule("POST", id, "trigger"), document(o.Triggered), False)


def pause_schedule(id: str) -> Operation[o.Schedule]:
    """Have nothing of a schedule fired until it is resumed."""
    return Operation(_of_schedule("POST", id, "pause"), document(o.Schedule))


def resume_schedule(id: str) -> Operation[o.Schedule]:
    """Let a paused schedule go on with its next time."""
    return Operation(_of_schedule("POST", id, "resume"), document(o.Schedule))


def _of_schedule(method: str, id: str, *word: str) -> Request:
    return Request(method, path("schedules", id, *word))
