# SPDX-License-Identifier: Apache-2.0
"""The numbers of a decision by metric and slice, and how a card prints them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from checks.errors import EvidenceError
from pipeline.card.contents import Contents
from pipeline.card.markdown import DASH, Markdown, literal, text
from pipeline.fields import Fields
from pipeline.report.wording import describe_interval, describe_value

__all__ = [
    "NOT_MEASURED",
    "TO_COMPLETE",
    "Finding",
    "Judged",
    "Reading",
    "batch_size",
    "cite",
    "declared",
    "interval_of",
    "judgement_of",
    "order_slices",
    "read_judged",
    "slice_words",
    "value_of",
]

NOT_MEASURED = literal("not measured")
TO_COMPLETE = literal("*to be completed by the provider*")

_LATENCY = re.compile(r"latency_ratio_b([1-9][0-9]{0,8})")
_NUMBER = re.compile("[A-Za-z0-9 .,%+\N{MULTIPLICATION SIGN}\N{MINUS SIGN}-]*")


_MAX_NAME = 80
_SIDES = {"margin": "at least ", "min": "at least ", "max": "at most "}


@dataclass(frozen=True)
class Reading:
    """One measurement.

    Attributes:
        metric: As policies name it.
        slice: `overall` or `attribute=level`.
        versus: The second slice of a comparison between slices, else None.
        value: In `unit`.
        interval: Each end a one-sided 95 % bound, or None where there is no sampling error.
        n: Independent units behind it.
        unit: `proportion`, `ratio`, `bytes`, `count`, `1`.
    """

    metric: str
    slice: str
    versus: str | None
    value: float
    interval: tuple[float, float] | None
    n: int
    unit: str


@dataclass(frozen=True)
class Finding:
    """One rule on one measurement.

    Attributes:
        rule: Its name in the policy.
        kind: `assert`, `bounded`, `screen`.
        blocking: Whether the gate waits for it.
        verdict: What the rule says.
        reading: What it was applied to.
        bound: The one-sided bound that decides, in the reading's unit.
        limit: What the bound is held against.
        limit_kind: `margin`, `min` or `max`.
        rule_reason: Why the policy has this rule.
    """

    rule: str
    kind: str
    blocking: bool
    verdict: str
    reading: Reading
    bound: float | None
    limit: float
    limit_kind: str
    rule_reason: str


@dataclass(frozen=True)
class Judged:
    """Findings and measurements of one decision, in its order.

    Attributes:
        findings: One a rule and measurement.
        readings: Measurements by metric, slice and second slice.
    """

    findings: tuple[Finding, ...]
    readings: Mapping[tuple[str, str, str | None], Reading]

    def reading(self, metric: str, where: str = "overall", versus: str | None = None) -> Reading | None:
        """Return one measurement, or None."""
        return self.readings.get((metric, where, versus))

    def readings_of(self, metric: str) -> tuple[Reading, ...]:
        """Return all measurements of one metric."""
        return tuple(reading for reading in self.readings.values() if reading.metric == metric)

    def findings_on(self, reading: Reading) -> tuple[Finding, ...]:
        """Return what the rules said of one measurement."""
        return tuple(finding for finding in self.findings if finding.reading == reading)


def _reading(fields: Fields) -> Reading:
    return Reading(
        metric=fields.text("metric"),
        slice=fields.text("slice"),
        versus=fields.maybe_text("versus"),
        value=fields.number("value"),
        interval=fields.maybe_interval("interval"),
        n=fields.count("n"),
        unit=fields.text("unit"),
    )


def _finding(fields: Fields) -> Finding:
    return Finding(
        rule=fields.text("rule"),
        kind=fields.text("kind"),
        blocking=fields.flag("blocking"),
        verdict=fields.text("verdict"),
        reading=_reading(fields),
        bound=fields.maybe_number("bound"),
        limit=fields.number("limit"),
        limit_kind=fields.text("limit_kind"),
        rule_reason=fields.text("rule_reason"),
    )


def read_judged(decision: Fields) -> Judged:
    """Read findings and measurements of `decision.json`.

    Raises:
        EvidenceError: if any of them is malformed, or a finding is about no measurement.
    """
    readings = [_reading(entry) for entry in decision.entries("measurements")]
    findings = tuple(_finding(entry) for entry in decision.entries("findings"))
    strange = [finding.rule for finding in findings if finding.reading not in readings]
    if strange:
        raise EvidenceError(
            f"expected findings on the measurements that stand there, got others by the rules {strange[:3]}",
            where=decision.where,
        )
    return Judged(
        findings, {(reading.metric, reading.slice, reading.versus): reading for reading in readings}
    )


def batch_size(metric: str) -> int | None:
    """Return the batch size in the name of a latency ratio, or None for any other metric."""
    match = _LATENCY.fullmatch(metric)
    return int(match[1]) if match else None


def order_slices(slices: Iterable[str], data: Fields) -> list[str]:
    """Return slices as people read them: all examples, the slice columns as declared, then the classes."""
    origins = data.value.get("slice_origins")
    levels: dict[str, Sequence[object]] = {"label": data.texts("classes")}
    for name, origin in (origins if isinstance(origins, dict) else {}).items():
        named = origin.get("levels") if isinstance(origin, dict) else None
        levels[name] = named if isinstance(named, list) else ()
    columns = ["overall", *data.texts("slices"), "label"]

    def rank(name: str) -> tuple[int, int, str]:
        attribute, _, level = name.partition("=")
        known = list(levels.get(attribute, ()))
        place = columns.index(attribute) if attribute in columns else len(columns)
        return place, known.index(level) if level in known else len(known), name

    return sorted(set(slices), key=rank)


def slice_words(name: str, versus: str | None = None) -> Markdown:
    """Return a slice, or a pair of slices, in words."""
    if versus is not None:
        return literal(f"{slice_words(name)} against {slice_words(versus)}")
    if name == "overall":
        return literal("all examples")
    attribute, _, level = name.partition("=")
    shown = "class" if attribute == "label" else text(attribute, _MAX_NAME)
    return literal(f"{shown} {text(level, _MAX_NAME)}")


def _printed(words: str) -> Markdown:
    """Numbers need no escaping, and read better without; only a unit could hold anything else."""
    return literal(words) if _NUMBER.fullmatch(words) else text(words)


def value_of(reading: Reading | None) -> Markdown:
    """Return a value with its unit, or say that it was not measured."""
    if reading is None:
        return NOT_MEASURED
    return _printed(describe_value(reading.value, reading.metric, reading.unit))


def interval_of(reading: Reading | None) -> Markdown:
    """Return an interval, or a dash where there is none."""
    if reading is None or reading.interval is None:
        return DASH
    return _printed(describe_interval(reading.interval, reading.metric, reading.unit))


def judgement_of(finding: Finding | None) -> tuple[Markdown, Markdown, Markdown]:
    """Return the bound that decides, the limit and the verdict; without a rule there is none of them."""
    if finding is None:
        return DASH, literal("no rule"), DASH
    metric, unit = finding.reading.metric, finding.reading.unit
    bound = DASH if finding.bound is None else _printed(describe_value(finding.bound, metric, unit))
    limit = _printed(_SIDES.get(finding.limit_kind, "") + describe_value(finding.limit, metric, unit))
    verdict = f"**{text(finding.verdict)}**" + ("" if finding.blocking else " (advisory)")
    return bound, limit, literal(verdict)


def cite(contents: Contents, *paths: str) -> Markdown:
    """Return the line under a table that names the files its numbers come from."""
    named = ", ".join(f"`{path}` (`{contents.digest(path)[:12]}`)" for path in paths)
    return literal(f"*From {named}.*")


def declared(value: str, limit: int = 2_000) -> Markdown:
    """Return what a person declared, at most `limit` characters of it, or who has to."""
    return text(value, limit) if value.strip() else TO_COMPLETE
