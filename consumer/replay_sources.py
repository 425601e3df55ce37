"""What a replay puts back: dead letters that a filter takes, or tasks that finished in a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from taskmill.consumer.decode import headers_of
from taskmill.consumer.dlq import GENERATION
from taskmill.consumer.letters import Filter, Letter, Letters
from taskmill.consumer.replay import Move
from taskmill.consumer.replay_journal import Job
from taskmill.consumer.replayed import Place
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.partition import partition_for
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import TaskState
from taskmill.schemas.states import Status, is_terminal

#: Clocks of workers and of the broker may differ by so much: states are looked for from that much
#: earlier on.
_SLACK_MS = 10 * 60 * 1000


class LetterSource:
    """The letters that `chosen` takes. `edited` are values that replace a letter's own."""

    what = "letters"

    def __init__(
        self,
        letters: Letters,
        chosen: Filter,
        codec: Codec,
        edited: Mapping[Place, bytes] | None = None,
    ) -> None:
        self._letters = letters
        self._chosen = chosen
        self._codec = codec
        self._edited = edited or {}
        self.left: Counter[str] = Counter()

    def moves(self, job: Job) -> Iterator[Move]:
        """Each letter that was not replayed yet, by this job or, unless the filter says otherwise,
        by another."""
        tasks = self._letters.topics.tasks
        count = self._letters.admin().queue_partitions(self._letters.topics)
        for letter in self._letters.scan(replace(self._chosen, since=job.since, until=job.until)):
            if letter.replayed is not None and letter.replayed.replay == job.id:
                continue
            topic = letter.told.get("original-topic")
            if letter.omitted is not None:
                self.left["not whole"] += 1
            elif topic != tasks:
                self.left[f"came from {topic}, not {tasks}"] += 1
            else:
                yield self._move(letter, tasks, count)

    def _move(self, letter: Letter, topic: str, count: int) -> Move:
        generation = generation_of(letter, self._codec)
        given = self._letters.replayed.next_generation(letter.key, generation)
        if letter.key:
            partition = partition_for(letter.key, count)
        else:
            partition = _number(letter.told.get("original-partition")) % count
        value = self._edited.get(letter.place, letter.value)
        return Move(topic, partition, letter.key, value, letter.headers, given, (letter.place,))


def generation_of(letter: Letter, codec: Codec) -> int:
    """The generation that died; 0 where nothing readable says otherwise."""
    told = letter.told.get(GENERATION.removeprefix("taskmill-"))
    if told is not None:
        return _number(told)
    try:
        return codec.decode_task(letter.value).generation
    except DecodeError:
        return 0


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


class Finished(NamedTuple):
    """A task that finished in the time asked for, as its newest state says."""

    key: bytes
    name: str
    status: Status
    generation: int
    offset: int


class FinishedSource:
    """The tasks whose newest outcome is of the job's time: read from `state`, put back from where
    they lie on `tasks`. With `names`, those of these names only."""

    what = "tasks"

    def __init__(self, letters: Letters, names: Iterable[str], codec: Codec) -> None:
        self._letters = letters
        self._names = frozenset(names)
        self._codec = codec
        self.left: Counter[str] = Counter()

    def survey(self, since: int, until: int) -> Counter[tuple[str, Status]]:
        """How many there are of each name and status; nothing is written."""
        self._letters.refresh()
        count = self._letters.admin().queue_partitions(self._letters.topics)
        found: Counter[tuple[str, Status]] = Counter()
        for p in range(count):
            found.update((one.name, one.status) for one in self._finished(p, count, since, until))
        return found

    def moves(self, job: Job) -> Iterator[Move]:
        """Each of them that was not replayed yet."""
        assert job.since is not None, "a time is asked for"
        assert job.until is not None, "a time is asked for"
        self._letters.refresh()
        count = self._letters.admin().queue_partitions(self._letters.topics)
        for p in range(count):
            finished = self._finished(p, count, job.since, job.until)
            letters = self._letters_of(finished, job.since)
            yield from self._put_back(p, count, {one.offset: one for one in finished}, letters)

    def _finished(self, p: int, count: int, since: int, until: int) -> list[Finished]:
        topic = self._letters.topics.state
        admin = self._letters.admin()
        start, end = admin.offsets_at(topic, count, since - _SLACK_MS)[p], admin.ends(topic, count)
        newest: dict[bytes, TaskState] = {}
        if start is not None:
            for messages, _ in self._letters.reader.read(topic, p, start, end[p]):
                for message in messages:
                    self._fold(newest, message.key(), message.value())
        given = self._letters.replayed.generations
        return [
            Finished(key, state.name, state.status, state.generation, state.source_offset)
            for key, state in newest.items()
            if is_terminal(state.status)
            and state.finished_at is not None
            and since <= state.finished_at < until
            and (not self._names or state.name in self._names)
            and given.get(key, 0) <= state.generation
        ]

    def _fold(self, newest: dict[bytes, TaskState], key: bytes | None, value: bytes | None) -> None:
        if key is None or value is None or key[:1] == b"\xff":
            return  # a tombstone, or of a record known by its place: that one is a letter's
        try:
            state = self._codec.decode_state(value)
        except DecodeError:
            return
        known = newest.get(key)
        if known is None or (state.generation, state.seq) >= (known.generation, known.seq):
            newest[key] = state

    def _letters_of(self, finished: list[Finished], since: int) -> dict[bytes, list[Place]]:
        """Their letters, which count no more once they are replayed."""
        dead = {one.key: one.generation for one in finished if one.status is not Status.SUCCEEDED}
        found: dict[bytes, list[Place]] = {}
        if dead:
            for letter in self._letters.scan(Filter(since=since - _SLACK_MS)):
                key = letter.key
                if key in dead and generation_of(letter, self._codec) <= dead[key]:
                    found.setdefault(key, []).append(letter.place)
        return found

    def _put_back(
        self,
        p: int,
        count: int,
        wanted: dict[int, Finished],
        letters: Mapping[bytes, list[Place]],
    ) -> Iterator[Move]:
        topic = self._letters.topics.tasks
        start, gone = self._letters.admin().starts(topic, count)[p], dict(wanted)
        offsets = [offset for offset in wanted if offset >= start]
        if offsets:
            for messages, _ in self._letters.reader.read(topic, p, min(offsets), max(offsets) + 1):
                for message in messages:
                    one = wanted.get(message.offset() or 0)
                    if one is None or one.key != message.key():
                        continue
                    del gone[one.offset]
                    given = self._letters.replayed.next_generation(one.key, one.generation)
                    headers = headers_of(message) or ()
                    places = tuple(letters.get(one.key, ()))
                    yield Move(topic, p, one.key, message.value(), headers, given, places)
        if gone:
            self.left[f"no longer on {topic}"] += len(gone)
