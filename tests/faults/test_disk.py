"""Local stores on a disk that fills up to the brim, and has room again later.

As root the disk is a small tmpfs. For others it is a limit on the size of the files that a worker
may write; what its handlers note then goes through a pipe, which knows no such limit.
"""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from faults.app import STARTS
from faults.history import StartFile
from faults.scene import Scene, Stage
from support.brokers import delete_topics
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(150)]

PARTITIONS = 3
#: Room for the stores of all points, and soon filled.
DISK_MB = 32
PAGE = 4096


class Tmpfs:
    """A disk of DISK_MB; full when a file has taken what was left."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        self._filler = self.path / "filler"
        options = f"size={DISK_MB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.path], check=True)

    def fill(self, scene: Scene, dice: Random) -> None:
        """Leave a few pages, or none."""
        left = dice.choice((0, 0, 1, 3, 10)) * PAGE
        with self._filler.open("wb", buffering=0) as filler:
            chunk = bytes(64 * 1024)
            while True:
                try:
                    filler.write(chunk)
                except OSError:
                    if len(chunk) == PAGE:
                        break
                    chunk = bytes(PAGE)
            filler.truncate(max(0, filler.tell() - left))

    def make_room(self, scene: Scene) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)


class Limit:
    """A disk on which no file grows any more: RLIMIT_FSIZE of the workers."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        self._pipe, self.starts = folder / STARTS, folder / "noted"
        os.mkfifo(self._pipe)
        # Held open for writing too, so that it has no end while no handler runs.
        self._file = os.open(self._pipe, os.O_RDWR)
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        with self.starts.open("ab", buffering=0) as noted:
            while lines := os.read(self._file, 64 * 1024):
                noted.write(lines)

    def fill(self, scene: Scene, dice: Random) -> None:
        sizes = [file.stat().st_size for file in self.path.rglob("*.mdb")]
        self._limit(scene, max([PAGE, *sizes]) + dice.choice((0, 1, 3)) * PAGE)

    def make_room(self, scene: Scene) -> None:
        self._limit(scene, resource.RLIM_INFINITY)

    def _limit(self, scene: Scene, size: int) -> None:
        for worker in scene.workers:
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def close(self) -> None:
        os.close(self._file)


class DiskScene(Scene):
    """A scene whose workers' stores are on a disk of their own."""

    def __init__(self, settings: Settings, folder: Path, disk: Tmpfs | Limit) -> None:
        super().__init__(settings, folder)
        self.disk = disk
        if isinstance(disk, Limit):
            self.watch._starts = StartFile(disk.starts)

    def close(self) -> None:
        super().close()
        self.disk.close()


@pytest.fixture(scope="module")
def disks(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Scenes by group protocol, and what their disk is: "classic, tmpfs"."""
    prefix = f"t-{uuid.uuid4().hex[:8]}"

    def make(name: str) -> Scene:
        protocol, _, kind = name.partition(", ")
        folder = tmp_path_factory.mktemp("disk")
        disk = Tmpfs(folder) if kind == "tmpfs" else Limit(folder)
        settings = Settings(
            bootstrap_servers=broker,
            prefix=f"{prefix}-{folder.name}",
            partitions=PARTITIONS,
            state_dir=disk.path,
            group_protocol=protocol,
        )
        return DiskScene(settings, folder, disk)

    stage = Stage(make)
    yield stage
    stage.close()
    delete_topics(broker, prefix)


@pytest.mark.proof("local stores: disk full")
def test_nothing_is_lost_or_done_twice_when_the_disk_of_the_stores_is_full(
    disks: Stage, seed: int
) -> None:
    kind = "tmpfs" if os.geteuid() == 0 else "limit"
    with disks.point(f"{'classic' if seed % 2 else 'consumer'}, {kind}", seed) as scene:
        assert isinstance(scene, DiskScene)
        scene.keep(2)
        scene.load()
        scene.somewhere()
        try:
            scene.disk.fill(scene, scene.dice)
            time.sleep(scene.dice.uniform(0.5, 3))
            if scene.dice.random() < 0.3:
                # Who takes over finds it full.
                scene.kill(scene.any_worker())
                scene.keep(2)
                time.sleep(scene.dice.uniform(0.5, 2))
        finally:
            scene.disk.make_room(scene)
        print(f"drained {scene.heal_and_drain():.1f} s after healing")
