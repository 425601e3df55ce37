"""What QueueWatch tells of queues, against what was done to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.letters import PARTITIONS, LetterBox
from support.queues import Queue
from support.workers import Gate
from taskmill._version import __version__
from taskmill.console.queues import QueueView, QueueWatch
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import Unreachable
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]


@pytest.fixture
def watch(settings: Settings) -> Iterator[QueueWatch]:
    with closing(QueueWatch(settings)) as one:
        yield one


def until(
    watch: QueueWatch, done: Callable[[QueueView], bool], queue: str = "default"
) -> QueueView:
    """The first view of `queue` that is as it should be."""
    deadline = time.monotonic() + 30
    while True:
        (view,) = [one for one in watch.look() if one.queue == queue]
        if done(view):
            return view
        assert time.monotonic() < deadline, view


def test_a_queue_is_followed_from_empty_to_lagging_to_idle(
    settings: Settings, tmp_path: Path, watch: QueueWatch
) -> None:
    assert watch.look() == []
    with Queue(settings, tmp_path) as queue, Gate() as gate:
        (view,) = watch.look()
        assert (view.queue, view.depth.lag, view.depth.depth) == ("default", (0, True), (0, True))
        assert (view.depth.oldest_age_ms, view.paused, view.members) == (None, False, ())
        assert {view.state(p) for p in view.depth.partitions} == {"unowned"}
        began = time.time_ns() // 1_000_000
        queue.oracle.put_tasks(["a", "b", "c"], "gated")
        view = until(watch, lambda v: v.depth.lag == (3, True))
        assert 0 <= (view.depth.oldest_age_ms or -1) <= view.depth.at - began + 1_000
        queue.add(env=gate.env).wait_ready(2)
        gate.wait_begun("a", "b", "c")
        view = until(watch, lambda v: len(v.members) == 1 and v.members[0].partitions == (0, 1))
        assert view.depth.lag == (3, True), "what runs is not done"
        assert view.members[0].version == __version__
        assert view.members[0].worker is not None
        assert view.members[0].client_id.endswith("-default")
        assert view.members[0].host == "127.0.0.1"
        gate.open()
        queue.oracle.wait_states(["a", "b", "c"])
        view = until(watch, lambda v: v.depth.lag == (0, True))
        assert view.depth.oldest_age_ms is None
        assert {view.state(p) for p in view.depth.partitions} <= {"at work", "assigned"}
        view = until(watch, lambda v: (v.rate_in, v.rate_out) == (0, 0))


def test_a_queue_that_ends_in_markers_reads_idle(
    settings: Settings, tmp_path: Path, watch: QueueWatch
) -> None:
    with Queue(settings, tmp_path) as queue:
        queue.add().wait_ready(2)
        # Transactions write their children, and markers behind them.
        queue.oracle.put_tasks(["p"], "flaky", {"fails": 1})
        queue.add(target="", role="scheduler").wait_for("passing on")
        queue.oracle.wait_state("p")
        view = until(watch, lambda v: v.depth.depth == (0, True))
        ends = {p.partition: p.end for p in view.depth.partitions}
        assert any((p.committed or 0) < ends[p.partition] for p in view.depth.partitions), (
            "a marker lies behind the last record"
        )
        assert view.depth.retrying
        assert all(one == (0, True) for one in view.depth.retrying.values())


def test_what_waits_for_its_time_is_counted(
    settings: Settings, tmp_path: Path, watch: QueueWatch
) -> None:
    with Queue(settings, tmp_path) as queue:
        worker = queue.add()
        worker.wait_ready(2)
        queue.oracle.put_tasks(["r"], "flaky", {"fails": 1})
        # No scheduler: it stays there.
        view = until(watch, lambda v: sum(w.records for w in v.depth.retrying.values()) == 1)
        assert all(one.is_exact for one in view.depth.retrying.values())
        queue.oracle.put_tasks(["d", "e"], "flaky", {"fails": 1, "wait": "1h"})
        view = until(watch, lambda v: v.depth.delayed == (2, True) and v.depth.lag == (0, True))
        assert view.depth.depth == (3, True)
        assert watch.look(60.0)[0] is not None
        again = until(watch, lambda v: True)
        assert again.depth.delayed == (2, True)
        assert (again.depth.letters, again.depth.depth) == ((0, True), (3, True))


def test_letters_count_until_they_are_replayed(
    letters: LetterBox, command: Callable[..., object], watch: QueueWatch
) -> None:
    letters.add().wait_ready(PARTITIONS)
    letters.die(["a", "b", "c"])
    assert until(watch, lambda v: v.depth.letters == (3, True))
    letters.mend()
    command("dlq", "replay", "--id", "b", "--yes")
    assert until(watch, lambda v: v.depth.letters == (2, True))


def test_every_queue_is_found_and_nothing_else(settings: Settings, watch: QueueWatch) -> None:
    for queue in ("b", "a-1"):
        ensure(settings, queue)
    other = settings.model_copy(update={"prefix": f"{settings.prefix}x"})
    ensure(other, "c")
    assert [view.queue for view in watch.look()] == ["a-1", "b"]
    first = watch.look(60.0)
    assert watch.look(60.0) is first


def test_without_kafka_it_says_so(tmp_path: Path) -> None:
    settings = Settings(
        bootstrap_servers="127.0.0.1:1", state_dir=tmp_path, kafka={"log_level": "0"}
    )
    with (
        closing(QueueWatch(settings)) as watch,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"),
    ):
        watch.look()
