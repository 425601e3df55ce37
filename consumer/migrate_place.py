"""Where each record of a queue belongs among N partitions, and which ones are left behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import Message

from taskmill.consumer.decode import headers_of
from taskmill.consumer.mark import read_mark
from taskmill.consumer.migrate_copy import Place
from taskmill.producer.routes import PARTITION_HEADER
from taskmill.runtime.errors import DecodeError, TaskmillError
from taskmill.runtime.partition import partition_for
from taskmill.schemas.codec import CODEC, Codec
from taskmill.schemas.states import TERMINAL

#: What the key starts with of a record known by its place, not by an ID (consumer/table.py).
_BY_PLACE = b"\xff"


def place_in_table(new: int, forgotten_ms: int) -> Place:
    """For `state` and `results`: by the key's hash, tombstones too, in the order they came.

    What was written before `forgotten_ms` is left: the broker could have deleted it. So are marks
    by place: those places go. (A younger mark of an ID lies behind its older ones, so nothing that
    was overtaken comes back.)
    """

    def place(message: Message) -> tuple[int, list[Any]] | None:
        key = message.key()
        if not key or key[:1] == _BY_PLACE or message.timestamp()[1] < forgotten_ms:
            return None
        return partition_for(key, new), _headers(message)

    return place


def place_task(new: int, settled: set[int]) -> Place:
    """For `tasks` [p]: by the key's hash; without a key it stays as near as it can.

    `settled` are the offsets of records that have no ID and are done: nothing else would tell.
    """

    def place(message: Message) -> tuple[int, list[Any]] | None:
        if message.offset() in settled:
            return None
        key = message.key()
        to = partition_for(key, new) if key else (message.partition() or 0) % new
        told = f"{to}/{new}".encode()
        headers = [(n, told if n == PARTITION_HEADER else v) for n, v in _headers(message)]
        return to, headers

    return place


def place_as_staged(new: int) -> Place:
    """From a staging topic: the same partition, once more compared with the key's."""

    def place(message: Message) -> tuple[int, list[Any]] | None:
        check_place(message, new)
        return message.partition() or 0, _headers(message)

    return place


def is_placed(message: Message, new: int) -> bool:
    """Whether it lies where its key belongs; one without a key does anywhere."""
    key = message.key()
    return not key or partition_for(key, new) == message.partition()


def check_place(message: Message, new: int) -> None:
    """Raise TaskmillError for a record on another partition than its key's."""
    if not is_placed(message, new):
        raise TaskmillError(
            f"{message.topic()} [{message.partition()}] has a record at {message.offset()} that "
            "belongs on another partition: nothing more is done, the staging topics are kept"
        )


class Settled:
    """The offsets on `tasks` [p], from `first` on, of records known by place that are done."""

    def __init__(self, first: int, codec: Codec = CODEC) -> None:
        self.offsets: set[int] = set()
        self._first = first
        self._codec = codec

    def note(self, messages: Iterable[Message]) -> None:
        """Look through records of `state` [p]."""
        for message in messages:
            key, value = message.key(), message.value()
            if key is None or key[:1] != _BY_PLACE:
                continue
            offset = int(key.rsplit(b"/", 1)[1])
            if offset < self._first:
                continue
            try:
                done = (
                    value is not None
                    and read_mark(value, 0, self._codec.decode_state).status in TERMINAL
                )
            except DecodeError:
                continue
            (self.offsets.add if done else self.offsets.discard)(offset)


def _headers(message: Message) -> list[Any]:
    return headers_of(message) or []
