"""Which files of an App are looked at, and when a change is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from taskmill.cli.reload import LOOK_S, Sources, folders_of, try_app


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def monotonic(self) -> float:
        return self.at_s


def look(sources: Sources, clock: Hands) -> list[str]:
    clock.at_s += LOOK_S
    return [path.name for path in sources.changed()]


def test_modules_of_python_and_of_packages_are_left_out(tmp_path: Path) -> None:
    shop = ModuleType("shop")
    shop.__file__ = str(tmp_path / "shop.py")
    assert folders_of([json, pytest, shop, ModuleType("built_in")]) == [tmp_path.resolve()]


def test_a_change_is_told_once_when_it_has_come_to_rest(tmp_path: Path) -> None:
    shop, clock = tmp_path / "shop.py", Hands()
    shop.write_text("1")
    sources = Sources([tmp_path], clock)  # type: ignore[arg-type]
    assert look(sources, clock) == []
    shop.write_text("12")
    assert sources.changed() == []  # it is not time to look
    assert look(sources, clock) == []
    (tmp_path / "new.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert look(sources, clock) == []
    assert look(sources, clock) == ["new.py", "shop.py"]
    assert look(sources, clock) == []
    shop.unlink()
    look(sources, clock)
    assert look(sources, clock) == ["shop.py"]


def test_all_of_a_package_and_no_more_than_the_folder_of_a_module(tmp_path: Path) -> None:
    for name in ("pkg/__init__.py", "pkg/deep/a.py", "flat/b.py", "flat/venv/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    clock = Hands()
    sources = Sources([tmp_path / "pkg", tmp_path / "flat"], clock)  # type: ignore[arg-type]
    for name in ("pkg/deep/a.py", "flat/b.py", "flat/venv/c.py"):
        (tmp_path / name).write_text("1")
    look(sources, clock)
    assert look(sources, clock) == ["b.py", "a.py"]


def test_an_app_that_cannot_be_imported_says_why_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from taskmill import App\napp = App('shop')\nx = 1 +\n")
    with try_app("shop:app") as attempt:
        _, said = attempt.communicate(timeout=60)
    assert attempt.returncode == 1
    assert "SyntaxError" in said
    assert "shop.py:3" in said
    assert len(said.splitlines()) == 1
