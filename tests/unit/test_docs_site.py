"""The site builds without a warning, links included; its reference is what the code says."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = runpy.run_path(str(DOCS / "generate.py"))["pages"]()


@pytest.mark.parametrize("page", GENERATED)
def test_the_reference_is_current(page: str) -> None:
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert text == GENERATED[page], "run docs/generate.py"


def test_nothing_else_lies_with_the_reference() -> None:
    assert {path.name for path in (DOCS / "reference").iterdir()} == set(GENERATED)


def test_the_site_builds_without_a_warning_and_asks_no_other_address(tmp_path: Path) -> None:
    site = tmp_path / "site"
    ran = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", site],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr
    built = list(site.rglob("*.html"))
    assert len(built) >= len(list(DOCS.rglob("*.md")))
    for page in built:
        loaded = re.findall(
            r'<(?:link|script|img)[^>]*(?:href|src)="?(https?:)?//', page.read_text()
        )
        assert not loaded, page.name
