"""What becomes of a few records that are put on `tasks` from now on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Self

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from taskmill.consumer.admin import Admin
from taskmill.consumer.decode import headers_of
from taskmill.consumer.dlq import GENERATION, REPLAY
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.kafka import client_config, is_fatal, taken
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC, Codec
from taskmill.schemas.states import Status, is_terminal

_BATCH = 1_000


class OutcomeWatch:
    """Follows a queue's `state` and DLQ from `since` (UTC ms) on, or from where they end now.

    Of a record that cannot be read only its letter tells, which is known by its replay's name. Of
    two generations of an ID that were on their way at once the older may have no outcome, and ends
    with the newer one.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        since: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._topics = topics
        self._replay = ""
        url = settings.schema_registry_url
        self._codec = Codec(url) if url else CODEC
        self._expected: dict[bytes | None, list[int]] = {}
        self._ended: Counter[Status] = Counter()
        #: Those that are to be tried again, by key.
        self._retrying: set[bytes] = set()
        admin = Admin(settings, clock=clock)
        where = []
        for topic in (topics.state, topics.dlq):
            count = admin.partitions(topic) or 0
            ends = admin.ends(topic, count)
            starts = [None] * count if since is None else admin.offsets_at(topic, count, since)
            where += [
                TopicPartition(topic, p, end if start is None else start)
                for p, (start, end) in enumerate(zip(starts, ends, strict=True))
            ]
        self._consumer = Consumer(
            client_config(
                settings,
                "outcomes",
                clock=clock,
                group_id=f"{settings.prefix}.replay.{topics.queue}",
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
            )
        )
        self._consumer.assign(where)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()
        if self._codec is not CODEC:
            self._codec.close()

    def expect(self, replay: str, records: Iterable[tuple[bytes | None, int]]) -> None:
        """Wait for the outcome of each (key, generation), as replayed by `replay`."""
        self._replay = replay
        for key, generation in records:
            self._expected.setdefault(key, []).append(generation)

    @property
    def pending(self) -> int:
        """How many have no outcome yet."""
        return sum(map(len, self._expected.values()))

    @property
    def failed(self) -> int:
        """How many ended otherwise than well."""
        return self._ended.total() - self._ended[Status.SUCCEEDED]

    def counts(self) -> dict[str, int]:
        """How many ended how, and how many have not, by status."""
        told = {str(status): count for status, count in sorted(self._ended.items())}
        return {**told, **({"pending": self.pending} if self.pending else {})}

    def told(self) -> str:
        """The same for people."""
        said = ", ".join(f"{count} {status}" for status, count in self.counts().items())
        again = f" ({len(self._retrying)} to be tried again)" if self._retrying else ""
        return f"canaries: {said or 'none yet'}{again}"

    def poll(self, timeout_s: float) -> None:
        """Take what has come. Raises KafkaException where the client is of no use any more."""
        for message in taken(self._consumer, _BATCH, timeout_s):
            error = message.error()
            if error is not None:
                if is_fatal(error):
                    raise KafkaException(error)
            elif message.topic() == self._topics.dlq:
                self._see_letter(message)
            else:
                self._see_state(message)

    def _see_state(self, message: Message) -> None:
        key = message.key()
        if key not in self._expected:
            return
        try:
            state = self._codec.decode_state(message.value())
        except DecodeError:
            return  # of a newer version: its letter may tell
        if is_terminal(state.status):
            self._settle(key, state.generation, state.status)
        elif state.status is Status.RETRYING and state.generation in self._expected[key]:
            self._retrying.add(key or b"")

    def _see_letter(self, message: Message) -> None:
        headers = dict(headers_of(message) or ())
        key = message.key()
        generation = headers.get(GENERATION) or b""
        if headers.get(REPLAY) == self._replay.encode() and key in self._expected:
            self._settle(key, int(generation) if generation.isdigit() else 0, Status.DEAD)

    def _settle(self, key: bytes | None, generation: int, status: Status) -> None:
        waiting = [one for one in self._expected[key] if one > generation]
        settled = len(self._expected[key]) - len(waiting)
        if not settled:
            return
        if waiting:
            self._expected[key] = waiting
        else:
            del self._expected[key]
        self._ended[status] += settled
        self._retrying.discard(key or b"")
