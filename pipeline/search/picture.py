# SPDX-License-Identifier: Apache-2.0
"""Every trial by two objectives, and the front of them: a picture on a ground of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pipeline.plain import shorten
from pipeline.report.markup import Markup, tag
from pipeline.report.svg import Scale, as_file, line, marker, nice_ticks
from pipeline.report.wording import describe_bytes
from pipeline.search.results import describe_passes

__all__ = ["render_search"]

_WIDTH, _HEIGHT = 920, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 86, 30, 100, 64

_WORDS = {
    "accuracy": "accuracy on validation",
    "loss": "cross-entropy on validation, nats",
    "worst_slice_accuracy": "accuracy of the worst class or slice",
    "robust_accuracy": "accuracy under attack",
    "bytes": "size of the ONNX file",
    "macs": "multiply-accumulates of an image",
    "latency": "latency, share of the baseline's",
}
_SHARES = ("accuracy", "worst_slice_accuracy", "robust_accuracy")
_COSTS = ("bytes", "macs", "latency")


def _shown(name: str) -> Callable[[float], str]:
    if name == "bytes":
        return lambda number: describe_bytes(int(number)).replace(".0 ", " ")
    if name in _SHARES:
        return lambda number: f"{100 * number:.1f}".removesuffix(".0") + " %"
    return lambda number: f"{number:,.4g}"


def _axes(results: Mapping[str, Any]) -> tuple[str, str]:
    """The first cost across, the first of what answers are worth up; else what there is."""
    names = [entry["name"] for entry in results["objectives"]]
    cost = next((name for name in names if name in _COSTS), "bytes")
    worth = next((name for name in names if name not in _COSTS), "accuracy")
    return cost, worth


def _scale(numbers: Sequence[float]) -> Scale:
    low, high = min(numbers), max(numbers)
    pad = 0.08 * (high - low) or max(0.05 * abs(high), 0.01)
    if low > 0 and high > 4 * low:
        return Scale(low / 1.25, high * 1.25, logarithmic=True)
    return Scale(low - pad, high + pad)


class _Plot:
    def __init__(self, results: Mapping[str, Any]) -> None:
        self.across_name, self.up_name = _axes(results)
        self.rows = [row for row in results["trials"] if row["objectives"]]
        self.base = results["baseline"]
        costs, worths = ([self._value(row, name) for row in self.rows] for name in _axes(results))
        if self.across_name in self.base:
            costs.append(self.base[self.across_name])
        if self.up_name in self.base:
            worths.append(self.base[self.up_name])
        self.across, self.up = _scale(costs or [1.0]), _scale(worths or [1.0])

    @staticmethod
    def _value(row: Mapping[str, Any], name: str) -> float:
        return float(row["objectives"][name])

    def x(self, number: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * self.across.place(number), 1)

    def y(self, number: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - self.up.place(number)), 1)

    def place(self, row: Mapping[str, Any]) -> tuple[float, float]:
        return self.x(self._value(row, self.across_name)), self.y(self._value(row, self.up_name))

    def grid(self) -> list[Markup]:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = [line(f"{_LEFT}", bottom, f"{right}", bottom, "axis")]
        for tick in nice_ticks(self.up.low, self.up.high, 6):
            y = self.y(tick)
            parts += [line(f"{_LEFT}", y, f"{right}", y, "grid")]
            parts += [tag("text", _shown(self.up_name)(tick), x=_LEFT - 10, y=y + 4, class_="e")]
        for tick in self._ticks_across():
            x = self.x(tick)
            parts += [line(f"{x}", bottom, f"{x}", bottom + 5, "axis")]
            parts += [tag("text", _shown(self.across_name)(tick), x=x, y=bottom + 20, class_="a")]
        scale = ", logarithmic scale" if self.across.logarithmic else ""
        words = _WORDS[self.across_name] + scale
        return [
            *parts,
            tag("text", words, x=right, y=_HEIGHT - 18, class_="e"),
            tag("text", _WORDS[self.up_name], x=18, y=_TOP - 16, class_="s"),
        ]

    def _ticks_across(self) -> tuple[float, ...]:
        if not self.across.logarithmic:
            return nice_ticks(self.across.low, self.across.high, 6)
        every = [factor * 10.0**power for power in range(-3, 13) for factor in (1, 2, 5)]
        return tuple(number for number in every if self.across.low <= number <= self.across.high)

    def staircase(self) -> list[Markup]:
        """The best to be had on these two axes; others of the front are there for a third objective."""
        front = sorted(self.place(row) for row in self.rows if row["on_front"])
        best: list[tuple[float, float]] = []
        for x, y in front:
            worst_is_up = self.up_name == "loss"
            better = not best or (y > best[-1][1] if worst_is_up else y < best[-1][1])
            if better:
                best.append((x, y))
        parts = []
        for (x, y), (to_x, to_y) in pairwise(best):
            parts += [line(f"{x}", y, f"{to_x}", y, "step"), line(f"{to_x}", y, f"{to_x}", to_y, "step")]
        return parts

    def dots(self) -> list[Markup]:
        parts = []
        ordered = sorted(self.rows, key=lambda row: (row["on_front"], row["winner"] is not None))
        for row in ordered:
            x, y = self.place(row)
            recipe = row["recipe"]
            hint = f"trial {row['trial']}: {describe_passes(recipe)}; {recipe['precision']}; {row['state']}"
            look = "pass" if row["winner"] else "base" if row["on_front"] else "calm"
            if row["on_front"]:
                parts.append(marker("ring", f"{x}", y))
            parts.append(marker(look if row["on_front"] else "calm", f"{x}", y, hint))
        return parts

    def names(self) -> list[Markup]:
        """Above and to the left, where by the meaning of a front nothing lies."""
        parts, taken = [], list[tuple[float, float]]()
        for row in sorted((row for row in self.rows if row["winner"]), key=lambda row: row["winner"]):
            x, y = self.place(row)
            above = y - 14
            while any(abs(x - other) < 110 and abs(above - level) < 15 for other, level in taken):
                above -= 15
            taken.append((x, above))
            left = x > _LEFT + 120
            parts.append(
                tag(
                    "text",
                    shorten(f"{row['winner']} {row['recipe']['precision']}", 24),
                    x=x - 4 if left else x - 8,
                    y=above,
                    text_anchor="end" if left else "start",
                    class_="d named",
                )
            )
        return parts

    def baseline(self) -> list[Markup]:
        if self.across_name not in self.base or self.up_name not in self.base:
            return []
        x, y = self.x(self.base[self.across_name]), self.y(self.base[self.up_name])
        return [
            marker("open", f"{x}", y, "baseline"),
            tag("text", "baseline", x=x, y=y - 14, text_anchor="middle", class_="d"),
        ]


def _legend() -> list[Markup]:
    entries = (
        ("pass", "winner"), ("base", "on the front"), ("calm", "not on it"), ("open", "baseline"),
    )  # fmt: skip
    parts, x = [], 18.0
    for look, words in entries:
        parts += [marker(look, f"{x + 7:g}", 48), tag("text", words, x=x + 20, y=52, class_="s")]
        x += 36 + 6.6 * len(words)
    return parts


def render_search(results: Mapping[str, Any]) -> str:
    """Return the picture as an SVG file.

    Args:
        results: Content of `trials.json`.
    """
    plot = _Plot(results)
    counted = (
        f"{len(results['trials'])} trials, {sum(row['on_front'] for row in results['trials'])} on the front"
    )
    title = f"Search: {_WORDS[plot.up_name]} against {_WORDS[plot.across_name]}; {counted}"
    parts = [
        tag("text", shorten(title, 120), x=18, y=28, class_="title"),
        *_legend(),
        *plot.grid(),
        *plot.staircase(),
        *plot.dots(),
        *plot.baseline(),
        *plot.names(),
    ]
    return as_file(title, parts, width=_WIDTH, height=_HEIGHT, style=".k.ring{stroke:var(--link)}")
