from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmill.cli.target import load_app
from taskmill.runtime.errors import ConfigError


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "shopfront.py").write_text(
        "from taskmill import App\napp = App('shop')\nother = 3\n"
    )
    (tmp_path / "broken.py").write_text("\nimport shopfront\n1 / 0\n")
    (tmp_path / "needy.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "crooked.py").write_text("def (:\n")
    (tmp_path / "quitter.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "wrong.py").write_text("from taskmill import App\nApp('not a name')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_app_is_found_in_the_working_directory() -> None:
    assert load_app("shopfront:app").name == "shop"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shopfront", "expected MODULE:APP, such as shop.tasks:app"),
        (":app", "expected MODULE:APP"),
        ("shopfront:", "expected MODULE:APP"),
        ("shopfrnt:app", "no module 'shopfrnt' in "),
        ("shopfront.tasks:app", "importing shopfront.tasks failed|no module 'shopfront.tasks'"),
        ("shopfront:ap", "module shopfront has no 'ap'; Apps in there: app"),
        ("shopfront:other", "shopfront.other is of type int, no App; Apps in there: app"),
        ("broken:app", r"importing broken failed: ZeroDivisionError: .* at .*broken.py:3"),
        ("needy:app", r"No module named 'not_installed_anywhere' at .*needy.py:1"),
        ("crooked:app", r"SyntaxError.* at .*crooked.py:1"),
        ("quitter:app", "SystemExit: 3"),
        ("wrong:app", "App 'not a name'"),
        ("..:app", "importing .. failed|no module"),
    ],
)
def test_a_bad_target_is_told_by_what_was_looked_for_and_what_was_found(
    target: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_app(target)
    assert "\n" not in str(caught.value)


def test_a_folder_of_our_name_hides_no_package_from_processes_that_are_spawned(
    tmp_path: Path,
) -> None:
    (tmp_path / "taskmill").mkdir()
    load_app("shopfront:app")
    assert sys.path[-1] == str(tmp_path)
