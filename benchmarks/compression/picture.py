# SPDX-License-Identifier: Apache-2.0
"""Accuracy against latency, a point a seed, as an SVG that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipeline.report.svg import Scale, nice_ticks

__all__ = ["draw_picture"]

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 52
_OURS, _PEER, _CONTROL = "#13703a", "#b3261e", "#5f6368"
_CROWDED = 0.9
"""Names of points further right end at them: else they would leave the picture."""

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#202124}.s{font-size:12px;fill:#5f6368}"
    "line{stroke:#dadce0}@media(prefers-color-scheme:dark){text{fill:#e8eaed}.s{fill:#9aa0a6}"
    "line{stroke:#3c4043}svg{background:#202124}}"
)

Point = tuple[str, float, float]


def _colour(name: str) -> str:
    if name.startswith("torch-pruning"):
        return _PEER
    return _CONTROL if name.startswith("control") else _OURS


def draw_picture(seeds: Sequence[Sequence[Point]], path: Path) -> None:
    """Write the picture.

    Args:
        seeds: Of each seed and row: name, latency as a share of the float file's, accuracy in percent.
        path: Where it goes.
    """
    points = [point for rows in seeds for point in rows]
    accuracies = [accuracy for _, _, accuracy in points]
    across = Scale(0.0, 1.1)
    up = Scale(min(accuracies) - 0.5, max(accuracies) + 0.8)
    inner = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)

    def x(value: float) -> float:
        return round(LEFT + inner[0] * across.place(value), 1)

    def y(value: float) -> float:
        return round(TOP + inner[1] * (1 - up.place(value)), 1)

    parts = []
    for tick in nice_ticks(across.low, across.high):
        parts.append(f'<line x1="{x(tick)}" y1="{TOP}" x2="{x(tick)}" y2="{TOP + inner[1]}"/>')
        parts.append(f'<text class="s" x="{x(tick)}" y="{HEIGHT - 32}" text-anchor="middle">{tick:g}x</text>')
    for tick in nice_ticks(up.low, up.high):
        parts.append(f'<line x1="{LEFT}" y1="{y(tick)}" x2="{LEFT + inner[0]}" y2="{y(tick)}"/>')
        parts.append(f'<text class="s" x="{LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:g} %</text>')
    parts.append(
        f'<text class="s" x="{LEFT + inner[0] / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        "time of 64 images, over the float file's; filled int8, hollow floats, a point a seed</text>"
    )
    parts.append(f'<text class="s" x="{LEFT}" y="13">accuracy on the test split</text>')
    for rows in zip(*seeds, strict=True):
        name, colour = rows[0][0], _colour(rows[0][0])
        look = f'fill="{colour}"' if "int8" in name else f'fill="none" stroke="{colour}" stroke-width="2"'
        hint = f"<title>{escape(name)}</title>"
        parts += [f'<circle cx="{x(a)}" cy="{y(b)}" r="5" {look}>{hint}</circle>' for _, a, b in rows]
        # Floats are named below their point and int8 above: the two of one recipe often lie side by side.
        above = "int8" in name
        near = min(rows, key=lambda row: y(row[2]) if above else -y(row[2]))
        anchor = "end" if near[1] > _CROWDED else "middle"
        place = y(near[2]) + (-10 if above else 21)
        parts.append(
            f'<text x="{x(near[1]) + (8 if anchor == "end" else 0)}" y="{place}" '
            f'text-anchor="{anchor}">{escape(name)}</text>'
        )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>Accuracy against latency of ResNet-20, compressed</title><style>{_STYLE}</style>"
        + "".join(parts)
        + "</svg>\n",
        encoding="utf-8",
    )
