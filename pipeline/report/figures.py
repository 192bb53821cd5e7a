# SPDX-License-Identifier: Apache-2.0
"""The figures a report is drawn from: frozen, typed, free of formatting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "SETTLED",
    "Candidate",
    "Chosen",
    "Comparison",
    "Data",
    "DataFinding",
    "Decision",
    "Digest",
    "Finding",
    "Model",
    "Outcome",
    "Reading",
    "Report",
    "Side",
    "Size",
    "SliceColumn",
    "Source",
]

Outcome = Literal["passed", "blocked", "inconclusive", "error", "absent"]
Side = Literal["at least", "at most"]

_SIDES: dict[str, Side] = {"margin": "at least", "min": "at least", "max": "at most"}
SETTLED = ("PASS", "NO-FINDING")
"""The only verdicts that stop nothing; whatever else a finding says, known word or not, needs attention."""


@dataclass(frozen=True)
class Size:
    """What a model costs before it runs.

    Attributes:
        bytes: Of the ONNX file, > 0.
        macs: Multiply-accumulates of one image, >= 0.
        parameters: >= 0.
        validation_accuracy: In [0, 1].
    """

    bytes: int
    macs: int
    parameters: int
    validation_accuracy: float


@dataclass(frozen=True)
class Reading:
    """One measurement as the decision recorded it.

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
    """One rule applied to one measurement, or to the lack of one.

    Attributes:
        rule: Its name in the policy.
        kind: `assert`, `bounded`, `screen`.
        blocking: Whether the gate waits for it.
        verdict: Of the rule.
        reason: Why it is INCONCLUSIVE, else empty.
        metric: What the rule bounds.
        slice: `overall` or `attribute=level`; empty where nothing was measured.
        versus: The second slice of a comparison between slices, else None.
        value: In `unit`, or None where nothing was measured.
        interval: Each end a one-sided 95 % bound.
        bound: The one-sided bound that decides.
        limit: The edge, in `unit`.
        p: The p-value that decides, where there is one.
        n: Independent units.
        unit: `proportion`, `ratio`, `bytes`, `count`, `1`.
        method: Which statistic decided.
        message: One sentence for people.
        further_examples: That would settle it, where known.
        limit_kind: `margin`, `min`, `max`, or empty where the finding does not say.
        rule_reason: Why the policy has this rule.
    """

    rule: str
    kind: str
    blocking: bool
    verdict: str
    reason: str
    metric: str
    slice: str
    versus: str | None
    value: float | None
    interval: tuple[float, float] | None
    bound: float | None
    limit: float | None
    p: float | None
    n: int | None
    unit: str
    method: str
    message: str
    further_examples: int | None
    limit_kind: str = ""
    rule_reason: str = ""

    @property
    def settled(self) -> bool:
        """Whether this finding stops nothing."""
        return self.verdict in SETTLED

    @property
    def stops(self) -> bool:
        """Whether it keeps the gate shut: what blocks and is not settled, and any ERROR."""
        return not self.settled and (self.blocking or self.verdict == "ERROR")

    @property
    def subject(self) -> str:
        """The slice, or the pair of slices, in words; empty where nothing was measured."""
        return f"{self.slice} against {self.versus}" if self.versus else self.slice

    @property
    def side(self) -> Side | None:
        """Whether the limit is a floor or a ceiling, or None if that is unknown.

        Where the finding does not say it, it follows: what passed lies on the good side of its limit, what
        failed on the bad one, and a bound that has yet to clear the limit on the bad side of its value.
        """
        if self.limit_kind or self.value is None or self.limit is None:
            return _SIDES.get(self.limit_kind)
        if self.value != self.limit and self.verdict in ("PASS", "FAIL"):
            good = self.verdict == "PASS"
            return "at least" if (self.value > self.limit) == good else "at most"
        if self.bound is not None and self.bound != self.value:
            return "at least" if self.bound < self.value else "at most"
        return None

    def room(self, number: float | None) -> float | None:
        """Return how far `number` lies inside the limit (> 0) or beyond it (< 0), or None if unknown."""
        if number is None or self.limit is None or self.side is None:
            return None
        return number - self.limit if self.side == "at least" else self.limit - number


@dataclass(frozen=True)
class Decision:
    """All findings on the finalist of one slot."""

    slot: str
    candidate: str | None
    outcome: Outcome
    open: bool
    policy_name: str
    policy_sha256: str
    alpha: float
    alpha_each: float
    finalists: int
    subject: tuple[tuple[str, str], ...]
    evidence: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    readings: tuple[Reading, ...]

    @property
    def unsettled(self) -> tuple[Finding, ...]:
        """Findings that need attention: what stops the gate first; broken, failed, undecided; by rule."""
        rank = {"ERROR": 0, "FAIL": 1, "INCONCLUSIVE": 2}
        rules = list(dict.fromkeys(finding.rule for finding in self.findings))

        def urgency(finding: Finding) -> tuple[bool, int, int, float, str]:
            room = finding.room(finding.value) or 0.0
            verdict = rank.get(finding.verdict, 3)
            return not finding.stops, verdict, rules.index(finding.rule), room, finding.subject

        return tuple(sorted((item for item in self.findings if not item.settled), key=urgency))

    @property
    def concerns(self) -> tuple[tuple[Finding, ...], ...]:
        """The same findings; rules that measured nothing for one and the same cause are one concern."""
        groups: dict[tuple[object, ...], list[Finding]] = {}
        for index, finding in enumerate(self.unsettled):
            alone = (index,) if finding.slice else ()
            groups.setdefault((*alone, finding.stops, finding.verdict, finding.message), []).append(finding)
        return tuple(tuple(group) for group in groups.values())

    def reading(self, metric: str, where: str = "overall") -> Reading | None:
        """Return the measurement of `metric` on the slice `where`, or None if there is none."""
        for reading in self.readings:
            if reading.metric == metric and reading.slice == where and reading.versus is None:
                return reading
        return None


@dataclass(frozen=True)
class Candidate:
    """One row of the table of candidates.

    Attributes:
        name: `<variant>-<precision>`.
        sha256: Of its ONNX file.
        size: What it costs.
        gzip_bytes: Of the compressed ONNX file.
        on_front: No other candidate is both smaller and more accurate on validation.
        reason: Why it is a finalist, or why not.
        decision: Of its slot, or None if it is no finalist.
        latency: Batch size to the candidate's time over the baseline's.
        worst_slice: The slice whose interval of the change in accuracy reaches lowest.
        chosen: It is the one that ships.
    """

    name: str
    sha256: str
    size: Size
    gzip_bytes: int
    on_front: bool
    reason: str
    decision: Decision | None
    latency: tuple[tuple[int, Reading], ...]
    worst_slice: Reading | None
    chosen: bool

    @property
    def standing(self) -> str:
        """`chosen`, the outcome of its decision, or `not a finalist`."""
        if self.chosen:
            return "chosen"
        return self.decision.outcome if self.decision else "not a finalist"

    @property
    def test_accuracy(self) -> Reading | None:
        """Accuracy on the test split, which only finalists ever see."""
        return self.decision.reading("candidate_accuracy") if self.decision else None

    @property
    def robust_accuracy(self) -> Reading | None:
        """Accuracy under the pool of attacks."""
        return self.decision.reading("candidate_robust_accuracy") if self.decision else None


@dataclass(frozen=True)
class Chosen:
    """The finalist that ships."""

    slot: str
    candidate: str
    sha256: str


@dataclass(frozen=True)
class Comparison:
    """The decision of the run and every candidate beside the baseline.

    Attributes:
        outcome: Of the run; `passed` exactly when something ships.
        chosen: What ships, or None.
        preference: What the choice among finalists that passed looked at, in order.
        baseline: What the baseline costs.
        baseline_sha256: Of its ONNX file.
        baseline_accuracy: On test, or None if no finalist was measured.
        baseline_robust_accuracy: The same under attack.
        candidates: In the order of `shortlist.json`.
        decisions: One a slot, in the order of the slots' names; empty slots too.
    """

    outcome: Outcome
    chosen: Chosen | None
    preference: tuple[str, ...]
    baseline: Size
    baseline_sha256: str
    baseline_accuracy: Reading | None
    baseline_robust_accuracy: Reading | None
    candidates: tuple[Candidate, ...]
    decisions: tuple[Decision, ...]

    @property
    def judged(self) -> tuple[Decision, ...]:
        """The decisions on a candidate, without those of empty slots."""
        return tuple(decision for decision in self.decisions if decision.candidate is not None)

    @property
    def winner(self) -> Candidate | None:
        """The candidate that ships, or None."""
        return next((candidate for candidate in self.candidates if candidate.chosen), None)


@dataclass(frozen=True)
class Source:
    """Where rows of the data came from, and on what terms."""

    source: str
    license: str
    consent: str
    rows: int


@dataclass(frozen=True)
class DataFinding:
    """One check of the data."""

    check: str
    verdict: str
    expected: str
    came: str
    rows: tuple[str, ...]
    row_count: int


@dataclass(frozen=True)
class SliceColumn:
    """How one slice attribute came about: its levels in order, and the formula if it was computed."""

    name: str
    levels: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Data:
    """The examples and what their validation found."""

    classes: tuple[str, ...]
    slices: tuple[str, ...]
    shape: tuple[int, ...]
    rows: int
    sources: tuple[Source, ...]
    splits: tuple[tuple[str, int], ...]
    open: bool
    findings: tuple[DataFinding, ...]
    columns: tuple[SliceColumn, ...]


@dataclass(frozen=True)
class Model:
    """How one model was made: each pass and its options, in words of `model.json`."""

    name: str
    sha256: str
    passes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Digest:
    """The SHA-256 of something a figure of the report came from."""

    what: str
    sha256: str


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    comparison: Comparison
    data: Data
    models: tuple[Model, ...]
    digests: tuple[Digest, ...]
