"""A flame graph: stacks with their weights as a tree, and the tree as an SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from colorsys import hls_to_rgb
from typing import Any
from xml.sax.saxutils import escape
from zlib import crc32

#: name -> [weight with everything above it, the tree above it]
Tree = dict[str, Any]

WIDTH, ROW, LETTER = 1200, 17, 6.6
SVG, FONT = "http://www.w3.org/2000/svg", 'font-family="monospace" font-size="11"'
#: Below this many pixels a box says nothing.
LEAST = 0.8


def add(tree: Tree, stack: Sequence[str], weight: float) -> None:
    """Add `weight` to `stack`, which begins with its outermost name."""
    for name in stack:
        node = tree.setdefault(name, [0.0, {}])
        node[0] += weight
        tree = node[1]


def pruned(tree: Tree, least: float) -> Tree:
    """Without what weighs less than `least`; names in order, so that equal trees look equal."""
    return {
        name: [round(weight, 6), pruned(above, least)]
        for name, (weight, above) in sorted(tree.items())
        if weight >= least
    }


def boxes(tree: Tree, left: float = 0.0, depth: int = 0) -> Iterator[tuple[str, float, float, int]]:
    """(name, left, weight, depth) of every node."""
    for name, (weight, above) in tree.items():
        yield name, left, weight, depth
        yield from boxes(above, left, depth + 1)
        left += weight


def drawn(tree: Tree, title: str) -> str:
    """The SVG: roots at the bottom, a box as wide as its weight, told in full by its tooltip."""
    every = list(boxes(tree))
    total = sum(weight for weight, _ in tree.values()) or 1.0
    scale = WIDTH / total
    height = (max((depth for *_, depth in every), default=0) + 1) * ROW + 40
    out = [
        f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {height}" {FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="20" font-family="sans-serif" font-size="14">{escape(title)}</text>',
    ]
    for name, left, weight, depth in every:
        width = weight * scale
        if width < LEAST:
            continue
        x, y = left * scale, height - (depth + 1) * ROW
        fits = int((width - 4) / LETTER)
        text = name if len(name) <= fits else name[: fits - 1] + "…" if fits > 3 else ""
        out.append(
            f"<g><title>{escape(name)}: {weight / total:.1%}</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" '
            f'fill="{colour(name)}"/>'
            f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(text)}</text></g>'
        )
    return "\n".join([*out, "</svg>", ""])


def colour(name: str) -> str:
    """A warm colour, the same for the same module."""
    number = crc32(name.partition(".")[0].encode())
    hue, lightness, saturation = number % 50, 66 + number // 50 % 12, 65 + number // 600 % 25
    rgb = hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
