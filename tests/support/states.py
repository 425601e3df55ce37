"""Plays the worker's part towards readers: writes states and results as a worker commits them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Producer

from taskmill.runtime.config import Settings
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import JSON, TaskError, TaskResult, TaskState
from taskmill.schemas.states import Status


def make_state(task_id: str, status: Status = Status.SUCCEEDED, **fields: Any) -> TaskState:
    """A state of `task_id`, with what matters set by `fields`."""
    state = TaskState(
        id=task_id,
        name="add",
        queue="default",
        status=status,
        generation=0,
        seq=0,
        attempt=1,
        worker="w",
        enqueued_at=1,
        started_at=2,
        finished_at=3,
        next_attempt_at=None,
        result=b"3" if status is Status.SUCCEEDED else None,
        content_type=JSON if status is Status.SUCCEEDED else None,
        error=TaskError("ValueError", "no", "f") if status is Status.DEAD else None,
        source_partition=0,
        source_offset=0,
        large=None,
    )
    return state._replace(**fields)


class StateWriter:
    """A transactional producer of states and results."""

    def __init__(self, settings: Settings, queue: str = "default") -> None:
        self._topics = Topics(settings.prefix, queue)
        self._partitions = settings.partitions
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "transactional.id": f"{settings.prefix}-{queue}-states",
                "linger.ms": 0,
            }
        )
        self._producer.init_transactions(20)

    @contextmanager
    def transaction(self, *, commit: bool = True) -> Iterator[StateWriter]:
        """What is put inside becomes visible together, or (`commit=False`) not at all."""
        self._producer.begin_transaction()
        yield self
        self._producer.flush()
        if commit:
            self._producer.commit_transaction(20)
        else:
            self._producer.abort_transaction(20)

    def put(self, state: TaskState) -> None:
        """Write one state; call it inside a transaction."""
        self._produce(self._topics.state, state.id, CODEC.encode_state(state))

    def put_large(self, state: TaskState, result: bytes | None, message: str = "") -> None:
        """Write one state and, to the results topic, what is too large for it."""
        error = TaskError("ValueError", message, "f") if message else None
        large = TaskResult(
            state.id, state.generation, state.seq, result, JSON if result else None, error
        )
        self._produce(self._topics.results, state.id, CODEC.encode_result(large))
        self.put(state._replace(result=None, content_type=None, large=self._topics.results))

    def commit(self, *states: TaskState) -> None:
        """Write `states` in one transaction."""
        with self.transaction():
            for state in states:
                self.put(state)

    def _produce(self, topic: str, task_id: str, value: bytes) -> None:
        key = task_id.encode()
        self._producer.produce(topic, value, key, partition_for(key, self._partitions))
        self._producer.poll(0)
