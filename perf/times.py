"""How long do start, drain, take-over and rebalances take?

Seen from outside, by the offsets that the group commits, under a steady trickle of no-op tasks to
every partition. A pause is the longest that any partition stood still while a worker joined, left,
or was killed; "undisturbed" is the same without any of it. Workers are `taskmill worker` processes,
each with a state directory of its own, as on machines of their own.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fleet import Fleet, Progress, Trickle
from load import PARTITIONS, Sender, balanced, fill, fresh, settings_of, tasks
from measure import Figure, broker, median, quantile, report, sized, title

from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics

#: A second's tasks: twenty to each partition, so that a partition stands still for 50 ms as a rule.
RATE = 20 * PARTITIONS
NAP_MS = 50


@contextmanager
def trickling(settings: Settings) -> Iterator[None]:
    """Tasks arrive evenly, meanwhile."""
    ending = threading.Event()

    def produce() -> None:
        sender, step = Sender(settings, Topics(settings.prefix, "default").tasks), 0.05
        ids, due = balanced(10**9, settings.partitions), time.monotonic()
        while not ending.is_set():
            some = [next(ids) for _ in range(int(RATE * step))]
            sender.send(tasks(some, settings.partitions))
            due += step
            ending.wait(max(0.0, due - time.monotonic()))
        sender.flush()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def start_and_drain(settings: Settings, busy: int) -> dict[str, float]:
    """Seconds from the command to the first outcome, to one of every partition; and from SIGTERM
    under a backlog of `busy` tasks of 50 ms to the end."""
    found = {}
    fill(settings, balanced(settings.partitions, settings.partitions))
    with Progress(settings) as progress:
        with Fleet(settings) as fleet:
            found["first"] = progress.wait(1) - fleet.began
            found["every"] = progress.wait(settings.partitions) - fleet.began
            found["idle drain"] = fleet.drain()
        fill(settings, (f"busy-{n}" for n in range(busy)), "nap", b'{"ms":%d}' % NAP_MS)
        with Fleet(settings) as fleet:
            before = progress.wait(settings.partitions + 1) - fleet.began
            found["again"] = before
            found["busy drain"] = fleet.drain()
            assert sum(progress.offsets()) < settings.partitions + busy, "it drained in mid-work"
    return found


def pauses(settings: Settings) -> dict[str, float]:
    """The longest pause of any partition while a worker joins, leaves, and is killed."""
    fill(settings, ())
    found = {}
    half = settings.partitions // 2
    with Progress(settings) as progress, trickling(settings), Fleet(settings) as first:
        first.wait_for(rf"ready: {settings.partitions} partitions")
        progress.wait(RATE)
        watch = Trickle(progress)
        time.sleep(2)
        found["undisturbed"] = watch.longest()
        for end in ("leaves", "is killed"):
            watch.reset()
            with Fleet(settings, node=end) as second:
                second.wait_for(rf"ready: {half} partitions")
                found["joins"] = max(found.get("joins", 0.0), watch.longest())
                watch.reset()
                if end == "leaves":
                    second.drain()
                else:
                    second.kill()
                found[end] = watch.longest()
        watch.close()
        first.drain()
    return found


def figures_of(
    starts: list[dict[str, float]], by_protocol: dict[str, list[dict[str, float]]]
) -> list[Figure]:
    """Medians, and the worst of what a user waits for."""

    def figure(name: str, values: list[float]) -> list[Figure]:
        return [
            Figure(name, median(values), "s", "lower"),
            Figure(f"{name}, worst", quantile(values, 1.0), "s", "lower"),
        ]

    rows: list[Figure] = []
    for name, key in (
        ("start to the first outcome", "first"),
        ("start to an outcome of every partition", "every"),
        ("restart to the first outcome", "again"),
        ("drain, idle", "idle drain"),
        ("drain, at work on tasks of 50 ms", "busy drain"),
    ):
        rows += figure(name, [one[key] for one in starts])
    names = {"undisturbed": "undisturbed", "joins": "a worker joins", "leaves": "a worker leaves",
             "is killed": "a worker is killed"}  # fmt: skip
    for protocol, runs in by_protocol.items():
        for key, name in names.items():
            rows += figure(f"pause, {name} ({protocol})", [one[key] for one in runs])
    return rows


def main() -> int:
    options = sized(__doc__, "3 minutes", runs=(3, 1), busy=(6_000, 2_000))
    with broker() as bootstrap, tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        starts, by_protocol = [], {}
        for _ in range(options.runs):
            starts.append(start_and_drain(settings_of(bootstrap, fresh("t"), folder), options.busy))
        print(starts[-1], file=sys.stderr)
        for name, protocol in (("KIP-848", "consumer"), ("classic", "classic")):
            by_protocol[name] = [
                pauses(settings_of(bootstrap, fresh("p"), folder, group_protocol=protocol))
                for _ in range(options.runs)
            ]
            print(name, by_protocol[name][-1], file=sys.stderr)
    settings_ = {
        "runs": options.runs, "partitions": PARTITIONS, "tasks a second": RATE,
        "session time-out": "6 s",
    }  # fmt: skip
    figures, kept = figures_of(starts, by_protocol), not options.quick
    return 0 if report("times", title(__doc__), figures, settings_, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
