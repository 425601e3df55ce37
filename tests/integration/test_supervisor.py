"""`worker --processes N`: shared work, sudden deaths, and every way to end it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import IsolationLevel

from support.oracle import Oracle, Put
from support.proof import fresh_seeds
from support.queues import Queue
from support.wire import task_value
from support.witness import Witness
from support.workers import JOBS, Gate, WorkerProcess
from taskmill.runtime.config import Settings

PARTITIONS = 4
#: Known ones, and some that nobody has tried yet; an even one runs under KIP-848.
SEEDS = [1, 2, 3, *fresh_seeds("supervisor", 2)]
TASKS = 3000
#: Put each time that the worker was caught between transactions: more than is done meanwhile.
MORE = 50
#: The tests' App, but a worker that starts while there is a file `hold` gets no further.
HELD = """
import time
from pathlib import Path
from support.jobs import app
while Path("hold").exists():
    time.sleep(0.01)
"""
#: A transaction takes some 10 ms; one that stands still for so long is its frozen worker's.
STANDSTILL_S = 0.3


class Scene(Queue):
    """A queue, a gate, and a supervisor of two workers."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(Settings(**{**settings.model_dump(), "partitions": PARTITIONS}), folder)
        self.gate = Gate()

    def start(self, *options: str, target: str = JOBS) -> WorkerProcess:
        """Two workers, both with partitions: the second has taken its half from the first."""
        supervisor = self.add("--processes", "2", *options, target=target, env=self.gate.env)
        for slot in (0, 1):
            supervisor.wait_for(rf"\[slot {slot}\] .*ready: \d partitions", timeout_s=60)
        return supervisor

    def start_with_running(self, *ids: str, options: tuple[str, ...] = ()) -> WorkerProcess:
        supervisor = self.start(*options)
        self.oracle.put_tasks(ids, "gated")
        self.gate.wait_begun(*ids)
        return supervisor

    def close(self) -> None:
        self.gate.close()
        super().close()


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    with Scene(settings, tmp_path) as one:
        yield one


def workers_of(supervisor: WorkerProcess) -> dict[int, int]:
    """The pid of the newest worker in each slot."""
    lines = re.findall(r"\[slot (\d+)\] .* pid (\d+)$", supervisor.log, re.MULTILINE)
    return {int(slot): int(pid) for slot, pid in lines}


def all_ended(supervisor: WorkerProcess, timeout_s: float) -> bool:
    """Whether the workers end in time too: they hold their supervisor's stderr open."""
    supervisor._reader.join(timeout_s)
    return not supervisor._reader.is_alive()


# ---- shared work --------------------------------------------------------------------------------


@pytest.mark.kafka
def test_the_workers_share_the_partitions_and_each_task_runs_once(scene: Scene) -> None:
    supervisor = scene.start()
    ids = [f"t{n}" for n in range(200)]
    scene.oracle.put_tasks(ids, "noop")
    scene.oracle.wait_states(ids)
    scene.oracle.wait_consumed()
    states = scene.oracle.check(ids)
    slots = {s["worker"].rsplit(".", 1)[1] for found in states.values() for s in found}
    assert slots == {"0", "1"}
    assert len(set(workers_of(supervisor).values())) == 2
    assert supervisor.terminate() == 0, supervisor.log
    assert supervisor.log.count("lifespan ends") == 2


# ---- sudden deaths ------------------------------------------------------------------------------


class Frozen:
    """Stops a worker with SIGSTOP in the middle of a transaction, as seen from outside.

    `more` puts further tasks: a worker without work has no transactions.
    """

    def __init__(
        self, oracle: Oracle, pid: int, random: Random, more: Callable[[], object]
    ) -> None:
        self._oracle = oracle
        self._pid = pid
        deadline = time.monotonic() + 30
        while True:
            # The point in the commit cycle, which takes about this long.
            time.sleep(random.uniform(0, 0.05))
            os.kill(pid, signal.SIGSTOP)
            #: Partitions of `state` that a reader cannot finish, and the ends that it waits for.
            self.held = self._standing_still()
            if self.held:
                return
            os.kill(pid, signal.SIGCONT)
            more()
            assert time.monotonic() < deadline, "no transaction was open, however often we looked"

    def _standing_still(self) -> dict[int, int]:
        ends, stable = self._ends()
        held = {p: end for p, end in ends.items() if stable[p] < end}
        until = time.monotonic() + STANDSTILL_S
        while held and time.monotonic() < until:
            later = self._ends()[1]
            held = {p: end for p, end in held.items() if later[p] == stable[p]}
        return held

    def _ends(self) -> tuple[dict[int, int], dict[int, int]]:
        topic = self._oracle.state
        ends = self._oracle.ends(topic, IsolationLevel.READ_UNCOMMITTED)
        return ends, self._oracle.ends(topic, IsolationLevel.READ_COMMITTED)


@pytest.mark.kafka
@pytest.mark.kill
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_killed_in_a_transaction_holds_up_no_reader_and_loses_nothing(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    protocol = "classic" if seed % 2 else "consumer"
    scene = Scene(Settings(**{**settings.model_dump(), "group_protocol": protocol}), tmp_path)
    (tmp_path / "held.py").write_text(HELD)
    hold = tmp_path / "hold"
    try:
        # Few at once, so that work lasts and transactions are many.
        supervisor = scene.start("--concurrency", "10", target="held:app")
        ids: list[str] = []

        def put(count: int) -> None:
            new = [f"t{n}" for n in range(len(ids), len(ids) + count)]
            ids.extend(new)
            scene.oracle.put_all(
                Put(id.encode(), task_value(id, "nap", {"ms": random.uniform(0, 40)})) for id in new
            )

        put(TASKS)
        with Witness(scene.oracle.bootstrap, [scene.oracle.state]) as witness:
            wanted = random.randrange(1, TASKS // 4)
            witness.until(lambda: len(witness.ended) >= wanted, f"{wanted} outcomes")
            slot, victim = random.choice(sorted(workers_of(supervisor).items()))
            frozen = Frozen(scene.oracle, victim, random, lambda: put(MORE))
            # Its successor, which ends its transactions too, does not come in time to help.
            hold.touch()
            os.kill(victim, signal.SIGKILL)
            began = time.monotonic()
            witness.until(
                lambda: witness.has_reached(scene.oracle.state, frozen.held), "the held records", 2
            )
            print(f"readers of {frozen.held} went on after {time.monotonic() - began:.2f} s")
            supervisor.wait_for(
                rf"slot {slot} \(pid {victim}\) ended with signal SIGKILL; "
                r"its transactions ended in .* s; a new one starts in 0.1 s"
            )
            hold.unlink()
            done = {id.encode() for id in ids}
            witness.until(lambda: done <= witness.ended, "all outcomes", 90)
        scene.oracle.wait_consumed()
        assert workers_of(supervisor)[slot] != victim
        assert supervisor.terminate() == 0, supervisor.log
        scene.oracle.check(ids)
    finally:
        scene.close()


def test_a_worker_that_dies_again_and_again_is_started_ever_later(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text("import os\nos._exit(7)\n")
    settings = Settings(bootstrap_servers="127.0.0.1:9", state_dir=tmp_path / "state")
    with WorkerProcess(settings, tmp_path, "--processes", "2", target="dying:app") as supervisor:
        for number in (0, 1):
            for pause in ("0.1", "0.2", "0.4"):
                supervisor.wait_for(
                    rf"process {number} \(pid \d+\) ended with exit code 7; "
                    rf"a new one starts in {pause} s$"
                )
        # 1: one was just about to die by itself.
        assert supervisor.terminate(15) in (0, 1), supervisor.log


# ---- the end ------------------------------------------------------------------------------------


@pytest.mark.kafka
def test_sigterm_lets_what_runs_in_every_worker_end(scene: Scene) -> None:
    ids = [f"t{n}" for n in range(20)]
    supervisor = scene.start_with_running(*ids)
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_for(r"\] .*draining, 30 s at the most", times=2)
    scene.gate.open()
    assert supervisor.wait() == 0, supervisor.log
    scene.oracle.check(ids)
    assert sorted(scene.gate.begun) == sorted(ids)


@pytest.mark.kafka
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_is_no_second_signal_to_the_workers(
    scene: Scene, number: signal.Signals
) -> None:
    ids = [f"t{n}" for n in range(20)]
    supervisor = scene.start_with_running(*ids)
    os.killpg(supervisor.pid, number)
    supervisor.wait_for(r"\] .*draining, 30 s at the most", times=2)
    scene.gate.open()
    assert supervisor.wait() == 0, supervisor.log
    scene.oracle.check(ids)


@pytest.mark.kafka
def test_a_second_signal_kills_the_workers_at_once_and_what_ran_is_run_again(scene: Scene) -> None:
    ids = [f"t{n}" for n in range(20)]
    supervisor = scene.start_with_running(*ids)
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_for(r"\] .*draining", times=2)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait(5) == 1
    assert "killed 2: what they ran will run again elsewhere" in supervisor.log
    assert all_ended(supervisor, 5)
    told = [s["status"] for found in scene.oracle.states().values() for s in found]
    assert set(told) <= {"running"}, "a slow machine may have told of it"
    scene.start()
    scene.gate.wait_begun(*ids, times=2)
    scene.gate.open()
    scene.oracle.wait_states(ids)
    scene.oracle.wait_consumed()
    scene.oracle.check(ids)


@pytest.mark.kafka
def test_at_the_drain_timeout_the_workers_leave_the_rest_and_the_exit_code_tells(
    scene: Scene,
) -> None:
    supervisor = scene.start_with_running("slow", options=("--drain-timeout", "1s"))
    assert supervisor.terminate() == 1
    assert "not drained in time" in supervisor.log
    assert "killed" not in supervisor.log


@pytest.mark.kafka
def test_workers_whose_supervisor_is_killed_drain_and_end(scene: Scene) -> None:
    ids = [f"t{n}" for n in range(20)]
    supervisor = scene.start_with_running(*ids)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait_for("the supervisor is gone", times=2)
    supervisor.wait_for(r"\] .*draining, 30 s at the most", times=2)
    scene.gate.open()
    assert all_ended(supervisor, 30)
    assert supervisor.log.count("lifespan ends") == 2
    scene.oracle.check(ids)
    assert sorted(scene.gate.begun) == sorted(ids)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("from taskmill import Ap", "importing wrong failed: ImportError"),
        ("from taskmill import App\napp = App('a', partitions=0)", "setting partitions"),
    ],
)
def test_a_wrong_configuration_ends_all_with_code_2_and_one_line(
    tmp_path: Path, source: str, says: str
) -> None:
    (tmp_path / "wrong.py").write_text(source)
    settings = Settings(bootstrap_servers="127.0.0.1:9", state_dir=tmp_path / "state")
    with WorkerProcess(settings, tmp_path, "--processes", "3", target="wrong:app") as supervisor:
        assert supervisor.wait() == 2, supervisor.log
    told = [line for line in supervisor.lines if says in line]
    assert len(told) == 1, supervisor.log
    assert told[0].startswith("taskmill: ")
    assert "Traceback" not in supervisor.log
    assert "a new one starts" not in supervisor.log
