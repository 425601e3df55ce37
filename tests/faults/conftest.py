"""The stage of the fault tests: scenes on the run's broker that last for a module's points."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from faults.scene import Stage, make_scenes
from support.brokers import delete_topics


@pytest.fixture(scope="module")
def stage(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Scenes by group protocol, "classic" or "consumer"."""
    prefix = f"t-{uuid.uuid4().hex[:8]}"
    made = Stage(make_scenes(broker, prefix, tmp_path_factory))
    yield made
    made.close()
    delete_topics(broker, prefix)
