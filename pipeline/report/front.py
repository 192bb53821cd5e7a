# SPDX-License-Identifier: Apache-2.0
"""Size against accuracy: every candidate, the Pareto front, and which of them were judged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pipeline.report.figures import Comparison
from pipeline.report.markup import Markup, look, tag
from pipeline.report.svg import Scale, line, marker, nice_ticks, picture, share
from pipeline.report.wording import count_of, describe_bytes, describe_standing, describe_value, shorten

__all__ = ["draw_front"]

_TOP = 24
_DEEP = 240
_NARROW = 270
"""Width of the plot on a small phone; labels that do not collide there collide nowhere."""
_LETTER = 6.6

_Box = tuple[float, float, float, float]


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
    up = _padded(scores, 0.1)
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
    """Name the dots where there is room on the narrowest page; finalists and the baseline always."""
    centres = [(_NARROW * across.place(dot.bytes), _height(up, dot.accuracy)) for dot in dots]
    reach = [11 if dot.on_front else 7 for dot in dots]
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, reach, strict=True)] + _steps(
        dots, across, up
    )
    parts = []
    for dot, (x, y) in zip(dots, centres, strict=True):
        name = shorten(dot.name, 24)
        best = min(_spots(x, y, _LETTER * len(name)), key=lambda spot: _collisions(spot[3], taken))
        if _collisions(best[3], taken) > 0 and not dot.named:
            continue
        anchor, dx, dy, box = best
        taken.append(box)
        look_of = "d named" if dot.named else "d"
        parts.append(
            tag(
                "text",
                name,
                x=share(across, dot.bytes),
                y=y,
                dx=dx,
                dy=dy,
                text_anchor=anchor,
                class_=look_of,
            )
        )
    return parts


def _steps(dots: list[_Dot], across: Scale, up: Scale) -> list[_Box]:
    """Return the boxes of the staircase's lines on the narrowest page."""
    corners = [(_NARROW * across.place(size), _height(up, score)) for size, score in _best(dots)]
    boxes: list[_Box] = []
    for (x, y), (right, top) in pairwise(corners):
        boxes += [(x, y - 1, right, y + 1), (right - 1, top, right + 1, y)]
    return boxes


def _spots(x: float, y: float, width: float) -> list[tuple[str, float, float, _Box]]:
    spots: list[tuple[str, float, float, _Box]] = []
    for anchor, dx, dy in (
        ("start", 14, 4), ("end", -14, 4), ("middle", 0, -15), ("middle", 0, 23),
        ("start", 12, -9), ("end", -12, -9), ("start", 12, 17), ("end", -12, 17),
    ):  # fmt: skip
        left = x + dx - {"start": 0.0, "end": width, "middle": width / 2}[anchor]
        spots.append((anchor, dx, dy, (left, y + dy - 11, left + width, y + dy + 3)))
    return spots


def _collisions(box: _Box, taken: list[_Box]) -> float:
    """Return how much of the box is covered by others or lies off the plot, in square pixels."""
    left, top, right, bottom = box
    area = 0.0
    for other in taken:
        across = min(right, other[2]) - max(left, other[0])
        down = min(bottom, other[3]) - max(top, other[1])
        area += across * down if across > 0 and down > 0 else 0.0
    outside = max(0.0, -left) + max(0.0, right - _NARROW - 8) + max(0.0, -top) + max(0.0, bottom - _DEEP)
    return area + 40 * outside
