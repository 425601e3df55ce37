"""Line plots as SVG, of equal bytes for equal results, so that a test can hold the two together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

SVG, FONT = "http://www.w3.org/2000/svg", 'font-family="sans-serif" font-size="12"'
Series = Sequence[Sequence[float]]

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 56, 48
#: Told apart by those who do not see red and green apart, too (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")


class Axis(NamedTuple):
    """What an axis shows; logarithmic ones for what spans decades."""

    label: str
    log: bool = False


def number(value: float) -> str:
    """As an axis says it: 1k for 1,000, 2.5M for 2,500,000."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round values from at most `low` to at least `high`."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**n for n in range(first, max(last, first + 1) + 1)]
    # Values that differ in their last digits only are one.
    span = high - low if high - low > 1e-6 * (1 + abs(high)) else 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * m for m in (1, 2, 5, 10) if span / (size * m) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]


def scale(marks: Sequence[float], log: bool, begin: float, end: float) -> Callable[[float], float]:
    """From a value to its place between `begin` and `end`, the first and the last mark."""
    of: Callable[[float], float] = math.log10 if log else float
    low, high = of(marks[0]), of(marks[-1])
    return lambda value: begin + (of(value) - low) / (high - low) * (end - begin)


def drawn(title: str, x: Axis, y: Axis, lines: Mapping[str, Series]) -> str:
    """The SVG of `lines`, by their names. An axis that is not logarithmic starts at 0."""
    xs = [point[0] for line in lines.values() for point in line]
    ys = [point[1] for line in lines.values() for point in line]
    x_marks = ticks(min(xs) if x.log else 0.0, max(xs), x.log)
    y_marks = ticks(min(ys) if y.log else min(0.0, *ys), max(ys), y.log)
    across = scale(x_marks, x.log, LEFT, WIDTH - RIGHT)
    up = scale(y_marks, y.log, HEIGHT - BOTTOM, TOP)
    middle, foot = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM
    upright = f"translate(14 {(TOP + foot) / 2:.0f}) rotate(-90)"
    out = [
        f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
        f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>',
        f'<text text-anchor="middle" transform="{upright}">{escape(y.label)}</text>',
    ]
    for mark in y_marks:
        at = up(mark)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number(mark)}</text>')
    for mark in x_marks:
        at = across(mark)
        out.append(f'<path d="M{at:.1f} {TOP}V{foot}" stroke="#eee"/>')
        out.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{number(mark)}</text>')
    legend = LEFT
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        places = [(across(point[0]), up(point[1])) for point in line]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in places)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(places) <= 20:
            out += [
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in places
            ]
        out.append(f'<rect x="{legend}" y="32" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{legend + 14}" y="41">{escape(name)}</text>')
        legend += 30 + 7 * len(name)
    return "\n".join([*out, "</svg>", ""])
