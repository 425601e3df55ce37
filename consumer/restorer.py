"""The restore thread: makes each new partition's table complete before its records run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from taskmill.consumer.commit import AT_WORK
from taskmill.consumer.control_reader import CatchUp
from taskmill.consumer.core import Core
from taskmill.consumer.orders import Order
from taskmill.consumer.protocol import Phase
from taskmill.consumer.record import Lease
from taskmill.consumer.table import Table
from taskmill.runtime.changelog import Changelog, Stopped
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import StoreDamaged
from taskmill.runtime.store_open import open_store
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import Codec

logger = logging.getLogger("taskmill.worker")


#: Half of Kafka's default delete.retention.ms, with which `state` is made: tombstones younger than
#: that are still there, so an older checkpoint may have missed some.
MAX_AGE_MS = 12 * 3_600_000


#: A store that failed (a full disk?) is tried again after this long.
AGAIN_S = 1.0


#: The group's offset in a partition of `control`, and the orders from there on.
Asked = tuple[int, list[Order]] | None


class Restorer:
    """Restores leases one after the other; `restored` is told of each that is complete."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        topics: Topics,
        group: str,
        folder: Path,
        codec: Codec,
        control: CatchUp,
    ) -> None:
        self._codec = codec
        self._control = control
        #: Seconds that each restore took; read by the metrics.
        self.restores: list[float] = []
        self._core = core
        self._settings = settings
        self._topics = topics
        self._group = group
        self._folder = folder
        self._queue: SimpleQueue[list[Lease] | None] = SimpleQueue()
        self.restored: Callable[[Lease], None] = lambda lease: None
        #: Told the seconds that each took.
        self.took: Callable[[float], None] = lambda seconds: None

    def restore(self, leases: list[Lease]) -> None:
        """Queue `leases`; returns at once."""
        if leases:
            self._queue.put(leases)

    def stop(self) -> None:
        self._queue.put(None)

    def run(self) -> None:
        """The thread. Ends after `stop`; a lease that ends meanwhile is given up."""
        changelog = Changelog(self._settings, self._core.clock)
        try:
            while (leases := self._queue.get()) is not None:
                for lease in leases:
                    self._one(changelog, lease)
        finally:
            changelog.close()
            self._control.close()

    def _one(self, changelog: Changelog, lease: Lease) -> None:
        core, p = self._core, lease.partition

        def stop() -> bool:
            return not lease.held or core.stopping.is_set()

        if stop():
            return
        with core.changed:
            # Taken out while it is restored: nothing is delivered then, and a loss of the
            # partition cannot close it under our hands.
            table = core.tables.pop(p, None)
        try:
            # In this order: the stable offset waits for transactions that may yet move it, and
            # what they wrote lies before the end that is asked afterwards.
            found = changelog.stable_offsets(self._group, self._topics.tasks, [p], stop=stop)
            if table is None:
                table = self._open(changelog, p, stop)
            changed = changelog.restore(
                self._topics.state, p, table.store, table.to_puts, stop=stop
            )
            last = found[p]
            unclean = last is not None and last.metadata == AT_WORK
            end = changelog.end_offset(self._topics.tasks, p, stop=stop) if unclean else None
            asked = self._control.read(p, stop)
        except Stopped:
            self._close(table)
            return
        except StoreDamaged as error:
            self._start_over(lease, table, error)
            return
        committed = last.offset if last is not None else None
        if committed is None and changed.end_offset > 0:
            logger.warning(
                "group %s has no offset for %s [%d], whose state reaches %d: was it deleted, or "
                "has it expired? Reading from the earliest record on; what ran is not run again",
                self._group,
                self._topics.tasks,
                p,
                changed.end_offset,
            )
        if unclean:
            logger.info("%s [%d]: its last owner ended without a word", self._topics.tasks, p)
        try:
            self._hand_over(lease, table, committed or 0, end, asked)
        except StoreDamaged as error:
            self._start_over(lease, table, error)
            return
        self.restores.append(changed.seconds)
        self.took(changed.seconds)
        logger.info(
            "restored %s [%d]: %d records in %.2f s, tasks from offset %s",
            self._topics.state,
            p,
            changed.entries,
            changed.seconds,
            committed,
        )

    def _start_over(self, lease: Lease, table: Table | None, error: StoreDamaged) -> None:
        """The store failed under our hands: wipe it and restore anew, after a moment."""
        logger.error("%s; it is wiped and restored anew", error)
        self._close(table, clean=False)
        shutil.rmtree(self._folder / str(lease.partition), ignore_errors=True)
        self._core.stopping.wait(AGAIN_S)
        self._queue.put([lease])

    def _close(self, table: Table | None, *, clean: bool = True) -> None:
        try:
            if table is not None:
                table.close(clean=clean)
        except StoreDamaged as error:
            logger.debug("a store could not be closed: %s", error)

    def _open(self, changelog: Changelog, p: int, stop: Callable[[], bool]) -> Table:
        """The local store of `p`, checked, wiped where it cannot be trusted."""
        state = self._topics.state
        store, why = open_store(
            self._folder / str(p),
            changelog.topic_id(state, stop=stop),
            p,
            changelog.end_offset(state, p, stop=stop),
            MAX_AGE_MS,
            self._core.clock,
        )
        if why is not None:
            logger.warning("local store of %s [%d] is rebuilt: %s", state, p, why)
        return Table(store, self._codec)

    def _hand_over(
        self, lease: Lease, table: Table, committed: int, end: int | None, asked: Asked
    ) -> None:
        """The table is complete: give it to the protocol, if the lease still holds. `end`: of
        `tasks`, where the last owner has not let go; `asked`: what lies on `control`."""
        core, p = self._core, lease.partition
        with core.changed:
            if not lease.held or core.protocol.phase(p) is not Phase.RESTORING:
                self._close(table)
                return
            keys = core.protocol.unknown_marks(lease)
            entries = {
                key: entry
                for key, entry in zip(keys, table.lookup(keys), strict=True)
                if entry is not None
            }
            found = table.lookup([order.mark_key for order in asked[1]]) if asked else []
            core.tables[p] = table
            unclean = end is not None
            start = core.protocol.restored(lease, committed, entries, unclean=unclean, end=end)
            if asked is not None:
                core.told_before(lease, *asked, found)
            core.start(start)
            core.changed.notify_all()
            ready = len(core.tables) == len(core.protocol.partitions)
        core.nudge()
        self.restored(lease)
        if ready:
            logger.info("ready: %d partitions of %s", len(core.tables), self._topics.tasks)
