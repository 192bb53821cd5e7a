# SPDX-License-Identifier: Apache-2.0
"""Contract: what must hold of outputs before any statistic on them means anything.

Scores are finite, ids join, and a file answers alike however it is run: again, one image at a time, on two
threads, at other levels of graph optimisation, in another framework, and on the processor it was meant for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.contract_runs import LEVELS, REFERENCE, Contract
from checks.errors import EvidenceError
from checks.evidence import Evidence
from checks.measurement import OVERALL, Measurement, Method
from checks.outcomes import join_ids
from checks.protocol import Metric

__all__ = ["INCOMPARABLE", "ContractCheck"]

_UNDECIDED = -1
"""The class of an example whose scores are not all finite."""

INCOMPARABLE = 1e39
"""The difference of a number and NaN or infinity; more than any two finite float32 numbers differ by."""

_WAYS: Mapping[str, tuple[str, ...]] = {
    "repeat": ("repeat",),
    "batch": ("batch_one",),
    "thread": ("threads_two",),
    "optimization": LEVELS,
    "framework": ("twin",),
}
"""What is varied, and the runs that vary it; of several the worst counts."""

Floats = npt.NDArray[np.float32]


def _decide(scores: Floats) -> npt.NDArray[np.int64]:
    finite = np.isfinite(scores).all(axis=1)
    return np.where(finite, scores.argmax(axis=1), _UNDECIDED).astype(np.int64)


def _difference(scores: Floats, reference: Floats) -> float:
    """Return the largest absolute difference; the same NaN or infinity on both sides is none."""
    both = np.isfinite(scores) & np.isfinite(reference)
    same = (scores == reference) | (np.isnan(scores) & np.isnan(reference))
    if not (both | same).all():
        return INCOMPARABLE
    return float(np.abs(scores[both].astype(np.float64) - reference[both]).max(initial=0.0))


def _compare(contract: Contract, run: str) -> tuple[int, float]:
    """Return how many decisions of both models a run turns, and by how much it moves any score."""
    turned, moved = 0, 0.0
    for scores in (contract.baseline, contract.candidate):
        turned += int(np.count_nonzero(_decide(scores[run]) != _decide(scores[REFERENCE])))
        moved = max(moved, _difference(scores[run], scores[REFERENCE]))
    return turned, moved


def _nonfinite(evidence: Evidence) -> int:
    return sum(
        int(np.sum(~np.isfinite(model.scores).all(axis=1)))
        for model in (evidence.baseline, evidence.candidate)
    )


def _fallbacks(evidence: Evidence) -> int:
    timing = evidence.timing
    return sum(
        any(providers.fell_back for providers in of_model)
        for of_model in (
            (evidence.baseline.providers, timing.baseline_providers),
            (evidence.candidate.providers, timing.candidate_providers),
        )
    )


def _measure(metric: str, value: float, n: int, unit: str) -> Measurement:
    return Measurement(metric, OVERALL, value, None, n, unit, Method.EXACT_VALUE)


@dataclass(frozen=True)
class ContractCheck:
    """Counts scores that are not finite, decisions that hang on how a file is run, and providers lost.

    Over both models together, against the reference run: `<way>_disagreement` counts the examples that are
    decided otherwise, `<way>_difference` is the largest absolute difference of any score, `INCOMPARABLE`
    where only one side is NaN or infinite.
    """

    name: str = "contract"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        ways = [f"{way}_{what}" for way in _WAYS for what in ("disagreement", "difference")]
        return dict.fromkeys(
            ["nonfinite_outputs", *ways, "provider_fallbacks"],
            Metric(Method.EXACT_VALUE, places="overall", limits=("max",)),
        )

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Count over both models; there is no sampling error.

        Raises:
            EvidenceError: if ids do not join, or the runs are of other examples.
        """
        ids, contract = evidence.examples.ids, evidence.contract
        join_ids(ids, evidence.baseline.ids, "baseline.npz")
        join_ids(ids, evidence.candidate.ids, "candidate.npz")
        unknown = sorted(set(contract.ids.tolist()) - set(ids.tolist()))
        if unknown:
            raise EvidenceError(
                f"expected examples of the test split, got {unknown[:3]}", where="contract.npz"
            )
        measurements = [_measure("nonfinite_outputs", _nonfinite(evidence), len(ids), "count")]
        for way, runs in _WAYS.items():
            compared = [_compare(contract, run) for run in runs]
            turned, moved = max(entry[0] for entry in compared), max(entry[1] for entry in compared)
            measurements += [
                _measure(f"{way}_disagreement", turned, len(contract.ids), "count"),
                _measure(f"{way}_difference", moved, len(contract.ids), "1"),
            ]
        return [*measurements, _measure("provider_fallbacks", _fallbacks(evidence), 2, "count")]
