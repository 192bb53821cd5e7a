# SPDX-License-Identifier: Apache-2.0
"""Accuracy: of each model, and the paired change from baseline to candidate, on every slice.

With `losses` the examples the baseline gets right and the candidate wrong, and `gains` the reverse, the
change is `(gains - losses) / n`. Its interval is Tango's score interval (Tango 1998, Statistics in
Medicine 17:891), that of one accuracy Clopper and Pearson's (1934, Biometrika 26:404).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, Measurement, Method, Slice
from checks.outcomes import join_outcomes, slices_of
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.paired import tango_bounds

__all__ = ["AccuracyCheck", "measure_change", "measure_share"]

Booleans = npt.NDArray[np.bool_]


def measure_change(metric: str, where: Slice, baseline: Booleans, candidate: Booleans) -> Measurement:
    """Measure the paired change of a share between two models.

    Args:
        metric: Name of the metric.
        where: The slice.
        baseline: `(n,)` whether the baseline was right, n >= 1.
        candidate: `(n,)` whether the candidate was right on the same examples.
    """
    n = len(baseline)
    losses = int(np.sum(baseline & ~candidate))
    gains = int(np.sum(~baseline & candidate))
    return Measurement(
        metric=metric,
        slice=where,
        value=(gains - losses) / n,
        interval=tango_bounds(losses, gains, n, DISPLAY_ALPHA),
        n=n,
        unit="proportion",
        method=Method.PAIRED_EXACT,
        statistics={"losses": losses, "gains": gains},
    )


def measure_share(metric: str, where: Slice, hits: Booleans) -> Measurement:
    """Measure a share of `(n,)` outcomes, n >= 1."""
    n, successes = len(hits), int(hits.sum())
    return Measurement(
        metric=metric,
        slice=where,
        value=successes / n,
        interval=(
            clopper_pearson_lower(successes, n, DISPLAY_ALPHA),
            clopper_pearson_upper(successes, n, DISPLAY_ALPHA),
        ),
        n=n,
        unit="proportion",
        method=Method.CLOPPER_PEARSON,
        statistics={"successes": successes},
    )


@dataclass(frozen=True)
class AccuracyCheck:
    """Measures accuracy and its paired change on every slice."""

    name: str = "accuracy"

    @property
    def metrics(self) -> Mapping[str, Method]:
        """The metrics it measures."""
        return {
            "accuracy_change": Method.PAIRED_EXACT,
            "baseline_accuracy": Method.CLOPPER_PEARSON,
            "candidate_accuracy": Method.CLOPPER_PEARSON,
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every slice that has examples."""
        outcomes = join_outcomes(evidence)
        measurements = []
        for selection in slices_of(evidence.examples):
            baseline = outcomes.baseline_correct[selection.index]
            candidate = outcomes.candidate_correct[selection.index]
            measurements += [
                measure_change("accuracy_change", selection.slice, baseline, candidate),
                measure_share("baseline_accuracy", selection.slice, baseline),
                measure_share("candidate_accuracy", selection.slice, candidate),
            ]
        return measurements
