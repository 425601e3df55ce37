"""Replays: records are put on `tasks` once more, on purpose, each as a new generation.

A batch is one transaction: the records, and on `<prefix>.replayed.<queue>` that they were replayed
(consumer/replayed.py). That is also the checkpoint: whatever kills a replay, the next one skips
what was committed, so that each is replayed once. One replay a queue at a time (consumer/turn.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import FENCED, Reader
from taskmill.consumer.letters import Letters
from taskmill.consumer.outcome_watch import OutcomeWatch
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
from taskmill.consumer.replay_order import Move, Order, Progress, Source, replay_records
from taskmill.consumer.replayed import ReplayedIndex
from taskmill.consumer.transactions import Transactions
from taskmill.consumer.turn import Taken, Turn, holders, myself
from taskmill.producer.tracing import resending
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.topic_table import max_task_record_bytes
from taskmill.runtime.topics import Kind, Topics, ensure

#: What one transaction holds, at the most.
_BATCH, _BATCH_BYTES = 500, 8 * 1024 * 1024
#: The broker is waited for so long, at each transaction.
_PATIENCE_S = 60.0
_RETRY_S = 0.5
#: Between two looks at whether it still is our turn.
_LOOK_S = 1.0

#: A job that was killed is gone on with for so long by the same command; later, the same words mean
#: another thing ("--since 1h").
_SAME_MS = 3_600_000
#: Clocks of a command and of the broker may differ by so much.
_SLACK_MS = 10 * 60 * 1000


class UnderWay(TaskmillError):
    """Another replays the same queue. `replay`: its ID, where that is known."""

    def __init__(self, text: str, replay: str | None) -> None:
        super().__init__(text)
        self.replay = replay


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
        began: Callable[[Job], None] = lambda job: None,
        by: str | None = None,
    ) -> None:
        """`began` is told of the job once it is this one's turn; `by`: for whom it is, for people;
        None: for this process's user."""
        self._began = began
        self._by = by
        self._settings = settings
        self._topics = Topics(settings.prefix, queue)
        self._index = index
        self._say = say
        self._clock = clock
        name = _group_of(settings, queue)
        #: Not that of the source, which is in the middle of something.
        self._reader = Reader(settings, name, f"replay of queue {queue!r}", clock)
        self._transactions = Transactions(settings, name, clock)
        self._turn = Turn(settings, name, journal_topic(settings.prefix), clock)
        #: Records of this job that are committed.
        self._done = 0

    def run(self, order: Order, source: Source) -> Job:
        """Replay what `source` finds; the job as it ended.

        One that was killed while it did the same is gone on with (`unfinished`). Raises
        UnderWay while another replays the same queue, and names it.
        """
        with ExitStack() as stack:
            stack.callback(self._reader.close)
            make_journal(self._settings, self._admin())
            ensure(self._settings, self._topics.queue, [Kind.REPLAYED], clock=self._clock)
            try:
                stack.enter_context(self._turn)
            except Taken as taken:
                raise self._of_another(taken.who) from None
            stack.callback(self._transactions.close)
            # From here on one that has lost its turn without knowing it can commit no more.
            self._settle(Deadline(_PATIENCE_S, self._clock))
            self._index.refresh(self._admin(), self._reader)
            job = self._begin(order, source.what)
            self._began(job)
            return self._work(order, source, job)

    # ---- its steps ----------------------------------------------------------------------------

    def _begin(self, order: Order, what: str) -> Job:
        """The job that is gone on with, or a new one, written down. That another one was not ended
        is noted, too: it was killed."""
        mine, now = None, self._clock.now_ms()
        for job in self._jobs():
            done = self._index.counts[job.id]
            if is_same(job, what, order.asked, now):
                mine, self._done = replace(job, who=myself(), by=self._by), done
            elif job.status == RUNNING:
                self._note(replace(job, status=INTERRUPTED, replayed=done))
        if mine is None:
            stamp = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%S")
            name = f"{stamp}-{secrets.token_hex(2)}"
            queue, who = self._topics.queue, myself()
            mine = Job(
                name, queue, what, who, order.asked, now, order.since, order.until, by=self._by
            )
        self._note(mine)
        return mine

    def _work(self, order: Order, source: Source, job: Job) -> Job:
        left = None if order.limit is None else max(order.limit - self._done, 0)
        # Closed here: it reads with a client that others close later.
        with closing(source.moves(job)) as found:
            moves = islice(self._fitting(found, source), left)
            if order.canary is not None and not job.canary:
                counts, why = self._try(order, job, moves)
                job = replace(job, canary=counts)
                if why is not None:
                    return self._end(job, ABORTED, source, why)
                self._note(job)
            for batch in self._paced(order, moves):
                self._put(job, batch)
        return self._end(job, DONE, source)

    def _fitting(self, moves: Iterator[Move], source: Source) -> Iterator[Move]:
        """Those that `tasks` takes, with our headers: one that it refuses would hold up all."""
        most = max_task_record_bytes(self._settings)
        for move in moves:
            if move.size <= most:
                yield move
            else:
                source.left[f"too large for {move.topic} with a replay's headers"] += 1

    def _try(
        self, order: Order, job: Job, moves: Iterator[Move]
    ) -> tuple[dict[str, int], str | None]:
        """Replay the canaries and wait for what becomes of them: outcomes by status; in words, why
        that is not good enough."""
        assert order.canary is not None, "there are canaries"
        # Of those that were replayed before it was killed, the outcomes may be there by now.
        canaries = self._index.pairs(self._admin(), self._reader, job.id)[: order.canary]
        since = job.began_at - _SLACK_MS if canaries else None
        with OutcomeWatch(self._settings, self._topics, since, self._clock) as watch:
            more = list(islice(moves, order.canary - len(canaries)))
            canaries += [(move.key, move.generation) for move in more]
            watch.expect(job.id, canaries)
            for batch in self._paced(order, iter(more)):
                self._put(job, batch)
            deadline = Deadline(order.canary_wait, self._clock)
            allowed = round(order.abort_above * len(canaries), 6)
            while watch.pending and watch.failed <= allowed and not deadline.over():
                self._turn.check()
                watch.poll(_LOOK_S)
                self._say(Progress(self._done, watch.told()))
        why = None
        if watch.failed > allowed:
            why = f"{watch.failed} of {len(canaries)} canaries failed again"
        elif watch.pending:
            why = (
                f"{watch.pending} of {len(canaries)} canaries have no outcome after "
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
                # What was not used up to now is not made up for.
                due = max(due, self._clock.monotonic() - _LOOK_S) + len(batch) / order.rate

    def _put(self, job: Job, batch: list[Move]) -> None:
        self._turn.check()
        now = self._clock.now_ms()
        records = [one for move in batch for one in replay_records(self._index, job.id, move, now)]
        with resending(self._topics.tasks, [move.headers for move in batch]):
            self._commit(records, job, len(batch))
        self._say(Progress(self._done))

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
            self._clock.sleep(_RETRY_S)
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

    def _of_another(self, who: str) -> UnderWay:
        """Whose turn it is, and since when."""
        began = [j for j in self._jobs() if j.status == RUNNING and who.startswith(f"{j.who} ")]
        since, id = "", None
        if began:
            id = began[-1].id
            time = datetime.fromtimestamp(began[-1].began_at / 1000, UTC)
            since = f", since {time:%Y-%m-%d %H:%M:%S}Z (replay {id})"
        queue = self._topics.queue
        return UnderWay(f"queue {queue!r} is being replayed by {who}{since}: one at a time", id)

    def _jobs(self) -> list[Job]:
        return read_jobs(self._settings, self._admin(), self._reader, self._topics.queue)

    def _admin(self) -> Admin:
        return Admin(self._settings, clock=self._clock)


def is_same(job: Job, what: str, asked: Mapping[str, Any], now_ms: int) -> bool:
    """Whether `job` was killed, a short time ago, while it did what is `asked` now."""
    is_recent = now_ms - job.began_at < _SAME_MS
    return job.status == RUNNING and is_recent and (job.what, job.asked) == (what, asked)


def unfinished(
    settings: Settings, letters: Letters, what: str, asked: Mapping[str, Any], clock: Clock
) -> Job | None:
    """The job that a replay of what is `asked` would go on with."""
    admin, reader, queue = letters.admin(), letters.reader, letters.topics.queue
    jobs = read_jobs(settings, admin, reader, queue)
    return next((job for job in jobs if is_same(job, what, asked, clock.now_ms())), None)


def known_jobs(settings: Settings, letters: Letters, clock: Clock) -> list[Job]:
    """The replays of the queue of `letters`, the first one first, each with what it has replayed by
    now; one whose process is gone is INTERRUPTED. Raises Unreachable, TaskmillError."""
    queue = letters.topics.queue
    jobs = read_jobs(settings, letters.admin(), letters.reader, queue)
    if all(job.status != RUNNING for job in jobs):
        return jobs
    letters.refresh()
    there = holders(settings, _group_of(settings, queue), clock)
    return [
        job if job.status != RUNNING else _as_it_stands(job, letters.replayed, there)
        for job in jobs
    ]


def _as_it_stands(job: Job, index: ReplayedIndex, there: list[str]) -> Job:
    is_alive = any(one.startswith(f"{job.who} ") for one in there)
    status = RUNNING if is_alive else INTERRUPTED
    return replace(job, status=status, replayed=index.counts[job.id])


def _group_of(settings: Settings, queue: str) -> str:
    return f"{settings.prefix}.replay.{queue}"


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
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)
