# SPDX-License-Identifier: Apache-2.0
"""The group table: accuracy of both models by group, computed by fairlearn and not by our own checks.

`gate` computes the same numbers from the scores and refuses to judge where the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.errors import ProbeError

__all__ = ["LABEL", "tabulate_groups"]

LABEL = "label"
"""The attribute whose levels are the classes."""

Labels = npt.NDArray[np.int64]
Level = dict[str, int | float]


def _by_level(
    labels: Labels, predicted: Labels, levels: npt.NDArray[np.str_]
) -> dict[str, tuple[int, float]]:
    from fairlearn.metrics import MetricFrame, count
    from sklearn.metrics import accuracy_score

    # fairlearn groups by position, so that a level may be any text, even one that pandas takes for missing.
    names, codes = np.unique(levels, return_inverse=True)
    frame = MetricFrame(
        metrics={"count": count, "accuracy": accuracy_score},
        y_true=labels,
        y_pred=predicted,
        sensitive_features=codes,
    )
    rows = frame.by_group
    return {
        str(name): (int(rows["count"].loc[code]), float(rows["accuracy"].loc[code]))
        for code, name in enumerate(names)
    }


def tabulate_groups(
    labels: Labels,
    baseline: Labels,
    candidate: Labels,
    columns: Mapping[str, npt.NDArray[np.str_]],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return accuracy of both models by attribute and level.

    Args:
        labels: `(N,)` index into `classes`.
        baseline: `(N,)` decisions of the baseline; a decision that is no class counts as wrong.
        candidate: `(N,)` decisions of the candidate.
        columns: Slice attribute to `(N,)` levels.
        classes: Names of the classes.

    Returns:
        `attributes` of `groups.json`: the slice columns and `label`, each level with `n` and both accuracies.

    Raises:
        ProbeError: if there are no examples, or a slice column is called `label`.
    """
    if len(labels) == 0:
        raise ProbeError("expected at least one example, got none")
    if LABEL in columns:
        raise ProbeError(f"expected slice columns of other names than {LABEL!r}, which is the classes' own")
    attributes = {**columns, LABEL: np.array(classes)[labels]}
    table: dict[str, dict[str, Level]] = {}
    for attribute, levels in attributes.items():
        before, after = (_by_level(labels, predicted, levels) for predicted in (baseline, candidate))
        table[attribute] = {
            level: {"n": count, "baseline_accuracy": accuracy, "candidate_accuracy": after[level][1]}
            for level, (count, accuracy) in before.items()
        }
    return table
