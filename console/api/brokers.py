"""Whether Kafka answers, and which queues there are: asked every second by a thread of its own, so
that no request has to wait to find out."""

from __future__ import annotations

import logging
import threading

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from taskmill.console.api.problems import Refused, field
from taskmill.producer.definition import DEFAULT_QUEUE
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import bootstrap_servers, client_config
from taskmill.runtime.topic_table import Kind, queue_of

logger = logging.getLogger("taskmill.console")

_LOOK_S = 1.0
_CALL_S = 3.0
#: Silent for so long, it is away: a broker under load may be slow to tell once.
_AWAY_S = 4.0
#: A queue that somebody asks for may have been made just now.
_SOON_S = 2.0


class BrokerWatch:
    """What Kafka said last. `start` and `close` it; the rest from any thread."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._ending = threading.Event()
        self._wanted = threading.Event()
        self._looked = threading.Condition()
        self._looks = 0
        self._heard_at: float | None = None
        self._began = clock.monotonic()
        self._trouble = ""
        self._client: AdminClient | None = None
        #: The partitions of each queue that has topics.
        self.queues: dict[str, int] = {}
        self._thread = threading.Thread(target=self._main, name="taskmill-brokers", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._ending.set()
        self._wanted.set()
        self._thread.join(_CALL_S + 1)

    @property
    def is_up(self) -> bool:
        """Whether it answered lately."""
        since = self._began if self._heard_at is None else self._heard_at
        return not self._trouble or self._clock.monotonic() - since < _AWAY_S

    @property
    def is_known(self) -> bool:
        """Whether it has answered at all."""
        return self._heard_at is not None

    def check(self) -> None:
        """Raises Refused, 503, where it is away."""
        if not self.is_up:
            raise Refused("unavailable", self.told())

    def told(self) -> str:
        """Why it counts as away."""
        return f"Kafka at {bootstrap_servers(self._settings)} does not answer ({self._trouble})"

    def check_queue(self, queue: str) -> None:
        """Raises Refused, 422, for a queue that has no topics, but `default`, which the first task
        makes. Blocks for a moment for one that is not known."""
        if queue in self.queues or queue == DEFAULT_QUEUE:
            return
        self._look_again()
        self.check()
        if queue not in self.queues:
            known = ", ".join(sorted(self.queues)[:20]) or "none yet"
            raise field(
                "invalid",
                "queue",
                f"there is no queue {queue!r}; `taskmill topics create -q {queue}` makes it",
                known,
            )

    def _look_again(self) -> None:
        with self._looked:
            # The look that is under way may have begun before the queue was there.
            wanted = self._looks + 2
            self._wanted.set()
            self._looked.wait_for(lambda: self._looks >= wanted, _SOON_S)

    # ---- its thread -----------------------------------------------------------------------------

    def _main(self) -> None:
        again = False
        while not self._ending.is_set():
            try:
                self._look()
            except Exception as error:
                # It must not end the thread: Kafka would seem as it was, for ever.
                logger.exception("asking Kafka how it is")
                self._client, self._trouble = None, repr(error)
            with self._looked:
                self._looks += 1
                self._looked.notify_all()
            if again:
                again = False
            elif self._wanted.wait(_LOOK_S):
                self._wanted.clear()
                again = True

    def _look(self) -> None:
        prefix = self._settings.prefix
        if self._client is None:
            config = client_config(self._settings, "console-watch", clock=self._clock)
            self._client = AdminClient(config)
        try:
            topics = self._client.list_topics(timeout=_CALL_S).topics
        except KafkaException as error:
            if not self._trouble:
                logger.warning("Kafka does not answer: %s", error.args[0].str())
            # One that failed may keep asking who is gone: the next look makes another.
            self._client, self._trouble = None, error.args[0].str()
            return
        found = {}
        for name, topic in topics.items():
            queue = queue_of(name, Kind.TASKS, prefix)
            if queue is not None:
                found[queue] = len(topic.partitions)
        if self._trouble:
            logger.info("Kafka answers again")
        self.queues, self._heard_at, self._trouble = found, self._clock.monotonic(), ""
