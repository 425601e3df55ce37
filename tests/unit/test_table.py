"""The idempotency table: its rule, its fold, its marks, and the table over both stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.records import STATE, states
from taskmill.consumer.mark import read_mark
from taskmill.consumer.table import (
    Decision,
    Entry,
    Table,
    decide,
    fold,
    pack,
    position_key,
    unpack,
)
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.store import MemoryStore, Store
from taskmill.runtime.store_lmdb import Claim, Identity, LmdbStore
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import TaskState
from taskmill.schemas.states import TERMINAL, Status

RUN, DUPLICATE, ABANDONED = Decision.RUN, Decision.DUPLICATE, Decision.ABANDONED
DAY_MS = 86_400_000

small = st.integers(0, 3)
entries = st.builds(Entry, small, small, st.sampled_from(list(Status)), st.integers(0, 5))


def place(entry: Entry) -> tuple[int, int]:
    return entry.generation, entry.seq


# --- the rule -------------------------------------------------------------------------------------

#: Written from DESIGN's sentence, independently of the code: (generation compared with the
#: entry's, seq compared with the entry's, entry is) -> what becomes of the record.
EARLIER, SAME, LATER = -1, 0, 1
TABLE = {
    (LATER, EARLIER, "open"): RUN,
    (LATER, EARLIER, "running"): RUN,
    (LATER, EARLIER, "terminal"): RUN,
    (LATER, SAME, "open"): RUN,
    (LATER, SAME, "running"): RUN,
    (LATER, SAME, "terminal"): RUN,
    (LATER, LATER, "open"): RUN,
    (LATER, LATER, "running"): RUN,
    (LATER, LATER, "terminal"): RUN,
    (SAME, LATER, "open"): RUN,
    (SAME, LATER, "running"): RUN,
    (SAME, LATER, "terminal"): DUPLICATE,
    (SAME, SAME, "open"): DUPLICATE,
    (SAME, SAME, "running"): "runs again",
    (SAME, SAME, "terminal"): DUPLICATE,
    (SAME, EARLIER, "open"): DUPLICATE,
    (SAME, EARLIER, "running"): DUPLICATE,
    (SAME, EARLIER, "terminal"): DUPLICATE,
    (EARLIER, EARLIER, "open"): DUPLICATE,
    (EARLIER, EARLIER, "running"): DUPLICATE,
    (EARLIER, EARLIER, "terminal"): DUPLICATE,
    (EARLIER, SAME, "open"): DUPLICATE,
    (EARLIER, SAME, "running"): DUPLICATE,
    (EARLIER, SAME, "terminal"): DUPLICATE,
    (EARLIER, LATER, "open"): DUPLICATE,
    (EARLIER, LATER, "running"): DUPLICATE,
    (EARLIER, LATER, "terminal"): DUPLICATE,
}


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


@given(entry=entries, generation=small, seq=small, at_most_once=st.booleans())
def test_the_rule_is_the_design_s_table(
    entry: Entry, generation: int, seq: int, at_most_once: bool
) -> None:
    kind = "running" if entry.status is Status.RUNNING else "open"
    if entry.status in TERMINAL:
        kind = "terminal"
    expected = TABLE[sign(generation - entry.generation), sign(seq - entry.seq), kind]
    if expected == "runs again":
        expected = ABANDONED if at_most_once else RUN
    assert decide(entry, generation, seq, at_most_once=at_most_once) is expected


def test_what_the_table_does_not_know_runs_even_at_most_once() -> None:
    assert decide(None, 0, 0) is RUN
    assert decide(None, 0, 0, at_most_once=True) is RUN


def test_a_terminal_entry_blocks_its_generation_and_a_replay_opens_the_next() -> None:
    for status in TERMINAL:
        entry = Entry(1, 2, status, 0)
        assert decide(entry, 1, 9) is DUPLICATE
        assert decide(entry, 2, 0) is RUN


@given(entry=entries, generation=small, seq=small)
def test_what_ran_to_its_end_does_not_run_again(entry: Entry, generation: int, seq: int) -> None:
    """Whatever decision let it run: once its terminal mark is folded in, it is a duplicate."""
    if decide(entry, generation, seq) is RUN:
        after = fold(entry, Entry(generation, seq, Status.SUCCEEDED, 9))
        assert decide(after, generation, seq) is DUPLICATE


# --- the fold -------------------------------------------------------------------------------------


@given(old=entries, new=entries)
def test_the_fold_keeps_the_greatest_generation_and_seq(old: Entry, new: Entry) -> None:
    assert place(fold(old, new)) == max(place(old), place(new))
    assert fold(old, new) in (old, new)
    assert fold(None, new) == new


@given(one=entries, two=entries)
def test_the_fold_does_not_mind_the_order_of_different_places(one: Entry, two: Entry) -> None:
    if place(one) != place(two):
        assert fold(one, two) == fold(two, one)


@given(a=entries, b=entries, c=entries)
def test_the_fold_may_be_taken_in_any_grouping(a: Entry, b: Entry, c: Entry) -> None:
    assert fold(fold(a, b), c) == fold(a, fold(b, c))


@given(old=entries, new=entries)
def test_folding_the_same_again_changes_nothing(old: Entry, new: Entry) -> None:
    once = fold(old, new)
    assert fold(once, once) == once
    assert fold(once, new) == once


@given(old=entries, statuses=st.lists(st.sampled_from(list(Status)), min_size=1))
def test_what_is_terminal_never_goes_back(old: Entry, statuses: list[Status]) -> None:
    entry = old
    for status in statuses:
        entry = fold(entry, Entry(old.generation, old.seq, status, 7))
        if old.status in TERMINAL:
            assert entry == old
    if old.status not in TERMINAL:
        first = next((status for status in statuses if status in TERMINAL), statuses[-1])
        assert entry.status is first


@given(st.lists(entries, min_size=1, max_size=8))
def test_what_compaction_leaves_folds_to_the_same_when_writers_never_go_back(
    written: list[Entry],
) -> None:
    """An owner writes what its table's fold holds; then the last record says it all."""
    held: Entry | None = None
    log = []
    for entry in written:
        folded = fold(held, entry)
        if folded == entry:
            log.append(entry)
        held = folded
    assert log[-1] == held


# --- bytes ----------------------------------------------------------------------------------------

wide = st.integers(0, 2**31 - 1)


@given(wide, wide, st.sampled_from(list(Status)), st.integers(-(2**63), 2**63 - 1))
def test_an_entry_is_what_it_was_after_packing(
    generation: int, seq: int, status: Status, time_ms: int
) -> None:
    entry = Entry(generation, seq, status, time_ms)
    assert unpack(pack(entry)) == entry
    assert len(pack(entry)) == 17


@given(wide, st.none() | st.binary(max_size=40), st.none() | st.integers(0, 2**63 - 1))
def test_what_few_entries_have_is_what_it_was_after_packing(
    deliveries: int, saved: bytes | None, expires_at: int | None
) -> None:
    entry = Entry(1, 2, Status.RUNNING, 3, deliveries, saved, expires_at)
    assert unpack(pack(entry)) == entry


OPEN = (Status.RUNNING, Status.RETRYING)


def entry_of(state: TaskState) -> Entry:
    return Entry(
        *(state.generation, state.seq, state.status, 7),
        *(state.deliveries, state.saved, state.result_expires_at if state.large else None),
    )


@given(states)
def test_a_mark_read_by_hand_is_the_codec_s(state: TaskState) -> None:
    if state.status not in OPEN:
        state = state._replace(deliveries=0, saved=None)  # nobody writes another
    value = CODEC.encode_state(state)
    assert read_mark(value, 7, CODEC.decode_state) == entry_of(CODEC.decode_state(value))


@given(st.binary(max_size=40), st.integers(0, 200), st.integers(0, 255))
def test_whatever_the_codec_reads_the_mark_agrees_and_nothing_else_is_raised(
    tail: bytes, cut: int, byte: int
) -> None:
    good = CODEC.encode_state(STATE)
    cut = min(cut, len(good))
    for value in (good[:cut], good[:cut] + tail, good[:cut] + bytes((byte,)) + good[cut + 1 :]):
        try:
            mark = read_mark(value, 7, CODEC.decode_state)
        except DecodeError:
            mark = None
        try:
            state = CODEC.decode_state(value)
        except DecodeError:
            continue
        if state.status in OPEN or not (state.deliveries or state.saved):
            assert mark == entry_of(state)


def test_a_mark_is_read_by_hand_where_it_is_common() -> None:
    def never(value: bytes) -> object:
        raise AssertionError("asked the codec")

    value = CODEC.encode_state(STATE._replace(id="i" * 512, generation=63, seq=63))
    mark = read_mark(value, 7, never)  # type: ignore[arg-type]
    assert mark == Entry(63, 63, STATE.status, 7)


def test_a_position_is_no_id() -> None:
    key = position_key("t.tasks.default", 3, 99)
    assert key == b"\xfft.tasks.default/3/99"
    with pytest.raises(UnicodeDecodeError):
        key.decode()


# --- the table ------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore()
    if request.param == "lmdb":
        made = LmdbStore(Claim(tmp_path / "p0"), Identity("t", 0, "boot"))
    yield made
    made.close(clean=False)


def test_marks_are_found_and_the_checkpoint_with_them(store: Store) -> None:
    table = Table(store)
    done = Entry(0, 0, Status.SUCCEEDED, 5)
    table.apply([(b"a", Entry(0, 0, Status.RUNNING, 4)), (b"b", done), (b"a", done)], 17)
    assert table.lookup([b"b", b"x", b"a"]) == [done, None, done]
    assert store.checkpoint() == 17


def state(identity: str, status: Status, generation: int = 0, seq: int = 0) -> bytes:
    return CODEC.encode_state(
        STATE._replace(id=identity, status=status, generation=generation, seq=seq)
    )


def test_a_restore_folds_tombstones_twins_and_what_is_there(store: Store) -> None:
    table = Table(store)
    table.apply(
        [
            (b"kept", Entry(2, 0, Status.DEAD, 1)),
            (b"gone", Entry(0, 0, Status.DEAD, 1)),
            (b"again", Entry(5, 0, Status.DEAD, 1)),
        ],
        3,
    )
    puts = table.to_puts(
        [
            (b"kept", state("kept", Status.SUCCEEDED, 1, 9), 10),
            (b"gone", None, 11),
            (b"again", None, 11),
            (b"again", state("again", Status.RUNNING, 0, 1), 12),
            (b"new", state("new", Status.RUNNING), 13),
            (b"new", state("new", Status.EXPIRED), 14),
        ]
    )
    store.apply(puts, 20)
    assert table.lookup([b"kept", b"gone", b"again", b"new"]) == [
        Entry(2, 0, Status.DEAD, 1),
        None,
        Entry(0, 1, Status.RUNNING, 12),
        Entry(0, 0, Status.EXPIRED, 14),
    ]


def test_a_state_that_cannot_be_read_is_counted_told_once_and_passed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table(store)
    good = (b"b", state("b", Status.RUNNING), 2)
    puts = table.to_puts([(b"a", b"garbage", 1), good, (b"c", b"", 3)])
    assert [key for key, _ in puts] == [b"b"]
    assert table.unreadable == 2
    assert len(caplog.records) == 1
    assert "b'a'" in caplog.text


def test_a_sweep_removes_the_finished_and_names_the_expired_round_and_round(store: Store) -> None:
    table = Table(store)
    window_ms = 8 * DAY_MS
    now_ms = 100 * DAY_MS
    old, half = now_ms - window_ms - 1, now_ms - window_ms // 2 - 1
    over = Entry(0, 1, Status.SUCCEEDED, half, expires_at=now_ms)
    marks = [
        (b"a", Entry(0, 0, Status.SUCCEEDED, old)),
        (b"b", Entry(0, 0, Status.SUCCEEDED, half)),
        (b"c", Entry(0, 1, Status.RUNNING, old)),
        (b"d", over),
        (b"e", over._replace(expires_at=now_ms + 1)),
        (b"f", Entry(0, 0, Status.DEAD, old)),
    ]
    table.apply(marks, 50)
    # Six entries, then four: so many full steps, and one that finds the end.
    for calls, removed in ((4, 2), (3, 0)):
        steps = [table.sweep(now_ms, window_ms, limit=2) for _ in range(calls)]
        assert sum(step.removed for step in steps) == removed
        assert [found for step in steps for found in step.expired] == [(b"d", over)]
    assert [key for key, _ in store.items()] == [b"b", b"c", b"d", b"e"]
    assert store.checkpoint() == 50
