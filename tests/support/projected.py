"""What a store should hold: a plain fold of records, written apart from the projection's, and a
dump of a store in the same form."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from taskmill.console.store.rows import TaskCursor, TaskFilter, TaskRow
from taskmill.console.store.store import Store
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import Task, TaskResult, TaskState
from taskmill.schemas.states import TERMINAL, Status


class Seen(NamedTuple):
    """A record, and when and where it was read."""

    record: Task | TaskState | TaskResult
    time: int
    offset: int
    partition: int = 0


class Picture(NamedTuple):
    """What a store says of a queue, by ID; minutes as (name, minute, outcome) -> (number, runs,
    ms of runs, waits, ms of waits)."""

    tasks: dict[str, tuple[Any, ...]]
    attempts: dict[str, list[tuple[Any, ...]]]
    counts: dict[tuple[str, str], int]
    minutes: dict[tuple[str, int, str], tuple[int, ...]]


def _place(seen: Seen) -> tuple[int, ...]:
    """Among records of one (generation, seq): the greatest is the one that holds."""
    if isinstance(seen.record, Task):
        return (0, -seen.time, -seen.offset)
    status = seen.record.status
    rank = 4 if status in TERMINAL else {Status.QUEUED: 1, Status.RUNNING: 2}.get(status, 3)
    return (rank, seen.time, seen.offset)


def _told(seen: Seen) -> tuple[Any, ...]:
    """status, attempt, enqueued_at, started_at, finished_at, error, updated_at."""
    one = seen.record
    if isinstance(one, Task):
        return ("queued", one.attempt, one.enqueued_at, None, None, None, seen.time)
    assert isinstance(one, TaskState)
    error = one.error.message if one.error else None
    times = (one.enqueued_at, one.started_at, one.finished_at)
    return (one.status.value, one.attempt, *times, error, seen.time)


def expected(records: Iterable[Seen]) -> Picture:
    """The fold."""
    pairs: dict[str, dict[tuple[int, int], Seen]] = defaultdict(dict)
    given: dict[str, Seen] = {}
    large: dict[str, Seen] = {}
    for seen in records:
        one = seen.record
        if isinstance(one, TaskResult):
            old = large.get(one.id)
            if old is None or _age(seen) > _age(old):
                large[one.id] = seen
            continue
        best = pairs[one.id].get((one.generation, one.seq))
        if best is None or _place(seen) > _place(best):
            pairs[one.id][one.generation, one.seq] = seen
        if isinstance(one, Task):
            first = given.get(one.id)
            if first is None or _order(seen) < _order(first):
                given[one.id] = seen
    tasks, attempts, minutes = {}, {}, defaultdict(lambda: [0] * 5)
    counts: Counter[tuple[str, str]] = Counter()
    for id_, known in pairs.items():
        top = max(known)
        newest = known[top].record
        payload = given[id_].record.payload if id_ in given else None
        result = newest.result if isinstance(newest, TaskState) else None
        if isinstance(newest, TaskState) and newest.large and id_ in large:
            aside = large[id_].record
            if (aside.generation, aside.seq) == top and aside.result is not None:
                result = aside.result
        tasks[id_] = (*top, newest.name, *_told(known[top]), payload, result)
        counts[newest.name, _told(known[top])[0]] += 1
        rest = ((p, s) for p, s in sorted(known.items()) if p != top)
        attempts[id_] = [(*p, *_told(s)) for p, s in rest if not isinstance(s.record, Task)]
        for seen in known.values():
            _count(minutes, seen)
    sums = {where: tuple(one) for where, one in minutes.items()}
    return Picture(tasks, {i: a for i, a in attempts.items() if a}, dict(counts), sums)


def _age(seen: Seen) -> tuple[int, ...]:
    assert not isinstance(seen.record, TaskState)
    return (seen.record.generation, seen.record.seq, seen.time, seen.offset)


def _order(seen: Seen) -> tuple[int, ...]:
    assert isinstance(seen.record, Task)
    return (-seen.record.generation, seen.record.seq, seen.time, seen.offset)


def _count(minutes: dict[tuple[str, int, str], list[int]], seen: Seen) -> None:
    one = seen.record
    if not isinstance(one, TaskState) or one.status not in {*TERMINAL, Status.RETRYING}:
        return
    at = one.finished_at
    if at is None or abs(at - seen.time) > 86_400_000:
        at = seen.time
    sums = minutes[one.name, at // 60_000 * 60_000, one.status.value]
    sums[0] += 1
    if one.started_at is not None and one.finished_at is not None:
        sums[1] += 1
        sums[2] += max(one.finished_at - one.started_at, 0)
    if one.started_at is not None and one.seq == 0 and one.attempt <= 1:
        sums[3] += 1
        sums[4] += max(one.started_at - one.enqueued_at, 0)


def picture(store: Store, queue: str = "default") -> Picture:
    """What `store` says of a queue."""
    tasks, attempts, after = {}, {}, None
    while page := store.tasks(TaskFilter(queues=(queue,)), after, 500):
        for row in page:
            whole = store.task(queue, row.id)
            assert whole is not None
            assert whole._replace(result=None, payload=None, stack=None)[:15] == row[:15]
            times = (whole.enqueued_at, whole.started_at, whole.finished_at)
            told = (whole.status.value, whole.attempt, *times, whole.error_message)
            tasks[row.id] = (
                *(whole.generation, whole.seq, whole.name, *told, whole.updated_at),
                *(whole.payload, whole.result),
            )
            past = [
                (
                    *(a.generation, a.seq, a.status.value, a.attempt),
                    *(a.enqueued_at, a.started_at, a.finished_at, a.error_message, a.updated_at),
                )
                for a in store.attempts(queue, row.id)
            ]
            if past:
                attempts[row.id] = past
        after = cursor_of(page[-1])
    counts = {(r.name, r.status.value): r.number for r in store.counts() if r.queue == queue}
    minutes = {}
    for m in store.minutes(-(2**62), 2**62):
        if m.queue == queue:
            assert sum(m.run_buckets) == m.runs
            assert sum(m.wait_buckets) == m.waits
            sums = (m.number, m.runs, m.run_ms, m.waits, m.wait_ms)
            minutes[m.name, m.minute, m.outcome.value] = sums
    return Picture(tasks, attempts, counts, minutes)


def cursor_of(row: TaskRow) -> TaskCursor:
    """Where the page behind `row` begins."""
    return TaskCursor(row.enqueued_at, row.queue, row.id)


def records_of(settings: Settings, queue: str = "default") -> list[Seen]:
    """All committed records of a queue's tasks, states and results, by a plain consumer; what is
    none is left out."""
    topics = Topics(settings.prefix, queue)
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": f"{settings.prefix}-fold",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    decode = {
        topics.tasks: CODEC.decode_task,
        topics.state: CODEC.decode_state,
        topics.results: CODEC.decode_result,
    }
    known = consumer.list_topics(timeout=20).topics
    parts = [TopicPartition(t, p, 0) for t in decode for p in known[t].partitions]
    consumer.assign(parts)
    found, ended = [], set()
    while len(ended) < len(parts):
        for message in consumer.consume(1000, 0.2):
            where = (message.topic(), message.partition())
            if message.error() is not None:
                ended.add(where)
                continue
            record: Any
            try:
                record = decode[message.topic()](message.value())
            except ValueError:
                continue
            for name, content in message.headers() or []:
                if name == "taskmill-generation":
                    record = record._replace(generation=int(content))
                elif name in {"taskmill-seq", "taskmill-attempt"}:
                    record = record._replace(**{name.removeprefix("taskmill-"): int(content)})
            at = message.timestamp()[1]
            found.append(Seen(record, at, message.offset(), message.partition()))
    consumer.close()
    return found
