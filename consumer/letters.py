"""Dead letters as people look at them: what each says of itself, filters, and which still count."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, Self

from confluent_kafka import Message

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import Reader
from taskmill.consumer.decode import headers_of
from taskmill.consumer.dlq import OMITTED, PREFIX
from taskmill.consumer.record import Headers
from taskmill.consumer.replayed import Place, Replayed, ReplayedIndex
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics


@dataclass(frozen=True, eq=False)
class Letter:
    """One record of the DLQ. `at`: when it was written, UTC ms by the broker's clock; `told`: what
    its headers of ours say, by name without `taskmill-`; `replayed`: how it was replayed last."""

    place: Place
    at: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    replayed: Replayed | None = None

    @cached_property
    def told(self) -> Mapping[str, str]:
        return {
            name.removeprefix(PREFIX): (content or b"").decode("utf-8", "replace")
            for name, content in self.headers
            if name.startswith(PREFIX)
        }

    @property
    def id(self) -> str | None:
        """The ID of its task; None where it has no key. What is not UTF-8 is escaped."""
        return None if self.key is None else self.key.decode("utf-8", "backslashreplace")

    @property
    def task(self) -> str | None:
        """The name of its task; None where its bytes could not be read."""
        return self.told.get("task")

    @property
    def reason(self) -> str:
        """Why it is here: a value of `Reason`."""
        return self.told.get("reason", "unknown")

    @property
    def error(self) -> str:
        """`Type: message` of the last failure."""
        return f"{self.told.get('error-type', '?')}: {self.told.get('error-message', '')}"

    @property
    def fingerprint(self) -> str:
        """Equal for equal failures."""
        return self.told.get("error-fingerprint", "")

    @property
    def omitted(self) -> str | None:
        """What of the original it does not hold, and where that lies; None: it holds all."""
        names = [name.removeprefix(PREFIX) for name in OMITTED]
        gone = [name.removesuffix("-omitted") for name in names if name in self.told]
        if not gone:
            return None
        return (
            f"its {' and '.join(gone)} did not fit, and lie at "
            f"{self.told.get('original-topic')} [{self.told.get('original-partition')}] "
            f"offset {self.told.get('original-offset')}"
        )


class Expression(Protocol):
    """A regular expression, `re.compile`'s or another's."""

    def search(self, text: str, /) -> object | None:
        """What it finds anywhere in `text`; None: nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: those that all of it takes. Empty, it takes those that count.

    `since` and `until` are UTC ms, the latter excluded; `offsets` are the first and the last;
    `fingerprints` may be beginnings; `replayed_too` takes letters that were replayed as well.
    """

    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    error: Expression | None = None
    fingerprints: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    ids: tuple[str, ...] = ()
    partition: int | None = None
    offsets: tuple[int, int] | None = None
    replayed_too: bool = False

    def takes(self, letter: Letter) -> bool:
        """Whether `letter` is meant."""
        return (
            (self.replayed_too or letter.replayed is None)
            and (not self.names or letter.task in self.names)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.ids or letter.id in self.ids)
            and (not self.fingerprints or letter.fingerprint.startswith(self.fingerprints))
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
            and (self.partition is None or letter.place.partition == self.partition)
            and (self.offsets is None or self.offsets[0] <= letter.place.offset <= self.offsets[1])
            and (self.error is None or self.error.search(letter.error) is not None)
        )


class Stretch(NamedTuple):
    """Of one partition of the DLQ: from `start` up to, not including, `end`."""

    partition: int
    start: int
    end: int


class Letters:
    """The letters of a queue, read from its DLQ. To be closed; not thread-safe.

    All methods raise Unreachable, and TaskmillError for what Kafka refuses.
    """

    def __init__(self, settings: Settings, queue: str, clock: Clock = SYSTEM_CLOCK) -> None:
        """Raises ConfigError where there is no such queue."""
        self.topics = Topics(settings.prefix, queue)
        self._settings = settings
        self._clock = clock
        admin = Admin(settings, clock=clock)
        admin.queue_partitions(self.topics)
        what = f"look at {self.topics.dlq}"
        self.reader = Reader(settings, f"{settings.prefix}.replay.{queue}", what, clock)
        self.replayed = ReplayedIndex(self.topics.replayed, admin.topic_id(self.topics.dlq))

    def close(self) -> None:
        """Close its client."""
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def admin(self) -> Admin:
        """An admin client for one step."""
        return Admin(self._settings, clock=self._clock)

    def refresh(self) -> None:
        """Learn what was replayed by now."""
        self.replayed.refresh(self.admin(), self.reader)

    def stretches(self, chosen: Filter) -> list[Stretch]:
        """Where the letters of a filter lie, as of now."""
        admin, topic = self.admin(), self.topics.dlq
        count = admin.partitions(topic)
        if count is None:
            return []
        ends = admin.ends(topic, count)
        starts = admin.starts(topic, count)
        if chosen.since is not None:
            found = admin.offsets_at(topic, count, chosen.since)
            starts = [end if at is None else at for at, end in zip(found, ends, strict=True)]
        first, last = chosen.offsets or (0, max(ends, default=0))
        return [
            Stretch(p, max(start, first), min(end, last + 1))
            for p, (start, end) in enumerate(zip(starts, ends, strict=True))
            if chosen.partition in (None, p)
        ]

    def scan(
        self, chosen: Filter, stretches: list[Stretch] | None = None
    ) -> Generator[Letter, None, None]:
        """The letters that a filter takes, partition by partition, as of now or of `stretches`."""
        if stretches is None:
            self.refresh()
            stretches = self.stretches(chosen)
        for stretch in stretches:
            with closing(self._read(stretch)) as letters:
                for letter in letters:
                    if chosen.until is not None and letter.at >= chosen.until:
                        break  # its time is the broker's: none behind it is earlier
                    if chosen.takes(letter):
                        yield letter

    def _read(self, stretch: Stretch) -> Generator[Letter, None, None]:
        p, start, end = stretch
        with closing(self.reader.read(self.topics.dlq, p, start, end)) as batches:
            for messages, _ in batches:
                for message in messages:
                    yield self._letter(message)

    def _letter(self, message: Message) -> Letter:
        place = Place(message.partition() or 0, message.offset() or 0)
        return Letter(
            place,
            message.timestamp()[1],
            message.key(),
            message.value(),
            headers_of(message) or (),
            self.replayed.letters.get(place),
        )
