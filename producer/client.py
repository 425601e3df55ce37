"""The Kafka producer of one process, and the one thread that serves its delivery reports."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from taskmill.producer.refusal import Refusals
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ClosedError, ConfigError
from taskmill.runtime.kafka import client_config
from taskmill.runtime.topic_table import max_task_record_bytes

logger = logging.getLogger("taskmill.producer")

Report = Callable[[KafkaError | None, Message], None]

#: What is still on its way when a client closes gets this long: nobody was told it is accepted.
CLOSE_S = 5.0
#: How soon the delivery thread sees that it is to end; reports wake it at once.
_POLL_S = 0.1
#: How often a full queue is tried again: at 200,000 tasks/s, 400 places come free meanwhile.
_FULL_S = 0.002

#: Set where the user's settings do not say otherwise.
_DEFAULTS = {
    # A lone task goes out at once; under load, batches form while five requests are under way.
    "linger.ms": 0,
    # JSON and IDs shrink to a third or less; lz4 costs the least.
    "compression.type": "lz4",
}


class ProducerClient:
    """Sends records, acknowledged by all in-sync replicas and free of duplicates. Thread-safe."""

    def __init__(
        self, settings: Settings, name: str, refusals: Refusals, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`name` tells this client from others in the broker's logs. Raises ConfigError."""
        self._clock = clock
        config = client_config(
            settings,
            f"producer-{name}",
            clock=clock,
            acks="all",
            enable_idempotence=True,
            partitioner="murmur2_random",
            # A record that is not acknowledged so long after it was handed over fails, and is not
            # sent later.
            message_timeout_ms=max(1, round(settings.enqueue_timeout_s * 1000)),
            message_max_bytes=max_task_record_bytes(settings),
        )
        config["error_cb"] = _both(config["error_cb"], refusals.noted)
        try:
            self._producer = Producer({**_DEFAULTS, **config})
        except KafkaException as error:
            raise ConfigError(f"Kafka settings: {error.args[0].str()}") from None
        self._ending = threading.Event()
        # The thread knows the producer, not this object: an App that is dropped can be collected.
        self._thread = threading.Thread(
            target=_serve,
            args=(self._producer, self._ending),
            name="taskmill-delivery",
            daemon=True,
        )
        self._thread.start()

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        partition: int,
        headers: list[tuple[str, bytes]],
        report: Report,
    ) -> bool:
        """Hand one record over; `report` is called by the delivery thread. False: queue full.

        Raises KafkaException for what librdkafka refuses at once, ClosedError.
        """
        if self._ending.is_set():
            raise ClosedError("the App was closed")
        try:
            # By place: names would cost a third more.
            self._producer.produce(topic, value, key, partition, report, None, 0, headers)  # type: ignore[arg-type]
        except BufferError:
            return False
        if self._ending.is_set():
            # Closed in between: the thread may have ended without seeing this record.
            self._producer.flush(CLOSE_S)
        return True

    def wait_for_room(self) -> None:
        """Wait a moment for the delivery thread to free a full queue."""
        self._clock.sleep(_FULL_S)

    def partition_count(self, topic: str, timeout_s: float) -> int | None:
        """The partitions of `topic` by this client's connection; None where that is not told."""
        try:
            found = self._producer.list_topics(topic, timeout=timeout_s).topics.get(topic)
        except KafkaException:
            return None
        return len(found.partitions) if found is not None and found.partitions else None

    def close(self) -> None:
        """Deliver what is on its way, for CLOSE_S at the most; the rest fails."""
        self._ending.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        deadline = Deadline(CLOSE_S, self._clock)
        left = self._producer.flush(deadline.left())
        if left:
            logger.warning("closed with %d tasks on their way; they were not accepted", left)
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer.flush(_POLL_S)


def _serve(producer: Producer, ending: threading.Event) -> None:
    """Serve delivery reports until the client closes."""
    while not ending.is_set():
        try:
            producer.poll(_POLL_S)
        except Exception:
            # A report that raises must not end the thread that all others wait for.
            logger.exception("a delivery report failed")


def _both(
    first: Callable[[KafkaError], None], second: Callable[[KafkaError], None]
) -> Callable[[KafkaError], None]:
    def call(error: KafkaError) -> None:
        second(error)
        first(error)

    return call
