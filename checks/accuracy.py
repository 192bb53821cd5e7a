# SPDX-License-Identifier: Apache-2.0
"""Accuracy: of each model, and the paired change from baseline to candidate, on every slice.

With `losses` the examples the baseline gets right and the candidate wrong, and `gains` the reverse, the
change is `(gains - losses) / n`. Its interval is Tango's score interval (Tango 1998, Statistics in
Medicine 17:891), that of one accuracy Clopper and Pearson's (1934, Biometrika 26:404).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, Measurement, Method, Slice
from checks.outcomes import join_outcomes
from checks.protocol import Metric
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.paired import tango_bounds

__all__ = ["AccuracyCheck", "change_of", "measure_change", "measure_share", "share_of"]

Booleans = npt.NDArray[np.bool_]


def measure_change(
    metric: str, where: Slice, baseline: Booleans, candidate: Booleans, *, target: str = ""
) -> Measurement:
    """Measure the paired change of a share between two models.

    Args:
        metric: Name of the metric.
        where: The slice.
        baseline: `(n,)` whether the baseline was right, n >= 1.
        candidate: `(n,)` whether the candidate was right on the same examples.
        target: The class or operating point it is about, if any.
    """
    losses = int(np.count_nonzero(baseline & ~candidate))
    gains = int(np.count_nonzero(~baseline & candidate))
    return change_of(metric, where, losses, gains, len(baseline), target=target)


def change_of(
    metric: str,
    where: Slice,
    losses: int,
    gains: int,
    n: int,
    *,
    target: str = "",
    harm: Literal["fall", "rise"] = "fall",
) -> Measurement:
    """Measure a paired change from its counts.

    Args:
        metric: Name of the metric.
        where: The slice.
        losses: Units on which the candidate did harm, >= 0.
        gains: Units on which it did the reverse, >= 0, losses + gains <= n.
        n: Units, >= 1.
        target: The class or operating point it is about, if any.
        harm: Whether the share falls or rises with the losses.
    """
    low, high = tango_bounds(losses, gains, n, DISPLAY_ALPHA)
    value = (gains - losses) / n
    return Measurement(
        metric=metric,
        slice=where,
        value=value if harm == "fall" else -value,
        interval=(low, high) if harm == "fall" else (-high, -low),
        n=n,
        unit="proportion",
        method=Method.PAIRED_EXACT,
        target=target,
        harm=harm,
        statistics={"losses": losses, "gains": gains},
    )


def measure_share(metric: str, where: Slice, hits: Booleans, *, target: str = "") -> Measurement:
    """Measure a share of `(n,)` outcomes, n >= 1."""
    return share_of(metric, where, int(np.count_nonzero(hits)), len(hits), target=target)


def share_of(metric: str, where: Slice, successes: int, n: int, *, target: str = "") -> Measurement:
    """Measure a share from its counts, 0 <= successes <= n, n >= 1."""
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
        target=target,
        statistics={"successes": successes},
    )


@dataclass(frozen=True)
class AccuracyCheck:
    """Measures accuracy and its paired change on every slice."""

    name: str = "accuracy"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {
            "accuracy_change": Metric(Method.PAIRED_EXACT),
            "baseline_accuracy": Metric(Method.CLOPPER_PEARSON),
            "candidate_accuracy": Metric(Method.CLOPPER_PEARSON),
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every slice that has examples."""
        outcomes = join_outcomes(evidence)
        measurements = []
        for selection in outcomes.slices:
            baseline = outcomes.baseline_correct[selection.index]
            candidate = outcomes.candidate_correct[selection.index]
            measurements += [
                measure_change("accuracy_change", selection.slice, baseline, candidate),
                measure_share("baseline_accuracy", selection.slice, baseline),
                measure_share("candidate_accuracy", selection.slice, candidate),
            ]
        return measurements
