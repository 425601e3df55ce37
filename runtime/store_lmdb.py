"""The changelog store on LMDB: one environment, in a folder of its own, for each partition.

No write is synced: what a process writes before it is killed stays in the page cache, and a
machine's crash is told at the next opening by a new boot ID (store_open.py). LMDB keeps no
checksums, so each entry carries a CRC-32 of its key and value, verified by the walk at the opening
(store_check.py), not at each look-up.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, TypeVar
from zlib import crc32

import lmdb

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.errors import ConfigError, StoreDamaged
from taskmill.runtime.store import CHUNK, Put
from taskmill.runtime.store_check import ENTRIES

#: Of all that is written here; a store with another one is wiped.
FORMAT: Final = 1
DATA_FILE: Final = "data.mdb"
_IDENTITY, _PROGRESS = b"identity", b"progress"

#: LMDB's limit of a key is 511 bytes, a task ID has up to 512, and an index puts more before it.
#: Keys up to 510 bytes are stored as they are. Longer ones become exactly 511 bytes: their first
#: 479, then the SHA-256 of the whole. So the two kinds cannot meet, and two long keys only where
#: SHA-256 collides; yet the value begins with the full key, and a look-up compares it.
_PLAIN_MAX = 510
_PREFIX = _PLAIN_MAX + 1 - 32
_LENGTH = Struct("<I")
_CRC = Struct("<I").pack
_CRC_BYTES = 4
#: Checkpoint, and the wall time (ms) when it was written.
_REACHED = Struct("<qq")
#: An empty store's map; it doubles when full. Small: a worker holds one for each partition.
_MAP_BYTES = 16 * 1024 * 1024
#: An iteration reads its chunks in one LMDB read transaction each. Between them none is open: it
#: would keep freed pages from reuse, and the map from growing. One ends early at so many bytes.
_CHUNK_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


def _sealed(key: bytes, value: bytes) -> bytes:
    """`value`, and behind it the CRC-32 of key and value."""
    return value + _CRC(crc32(key + value))


def _short(key: bytes) -> bytes:
    """The key under which `key` is stored."""
    return key if len(key) <= _PLAIN_MAX else key[:_PREFIX] + sha256(key).digest()


def _original(short: bytes, raw: bytes) -> tuple[bytes, bytes]:
    """The full key and the value of an entry as it is stored."""
    if len(short) <= _PLAIN_MAX:
        return short, raw[:-_CRC_BYTES]
    begin = _LENGTH.size
    end = begin + _LENGTH.unpack_from(raw)[0]
    return raw[begin:end], raw[end:-_CRC_BYTES]


#: Folders that this process has claimed: a record lock does not exclude its own process.
_claimed: set[Path] = set()


class Claim:
    """The exclusive right to a store's folder, which is made when missing.

    A POSIX record lock: the kernel drops it with the process, and a forked child does not inherit
    it. Raises ConfigError where the folder cannot be used, or is in use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._place = path.resolve()
            # Before the lock file is opened: closing it again would drop the lock that we have.
            if self._place in _claimed:
                raise ConfigError(f"local store {path} is in use by this process already")
            self._fd = os.open(path / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"local store {path}: {error.strerror}") from None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise ConfigError(
                f"local store {path} is in use by another process; each needs its own"
            ) from None
        _claimed.add(self._place)

    def release(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _claimed.discard(self._place)


class Identity(NamedTuple):
    """What a store is a copy of, and in which boot of the machine it is written."""

    topic_id: str
    partition: int
    boot_id: str


class Header(NamedTuple):
    """What the last owner of a store left in it."""

    format: int
    identity: Identity
    #: Closed so that everything is on disk.
    clean: bool
    #: The next changelog offset to read, and when (wall time, ms) that was true.
    checkpoint: int
    reached_ms: int


def read_header(path: Path) -> Header | None:
    """The header of the store in folder `path`; None where it has none.

    Raises StoreDamaged where LMDB refuses the file. A damaged file that was not walked through
    before may kill the process.
    """
    try:
        env = lmdb.open(str(path), readonly=True, lock=False)
        try:
            with env.begin() as txn:
                raw, progress = txn.get(_IDENTITY), txn.get(_PROGRESS)
        finally:
            env.close()
        if raw is None or progress is None:
            return None
        left = json.loads(raw[:-_CRC_BYTES])
        identity = Identity(left["topic"], left["partition"], left["boot"])
        return Header(left["format"], identity, left["clean"], *_REACHED.unpack_from(progress))
    except (lmdb.Error, ValueError, TypeError, KeyError) as error:
        raise StoreDamaged(f"local store {path}: {error}") from None


class LmdbStore:
    """The contract of `Store` on LMDB, for the one process that holds `claim`.

    The file is trusted: open_store() is what checks it first. The claim is released with the store.
    Every method raises StoreDamaged where LMDB fails to read or write (on a full disk, say): the
    store may then be behind the topic and must be closed, not clean, and restored.
    """

    def __init__(self, claim: Claim, identity: Identity, clock: Clock = SYSTEM_CLOCK) -> None:
        self.path = claim.path
        self._claim = claim
        self._identity = identity
        self._clock = clock
        self._closed = False
        #: LMDB forbids growing the map under a reader and, without its lock file, reading beside a
        #: writer. One lock round each short operation prevents both.
        self._lock = threading.Lock()
        try:
            # lock=False: the claim keeps others out, and one file less can be damaged.
            self._env = lmdb.open(
                str(self.path),
                map_size=_MAP_BYTES,
                max_dbs=1,
                mode=0o600,
                sync=False,
                metasync=False,
                lock=False,
            )
            self._main = self._env.open_db(None)
            self._entries = self._env.open_db(ENTRIES)
            with self._env.begin() as txn:
                progress = txn.get(_PROGRESS)
        except lmdb.Error as error:
            raise StoreDamaged(f"local store {self.path}: {error}") from None
        self._checkpoint = _REACHED.unpack_from(progress)[0] if progress else 0
        if not progress:
            self.apply((), 0)
        self._guarded(lambda: self._mark(clean=False))

    def _mark(self, *, clean: bool) -> None:
        topic_id, partition, boot_id = self._identity
        left = {"format": FORMAT, "topic": topic_id, "partition": partition, "boot": boot_id}
        value = json.dumps({**left, "clean": clean}).encode()
        # All data is on disk before the word "clean" is, and "unclean" before the data after it.
        if clean:
            self._env.sync(True)
        with self._env.begin(write=True) as txn:
            txn.put(_IDENTITY, _sealed(_IDENTITY, value))
        self._env.sync(True)

    def _guarded(self, operation: Callable[[], T]) -> T:
        """`operation` under the lock; the map doubled until it fits; LMDB's errors as ours."""
        try:
            with self._lock:
                while True:
                    try:
                        return operation()
                    except lmdb.MapFullError:
                        self._env.set_mapsize(self._env.info()["map_size"] * 2)
        except lmdb.Error as error:
            raise StoreDamaged(f"local store {self.path}: {error}") from None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if keys and max(map(len, keys)) > _PLAIN_MAX:
            return [self._get_any(key) for key in keys]

        def read() -> list[bytes | None]:
            with self._env.begin(db=self._entries) as txn:
                get = txn.get
                return [v if v is None else v[:-_CRC_BYTES] for v in [get(key) for key in keys]]

        return self._guarded(read)

    def _get_any(self, key: bytes) -> bytes | None:
        short = _short(key)

        def read() -> bytes | None:
            with self._env.begin(db=self._entries) as txn:
                raw: bytes | None = txn.get(short)
                return raw

        raw = self._guarded(read)
        if raw is None:
            return None
        full, value = _original(short, raw)
        return value if full == key else None

    def apply(self, puts: Iterable[Put], offset: int) -> None:
        # Sorted: neighbours share pages, and LMDB copies a page once in a transaction. The sort is
        # stable, so the last of equal keys still wins.
        batch = sorted(puts, key=itemgetter(0))
        if batch and not batch[0][0]:
            raise ValueError("a store's key has at least one byte")
        checkpoint = max(self._checkpoint, offset)
        progress = _sealed(_PROGRESS, _REACHED.pack(checkpoint, self._clock.now_ms()))

        def write() -> None:
            with self._env.begin(write=True, db=self._entries) as txn:
                put, delete = txn.put, txn.delete
                for key, value in batch:
                    if value is None:
                        delete(_short(key))
                    elif len(key) <= _PLAIN_MAX:
                        put(key, value + _CRC(crc32(key + value)))
                    else:
                        short = _short(key)
                        put(short, _sealed(short, _LENGTH.pack(len(key)) + key + value))
                put(_PROGRESS, progress, db=self._main)

        self._guarded(write)
        self._checkpoint = checkpoint

    def checkpoint(self) -> int:
        return self._checkpoint

    def items(
        self, start: bytes = b"", end: bytes | None = None, chunk: int = CHUNK
    ) -> Iterator[tuple[bytes, bytes]]:
        # A longer key stands somewhere behind its prefix, where its hash puts it: begin there, and
        # pass what is less.
        place = start[:_PREFIX]
        while True:
            found, is_last = self._read_chunk(place, end, chunk)
            for short, raw in found:
                key, value = _original(short, raw)
                if key >= start:
                    yield key, value
            if is_last:
                return
            # The least key that is greater; it is only sought, so it may be too long to store.
            place = found[-1][0] + b"\0"

    def _read_chunk(
        self, place: bytes, end: bytes | None, chunk: int
    ) -> tuple[list[tuple[bytes, bytes]], bool]:
        """What follows `place`, and whether nothing follows that."""

        def read() -> tuple[list[tuple[bytes, bytes]], bool]:
            found: list[tuple[bytes, bytes]] = []
            size = 0
            with self._env.begin(db=self._entries) as txn, txn.cursor() as cursor:
                if not (cursor.set_range(place) if place else cursor.first()):
                    return found, True
                for key, value in cursor:
                    if end is not None and key >= end:
                        return found, True
                    found.append((key, value))
                    size += len(value)
                    if len(found) == chunk or size >= _CHUNK_BYTES:
                        return found, False
            return found, True

        return self._guarded(read)

    def count(self) -> int:
        def read() -> int:
            with self._env.begin() as txn:
                return int(txn.stat(self._entries)["entries"])

        return self._guarded(read)

    def close(self, clean: bool) -> None:
        """Idempotent. Not clean: a crash of the machine afterwards costs a rebuild."""
        if self._closed:
            return
        self._closed = True
        try:
            if clean:
                self._guarded(lambda: self._mark(clean=True))
        finally:
            self._env.close()
            self._claim.release()
