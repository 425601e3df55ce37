"""What a reader of states looks out for: one task's state, or one large result."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple, Protocol

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Task, TaskResult, TaskState
from taskmill.schemas.states import is_terminal

#: A result is appended in the transaction of its state, which may take ten seconds; the rest is
#: room for the clocks of two brokers.
_TRANSACTION_MS = 60_000


class Seen(NamedTuple):
    """A state as it was read. `appended_at`: the broker's UTC milliseconds, where it tells."""

    state: TaskState
    appended_at: int | None


class Lying(NamedTuple):
    """A task as it lies on `tasks`, and where."""

    task: Task
    partition: int
    offset: int


class Seeker(Protocol):
    """Somebody who wants the records of one key out of a partition's past."""

    @property
    def key(self) -> bytes: ...

    def offer(self, message: Message) -> None:
        """A record of the key, in order."""
        ...

    def looked_back(self) -> None:
        """The whole range was read."""
        ...


class StateWatch:
    """Looks out for the newest state of one task, or (`until_end`) for its end.

    `future` resolves to what was Seen, or None where there is no state at all. `since`: UTC
    milliseconds by the brokers' clocks before which the task has no state; None: not known.
    """

    __slots__ = (
        "_codec",
        "_has_looked_back",
        "_has_reached",
        "best",
        "future",
        "key",
        "since",
        "topic",
        "until_end",
    )

    def __init__(
        self, topics: Topics, key: bytes, since: int | None, codec: Codec, *, until_end: bool
    ) -> None:
        self.topic = topics.state
        self.key = key
        self.since = since
        self.until_end = until_end
        self.future: Future[Seen | None] = Future()
        self.best: Seen | None = None
        self._codec = codec
        self._has_looked_back = False
        self._has_reached = until_end

    def offer(self, message: Message) -> None:
        """A state of the task out of the past: newer ones may follow."""
        value = message.value()
        if value is None:
            return
        try:
            state = self._codec.decode_state(value)
        except TaskmillError as error:
            _settle(self.future, error=error)
            return
        if self.best is None or _is_newer(state, self.best.state):
            kind, milliseconds = message.timestamp()
            known = kind == TIMESTAMP_LOG_APPEND_TIME
            self.best = Seen(state, milliseconds if known else None)

    def offer_newest(self, message: Message) -> None:
        """The state of the task that lies last on its partition: an end is its end."""
        self.offer(message)
        if self._has_ended():
            _settle(self.future, self.best)

    def looked_back(self) -> None:
        self._has_looked_back = True
        self._answer()

    def renew(self) -> None:
        """All over again: another session goes on with it."""
        self._has_looked_back = False
        self._has_reached = self.until_end

    def reached(self) -> None:
        """All that was there when the question came has been read."""
        self._has_reached = True
        self._answer()

    def give_up(self) -> None:
        """There is no such topic, and so no state."""
        _settle(self.future, None)

    def fail(self, error: Exception) -> None:
        _settle(self.future, error=error)

    def _answer(self) -> None:
        if self._has_looked_back and (
            self._has_ended() or (self._has_reached and not self.until_end)
        ):
            _settle(self.future, self.best)

    def _has_ended(self) -> bool:
        return self.best is not None and is_terminal(self.best.state.status)


class ResultWatch:
    """Looks out for the large result, or error, of one attempt; None where it is no more."""

    __slots__ = ("_attempt", "_codec", "future", "give_up_at", "key", "missed", "since", "topic")

    #: Its topic came into being with the state's; without it, there is nothing to wait for.
    until_end = False

    def __init__(
        self, topics: Topics, key: bytes, seen: Seen, codec: Codec, give_up_at: float
    ) -> None:
        """`give_up_at`: monotonic seconds. Until then it may be about to become visible."""
        self.topic = topics.results
        self.key = key
        self.since = None if seen.appended_at is None else seen.appended_at - _TRANSACTION_MS
        self.future: Future[TaskResult | None] = Future()
        self.give_up_at = give_up_at
        #: It was not in the range that was read.
        self.missed = False
        self._attempt = (seen.state.generation, seen.state.seq)
        self._codec = codec

    def offer(self, message: Message) -> None:
        value = message.value()
        if value is None:
            return
        try:
            result = self._codec.decode_result(value)
        except TaskmillError as error:
            _settle(self.future, error=error)
            return
        if (result.generation, result.seq) == self._attempt:
            _settle(self.future, result)

    def renew(self) -> None:
        self.missed = False

    def looked_back(self) -> None:
        self.missed = not self.future.done()

    def give_up(self) -> None:
        """It is no more."""
        _settle(self.future, None)

    def fail(self, error: Exception) -> None:
        _settle(self.future, error=error)


class TaskWatch:
    """Looks for one task on `tasks`: the first of its ID, later ones are duplicates."""

    __slots__ = ("_codec", "_found", "future", "key", "since", "topic")

    until_end = False

    def __init__(self, topics: Topics, key: bytes, since: int | None, codec: Codec) -> None:
        self.topic = topics.tasks
        self.key = key
        self.since = since
        self.future: Future[Lying | None] = Future()
        self._found: Lying | None = None
        self._codec = codec

    def offer(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        try:
            task = self._codec.decode_task(message.value())
        except TaskmillError:
            return  # a worker will dead-letter it: it stands for no task
        if partition is not None and offset is not None and self._found is None:
            self._found = Lying(task, partition, offset)

    def renew(self) -> None:
        self._found = None

    def looked_back(self) -> None:
        _settle(self.future, self._found)

    def give_up(self) -> None:
        """There is no such topic, and so no task."""
        _settle(self.future, None)

    def fail(self, error: Exception) -> None:
        _settle(self.future, error=error)


Watch = StateWatch | ResultWatch | TaskWatch


def _settle(future: Future[Any], value: Any = None, error: Exception | None = None) -> None:
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except InvalidStateError:
        return  # settled before, or nobody waits any more


def _is_newer(state: TaskState, than: TaskState) -> bool:
    """By (generation, seq); at equal ones the later record, but an end is final."""
    ours, theirs = (state.generation, state.seq), (than.generation, than.seq)
    return ours > theirs or (ours == theirs and not is_terminal(than.status))
