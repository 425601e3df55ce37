"""Topics to restore from, written by transactions; and waiting for what a restore does or says."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from taskmill.runtime.changelog import Change, Changelog
from taskmill.runtime.config import Settings
from taskmill.runtime.store import Put

T = TypeVar("T")


def never() -> bool:
    return False


def as_they_are(changes: Sequence[Change]) -> list[Put]:
    """Puts of a topic whose values are the store's values."""
    return [(key, value) for key, value, _ in changes]


class Topic:
    """A compacted topic of a test, and one transactional writer to it."""

    def __init__(self, settings: Settings, *, timeout_ms: int = 30_000, **config: str) -> None:
        self.name = f"{settings.prefix}.log.{uuid.uuid4().hex[:6]}"
        self._bootstrap = str(settings.bootstrap_servers)
        self.admin = AdminClient({"bootstrap.servers": self._bootstrap})
        self._config = {
            "cleanup.policy": "compact",
            "message.timestamp.type": "LogAppendTime",
            **{name.replace("_", "."): value for name, value in config.items()},
        }
        self.create()
        self.writer = self.new_writer(timeout_ms)

    def new_writer(self, timeout_ms: int = 30_000) -> Producer:
        writer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "transactional.id": f"{self.name}.{uuid.uuid4().hex[:6]}",
                "transaction.timeout.ms": timeout_ms,
                "linger.ms": 0,
                "retry.backoff.ms": 5,
            }
        )
        writer.init_transactions(20)
        return writer

    def create(self) -> None:
        topic = NewTopic(self.name, 2, 1, config=self._config)
        self.admin.create_topics([topic])[self.name].result(timeout=20)

    def delete(self) -> None:
        self.admin.delete_topics([self.name], operation_timeout=20)[self.name].result(timeout=20)

    def begin(
        self, *keys: str, value: str | None = "v", partition: int = 0, by: Producer | None = None
    ) -> Producer:
        """Open a transaction and put `keys` on the broker."""
        writer = by or self.writer
        writer.begin_transaction()
        for key in keys:
            data = None if value is None else value.encode()
            writer.produce(self.name, key=key.encode(), value=data, partition=partition)
        assert writer.flush(20) == 0
        return writer

    def commit(self, *keys: str, value: str | None = "v", partition: int = 0) -> None:
        self.begin(*keys, value=value, partition=partition).commit_transaction(20)

    def settled(self, changelog: Changelog, end: int, partition: int = 0) -> None:
        """Wait for markers: they are written a moment after a transaction was answered."""
        while changelog.end_offset(self.name, partition, stop=never) < end:
            pass
        assert changelog.end_offset(self.name, partition, stop=never) == end

    def abort(self, *keys: str, value: str | None = "v") -> None:
        self.begin(*keys, value=value).abort_transaction(20)


class Background:
    """A thread for work that waits, until `stop` at the latest."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._pool.shutdown()

    def do(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Start `work(*arguments, stop=…)`."""
        return self._pool.submit(work, *arguments, stop=self.stop.is_set)


class Heard(logging.Handler):
    """Set once a line that contains `text` was logged."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.happened = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.lines.append(record.getMessage())
            self.happened.set()


class CleanerAtOnce:
    """The broker looks for something to compact ten times a second, not every 15 s."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    def _set(self, operation: AlterConfigOpType) -> None:
        entry = ConfigEntry("log.cleaner.backoff.ms", "100", incremental_operation=operation)
        for number in self._admin.list_topics(timeout=20).brokers:
            broker = ConfigResource(
                ConfigResource.Type.BROKER, str(number), incremental_configs=[entry]
            )
            for answer in self._admin.incremental_alter_configs([broker]).values():
                answer.result(timeout=20)

    def __enter__(self) -> None:
        self._set(AlterConfigOpType.SET)

    def __exit__(self, *_: object) -> None:
        self._set(AlterConfigOpType.DELETE)
