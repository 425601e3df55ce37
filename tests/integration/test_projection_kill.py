"""Consoles killed with SIGKILL while they project: rows and offsets are of one transaction."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread

import pytest

from support.postgres import Postgres
from support.projected import Picture, expected, picture, records_of
from support.projecting import Life, caught_up, child, kill, projecting
from support.proof import fresh_seeds
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(180)]

SEEDS = [1, fresh_seeds("projection", 1)[0]]
KILLS, BATCHES = 6, 60


def of_store(settings: Settings, url: str) -> Picture:
    """What a store says once it knows all."""
    with projecting(settings, url) as (store, _):
        caught_up(store)
        return picture(store)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_rows_are_the_fold_of_the_topics_whatever_was_killed_when(
    settings: Settings, tmp_path: Path, request: pytest.FixtureRequest, kind: str, seed: int
) -> None:
    print(f"seed {seed}")
    ensure(settings, "default")
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("killed", "rebuilt")]
    if kind == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        name = settings.prefix.replace("-", "_")
        urls = [postgres.database(f"{name}_{n}") for n in ("killed", "rebuilt")]
    life = Life(settings, seed)

    def live() -> None:
        for _ in range(BATCHES):
            life.some(40)
            time.sleep(0.05)

    load = Thread(target=live)
    load.start()
    random = type(life.random)(seed)
    for _ in range(KILLS):
        process = child(settings, urls[0])
        # From before its first transaction to after many.
        time.sleep(random.uniform(0.1, 1.2))
        kill(process)
    load.join()
    truth = expected(records_of(settings))
    assert len(truth.tasks) > BATCHES * 20
    assert of_store(settings, urls[0]) == truth
    assert of_store(settings, urls[1]) == truth
