"""Reads what became of tasks: one thread an App, however many wait.

The thread starts with the first question and ends when nobody has asked for a while.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from confluent_kafka import KafkaException

from taskmill.producer import answers
from taskmill.producer.answers import RESULT_S
from taskmill.producer.session import Session
from taskmill.producer.watch import Lying, ResultWatch, Seen, StateWatch, TaskWatch, Watch
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ClosedError, TaskmillError
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import Codec, check_id
from taskmill.schemas.models import TaskResult, TaskState

logger = logging.getLogger("taskmill.reader")

#: Without a question for so long, the consumers are closed.
IDLE_S = 30.0
#: Before another session goes on where one has failed.
RETRY_S = 0.5


class StateReader:
    """Answers what became of tasks, from the state topics. Thread-safe.

    Answers are futures: who waits no longer cancels, which forgets the question.
    """

    def __init__(self, settings: Settings, codec: Codec, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._codec = codec
        self._clock = clock
        self._lock = threading.Lock()
        #: None makes the thread look up.
        self._inbox: SimpleQueue[Watch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._session: Session | None = None
        self._closing = False
        self.address = bootstrap_servers(settings)

    @property
    def trouble(self) -> str:
        """What Kafka said last, while it does not answer; empty when all is well."""
        session = self._session
        return session.trouble if session is not None else ""

    def now_ms(self) -> int:
        """UTC wall time, by the App's clock."""
        return self._clock.now_ms()

    def newest(self, queue: str, task_id: str, since: int | None) -> Future[Seen | None]:
        """The newest state of a task, as of now; None where it has none.

        `since`: UTC milliseconds before which it cannot have one; None: look back as far as Kafka
        keeps states. Raises InvalidTaskId, ConfigError for a queue, ClosedError.
        """
        return self._watch(queue, task_id, since, until_end=False).future

    def end(self, queue: str, task_id: str, since: int | None) -> Future[Seen | None]:
        """The state that a task ends in, as soon as it has; arguments as for `newest`."""
        return self._watch(queue, task_id, since, until_end=True).future

    def large(self, queue: str, seen: Seen) -> Future[TaskResult | None]:
        """What was too large for the state `seen`; None where Kafka keeps it no longer."""
        topics = Topics(self._settings.prefix, queue)
        give_up_at = self._clock.monotonic() + RESULT_S
        watch = ResultWatch(topics, check_id(seen.state.id), seen, self._codec, give_up_at)
        self._submit(watch)
        return watch.future

    def task(self, queue: str, task_id: str, since: int | None) -> Future[Lying | None]:
        """The task itself, as it lies on `tasks`; None where it does not (any more)."""
        topics = Topics(self._settings.prefix, queue)
        watch = TaskWatch(topics, check_id(task_id), since, self._codec)
        self._submit(watch)
        return watch.future

    # ---- what handles ask (reads.py) ---------------------------------------------------------

    def state(self, queue: str, task_id: str, since: int | None) -> TaskState | None:
        return answers.state(self, queue, task_id, since)

    def queued(self, queue: str, task_id: str, since: int | None) -> TaskState | None:
        return answers.queued(self, queue, task_id, since)

    def outcome(
        self, queue: str, task_id: str, since: int | None, timeout: float | None
    ) -> TaskState:
        return answers.outcome(self, queue, task_id, since, timeout)

    async def aoutcome(
        self, queue: str, task_id: str, since: int | None, timeout: float | None
    ) -> TaskState:
        return await answers.aoutcome(self, queue, task_id, since, timeout)

    def close(self) -> None:
        """End the thread; who still waits gets a ClosedError."""
        with self._lock:
            self._closing = True
            thread = self._thread
            self._inbox.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _watch(self, queue: str, task_id: str, since: int | None, *, until_end: bool) -> StateWatch:
        topics = Topics(self._settings.prefix, queue)
        watch = StateWatch(topics, check_id(task_id), since, self._codec, until_end=until_end)
        self._submit(watch)
        return watch

    def _submit(self, watch: Watch) -> None:
        with self._lock:
            if self._closing:
                raise ClosedError("the App is closed; make a new one to go on")
            self._inbox.put(watch)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._main, name="taskmill-reader", daemon=True
                )
                self._thread.start()

    # ---- the thread --------------------------------------------------------------------------

    def _main(self) -> None:
        waiting: list[Watch] = []
        try:
            while self._serve(waiting):
                # The topic was deleted, or looks so to a broker that has just started.
                self._clock.sleep(RETRY_S)
        except TaskmillError as error:
            self._end(waiting, error)
        except Exception as error:
            logger.exception("the reader of task states failed")
            self._end(waiting, TaskmillError(f"the reader of task states failed: {error!r}"))

    def _serve(self, waiting: list[Watch]) -> bool:
        """One session. True where another one is to go on with those in `waiting`."""
        session = self._session = Session(self._settings, self._clock)
        for watch in waiting:
            watch.renew()
            session.add(watch)
        try:
            while self._take(session):
                session.step()
            return False
        except KafkaException as error:
            logger.warning("reading task states: %s; once more", error.args[0].str())
            return True
        finally:
            waiting[:] = session.watches
            if self._session is session:  # and not a new thread's
                self._session = None
            session.close()

    def _take(self, session: Session) -> bool:
        """Move new watches to the session; False where the thread is to end."""
        watch = self._next(wait=session.is_idle)
        while watch is not None:
            session.add(watch)
            watch = self._next(wait=False)
        if self._closing:
            self._end(session.watches, ClosedError("the App was closed meanwhile"))
            return False
        with self._lock:
            # Under the lock: either this thread takes a watch in, or another one is started.
            if session.is_idle and self._inbox.empty():
                self._thread = None
                return False
        return True

    def _next(self, *, wait: bool) -> Watch | None:
        try:
            return self._inbox.get(wait, IDLE_S if wait else None)
        except Empty:
            return None

    def _end(self, waiting: list[Watch], error: Exception) -> None:
        """Tell everybody who waits, and leave the next question to a new thread."""
        with self._lock:
            self._thread = None
            while (watch := self._next(wait=False)) is not None:
                watch.fail(error)
        for watch in waiting:
            watch.fail(error)
