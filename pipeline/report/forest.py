# SPDX-License-Identifier: Apache-2.0
"""Forest plot: what compression changed on every slice, beside the margin the policy allows."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report.figures import Decision, Finding, Reading
from pipeline.report.markup import Markup, look, tag
from pipeline.report.svg import Scale, line, marker, nice_ticks, picture, share
from pipeline.report.wording import NO_FIGURE, clean, count_of, describe_interval, describe_value, shorten

__all__ = ["ForestRow", "draw_forest", "forest_rows"]

METRIC = "accuracy_change"
_PITCH = 32
_HEAD = 22
_LEFT = 180
_RIGHT = 190
"""Widths left and right of the plot; the style sheet keeps them free, and moves the letters on a phone."""
_WORST_FIRST = ("error", "fail", "open", "calm", "pass")


@dataclass(frozen=True)
class ForestRow:
    """One slice.

    Attributes:
        slice: `overall` or `attribute=level`.
        verdict: The gravest one on it, or nothing where no rule looked.
        value: Change in accuracy, or None if it was not measured.
        interval: 90 % interval.
        bound: The one-sided bound that decides.
        limit: The margin of the rule with the gravest verdict.
        n: Examples.
    """

    slice: str
    verdict: str
    value: float | None
    interval: tuple[float, float] | None
    bound: float | None
    limit: float | None
    n: int | None

    @property
    def group(self) -> str:
        """The attribute, empty for the whole split."""
        return self.slice.partition("=")[0] if "=" in self.slice else ""

    @property
    def label(self) -> str:
        """The level, or the slice's own name."""
        return self.slice.partition("=")[2] if "=" in self.slice else self.slice

    @property
    def look(self) -> str:
        """The CSS class."""
        return look(self.verdict) if self.verdict else "calm"


def forest_rows(decision: Decision) -> tuple[ForestRow, ...]:
    """Return a row for every slice measured or judged: overall, levels by attribute, classes."""
    readings = {
        item.slice: item for item in decision.readings if item.metric == METRIC and item.versus is None
    }
    findings: dict[str, Finding] = {}
    for item in decision.findings:
        if item.metric == METRIC and item.versus is None:
            name = item.slice or f"rule {item.rule}"
            held = findings.get(name)
            if held is None or _gravity(item) < _gravity(held):
                findings[name] = item
    rows = [_row(name, readings.get(name), findings.get(name)) for name in {**findings, **readings}]
    groups = list(dict.fromkeys(row.group for row in rows))
    return tuple(
        sorted(rows, key=lambda row: (row.group != "", row.group == "label", groups.index(row.group)))
    )


def _gravity(finding: Finding) -> int:
    return _WORST_FIRST.index(look(finding.verdict))


def _row(name: str, reading: Reading | None, finding: Finding | None) -> ForestRow:
    measured = reading or finding
    return ForestRow(
        slice=name,
        verdict=finding.verdict if finding else "",
        value=measured.value if measured else None,
        interval=measured.interval if measured else None,
        bound=finding.bound if finding else None,
        limit=finding.limit if finding else None,
        n=measured.n if measured else None,
    )


def draw_forest(decision: Decision) -> Markup | None:
    """Return the plot, or None if no change in accuracy was measured or judged.

    Args:
        decision: On one finalist.
    """
    rows = forest_rows(decision)
    if not rows:
        return None
    scale, parts, top, group = _scale(rows), [], 0, ""
    for row in rows:
        if row.group != group:
            group, heading = row.group, "class" if row.group == "label" else row.group
            parts.append(tag("text", shorten(heading, 40), x=-_LEFT, y=top + 16, class_="h"))
            top += _HEAD
        parts.append(tag("g", *_cells(row, scale), transform=f"translate(0,{top})"))
        top += _PITCH
    parts.insert(0, line(share(scale, 0), 0, share(scale, 0), top + 4, "zero"))
    parts.append(_axis(scale, top))
    counted = [
        f"{sum(r.verdict == v for r in rows)} {v}" for v in dict.fromkeys(r.verdict for r in rows) if v
    ]
    text = (
        f"Change in accuracy, candidate minus baseline, on {count_of(len(rows), 'slice')}; "
        f"verdicts: {', '.join(counted) or 'none'}. The same numbers are in the table of findings."
    )
    title = f"Change in accuracy by slice, {decision.candidate}"
    return picture(f"forest-{decision.slot}", title, text, top + 46, "forest", parts)


def _scale(rows: tuple[ForestRow, ...]) -> Scale:
    """Return a scale over every value and limit; intervals far wider than the margins run off its ends."""
    solid = [number for row in rows for number in (row.value, row.limit) if number is not None] + [0.0]
    ends = [end for row in rows for end in (*(row.interval or ()), row.bound) if end is not None] + solid
    reach = 3 * max([abs(row.limit) for row in rows if row.limit is not None], default=1.0) or 1.0
    low = min(*solid, max(min(ends), -reach))
    high = max(*solid, min(max(ends), reach))
    pad = 0.04 * (high - low) or 0.01
    return Scale(low - pad, high + pad)


def _cells(row: ForestRow, scale: Scale) -> list[Markup]:
    middle = _PITCH / 2
    marks = [line("0%", middle, "100%", middle, "guide")]
    if row.limit is not None:
        marks.append(line(share(scale, row.limit), 0, share(scale, row.limit), _PITCH, "margin"))
    if row.interval is not None:
        low, high = row.interval
        reaches = [end for end in (low, high, row.bound) if end is not None]
        marks.append(line(share(scale, min(reaches)), middle, share(scale, max(reaches)), middle, "thin"))
        marks.append(line(share(scale, low), middle, share(scale, high), middle, f"bar {row.look}"))
    if row.bound is not None and scale.low < row.bound < scale.high:
        at = share(scale, row.bound)
        marks.append(line(at, middle - 5, at, middle + 5, f"tick {row.look}"))
    if row.value is not None:
        marks.append(marker(row.look, share(scale, row.value), middle))
    else:
        marks.append(marker(row.look, share(scale, scale.low), middle))
    figures = describe_value(row.value, METRIC, "proportion", 1) if row.value is not None else "not measured"
    spread = describe_interval(row.interval, METRIC, "proportion", 1).removesuffix(" pp")
    words = f"{figures} [{spread}]" if spread else figures
    hint = f"{row.slice}: {words}, {row.verdict or 'no rule'}, n {NO_FIGURE if row.n is None else row.n}"
    return [
        tag("title", hint),
        tag("text", _short(row.label), x=-_LEFT, y=20, class_="l"),
        tag("text", words, x="100%", dx=_RIGHT, y=20, class_="v"),
        tag("g", *marks, class_="marks"),
    ]


def _short(label: str) -> str:
    """Return a label that fits, cut in its middle: levels are often told apart by their ends."""
    label = clean(label)
    return label if len(label) <= 22 else f"{label[:12]}\u2026{label[-9:]}"


def _axis(scale: Scale, top: float) -> Markup:
    ticks = nice_ticks(scale.low, scale.high, 5)
    parts = [line("0%", 0, "100%", 0, "axis")]
    for tick in ticks:
        at = share(scale, tick)
        words = describe_value(tick, METRIC, "proportion", 0 if abs(ticks[0] - ticks[-1]) >= 0.05 else 1)
        parts += [line(at, 0, at, 5, "axis"), tag("text", words.removesuffix(" pp"), x=at, y=19, class_="a")]
    parts.append(tag("text", "\u2190 worse", x="0%", y=37, class_="s"))
    parts.append(tag("text", "better \u2192", x="100%", y=37, class_="e"))
    return tag("g", *parts, transform=f"translate(0,{top + 4})")
