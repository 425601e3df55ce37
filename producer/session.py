"""The reader's own thread at work: takes watches in, follows partitions, looks back where it must.

A watch goes: place it (which partition) → follow that partition → is its state kept? → else look
back, from its time or from the beginning, to where keeping began.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from taskmill.producer.lookback import LookBack, Stretch
from taskmill.producer.tail import Place, Tail
from taskmill.producer.watch import ResultWatch, StateWatch, Watch
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.kafka import client_config
from taskmill.runtime.partition import partition_for

#: How long one step waits for records, and so how long a new watch waits to be taken in.
TICK_S = 0.005
#: Between two attempts to reach Kafka, or to find a topic or a result that is not there yet.
_RETRY_S = 0.25
#: One question to Kafka; nothing else is served meanwhile.
_CALL_S = 2.0

_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class Session:
    """One life of the reader's thread, from the first watch to idleness. Owned by that thread."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises ConfigError for settings that librdkafka refuses."""
        self._clock = clock
        #: What Kafka said last, while it does not answer.
        self.trouble = "no connection yet"
        self._tail_consumer = _consumer(settings, "tail", clock, self._noted)
        self._past_consumer = _consumer(settings, "past", clock, self._noted)
        self._tail = Tail(self._tail_consumer)
        self._past = LookBack(self._past_consumer)
        self._counts: dict[str, int] = {}
        #: Watches to be placed, now or at `_retry_at`; and placed ones whose past is to be read,
        #: up to an offset.
        self._new: list[Watch] = []
        self._deferred: list[Watch] = []
        self._unread: list[tuple[Watch, Place, int | None]] = []
        self._retry_at = 0.0
        self._placed: dict[Watch, Place] = {}
        self._results: list[ResultWatch] = []
        #: Watches that were answered, or given up by whoever waited; from any thread.
        self._done: SimpleQueue[Watch] = SimpleQueue()

    @property
    def is_idle(self) -> bool:
        """Nobody waits for anything."""
        return not (self._new or self._deferred or self._placed or self._past.is_busy)

    def add(self, watch: Watch) -> None:
        """Take in a watch; it is placed at the next step."""
        self._new.append(watch)

    def step(self) -> None:
        """Place what is new, read what has come, tell who waits. Blocks for TICK_S at the most.

        Raises KafkaException for what does not pass without a new session.
        """
        is_retry = self._clock.monotonic() >= self._retry_at
        if self._new or (is_retry and (self._deferred or self._unread)):
            self._take_in(is_retry=is_retry)
        elif is_retry and self.trouble and self._placed:
            self._probe()
        read = self._past.poll()
        if self._placed:
            read += self._tail.poll(0 if read else TICK_S)
        elif not read:
            self._clock.sleep(TICK_S)
        if read:
            self.trouble = ""
        self._look_after_results()
        self._drop_done()

    def close(self) -> None:
        """Close the consumers."""
        self._tail_consumer.close()
        self._past_consumer.close()

    @property
    def watches(self) -> list[Watch]:
        """Those of everybody who waits."""
        return [
            watch
            for watch in (*self._new, *self._deferred, *self._placed)
            if not watch.future.done()
        ]

    def _noted(self, error: KafkaError) -> None:
        self.trouble = error.str()

    # ---- watches that are new ----------------------------------------------------------------

    def _take_in(self, *, is_retry: bool) -> None:
        """Place all new watches; every question to Kafka is asked once for all of them."""
        new, self._new = self._new, []
        if is_retry:
            new, self._deferred = new + self._deferred, []
        new = [watch for watch in new if not watch.future.done()]
        try:
            places = {watch: self._place(watch) for watch in new}
            ends = self._ends(places)
            for watch, place in places.items():
                if place is not None:
                    self._admit(watch, place, ends.get(place))
            self._look_back()
        except KafkaException as error:
            self.trouble = error.args[0].str()
            self._defer([watch for watch in new if watch not in self._placed])
        else:
            self.trouble = ""

    def _probe(self) -> None:
        """Find out whether the trouble is over: a client tells of its end by silence."""
        topic = next(iter(self._placed)).topic
        try:
            self._past_consumer.list_topics(topic, timeout=_CALL_S)
            self.trouble = ""
        except KafkaException as error:
            self.trouble = error.args[0].str()
            self._retry_at = self._clock.monotonic() + _RETRY_S

    def _defer(self, watches: list[Watch]) -> None:
        self._deferred += [watch for watch in watches if watch not in self._deferred]
        self._retry_at = self._clock.monotonic() + _RETRY_S

    def _place(self, watch: Watch) -> Place | None:
        """Where the watch's key lies; None where its topic is not there (yet)."""
        count = self._counts.get(watch.topic, 0)
        if not count:
            found = self._past_consumer.list_topics(watch.topic, timeout=_CALL_S)
            described = found.topics[watch.topic]
            if described.error is not None and described.error.code() not in _NO_TOPIC:
                raise KafkaException(described.error)
            count = len(described.partitions)
            self._counts[watch.topic] = count
        if count:
            return watch.topic, partition_for(watch.key, count)
        if watch.until_end:
            self._defer([watch])
        else:
            watch.give_up()
        return None

    def _ends(self, places: dict[Watch, Place | None]) -> dict[Place, int]:
        """The last stable offsets, before which lies all that is committed, where they matter."""
        wanted = {
            place
            for watch, place in places.items()
            if place is not None
            and isinstance(watch, StateWatch)
            and not (watch.until_end and self._tail.get(place))
        }
        ends = {}
        for place in wanted:
            marks = self._past_consumer.get_watermark_offsets(
                TopicPartition(*place), timeout=_CALL_S, cached=False
            )
            if marks is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            ends[place] = marks[1]
        return ends

    def _admit(self, watch: Watch, place: Place, end: int | None) -> None:
        """Serve a watch from what is kept, or note that its past is to be read."""
        self._placed[watch] = place
        watch.future.add_done_callback(lambda _: self._done.put(watch))
        if isinstance(watch, ResultWatch):
            self._results.append(watch)
        if not isinstance(watch, StateWatch):
            self._unread.append((watch, place, None))
            return
        part = self._tail.get(place)
        if part is None:
            assert end is not None, "asked for every partition that is not followed"
            part = self._tail.follow(place, end)
        kept = self._tail.recent(place, watch.key)
        if kept is not None:
            watch.offer(kept)
        if kept is not None or (watch.since is not None and watch.since >= part.kept_since):
            watch.looked_back()
        else:
            self._unread.append((watch, place, part.kept_from))
        self._tail.watch(place, watch, None if watch.until_end else end)

    def _look_back(self) -> None:
        """Start to read the past of those in `_unread`, each from its time on."""
        since: dict[Place, int] = {}
        for watch, place, _ in self._unread:
            if watch.since is not None:
                since[place] = max(0, min(since.get(place, watch.since), watch.since))
        starts: dict[Place, int] = {}
        if since:
            asked = [TopicPartition(*place, at) for place, at in since.items()]
            for found in self._past_consumer.offsets_for_times(asked, timeout=_CALL_S):
                if found.error is not None:
                    raise KafkaException(found.error)
                starts[found.topic, found.partition] = found.offset
        unread, self._unread = self._unread, []
        for watch, place, end in unread:
            if watch.future.done():
                continue
            start = OFFSET_BEGINNING if watch.since is None else starts[place]
            # A negative offset says that there is nothing so young; `end` 0 that there is nothing.
            is_empty = start < 0 if watch.since is not None else end == 0
            if is_empty or (end is not None and start >= end):
                watch.looked_back()
            else:
                self._past.add(place, Stretch(start, end, watch))

    # ---- watches that are done ---------------------------------------------------------------

    def _look_after_results(self) -> None:
        """A result becomes visible apart from its state, and perhaps after it: look again."""
        if not any(watch.missed for watch in self._results):
            return
        now = self._clock.monotonic()
        is_due = now >= self._retry_at
        for watch in [w for w in self._results if w.missed and not w.future.done()]:
            if now >= watch.give_up_at:
                watch.give_up()
            elif is_due:
                watch.missed = False
                self._unread.append((watch, self._placed[watch], None))
                self._retry_at = now + _RETRY_S

    def _drop_done(self) -> None:
        try:
            while True:
                watch = self._done.get_nowait()
                place = self._placed.pop(watch)
                if isinstance(watch, StateWatch):
                    self._tail.drop(place, watch)
                elif isinstance(watch, ResultWatch):
                    self._results.remove(watch)
        except Empty:
            return


def _consumer(
    settings: Settings, role: str, clock: Clock, noted: Callable[[KafkaError], None]
) -> Consumer:
    """A consumer of given places, in no group, that sees committed records only."""
    config = client_config(
        settings,
        f"reader-{role}",
        clock=clock,
        # Demanded by the client; nothing is subscribed to or committed under it.
        group_id=f"{settings.prefix}-reader",
        enable_auto_commit=False,
        isolation_level="read_committed",
        enable_partition_eof=True,
        auto_offset_reset="earliest",
        # How long a newly followed partition waits behind a fetch that is under way.
        fetch_wait_max_ms=20,
        # As the changelog's: with the default of 1 s a long look-back runs dry now and then.
        queued_max_messages_kbytes=16 * 1024,
        fetch_queue_backoff_ms=10,
    )
    logged = config["error_cb"]

    def error_cb(error: KafkaError) -> None:
        noted(error)
        logged(error)

    try:
        return Consumer({**config, "error_cb": error_cb})
    except KafkaException as error:
        raise ConfigError(f"Kafka settings: {error.args[0].str()}") from None
