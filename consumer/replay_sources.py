"""What a replay puts back: dead letters that a filter takes, or tasks that finished in a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from typing import NamedTuple

from confluent_kafka import Message

from taskmill.consumer.decode import headers_of
from taskmill.consumer.dlq import GENERATION
from taskmill.consumer.letters import Filter, Letter, Letters, Stretch
from taskmill.consumer.replay_journal import Job
from taskmill.consumer.replay_order import Move
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
    """The letters that `chosen` takes, in `stretches` as they were when somebody was asked. With
    `edited`, those alone, with these values."""

    what = "letters"

    def __init__(
        self,
        letters: Letters,
        chosen: Filter,
        stretches: list[Stretch],
        codec: Codec,
        edited: Mapping[Place, bytes] | None = None,
    ) -> None:
        self._letters = letters
        self._chosen = chosen
        self._stretches = stretches
        self._codec = codec
        self._edited = edited
        self.left: Counter[str] = Counter()

    def moves(self, job: Job) -> Generator[Move, None, None]:
        """Each letter that was not replayed yet, by this job or, unless the filter says otherwise,
        by another."""
        tasks = self._letters.topics.tasks
        count = self._letters.admin().queue_partitions(self._letters.topics)
        with closing(self._letters.scan(self._chosen, self._stretches)) as letters:
            for letter in letters:
                is_done = letter.replayed is not None and letter.replayed.replay == job.id
                if is_done or (self._edited is not None and letter.place not in self._edited):
                    continue
                topic = letter.told.get("original-topic")
                if letter.omitted is not None:
                    self.left["not whole"] += 1
                elif topic != tasks:
                    self.left[f"came from {topic}, not {tasks}"] += 1
                else:
                    yield self._move(letter, tasks, count)

    def _move(self, letter: Letter, topic: str, count: int) -> Move:
        generation, known = generation_of(letter, self._codec), _is_known(letter)
        if letter.key and known:
            generation = self._letters.replayed.next_generation(letter.key, generation)
        else:
            generation += 1
        if letter.key:
            p = partition_for(letter.key, count)
        else:
            p = _number(letter.told.get("original-partition")) % count
        value = (self._edited or {}).get(letter.place, letter.value)
        places = (letter.place,)
        return Move(topic, p, letter.key, value, letter.headers, generation, places, known)


def _is_known(letter: Letter) -> bool:
    """Whether it is of the task that its key says, as far as its worker could tell."""
    return letter.task is not None


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

    def survey(self, since: int, until: int, job: Job | None) -> Counter[tuple[str, Status]]:
        """How many there are of each name and status, but for what `job` has replayed."""
        self._letters.refresh()
        count = self._letters.admin().queue_partitions(self._letters.topics)
        found: Counter[tuple[str, Status]] = Counter()
        for p in range(count):
            finished = self._finished(p, count, since, until, job)
            found.update((one.name, one.status) for one in finished)
        return found

    def moves(self, job: Job) -> Generator[Move, None, None]:
        """Each of them that this job has not replayed yet."""
        assert job.since is not None, "a time is asked for"
        assert job.until is not None, "a time is asked for"
        self._letters.refresh()
        letters = self._letters_since(job.since)
        count = self._letters.admin().queue_partitions(self._letters.topics)
        for p in range(count):
            finished = self._finished(p, count, job.since, job.until, job)
            yield from self._put_back(p, count, finished, letters)

    def _finished(
        self, p: int, count: int, since: int, until: int, job: Job | None
    ) -> list[Finished]:
        topic = self._letters.topics.state
        admin = self._letters.admin()
        start, end = admin.offsets_at(topic, count, since - _SLACK_MS)[p], admin.ends(topic, count)
        newest: dict[bytes, TaskState] = {}
        if start is not None:
            for messages, _ in self._letters.reader.read(topic, p, start, end[p]):
                for message in messages:
                    self._fold(newest, message.key(), message.value())
        index = self._letters.replayed
        return [
            Finished(key, state.name, state.status, state.generation, state.source_offset)
            for key, state in newest.items()
            if is_terminal(state.status)
            and state.finished_at is not None
            and since <= state.finished_at < until
            and (not self._names or state.name in self._names)
            # Not what is on its way, and not what this very job has run again by now.
            and index.generations.get(key, 0) <= state.generation
            and (job is None or index.replays.get(key) != job.id)
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

    def _letters_since(self, since: int) -> dict[bytes, list[tuple[int, Place]]]:
        """The letters that count, of tasks that may have finished since: generation and place."""
        found: dict[bytes, list[tuple[int, Place]]] = {}
        for letter in self._letters.scan(Filter(since=since - _SLACK_MS)):
            if letter.key and _is_known(letter):
                one = generation_of(letter, self._codec), letter.place
                found.setdefault(letter.key, []).append(one)
        return found

    def _put_back(
        self,
        p: int,
        count: int,
        finished: list[Finished],
        letters: Mapping[bytes, list[tuple[int, Place]]],
    ) -> Generator[Move, None, None]:
        topic, admin = self._letters.topics.tasks, self._letters.admin()
        start, end = admin.starts(topic, count)[p], admin.ends(topic, count)[p]
        # After a migration their offsets are of the topic that was: then others lie there.
        wanted = {(one.offset, one.key): one for one in finished}
        offsets = [one.offset for one in finished if start <= one.offset < end]
        if offsets:
            stretch = self._letters.reader.read(topic, p, min(offsets), max(offsets) + 1)
            with closing(stretch) as batches:
                for messages, _ in batches:
                    for message in messages:
                        place = message.offset() or 0, message.key() or b""
                        if (one := wanted.pop(place, None)) is not None:
                            yield self._move(topic, p, message, one, letters)
        if wanted:
            self.left[f"no longer on {topic}"] += len(wanted)

    def _move(
        self,
        topic: str,
        p: int,
        message: Message,
        one: Finished,
        letters: Mapping[bytes, list[tuple[int, Place]]],
    ) -> Move:
        given = self._letters.replayed.next_generation(one.key, one.generation)
        died = letters.get(one.key, ())
        places = tuple(place for generation, place in died if generation <= one.generation)
        headers = headers_of(message) or ()
        return Move(topic, p, one.key, message.value(), headers, given, places)
