"""The contract of a changelog store, against both of them, and what only LMDB has to keep."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.runtime import store_lmdb
from taskmill.runtime.errors import ConfigError, StoreDamaged
from taskmill.runtime.store import MemoryStore, Store
from taskmill.runtime.store_lmdb import Claim, Identity, LmdbStore, read_header

IDENTITY = Identity("t.state.default/uuid", 3, "boot")


def lmdb_store(path: Path) -> LmdbStore:
    return LmdbStore(Claim(path), IDENTITY)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else lmdb_store(tmp_path / "s")
    yield made
    made.close(clean=False)


# --- the contract ---------------------------------------------------------------------------------


def test_a_new_store_is_empty_and_reaches_nothing(store: Store) -> None:
    assert (store.count(), store.checkpoint(), list(store.items())) == (0, 0, [])
    assert store.get_many([b"a", b"b"]) == [None, None]
    assert store.get_many([]) == []


def test_what_is_applied_is_found_in_the_order_asked(store: Store) -> None:
    store.apply([(b"b", b"2"), (b"a", b"1")], 7)
    assert store.get_many([b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert (store.count(), store.checkpoint()) == (2, 7)


def test_an_iteration_ends_where_it_is_told_whatever_it_reads_at_a_time(store: Store) -> None:
    store.apply([(b"%02d" % n, b"v") for n in range(20)] + [(b"05" + bytes(600), b"long")], 1)
    for chunk in (1, 3, 1000):
        keys = [key[:2] for key, _ in store.items(b"03", b"06", chunk)]
        assert keys == [b"03", b"04", b"05", b"05"]
    assert next(store.items(chunk=1)) == (b"00", b"v")
    assert list(store.items(b"50", b"60")) == []


def test_the_last_of_equal_keys_in_one_batch_wins(store: Store) -> None:
    store.apply([(b"a", b"1"), (b"b", b"1"), (b"a", None), (b"a", b"3"), (b"b", None)], 1)
    assert list(store.items()) == [(b"a", b"3")]


def test_none_deletes_and_deleting_what_is_not_there_is_nothing(store: Store) -> None:
    store.apply([(b"a", b"1"), (b"b", b"")], 1)
    store.apply([(b"a", None), (b"zz", None)], 2)
    assert (list(store.items()), store.count()) == ([(b"b", b"")], 1)


def test_the_checkpoint_never_goes_back(store: Store) -> None:
    store.apply([(b"a", b"1")], 10)
    store.apply([(b"a", b"2")], 4)
    assert (store.checkpoint(), store.get_many([b"a"])) == (10, [b"2"])


def test_an_empty_batch_moves_the_checkpoint_alone(store: Store) -> None:
    store.apply([], 12)
    assert (store.checkpoint(), store.count()) == (12, 0)


def test_items_begin_at_the_key_asked_for(store: Store) -> None:
    keys = [b"a", b"a\0", b"b", b"\xff\xff"]
    store.apply([(key, key) for key in keys], 1)
    assert list(store.items(b"a\0")) == [(key, key) for key in keys[1:]]
    assert list(store.items(b"\xff\xff\xff")) == []


def test_a_batch_with_an_empty_key_is_refused_whole(store: Store) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        store.apply([(b"a", b"1"), (b"", b"1")], 9)
    assert (store.count(), store.checkpoint()) == (0, 0)


def test_a_batch_whose_source_breaks_leaves_nothing(store: Store) -> None:
    def broken() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"a", b"1"
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        store.apply(broken(), 5)
    assert (store.count(), store.checkpoint()) == (0, 0)


def test_writing_while_iterating_keeps_the_order_and_repeats_nothing(store: Store) -> None:
    keys = [b"%05d" % number for number in range(2500)]
    store.apply([(key, b"v") for key in keys], 1)
    seen = []
    for key, _ in store.items():
        seen.append(key)
        if len(seen) % 500 == 0:
            store.apply([(key, None), (keys[-1], b"w" * len(seen))], 1)
    assert seen == keys


@pytest.mark.parametrize("length", [509, 510, 511, 512, 600, 1100])
def test_long_keys_are_kept_apart_however_alike(store: Store, length: int) -> None:
    stem = b"k" * (length - 1)
    keys = [stem + bytes((last,)) for last in range(20)] + [stem]
    store.apply([(key, b"%d" % at) for at, key in enumerate(keys)], 1)
    assert store.get_many(keys) == [b"%d" % at for at in range(len(keys))]
    assert sorted(key for key, _ in store.items()) == sorted(keys)
    assert sorted(key for key, _ in store.items(keys[9])) == sorted(keys[9:20])
    store.apply([(keys[3], None)], 1)
    assert store.get_many([keys[3], keys[4]]) == [None, b"4"]


def test_a_key_that_looks_like_a_stored_long_one_is_another_key(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path)
    long_key = b"x" * 700
    store.apply([(long_key, b"long")], 1)
    disguised = store_lmdb._short(long_key)
    assert store.get_many([disguised, long_key]) == [None, b"long"]
    store.apply([(disguised, b"other")], 1)
    assert store.get_many([disguised, long_key]) == [b"other", b"long"]
    store.close(clean=False)


KEYS = st.one_of(
    st.binary(min_size=1, max_size=4),
    st.builds(lambda n, tail: b"k" * n + tail, st.sampled_from([505, 511]), st.binary(max_size=2)),
)
BATCHES = st.lists(
    st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=8), max_size=6
)


@settings(max_examples=25, deadline=None)
@given(batches=BATCHES, start=KEYS)
def test_both_stores_hold_what_a_dict_would(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[bytes, bytes | None]]],
    start: bytes,
) -> None:
    stores: list[Store] = [MemoryStore(), lmdb_store(tmp_path_factory.mktemp("s"))]
    model: dict[bytes, bytes] = {}
    for offset, batch in enumerate(batches, 1):
        for key, value in batch:
            model.pop(key, None)
            if value is not None:
                model[key] = value
        for store in stores:
            store.apply(batch, offset)
    asked = [key for batch in batches for key, _ in batch] + [start]
    for store in stores:
        assert store.get_many(asked) == [model.get(key) for key in asked]
        assert store.count() == len(model)
        assert store.checkpoint() == len(batches)
        found = list(store.items(start))
        assert sorted(found) == sorted((k, v) for k, v in model.items() if k >= start)
        short = [key for key, _ in found if len(key) <= 510]
        assert short == sorted(short)
        store.close(clean=False)


# --- LMDB only -----------------------------------------------------------------------------------


def test_it_reopens_with_entries_and_checkpoint(tmp_path: Path) -> None:
    for clean in (True, False):
        store = lmdb_store(tmp_path)
        store.apply([(b"a", b"1")], store.checkpoint() + 5)
        store.close(clean)
    store = lmdb_store(tmp_path)
    assert (store.get_many([b"a"]), store.checkpoint()) == ([b"1"], 10)
    store.close(clean=True)


def test_it_is_unclean_from_its_opening_to_its_clean_end(tmp_path: Path) -> None:
    def clean() -> bool:
        header = read_header(tmp_path)
        assert header is not None
        return header.clean

    lmdb_store(tmp_path).close(clean=True)
    assert clean()
    lmdb_store(tmp_path).close(clean=False)
    assert not clean()


def test_it_grows_when_its_map_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lmdb, "_MAP_BYTES", 64 * 1024)
    store = lmdb_store(tmp_path)
    for number in range(20):
        store.apply([(b"%d-%d" % (number, n), bytes(100)) for n in range(1000)], number + 1)
    assert (store.count(), store.checkpoint()) == (20_000, 20)
    store.close(clean=True)
    store = lmdb_store(tmp_path)
    assert store.count() == 20_000
    store.apply([(b"more", bytes(100))], 21)
    store.close(clean=True)


#: A child that opens the store in the folder that it is given.
OPEN = """
import os, signal, sys
from pathlib import Path
from taskmill.runtime.store_lmdb import Claim, Identity, LmdbStore
store = LmdbStore(Claim(Path(sys.argv[1])), Identity("t", 0, "boot"))
"""
FILL_AND_DIE = (
    OPEN
    + """
for number in range(50):
    store.apply([(b"%d" % number, b"v")], number + 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
)
HOLD = (
    OPEN
    + """
print("held", flush=True)
signal.pause()
"""
)


def test_what_was_applied_survives_sigkill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILL_AND_DIE, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    store = lmdb_store(tmp_path)
    assert (store.count(), store.checkpoint()) == (50, 50)
    store.close(clean=False)


def test_one_process_at_a_time_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="in use by another process"):
            lmdb_store(tmp_path)
        child.kill()
    lmdb_store(tmp_path).close(clean=True)


def test_the_same_process_does_not_open_a_store_twice(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path)
    with pytest.raises(ConfigError, match="in use by this process"):
        lmdb_store(tmp_path / ".." / tmp_path.name)
    store.apply([(b"a", b"1")], 1)
    store.close(clean=True)
    lmdb_store(tmp_path).close(clean=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"local store .*file/p0: "):
        Claim(tmp_path / "file" / "p0")


def test_a_failing_write_is_told_and_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lmdb_store(tmp_path)
    store.apply([(b"a", b"1")], 1)

    class Full:
        def begin(self, **_: object) -> object:
            raise lmdb.DiskError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_env", Full())
        with pytest.raises(StoreDamaged, match="No space left"):
            store.apply([(b"b", b"1")], 2)
    assert (store.count(), store.checkpoint()) == (1, 1)
    store.close(clean=False)
    store.close(clean=False)
