# SPDX-License-Identifier: Apache-2.0
"""Group table: accuracy of each group, computed here and, independently, by fairlearn; both must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checks.errors import EvidenceError
from checks.evidence import Evidence
from checks.measurement import OVERALL, Measurement, Method
from checks.outcomes import join_outcomes
from checks.protocol import Metric

__all__ = ["GroupTableCheck"]

_TOLERANCE = 1e-9


def _row(n: int, baseline: float, candidate: float) -> dict[str, float]:
    return {"n": n, "baseline_accuracy": baseline, "candidate_accuracy": candidate}


def _own_table(evidence: Evidence) -> dict[tuple[str, str], dict[str, float]]:
    outcomes = join_outcomes(evidence)
    table = {}
    for name, attribute in outcomes.attributes.items():
        if "*" in name:  # crossed for this policy alone; the evidence knows nothing of it
            continue
        codes, size = attribute.codes, len(attribute.levels)
        counts = np.bincount(codes, minlength=size)
        right = [
            np.bincount(codes[correct], minlength=size)
            for correct in (outcomes.baseline_correct, outcomes.candidate_correct)
        ]
        for position in np.flatnonzero(counts):
            n = int(counts[position])
            baseline, candidate = (int(part[position]) / n for part in right)
            table[name, attribute.levels[position]] = _row(n, baseline, candidate)
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
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {"group_table_mismatch": Metric(Method.EXACT_VALUE, places="overall", limits=("max",))}

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
