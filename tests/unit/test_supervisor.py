"""The parts of `worker --processes N`: back-off, slots, the line, ended transactions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskmill.cli.main import cli
from taskmill.consumer.fence import end_transactions
from taskmill.consumer.link import Holding, Place, Said, SupervisorEnd, WorkerEnd
from taskmill.consumer.slots import MAX_SLOTS, Slot
from taskmill.consumer.supervisor import Backoff, how_it_ended
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, Unreachable

# ---- back-off -----------------------------------------------------------------------------------


def test_the_pause_doubles_from_a_tenth_of_a_second_to_half_a_minute() -> None:
    backoff = Backoff()
    pauses = [backoff.after(lived_s=1.0) for _ in range(11)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])


def test_one_that_lived_a_minute_is_replaced_as_soon_as_the_first() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(3)][-1] == pytest.approx(0.4)
    assert backoff.after(59.9) == pytest.approx(0.8)
    assert backoff.after(60.0) == pytest.approx(0.1)
    assert backoff.after(1.0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "signal SIGKILL"), (-11, "signal SIGSEGV"), (-40, "signal 40"), (7, "exit code 7")],
)
def test_an_end_is_told_by_the_name_of_its_signal_or_its_exit_code(code: int, words: str) -> None:
    assert how_it_ended(code) == words


# ---- slots --------------------------------------------------------------------------------------


def test_a_slot_that_is_preferred_is_taken_if_free_and_else_the_lowest(tmp_path: Path) -> None:
    third, lowest, other = (Slot(tmp_path, prefer) for prefer in (3, None, 3))
    assert [third.number, lowest.number, other.number] == [3, 0, 1]
    assert third.name == f"{lowest.node}.3"
    assert third.transactional_id("shop", "mail") == f"shop.mail.{third.name}"
    for slot in (third, lowest, other):
        slot.release()


def test_a_slot_is_claimed_by_its_number_only_while_nobody_holds_it(tmp_path: Path) -> None:
    holder = Slot(tmp_path)
    assert Slot.claim(tmp_path, holder.number) is None
    holder.release()
    again = Slot.claim(tmp_path, holder.number)
    assert again is not None
    assert again.name == holder.name
    assert Slot(tmp_path, again.number).number == again.number + 1


def test_when_all_slots_are_taken_the_error_says_where(tmp_path: Path) -> None:
    slots = [Slot(tmp_path) for _ in range(MAX_SLOTS)]
    with pytest.raises(ConfigError, match=f"all {MAX_SLOTS} worker slots of .*slots are taken"):
        Slot(tmp_path, prefer=7)
    for slot in slots:
        slot.release()


# ---- the line -----------------------------------------------------------------------------------


Line = tuple[SupervisorEnd, WorkerEnd]


@pytest.fixture
def line() -> Iterator[Line]:
    """Both ends, in one process."""
    ours = SupervisorEnd(Place(number=1, slot=4))
    theirs = WorkerEnd(os.dup(ours.fileno))
    ours.started()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_worker_learns_its_place_and_what_it_holds_is_read_after_its_end(
    line: Line, tmp_path: Path
) -> None:
    settings = Settings(prefix="shop", state_dir=tmp_path, kafka={"sasl.password": "a\nb"})
    ours, theirs = line
    assert theirs.place == Place(number=1, slot=4)
    theirs.holds(5, ["shop.default.n.5"], settings)
    theirs.close()
    assert ours.read() == Said(Holding(5, ("shop.default.n.5",), settings), None)


def test_a_worker_that_ended_before_it_held_anything_has_said_nothing(line: Line) -> None:
    ours, theirs = line
    theirs.close()
    assert ours.read() == Said(None, None)


def test_what_was_said_is_read_though_a_process_of_a_task_still_holds_the_line(line: Line) -> None:
    ours, theirs = line
    theirs.refuse("module x:\n'ä' is missing")
    assert ours.read() == Said(None, "module x:\n'ä' is missing")


def test_what_a_death_cut_off_is_not_read(line: Line) -> None:
    ours, theirs = line
    theirs._socket.sendall(b'{"slot": 1, "transac')
    theirs.close()
    assert ours.read() == Said(None, None)


@pytest.mark.parametrize("unread", [False, True], ids=["all read", "something unread"])
def test_a_worker_is_told_when_its_supervisor_is_gone(line: Line, unread: bool) -> None:
    ours, theirs = line
    gone = threading.Event()
    theirs.watch(gone.set)
    if unread:
        theirs.refuse("nobody reads this")
    assert not gone.is_set()
    ours.close()
    assert gone.wait(5)
    theirs.refuse("nobody hears this")  # and nothing fails


def test_a_worker_without_a_line_to_a_supervisor_says_so_in_one_line() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(ConfigError, match="no line to a supervisor"):
            WorkerEnd(reading)
    finally:
        os.close(reading)
        os.close(writing)


# ---- transactions -------------------------------------------------------------------------------


def test_with_the_broker_away_a_dead_workers_transactions_are_given_up_in_time() -> None:
    settings = Settings(bootstrap_servers="127.0.0.1:9")  # the discard port: nobody listens
    began = time.monotonic()
    with pytest.raises(Unreachable):
        end_transactions(settings, ["shop.a.n.0", "shop.b.n.0"], 0.5, SYSTEM_CLOCK)
    assert time.monotonic() - began < 3


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", ["0", "257", "two"])
def test_a_wrong_number_of_processes_is_one_line(count: str) -> None:
    result = CliRunner().invoke(cli, ["worker", "-A", "jobs:app", "--processes", count])
    assert result.exit_code == 2
    assert f"'--processes': {count!r} is not" in result.stderr or "1<=x<=256" in result.stderr
    assert len(result.stderr.splitlines()) == 1
