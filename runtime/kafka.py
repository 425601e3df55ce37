"""What every Kafka client of ours is configured with, and how its errors are told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.local_broker import discover

logger = logging.getLogger("taskmill.kafka")


librdkafka_logger = logging.getLogger("taskmill.librdkafka")


def _is_news(record: logging.LogRecord) -> bool:
    """Not what librdkafka retries by itself: each reconnect (OncePerMinute tells of those), and a
    coordinator that is still starting. Everything is, where DEBUG is logged."""
    message = record.getMessage()
    return logger.isEnabledFor(logging.DEBUG) or not (
        message.startswith(("FAIL ", "REQTMOUT "))
        or "oordinator load in progress" in message
        or "ot coordinator" in message
    )


librdkafka_logger.addFilter(_is_news)

#: Ours to set: correctness rests on them (the source of each is in ARCHITECTURE.md, "Clients").
RESERVED = frozenset(
    {
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "acks",
        "group.id",
        "isolation.level",
        "partitioner",
        "transactional.id",
    }
)


def bootstrap_servers(settings: Settings) -> str:
    """The given address; else the local broker's that runs here; else localhost:9092."""
    return settings.bootstrap_servers or discover(settings.state_dir) or "localhost:9092"


def client_config(
    settings: Settings, client_id: str, *, clock: Clock = SYSTEM_CLOCK, **ours: Any
) -> dict[str, Any]:
    """librdkafka configuration: the user's settings, below what the role (`ours`) needs.

    Keyword names have underscores for dots. Raises ConfigError for a setting that is ours.
    """
    taken = sorted(RESERVED & settings.kafka.keys())
    if taken:
        raise ConfigError(
            f"setting kafka.{taken[0]} is taskmill's own: its promises rest on it. Remove it."
        )
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers(settings),
        "client.id": f"{settings.prefix}-{client_id}",
        "error_cb": OncePerMinute(client_id, clock, bootstrap_servers(settings)),
        "logger": librdkafka_logger,
        # A broker that comes back is found within a second, not within ten.
        "reconnect.backoff.max.ms": 1000,
        # Latency: Nagle adds up to 40 ms to a small request.
        "socket.nagle.disable": True,
        **{name: value for name, value in settings.kafka.items() if name != MAX_POLL_INTERVAL},
    }
    config.update({name.replace("_", "."): value for name, value in ours.items()})
    return config


#: Of the workers' consumers alone: it has to be above the session time-out, and others have theirs
#: from librdkafka.
MAX_POLL_INTERVAL = "max.poll.interval.ms"


def is_fatal(error: KafkaError) -> bool:
    """Whether its client is of no use any more and has to be made anew.

    `error.fatal()` alone does not tell: a consumer's fatal error comes as that of a record, and
    confluent-kafka 2.16 makes it anew from its code, without that mark. A worker whose place in the
    group another had taken stood still for good (1 of 30 points of the proof).
    """
    return error.fatal() or error.code() == KafkaError._FATAL


def taken(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """What there is, up to `most`; the first of it is waited for. Raises KafkaException.

    `consume(n, t)` waits until it has all n, or for all of t: so first one, then the rest.
    """
    messages = consumer.consume(1, wait_s)
    if messages:
        messages += consumer.consume(most - 1, 0)
    return messages


def resume_at(consumer: Consumer, topic: str, p: int, offset: int) -> bool:
    """Resume a partition at `offset`; False where librdkafka is not ready for it: once more, then.

    Resume, then seek: a resume alone, or after the seek, leaves the partition unfetched for 0.8 to
    1.0 s (librdkafka 2.16), while a seek wakes its fetcher at once.
    """
    at = TopicPartition(topic, p, offset)
    try:
        consumer.resume([at])
        consumer.seek(at)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._STATE:
            raise
        return False
    return True


RebalanceCallback = Callable[[Consumer, list[TopicPartition]], None]


def as_raised(callback: RebalanceCallback) -> RebalanceCallback:
    """`callback` for a consumer's `subscribe`, which hands on what it raises as it was raised.

    Else, before Python 3.12, what confluent-kafka 2.16 raised in the callback comes out of
    `consume` half made: of the type KafkaError, which is no exception and which no `except` names.
    """

    def call(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            callback(consumer, partitions)
        except Exception:
            raise  # to be caught once makes it whole

    return call


class OncePerMinute:
    """An error callback that logs each kind of error at most once a minute.

    That the brokers at `address` are away is said once a minute for all clients of this process.
    """

    __slots__ = ("_address", "_clock", "_last", "_who")

    PERIOD_S = 60.0
    _away: ClassVar[dict[object, float]] = {}

    def __init__(self, who: str, clock: Clock = SYSTEM_CLOCK, address: str = "") -> None:
        self._who = who
        self._clock = clock
        self._address = address
        self._last: dict[object, float] = {}

    def __call__(self, error: KafkaError) -> None:
        # All brokers gone says one thing, whichever transport error each client saw first.
        if error.code() in _AWAY and self._address:
            self._say(self._away, (self._address, self._clock), f"Kafka at {self._address}", error)
        else:
            self._say(self._last, error.code() in _AWAY or error.name(), self._who, error)

    def _say(self, told: dict[object, float], kind: object, who: str, error: KafkaError) -> None:
        now = self._clock.monotonic()
        last = told.get(kind)
        if last is None or now - last >= self.PERIOD_S:
            told[kind] = now
            logger.warning("%s: %s", who, error.str())


_AWAY = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})

ErrorCallback = Callable[[KafkaError], None]
