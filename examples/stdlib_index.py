"""The demo's App: one task a file of Python's standard library, indexed by a plain function."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill import App, Context, Middleware, Retry

ROOT = Path(sysconfig.get_path("stdlib"))

# Old files hold escapes that Python warns of; that is theirs to mend.
warnings.filterwarnings("ignore", category=SyntaxWarning)
warnings.filterwarnings("ignore", category=DeprecationWarning)

app = App("stdlib-index")


@dataclass
class Entry:
    """What the index holds of a file."""

    functions: int
    classes: int
    sha256: str


def files() -> list[str]:
    """Every .py file of the standard library, as paths below ROOT."""
    others = {"site-packages", "dist-packages"}  # what was installed beside it
    found = (file for file in ROOT.rglob("*.py") if file.is_file())
    paths = (file.relative_to(ROOT) for file in found)
    return sorted(path.as_posix() for path in paths if not others.intersection(path.parts))


@app.task(retry=Retry(on=(OSError,)))  # what does not parse now will not later
def index(path: str) -> Entry:
    """Count the definitions in the file at `path` (below the standard library), and hash it."""
    content = (ROOT / path).read_bytes()
    functions = classes = 0
    for node in ast.walk(ast.parse(content, path)):
        functions += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        classes += isinstance(node, ast.ClassDef)
    return Entry(functions, classes, hashlib.sha256(content).hexdigest())


@app.task
def tick() -> None:
    """What the demo's clock starts."""


class Journal(Middleware):
    """Notes each start of a handler in a file: an effect outside Kafka, so at least once."""

    def __init__(self, file: str) -> None:
        # Appends of a line are not torn, also between processes.
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def before_run(self, context: Context, arguments: dict[str, Any]) -> None:
        os.write(self._fd, f"{context.id}\n".encode())


if journal := os.environ.get("STDLIB_INDEX_JOURNAL"):
    app.use(Journal(journal))
