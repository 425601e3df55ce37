"""What a replay of one finished task puts back: its record, from where it lies on `tasks`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing

from taskmill.console.store.rows import TaskRow
from taskmill.consumer.decode import headers_of
from taskmill.consumer.letters import Letters
from taskmill.consumer.replay_journal import Job
from taskmill.consumer.replay_order import Move
from taskmill.consumer.replayed import Place


class OneTask:
    """The task of `row`; `letters` are those of its deaths, which no longer count then."""

    what = "tasks"

    def __init__(self, letters: Letters, row: TaskRow, places: Sequence[Place]) -> None:
        self._letters = letters
        self._row = row
        self._places = tuple(places)
        self.left: Counter[str] = Counter()
        #: As which it runs again; None before, and where it does not.
        self.generation: int | None = None

    def moves(self, job: Job) -> Generator[Move, None, None]:
        """It, unless it is on its way or no longer there."""
        self._letters.refresh()
        row, index = self._row, self._letters.replayed
        topic, admin = self._letters.topics.tasks, self._letters.admin()
        key = row.id.encode()
        if index.generations.get(key, 0) > row.generation:
            self.left["on its way already"] += 1
            return
        count = admin.queue_partitions(self._letters.topics)
        p, offset = row.partition, row.offset
        if p < count and admin.starts(topic, count)[p] <= offset < admin.ends(topic, count)[p]:
            with closing(self._letters.reader.read(topic, p, offset, offset + 1)) as batches:
                for messages, _ in batches:
                    for message in messages:
                        # After a migration another one lies there.
                        if message.offset() == offset and message.key() == key:
                            headers = headers_of(message) or ()
                            self.generation = index.next_generation(key, row.generation)
                            yield Move(
                                topic, p, key, message.value(), headers, self.generation,
                                self._places,
                            )  # fmt: skip
                            return
        self.left[f"no longer on {topic}"] += 1
