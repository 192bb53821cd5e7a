# SPDX-License-Identifier: Apache-2.0
"""Group table: accuracy of each group, computed here and, independently, by fairlearn; both must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checks.errors import EvidenceError
from checks.evidence import Evidence
from checks.measurement import OVERALL, Measurement, Method
from checks.outcomes import LABEL, join_outcomes

__all__ = ["GroupTableCheck"]

_TOLERANCE = 1e-9


def _row(n: int, baseline: float, candidate: float) -> dict[str, float]:
    return {"n": n, "baseline_accuracy": baseline, "candidate_accuracy": candidate}


def _own_table(evidence: Evidence) -> dict[tuple[str, str], dict[str, float]]:
    examples, outcomes = evidence.examples, join_outcomes(evidence)
    names = np.asarray(examples.classes)[examples.labels]
    table = {}
    for attribute, column in {**examples.columns, LABEL: names}.items():
        for level in np.unique(column):
            rows = column == level
            table[attribute, str(level)] = _row(
                int(rows.sum()),
                float(outcomes.baseline_correct[rows].mean()),
                float(outcomes.candidate_correct[rows].mean()),
            )
    return table


def _fairlearn_table(evidence: Evidence) -> dict[tuple[str, str], Mapping[str, float]]:
    attributes = evidence.groups.get("attributes")
    if not isinstance(attributes, dict) or not attributes:
        raise EvidenceError("expected a group table by attribute, got none", where="groups.json")
    return {
        (attribute, level): row
        for attribute, levels in attributes.items()
        for level, row in dict(levels).items()
    }


@dataclass(frozen=True)
class GroupTableCheck:
    """Counts the cells in which the two tables differ, missing rows included."""

    name: str = "group_table"

    @property
    def metrics(self) -> Mapping[str, Method]:
        """The metrics it measures."""
        return {"group_table_mismatch": Method.EXACT_VALUE}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Compare both tables, row by row, cell by cell."""
        own, theirs = _own_table(evidence), _fairlearn_table(evidence)
        mismatches = len(own.keys() ^ theirs.keys())
        for group in own.keys() & theirs.keys():
            for name, value in own[group].items():
                other = theirs[group].get(name)
                # `not <=` and not `>`: a NaN on the other side is a mismatch.
                if other is None or not abs(value - other) <= _TOLERANCE:
                    mismatches += 1
        return [
            Measurement(
                "group_table_mismatch", OVERALL, mismatches, None, len(own), "count", Method.EXACT_VALUE
            )
        ]
