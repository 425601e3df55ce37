"""A local store in a process of its own, which may die of it; and damage to do to its file.

python stores.py FOLDER MODEL       exit 0: everything read and written was right
"""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from pathlib import Path

from taskmill.runtime.clock import SystemClock
from taskmill.runtime.store_lmdb import DATA_FILE, Claim, Identity, LmdbStore
from taskmill.runtime.store_open import boot_id

Model = dict[bytes, bytes]

TOPIC = "t.state.default/uuid"
_PAGE = 4096


def identity() -> Identity:
    """Of partition 0, in this boot."""
    return Identity(TOPIC, 0, boot_id())


class StoppedClock(SystemClock):
    """Wall time stands until the test moves it."""

    def __init__(self) -> None:
        self.ms = 1_760_000_000_000

    def now_ms(self) -> int:
        return self.ms


def build(path: Path) -> tuple[bytes, Model]:
    """A data file with branches, overflow pages and a free list, and what is in it."""
    rng = random.Random(7)
    store = LmdbStore(Claim(path), identity(), StoppedClock())
    model: Model = {}
    for number in range(60):
        batch: dict[bytes, bytes | None] = {}
        for _ in range(rng.choice((5, 50, 200))):
            if model and rng.random() < 0.3:
                batch[rng.choice(list(model))] = None
            else:
                key = rng.randbytes(rng.choice((4, 16, 36, 100, 510, 600)))
                batch[key] = rng.randbytes(9000 if rng.random() < 0.01 else 17)
            model = {k: v for k, v in {**model, **batch}.items() if v is not None}
        store.apply(batch.items(), number + 1)
    assert sorted(store.items()) == sorted(model.items())
    store.close(clean=True)
    return (path / DATA_FILE).read_bytes(), model


def corrupted(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """`data` with one damage, aimed at the heads of pages as often as at contents."""
    size = len(data)
    pages = range(0, size, _PAGE)
    kind = rng.choice(("flip", "flip", "flip", "byte", "word", "zero", "garbage", "cut", "swap"))
    at = rng.choice((rng.randrange(size), rng.choice(pages) + rng.randrange(64)))
    out = bytearray(data)
    match kind:
        case "flip":
            out[at] ^= 1 << rng.randrange(8)
        case "byte":
            out[at] = rng.randrange(256)
        case "word":
            out[at : at + 2] = rng.randbytes(2)
        case "zero" | "garbage":
            length = min(rng.choice((16, 512, _PAGE)), size - at)
            out[at : at + length] = bytes(length) if kind == "zero" else rng.randbytes(length)
        case "cut":
            del out[at:]
        case "swap":
            one, two = rng.choice(pages), rng.choice(pages)
            out[one : one + _PAGE] = data[two : two + _PAGE]
            out[two : two + _PAGE] = data[one : one + _PAGE]
    return f"{kind} at {at}", bytes(out)


def ended(model: Path, folders: list[Path]) -> int:
    """How a child ended that used those stores hard, in order: 0 all right, negative a signal."""
    command = [sys.executable, __file__, str(model), *map(str, folders)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode


def use_hard(path: Path, model: Model) -> bool:
    """Read all, then write until the free list has been used; was everything as it must be?"""
    rng = random.Random(1)
    store = LmdbStore(Claim(path), identity(), StoppedClock())
    keys = list(model)
    right = dict(store.items()) == model and store.get_many(keys) == list(model.values())
    truth = dict(model)
    for number in range(30):
        batch: list[tuple[bytes, bytes | None]] = [
            (rng.randbytes(16), rng.randbytes(9000 if rng.random() < 0.05 else 17))
            for _ in range(30)
        ]
        batch += [(key, None) for key in keys[number * 30 : number * 30 + 30]]
        store.apply(batch, 100 + number)
        for key, value in batch:
            truth.pop(key, None)
            if value is not None:
                truth[key] = value
    return right and dict(store.items()) == truth


if __name__ == "__main__":
    contents = pickle.loads(Path(sys.argv[1]).read_bytes())
    sys.exit(0 if all(use_hard(Path(folder), contents) for folder in sys.argv[2:]) else 2)
