"""Ends the transactions that a dead worker left open, so that no reader has to wait for them.

Until the broker's limit of 10 s is over, an open transaction holds every read_committed reader of
its partitions: handles, restores, stable offsets. `init_transactions` under the same ID aborts it
(or completes its commit) at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaException, Producer

from taskmill.consumer.commit import TRANSACTION_TIMEOUT_MS
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import Unreachable
from taskmill.runtime.kafka import client_config


def end_transactions(
    settings: Settings, transactional_ids: Sequence[str], seconds: float, clock: Clock
) -> None:
    """End what is open under `transactional_ids`, within `seconds` in all.

    Only for a worker that is dead, while nobody can take its place: a living one would be fenced.
    Raises Unreachable where it cannot be done in time; their next holder does it then.
    """
    deadline = Deadline(seconds, clock)
    try:
        # All of them before the first call: they connect at the same time.
        producers = [_producer(settings, name, clock) for name in transactional_ids]
        for producer in producers:
            producer.init_transactions(deadline.left() or 0.001)
    except KafkaException as error:
        raise Unreachable(error.args[0].str()) from error


def _producer(settings: Settings, transactional_id: str, clock: Clock) -> Producer:
    return Producer(
        client_config(
            settings,
            f"fence-{transactional_id}",
            clock=clock,
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            # "Still being ended" is the broker's first answer; librdkafka's pause is 100 ms.
            retry_backoff_ms=2,
            retry_backoff_max_ms=10,
        )
    )
