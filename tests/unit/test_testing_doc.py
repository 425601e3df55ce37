"""docs/testing.md says what is so: its tests pass as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


def test_its_code_works_as_written(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    app, tests, in_a_loop = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "shop.py").write_text(app, encoding="utf-8")
    (tmp_path / "test_shop.py").write_text(tests, encoding="utf-8")
    (tmp_path / "test_loop.py").write_text(in_a_loop, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout
