"""`topics migrate` killed at any point, and beside a producer that was not stopped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from support.migrations import Command, Goer, Scene, migrate
from taskmill.consumer.admin import Admin
from taskmill.consumer.migrate_steps import MOVED
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.topics import Kind, Topics, ensure

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

#: After which progress to kill it; each phase is in there, and places inside.
POINTS = [
    None,
    r"^copying \(",
    r"^swapping state",
    r"^deleting \S+\.state\.",
    r"^filling \S+\.state\.",
    r"^counting \S+\.state\.",
    r"^deleting \S+\.results\.",
    r"^closing tasks",
    r"^swapping tasks",
    r"^deleting \S+\.tasks\.",
    r"^filling \S+\.tasks\.",
    r"^counting \S+\.tasks\.",
    r"^clearing up",
]


@pytest.mark.kill
@pytest.mark.proof("migrate killed")
def test_killed_at_any_point_the_same_command_goes_on(
    half: Callable[..., Scene], tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    dice = Random(seed)
    old, new = (2, 3) if seed % 2 else (3, 2)
    scene = half(old, many=30)
    # In order: what was passed does not come again.
    kills = sorted(dice.sample(range(len(POINTS)), 2))
    for point in kills:
        command = Command(scene.settings, tmp_path, new)
        # Before its first word it starts Python, and asks what there is.
        wait_s = dice.uniform(0.3, 2.5) if POINTS[point] is None else dice.uniform(0, 0.15)
        if POINTS[point] is None or command.until(POINTS[point]):
            time.sleep(wait_s)
        command.kill()
        print(f"killed {wait_s:.3f} s after {POINTS[point]}: {command.lines[-1:]}")
    last = Command(scene.settings, tmp_path, new)
    assert last.end() == 0, last.lines
    print("\n".join(last.lines))
    scene.goes_on(new)


@pytest.mark.parametrize(("old", "new"), [(2, 3), (3, 2)])
def test_what_a_producer_got_acknowledged_meanwhile_is_not_lost(
    half: Callable[..., Scene], old: int, new: int
) -> None:
    scene = half(old, many=30)
    goer = Goer(scene.settings, scene.oracle.tasks)
    done = migrate(scene.settings, "--partitions", str(new), "--yes", "--json")
    goer.end()
    assert done.exit_code == 0, done.output
    print(f"{len(goer.acked)} acknowledged, {goer.refused} refused")
    assert goer.acked
    # Closed, and gone for a moment: of what was not taken, it was told.
    assert len(goer.acked) + goer.refused.total() == goer.sent
    scene.waiting += goer.acked
    scene.goes_on(new)


@pytest.mark.parametrize("kind", MOVED)
def test_stopped_between_a_topics_deletion_and_its_making_nobody_makes_an_empty_one(
    half: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    scene = half(2, many=30)
    gone = Topics(scene.settings.prefix, "default").name(kind)
    make = Admin.make

    def stop_before(self: Admin, topic: str, *rest: Any) -> None:
        if topic == gone:
            raise KeyboardInterrupt
        make(self, topic, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Admin, "make", stop_before)
        stopped = migrate(scene.settings, "--partitions", "3", "--yes")
    assert stopped.exit_code == 130, stopped.output
    finish = "finish `taskmill topics migrate -q default --partitions 3`"
    line = f"queue 'default' is being migrated ({gone} is still to be made): {finish}"
    with scene.worker() as worker:
        assert worker.wait() == 2
        assert worker.lines[-1] == f"taskmill: {line}"
    with pytest.raises(ConfigError, match=re.escape(line)):
        ensure(scene.settings, "default")
    assert gone not in scene.topics()
    gone_on = migrate(scene.settings, "--partitions", "3", "--yes")
    assert gone_on.exit_code == 0, gone_on.stderr
    scene.goes_on(3)
