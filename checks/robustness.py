# SPDX-License-Identifier: Apache-2.0
"""Robust accuracy against one symmetric pool of attacks, and whether the attacks were fit to say so.

A model is robust on an example if it is right on the clean image and on every attacked image of the pool,
whichever model an attack was made for. The claim is against this pool: it is an upper bound on robustness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checks.accuracy import measure_change, measure_share
from checks.consistency import CLEAN
from checks.errors import EvidenceError
from checks.evidence import Attacks, Evidence
from checks.measurement import OVERALL, Measurement, Method, Slice
from checks.outcomes import ATTACK, units_of
from checks.protocol import Metric

__all__ = ["BUDGET_SLACK", "CLEAN", "NOISE", "RobustnessCheck"]

NOISE = "noise"
"""The control of the pool that does not look at the models."""

BUDGET_SLACK = 1e-6
"""Rounding allowed on top of epsilon, as a share of the pixel range."""


def _exact(metric: str, value: float, n: int, unit: str) -> Measurement:
    return Measurement(metric, OVERALL, value, None, n, unit, Method.EXACT_VALUE)


def _adequacy(attacks: Attacks) -> list[Measurement]:
    count = len(attacks.ids)
    outside = (attacks.perturbation > attacks.epsilon + BUDGET_SLACK) | ~attacks.in_range
    if not np.isfinite(attacks.perturbation).all():
        raise EvidenceError("expected finite perturbations, got NaN or infinity", where="attacks.npz")
    if (attacks.perturbation < 0).any():
        raise EvidenceError("expected perturbations of at least 0, got negative ones", where="attacks.npz")
    # Noise uses the budget by itself, on behalf of attacks that do nothing. Of those, one may well have found
    # nothing and left every image as it was; all of them together may not.
    used = {
        name: float(attacks.perturbation[position].max()) / attacks.epsilon
        for position, name in enumerate(attacks.names)
        if name not in (CLEAN, NOISE)
    }
    if not used:
        raise EvidenceError("expected attacks besides clean images and noise, got none", where="attacks.npz")
    baseline_agreement, candidate_agreement = attacks.twin_agreement
    return [
        _exact("attack_budget_violations", int(outside.sum()), count, "count"),
        _exact("attack_budget_used", max(used.values()), count, "ratio"),
        _exact("attack_epsilon", attacks.epsilon, count, "ratio"),
        _exact("twin_disagreement", 1 - min(baseline_agreement, candidate_agreement), count, "proportion"),
    ]


def _positions(attacks: Attacks, evidence: Evidence) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions, within the attacked examples, of one example a unit."""
    examples = evidence.examples
    where = {name: position for position, name in enumerate(examples.ids.tolist())}
    unknown = [name for name in attacks.ids.tolist() if name not in where]
    if unknown:
        raise EvidenceError(
            f"expected attacked examples of the test split, got {unknown[:3]}", where="attacks.npz"
        )
    index = np.array([where[name] for name in attacks.ids.tolist()])
    return np.flatnonzero(np.isin(index, units_of(examples).draw(index)))


@dataclass(frozen=True)
class RobustnessCheck:
    """Measures the per-example worst case over the pool, for both models."""

    name: str = "robustness"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {
            "robust_accuracy_change": Metric(Method.PAIRED_EXACT, places="overall"),
            "baseline_robust_accuracy": Metric(Method.CLOPPER_PEARSON, places="overall"),
            "candidate_robust_accuracy": Metric(Method.CLOPPER_PEARSON, places="overall"),
            "baseline_attack_accuracy": Metric(Method.CLOPPER_PEARSON, places="levels"),
            "candidate_attack_accuracy": Metric(Method.CLOPPER_PEARSON, places="levels"),
            "attack_budget_violations": Metric(Method.EXACT_VALUE, places="overall", limits=("max",)),
            "attack_budget_used": Metric(Method.EXACT_VALUE, places="overall", limits=("min",)),
            "attack_epsilon": Metric(Method.EXACT_VALUE, places="overall", limits=("min",)),
            "twin_disagreement": Metric(Method.EXACT_VALUE, places="overall", limits=("max",)),
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure the worst case, each attack alone, and the attacks' adequacy."""
        attacks = evidence.attacks
        kept = _positions(attacks, evidence)
        baseline = attacks.baseline_correct[:, kept]
        candidate = attacks.candidate_correct[:, kept]
        baseline_robust = np.logical_and.reduce(baseline, axis=0)
        candidate_robust = np.logical_and.reduce(candidate, axis=0)
        measurements = [
            measure_change("robust_accuracy_change", OVERALL, baseline_robust, candidate_robust),
            measure_share("baseline_robust_accuracy", OVERALL, baseline_robust),
            measure_share("candidate_robust_accuracy", OVERALL, candidate_robust),
        ]
        for position, name in enumerate(attacks.names):
            where = Slice(ATTACK, name)
            measurements += [
                measure_share("baseline_attack_accuracy", where, baseline[position]),
                measure_share("candidate_attack_accuracy", where, candidate[position]),
            ]
        return measurements + _adequacy(attacks)
