"""The README says what is so: its links lead somewhere, its code and commands work as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context, Group

from taskmill.cli.main import cli
from taskmill.runtime.config import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TASKMILL = Path(sys.executable).with_name("taskmill")


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_links_lead_to_files_and_headings() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
            assert target[1:] in [text.lower().replace(" ", "-") for text in headings]
        elif "://" not in target:
            assert (ROOT / target).exists(), target


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_python_blocks_compile() -> None:
    for number, block in enumerate(blocks("python"), start=1):
        compile(block, f"README.md, Python block {number}", "exec")


def test_commands_and_options_exist() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`(taskmill [^`]+)`", README)
    commands = [line.split() for line in (*lines, *inline) if line.startswith("taskmill ")]
    context = Context(cli)
    for words in commands:
        options = {"--help"}
        if words[1] != "--help":
            found = cli.get_command(context, words[1])
            if isinstance(found, Group) and len(words) > 2:
                found = found.get_command(context, words[2])
            assert found is not None, words
            options |= {name for parameter in found.params for name in parameter.opts}
        used = {word for word in words[1:] if re.fullmatch(r"--?[a-zA-Z-]+", word)}
        assert used <= options, words
    assert len(commands) >= 8


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_settings_and_defaults_are_as_told() -> None:
    rows = re.findall(r"^\| `TASKMILL_([A-Z_]+?)(?:__…)?` \|([^|]*)\|", README, re.MULTILINE)
    defaults = {name.lower(): default.strip(" `") for name, default in rows}
    assert len(defaults) == 7
    assert set(defaults) <= set(Settings.model_fields)
    for name in ("prefix", "partitions"):
        assert defaults[name] == str(Settings.model_fields[name].default)


@pytest.mark.kafka
def test_the_first_steps_work_as_written(settings: Settings, tmp_path: Path) -> None:
    app, buy = blocks("python")
    (tmp_path / "shop.py").write_text(app, encoding="utf-8")
    (tmp_path / "buy.py").write_text(buy, encoding="utf-8")
    start, use, mend = blocks("sh")[2:5]
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/mail/email/ "$1"\n')
    editor.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{TASKMILL.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "VISUAL": str(editor),
    }
    dev = subprocess.Popen(
        ["sh", "-c", f"exec {start}"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL
    )
    try:
        # The topics are made by whoever comes first; a task waits for its worker.
        used = _run(["sh", "-euc", use], tmp_path, env)
        bought = _run([sys.executable, "buy.py"], tmp_path, env)
        # Nobody is here to be asked; and that the task is dead is exit code 1.
        mend = mend.replace("--edit", "--edit --canary 1 --yes")
        mended = _run(["sh", "-uc", f"{mend}taskmill result receipt:4"], tmp_path, env)
    finally:
        dev.terminate()
        assert dev.wait(60) == 0
    assert used.startswith('receipt:1\n"receipt 1 sent to a@b.c"\n')
    assert "succeeded" in used
    assert "invalid_payload" in mended
    assert '"receipt 4 sent to a@b.c"' in mended
    assert bought == "receipt 2 sent to a@b.c\nreceipt 3 sent to a@b.c succeeded\n"


def _run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
