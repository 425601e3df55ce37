"""The dashboards of deploy/grafana as Grafana reads them: their panels, and what those ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from support.deployment import DEPLOY

FOLDER = DEPLOY / "grafana" / "dashboards"
#: `$name` or `${name}`; what begins with two underscores is Grafana's own. `$1` is a group.
VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)")


class Asked(NamedTuple):
    """A query of a panel: where it is, and its PromQL."""

    board: str
    panel: str
    ref: str
    expr: str
    is_instant: bool

    def __str__(self) -> str:
        return f"{self.board} / {self.panel} / {self.ref}"


def boards() -> dict[str, dict[str, Any]]:
    """Every dashboard, by the stem of its file."""
    return {p.stem: json.loads(p.read_text("utf-8")) for p in sorted(FOLDER.glob("*.json"))}


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its panels, rows left out."""
    return [one for one in board["panels"] if one["type"] != "row"]


def queries() -> Iterator[Asked]:
    """Every query of every panel."""
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                instant = bool(target.get("instant"))
                yield Asked(name, panel["title"], target["refId"], target["expr"], instant)


def variables(board: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Its variables, by name."""
    return {one["name"]: one for one in board["templating"]["list"]}


def label_values(variable: Mapping[str, Any]) -> tuple[str, str]:
    """The series that a variable looks at, and the label whose values it takes."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
    assert found, variable["query"]
    return found[1], found[2]


def filled_in(expr: str, values: Mapping[str, str]) -> str:
    """`expr` with the variables replaced, as Grafana does it."""
    return VARIABLE.sub(lambda found: values[found[1]], expr)


def metrics(expr: str) -> set[str]:
    """The names of metrics in `expr`."""
    words = set(re.findall(r"\b(?:taskmill_\w+|ALERTS|up)\b(?=\{)", expr))
    for pattern in re.findall(r'__name__=~"(\w+)\(([^)]*)\)(\w*)"', expr):
        words |= {pattern[0] + middle + pattern[2] for middle in pattern[1].split("|")}
    return words
