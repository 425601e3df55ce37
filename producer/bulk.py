"""Many tasks in one go: handed over without waiting, then waited for together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from confluent_kafka import KafkaException

from taskmill.producer.client import ProducerClient
from taskmill.producer.control import Ways
from taskmill.producer.definition import TaskCall
from taskmill.producer.delivery import BatchDelivery
from taskmill.producer.handle import Handle, own_since
from taskmill.producer.refusal import STALE, Refusals
from taskmill.producer.routes import Route
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import EnqueueError, TaskmillError
from taskmill.runtime.partition import partition_for

T = TypeVar("T")

#: After the last record's own time-out, its report needs a moment: librdkafka looks for timed-out
#: records once a second.
_REPORT_S = 2.0


class Bulk(Generic[T]):
    """One `enqueue_many`: its calls, their encoded tasks, and the routes of their queues."""

    def __init__(
        self,
        calls: Sequence[TaskCall[T]],
        values: Sequence[bytes],
        routes: Mapping[str, Route],
        ways: Ways,
    ) -> None:
        self._calls = calls
        self._values = values
        self._routes = routes
        self._ways = ways
        #: Queues whose topic turned out to be another than described.
        self.stale: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._calls)

    def send(
        self, client: ProducerClient, refusals: Refusals, timeout_s: float, clock: Clock
    ) -> list[Handle[T]]:
        """The handles, in order of the calls. Raises EnqueueError where some were not accepted."""
        batch = BatchDelivery(clock)
        sent = self._hand_over(client, batch)
        batch.wait(sent, timeout_s + _REPORT_S)
        if batch.delivered == len(self._calls) and not batch.failed:
            return self._handles(own_since(batch.earliest))
        raise self._failure(batch, sent, refusals)

    def _hand_over(self, client: ProducerClient, batch: BatchDelivery) -> int:
        """Returns how many were handed over: it ends early once one has failed."""
        send, failed, routes = client.send, batch.failed, self._routes
        number = 0
        for call, value in zip(self._calls, self._values, strict=True):
            topic, partitions, headers, _ = routes[call.queue]
            key = call.key
            p = partition_for(key, partitions)
            try:
                while not send(topic, key, value, p, headers[p], batch):
                    client.wait_for_room()
                    if failed:
                        return number
            except KafkaException as error:
                failed[key] = error.args[0]
                return number
            number += 1
            if failed:
                return number
        return number

    def _handles(self, since: int | None) -> list[Handle[T]]:
        ways = self._ways
        return [
            Handle(c.id, c.queue, ways, c.definition, since if c.is_generated else None)
            for c in self._calls
        ]

    def _failure(self, batch: BatchDelivery, sent: int, refusals: Refusals) -> EnqueueError:
        """What was not accepted. A key that came twice and failed once has failed both times."""
        unanswered = batch.delivered < sent
        failed: dict[int, TaskmillError] = {}
        for place, (call, value) in enumerate(zip(self._calls, self._values, strict=True)):
            error = batch.failed.get(call.key)
            if error is not None:
                topic = self._routes[call.queue].topic
                failed[place] = refusals.of(error, call.id, topic, len(value))
                if error.code() in STALE:
                    self.stale.add(call.queue)
            elif place >= sent:
                failed[place] = TaskmillError(f"task {call.id!r} was not sent after that")
            elif unanswered:
                failed[place] = refusals.unacknowledged(call.id)
        handles = self._handles(own_since(batch.earliest))
        accepted = {place: handle for place, handle in enumerate(handles) if place not in failed}
        return EnqueueError(failed, accepted, len(self._calls))
