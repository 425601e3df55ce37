"""The topics, the workers, and what one step of a schedule does to them."""

from __future__ import annotations

from itertools import count

from simulation.broker import Coordinator, Log, Refused
from simulation.bug import Bug
from simulation.groups import ClassicGroup, ConsumerGroup
from simulation.message import Message
from simulation.oracle import Oracle, Violation
from simulation.profiles import FAULTS, PROFILES, RUNNING
from simulation.worker import SMALL, Worker
from taskmill.consumer.record import Failure, Outcome, Reason, Record
from taskmill.consumer.table import Entry
from taskmill.schemas.models import CANCEL, Control, TaskError
from taskmill.schemas.states import Status

#: How many IDs there are: few, so that twins meet.
IDS = (20, 6)
#: Of these the table says `running` from the start, as a worker of another version may leave them;
#: the second is declared at-most-once.
LEFT_RUNNING = (4, 3)
#: A schedule that takes more rounds than this to come to its end is stuck.
ROUNDS = 400
_FAILED = Failure(Reason.FAILED, TaskError("ValueError", "no", "f"))


class World:
    """Begun from four bytes: the group's style; partitions, markers and IDs; workers; the profile.
    `step` takes four: the action, the worker, and two for the action.

    A step that cannot be done is no error but nothing: so any step may be left out of a schedule.
    """

    def __init__(self, head: bytes, bug: Bug) -> None:
        self.bug = bug
        self.limits = SMALL
        self.partitions = 2 + head[1] % 2
        #: Markers wait for a step that writes them; else most come at once.
        self.is_slow = head[1] % 4 >= 2
        numbers = range(self.partitions)
        self.tasks = [Log(f"tasks[{p}]") for p in numbers]
        self.state = [Log(f"state[{p}]") for p in numbers]
        self.control = [Log(f"control[{p}]") for p in numbers]
        self.state_logs = {log: p for p, log in enumerate(self.state)}
        self.dlq = Log("dlq")
        style = ClassicGroup if head[0] % 2 else ConsumerGroup
        self.group: ClassicGroup | ConsumerGroup = style(self.partitions)
        self.oracle = Oracle(self, self.partitions)
        self.coordinator = Coordinator(self.partitions, self.group.refusal, self.oracle.committing)
        for number in LEFT_RUNNING:
            p, entry = self.home(number), Entry(0, 0, Status.RUNNING, 0)
            self.state[p].append(b"%d" % number, entry)
            self.oracle.folded[p][b"%d" % number] = entry
        self._ids = IDS[head[1] // 4 % 2]
        self.is_settling = False
        self.birth = count().__next__
        self._late: list[tuple[str, int]] = []
        self.workers = [Worker(self, slot, {}) for slot in range(1 + head[2] % 3)]
        self._actions = PROFILES[head[3] % len(PROFILES)]
        if head[2] < 224:
            # Most begin with everybody at work: it is what follows that goes wrong.
            self._warm_up()

    def _warm_up(self) -> None:
        """Join, assign, restore, claim, start: 16 rounds are enough for three workers."""
        for number in range(0, self._ids, 2):
            self._store(Message(number, self.home(number)), self.home(number))
        for _ in range(16):
            for worker in self.workers:
                for thread in (0, 0, 1, 1, 2, 2, 3):
                    worker.step(thread)

    # ---- choices --------------------------------------------------------------------------------

    def home(self, number: int) -> int:
        """The partition of a key."""
        return number % self.partitions

    def message(self, record: Record) -> Message:
        """What lies on `tasks` where `record` came from."""
        item = self.tasks[record.lease.partition].items[record.offset]
        assert item is not None
        assert isinstance(item.value, Message)
        return item.value

    def delay(self, producer: str, epoch: int) -> None:
        """An EndTxn that is on its way; it may arrive at any time, or never."""
        self._late.append((producer, epoch))

    # ---- steps ----------------------------------------------------------------------------------

    def step(self, step: bytes) -> None:
        action, who, x, y = step
        getattr(self, self._actions[action])(self.workers[who % len(self.workers)], x, y)

    def run(self, worker: Worker, x: int, y: int) -> None:
        """A worker's threads, in turn, a few times; sometimes one of them stands still."""
        if x >= 64:
            worker = self._woken(worker)
        threads = RUNNING[y % len(RUNNING)]
        for _ in range(2 << x % 4):
            for thread in threads:
                worker.step(thread)
        if x >= 128:
            self._mark_all()

    def _woken(self, worker: Worker) -> Worker:
        """Nobody stays dead, frozen or drained for long: what does nothing shows nothing."""
        worker.frozen = False
        if worker.draining or not worker.alive:
            worker.crash()
            worker = self.workers[worker.slot] = Worker(self, worker.slot, worker.disk)
        return worker

    def turn(self, worker: Worker, x: int, y: int) -> None:
        """One thread, a few yields on."""
        for _ in range(1 + x // 3 % 8):
            worker.step(x % 3)

    def fail(self, worker: Worker, x: int, y: int) -> None:
        """The next call of its kind goes wrong."""
        kind, ways = FAULTS[x % len(FAULTS)]
        worker.faults.setdefault(kind, []).append(1 + y % ways)

    def produce(self, worker: Worker, x: int, y: int) -> None:
        """A client stores one to three tasks; some are garbage, some on a wrong partition."""
        kind = y % 16
        ids = self._ids
        generation = 2 if kind == 12 else 1 if 9 <= kind < 12 else 0
        for number in range(x % ids, min(x % ids + 1 + y // 16 % 3, ids)):
            home = self.home(number)
            message = Message(number, home, generation, garbage=kind in (13, 15))
            p = (home + 1) % self.partitions if kind >= 14 else home
            self._store(message, p)

    def _store(self, message: Message, p: int) -> None:
        """The broker has acknowledged `message`."""
        self.tasks[p].append(message.key, message)
        self.oracle.accept(message)

    def complete(self, worker: Worker, x: int, y: int) -> None:
        """One to three handlers end, of this worker or of the next that has any: succeeded, dead,
        or to be tried again."""
        busy = [w for w in self.workers if w.alive and not w.frozen and w.running]
        worker = next((w for w in busy if w.slot >= worker.slot), busy[0] if busy else worker)
        for _ in range(1 + y % 3 if busy else 0):
            if not worker.running:
                return
            record = worker.running[x % len(worker.running)]
            if y >= 200:
                worker.complete(record, Outcome(record, Status.DEAD, failure=_FAILED))
            elif y >= 150 and record.seq < 2:
                worker.complete(record, Outcome(record, Status.RETRYING))
            else:
                worker.complete(record, Outcome(record, Status.SUCCEEDED))

    def ask(self, worker: Worker, x: int, y: int) -> None:
        """A client cancels one to three tasks, that have come or not."""
        for number in range(x % self._ids, min(x % self._ids + 1 + y % 3, self._ids)):
            key = b"%d" % number
            accepted = self.oracle.accepted.get(key, 0)
            generation = None if y < 160 else accepted if y < 230 else max(0, accepted - 1)
            control = Control(str(number), CANCEL, 0, generation)
            self.control[self.home(number)].append(key, control)

    def note(self, worker: Worker, x: int, y: int) -> None:
        """A handler has run for a while, or keeps something."""
        if worker.alive and not worker.frozen and worker.running:
            record = worker.running[x % len(worker.running)]
            worker.protocol.note(record, 1, bytes([y]) if y >= 128 else None)

    def survive(self, worker: Worker, x: int, y: int) -> None:
        """A suspect has run for so long that the next one need not wait for it."""
        if worker.alive and not worker.frozen:
            worker.protocol.let_next_suspect()

    def mark(self, worker: Worker, x: int, y: int) -> None:
        """The coordinator writes one of the markers that are due."""
        due = [t for t in self.coordinator.current.values() if t.decision is not None]
        if due:
            self.coordinator.mark(due[x % len(due)], y)

    def crash(self, worker: Worker, x: int, y: int) -> None:
        """SIGKILL; sometimes the disk is gone too."""
        worker.crash()
        if y >= 200:
            worker.disk.clear()

    def restart(self, worker: Worker, x: int, y: int) -> None:
        if not worker.alive:
            self.workers[worker.slot] = Worker(self, worker.slot, worker.disk)

    def freeze(self, worker: Worker, x: int, y: int) -> None:
        """SIGSTOP, or SIGCONT."""
        worker.frozen = not worker.frozen

    def expire(self, worker: Worker, x: int, y: int) -> None:
        """A member's session ends: it is dead, frozen, or cut off."""
        members = sorted(self.group.members)
        if members:
            self.group.expire(members[x % len(members)])

    def take_over(self, worker: Worker, x: int, y: int) -> None:
        """A worker's session ends, most often within a transaction; the others go on, and then
        its poll thread hears of it before its commit thread moves again."""
        if worker.alive and not worker.frozen and worker.client.member is not None:
            self.complete(worker, x, y % 200)
            for _ in range(x % 4):
                worker.step(1)
            self.group.expire(worker.client.member)
            self._others_run(worker, x)
            for _ in range(y % 16):
                worker.step(0)

    def hand_over(self, worker: Worker, x: int, y: int) -> None:
        """A worker gives up waiting for a transaction that has just begun, and lets partitions go;
        by then more are to go. The other workers run before it hears of those."""
        if worker.alive and not worker.frozen:
            self.complete(worker, x, y % 200)
            for _ in range(6):
                if worker.protocol.open is None:
                    worker.step(1)
            self.rebalance(worker, 1 << x % 3, y)
            for _ in range(4):
                worker.step(0)
            self.rebalance(worker, 1 << x // 3 % 3, y)
            worker.faults.setdefault("patience", []).append(1)
            worker.step(0)
            self._others_run(worker, x)
            for _ in range(y % 8):
                worker.step(1)

    def _others_run(self, worker: Worker, x: int) -> None:
        for other in self.workers:
            if other is not worker:
                for _ in range(2 << x // 4 % 5):
                    for thread in (0, 1, 2, 3) if other.running else (0, 2):
                        other.step(thread)

    def rebalance(self, worker: Worker, x: int, y: int) -> None:
        """Partitions move, as when a member joins or leaves."""
        self.group.rotation ^= x % 8
        self.group.rebalance()

    def heartbeat(self, worker: Worker, x: int, y: int) -> None:
        if worker.alive and not worker.frozen:
            self.group.heartbeat(worker.client)

    def time_out(self, worker: Worker, x: int, y: int) -> None:
        """A transaction has been open for too long."""
        producers = sorted(self.coordinator.current)
        if producers:
            self.coordinator.time_out(producers[x % len(producers)])

    def arrive(self, worker: Worker, x: int, y: int) -> None:
        """A late EndTxn arrives, or never will; what was left behind goes on."""
        worker.stir()
        if self._late:
            producer, epoch = self._late.pop(x % len(self._late))
            if y < 200:
                try:
                    self.coordinator.end(producer, epoch, commit=True)
                except Refused:
                    pass

    def compact(self, worker: Worker, x: int, y: int) -> None:
        self.state[x % self.partitions].compact()

    def refetch(self, worker: Worker, x: int, y: int) -> None:
        """A fetch starts over a little earlier."""
        for p, position in worker.client.position.items():
            worker.client.position[p] = max(0, position - x % 4)

    def leave(self, worker: Worker, x: int, y: int) -> None:
        """The consumer failed for good: another one joins."""
        if worker.alive and not worker.frozen:
            worker.leave(is_told=not x % 2)

    def drain(self, worker: Worker, x: int, y: int) -> None:
        """SIGTERM: nothing new is taken; the process ends at a later crash."""
        worker.draining = True
        worker.protocol.close_gates()

    # ---- the end --------------------------------------------------------------------------------

    def settle(self) -> None:
        """No more faults: everything runs to its end, within bounded rounds."""
        self.is_settling = True
        for producer, epoch in self._late:
            try:
                self.coordinator.end(producer, epoch, commit=True)
            except Refused:
                pass
        for worker in list(self.workers):
            self._woken(worker).faults.clear()
        clients = {w.client.member for w in self.workers}
        for member in sorted(set(self.group.members) - clients):
            if isinstance(self.group, ConsumerGroup):
                self.group.expire(member)
        for _ in range(ROUNDS):
            self._round()
            if self._is_done():
                self.oracle.finished()
                return
        raise Violation(f"not done after {ROUNDS} rounds: offsets {self.oracle.offsets}")

    def _round(self) -> None:
        self._mark_all()
        for worker in self.workers:
            worker.stir()
            for record in list(worker.running):
                worker.complete(record, Outcome(record, Status.SUCCEEDED))
            for thread in (0, 0, 0, 1, 1, 1, 2, 2, 3, 3):
                worker.step(thread)

    def _mark_all(self) -> None:
        for transaction in list(self.coordinator.current.values()):
            if transaction.decision is not None:
                self.coordinator.mark_all(transaction)

    def _is_done(self) -> bool:
        for worker in self.workers:
            protocol = worker.protocol
            if protocol.in_flight or protocol.open or protocol.orders_held or worker.running:
                return False
        for p, log in enumerate(self.control):
            if log.read(self.oracle.controls[p], 1)[0]:
                return False
        for p, log in enumerate(self.tasks):
            if log.stable_end != log.end or log.read(self.oracle.offsets[p], 1)[0]:
                return False
        return True
