"""Opening a local store: when it is wiped and why, and that no damage reaches the parent."""

from __future__ import annotations

import json
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import lmdb
import pytest
from lmdb.verify import VerifyError, verify

from support.stores import TOPIC, Model, StoppedClock, build, corrupted, ended, identity
from taskmill.runtime import store_check, store_lmdb, store_open
from taskmill.runtime.store_check import damage
from taskmill.runtime.store_lmdb import Claim, LmdbStore
from taskmill.runtime.store_open import boot_id, open_store

HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


def reopen(
    path: Path, clock: StoppedClock, *, topic: str = TOPIC, partition: int = 0, end: int = 100
) -> tuple[int, str | None]:
    """Open and close; the entries left, and why it was wiped."""
    store, reason = open_store(path, topic, partition, end, HOUR_MS, clock)
    count = store.count()
    assert (count > 0) == (store.checkpoint() > 0)
    store.close(clean=True)
    return count, reason


@pytest.fixture
def filled(tmp_path: Path, clock: StoppedClock) -> Path:
    """A store of three entries, reaching offset 100, closed clean."""
    store, reason = open_store(tmp_path / "p0", TOPIC, 0, 100, HOUR_MS, clock)
    assert reason is None
    store.apply([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")], 100)
    store.close(clean=True)
    return tmp_path / "p0"


def test_a_sound_store_is_kept(filled: Path, clock: StoppedClock) -> None:
    assert reopen(filled, clock) == (3, None)


def test_an_unclean_end_in_the_same_boot_keeps_it(filled: Path, clock: StoppedClock) -> None:
    open_store(filled, TOPIC, 0, 100, HOUR_MS, clock)[0].close(clean=False)
    assert reopen(filled, clock) == (3, None)


def test_another_topic_of_the_same_name_wipes_it(filled: Path, clock: StoppedClock) -> None:
    count, reason = reopen(filled, clock, topic="t.state.default/other")
    assert (count, reason) == (0, f"it is a copy of {TOPIC} [0]")
    assert reopen(filled, clock, topic="t.state.default/other") == (0, None)


def test_another_partition_wipes_it(filled: Path, clock: StoppedClock) -> None:
    assert reopen(filled, clock, partition=1) == (0, f"it is a copy of {TOPIC} [0]")


def test_a_checkpoint_beyond_the_end_wipes_it(filled: Path, clock: StoppedClock) -> None:
    reason = "it reaches offset 100, the changelog ends at 99"
    assert reopen(filled, clock, end=99) == (0, reason)


def test_a_checkpoint_that_is_too_old_wipes_it(filled: Path, clock: StoppedClock) -> None:
    clock.ms += HOUR_MS
    assert reopen(filled, clock) == (3, None)
    clock.ms += 1
    assert reopen(filled, clock) == (0, "its checkpoint is 1.0 h old, of 1.0")


def test_an_empty_batch_makes_the_checkpoint_young_again(filled: Path, clock: StoppedClock) -> None:
    clock.ms += HOUR_MS
    store, _ = open_store(filled, TOPIC, 0, 100, HOUR_MS, clock)
    store.apply([], 100)
    store.close(clean=True)
    clock.ms += HOUR_MS
    assert reopen(filled, clock) == (3, None)


def test_a_checkpoint_of_the_future_has_no_age_and_wipes_it(
    filled: Path, clock: StoppedClock
) -> None:
    clock.ms -= 61_000
    assert reopen(filled, clock)[0] == 0


def test_another_boot_wipes_it_only_without_a_clean_end(
    filled: Path, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_open, "boot_id", lambda: "second boot")
    assert reopen(filled, clock) == (3, None)
    open_store(filled, TOPIC, 0, 100, HOUR_MS, clock)[0].close(clean=False)
    monkeypatch.setattr(store_open, "boot_id", lambda: "third boot")
    assert reopen(filled, clock) == (0, "the machine went down while it was in use")


def test_another_format_wipes_it(
    filled: Path, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_lmdb, "FORMAT", 2)
        LmdbStore(Claim(filled), identity(), clock).close(clean=True)
    assert reopen(filled, clock) == (0, "it has format 2, this version writes 1")


@pytest.mark.parametrize(
    "left", ["{}", "[]", "nonsense", json.dumps({"format": 1, "topic": TOPIC, "partition": 0})]
)
def test_a_header_that_makes_no_sense_wipes_it(
    filled: Path, clock: StoppedClock, left: str
) -> None:
    with lmdb.open(str(filled), lock=False, max_dbs=1) as env, env.begin(write=True) as txn:
        txn.put(b"identity", store_lmdb._sealed(b"identity", left.encode()))
    count, reason = reopen(filled, clock)
    assert count == 0
    assert reason


def test_a_file_that_was_begun_and_never_used_is_made_anew(
    tmp_path: Path, clock: StoppedClock
) -> None:
    with lmdb.open(str(tmp_path), lock=False, max_dbs=1):
        pass
    assert reopen(tmp_path, clock) == (0, "it was never taken into use")


def test_the_boot_is_the_same_for_all_processes_or_told_apart() -> None:
    other = subprocess.run(
        [sys.executable, "-c", "from taskmill.runtime.store_open import boot_id; print(boot_id())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    known = Path("/proc/sys/kernel/random/boot_id").exists()
    assert (other == boot_id()) == known


# --- damage --------------------------------------------------------------------------------------


class Sound(NamedTuple):
    """A sound data file, what is in it, and where the latter is pickled."""

    data: bytes
    model: Model
    pickled: Path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    data, model = build(tmp_path_factory.mktemp("sound"))
    pickled = tmp_path_factory.mktemp("model") / "model"
    pickled.write_bytes(pickle.dumps(model))
    return Sound(data, model, pickled)


def placed(folder: Path, contents: Iterable[bytes]) -> list[Path]:
    """A store's folder for each of the data files `contents`."""
    folders = []
    for number, content in enumerate(contents):
        folders.append(folder / str(number))
        folders[-1].mkdir()
        (folders[-1] / store_lmdb.DATA_FILE).write_bytes(content)
    return folders


def test_what_the_walk_accepts_can_be_used_hard(sound: Sound, tmp_path: Path) -> None:
    """Every damage is refused, or harmless: no death, no wrong answer, not even by later writes."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    damages = [corrupted(sound.data, rng) for _ in range(60)]
    accepted = [(how, bad) for how, bad in damages if damage(bad) is None]
    assert len(accepted) < len(damages), "not one damage was found"
    folders = placed(tmp_path, (bad for _, bad in accepted))
    hows = [how for how, _ in accepted]
    assert ended(sound.pickled, folders) == 0, f"seed {seed}: accepted, and one is bad: {hows}"


def test_the_walk_refuses_what_lmdb_s_own_verifier_refuses(sound: Sound, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    file = tmp_path / store_lmdb.DATA_FILE
    file.write_bytes(sound.data)
    assert damage(sound.data) is None
    assert verify(str(file)) == []
    for _ in range(80):
        how, bad = corrupted(sound.data, rng)
        file.write_bytes(bad)
        try:
            refused = bool(verify(str(file)))
        except VerifyError:
            refused = True
        assert damage(bad) is not None or not refused, f"seed {seed}: accepted: {how}"


def test_a_flipped_bit_in_a_meta_page_is_refused_or_harmless(sound: Sound, tmp_path: Path) -> None:
    flipped = []
    # A meta page's content takes 152 bytes.
    for at in [*range(152), *range(4096, 4096 + 152)]:
        bad = bytearray(sound.data)
        bad[at] ^= 1 << (at % 8)
        flipped.append(bytes(bad))
    # Most of these are in the older page, whose numbers nobody reads.
    accepted = [bad for bad in flipped if damage(bad) is None]
    few = accepted[:: max(1, len(accepted) // 6)]
    assert ended(sound.pickled, placed(tmp_path, few)) == 0


def test_a_sound_store_is_kept_by_the_child_too(
    filled: Path, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_open, "_SMALL_BYTES", 0)
    assert reopen(filled, clock) == (3, None)


@pytest.mark.parametrize("at", [0, 1, 4095, 4096, 8192, 12288, -4096, -1])
def test_opening_a_truncated_store_rebuilds_it(
    sound: Sound, tmp_path: Path, clock: StoppedClock, at: int
) -> None:
    (tmp_path / store_lmdb.DATA_FILE).write_bytes(sound.data[:at])
    count, reason = reopen(tmp_path, clock)
    assert count == 0
    assert reason is not None
    assert reason.startswith("damaged: ")


@pytest.mark.parametrize("small_bytes", [0, 1 << 30], ids=["in a child", "here"])
def test_opening_damaged_stores_never_hurts_the_opener(
    sound: Sound,
    tmp_path: Path,
    clock: StoppedClock,
    monkeypatch: pytest.MonkeyPatch,
    small_bytes: int,
) -> None:
    monkeypatch.setattr(store_open, "_SMALL_BYTES", small_bytes)
    data = sound.data
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(12):
        how, bad = corrupted(data, rng)
        path = tmp_path / str(number)
        path.mkdir()
        (path / store_lmdb.DATA_FILE).write_bytes(bad)
        store, reason = open_store(path, TOPIC, 0, 100, HOUR_MS, clock)
        assert dict(store.items()) == ({} if reason else sound.model), f"seed {seed}: {how}"
        store.apply([(b"more", b"v")], 101)
        store.close(clean=True)


def test_a_check_that_dies_counts_as_damage(
    filled: Path, clock: StoppedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying.py"
    dying.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGBUS)\n")
    monkeypatch.setattr(store_check, "__file__", str(dying))
    monkeypatch.setattr(store_open, "_SMALL_BYTES", 0)
    assert reopen(filled, clock) == (0, f"damaged: the check ended with -{int(signal.SIGBUS)}")


def test_a_check_that_hangs_is_given_up(
    filled: Path, clock: StoppedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setattr(store_check, "__file__", str(hanging))
    monkeypatch.setattr(store_open, "_CHILD_S", 0.2)
    monkeypatch.setattr(store_open, "_SMALL_BYTES", 0)
    count, reason = reopen(filled, clock)
    assert (count, reason) == (0, "damaged: the check did not end within 0 s")


def test_a_walk_over_many_shapes_of_stores_finds_nothing(tmp_path: Path) -> None:
    """Grown, shrunk, emptied, refilled: what LMDB writes is accepted, after every transaction."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    file = tmp_path / store_lmdb.DATA_FILE
    store = LmdbStore(Claim(tmp_path), identity(), StoppedClock())
    keys: list[bytes] = []
    for number in range(120):
        share = (0.1, 0.9, 0.5)[number // 15 % 3]
        batch: list[tuple[bytes, bytes | None]] = []
        for _ in range(rng.choice((1, 20, 300))):
            if keys and rng.random() < share:
                batch.append((keys.pop(rng.randrange(len(keys))), None))
            else:
                keys.append(rng.randbytes(rng.choice((1, 16, 36, 300, 510, 700))))
                size = rng.choice((0, 100, 2000, 20_000)) if rng.random() < 0.02 else 17
                batch.append((keys[-1], rng.randbytes(size)))
        store.apply(batch, number + 1)
        assert damage(file.read_bytes()) is None, f"seed {seed}, after {number}"
    store.apply([(key, None) for key, _ in store.items()], 1000)
    assert store.count() == 0
    assert damage(file.read_bytes()) is None, f"seed {seed}"
    store.close(clean=True)
