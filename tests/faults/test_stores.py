"""Local stores lost, damaged, old or of something else, between a worker's end and its restart.

A local store is a cache of its topic: whatever becomes of it, no ID runs twice and none is taken
for done that is not.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.scene import Scene, Stage
from taskmill.consumer.table import unpack
from taskmill.runtime.store_lmdb import DATA_FILE, Claim, Identity, LmdbStore
from taskmill.runtime.store_lmdb import read_header as header_of
from taskmill.schemas.states import TERMINAL

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(120)]

#: Static membership: a killed worker that is started again has its partitions at once.
PROTOCOL = "classic"
#: More IDs than a point puts on the topic.
MANY = 3_000


def _stores(scene: Scene) -> list[Path]:
    """The stores of the one worker there is, by partition."""
    queue = scene.settings.state_dir / "slots" / "0" / "default"
    return [queue / str(p) for p in range(scene.settings.partitions)]


def _work_and_kill(scene: Scene) -> None:
    scene.keep(1)
    scene.load()
    scene.somewhere()
    (worker,) = scene.workers
    if scene.dice.random() < 0.2:
        scene.end(worker)
    else:
        scene.kill(worker)


def _restored(scene: Scene, hurt: Callable[[Path], None]) -> None:
    """Kill, `hurt` one store or all, start again, and see that all is well."""
    _work_and_kill(scene)
    stores = _stores(scene)
    for store in stores if scene.dice.random() < 0.5 else [scene.dice.choice(stores)]:
        hurt(store)
    _goes_on(scene)


def _goes_on(scene: Scene) -> None:
    scene.keep(1)
    print(f"drained {scene.heal_and_drain():.1f} s after the restart")


@pytest.mark.proof("local store deleted")
def test_a_deleted_store_is_rebuilt(stage: Stage, seed: int) -> None:
    with stage.point(PROTOCOL, seed) as scene:
        whole = scene.dice.random() < 0.5
        _restored(scene, lambda at: shutil.rmtree(at) if whole else (at / DATA_FILE).unlink())


@pytest.mark.proof("local store truncated")
def test_a_truncated_store_is_rebuilt(stage: Stage, seed: int) -> None:
    with stage.point(PROTOCOL, seed) as scene:

        def truncate(at: Path) -> None:
            with (at / DATA_FILE).open("r+b") as file:
                file.truncate(scene.dice.randrange((at / DATA_FILE).stat().st_size))

        _restored(scene, truncate)


@pytest.mark.proof("local store zeroed")
def test_a_store_of_zeros_or_with_a_stretch_of_them_is_rebuilt(stage: Stage, seed: int) -> None:
    with stage.point(PROTOCOL, seed) as scene:

        def zero(at: Path) -> None:
            size = (at / DATA_FILE).stat().st_size
            begin, end = sorted(scene.dice.randrange(size + 1) for _ in range(2))
            if scene.dice.random() < 0.3:
                begin, end = 0, size
            with (at / DATA_FILE).open("r+b") as file:
                file.seek(begin)
                file.write(bytes(end - begin))

        _restored(scene, zero)


@pytest.mark.proof("local store stale: an older copy put back")
def test_an_older_copy_of_a_store_is_brought_up_to_date(
    stage: Stage, seed: int, tmp_path: Path
) -> None:
    with stage.point(PROTOCOL, seed) as scene:
        _work_and_kill(scene)
        for store in _stores(scene):
            shutil.copytree(store, tmp_path / store.name)

        def put_back(at: Path) -> None:
            shutil.rmtree(at)
            shutil.copytree(tmp_path / at.name, at)

        _restored(scene, put_back)


@pytest.mark.proof("local store of another topic, another partition, or ahead of its topic")
def test_a_store_of_something_else_is_not_believed(stage: Stage, seed: int) -> None:
    """It says that the tasks to come are done: a worker that believed it would run none of them."""
    with stage.point(PROTOCOL, seed) as scene:
        kind = scene.dice.choice(["other topic", "other partition", "ahead"])
        print(kind)

        def forge(at: Path) -> None:
            header = header_of(at)
            assert header is not None
            identity, offset = header.identity, header.checkpoint
            if kind == "other topic":
                name = identity.topic_id.rsplit("/", 1)[0]
                identity = identity._replace(topic_id=f"{name}/{uuid.uuid4()}")
            elif kind == "other partition":
                identity = identity._replace(partition=identity.partition + 1)
            else:
                offset += 1_000_000
            _poison(at, identity, offset, scene.next_ids(MANY))

        _restored(scene, forge)
        (worker,) = scene.workers
        worker.wait_for("is rebuilt: it (is a copy of|reaches offset)")


def _poison(at: Path, identity: Identity, offset: int, ids: list[bytes]) -> None:
    """Make the store at `at` one of `identity` that reaches `offset`, where `ids` are done."""
    store = LmdbStore(Claim(at), identity)
    done = [value for _, value in store.items() if unpack(value).status in TERMINAL]
    store.apply([(id, done[0]) for id in ids if done], offset)
    store.close(clean=True)
