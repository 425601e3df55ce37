"""What a migration would move: everything read and counted, nothing written."""

from __future__ import annotations

from dataclasses import dataclass

from taskmill.consumer.bounded import Reader
from taskmill.consumer.migrate_journal import Phase
from taskmill.consumer.migrate_place import Settled, place_in_table, place_task
from taskmill.consumer.migrate_steps import MOVED, Scene
from taskmill.runtime.topics import Kind


@dataclass(slots=True)
class SurveyRow:
    """One topic: records to be moved, their bytes (keys and values, not compressed), and how many
    the new partition with the fewest and the one with the most of them gets."""

    topic: str
    records: int
    bytes: int
    fewest: int
    most: int


@dataclass(slots=True)
class Survey:
    """A queue before its migration; `phase` and `under_way_to` of one that was begun."""

    queue: str
    old: int
    new: int
    workers: list[str]
    phase: Phase | None
    under_way_to: int | None
    topics: list[SurveyRow]


def survey_topics(
    scene: Scene, reader: Reader, old: int, new: int, committed: list[int | None], now_ms: int
) -> list[SurveyRow]:
    """Read the queue's topics of `old` partitions, and place every record among `new`."""
    settled = [Settled(offset or 0, scene.codec) for offset in committed]
    rows = []
    for kind in MOVED:
        name = scene.topics.name(kind)
        spread, size = [0] * new, 0
        starts, ends = scene.admin().starts(name, old), scene.admin().ends(name, old)
        kept_ms = int(scene.admin().own_configs(name).get("retention.ms", "-1"))
        for p in range(old):
            if kind is Kind.TASKS:
                place = place_task(new, settled[p].offsets)
                starts[p] = max(starts[p], committed[p] or 0)
            else:
                place = place_in_table(new, now_ms - kept_ms if kept_ms >= 0 else 0)
            for messages, _ in reader.read(name, p, starts[p], ends[p]):
                if kind is Kind.STATE:
                    settled[p].note(messages)
                for message in messages:
                    placed = place(message)
                    if placed is not None:
                        spread[placed[0]] += 1
                        size += len(message.key() or b"") + len(message.value() or b"")
        rows.append(SurveyRow(name, sum(spread), size, min(spread), max(spread)))
    return rows
