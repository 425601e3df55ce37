"""What the site does with links that lead out of docs/: it names the file, if that is there."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

logger = logging.getLogger("mkdocs.taskmill")

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the repository become their paths; one that leads nowhere is a warning,
    and so an error."""
    folder = (DOCS / page.file.src_uri).parent

    def named(match: re.Match[str]) -> str:
        picture, text, target, _ = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / target).resolve()
        if path.is_relative_to(DOCS):
            return match[0]  # mkdocs looks after these
        if not path.exists() or not path.is_relative_to(ROOT):
            logger.warning("%s links to %s, which is not there", page.file.src_uri, target)
            return match[0]
        if picture:
            logger.warning("%s shows %s, which is not in docs/", page.file.src_uri, target)
        name = path.relative_to(ROOT).as_posix()
        return f"`{name}`" if text.strip("`") in (name, path.name) else f"{text} (`{name}`)"

    return _LINK.sub(named, markdown)
