"""The end of state partitions, as it grows: who waits is told, what came lately is kept.

A partition is followed from its end on, when first asked for; the past is the look-back's. What
was read is kept, up to a bound over all partitions, so that most questions need no look-back: for
each partition it is known from which time on everything is kept.
"""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from taskmill.producer.watch import StateWatch
from taskmill.runtime.kafka import is_fatal, taken

Place = tuple[str, int]

#: States kept, over all partitions; 512 bytes each at the most (10 MB), but for those of running
#: tasks that save something, which may hold 16 KiB.
KEPT = 20_000
#: Records taken from the client in one go: a few milliseconds of work.
_BATCH = 1_000
_NEVER = 1 << 62

#: What reading on does not cure, but looking the topic up again may.
_LASTING = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)


class FollowedPartition:
    """One partition: where reading began and stands, what is kept, and who waits."""

    __slots__ = ("kept_from", "kept_since", "position", "waiting", "watches")

    def __init__(self, start: int) -> None:
        #: The offset after the last record read.
        self.position = start
        #: All states from this offset, and from this time (UTC ms), are kept.
        self.kept_from = start
        self.kept_since = _NEVER
        self.watches: dict[bytes, list[StateWatch]] = {}
        #: Watches that wait for an offset to be reached.
        self.waiting: list[tuple[int, StateWatch]] = []


class Tail:
    """Follows the ends of partitions. Owned by one thread."""

    def __init__(self, consumer: Consumer, kept: int = KEPT) -> None:
        """`consumer` reads committed records and reports the ends of partitions."""
        self._consumer = consumer
        self._kept = kept
        self._recent: dict[tuple[str, int, bytes], Message] = {}
        self._parts: dict[Place, FollowedPartition] = {}

    def get(self, place: Place) -> FollowedPartition | None:
        """The partition, where it is followed."""
        return self._parts.get(place)

    def follow(self, place: Place, end: int) -> FollowedPartition:
        """Follow a partition from its last stable offset `end` on."""
        self._consumer.incremental_assign([TopicPartition(*place, end)])
        part = self._parts[place] = FollowedPartition(end)
        return part

    def recent(self, place: Place, key: bytes) -> Message | None:
        """The newest state of `key`, where it is kept."""
        return self._recent.get((*place, key))

    def watch(self, place: Place, watch: StateWatch, until: int | None) -> None:
        """Tell `watch` of its key's states, and when offset `until` is reached."""
        part = self._parts[place]
        part.watches.setdefault(watch.key, []).append(watch)
        if until is not None and until > part.position:
            part.waiting.append((until, watch))
        elif until is not None:
            watch.reached()

    def drop(self, place: Place, watch: StateWatch) -> None:
        """Tell it no more."""
        part = self._parts.get(place)
        watches = part.watches.get(watch.key, []) if part is not None else []
        if part is not None and watch in watches:
            watches.remove(watch)
            if not watches:
                del part.watches[watch.key]
            part.waiting = [(until, one) for until, one in part.waiting if one is not watch]

    def poll(self, timeout_s: float) -> int:
        """Take what has come, waiting for the first; returns how many records that were."""
        messages = taken(self._consumer, _BATCH, timeout_s)
        for message in messages:
            error = message.error()
            if error is None:
                self._take(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Its offset is past the markers of transactions, which are no records.
                part = self._parts[_place(message)]
                part.position = max(part.position, message.offset() or 0)
            else:
                raise_if_lasting(error)
        for part in self._parts.values():
            if part.waiting:
                _tell_reached(part)
        return len(messages)

    def _take(self, message: Message) -> None:
        place, key = _place(message), message.key() or b""
        part = self._parts[place]
        offset = message.offset()
        assert isinstance(offset, int), "a record has an offset"
        if part.kept_since == _NEVER:
            # Others of the same millisecond may lie before the place where reading began.
            part.kept_since = message.timestamp()[1] + 1
        part.position = offset + 1
        self._keep((*place, key), message)
        for watch in part.watches.get(key, ()):
            watch.offer_newest(message)

    def _keep(self, at: tuple[str, int, bytes], message: Message) -> None:
        recent = self._recent
        recent.pop(at, None)
        recent[at] = message
        if len(recent) > self._kept:
            oldest = next(iter(recent))
            gone = recent.pop(oldest)
            part = self._parts[oldest[0], oldest[1]]
            part.kept_from = max(part.kept_from, (gone.offset() or 0) + 1)
            part.kept_since = max(part.kept_since, gone.timestamp()[1] + 1)


def _place(message: Message) -> Place:
    topic, partition = message.topic(), message.partition()
    assert topic is not None, "a record has a place"
    assert partition is not None, "a record has a place"
    return topic, partition


def _tell_reached(part: FollowedPartition) -> None:
    still = []
    for until, watch in part.waiting:
        if part.position >= until:
            watch.reached()
        else:
            still.append((until, watch))
    part.waiting = still


def raise_if_lasting(error: KafkaError) -> None:
    """Raise KafkaException unless the client gets over `error` by itself."""
    if error.code() in _LASTING or is_fatal(error):
        raise KafkaException(error)
