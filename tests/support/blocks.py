"""The code blocks of README.md and docs/: found, and what is to be done with each.

A fence ```` ```sh ```` or ```` ```python ```` is run, page by page, in the order of the page:

- python that is named before it (``In `shop.py`:``) or in its first line (`# shop.py`) is written
  to that file, and run: a `test_….py` by pytest, others by Python; what has no name runs with what
  went before it, in one namespace;
- sh runs in the same folder. A line that says `exit code N` ends with that, all others with 0. A
  last line that runs on and on (`taskmill dev`) is ended with its page;
- toml, json, yaml are parsed, and written where they have a name.

`<!-- prints -->` above a text block: the block before it printed that, `…` being anything.
`<!-- imported below -->` above a file: it is written, and run by what imports it.
`<!-- first … -->` holds Python that the tests run and readers need not see.
`<!-- not run: why -->` above a block leaves it out, and is listed by a test.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<fence>```+)(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=fence)[ ]*$", re.S | re.M)
_FIRST = re.compile(r"^<!-- first\n(?P<text>.*?)-->$", re.S | re.M)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_NOT_RUN = re.compile(r"<!-- not run: ((?:(?!-->).)+) -->\s*\Z", re.S)
_IMPORTED = re.compile(r"<!-- imported below -->\s*\Z")
_PRINTS = re.compile(r"<!-- prints -->\s*\Z")
_NAMED = re.compile(r"`([\w./-]+\.(?:py|toml|json|ya?ml|jsonl|txt))`[^`]*:\s*\Z")
_NAME_INSIDE = re.compile(r"# ([\w/-]+\.(?:py|toml|ya?ml))\n")
_ON_AND_ON = re.compile(r"taskmill (dev|worker|scheduler|console)\b")

#: Languages that are run, or parsed.
RUN = {"python", "sh"}
PARSED = {"json", "toml", "yaml"}


class Block(NamedTuple):
    """A code block. `line` is that of its first line of code; `name`: of the file it is."""

    page: str
    line: int
    language: str
    text: str
    name: str | None = None
    not_run: str | None = None
    is_printed: bool = False
    is_hidden: bool = False
    is_imported: bool = False

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs_on(self) -> bool:
        """Whether it is a command that ends only when told to."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        return self.language == "sh" and bool(_ON_AND_ON.match(lines[-1]))


def pages() -> list[Path]:
    """README.md and all of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, and its hidden ones, in order."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    found: list[Block] = []
    for match in sorted([*_FENCE.finditer(text), *_FIRST.finditer(text)], key=lambda m: m.start()):
        line = text.count("\n", 0, match.start("text")) + 1
        if match.re is _FIRST:
            found.append(Block(name, line, "python", match["text"], is_hidden=True))
            continue
        before = text[: match.start()]
        not_run = _NOT_RUN.search(before)
        named = _NAMED.search(_COMMENT.sub("", before)[-200:])
        named = _NAME_INSIDE.match(match["text"]) or named
        found.append(
            Block(
                name,
                line,
                match["info"].split(" ")[0].strip(),
                match["text"],
                named[1] if named and not match["info"].startswith("sh") else None,
                " ".join(not_run[1].split()) if not_run else None,
                bool(_PRINTS.search(before)),
                is_imported=bool(_IMPORTED.search(before)),
            )
        )
    return found


def script(text: str) -> str:
    """`text` for sh: each line ends with the code that it says, 0 where it says none."""
    if "exit code" not in text:
        return f"set -eu\n{text}"
    lines = ["set -u"]
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        told = re.search(r"#.*\bexit code (\d+)", line)
        lines += [line, f"code=$?; [ $code -eq {told[1] if told else 0} ] || exit 99"]
    return "\n".join(lines)


def pattern(expected: str) -> str:
    """What finds `expected` in what was printed: `…` is anything, blanks at ends do not count."""
    lines = (line.rstrip() for line in expected.strip().splitlines())
    return "[ ]*\n".join(".*?".join(map(re.escape, line.split("…"))) for line in lines)


def steps(page: Path) -> list[dict[str, object]]:
    """What support/page_run.py is to do for a page."""
    return [step for block in blocks(page) if block.not_run is None for step in _steps(block)]


def _steps(block: Block) -> list[dict[str, object]]:
    if block.is_imported:
        kind = "file"
    elif block.language == "python":
        is_test = block.name is not None and Path(block.name).name.startswith("test_")
        kind = "pytest" if is_test else "script" if block.name else "python"
    elif block.language == "sh":
        kind = "on_and_on" if block.runs_on else "sh"
    elif block.is_printed:
        kind = "prints"
    else:
        kind = "file"
        if block.name is None:
            return []
    about = {"kind": kind, "where": block.where, "page": block.page, "line": block.line}
    text = script(block.text) if kind == "sh" else block.text.strip()
    text = block.text if kind in ("python", "script", "pytest", "file") else text
    return [{**about, "text": text, "name": block.name, "pattern": pattern(block.text)}]
