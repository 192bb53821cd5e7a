# SPDX-License-Identifier: Apache-2.0
"""Disparity that compression added between the levels of a slice attribute.

For levels g and h, `D_h - D_g` is how much better level h came through compression than level g, D being
the paired change of accuracy on that level. It bounds the growth of the gap between them. The interval
combines two Tango intervals (MOVER; Zou and Donner 2008, Statistics in Medicine 27:1693).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, Measurement, Method, Slice
from checks.outcomes import join_outcomes, slices_of
from checks.statistics.disparity import mover_tango_lower, mover_tango_upper

__all__ = ["DisparityCheck"]

Counts = tuple[int, int, int]


def _compare(g: Slice, h: Slice, counts_g: Counts, counts_h: Counts) -> Measurement:
    (losses_g, gains_g, n_g), (losses_h, gains_h, n_h) = counts_g, counts_h
    return Measurement(
        metric="accuracy_change_gap",
        slice=g,
        versus=h,
        value=(gains_h - losses_h) / n_h - (gains_g - losses_g) / n_g,
        interval=(
            mover_tango_lower(losses_g, gains_g, n_g, losses_h, gains_h, n_h, DISPLAY_ALPHA),
            mover_tango_upper(losses_g, gains_g, n_g, losses_h, gains_h, n_h, DISPLAY_ALPHA),
        ),
        n=n_g + n_h,
        unit="proportion",
        method=Method.MOVER_TANGO,
        statistics={
            "losses_g": losses_g,
            "gains_g": gains_g,
            "n_g": n_g,
            "losses_h": losses_h,
            "gains_h": gains_h,
            "n_h": n_h,
        },
    )


@dataclass(frozen=True)
class DisparityCheck:
    """Compares every ordered pair of levels of every slice attribute, classes included."""

    name: str = "disparity"

    @property
    def metrics(self) -> Mapping[str, Method]:
        """The metrics it measures."""
        return {"accuracy_change_gap": Method.MOVER_TANGO}

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every ordered pair: an upper bound on each bounds the largest gap."""
        outcomes = join_outcomes(evidence)
        levels: dict[str, list[tuple[Slice, Counts]]] = defaultdict(list)
        for selection in slices_of(evidence.examples):
            baseline = outcomes.baseline_correct[selection.index]
            candidate = outcomes.candidate_correct[selection.index]
            losses, gains = int(np.sum(baseline & ~candidate)), int(np.sum(~baseline & candidate))
            levels[selection.slice.attribute].append((selection.slice, (losses, gains, len(baseline))))
        return [
            _compare(g, h, counts_g, counts_h)
            for attribute, members in levels.items()
            if attribute
            for (g, counts_g), (h, counts_h) in permutations(members, 2)
        ]
