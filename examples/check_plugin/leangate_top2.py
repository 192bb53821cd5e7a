# SPDX-License-Identifier: Apache-2.0
"""A check of its own distribution: whether the label is among the two best guesses of each model.

For a model that shows people two suggestions, or hands the two best on to a second stage. A check measures
and knows no threshold: the limits stand in the policy, and LeanGate's judge does the statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.accuracy import measure_change, measure_share
from checks.evidence import Evidence, Scores
from checks.measurement import Measurement, Method
from checks.outcomes import join_ids, join_outcomes
from checks.protocol import Metric

_GUESSES = 2


def _hits(model: Scores, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return for each example whether fewer than two other classes score as high as its label."""
    scores = model.scores[rows]
    own = scores[np.arange(len(labels)), labels]
    # The label is one of those counted. A tie counts against it: nobody knows which one would be shown.
    at_least = np.count_nonzero(scores >= own[:, np.newaxis], axis=1)
    return np.asarray(at_least <= _GUESSES)


@dataclass(frozen=True)
class Top2Check:
    """Measures the accuracy of the two best guesses, and its paired change, on every slice."""

    name: str = "top2"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures: what a policy may bound, and by which statistic."""
        return {
            "top2_accuracy_change": Metric(Method.PAIRED_EXACT),
            "candidate_top2_accuracy": Metric(Method.CLOPPER_PEARSON),
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every slice that has examples; the same evidence always gives the same measurements."""
        outcomes = join_outcomes(evidence)
        ids = evidence.examples.ids
        baseline, candidate = (
            _hits(model, join_ids(ids, model.ids, file), outcomes.labels)
            for model, file in ((evidence.baseline, "baseline.npz"), (evidence.candidate, "candidate.npz"))
        )
        measurements = []
        for part in outcomes.slices:
            before, after = baseline[part.index], candidate[part.index]
            measurements += [
                measure_change("top2_accuracy_change", part.slice, before, after),
                measure_share("candidate_top2_accuracy", part.slice, after),
            ]
        return measurements
