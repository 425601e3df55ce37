"""Replays that this console runs, each on a thread of its own, one a queue at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from taskmill.console.api.models import maybe, moment
from taskmill.console.api.operations import Replay as Document
from taskmill.console.api.problems import Refused
from taskmill.consumer.letters import Letters
from taskmill.consumer.replay import Replay, UnderWay, known_jobs
from taskmill.consumer.replay_journal import RUNNING, Job
from taskmill.consumer.replay_order import Order, Progress, Source
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.schemas.codec import Codec

logger = logging.getLogger("taskmill.console")

#: Replays at once, and those that ended and are still told of with their total.
_MOST_RUNNING, _MOST_KEPT = 8, 200
#: A turn takes seconds; that of one who was killed until Kafka has forgotten it.
BEGIN_S = 28.0


class Ordered(NamedTuple):
    """What a replay is to do, and about how many records it is."""

    order: Order
    source: Source
    total: int | None


Make = Callable[[Letters, Codec], Ordered]


class Stopping(Exception):
    """The console ends: the replay is to be gone on with."""


class Running:
    """One replay under way, or ended. Its thread writes, any thread reads."""

    def __init__(self, queue: str, who: str) -> None:
        self.queue = queue
        self.who = who
        self.job: Job | None = None
        self.progress = Progress(0)
        self.total: int | None = None
        self.error: Exception | None = None
        self.has_begun = threading.Event()
        self.has_ended = threading.Event()

    def document(self) -> Document:
        """As it stands. To be asked once it has begun."""
        assert self.job is not None, "it has begun"
        status = self.job.status
        if self.error is not None:
            status = "interrupted" if isinstance(self.error, Stopping) else "failed"
        replayed = max(self.progress.replayed, self.job.replayed)
        waiting = self.progress.waiting if status == RUNNING else ""
        failed = None if self.error is None else str(self.error)
        told = document(self.job, replayed, self.total, waiting or None)
        return told.model_copy(update={"status": status, "why": self.job.why or failed})


class Replays:
    """The replays of this console."""

    def __init__(self, settings: Settings, codec: Codec, clock: Clock) -> None:
        self._settings = settings
        self._codec = codec
        self._clock = clock
        self._lock = threading.Lock()
        self._by_queue: dict[str, Running] = {}
        self._by_id: dict[str, Running] = {}
        self._ending = threading.Event()

    def begin(self, queue: str, who: str, make: Make) -> Running:
        """Begin one, and return once it is its turn. Blocks. Raises Refused: 409 while another
        replays the queue, 503; TaskmillError."""
        running = Running(queue, who)
        with self._lock:
            there = self._by_queue.get(queue)
            if there is not None:
                id = there.job.id if there.job is not None else None
                named = f"replay {id}" if id else "another one, which is about to begin"
                raise Refused(
                    "conflict",
                    f"queue {queue!r} is being replayed ({named}): one at a time",
                    replay=id,
                )
            if len(self._by_queue) >= _MOST_RUNNING:
                raise Refused("unavailable", f"{_MOST_RUNNING} replays are under way already")
            self._by_queue[queue] = running
        thread = threading.Thread(
            target=self._run, args=(running, make), name=f"taskmill-replay-{queue}", daemon=True
        )
        thread.start()
        if not running.has_begun.wait(BEGIN_S):
            raise Refused("unavailable", "Kafka takes long to give the replay its turn")
        if running.job is None:
            assert running.error is not None, "it ended before it began"
            raise self._refusal(running.error)
        return running

    def find(self, id: str) -> Running | None:
        """One that this console runs, or ran lately."""
        return self._by_id.get(id)

    def close(self) -> None:
        """Have all of them stop where they are."""
        self._ending.set()
        for running in tuple(self._by_queue.values()):
            running.has_ended.wait(5.0)

    def all(self, queue: str) -> list[Document]:
        """The replays that there were, by whomever, the newest first. Blocks."""
        with Letters(self._settings, queue, self._clock) as letters:
            jobs = known_jobs(self._settings, letters, self._clock)
        mine = self._by_id
        return [
            mine[job.id].document() if job.id in mine else document(job, job.replayed)
            for job in reversed(jobs)
        ]

    def _refusal(self, error: Exception) -> Exception:
        if isinstance(error, UnderWay):
            return Refused("conflict", str(error), replay=error.replay)
        if isinstance(error, Stopping):
            return Refused("unavailable", "the console ends")
        return error

    def _run(self, running: Running, make: Make) -> None:
        try:
            with (
                Letters(self._settings, running.queue, self._clock) as letters,
                closing(Codec(self._settings.schema_registry_url)) as codec,
            ):
                order, source, running.total = make(letters, codec)
                replay = Replay(
                    self._settings,
                    running.queue,
                    letters.replayed,
                    lambda progress: self._say(running, progress),
                    self._clock,
                    lambda job: self._begun(running, job),
                    running.who,
                )
                running.job = replay.run(order, source)
        except Exception as error:
            running.error = error
            if not isinstance(error, (TaskmillError, Stopping, Refused)):
                logger.exception("a replay of queue %s failed", running.queue)
        finally:
            with self._lock:
                del self._by_queue[running.queue]
            running.has_ended.set()
            running.has_begun.set()
        if running.job is not None:
            logger.info("replay %s: %s", running.job.id, running.document().status)

    def _begun(self, running: Running, job: Job) -> None:
        with self._lock:
            running.job = job
            self._by_id[job.id] = running
            while len(self._by_id) > _MOST_KEPT:
                self._by_id.pop(next(iter(self._by_id)))
        logger.info("replay %s of queue %s begins, for %s", job.id, running.queue, running.who)
        running.has_begun.set()

    def _say(self, running: Running, progress: Progress) -> None:
        running.progress = progress
        if self._ending.is_set():
            raise Stopping("the console ended; the same request goes on where it was")


def document(
    job: Job, replayed: int, total: int | None = None, waiting: str | None = None
) -> Document:
    """A replay of the journal as a document."""
    return Document(
        id=job.id,
        queue=job.queue,
        what=job.what,
        status=job.status,
        why=job.why,
        who=job.by or job.who,
        began_at=moment(job.began_at),
        ended_at=maybe(job.ended_at),
        replayed=replayed,
        total=total,
        waiting=waiting,
        left=job.left,
        canary=job.canary,
    )
