# SPDX-License-Identifier: Apache-2.0
"""How far the candidate's probabilities moved from the baseline's, whatever was decided.

The total variation distance of the two distributions over the classes, half the sum of absolute differences:
the largest difference that any event can have between them. Its mean tells a compressed model from another
one where few decisions changed: a network trained anew answers differently on examples that both get right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from checks.calibration import mean_upper
from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, Measurement, Method, Slice
from checks.outcomes import join_ids, join_outcomes
from checks.probabilities import total_variation
from checks.protocol import Metric
from checks.statistics.resampling import jackknife_t_upper

__all__ = ["ProbabilityShiftCheck"]

LARGEST_SHIFT = 1.0
"""From certain of one class to certain of another."""

_SEED = 20_244

Doubles = npt.NDArray[np.float64]


def _measure(where: Slice, shifts: Doubles) -> Measurement:
    @cache
    def bounds(alpha: float) -> tuple[float, float]:
        high = mean_upper(shifts, alpha, LARGEST_SHIFT)
        if np.isfinite(high) and shifts.any():
            # Distances are skewed: where few examples moved far, the bootstrap alone falls short.
            high = max(high, jackknife_t_upper(shifts, alpha, _SEED))
        return max(0.0, -mean_upper(-shifts, alpha, LARGEST_SHIFT)), high

    low, high = bounds(DISPLAY_ALPHA)
    return Measurement(
        metric="probability_shift",
        slice=where,
        value=float(shifts.mean()),
        interval=(low, min(high, LARGEST_SHIFT)),
        n=len(shifts),
        unit="proportion",
        method=Method.BOOTSTRAP_T,
        harm="rise",
        statistics={"largest_harm": LARGEST_SHIFT, "differing": int(np.count_nonzero(shifts))},
        bounds=bounds,
    )


@dataclass(frozen=True)
class ProbabilityShiftCheck:
    """Measures the mean total variation distance between both models' probabilities, on every slice."""

    name: str = "probability_shift"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {"probability_shift": Metric(Method.BOOTSTRAP_T, on_demand=True)}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every slice that has examples."""
        outcomes = join_outcomes(evidence)
        ids = evidence.examples.ids
        shifts = total_variation(
            (evidence.baseline, join_ids(ids, evidence.baseline.ids, "baseline.npz")),
            (evidence.candidate, join_ids(ids, evidence.candidate.ids, "candidate.npz")),
        )
        return [_measure(part.slice, shifts[part.index]) for part in outcomes.slices]
