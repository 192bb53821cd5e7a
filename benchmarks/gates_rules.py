# SPDX-License-Identifier: Apache-2.0
"""Rules of other tools on the same values: all of them compare one point with one threshold.

`mlflow_passes` calls MLflow. TensorFlow Model Analysis is not installed: `tfma_passes` is a reimplementation
of what its `GenericValueThreshold` and `GenericChangeThreshold` are documented to do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

__all__ = [
    "Points",
    "mlflow_arithmetic",
    "mlflow_passes",
    "must_improve_arithmetic",
    "point_passes",
    "tfma_passes",
]


@dataclass(frozen=True)
class Points:
    """What a rule on points looks at.

    Attributes:
        value: The candidate's metric.
        limit: Of the metric; of its change, where a baseline is given.
        higher_is_better: On which side of the limit harm lies.
        baseline: The baseline's metric, if the rule is about the change.
    """

    value: float
    limit: float
    higher_is_better: bool
    baseline: float | None = None

    @property
    def threshold(self) -> float:
        """The limit of the candidate's metric itself."""
        return self.limit if self.baseline is None else self.baseline + self.limit


def point_passes(points: Points) -> bool:
    """Compare the point estimate with the limit."""
    value = points.value if points.baseline is None else points.value - points.baseline
    return value >= points.limit if points.higher_is_better else value <= points.limit


def mlflow_arithmetic(points: Points) -> bool:
    """Do what MLflow does with `threshold`: at least as good as it."""
    good, enough = points.value, points.threshold
    return good >= enough if points.higher_is_better else good <= enough


def mlflow_passes(points: Points) -> bool:
    """Ask MLflow's `validate_evaluation_results`.

    The limit is a `threshold`. `min_absolute_change` cannot say "worse by this at most": MLflow refuses a
    number that is not above 0, so that it can only ask for an improvement.
    """
    import mlflow
    from mlflow.models import EvaluationResult, MetricThreshold
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    threshold = MetricThreshold(threshold=float(points.threshold), greater_is_better=points.higher_is_better)
    results = EvaluationResult(metrics={"metric": points.value}, artifacts={})
    try:
        mlflow.validate_evaluation_results({"metric": threshold}, results)
    except ModelValidationFailedException:
        return False
    return True


def must_improve_arithmetic(baseline: float, candidate: float) -> bool:
    """Do what MLflow does with the smallest `min_absolute_change`: the candidate must be better."""
    return candidate > baseline


def tfma_passes(points: Points) -> bool:
    """Do what TFMA does: value threshold, or change threshold with `absolute`, on the point estimate.

    Its confidence intervals never reach the decision: a metric is turned into one number first.
    """
    if points.baseline is None:
        bounds = (points.limit, float("inf")) if points.higher_is_better else (-float("inf"), points.limit)
        return bounds[0] <= points.value <= bounds[1]
    diff = points.value - points.baseline
    return diff >= points.limit if points.higher_is_better else diff <= points.limit
