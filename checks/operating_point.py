# SPDX-License-Identifier: Apache-2.0
"""Sensitivity and specificity at operating points: thresholds that call one class, fixed in the policy.

The class is called where its probability reaches the threshold, whatever the other classes have. Sensitivity
is the share called of the class's examples, specificity the share not called of all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from checks.accuracy import measure_change, measure_share
from checks.errors import PolicyError
from checks.evidence import Evidence
from checks.measurement import OVERALL, Measurement, Method, Slice
from checks.outcomes import Outcomes, Selection, join_ids, join_outcomes
from checks.policy import OperatingPoint
from checks.probabilities import probability_of
from checks.protocol import Metric

__all__ = ["OperatingPointCheck"]

Booleans = npt.NDArray[np.bool_]


def _selections(outcomes: Outcomes, members: Booleans) -> list[Selection]:
    """Return every slice of the `(N,)` members: of a unit with several, one in each slice is kept.

    Members are chosen before one a unit is drawn, so that a subject with one positive frame counts.
    """
    index = np.flatnonzero(members)
    draw = outcomes.units.draw
    found = [Selection(OVERALL, draw(index))] if len(index) else []
    for attribute in outcomes.attributes.values():
        codes = attribute.codes[index]
        order = index[np.argsort(codes, kind="stable")]
        ends = np.cumsum(np.bincount(codes, minlength=len(attribute.levels)))
        for level, part in zip(attribute.levels, np.split(order, ends[:-1]), strict=True):
            if len(part):
                found.append(Selection(Slice(attribute.name, level), draw(part)))
    return found


@dataclass(frozen=True)
class OperatingPointCheck:
    """Measures both shares and their paired change, on every slice with such examples.

    Without operating points nothing is measured, and the policy
    parser refuses a rule that would ask for it.

    Attributes:
        points: Of the policy.
    """

    points: tuple[OperatingPoint, ...] = ()
    name: str = "operating_point"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        per_point = partial(Metric, targets="operating_point", on_demand=True)
        change, share = per_point(Method.PAIRED_EXACT), per_point(Method.CLOPPER_PEARSON)
        return {
            name: metric
            for rate in ("sensitivity", "specificity")
            for name, metric in (
                (f"{rate}_change", change),
                (f"baseline_{rate}", share),
                (f"candidate_{rate}", share),
            )
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every operating point.

        Raises:
            PolicyError: if a point calls a class that does not exist.
        """
        outcomes = join_outcomes(evidence)
        for point in self.points:
            if point.target not in outcomes.classes:
                raise PolicyError(
                    f"expected a class among {list(outcomes.classes)[:20]}, got {point.target!r}",
                    where=f"the policy's operating_points ({point.name}).class",
                )
        return [entry for point in self.points for entry in self._measure_point(evidence, outcomes, point)]

    def _measure_point(
        self, evidence: Evidence, outcomes: Outcomes, point: OperatingPoint
    ) -> list[Measurement]:
        column = outcomes.classes.index(point.target)
        ids = evidence.examples.ids
        baseline, candidate = (
            probability_of(model, join_ids(ids, model.ids, file), column) >= point.threshold
            for model, file in ((evidence.baseline, "baseline.npz"), (evidence.candidate, "candidate.npz"))
        )
        positive = outcomes.labels == column
        measurements = []
        for rate, members, before, after in (
            ("sensitivity", positive, baseline, candidate),
            ("specificity", ~positive, ~baseline, ~candidate),
        ):
            for part in _selections(outcomes, members):
                first, second = before[part.index], after[part.index]
                measurements += [
                    measure_change(f"{rate}_change", part.slice, first, second, target=point.name),
                    measure_share(f"baseline_{rate}", part.slice, first, target=point.name),
                    measure_share(f"candidate_{rate}", part.slice, second, target=point.name),
                ]
        return measurements
