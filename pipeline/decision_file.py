# SPDX-License-Identifier: Apache-2.0
"""Reads a decision file into typed figures: the report and the model card both start here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from checks.errors import EvidenceError
from pipeline.decision_entries import Finding, Reading, attribute_of
from pipeline.fields import Fields, read_fields

__all__ = [
    "DECISION_SCHEMA",
    "Attempt",
    "Decision",
    "Exemplar",
    "Outcome",
    "outcome_of",
    "parse_decision",
    "read_decision",
]

DECISION_SCHEMA = "leangate/decision/1"

Outcome = Literal["passed", "waived", "blocked", "inconclusive", "error", "absent"]
"""What a run ends in; a decision is never `waived`: waivers change no verdict."""


@dataclass(frozen=True)
class Attempt:
    """The how manieth candidate this one is that its test split was shown.

    Attributes:
        number: From 1.
        first: First attempt of the same run; those of one run share what they may err.
        last: Last attempt of the same run.
        planned: How many attempts the policy plans; None for any number.
        test_sha256: Of the test split.
    """

    number: int
    first: int
    last: int
    planned: int | None
    test_sha256: str

    def describe(self, alpha: str) -> str:
        """Return in words how `alpha` came to be divided."""
        if self.planned is not None:
            many = "1 planned attempt" if self.planned == 1 else f"{self.planned} planned attempts"
            return f"{alpha} shared by {many} on this test split"
        if self.first == self.last:
            return f"what {alpha} grants attempt {self.number} on this test split"
        joined = "and" if self.last == self.first + 1 else "to"
        numbers = f"{self.first} {joined} {self.last}"
        return f"what {alpha} grants attempts {numbers} on this test split, in equal shares"


@dataclass(frozen=True)
class Exemplar:
    """One example whose decision changed.

    Attributes:
        id: Of the example.
        label: Name of its class.
        baseline: What the baseline decided, or None if it did not.
        candidate: The same of the candidate.
        margin_change: Change of the score of the label less the best other one, below 0 where the label
            lost; None where the candidate did not decide.
    """

    id: str
    label: str
    baseline: str | None
    candidate: str | None
    margin_change: float | None


@dataclass(frozen=True)
class Decision:
    """All findings on the finalist of one slot.

    Attributes:
        subject: Names and SHA-256 of what was judged.
        evidence: Names and SHA-256 of the tables it was judged by.
        attempt: On the test split; None where nobody was judged.
        most_changed: Examples whose decision changed, the largest fall of the label's margin first.
    """

    slot: str
    candidate: str | None
    outcome: Outcome
    open: bool
    policy_name: str
    policy_sha256: str
    alpha: float
    alpha_each: float
    attempt: Attempt | None
    subject: tuple[tuple[str, str], ...]
    evidence: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    readings: tuple[Reading, ...]
    most_changed: tuple[Exemplar, ...] = ()

    @property
    def waived(self) -> tuple[Finding, ...]:
        """Findings that a waiver lets through, in the order of the rules."""
        return tuple(finding for finding in self.findings if finding.waiver is not None)

    @property
    def standing(self) -> Outcome:
        """The outcome; `waived` where waivers let through everything that would keep it shut."""
        if self.outcome not in ("blocked", "inconclusive") or not self.waived:
            return self.outcome
        return self.outcome if any(finding.stops for finding in self.findings) else "waived"

    @property
    def ships(self) -> bool:
        """Whether the candidate may go on: it passed, or what it did not pass is waived."""
        return self.open or self.standing == "waived"

    @property
    def listed(self) -> tuple[Finding, ...]:
        """Findings on cells too small to be judged alone."""
        return tuple(finding for finding in self.findings if finding.quiet)

    @property
    def screens(self) -> tuple[Finding, ...]:
        """Findings of searches, what was found first."""
        found = [finding for finding in self.findings if finding.kind == "screen"]
        return tuple(sorted(found, key=lambda item: (item.settled, item.verdict)))

    @property
    def unsettled(self) -> tuple[Finding, ...]:
        """Findings that need attention: what stops the gate first; broken, failed, undecided; by rule."""
        rank = {"ERROR": 0, "FAIL": 1, "NOT-RUN": 2, "INCONCLUSIVE": 3}
        rules = list(dict.fromkeys(finding.rule for finding in self.findings))

        def urgency(finding: Finding) -> tuple[bool, int, int, float, str]:
            room = finding.room(finding.value) or 0.0
            verdict = rank.get(finding.verdict, 4)
            return not finding.stops, verdict, rules.index(finding.rule), room, finding.subject

        wanting = (item for item in self.findings if not item.settled and not item.quiet)
        return tuple(sorted(wanting, key=urgency))

    @property
    def concerns(self) -> tuple[tuple[Finding, ...], ...]:
        """The same findings; rules that measured nothing for one and the same cause are one concern."""
        groups: dict[tuple[object, ...], list[Finding]] = {}
        for index, finding in enumerate(self.unsettled):
            alone = (index,) if finding.slice else ()
            groups.setdefault((*alone, finding.stops, finding.verdict, finding.message), []).append(finding)
        return tuple(tuple(group) for group in groups.values())

    def reading(self, metric: str, where: str = "overall") -> Reading | None:
        """Return the measurement of `metric` on the slice `where`, without a target, or None."""
        for reading in self.readings:
            if (reading.metric, reading.slice, reading.versus, reading.target) == (metric, where, None, ""):
                return reading
        return None

    def readings_of(self, metric: str) -> tuple[Reading, ...]:
        """Return all measurements of one metric."""
        return tuple(reading for reading in self.readings if reading.metric == metric)

    def slices_of(self, metric: str) -> tuple[Reading, ...]:
        """Return the measurements of one metric on single slices.

        Left out are combinations of attributes that no rule judges: most are too small to say anything.
        """
        return tuple(
            reading
            for reading in self.readings_of(metric)
            if reading.slice != "overall"
            and reading.versus is None
            and not reading.levels
            and not reading.target
            and (
                "*" not in attribute_of(reading.slice)
                or any(not item.quiet for item in self.findings_on(reading))
            )
        )

    def by_batch(self, metric: str) -> tuple[tuple[int, Reading], ...]:
        """Return the measurements named `<metric>_b<size>` by batch size, smallest first."""
        name = re.compile(re.escape(metric) + r"_b([1-9][0-9]{0,8})")
        found = [(match, reading) for reading in self.readings if (match := name.fullmatch(reading.metric))]
        return tuple(sorted(((int(match[1]), reading) for match, reading in found), key=lambda pair: pair[0]))

    def findings_on(self, reading: Reading) -> tuple[Finding, ...]:
        """Return what the rules said of one measurement.

        A rule on levels that are compared names the pair that decides, which need not be the pair that the
        measurement shows.
        """
        place = attribute_of(reading.slice) if reading.levels else (reading.slice, reading.versus)
        return self._judged.get((reading.metric, reading.target, bool(reading.levels), place), ())

    @cached_property
    def _judged(self) -> Mapping[tuple[object, ...], tuple[Finding, ...]]:
        """Findings by what they are about; once by their slices, once by the attribute compared."""
        found: dict[tuple[object, ...], tuple[Finding, ...]] = {}
        for item in self.findings:
            if item.slice:
                about = item.metric, item.target
                for key in (
                    (*about, False, (item.slice, item.versus)),
                    (*about, True, attribute_of(item.slice)),
                ):
                    found[key] = (*found.get(key, ()), item)
        return found


def outcome_of(fields: Fields, *refused: str) -> Outcome:
    """Return the outcome that a decision or a selection states.

    Raises:
        EvidenceError: if it is no outcome, or one of `refused`.
    """
    came = fields.text("outcome")
    known: Sequence[Outcome] = get_args(Outcome)
    for outcome in known:
        if came == outcome and came not in refused:
            return outcome
    raise EvidenceError(f"expected an outcome, got {came!r}"[:200], where=f"{fields.where} outcome")


def _unit_of(metric: str) -> str:
    """Return the unit of the limit of a rule that measured nothing, and so states none."""
    if "_ms_" in metric:
        return "ms"
    if "ratio" in metric:
        return "ratio"
    shares = ("accuracy", "rate", "recall", "sensitivity", "specificity", "precision", "_f1", "gap")
    return "proportion" if any(name in metric for name in shares) else "1"


def _finding(fields: Fields) -> Finding:
    return Finding(
        rule=fields.text("rule"),
        kind=fields.text("kind"),
        blocking=fields.flag("blocking"),
        listed=fields.flag("listed"),
        verdict=fields.text("verdict"),
        reason=fields.maybe_text("reason") or "",
        metric=fields.text("metric"),
        slice=fields.maybe_text("slice") or "",
        versus=fields.maybe_text("versus"),
        target=fields.maybe_text("target") or "",
        value=fields.maybe_number("value"),
        interval=fields.maybe_interval("interval"),
        bound=fields.maybe_number("bound"),
        limit=fields.number("limit"),
        limit_kind=fields.text("limit_kind"),
        p=fields.maybe_number("p"),
        detectable=fields.maybe_number("detectable"),
        n=fields.maybe_count("n"),
        unit=fields.maybe_text("unit") or _unit_of(fields.text("metric")),
        method=fields.maybe_text("method") or "",
        message=fields.text("message"),
        further_examples=fields.maybe_count("further_examples"),
        further_if_equal=fields.maybe_count("further_if_equal"),
        rule_reason=fields.text("rule_reason"),
    )


def _reading(fields: Fields) -> Reading:
    return Reading(
        metric=fields.text("metric"),
        slice=fields.text("slice"),
        versus=fields.maybe_text("versus"),
        target=fields.maybe_text("target") or "",
        value=fields.number("value"),
        interval=fields.maybe_interval("interval"),
        n=fields.count("n"),
        unit=fields.text("unit"),
        levels=fields.texts("levels"),
    )


def _exemplar(fields: Fields) -> Exemplar:
    return Exemplar(
        id=fields.text("id"),
        label=fields.text("label"),
        baseline=fields.maybe_text("baseline"),
        candidate=fields.maybe_text("candidate"),
        margin_change=fields.maybe_number("margin_change"),
    )


def _pairs(fields: Fields | None) -> tuple[tuple[str, str], ...]:
    return tuple((key, fields.text(key)) for key in sorted(fields.value)) if fields else ()


def _attempt(fields: Fields | None) -> Attempt | None:
    if fields is None:
        return None
    shared = fields.value.get("shared")
    if not isinstance(shared, list) or len(shared) != 2 or not all(type(end) is int for end in shared):
        raise EvidenceError("expected the first and the last attempt", where=f"{fields.where} shared")
    return Attempt(
        number=fields.count("number"),
        first=shared[0],
        last=shared[1],
        planned=fields.maybe_count("planned"),
        test_sha256=fields.text("test_sha256"),
    )


def parse_decision(fields: Fields) -> Decision:
    """Return a decision out of its JSON object.

    Args:
        fields: The content of a decision file; `most_changed` may be missing.

    Raises:
        EvidenceError: naming file and key, if anything else is missing or of another type.
    """
    policy, outcome = fields.inner("policy"), outcome_of(fields, "waived")
    if fields.flag("open") != (outcome == "passed"):
        raise EvidenceError(
            f"expected open exactly if the outcome is passed, got {outcome} and open {fields.flag('open')}",
            where=fields.where,
        )
    changed = fields.entries("most_changed") if fields.value.get("most_changed") is not None else ()
    return Decision(
        slot=fields.text("slot"),
        candidate=fields.maybe_text("candidate"),
        outcome=outcome,
        open=fields.flag("open"),
        policy_name=policy.text("name"),
        policy_sha256=policy.text("sha256"),
        alpha=fields.number("alpha"),
        alpha_each=fields.number("alpha_each"),
        attempt=_attempt(fields.maybe_inner("attempt")),
        subject=_pairs(fields.maybe_inner("subject")),
        evidence=_pairs(fields.maybe_inner("evidence")),
        findings=tuple(_finding(entry) for entry in fields.entries("findings")),
        readings=tuple(_reading(entry) for entry in fields.entries("measurements")),
        most_changed=tuple(_exemplar(entry) for entry in changed),
    )


def read_decision(path: Path) -> Decision:
    """Read a decision file.

    Raises:
        EvidenceError: naming file and key, if it is missing or malformed.
    """
    return parse_decision(read_fields(path, DECISION_SCHEMA))
