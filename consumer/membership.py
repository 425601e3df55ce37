"""How a worker joins its group: KIP-848 where the broker notices a dead member soon, else classic.

Kafka's default session of 45 s under KIP-848 is the broker's to set, not ours: a take-over would
take as long, and a static member's restart be refused until then. The classic protocol lets the
client say 6 s, and static membership makes a restart take 0.2 s.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, by its own note
    AdminClient,
    ConfigResource,
)

from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import MAX_POLL_INTERVAL, client_config

logger = logging.getLogger("taskmill.worker")

#: A KIP-848 session above this makes a take-over too slow.
MAX_SESSION_MS = 10_000
CLASSIC_SESSION_MS = 6_000
_RETENTION = "offsets.retention.minutes"
_SESSION = "group.consumer.session.timeout.ms"


def group_of(prefix: str, queue: str) -> str:
    """The group of a queue's workers."""
    return f"{prefix}.worker.{queue}"


class Membership:
    """The group of one queue's workers, and how `member` (a slot's name) joins it."""

    def __init__(self, settings: Settings, queue: str, member: str, clock: Clock) -> None:
        self.group = group_of(settings.prefix, queue)
        self._member = member
        self._max_poll_interval_ms = settings.kafka.get(MAX_POLL_INTERVAL, "300000")
        wanted = settings.group_protocol
        protocol: Literal["classic", "consumer"]
        if wanted == "auto":
            broker = _broker_settings(settings, clock)
            session_ms = broker.get(_SESSION)
            retention_min = broker.get(_RETENTION)
            if retention_min is not None and retention_min * 60_000 < settings.dedup_window_ms:
                logger.warning(
                    "the broker forgets a group without members after %d min (%s), sooner than "
                    "IDs are: without a worker for that long, what is done may run again",
                    retention_min,
                    _RETENTION,
                )
            fast = session_ms is not None and session_ms <= MAX_SESSION_MS
            protocol = "consumer" if fast else "classic"
            logger.info("group protocol %s (the broker's session: %s ms)", protocol, session_ms)
        else:
            protocol = wanted
        self.protocol = protocol

    @property
    def incremental(self) -> bool:
        """Whether rebalances come as what is added and what is taken."""
        return self.protocol == "consumer"

    def config(self) -> dict[str, Any]:
        """The client's settings, keyword names."""
        common: dict[str, Any] = {
            "group_id": self.group,
            "group_protocol": self.protocol,
            # The poll thread waits for a commit in on_revoke, never for handlers.
            "max_poll_interval_ms": self._max_poll_interval_ms,
        }
        if self.protocol == "consumer":
            # Co-partitioning: index p of every topic goes to the same member.
            return {**common, "group_remote_assignor": "range"}
        return {
            **common,
            "partition_assignment_strategy": "range",
            "group_instance_id": self._member,
            "session_timeout_ms": CLASSIC_SESSION_MS,
            "heartbeat_interval_ms": 1_000,
        }


def _broker_settings(settings: Settings, clock: Clock) -> dict[str, int]:
    """The broker's settings of groups; without those that it has not, or may not be asked for."""
    admin = AdminClient(client_config(settings, "membership", clock=clock))
    try:
        broker = next(iter(admin.list_topics(timeout=10).brokers))
        resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
        (future,) = admin.describe_configs([resource], request_timeout=10).values()
        found = future.result()
    except (KafkaException, StopIteration) as error:
        logger.info("the broker's group settings cannot be read (%s): classic protocol", error)
        return {}
    return {name: int(found[name].value) for name in (_SESSION, _RETENTION) if name in found}
