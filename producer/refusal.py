"""What Kafka's errors are told as to whoever enqueues."""

from __future__ import annotations

from confluent_kafka import KafkaError

from taskmill.runtime.errors import PayloadTooLarge, TaskmillError, Unreachable

_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})

#: The broker did not answer, or could not take the record in time.
_AWAY = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)

#: The topic is not what its cached description says: describe it again.
STALE = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


class Refusals:
    """Makes errors that name the address, the deadline and the last trouble of the connection."""

    def __init__(
        self,
        address: str,
        timeout_s: float,
        *,
        of: str = "task",
        again: str = "enqueueing it again under the same ID is safe",
    ) -> None:
        """`of`: what the records are; `again`: what may be done where one may have arrived."""
        self._of = of
        self._again = again
        self._address = address
        self._timeout_s = timeout_s
        #: What the client last said of its connections, such as a failed authentication.
        self.trouble = ""

    def noted(self, error: KafkaError) -> None:
        """An error callback: keeps the last one for the next Unreachable."""
        self.trouble = error.str()

    def unreachable(self) -> Unreachable:
        """Not even the topic could be looked up in time: nothing was sent."""
        return Unreachable(f"Kafka at {self._address} did not answer{self._within()}")

    def unacknowledged(self, task_id: str) -> Unreachable:
        """Sent, perhaps, but not acknowledged: whether it was accepted is not known."""
        return Unreachable(
            f"Kafka at {self._address} did not acknowledge {self._of} {task_id!r}"
            f"{self._within()}; {self._again}"
        )

    def _within(self) -> str:
        trouble = f" ({self.trouble})" if self.trouble else ""
        return f" within {self._timeout_s:g} s{trouble}"

    def of(self, error: KafkaError, task_id: str, topic: str, size: int) -> TaskmillError:
        """The delivery of task `task_id` to `topic` ended with `error`; it has `size` bytes."""
        code = error.code()
        if code in _TOO_LARGE:
            return PayloadTooLarge(
                f"{self._of} {task_id!r} is {size} bytes encoded, more than topic {topic} takes "
                "(its max.message.bytes)"
            )
        if code in _AWAY:
            return self.unacknowledged(task_id)
        return TaskmillError(f"Kafka refused {self._of} {task_id!r} on {topic}: {error.str()}")
