"""Workers behind a network that is slow, loses data, is cut, or swallows answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from faults.scene import Scene, Stage
from faults.toxiproxy import ProxiedBroker, Toxiproxy, proxied_broker
from support.workers import WorkerProcess
from taskmill.runtime.config import Settings

# Fault, a session at the most, and 30 s to drain.
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(150)]

PARTITIONS = 3
#: Longer than the session of a member, and the commit's own time-out (CALL_TIMEOUT_S, 12 s).
BEYOND_SESSION_S = {"consumer": 4.0, "classic": 7.0}
BEYOND_COMMIT_S = 13.0
#: Seeds that take so long are few: every so manieth.
LONG_EVERY = 6


class NetworkScene(Scene):
    """Its workers are behind the proxy; with `with_direct` one of them is not."""

    def __init__(self, settings: Settings, folder: Path, *, direct: str, with_direct: bool) -> None:
        super().__init__(settings, folder, direct=direct)
        self._with_direct = with_direct
        self._direct_worker: WorkerProcess | None = None

    def start(self, *options: str) -> WorkerProcess:
        self._env.pop("TASKMILL_BOOTSTRAP_SERVERS", None)
        if not self._with_direct or self._direct_worker in self.workers:
            return super().start(*options)
        self._env["TASKMILL_BOOTSTRAP_SERVERS"] = self.bootstrap
        self._direct_worker = super().start(*options)
        return self._direct_worker


@pytest.fixture(scope="module")
def proxied() -> Iterator[ProxiedBroker]:
    with proxied_broker() as one:
        yield one


@pytest.fixture(scope="module")
def network(
    proxied: ProxiedBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, Toxiproxy]]:
    """Scenes by group protocol, "classic" or "consumer", and whether one worker has a direct
    line: "consumer, one direct". Between points the network is as good as new."""

    def make(name: str) -> Scene:
        protocol, _, rest = name.partition(", ")
        folder = tmp_path_factory.mktemp("network")
        settings = Settings(
            bootstrap_servers=proxied.proxied,
            prefix=f"t-{uuid.uuid4().hex[:8]}",
            partitions=PARTITIONS,
            state_dir=folder / "state",
            group_protocol=protocol,
        )
        return NetworkScene(settings, folder, direct=proxied.direct, with_direct=bool(rest))

    stage = Stage(make)
    yield stage, proxied.toxiproxy
    stage.close()


def _protocol(seed: int) -> str:
    return "classic" if seed % 2 else "consumer"


def _suffer(
    network: tuple[Stage, Toxiproxy],
    name: str,
    seed: int,
    fault: Callable[[Toxiproxy, Random], float],
) -> None:
    """One point: load, `fault` (which says how many seconds it lasts), healed, drained, checked."""
    stage, toxiproxy = network
    with stage.point(name, seed) as scene:
        try:
            scene.keep(2)
            scene.load()
            scene.somewhere()
            with scene.cut_off():
                seconds = fault(toxiproxy, scene.dice)
                print(f"for {seconds:.2f} s")
                time.sleep(seconds)
                toxiproxy.heal()
        finally:
            toxiproxy.heal()
        print(f"drained {scene.heal_and_drain():.1f} s after healing")


@pytest.mark.proof("network: latency")
def test_nothing_is_lost_or_done_twice_over_a_slow_network(
    network: tuple[Stage, Toxiproxy], seed: int
) -> None:
    def slow(toxiproxy: Toxiproxy, dice: Random) -> float:
        for stream in ("upstream", "downstream"):
            latency = dice.randrange(5, 400)
            toxiproxy.poison("latency", stream, latency=latency, jitter=dice.randrange(latency))
        return dice.uniform(1, 3)

    _suffer(network, _protocol(seed), seed, slow)


@pytest.mark.proof("network: loss")
def test_nothing_is_lost_or_done_twice_when_connections_break_all_the_time(
    network: tuple[Stage, Toxiproxy], seed: int
) -> None:
    def lossy(toxiproxy: Toxiproxy, dice: Random) -> float:
        stream, share = dice.choice(("upstream", "downstream")), dice.choice((0.3, 1.0))
        match dice.randrange(4):
            case 0:  # closed after so many bytes, most often within a request or an answer
                toxiproxy.poison("limit_data", stream, share, bytes=dice.randrange(200, 50_000))
            case 1:
                toxiproxy.poison("reset_peer", stream, share, timeout=dice.randrange(5, 500))
            case 2:  # nothing passes any more, and then it closes
                toxiproxy.poison("timeout", stream, share, timeout=dice.randrange(50, 1000))
            case _:
                toxiproxy.poison("bandwidth", stream, share, rate=dice.randrange(1, 50))
        return dice.uniform(1, 3)

    _suffer(network, _protocol(seed), seed, lossy)


@pytest.mark.proof("network: cut during a commit")
def test_nothing_is_lost_or_done_twice_when_the_network_is_cut_during_a_commit(
    network: tuple[Stage, Toxiproxy], seed: int
) -> None:
    """One worker is cut off, now and then beyond its session; another goes on."""
    protocol = _protocol(seed)

    def cut(toxiproxy: Toxiproxy, dice: Random) -> float:
        toxiproxy.cut()
        return dice.uniform(0.05, 2) if seed % LONG_EVERY else BEYOND_SESSION_S[protocol]

    _suffer(network, f"{protocol}, one direct", seed, cut)


@pytest.mark.proof("network: requests arrive and answers do not")
def test_nothing_is_lost_or_done_twice_when_commits_happen_and_their_answers_are_lost(
    network: tuple[Stage, Toxiproxy], seed: int
) -> None:
    """Now and then for so long that the outcome of a commit stays unknown."""

    def swallow(toxiproxy: Toxiproxy, dice: Random) -> float:
        toxiproxy.poison("timeout", "downstream", timeout=0)
        return dice.uniform(0.1, 2) if seed % LONG_EVERY else BEYOND_COMMIT_S

    _suffer(network, f"{_protocol(seed)}, one direct", seed, swallow)
