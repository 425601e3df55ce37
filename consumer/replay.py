"""Replays: records are put on `tasks` once more, on purpose, each as a new generation.

A batch is one transaction: the records, and on `<prefix>.replayed.<queue>` that they were replayed
(consumer/replayed.py). That is also the checkpoint: whatever kills a replay, the next one skips
what was committed, so that each is replayed once. One replay a queue at a time (consumer/turn.py).
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import FENCED, Reader
from taskmill.consumer.dlq import GENERATION, OMITTED, PREFIX, REPLACED, REPLAY, REPLAYED_AT
from taskmill.consumer.outcome_watch import OutcomeWatch
from taskmill.consumer.record import Headers
from taskmill.consumer.replay_journal import (
    ABORTED,
    DONE,
    INTERRUPTED,
    RUNNING,
    Job,
    journal_topic,
    make_journal,
    read_jobs,
)
from taskmill.consumer.replayed import Place, Replayed, ReplayedIndex
from taskmill.consumer.transactions import Transactions
from taskmill.consumer.turn import Taken, Turn, myself
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.topics import Kind, Topics, ensure

#: What one transaction holds, at the most.
_BATCH, _BATCH_BYTES = 500, 8 * 1024 * 1024
#: The broker is waited for so long, at each transaction.
_PATIENCE_S = 60.0
_RETRY_S = 0.5
#: Between two looks at whether it still is our turn.
_LOOK_S = 1.0

#: Headers that a failure wrote and a record on `tasks` has not.
_OF_FAILURES = REPLACED | {*OMITTED, f"{PREFIX}task"}


class Move(NamedTuple):
    """A record that is to be put on `topic` [partition] again, as `generation`; `letters` are those
    that no longer count then."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    generation: int
    letters: tuple[Place, ...] = ()


class Source(Protocol):
    """What is to be replayed."""

    #: "letters" or "tasks".
    what: str
    #: What was meant, and could not be replayed, by why.
    left: Counter[str]

    def moves(self, job: Job) -> Iterator[Move]:
        """What has not been replayed yet."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a replay is asked to do. `asked`: the options of its command as JSON has them, for the
    journal, and to find the one that it goes on with; `since` and `until`: the times it means, UTC
    ms.

    `limit` counts records, `rate` is records a second; the first `canary` records are waited for,
    up to `canary_wait` seconds; where more than the share `abort_above` of them failed, it ends.
    """

    asked: dict[str, Any]
    since: int | None = None
    until: int | None = None
    limit: int | None = None
    rate: float | None = None
    canary: int | None = None
    abort_above: float = 0.2
    canary_wait: float = 600.0


class Progress(NamedTuple):
    """Where a replay stands: what it and those that it goes on with replayed; in words, what it
    waits for."""

    replayed: int
    waiting: str = ""


class Replay:
    """One replay of one queue, to be run once. `say` is told how it goes on.

    Raises Unreachable where Kafka does not answer, TaskmillError for what it refuses.
    """

    def __init__(
        self,
        settings: Settings,
        queue: str,
        index: ReplayedIndex,
        say: Callable[[Progress], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._settings = settings
        self._topics = Topics(settings.prefix, queue)
        self._index = index
        self._say = say
        self._clock = clock
        name = f"{settings.prefix}.replay.{queue}"
        #: Not that of the source, which is in the middle of something.
        self._reader = Reader(settings, name, f"replay of queue {queue!r}", clock)
        self._transactions = Transactions(settings, name, clock)
        self._turn = Turn(settings, name, journal_topic(settings.prefix), clock)
        #: Records of this job that are committed.
        self._done = 0

    def run(self, order: Order, source: Source) -> Job:
        """Replay what `source` finds; the job as it ended.

        One that was killed while it did the same is gone on with. Raises TaskmillError while
        another replays the same queue, and names it.
        """
        with ExitStack() as stack:
            stack.callback(self._reader.close)
            make_journal(self._settings, self._admin())
            ensure(self._settings, self._topics.queue, [Kind.REPLAYED], clock=self._clock)
            try:
                stack.enter_context(self._turn)
            except Taken as taken:
                raise TaskmillError(self._of_another(taken.who)) from None
            stack.callback(self._transactions.close)
            # From here on one that has lost its turn without knowing it can commit no more.
            self._settle(Deadline(_PATIENCE_S, self._clock))
            self._index.refresh(self._admin(), self._reader)
            return self._work(order, source, self._begin(order, source.what))

    # ---- its steps ----------------------------------------------------------------------------

    def _begin(self, order: Order, what: str) -> Job:
        """The job that is gone on with, or a new one, written down. That another one was not ended
        is noted, too: it was killed."""
        mine = None
        for job in self._jobs():
            if job.status == RUNNING and (job.what, job.asked) == (what, order.asked):
                mine = replace(job, who=myself())
                self._done = self._index.counts[job.id]
            elif job.status == RUNNING:
                self._note(replace(job, status=INTERRUPTED, replayed=self._index.counts[job.id]))
        if mine is None:
            now = self._clock.now_ms()
            stamp = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%S")
            name = f"{stamp}-{secrets.token_hex(2)}"
            queue, who = self._topics.queue, myself()
            mine = Job(name, queue, what, who, order.asked, now, order.since, order.until)
        self._note(mine)
        return mine

    def _work(self, order: Order, source: Source, job: Job) -> Job:
        left = None if order.limit is None else max(order.limit - self._done, 0)
        moves = islice(source.moves(job), left)
        if order.canary is not None and not job.canary:
            counts, why = self._try(order, job, list(islice(moves, order.canary)))
            job = replace(job, canary=counts)
            if why is not None:
                return self._end(job, ABORTED, source, why)
            self._note(job)
        for batch in self._paced(order, moves):
            self._put(job, batch)
        return self._end(job, DONE, source)

    def _try(self, order: Order, job: Job, moves: list[Move]) -> tuple[dict[str, int], str | None]:
        """Replay these and wait for what becomes of them: outcomes by status; in words, why that is
        not good enough."""
        with OutcomeWatch(self._settings, self._topics, self._clock) as watch:
            watch.expect(job.id, [(move.key, move.generation) for move in moves])
            for batch in self._paced(order, iter(moves)):
                self._put(job, batch)
            deadline = Deadline(order.canary_wait, self._clock)
            allowed = order.abort_above * len(moves)
            while watch.pending and watch.failed <= allowed and not deadline.over():
                self._turn.check()
                watch.poll(_LOOK_S)
                self._say(Progress(self._done, watch.told()))
        why = None
        if watch.failed > allowed:
            why = f"{watch.failed} of {len(moves)} canaries failed again"
        elif watch.pending:
            why = (
                f"{watch.pending} of {len(moves)} canaries have no outcome after "
                f"{order.canary_wait:g} s"
            )
        return watch.counts(), why

    def _paced(self, order: Order, moves: Iterator[Move]) -> Iterator[list[Move]]:
        """`moves` in batches, each when its time has come."""
        most = _BATCH if order.rate is None else max(1, min(_BATCH, int(order.rate)))
        due = self._clock.monotonic()
        for batch in _batches(moves, most):
            while (left := due - self._clock.monotonic()) > 0:
                self._turn.check()
                self._clock.sleep(min(left, _LOOK_S))
            yield batch
            if order.rate is not None:
                due += len(batch) / order.rate

    def _put(self, job: Job, batch: list[Move]) -> None:
        self._turn.check()
        now = self._clock.now_ms()
        records = [one for move in batch for one in self._records(job, move, now)]
        self._commit(records, job, len(batch))
        self._say(Progress(self._done))

    def _records(self, job: Job, move: Move, now: int) -> Iterator[dict[str, Any]]:
        """The record, and the one that says that it was replayed."""
        ours = {REPLAY: job.id, REPLAYED_AT: str(now), GENERATION: str(move.generation)}
        kept = [(n, v) for n, v in move.headers if n not in ours and n not in _OF_FAILURES]
        yield {
            "topic": move.topic,
            "partition": move.partition,
            "key": move.key,
            "value": move.value,
            "headers": kept + [(name, text.encode()) for name, text in ours.items()],
        }
        one = Replayed(job.id, now, move.generation)
        yield self._index.record(move.key, one, move.letters)

    def _end(self, job: Job, status: str, source: Source, why: str | None = None) -> Job:
        ended = replace(
            job,
            replayed=self._done,
            left=dict(source.left),
            status=status,
            why=why,
            ended_at=self._clock.now_ms(),
        )
        self._note(ended)
        return ended

    # ---- transactions -------------------------------------------------------------------------

    def _note(self, job: Job) -> None:
        """Write the job down. Twice is as good as once."""
        self._commit([job.record(self._settings.prefix)], job, 0)

    def _commit(self, records: list[dict[str, Any]], job: Job, count: int) -> None:
        """One transaction with `records`, of which `count` are replayed; done again where it is
        certain that it did not come to be."""
        deadline = Deadline(_PATIENCE_S, self._clock)
        while True:
            try:
                self._transactions.transact(records)
                break
            except (KafkaException, BufferError, TaskmillError) as error:
                self._judge(error, deadline)
            self._settle(deadline)
            self._index.refresh(self._admin(), self._reader)
            if count and self._index.counts[job.id] == self._done + count:
                break
        self._done += count

    def _settle(self, deadline: Deadline) -> None:
        """End the transaction that this, or the one before, may have left open."""
        while True:
            try:
                self._transactions.open()
                return
            except KafkaException as error:
                self._judge(error, deadline)
            self._clock.sleep(_RETRY_S)

    def _judge(self, error: Exception, deadline: Deadline) -> None:
        """Raise, unless it may be better soon."""
        cause = error.args[0] if isinstance(error, KafkaException) else None
        if isinstance(cause, KafkaError):
            if cause.code() in FENCED:
                raise TaskmillError("another replay took over; this one stops") from None
            if cause.code() in _REFUSED:
                raise TaskmillError(f"Kafka refused: {cause.str()} ({cause.name()})") from None
        self._turn.check()
        if deadline.over():
            where = bootstrap_servers(self._settings)
            told = cause.str() if isinstance(cause, KafkaError) else str(error)
            raise Unreachable(
                f"Kafka at {where} committed nothing for {_PATIENCE_S:g} s ({told}); the same "
                "command goes on where this one stopped"
            ) from None

    # ---- what they need -----------------------------------------------------------------------

    def _of_another(self, who: str) -> str:
        """Whose turn it is, and since when."""
        began = [j for j in self._jobs() if j.status == RUNNING and who.startswith(j.who)]
        since = ""
        if began:
            time = datetime.fromtimestamp(began[-1].began_at / 1000, UTC)
            since = f", since {time:%Y-%m-%d %H:%M:%S}Z (replay {began[-1].id})"
        return f"queue {self._topics.queue!r} is being replayed by {who}{since}: one at a time"

    def _jobs(self) -> list[Job]:
        return read_jobs(self._settings, self._admin(), self._reader, self._topics.queue)

    def _admin(self) -> Admin:
        return Admin(self._settings, clock=self._clock)


def _batches(moves: Iterator[Move], most: int) -> Iterator[list[Move]]:
    batch: list[Move] = []
    size = 0
    for move in moves:
        batch.append(move)
        size += len(move.value or b"")
        if len(batch) >= most or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
