# SPDX-License-Identifier: Apache-2.0
"""Disparity that compression added between the levels of a slice attribute.

For levels g and h, `D_h - D_g` is how much better level h came through compression than level g, D being
the paired change of accuracy on that level. It bounds the growth of the gap between them. The interval
combines two Tango intervals (MOVER; Zou and Donner 2008, Statistics in Medicine 27:1693), and is that of the
pair of levels whose upper end is highest: if that pair keeps a limit, all pairs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, Measurement, Method, Slice
from checks.outcomes import join_outcomes
from checks.protocol import Metric
from checks.statistics.disparity import mover_tango_lower
from checks.statistics.pairs import worst_change_gap

__all__ = ["DisparityCheck", "change_gap_of"]

Counts = npt.NDArray[np.int64]


def change_gap_of(
    metric: str,
    attribute: str,
    levels: Sequence[str],
    losses: Counts,
    gains: Counts,
    n: Counts,
    target: str = "",
) -> Measurement:
    """Measure the gap between paired changes of an attribute's levels.

    Args:
        metric: Name of the metric.
        attribute: Name of the attribute.
        levels: `(L,)` names of the levels, L >= 2.
        losses: `(L,)` units of each level on which the candidate did harm.
        gains: `(L,)` units on which it did the reverse.
        n: `(L,)` units of each level; where it is 0 the judge says so, and nothing passes.
        target: The class it is about, if any.
    """
    known = np.flatnonzero(n > 0)
    value, interval, pair = 0.0, (-1.0, 1.0), None
    if len(known) > 1:
        worst = worst_change_gap(losses[known], gains[known], n[known], DISPLAY_ALPHA)
        g, h = known[worst.index_g], known[worst.index_h]
        counts = [int(entry[level]) for level in (g, h) for entry in (losses, gains, n)]
        low = mover_tango_lower(*counts, DISPLAY_ALPHA)  # type: ignore[call-arg]
        value, interval, pair = worst.value, (low, worst.bound), (levels[g], levels[h])
    return Measurement(
        metric=metric,
        slice=Slice(attribute),
        value=value,
        interval=interval,
        n=int(n.sum()),
        unit="proportion",
        method=Method.MOVER_TANGO,
        target=target,
        levels=tuple(levels),
        pair=pair,
        statistics={"losses": losses.tolist(), "gains": gains.tolist(), "n": n.tolist()},
    )


@dataclass(frozen=True)
class DisparityCheck:
    """Compares the levels of every slice attribute, classes included."""

    name: str = "disparity"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        return {"accuracy_change_gap": Metric(Method.MOVER_TANGO)}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every attribute that has two levels or more."""
        outcomes = join_outcomes(evidence)
        index = outcomes.independent
        baseline, candidate = outcomes.baseline_correct[index], outcomes.candidate_correct[index]
        measurements = []
        for attribute in outcomes.attributes.values():
            size = len(attribute.levels)
            if size < 2:
                continue
            codes = attribute.codes[index]
            losses = np.bincount(codes[baseline & ~candidate], minlength=size)
            gains = np.bincount(codes[~baseline & candidate], minlength=size)
            n = np.bincount(codes, minlength=size)
            measurements.append(
                change_gap_of("accuracy_change_gap", attribute.name, attribute.levels, losses, gains, n)
            )
        return measurements
