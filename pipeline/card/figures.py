# SPDX-License-Identifier: Apache-2.0
"""How a card prints the figures of a decision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from checks.errors import EvidenceError
from pipeline.card.contents import Contents
from pipeline.decision_entries import Finding, Reading
from pipeline.decision_file import Decision, parse_decision
from pipeline.fields import Fields
from pipeline.governance import Governance, answers_to, completed_by
from pipeline.markdown import DASH, Markdown, join, literal, text
from pipeline.report.wording import (
    describe_detectable,
    describe_interval,
    describe_limit,
    describe_p,
    describe_value,
)
from pipeline.waiver import Waiver
from pipeline.waivers import with_waivers

__all__ = [
    "NOT_MEASURED",
    "TO_COMPLETE",
    "Judged",
    "cite",
    "declared",
    "declared_at",
    "interval_of",
    "judgement_of",
    "order_slices",
    "read_judged",
    "slice_words",
    "title_of",
    "to_complete",
    "value_of",
]

NOT_MEASURED = literal("not measured")
TO_COMPLETE = literal("*to be completed by the provider*")

_MAX_DECLARED = 4_000

_NUMBER = re.compile("[A-Za-z0-9 .,%+()<\N{MULTIPLICATION SIGN}\N{MINUS SIGN}-]*")
_MAX_NAME = 80


@dataclass(frozen=True)
class Judged:
    """The decision that a card is about.

    Attributes:
        decision: Findings and measurements in its order.
        readings: Measurements by metric, slice, second slice and target.
    """

    decision: Decision
    readings: Mapping[tuple[str, str, str | None, str], Reading]

    def readings_of(self, metric: str) -> tuple[Reading, ...]:
        """Return all measurements of one metric."""
        return self.decision.readings_of(metric)


def read_judged(decision: Fields, waivers: Sequence[Waiver] = ()) -> Judged:
    """Read findings and measurements of `decision.json`.

    Args:
        decision: The file.
        waivers: What lets findings through that block, `Contents.waivers`.

    Raises:
        EvidenceError: if any of them is malformed, a finding is about no measurement, or one blocks and is
            not waived: of what does not ship there is no card.
    """
    read = with_waivers(parse_decision(decision), waivers, decision.where)
    if not read.ships:
        raise EvidenceError(
            f"expected a decision that is open or waived, got {read.standing}", where=decision.where
        )
    known = {id(finding) for reading in read.readings for finding in read.findings_on(reading)}
    strange = [finding.rule for finding in read.findings if finding.slice and id(finding) not in known]
    if strange:
        raise EvidenceError(
            f"expected findings on the measurements that stand there, got others by the rules {strange[:3]}",
            where=decision.where,
        )
    places = {(one.metric, one.slice, one.versus, one.target): one for one in read.readings}
    return Judged(read, places)


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


def slice_words(one: Reading | Finding) -> Markdown:
    """Return what a figure is about: a slice or a pair of slices, and a class or an operating point."""

    def place(name: str) -> str:
        return "all examples" if name == "overall" else text(name, _MAX_NAME)

    words = f"{place(one.slice)} against {place(one.versus)}" if one.versus else place(one.slice)
    return literal(f"{words} for {text(one.target, _MAX_NAME)}" if one.target else words) if words else DASH


def _printed(words: str) -> Markdown:
    """Numbers need no escaping, and read better without; only a unit could hold anything else."""
    return literal(words) if _NUMBER.fullmatch(words) else text(words)


def value_of(reading: Reading | Finding | None) -> Markdown:
    """Return a value with its unit, or say that it was not measured."""
    if reading is None or reading.value is None:
        return NOT_MEASURED
    return _printed(describe_value(reading.value, reading.metric, reading.unit))


def interval_of(reading: Reading | Finding | None) -> Markdown:
    """Return an interval, or a dash where there is none."""
    if reading is None or reading.interval is None:
        return DASH
    return _printed(describe_interval(reading.interval, reading.metric, reading.unit))


def judgement_of(finding: Finding | None) -> tuple[Markdown, Markdown, Markdown, Markdown]:
    """Return what decides, the limit, the smallest harm that would be seen, and the verdict.

    Without a rule there is none of them.
    """
    if finding is None:
        return DASH, literal("no rule"), DASH, DASH
    bound = "" if finding.bound is None else describe_value(finding.bound, finding.metric, finding.unit)
    decides = ", ".join(words for words in (bound, describe_p(finding.p)) if words)
    seen = describe_detectable(finding)
    verdict = f"**{text(finding.verdict)}**" + ("" if finding.blocking else " (advisory)")
    if finding.waiver is not None:
        verdict += f", **waived** until {finding.waiver.until}"
    return (
        _printed(decides) if decides else DASH,
        _printed(describe_limit(finding)),
        _printed(seen) if seen else DASH,
        literal(verdict),
    )


def cite(contents: Contents, *paths: str) -> Markdown:
    """Return the line under a table that names the files its numbers come from."""
    named = ", ".join(f"`{path}` (`{contents.digest(path)[:12]}`)" for path in paths)
    return literal(f"*From {named}.*")


def title_of(contents: Contents) -> str:
    """Return the title that people gave the model, else the candidate's name."""
    return contents.governance.title.strip() or contents.verdict.text("candidate")


def to_complete(by: str) -> Markdown:
    """Return who has to complete what stands nowhere: `provider`, `deployer`, or both."""
    return literal(f"*to be completed by the {by.replace(' and ', ' and the ')}*")


def declared(value: str, limit: int = _MAX_DECLARED) -> Markdown:
    """Return what a person declared, at most `limit` characters of it, or who has to."""
    return text(value, limit) if value.strip() else TO_COMPLETE


def declared_at(governance: Governance, key: str) -> Markdown:
    """Return what was declared under a key of `governance.yaml` on one line, or who has to."""
    answers = answers_to(governance, key)
    if not answers:
        return to_complete(completed_by(key))
    return join((text(answer, _MAX_DECLARED) for answer in answers), "; ")
