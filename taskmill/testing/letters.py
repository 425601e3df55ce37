"""Dead letters in memory, and their replay."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterable
from typing import cast

from taskmill.consumer.admin import Admin
from taskmill.consumer.letters import Filter, Letter, Letters, Stretch
from taskmill.consumer.replay_journal import Job
from taskmill.consumer.replay_order import replay_records
from taskmill.consumer.replay_sources import LetterSource
from taskmill.consumer.replayed import ReplayedIndex
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import InvalidInput
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import Codec
from taskmill.testing.broker import MemoryBroker

WHO = "harness"


class _Admin:
    def queue_partitions(self, topics: Topics) -> int:
        return 1


class MemoryLetters(Letters):
    """The letters of one queue."""

    def __init__(
        self, broker: MemoryBroker, settings: Settings, queue: str, codec: Codec, clock: Clock
    ) -> None:
        self.topics = Topics(settings.prefix, queue)
        self.replayed = ReplayedIndex(self.topics.replayed, WHO)
        self._broker = broker
        self._codec = codec
        self._clock = clock
        self._reached = 0

    def close(self) -> None:
        """There is no client."""

    def admin(self) -> Admin:
        return cast(Admin, _Admin())

    def refresh(self) -> None:
        log = self._broker.log(self.topics.replayed)
        for message in log[self._reached :]:
            self.replayed.add(message.key(), message.value())
        self._reached = len(log)

    def stretches(self, chosen: Filter) -> list[Stretch]:
        return [Stretch(0, 0, len(self._broker.log(self.topics.dlq)))]

    def _read(self, stretch: Stretch) -> Generator[Letter, None, None]:
        for message in self._broker.log(self.topics.dlq)[stretch.start : stretch.end]:
            yield self._letter(message)

    def all(self) -> list[Letter]:
        """Those that count: not the replayed ones."""
        return list(self.scan(Filter()))

    def replay(self, chosen: Iterable[Letter]) -> int:
        """Put the tasks of these back on their queue; returns how many there were. Raises
        InvalidInput for one that was replayed before."""
        places = {letter.place for letter in chosen}
        if missing := places - {letter.place for letter in self.all()}:
            raise InvalidInput(
                f"no letter at {min(missing)} of queue {self.topics.queue!r} that was not replayed"
            )
        queue, now = self.topics.queue, self._clock.now_ms()
        job = Job(f"harness-{secrets.token_hex(4)}", queue, "letters", WHO, {}, now, None, None)
        everything = Filter()
        source = LetterSource(self, everything, self.stretches(everything), self._codec)
        moves = [move for move in source.moves(job) if places.issuperset(move.letters)]
        for move in moves:
            self._broker.write(replay_records(self.replayed, job.id, move, now))
        self.refresh()
        return len(moves)
