"""Whether records lie in stretches of partitions, how many, and since when.

Offsets alone do not tell: the markers of transactions, and what was aborted, have offsets too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from taskmill.runtime.clock import Clock, Deadline

#: A stretch of so many offsets is read whole; of a longer one the first record only.
EXACT = 200
_WAIT_S = 0.1
#: Partitions whose leader does not answer are given up after this.
LOOK_S = 5.0


class Stretch(NamedTuple):
    """From `start` up to, not including, `end`."""

    topic: str
    partition: int
    start: int
    end: int


class Found(NamedTuple):
    """`records`: how many lie there, or, where not `is_exact`, how many may at the most;
    `first_at`: the broker's time of the first one (UTC ms); None: there is none, or it was not seen
    in time."""

    records: int
    is_exact: bool
    first_at: int | None


def look_into(
    consumer: Consumer, stretches: Iterable[Stretch], clock: Clock
) -> dict[tuple[str, int], Found]:
    """What lies in each of the stretches, one a partition. `consumer` is read_committed, tells ends
    of partitions, and has no other assignment. Raises KafkaException."""
    answer, left = {}, {}
    for one in stretches:
        if one.start >= one.end:
            answer[one.topic, one.partition] = Found(0, True, None)
        else:
            left[one.topic, one.partition] = one
    if not left:
        return answer
    consumer.assign([TopicPartition(one.topic, one.partition, one.start) for one in left.values()])
    seen = dict.fromkeys(left, Found(0, True, None))
    deadline = Deadline(LOOK_S, clock)
    try:
        while left and not deadline.over():
            for message in [*consumer.consume(1, _WAIT_S), *consumer.consume(EXACT, 0)]:
                place = message.topic() or "", message.partition() or 0
                stretch = left.get(place)
                if stretch is None:
                    continue
                error, offset = message.error(), message.offset() or 0
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if not error.retriable():
                        raise KafkaException(error)
                    continue
                if error is None and offset < stretch.end:
                    count, _, first_at = seen[place]
                    at = message.timestamp()[1] if first_at is None else first_at
                    seen[place] = Found(count + 1, True, at)
                    if stretch.end - stretch.start > EXACT:
                        seen[place] = Found(stretch.end - stretch.start, False, at)
                    elif offset + 1 < stretch.end:
                        continue
                answer[place] = seen[place]
                del left[place]
    finally:
        consumer.unassign()
    for place, stretch in left.items():
        answer[place] = Found(stretch.end - stretch.start, False, seen[place].first_at)
    return answer
