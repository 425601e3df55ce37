"""Opening a local store: walk through it in a child process, compare it with its topic, or wipe it.

A wipe is safe, Kafka holds the truth; it costs a restore from the beginning of the topic.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from functools import cache
from pathlib import Path

from taskmill.runtime import store_check
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.errors import StoreDamaged
from taskmill.runtime.store_lmdb import (
    DATA_FILE,
    FORMAT,
    Claim,
    Identity,
    LmdbStore,
    read_header,
)

#: The walk does 100 MB/s; a child at a tenth of that is not worth waiting for.
_CHILD_S, _CHILD_BYTES_PER_S = 30.0, 10_000_000
#: A file up to this size is read and walked through here: nothing in that can kill a process, it
#: takes 10 ms, and a child's start takes 25, for each of a dozen partitions.
_SMALL_BYTES = 1_000_000
#: Clocks of one machine are stepped by less; a checkpoint further ahead has no age to tell.
_CLOCK_STEP_MS = 60_000


@cache
def boot_id() -> str:
    """Which boot of the machine this is.

    Where the system does not tell (it does on Linux), a new one for each process: every unclean
    end then counts as a crash of the machine, which costs a rebuild and nothing else.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return uuid.uuid4().hex


def open_store(
    path: Path,
    topic_id: str,
    partition: int,
    changelog_end: int,
    max_age_ms: int,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[LmdbStore, str | None]:
    """The store in folder `path`, fit for use, and why it was wiped (None where it was not).

    `topic_id` is the changelog topic's name and UUID, `changelog_end` the offset behind the last
    record of its `partition`, `max_age_ms` the time after which a checkpoint is too old, since
    tombstones that it has not seen may be gone (half of the topic's delete.retention.ms).
    Raises ConfigError where the folder cannot be used or another process uses it.
    """
    identity = Identity(topic_id, partition, boot_id())
    claim = Claim(path)
    try:
        reason = None
        file = path / DATA_FILE
        if file.exists():
            reason = _damage(file) or _unfit(path, identity, changelog_end, max_age_ms, clock)
        if not reason:
            try:
                return LmdbStore(claim, identity, clock), None
            except StoreDamaged as error:
                reason = str(error)
        file.unlink(missing_ok=True)
        return LmdbStore(claim, identity, clock), reason
    except BaseException:
        claim.release()
        raise


def _damage(file: Path) -> str | None:
    """What the walk finds wrong with the file, or that it did not live to say so."""
    size = file.stat().st_size
    if size <= _SMALL_BYTES:
        found = store_check.damage(file.read_bytes())
        return found and f"damaged: {found}"
    limit_s = _CHILD_S + size / _CHILD_BYTES_PER_S
    # -I -S: no environment, no site packages. The child needs neither, and starts in half the time.
    command = [sys.executable, "-I", "-S", store_check.__file__, str(file)]
    try:
        child = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"damaged: the check did not end within {limit_s:.0f} s"
    if child.returncode == 0:
        return None
    said = (child.stdout or child.stderr).decode(errors="replace").strip().splitlines()
    return f"damaged: {said[-1] if said else f'the check ended with {child.returncode}'}"


def _unfit(
    path: Path, identity: Identity, changelog_end: int, max_age_ms: int, clock: Clock
) -> str | None:
    """Why a sound store is no prefix of its changelog, or may not be."""
    try:
        header = read_header(path)
    except StoreDamaged as error:
        return str(error)
    if header is None:
        return "it was never taken into use"
    if header.format != FORMAT:
        return f"it has format {header.format}, this version writes {FORMAT}"
    left = header.identity
    if (left.topic_id, left.partition) != (identity.topic_id, identity.partition):
        return f"it is a copy of {left.topic_id} [{left.partition}]"
    if left.boot_id != identity.boot_id and not header.clean:
        return "the machine went down while it was in use"
    if header.checkpoint > changelog_end:
        return f"it reaches offset {header.checkpoint}, the changelog ends at {changelog_end}"
    age_ms = clock.now_ms() - header.reached_ms
    if not -_CLOCK_STEP_MS <= age_ms <= max_age_ms:
        return f"its checkpoint is {age_ms / 3_600_000:.1f} h old, of {max_age_ms / 3_600_000:.1f}"
    return None
