# SPDX-License-Identifier: Apache-2.0
"""Contract: what must hold of outputs before any statistic on them means anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checks.evidence import Evidence
from checks.measurement import OVERALL, Measurement, Method
from checks.outcomes import join_ids

__all__ = ["ContractCheck"]


@dataclass(frozen=True)
class ContractCheck:
    """Counts the examples on which a model's scores are not all finite; ids must join."""

    name: str = "contract"

    @property
    def metrics(self) -> Mapping[str, Method]:
        """The metrics it measures."""
        return {"nonfinite_outputs": Method.EXACT_VALUE}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Count over both models."""
        ids = evidence.examples.ids
        join_ids(ids, evidence.baseline.ids, "baseline.npz")
        join_ids(ids, evidence.candidate.ids, "candidate.npz")
        broken = sum(
            int(np.sum(~np.isfinite(model.scores).all(axis=1)))
            for model in (evidence.baseline, evidence.candidate)
        )
        return [
            Measurement("nonfinite_outputs", OVERALL, broken, None, len(ids), "count", Method.EXACT_VALUE)
        ]
