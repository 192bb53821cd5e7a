# SPDX-License-Identifier: Apache-2.0
"""Forest plot: what compression changed on every slice, beside the margin the policy allows."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.decision_entries import Finding, Reading, attribute_of
from pipeline.decision_file import Decision
from pipeline.plain import clean, shorten
from pipeline.report.markup import Markup, look, tag
from pipeline.report.svg import Scale, line, marker, nice_ticks, picture, share
from pipeline.report.wording import (
    NO_FIGURE,
    count_of,
    describe_interval,
    describe_value,
)

__all__ = ["ACCURACY", "LEFT", "RIGHT", "Forest", "ForestRow", "draw_forest", "forest_metrics", "forest_of"]

ACCURACY = "accuracy_change"
_PITCH = 32
_HEAD = 22
LEFT = 210
RIGHT = 190
"""Widths left and right of the plot; the style sheet keeps them free, and moves the letters on a phone."""
_WORST_FIRST = ("error", "fail", "open", "calm", "pass")
_KEPT_FIRST = ("error", "fail", "open", "pass", "calm")
_MOST_ROWS = 60


@dataclass(frozen=True)
class ForestRow:
    """One slice, and the class or operating point it is about.

    Attributes:
        slice: `overall` or `attribute=level`.
        target: The class or the operating point, else empty.
        verdict: The gravest one on it, or nothing where no rule looked.
        value: The change, or None if it was not measured.
        interval: 90 % interval.
        bound: The one-sided bound that decides.
        limit: The margin of the rule with the gravest verdict.
        n: Examples.
    """

    slice: str
    target: str
    verdict: str
    value: float | None
    interval: tuple[float, float] | None
    bound: float | None
    limit: float | None
    n: int | None

    @property
    def group(self) -> str:
        """The heading it stands below, empty for the whole split."""
        if self.target:
            return f"{self.slice}, for"
        return attribute_of(self.slice) if "=" in self.slice else ""

    @property
    def label(self) -> str:
        """What tells it from the others of its group."""
        return self.target or (self.slice.partition("=")[2] if self.group else self.slice)

    @property
    def subject(self) -> str:
        """The slice and the target in words."""
        return f"{self.slice} for {self.target}" if self.target else self.slice

    @property
    def look(self) -> str:
        """The CSS class."""
        return look(self.verdict) if self.verdict else "calm"


@dataclass(frozen=True)
class Forest:
    """One plot.

    Attributes:
        metric: Of all its rows.
        unit: Of all its numbers.
        rises: Whether the harm is a rise, so that right is worse.
        rows: Overall, levels by attribute, classes.
        left_out: How many more rows there are; those kept are the gravest, and the nearest to their limits.
    """

    metric: str
    unit: str
    rises: bool
    rows: tuple[ForestRow, ...]
    left_out: int

    @property
    def words(self) -> str:
        """Name of the metric in words."""
        if self.metric == ACCURACY:
            return "Change in accuracy"
        return f"Change in {self.metric.removesuffix('_change').replace('_', ' ')}"


def forest_metrics(decision: Decision) -> tuple[str, ...]:
    """Return the metrics that are drawn: accuracy, then every other change that a rule bounds on slices."""
    ruled = dict.fromkeys(
        item.metric
        for item in decision.findings
        if item.kind == "bounded" and item.metric.endswith("_change")
    )
    drawn = [metric for metric in ruled if metric != ACCURACY and len(_rows(decision, metric)) > 1]
    return (ACCURACY, *drawn)


def forest_of(decision: Decision, metric: str = ACCURACY) -> Forest | None:
    """Return what is drawn of one metric, or None if it was neither measured nor judged."""
    rows = _rows(decision, metric)
    if not rows:
        return None
    kept = sorted(rows, key=lambda row: (row.slice != "overall", _KEPT_FIRST.index(row.look), _room(row)))
    shown = {id(row) for row in kept[:_MOST_ROWS]}
    found = [item for item in decision.findings if item.metric == metric]
    units = [item.unit for item in decision.readings_of(metric)] + [item.unit for item in found]
    return Forest(
        metric=metric,
        unit=units[0],
        rises=any(item.limit_kind == "max" for item in found),
        rows=tuple(row for row in rows if id(row) in shown),
        left_out=len(rows) - len(shown),
    )


def _room(row: ForestRow) -> float:
    if row.bound is None or row.limit is None:
        return 0.0
    return abs(row.bound - row.limit)


def _rows(decision: Decision, metric: str) -> tuple[ForestRow, ...]:
    """Return a row for every slice measured or judged, without cells that no rule judges."""
    wide = {item.slice for item in decision.slices_of(metric)} | {"overall"}
    readings = {
        (item.slice, item.target): item
        for item in decision.readings_of(metric)
        if item.versus is None and (item.slice in wide or decision.findings_on(item))
    }
    findings: dict[tuple[str, str], Finding] = {}
    for item in decision.findings:
        if item.metric == metric and item.versus is None and not item.quiet:
            name = item.slice or f"rule {item.rule}", item.target
            held = findings.get(name)
            if held is None or _gravity(item) < _gravity(held):
                findings[name] = item
    quiet = {(item.slice, item.target) for item in decision.listed if item.metric == metric}
    places = [place for place in {**findings, **readings} if place in findings or place not in quiet]
    rows = [_row(*place, readings.get(place), findings.get(place)) for place in places]
    groups = list(dict.fromkeys(row.group for row in rows))
    return tuple(
        sorted(rows, key=lambda row: (row.group != "", row.group == "label", groups.index(row.group)))
    )


def _gravity(finding: Finding) -> int:
    return _WORST_FIRST.index(look(finding.verdict))


def _row(where: str, target: str, reading: Reading | None, finding: Finding | None) -> ForestRow:
    measured = reading or finding
    return ForestRow(
        slice=where,
        target=target,
        verdict=finding.verdict if finding else "",
        value=measured.value if measured else None,
        interval=measured.interval if measured else None,
        bound=finding.bound if finding else None,
        limit=finding.limit if finding else None,
        n=measured.n if measured else None,
    )


def draw_forest(decision: Decision, metric: str = ACCURACY) -> Markup | None:
    """Return the plot, or None if nothing of it was measured or judged.

    Args:
        decision: On one finalist.
        metric: A paired change.
    """
    forest = forest_of(decision, metric)
    if forest is None:
        return None
    scale, parts, top, group = _scale(forest.rows), [], 0, ""
    for row in forest.rows:
        if row.group != group:
            group = row.group
            parts.append(tag("text", shorten(group, 40), x=-LEFT, y=top + 16, class_="h"))
            top += _HEAD
        parts.append(tag("g", *_cells(row, forest, scale), transform=f"translate(0,{top})"))
        top += _PITCH
    parts.insert(0, line(share(scale, 0), 0, share(scale, 0), top + 4, "zero"))
    parts.append(_axis(scale, forest, top))
    verdicts = [row.verdict for row in forest.rows]
    counted = [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts) if verdict]
    text = (
        f"{forest.words}, candidate minus baseline, on {count_of(len(forest.rows), 'slice')}; "
        f"verdicts: {', '.join(counted) or 'none'}. The same numbers are in the table of findings."
    )
    name = f"forest-{decision.slot}" + ("" if metric == ACCURACY else f"-{metric}")
    title = f"{forest.words} by slice, {decision.candidate}"
    return picture(name, title, text, top + 46, "forest", parts)


def _scale(rows: tuple[ForestRow, ...]) -> Scale:
    """Return a scale over every value and limit; intervals far wider than the margins run off its ends."""
    solid = [number for row in rows for number in (row.value, row.limit) if number is not None] + [0.0]
    ends = [end for row in rows for end in (*(row.interval or ()), row.bound) if end is not None] + solid
    reach = 3 * max([abs(row.limit) for row in rows if row.limit is not None], default=1.0) or 1.0
    low = min(*solid, max(min(ends), -reach))
    high = max(*solid, min(max(ends), reach))
    pad = 0.04 * (high - low) or 0.01
    return Scale(low - pad, high + pad)


def _cells(row: ForestRow, forest: Forest, scale: Scale) -> list[Markup]:
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
    words = "not measured" if row.value is None else describe_value(row.value, forest.metric, forest.unit, 1)
    spread = describe_interval(row.interval, forest.metric, forest.unit, 1).removesuffix(" pp")
    words = f"{words} [{spread}]" if spread else words
    count = NO_FIGURE if row.n is None else f"{row.n:,}"
    return [
        tag("title", f"{row.subject}: {words}, {row.verdict or 'no rule'}, n {count}"),
        tag(
            "text", _short(row.label), " ", tag("tspan", f"n {count}", class_="n"), x=-LEFT, y=20, class_="l"
        ),
        tag("text", words, x="100%", dx=RIGHT, y=20, class_="v"),
        tag("g", *marks, class_="marks"),
    ]


def _short(label: str) -> str:
    """Return a label that fits, cut in its middle: levels are often told apart by their ends."""
    label = clean(label)
    return label if len(label) <= 20 else f"{label[:11]}\u2026{label[-8:]}"


def _axis(scale: Scale, forest: Forest, top: float) -> Markup:
    ticks = nice_ticks(scale.low, scale.high, 5)
    parts = [line("0%", 0, "100%", 0, "axis")]
    digits = 0 if abs(ticks[0] - ticks[-1]) >= 0.05 else 1
    for tick in ticks:
        at = share(scale, tick)
        words = describe_value(tick, forest.metric, forest.unit, digits).removesuffix(" pp")
        parts += [line(at, 0, at, 5, "axis"), tag("text", words, x=at, y=19, class_="a")]
    low, high = ("better", "worse") if forest.rises else ("worse", "better")
    parts.append(tag("text", f"\u2190 {low}", x="0%", y=37, class_="s"))
    parts.append(tag("text", f"{high} \u2192", x="100%", y=37, class_="e"))
    return tag("g", *parts, transform=f"translate(0,{top + 4})")
