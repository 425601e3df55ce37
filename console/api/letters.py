"""`/dlq`: dead letters, one by one and in groups, and the replays that put them back."""

from __future__ import annotations

import base64
from functools import partial
from typing import Annotated, Any

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api import cursors, shown
from taskmill.console.api.access import caller_of
from taskmill.console.api.asked import GroupsOf, LettersOf, ReplaysOf
from taskmill.console.api.calls import body_of
from taskmill.console.api.look import queues_of
from taskmill.console.api.models import QueueName, TaskError, maybe, moment
from taskmill.console.api.operations import (
    Counted,
    LetterDetail,
    LetterGroup,
    LetterGroups,
    LetterPage,
    ReplayOrder,
    ReplayPreview,
)
from taskmill.console.api.operations import Replays as ReplayList
from taskmill.console.api.problems import Refused, field, of_error
from taskmill.console.api.replays import Ordered, Replays, Running
from taskmill.console.api.routes import BASE, answer
from taskmill.console.api.services import Services
from taskmill.console.api.words import Expression, moment_ms, seconds
from taskmill.console.store.rows import LetterCursor, LetterFilter, LetterRow
from taskmill.console.store.rows import LetterGroup as GroupRow
from taskmill.consumer.dlq import PREFIX
from taskmill.consumer.letter_stats import Stats
from taskmill.consumer.letters import Filter, Letter, Letters
from taskmill.consumer.replay_order import Order
from taskmill.consumer.replay_sources import LetterSource
from taskmill.runtime.errors import DecodeError, TaskmillError
from taskmill.schemas.codec import Codec

_LONGEST_WAIT_S = 24 * 3600.0
Place = Annotated[int, Path(ge=0, le=2**63 - 1)]


class DeadLetters:
    """Reads of letters, and replays."""

    def __init__(self, services: Services, replays: Replays) -> None:
        self._services = services
        self._replays = replays

    # ---- looking --------------------------------------------------------------------------------

    async def page(self, request: Request, asked: Annotated[LettersOf, Query()]) -> Response:
        """List dead letters, newest first."""
        reads = self._services.reads
        chosen = self._filter(request, asked)
        said = asked.model_dump(exclude={"cursor", "limit"})
        mark = cursors.mark_of("letters", sorted(said.items()))
        key = cursors.decode(asked.cursor, mark, (int, str, int, int))
        as_of = await reads.as_of()
        after = None if key is None else LetterCursor(*key)
        rows = await reads.ask(reads.store.letters, chosen, after, asked.limit + 1)
        more, rows = len(rows) > asked.limit, rows[: asked.limit]
        behind = None
        if more:
            last = rows[-1]
            place = (last.died_at, last.queue, last.partition, last.offset)
            behind = cursors.encode(mark, place)
        letters = [shown.letter(row) for row in rows]
        return answer(LetterPage(letters=letters, next=behind, as_of=moment(as_of)))

    async def groups(self, request: Request, asked: Annotated[GroupsOf, Query()]) -> Response:
        """Group dead letters by what failed, the largest group first."""
        reads = self._services.reads
        chosen = self._filter(request, asked)
        as_of = await reads.as_of()
        rows = await reads.ask(reads.store.letter_groups, chosen)
        return answer(LetterGroups(groups=[_group(row) for row in rows], as_of=moment(as_of)))

    async def one(
        self, request: Request, queue: QueueName, partition: Place, offset: Place
    ) -> Response:
        """Show a dead letter whole, as it lies on Kafka."""
        caller_of(request).check_queue(queue)
        reads = self._services.reads
        await reads.as_of()
        row = await reads.ask(reads.store.letter, queue, partition, offset)
        if row is None:
            raise Refused(
                "not-found",
                f"no dead letter at {queue}/{partition}/{offset}: there was none, or it is older "
                "than the 30 d for which they are kept",
            )
        self._services.brokers.check()
        return answer(await self._services.act(self._whole, row))

    def _whole(self, row: LetterRow) -> LetterDetail:
        place = Filter(partition=row.partition, offsets=(row.offset, row.offset), replayed_too=True)
        try:
            with Letters(self._services.settings, row.queue, self._services.clock) as letters:
                found = list(letters.scan(place, letters.stretches(place)))
        except TaskmillError as error:
            raise of_error(error) from None
        if not found:
            raise Refused("not-found", "the dead letter is no longer on Kafka")
        return _detail(row, found[0], self._services.codec)

    def _filter(self, request: Request, asked: GroupsOf) -> LetterFilter:
        now = self._services.clock.now_ms()
        return LetterFilter(
            queues=queues_of(asked.queue, caller_of(request)),
            names=tuple(asked.name),
            reasons=tuple(asked.reason),
            fingerprints=tuple(asked.fingerprint),
            error=asked.error,
            id=asked.id,
            since=moment_ms("since", asked.since, now),
            until=moment_ms("until", asked.until, now),
            replayed_too=asked.replayed,
        )

    # ---- replaying ------------------------------------------------------------------------------

    async def replay(self, request: Request) -> Response:
        """Put letters back on their queue, each once, as a new generation; in the background.

        `dry_run` answers 200 with what would be replayed. 409 names the replay of the queue that is
        under way.
        """
        order = await body_of(request, ReplayOrder)
        caller, services = caller_of(request), self._services
        caller.check_queue(order.queue)
        chosen = _chosen(order, services.clock.now_ms())
        wait_s = seconds("canary_wait", order.canary_wait, _LONGEST_WAIT_S, "invalid")
        services.brokers.check()
        await services.act(services.brokers.check_queue, order.queue)
        if order.queue not in services.brokers.queues:
            raise field("invalid", "queue", f"there is no queue {order.queue!r}")
        if order.dry_run:
            return answer(await services.act(self._preview, order, chosen))
        make = partial(_ordered, order, chosen, wait_s)
        running = await services.act(self._begin, order.queue, caller.name, make)
        document = running.document()
        where = f"{BASE}/dlq/replays/{document.id}?queue={document.queue}"
        return answer(document, 202, {"location": where})

    def _begin(self, queue: str, who: str, make: Any) -> Running:
        try:
            return self._replays.begin(queue, who, make)
        except TaskmillError as error:
            raise of_error(error) from None

    def _preview(self, order: ReplayOrder, chosen: Filter) -> ReplayPreview:
        try:
            with Letters(self._services.settings, order.queue, self._services.clock) as letters:
                stats = Stats(letters.scan(chosen))
        except TaskmillError as error:
            raise of_error(error) from None
        return ReplayPreview(
            queue=order.queue,
            matched=stats.count,
            would_replay=min(stats.count, order.limit or stats.count),
            fingerprints=[
                Counted(fingerprint=one.value, letters=one.letters, error=one.error)
                for one in stats.groups("fingerprint")[:1000]
            ],
        )

    async def replays(self, request: Request, asked: Annotated[ReplaysOf, Query()]) -> Response:
        """List the replays of a queue, by whomever, the newest first."""
        caller_of(request).check_queue(asked.queue)
        return answer(ReplayList(replays=await self._all(asked.queue)))

    async def one_replay(
        self, request: Request, id: str, asked: Annotated[ReplaysOf, Query()]
    ) -> Response:
        """Show how far a replay is, or what came of it."""
        caller_of(request).check_queue(asked.queue)
        running = self._replays.find(id)
        if running is not None and running.queue == asked.queue:
            return answer(running.document())
        for document in await self._all(asked.queue):
            if document.id == id:
                return answer(document)
        raise Refused("not-found", f"no replay {id!r:.80} of queue {asked.queue!r}")

    async def _all(self, queue: str) -> list[Any]:
        self._services.brokers.check()
        if queue not in self._services.brokers.queues:
            return []
        try:
            return await self._services.act(self._replays.all, queue)
        except TaskmillError as error:
            raise of_error(error) from None


def _chosen(order: ReplayOrder, now_ms: int) -> Filter:
    """The filter of an order. Raises Refused, which names the field."""
    since = moment_ms("since", order.since, now_ms, "invalid")
    until = moment_ms("until", order.until, now_ms, "invalid")
    if since is not None and until is not None and since >= until:
        raise field("invalid", "since", "is not before until")
    if order.offsets is not None and order.offsets[0] > order.offsets[1]:
        raise field("invalid", "offsets", "the first is behind the last")
    try:
        pattern = None if order.error is None else Expression(order.error)
    except ValueError as error:
        raise field("invalid", "error", f"is no regular expression: {error}") from None
    return Filter(
        names=tuple(order.name),
        reasons=tuple(order.reason),
        error=pattern,
        fingerprints=tuple(order.fingerprint),
        since=since,
        until=until,
        ids=tuple(order.id),
        partition=order.partition,
        offsets=order.offsets,
        replayed_too=order.replayed_too,
    )


def _ordered(
    order: ReplayOrder, chosen: Filter, wait_s: float, letters: Letters, codec: Codec
) -> Ordered:
    letters.refresh()
    # What comes later was not meant.
    stretches = letters.stretches(chosen)
    count = sum(1 for _ in letters.scan(chosen, stretches))
    # As the journal tells it again: by that it is known.
    asked = order.model_dump(mode="json", exclude_defaults=True, exclude={"dry_run"})
    return Ordered(
        Order(
            asked, chosen.since, chosen.until, order.limit, order.rate, order.canary,
            order.abort_above, wait_s,
        ),
        LetterSource(letters, chosen, stretches, codec),
        min(count, order.limit or count),
    )  # fmt: skip


def _group(row: GroupRow) -> LetterGroup:
    error = TaskError(type=row.error_type, message=row.example_message, fingerprint=row.fingerprint)
    return LetterGroup(
        queue=row.queue,
        fingerprint=row.fingerprint,
        letters=row.number,
        name=row.name,
        reason=row.reason,
        first=moment(row.first_at),
        last=moment(row.last_at),
        error=error,
    )


def _detail(row: LetterRow, letter: Letter, codec: Codec) -> LetterDetail:
    told = letter.told
    args = args_base64 = undecodable = value_base64 = None
    try:
        task = codec.decode_task(letter.value)
        args, args_base64 = shown.content(task.payload, task.content_type)
    except DecodeError as error:
        undecodable = str(error)
        value_base64 = base64.b64encode(letter.value or b"").decode("ascii")
    return LetterDetail(
        **shown.letter_fields(row),
        stack=told.get("error-stack"),
        original_topic=told.get("original-topic"),
        original_partition=_number(told.get("original-partition")),
        original_offset=_number(told.get("original-offset")),
        first_failure=maybe(_number(told.get("first-failure"))),
        last_failure=maybe(_number(told.get("last-failure"))),
        omitted=letter.omitted,
        headers={
            name: None if content is None else content.decode("utf-8", "backslashreplace")
            for name, content in letter.headers
            if name != f"{PREFIX}error-stack"
        },
        args=args,
        args_base64=args_base64,
        undecodable=undecodable,
        value_base64=value_base64,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
