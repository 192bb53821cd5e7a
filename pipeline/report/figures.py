# SPDX-License-Identifier: Apache-2.0
"""The figures a report is drawn from, beside those of a decision: frozen, typed, free of formatting."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.decision_entries import Reading
from pipeline.decision_file import Decision, Outcome

__all__ = [
    "Candidate",
    "Chosen",
    "Comparison",
    "Data",
    "DataFinding",
    "Digest",
    "Model",
    "PassDone",
    "Report",
    "Size",
    "SliceColumn",
    "Source",
]


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
        """`chosen`, `waived` whether chosen or not, the outcome of its decision, or `not a finalist`."""
        standing = self.decision.standing if self.decision else "not a finalist"
        return "chosen" if self.chosen and standing != "waived" else standing

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
        outcome: Of the run; `passed` or `waived` exactly when something ships.
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
class PassDone:
    """One pass of `compression.json`.

    Attributes:
        name: Of the pass.
        options: What was asked of it, in words; nothing where all are its defaults.
        changed: What it changed, in words.
        macs: Multiply-accumulates of one image after it, >= 0.
        parameters: After it, >= 0.
        sparsity: Share of zeros among the weights after it, in [0, 1].
        bytes: Of the ONNX file after it.
        gzip_bytes: The same, compressed.
        validation_accuracy: After it, in [0, 1].
    """

    name: str
    options: str
    changed: tuple[str, ...]
    macs: int
    parameters: int
    sparsity: float
    bytes: int
    gzip_bytes: int
    validation_accuracy: float


@dataclass(frozen=True)
class Model:
    """How one model was made, pass by pass."""

    name: str
    sha256: str
    passes: tuple[PassDone, ...]


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
