"""The commit thread's transactions (commit.py): each call alone, with every way it may fail."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal

from simulation.broker import Busy, Log, Part, Refused
from simulation.store import entry_of
from taskmill.consumer.orders import entry_of as entry_of_mark
from taskmill.consumer.protocol import Transaction as Work
from taskmill.consumer.record import Outcome
from taskmill.consumer.table import Entry
from taskmill.schemas.states import Status

if TYPE_CHECKING:
    from simulation.worker import Worker

Answer = Literal["committed", "aborted", "unknown"]
Running = Generator[None, None, tuple[Answer, dict[int, int]]]
Send = tuple[Log, bytes, Any, "int | None"]


#: What may become of an EndTxn: it never arrives; it arrives at some later time; it is applied and
#: the answer lost; its markers take their time.
_LOST, _LATE, _UNANSWERED, _MARKERS_LATE = 1, 2, 3, 4


class Committer:
    """The producer of one transactional.id, made anew after each end that is not clean."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._world = worker.world
        self.name = worker.world.bug.transactional_id(worker)
        self.producer: Producer | None = None

    def open(self) -> Generator[None, None, None]:
        """init_transactions, until the predecessor's transaction has ended."""
        while self.producer is None:
            epoch = self._world.coordinator.init(self.name)
            if epoch is None:
                yield
            else:
                self.producer = Producer(self._worker, self, epoch)
                self._world.oracle.opened(self._worker)

    def run(self, work: Work) -> Running:
        """Commit `work`; returns the answer and the changelog offsets that it reached."""
        assert self.producer is not None, "open() comes first"
        call = self.producer.transact(work, self._sends(work))
        while True:
            try:
                next(call)
            except StopIteration as end:
                answer: tuple[Answer, dict[int, int]] = end.value
                return answer
            yield
            if self._worker.fault("hang"):
                # It gives no answer; it is left behind, and may go on until a successor fences it.
                self._worker.hanging.append(call)
                self._world.bug.destroy(self)
                return "unknown", {}

    def _sends(self, work: Work) -> list[Send]:
        """What the transaction writes, in the order of commit.py."""
        world = self._world
        sends: list[Send] = []
        for p, outcomes in work.outcomes.items():
            for mark in work.orders[p].marks if p in work.orders else ():
                sends.append((world.state[p], mark.record.mark_key, entry_of_mark(mark), p))
            for note in work.notes.get(p, ()):
                sends.append((world.state[p], note.record.mark_key, entry_of(note), p))
            for outcome in outcomes:
                sends += self._of(p, outcome)
        return world.bug.sends(sends)

    def _of(self, p: int, outcome: Outcome) -> list[Send]:
        world, record = self._world, outcome.record
        g, s, status = record.generation, record.seq, outcome.status
        if status is None:
            home = record.belongs_to
            if home is None:
                return []
            return [(world.tasks[home], record.mark_key, world.message(record), None)]
        sends: list[Send] = [(world.state[p], record.mark_key, Entry(g, s, status, 0), p)]
        if outcome.failure is not None:
            sends.append((world.dlq, record.mark_key, (g, s, outcome.failure.reason), None))
        if status is Status.RETRYING:
            sends.append((world.tasks[p], record.mark_key, world.message(record).next_seq(), None))
        return sends


class Producer:
    """One transactional producer under its epoch."""

    def __init__(self, worker: Worker, owner: Committer, epoch: int) -> None:
        self._worker = worker
        self._world = worker.world
        self._coordinator = worker.world.coordinator
        self._owner = owner
        self._name = owner.name
        self._epoch = epoch

    def transact(self, work: Work, sends: list[Send]) -> Running:
        """begin, produce, send_offsets, commit, as Committer does it."""
        part = Part(self._worker.slot, work, len(sends))
        reached: dict[int, int] = {}
        try:
            # What the producer has queued may reach the broker before or after the offsets do.
            late = len(sends) if self._worker.fault("queue") else (len(sends) + 1) // 2
            yield from self._produce(sends[: len(sends) - late], part, reached)
            fault = self._worker.fault("write")
            if fault == 1:
                return self._abort()
            yield
            yield from self._worker.stand(4)
            yield from self._offsets(work, part)
            if fault == 2:
                return self._abort()  # a lost answer to send_offsets
            if not self._world.bug.is_held(work):
                return self._abort()
            yield
            yield from self._worker.stand(5)
            yield from self._produce(sends[len(sends) - late :], part, reached)
        except Refused:
            return self._abort()
        return self._end(wrote=bool(sends or work.offsets)), reached

    def _produce(
        self, sends: list[Send], part: Part, reached: dict[int, int]
    ) -> Generator[None, None, None]:
        for log, key, value, marks in sends:
            while True:
                try:
                    offset = self._coordinator.produce(
                        self._name, self._epoch, log, key, value, part
                    )
                except Busy:
                    yield
                else:
                    break
            if marks is not None:
                reached[marks] = offset + 1

    def _offsets(self, work: Work, part: Part) -> Generator[None, None, None]:
        metadata = self._world.bug.metadata(self._worker, work)
        if not work.offsets:
            return  # librdkafka then sends no request at all
        while True:
            try:
                self._coordinator.send_offsets(
                    self._name, self._epoch, work.offsets, metadata, part
                )
            except Busy:
                yield
            else:
                return

    def _end(self, *, wrote: bool) -> Answer:
        """EndTxn. Its answer comes once the decision is durable; markers follow."""
        fault = self._worker.fault("end")
        if fault in (_LOST, _LATE):
            if fault == _LATE:
                self._world.delay(self._name, self._epoch)
            return self._unknown()
        if not wrote:
            return "committed"  # nothing was begun at the broker, nothing is sent to it
        try:
            transaction = self._coordinator.end(self._name, self._epoch, commit=True)
        except Refused:
            self._drop()
            return "unknown"
        if not self._world.is_slow and fault != _MARKERS_LATE:
            self._coordinator.mark_all(transaction)
        return self._unknown() if fault == _UNANSWERED else "committed"

    def _unknown(self) -> Answer:
        if self._owner.producer is self:
            self._world.bug.destroy(self._owner)
        return "unknown"

    def _abort(self) -> tuple[Answer, dict[int, int]]:
        if self._worker.fault("abort"):
            self._drop()  # it could not even abort
            return "aborted", {}
        try:
            transaction = self._coordinator.end(self._name, self._epoch, commit=False)
            self._coordinator.mark_all(transaction)
        except Refused:
            self._drop()
        return "aborted", {}

    def _drop(self) -> None:
        if self._owner.producer is self:
            self._owner.producer = None
