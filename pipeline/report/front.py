# SPDX-License-Identifier: Apache-2.0
"""Size against accuracy: every candidate, the Pareto front, and which of them were judged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pipeline.plain import shorten
from pipeline.report.figures import Comparison
from pipeline.report.markup import Markup, look, tag
from pipeline.report.svg import Scale, line, marker, nice_ticks, picture, share
from pipeline.report.wording import (
    count_of,
    describe_bytes,
    describe_standing,
    describe_value,
)

__all__ = ["draw_front"]

_TOP = 24
_DEEP = 240
_WIDTHS = (270, 520, 980)
"""Widths of the plot on a small phone, a tablet and a desktop: names are placed for all of them at once."""
_LETTER = 6.6

_Box = tuple[float, float, float, float]

_PLACES: tuple[tuple[str, float, float, float], ...] = (
    *(("start", 14, 4, 0), ("end", -14, 4, 0), ("middle", 0, -15, 0), ("middle", 0, 23, 0)),
    *(("start", 12, -9, 0), ("end", -12, -9, 0), ("start", 12, 17, 0), ("end", -12, 17, 0)),
    *(
        (anchor, dx, dy, abs(dy) / 10)
        for dy in (-32, 36, -48, 52, -64, 68, -80, 84, -96, 100)
        for anchor, dx in (("middle", 0), ("start", 18), ("end", -18), ("start", 44), ("end", -44))
    ),
)
"""Where a name may stand: its anchor, its distance from the dot, and what it costs to be so far off."""


@dataclass(frozen=True)
class _Spot:
    x: float
    y: float
    anchor: str
    dx: float
    dy: float
    away: float
    box: _Box


@dataclass(frozen=True)
class _Dot:
    name: str
    look: str
    words: str
    bytes: int
    accuracy: float
    on_front: bool
    named: bool


def _dots(comparison: Comparison) -> list[_Dot]:
    base = comparison.baseline
    dots = [_Dot("baseline", "base", "baseline", base.bytes, base.validation_accuracy, False, True)]
    dots += [
        _Dot(
            candidate.name,
            look(candidate.standing),
            describe_standing(candidate),
            candidate.size.bytes,
            candidate.size.validation_accuracy,
            candidate.on_front,
            candidate.decision is not None,
        )
        for candidate in comparison.candidates
    ]
    return sorted(dots, key=lambda dot: (not dot.named, not dot.on_front, dot.name))


def draw_front(comparison: Comparison) -> Markup:
    """Return the picture.

    Args:
        comparison: The baseline and every candidate.
    """
    dots = _dots(comparison)
    sizes, scores = [dot.bytes for dot in dots], [dot.accuracy for dot in dots]
    wide = max(sizes) > 4 * min(sizes)
    across = Scale(min(sizes) / 1.35, max(sizes) * 1.35, logarithmic=wide) if wide else _padded(sizes, 0.12)
    up = _padded(scores, 0.2)
    parts = [*_grid(across, up), *_staircase(dots, across, up)]
    parts += [
        marker("ring", share(across, dot.bytes), _height(up, dot.accuracy)) for dot in dots if dot.on_front
    ]
    parts += [
        marker(dot.look, share(across, dot.bytes), _height(up, dot.accuracy), _hint(dot))
        for dot in reversed(dots)
    ]
    parts += _labels(dots, across, up)
    judged = ", ".join(f"{dot.name} {dot.words}" for dot in dots if dot.named and dot.look != "base")
    text = (
        f"{count_of(len(dots) - 1, 'candidate')} and the baseline by size of the ONNX file and accuracy on "
        f"validation. Finalists: {judged or 'none'}. All numbers are in the table of candidates."
    )
    plot = tag("g", *parts, transform=f"translate(0,{_TOP})")
    name = tag("text", "accuracy on validation", x=-48, y=10, class_="s")
    return picture("front", "Size against accuracy", text, _TOP + _DEEP + 44, "front", [name, plot])


def _padded(numbers: list[int] | list[float], part: float) -> Scale:
    low, high = min(numbers), max(numbers)
    pad = part * (high - low) or max(0.05 * abs(high), 0.01)
    return Scale(low - pad, high + pad)


def _height(up: Scale, accuracy: float) -> float:
    return round(_DEEP * (1 - up.place(accuracy)), 1)


def _hint(dot: _Dot) -> str:
    score = describe_value(dot.accuracy, "accuracy", "proportion", 1)
    return f"{dot.name}: {describe_bytes(dot.bytes)}, {score}, {dot.words}"


def _grid(across: Scale, up: Scale) -> list[Markup]:
    parts = [line("0%", _DEEP, "100%", _DEEP, "axis"), line("0%", 0, "0%", _DEEP, "axis")]
    heights = nice_ticks(up.low, up.high, 5)
    digits = 0 if heights[-1] - heights[0] >= 0.05 else 1
    for tick in heights:
        y = _height(up, tick)
        words = describe_value(tick, "accuracy", "proportion", digits)
        parts += [line("0%", y, "100%", y, "grid"), tag("text", words, x=-8, y=y + 4, class_="e")]
    for size in _size_ticks(across):
        at = share(across, size)
        parts += [line(at, _DEEP, at, _DEEP + 5, "axis")]
        parts += [tag("text", describe_bytes(size).replace(".0 ", " "), x=at, y=_DEEP + 19, class_="a")]
    scale = ", logarithmic scale" if across.logarithmic else ""
    return [*parts, tag("text", f"size of the ONNX file{scale}", x="100%", y=_DEEP + 38, class_="e")]


def _size_ticks(across: Scale) -> tuple[float, ...]:
    if not across.logarithmic:
        return nice_ticks(across.low, across.high, 4)
    every = [factor * 10**power for power in range(13) for factor in (1, 2, 5)]
    inside = [size for size in every if across.low <= size <= across.high]
    return tuple(float(size) for size in inside[:: 1 + len(inside) // 6])


def _staircase(dots: list[_Dot], across: Scale, up: Scale) -> list[Markup]:
    """Draw the best accuracy to be had for each size, from the smallest model of the front on."""
    parts = []
    for (size, score), (larger, better) in pairwise(_best(dots)):
        y, end = _height(up, score), share(across, larger)
        parts += [
            line(share(across, size), y, end, y, "step"),
            line(end, y, end, _height(up, better), "step"),
        ]
    return parts


def _best(dots: list[_Dot]) -> list[tuple[int, float]]:
    """Return size and accuracy of the front's members that are more accurate than all smaller ones."""
    best: list[tuple[int, float]] = []
    for dot in sorted((dot for dot in dots if dot.on_front), key=lambda dot: (dot.bytes, -dot.accuracy)):
        if not best or dot.accuracy > best[-1][1]:
            best.append((dot.bytes, dot.accuracy))
    return best


def _labels(dots: list[_Dot], across: Scale, up: Scale) -> list[Markup]:
    """Name every dot where its name covers least on a narrow, a middling and a wide page."""
    taken = [_obstacles(dots, across, up, width) for width in _WIDTHS]
    names: list[list[_Box]] = [[] for _ in _WIDTHS]
    parts = []
    for dot in dots:
        name = shorten(dot.name, 24)
        spots = [_spots(dot, across, up, _LETTER * len(name), width) for width in _WIDTHS]
        costs = [0.0] * len(_PLACES)
        for width, boxes, words, choices in zip(_WIDTHS, taken, names, spots, strict=True):
            for index, spot in enumerate(choices):
                costs[index] += spot.away + _collisions(spot.box, [*boxes, *words], width)
                costs[index] += _crossings(spot, words) if spot.away else 0.0
        index = costs.index(min(costs))
        for words, choices in zip(names, spots, strict=True):
            words.append(choices[index].box)
        parts += _label(dot, name, spots[0][index], across, up)
    return parts


def _label(dot: _Dot, name: str, spot: _Spot, across: Scale, up: Scale) -> list[Markup]:
    x, y = share(across, dot.bytes), _height(up, dot.accuracy)
    look_of = "d named" if dot.named else "d"
    written = tag("text", name, x=x, y=y, dx=spot.dx, dy=spot.dy, text_anchor=spot.anchor, class_=look_of)
    if not spot.away:
        return [written]
    # Within a picture of its own, lengths in pixels start where a share of the width ends.
    leader = tag("line", x1=0, y1=0, x2=spot.dx, y2=spot.dy - 4, class_="leader")
    return [tag("svg", leader, x=x, y=y, class_="free", aria_hidden="true"), written]


def _obstacles(dots: list[_Dot], across: Scale, up: Scale, width: float) -> list[_Box]:
    """Return the boxes of all dots, and of the staircase's lines, on a page of this width."""
    boxes: list[_Box] = []
    for dot in dots:
        x, y = width * across.place(dot.bytes), _height(up, dot.accuracy)
        reach = 11 if dot.on_front else 7
        boxes.append((x - reach, y - reach, x + reach, y + reach))
    corners = [(width * across.place(size), _height(up, score)) for size, score in _best(dots)]
    for (x, y), (right, top) in pairwise(corners):
        boxes += [(x, y - 1, right, y + 1), (right - 1, top, right + 1, y)]
    return boxes


def _spots(dot: _Dot, across: Scale, up: Scale, length: float, width: float) -> list[_Spot]:
    """Return every place for a name: beside its dot, then further off at the end of a line."""
    x, y = width * across.place(dot.bytes), _height(up, dot.accuracy)
    spots = []
    for anchor, dx, dy, away in _PLACES:
        left = x + dx - {"start": 0.0, "end": length, "middle": length / 2}[anchor]
        spots.append(_Spot(x, y, anchor, dx, dy, away, (left, y + dy - 11, left + length, y + dy + 3)))
    return spots


def _crossings(spot: _Spot, words: list[_Box]) -> float:
    """Return what it costs that the line to a far name runs through other names."""
    points = [(spot.x + part / 8 * spot.dx, spot.y + part / 8 * (spot.dy - 4)) for part in range(2, 8)]
    return 40.0 * sum(
        left <= x <= right and top <= y <= bottom for x, y in points for left, top, right, bottom in words
    )


def _collisions(box: _Box, taken: list[_Box], width: float) -> float:
    """Return how much of the box is covered by others or lies off the plot, in square pixels."""
    left, top, right, bottom = box
    area = 0.0
    for other in taken:
        across = min(right, other[2]) - max(left, other[0])
        down = min(bottom, other[3]) - max(top, other[1])
        area += across * down if across > 0 and down > 0 else 0.0
    outside = max(0.0, -left) + max(0.0, right - width - 8) + max(0.0, -top) + max(0.0, bottom - _DEEP)
    return area + 40 * outside
