# SPDX-License-Identifier: Apache-2.0
"""The table of candidates as text, before anything is drawn: the same cells for every medium."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.decision_entries import Reading
from pipeline.plain import clean
from pipeline.report.figures import Candidate, Comparison, Size
from pipeline.report.wording import (
    NO_FIGURE,
    describe_bytes,
    describe_macs,
    describe_range,
    describe_reading,
    describe_saving,
    describe_standing,
    describe_value,
)

__all__ = ["COLUMNS", "DECISION", "Row", "footnotes", "table_rows"]

COLUMNS = ("Model", "Decision", "Size", "MACs", "Latency", "Accuracy", "Worst slice", "Robust")
DECISION = COLUMNS.index("Decision")

_HOW_TO_READ = (
    "Latency is the candidate's time over the baseline's, b1 at batch size 1; ranges are 90 % intervals. p99 "
    "is what 99 of 100 calls stay below; processor time is a proxy for energy, and never judged. "
    "Worst slice is the slice whose interval of the change in accuracy (candidate minus baseline) reaches "
    "lowest, and that lower end. Robust is accuracy under the pool of attacks. "
    "1 KB is 1,000 bytes; pp are percentage points."
)
_VALIDATION = (
    "val: accuracy on the validation split. Only finalists are ever measured on the test split, which is "
    "never used to choose among candidates; the others have no test figures by design."
)


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        standing: `baseline`, `chosen`, `waived`, `not a finalist`, or the outcome of its decision.
        cells: One a column; the first line of each says it all, the others say it more exactly.
    """

    standing: str
    cells: tuple[tuple[str, ...], ...]


def table_rows(comparison: Comparison) -> tuple[Row, ...]:
    """Return the baseline's row, then one row a candidate in the order of the shortlist."""
    return (_baseline(comparison), *(_row(comparison, candidate) for candidate in comparison.candidates))


def footnotes(comparison: Comparison) -> tuple[str, ...]:
    """Return what a reader must know to read the table."""
    notes = [_HOW_TO_READ]
    if any(candidate.test_accuracy is None for candidate in comparison.candidates):
        notes.append(_VALIDATION)
    notes += [
        f"Slot {clean(decision.slot)} is empty: the shortlist found no further candidate for it."
        for decision in comparison.decisions
        if decision.candidate is None
    ]
    return tuple(notes)


def _accuracy(test: Reading | None, size: Size) -> tuple[str, ...]:
    if test is None:
        return (f"{describe_value(size.validation_accuracy, 'accuracy', 'proportion', 1)} val",)
    return (describe_reading(test), *_range(test))


def _range(reading: Reading) -> tuple[str, ...]:
    text = describe_range(reading.interval, reading.metric, reading.unit, 1)
    return (text,) if text else ()


def _robust(reading: Reading | None) -> tuple[str, ...]:
    return (describe_reading(reading), *_range(reading)) if reading else (NO_FIGURE,)


def _standing(candidate: Candidate) -> tuple[str, ...]:
    words = describe_standing(candidate)
    return (words,) if candidate.decision else (words, clean(candidate.reason))


def _baseline(comparison: Comparison) -> Row:
    size = comparison.baseline
    cells = (
        ("baseline",),
        (NO_FIGURE,),
        (describe_bytes(size.bytes),),
        (describe_macs(size.macs),),
        (NO_FIGURE,),
        _accuracy(comparison.baseline_accuracy, size),
        (NO_FIGURE,),
        _robust(comparison.baseline_robust_accuracy),
    )
    return Row("baseline", cells)


def _row(comparison: Comparison, candidate: Candidate) -> Row:
    base, size, worst = comparison.baseline, candidate.size, candidate.worst_slice
    latency = [
        f"b{batch} {describe_reading(reading)} "
        f"{describe_range(reading.interval, reading.metric, reading.unit, 2)}".rstrip()
        for batch, reading in candidate.latency
    ]
    lowest = [NO_FIGURE]
    if worst is not None and worst.interval is not None:
        lowest = [describe_value(worst.interval[0], worst.metric, worst.unit, 1), clean(worst.slice)]
    cells = (
        (clean(candidate.name),),
        _standing(candidate),
        (describe_bytes(size.bytes), describe_saving(base.bytes, size.bytes, "smaller", "larger")),
        (describe_macs(size.macs), describe_saving(base.macs, size.macs, "fewer", "more")),
        tuple(latency) or (NO_FIGURE,),
        _accuracy(candidate.test_accuracy, size),
        tuple(lowest),
        _robust(candidate.robust_accuracy),
    )
    return Row(candidate.standing, cells)
