# SPDX-License-Identifier: Apache-2.0
"""Calibration: how much worse the candidate's probabilities are, by the paired change of the Brier score.

The plug-in calibration error is biased up on few examples, and is not offered. The Brier score is a mean over
units: its paired change is bounded by bootstrap-t, which is approximate; harm that is rare and total is left
to the judge's floor on n. Lower is better, so the harm is a rise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, inf

import numpy as np
import numpy.typing as npt

from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, Measurement, Method, Slice
from checks.outcomes import join_ids, join_outcomes
from checks.probabilities import brier_scores
from checks.protocol import Metric
from checks.statistics.resampling import (
    BOOTSTRAP_UNITS,
    FEWEST_DIFFERENT,
    bootstrap_t_upper,
    jackknife_t_upper,
    rare_harm_bound,
)

__all__ = ["LARGEST_HARM", "CalibrationCheck", "mean_upper"]

LARGEST_HARM = 2.0
"""From certain and right to certain and wrong: the most the Brier score of one unit can rise."""

_SEED = 20_242
_RESAMPLES = 2000
_MOST_DRAWN = BOOTSTRAP_UNITS * _RESAMPLES
"""Values drawn for one bound. Claims of harm among many need so small an error that a bootstrap would draw
more than the largest one that a PASS rests on; from there on the jackknife, which the bootstrap gives way to
above `BOOTSTRAP_UNITS` anyway, takes its place."""

Doubles = npt.NDArray[np.float64]


def mean_upper(values: Doubles, alpha: float, largest: float) -> float:
    """Return the one-sided upper bound of the mean of what differs from unit to unit.

    Args:
        values: `(n,)` finite, 0 where the models agree.
        alpha: Error probability, in (0, 0.5].
        largest: The most that one unit can add, above 0.

    Returns:
        The bound; infinite where one to nine values differ from 0.
    """
    differing = np.count_nonzero(values)
    if not differing:
        # Nothing to resample, and yet something is known: harm to more than a few units would have shown.
        return rare_harm_bound(alpha, len(values), largest)
    # As many resamples as `bootstrap_t_upper` would draw to have 20 beyond the quantile.
    if len(values) * max(_RESAMPLES, ceil(20 / alpha)) <= _MOST_DRAWN:
        return bootstrap_t_upper(values, alpha, _SEED, _RESAMPLES).value
    return inf if differing < FEWEST_DIFFERENT else jackknife_t_upper(values, alpha, _SEED)


def _measure(where: Slice, rises: Doubles) -> Measurement:
    @cache
    def bounds(alpha: float) -> tuple[float, float]:
        return -mean_upper(-rises, alpha, LARGEST_HARM), mean_upper(rises, alpha, LARGEST_HARM)

    low, high = bounds(DISPLAY_ALPHA)
    return Measurement(
        metric="brier_change",
        slice=where,
        value=float(rises.mean()),
        interval=(max(low, -LARGEST_HARM), min(high, LARGEST_HARM)),
        n=len(rises),
        unit="1",
        method=Method.BOOTSTRAP_T,
        harm="rise",
        statistics={"largest_harm": LARGEST_HARM, "differing": int(np.count_nonzero(rises))},
        bounds=bounds,
    )


@dataclass(frozen=True)
class CalibrationCheck:
    """Measures the rise of the Brier score, of 2 at most, on every slice.

    Where one to nine units differ there is no bound, and the interval is the widest possible, -2 to 2. Where
    none does, the bound is the harm that so many units would have shown.
    """

    name: str = "calibration"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {"brier_change": Metric(Method.BOOTSTRAP_T, on_demand=True)}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every slice that has examples."""
        outcomes = join_outcomes(evidence)
        ids, labels = evidence.examples.ids, outcomes.labels
        before, after = (
            brier_scores(model, join_ids(ids, model.ids, file), labels)
            for model, file in ((evidence.baseline, "baseline.npz"), (evidence.candidate, "candidate.npz"))
        )
        rises = after - before
        return [_measure(part.slice, rises[part.index]) for part in outcomes.slices]
