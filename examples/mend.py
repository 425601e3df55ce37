"""The demo's last act: its dead letters are counted, one file is repaired, its letter replayed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import stdlib_index
from plain_reader import Record
from recount import Found, count

from taskmill.runtime.errors import TaskmillError

#: A file of which more lines than this do not parse is not worth the trouble.
_LINES = 50


class Mended(NamedTuple):
    """A dead file, and where its repaired copy is."""

    id: str
    copy: Path


def show_letters(env: Mapping[str, str]) -> None:
    """What a person would look at first."""
    sys.stdout.flush()
    _taskmill(env, "dlq", "stats")


def repair(letters: Mapping[str, Sequence[Record]], folder: Path) -> Mended | None:
    """Repair one of the dead files, in a copy; None where none can be."""
    for id in sorted(letters):
        content = (stdlib_index.ROOT / id).read_bytes()
        if (mended := _without_errors(content)) is not None:
            copy = folder / "repaired" / Path(id).name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(mended)
            return Mended(id, copy)
    return None


def _without_errors(content: bytes) -> bytes | None:
    """`content`, with `pass` for each line that does not parse."""
    lines = content.splitlines(keepends=True)
    for _ in range(_LINES):
        try:
            ast.parse(b"".join(lines))
        except SyntaxError as error:
            number = (error.lineno or 0) - 1
            if not 0 <= number < len(lines) or lines[number].strip() == b"pass":
                return None
            code = lines[number].lstrip()
            lines[number] = lines[number].removesuffix(code) + b"pass\n"
        except ValueError:
            return None
        else:
            return b"".join(lines)
    return None


def replay(mended: Mended, folder: Path, env: Mapping[str, str]) -> None:
    """Replay its letter with the copy's path for an argument, as a person would in an editor; and
    wait for what becomes of it."""
    arguments = folder / "arguments.json"
    arguments.write_text(json.dumps({"path": str(mended.copy)}))
    editor = folder / "editor"
    editor.write_text(f"#!/bin/sh\ncp '{arguments}' \"$1\"\n")
    editor.chmod(0o700)
    command = ("dlq", "replay", "--id", mended.id, "--edit", "--canary", "1", "--yes")
    env = {**env, "VISUAL": str(editor), "EDITOR": str(editor)}
    _taskmill(env, *command, "-A", "stdlib_index:app")


def replay_differences(mended: Mended, found: Found) -> list[str]:
    """What of the replayed letter is not as it should be."""
    id, copy = mended
    ends = [(one["generation"], one["status"]) for one in found.ends.get(id, [])]
    if ends != [(0, "dead"), (1, "succeeded")]:
        return [f"{id}: replayed, and its outcomes are {ends}"]
    wrong = []
    counted, expected = json.loads(found.ends[id][1]["result"]), count(copy)
    if counted != expected:
        wrong.append(f"{copy}: taskmill counted {counted}, the recount {expected}")
    if len(found.letters[id]) != 1:
        wrong.append(f"{id}: replayed, and has {len(found.letters[id])} letters, not one")
    return wrong


def _taskmill(env: Mapping[str, str], *words: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "taskmill", *words],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if ran.returncode != 0:
        raise TaskmillError(f"`taskmill {' '.join(words)}` ended with {ran.returncode}")
