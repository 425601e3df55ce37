"""Handlers that crash their process, are killed for their memory, or never end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from faults.history import Asked, Identity, Letter
from faults.load import Put
from faults.scene import Scene, Stage
from support.brokers import delete_topics
from support.wire import task_value
from taskmill.runtime.config import Settings

# A killer takes three workers along, and each is missed after its session.
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(200)]

PARTITIONS = 3
#: Sudden ends that a task survives as an innocent one: the default.
CRASH_LOOP_LIMIT = 3
#: So long may it take until the killer is found out.
FOUND_OUT_S = 90.0
#: Every so manieth seed has its killer in a process of its own.
ISOLATED_EVERY = 3


@pytest.fixture(scope="module")
def stage(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Scenes by group protocol whose workers know the deadly handlers, and guard against them."""
    prefix = f"t-{uuid.uuid4().hex[:8]}"

    def make(protocol: str) -> Scene:
        folder = tmp_path_factory.mktemp("handlers")
        settings = Settings(
            bootstrap_servers=broker,
            prefix=f"{prefix}-{folder.name}",
            partitions=PARTITIONS,
            state_dir=folder / "state",
            group_protocol=protocol,
        )
        return Scene(
            settings,
            folder,
            # What still spins is not waited for.
            options=("--drain-timeout", "1s"),
            env={"TASKMILL_CRASH_LOOP_LIMIT": str(CRASH_LOOP_LIMIT)},
            target="faults.deadly:app",
        )

    made = Stage(make)
    yield made
    made.close()
    delete_topics(broker, prefix)


#: What the keys of tasks end with that take their worker along.
KILLERS = (b"segfault", b"oom_kill")


def _put(scene: Scene, seed: int, name: str, args: Any = None) -> bytes:
    """Put a task of the test's own amid the load; its key."""
    id = f"p{scene.point}-{seed}-{name}"
    scene.flow.put_one(Put(Asked(Identity(id.encode())), task_value(id, name, args)))
    return id.encode()


def _letter(scene: Scene, key: bytes) -> Letter | None:
    """The dead letter of a task."""
    sources = {o.source for o in scene.history.outcomes if o.identity.key == key}
    return next((letter for letter in scene.history.letters if letter.source in sources), None)


def _revive(scene: Scene, count: int) -> int:
    """Let others take the places of workers that have ended; how many had."""
    ended = [worker for worker in scene.workers if worker.process.poll() is not None]
    for worker in ended:
        scene.kill(worker)
    scene.keep(count)
    return len(ended)


def _protocol(seed: int) -> str:
    return "classic" if seed % 2 else "consumer"


def _suffer(stage: Stage, seed: int, name: str) -> None:
    """One point: a killer amid the load. It dies of it, and nobody else is to blame."""
    with stage.point(_protocol(seed), seed) as scene:
        _revive(scene, 2)
        scene.load(rate=30)
        scene.somewhere()
        isolated = not seed % ISOLATED_EVERY
        killer = _put(scene, seed, f"{name}_isolated" if isolated else name)
        ends = 0

        def found_out() -> bool:
            nonlocal ends
            ends += _revive(scene, 2)
            return _letter(scene, killer) is not None

        scene.watch.until(found_out, "the killer's dead letter", FOUND_OUT_S)
        ends += _revive(scene, 2)
        letter = _letter(scene, killer)
        assert letter is not None
        print(f"{ends} workers ended")
        if isolated:
            # The child is gone; the worker and its neighbours are not.
            assert (letter.reason, ends) == ("failed", 0)
        else:
            assert letter.reason == "crash_loop"
            assert ends >= CRASH_LOOP_LIMIT
        print(f"drained {scene.heal_and_drain():.1f} s after healing")
        blamed = [x for x in scene.history.letters if x.reason == "crash_loop"]
        # The history is that of all points so far.
        killers = {o.source for o in scene.history.outcomes if o.identity.key.endswith(KILLERS)}
        assert all(x.source in killers for x in blamed), "an innocent task was taken for a killer"


@pytest.mark.proof("handler: segfault")
def test_a_task_that_crashes_its_worker_is_found_out_and_its_neighbours_go_on(
    stage: Stage, seed: int
) -> None:
    _suffer(stage, seed, "segfault")


@pytest.mark.proof("handler: OOM kill")
def test_a_task_for_which_its_worker_is_killed_is_found_out_and_its_neighbours_go_on(
    stage: Stage, seed: int
) -> None:
    _suffer(stage, seed, "oom_kill")


@pytest.mark.proof("handler: endless loop")
def test_neighbours_of_a_handler_that_never_ends_go_on(stage: Stage, seed: int) -> None:
    """In a thread, or in a process of its own; now and then its worker is ended meanwhile."""
    with stage.point(_protocol(seed), seed) as scene:
        _revive(scene, 2)
        scene.load(rate=30)
        scene.somewhere()
        until = str(scene.folder / f"enough-{scene.point}")
        name = "spin_isolated" if not seed % ISOLATED_EVERY else "spin"
        spinning = _put(scene, seed, name, {"until": until})

        def spins() -> bool:
            scene.watch.take_starts()
            return any(start.identity.key == spinning for start in scene.history.starts)

        scene.watch.until(spins, "the endless loop has begun", 30)
        scene.load(rate=30)
        scene.wait_outcomes(50)
        match scene.dice.randrange(3):
            case 0:
                scene.kill(scene.any_worker())
            case 1:
                scene.end(scene.any_worker())
        scene.keep(2)
        with open(until, "w"):
            pass
        print(f"drained {scene.heal_and_drain():.1f} s after healing")
