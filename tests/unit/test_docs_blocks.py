"""No code block of README.md and docs/ is left out silently, and every command in them exists."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from click import Context, Group

from support.blocks import PARSED, ROOT, RUN, blocks, pages, pattern, script, steps
from taskmill.cli.main import cli

ALL = [block for page in pages() for block in blocks(page)]

#: README.md has no room for marks. By the number of its block of that language.
README = {
    ("sh", 1): "make demo, make test: tests/integration/test_demo.py; and this run",
    ("sh", 2): "installs into an environment; make setup does",
    ("python", 1): "tests/unit/test_readme.py runs it",
    ("sh", 3): "tests/unit/test_readme.py runs it",
    ("sh", 4): "tests/unit/test_readme.py runs it",
    ("python", 2): "tests/unit/test_readme.py runs it",
    ("sh", 5): "tests/unit/test_readme.py runs it",
}
#: What is said by a block that is neither run nor parsed, and who compares it.
COMPARED = {
    ("docs/wire.md", "hexdump"): "tests/unit/test_wire_doc.py",
    ("docs/postgresql.md", "sql"): "tests/integration/test_docs_pages.py",
    ("docs/reference/errors.md", "text"): "written by docs/generate.py",
    ("docs/reference/cli.md", "text"): "written by docs/generate.py",
    ("docs/concepts.md", "text"): "a picture",
}
#: Blocks that are not run, with why: a new one is to be added here on purpose.
NOT_RUN = {
    "docs/tutorial.md": 2,
    "docs/client.md": 1,
    "docs/dead-letters.md": 1,
    "docs/deploy.md": 6,
    "docs/grafana.md": 1,
}


def in_readme() -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    found = []
    for block in ALL:
        if block.page == "README.md":
            counts[block.language] = counts.get(block.language, 0) + 1
            found.append((block.language, counts[block.language]))
    return found


def test_each_block_of_the_readme_is_accounted_for() -> None:
    assert sorted(in_readme()) == sorted(README)


def test_each_block_of_docs_is_run_parsed_compared_or_says_why_not() -> None:
    left = [
        block.where
        for block in ALL
        if block.page != "README.md"
        and not block.not_run
        and block.language not in RUN | PARSED
        and not block.is_printed
        and (block.page, block.language) not in COMPARED
    ]
    assert not left


def test_what_is_not_run_is_known() -> None:
    found: dict[str, int] = {}
    for block in ALL:
        if block.not_run:
            found[block.page] = found.get(block.page, 0) + 1
            print(f"{block.where}: {block.not_run}")
    assert found == NOT_RUN


def test_data_parse() -> None:
    parse = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
    for block in ALL:
        if block.language in PARSED:
            parse[block.language](block.text)


def test_python_compiles() -> None:
    for block in ALL:
        if block.language == "python":
            compile(block.text, block.where, "exec")


def commands(page: Path) -> list[list[str]]:
    """The commands of `taskmill` in a page's blocks, indented ones too, and in its lines."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    lines = re.findall(r"^(?: {4})?(?:\w+=\$\()?(taskmill .+?)(?:\)|\s+#.*)?$", text, re.M)
    inline = re.findall(r"`(taskmill [^`]+)`", text)
    return [line.split() for line in (*lines, *inline)]


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_and_options_exist(page: Path) -> None:
    if page.parent.name == "reference":
        return  # it is what there is
    context = Context(cli)
    for words in commands(page):
        options = {"--help", "--debug", "--version"}
        if not re.fullmatch(r"[a-z]+", words[1]):
            continue
        found = cli.get_command(context, words[1])
        assert found is not None, words
        options |= {name for parameter in found.params for name in parameter.opts}
        if isinstance(found, Group) and len(words) > 2 and re.fullmatch(r"[a-z-]+", words[2]):
            below = found.get_command(context, words[2])
            assert below is not None, words
            options |= {name for parameter in below.params for name in parameter.opts}
        used = {word for word in words[1:] if re.fullmatch(r"-[a-zA-Z]|--[a-z-]+", word)}
        assert used <= options, (words, used - options)


def test_names_marks_and_comments_are_understood(tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorial.md"
    found = blocks(page)
    assert [block.name for block in found if block.name] == ["shop.py", "shop.py", "test_shop.py"]
    assert any(block.is_hidden for block in found)
    assert {step["kind"] for step in steps(page)} >= {"script", "sh", "on_and_on", "prints"}


def test_what_a_line_ends_with_is_what_it_says() -> None:
    assert script("a\nb\n") == "set -eu\na\nb\n"
    assert "[ $code -eq 3 ]" in script("a \\\n  b  # exit code 3: away\n")


def test_what_is_printed_may_leave_things_out() -> None:
    assert re.search(pattern("one\n…three…"), "one  \ntwo three four\n", re.S)
    assert not re.search(pattern("one\nthree"), "one\ntwo\nthree\n", re.S)
