"""Each behaviour is shown in both worlds; one Kafka serves all of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from behaviour.shop import Notes, make_shop
from behaviour.worlds import Kafka, Memory, World
from support.brokers import delete_topics
from taskmill import App, Settings


@pytest.fixture(scope="module")
def kafka(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    folder = tmp_path_factory.mktemp("behaviour")
    settings = Settings(
        bootstrap_servers=broker,
        prefix=f"b-{uuid.uuid4().hex[:8]}",
        partitions=2,
        state_dir=folder / "state",
        retry_tiers=("100ms", "1s"),
    )
    with Kafka(settings, folder) as world:
        yield world
    delete_topics(broker, settings.prefix)


@pytest.fixture(scope="module")
def shop() -> tuple[Notes, App]:
    notes = Notes()
    return notes, make_shop(notes)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "kafka":
        yield request.getfixturevalue("kafka")
    else:
        with Memory(*request.getfixturevalue("shop")) as one:
            yield one
