# SPDX-License-Identifier: Apache-2.0
"""Claims about groups: every ordered pair of an attribute's levels, of which the worst decides."""

from __future__ import annotations

import math

import numpy as np

from checks.claim_values import Claim, detectable_harm, grow
from checks.finding import Reason
from checks.measurement import Measurement, Method
from checks.policy import Rule
from checks.statistics import pairs

__all__ = ["claim_of_groups"]


def _without_data(rule: Rule, measurement: Measurement) -> Claim | None:
    """A level without units is never fair: nothing is known of it."""
    counts = measurement.statistics["n"]
    empty = [level for level, n in zip(measurement.levels, counts, strict=True) if n == 0]
    if not empty:
        return None
    about = f" of {measurement.target}" if measurement.target else ""
    note = f"{measurement.slice} has no such examples{about} at {', '.join(empty[:3])}"
    return Claim(rule, measurement, passed=False, bound=None, harm_p=1.0, reason=Reason.TOO_SMALL, note=note)


def _too_few(rule: Rule, measurement: Measurement) -> str:
    """Say where a level is too small for any of the approximate bounds."""
    least = {"n": pairs.FEWEST_UNITS}
    if rule.method is Method.MOVER_WILSON:
        least["successes"] = pairs.FEWEST_SUCCESSES
    for name, words in (("n", "examples"), ("successes", "of what is counted")):
        counts = measurement.statistics[name] if name in least else []
        for level, count in zip(measurement.levels, counts, strict=False):
            if count < least[name]:
                return f"{measurement.slice}={level} has {int(count)} {words}, {least[name]} are the fewest"
    return ""


def claim_of_groups(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> Claim:
    """Return what a measurement that compares levels says about `rule`; the worst ordered pair decides.

    Args:
        rule: One rule on groups.
        measurement: Of an attribute, with the counts of each of its levels.
        alpha: Largest probability that a violated rule passes.
        harm_level: Level at which harm may be claimed.
    """
    without = _without_data(rule, measurement)
    if without:
        return without
    note = _too_few(rule, measurement)
    names = ("losses", "gains", "n") if rule.method is Method.MOVER_TANGO else ("successes", "n")
    counts = [np.asarray(measurement.statistics[name], dtype=np.int64) for name in names]

    def worst(arrays: list[np.ndarray[tuple[int], np.dtype[np.int64]]], level: float) -> pairs.Worst:
        match rule.method:
            case Method.MOVER_TANGO:
                return pairs.worst_change_gap(arrays[0], arrays[1], arrays[2], level)
            case Method.MIETTINEN_NURMINEN:
                return pairs.worst_difference(arrays[0], arrays[1], level)
            case _:
                return pairs.worst_ratio(arrays[0], arrays[1], level)

    def keeps(bound: float) -> bool:
        return bound > rule.value if rule.limit == "min" else bound < rule.value

    level = pairs.small_groups_level(counts[-1], alpha)
    found = worst(counts, level)

    def grown_keeps(times: float) -> bool:
        grown = [np.rint(entry * times).astype(np.int64) for entry in counts]
        if grown[-1].min() < pairs.FEWEST_UNITS:
            return False
        return keeps(worst(grown, pairs.small_groups_level(grown[-1], alpha)).bound)

    pair = (measurement.levels[found.index_g], measurement.levels[found.index_h])
    total = int(counts[-1][[found.index_g, found.index_h]].sum())
    return Claim(
        rule,
        measurement,
        passed=not note and keeps(found.bound),
        bound=found.bound,
        harm_p=1.0 if note else _grouped_harm(rule, counts, harm_level),
        reason=Reason.TOO_SMALL if note else Reason.BORDERLINE,
        further=lambda: grow(grown_keeps, total),
        value=found.value if math.isfinite(found.value) else None,
        pair=pair,
        detectable=detectable_harm(found.value, found.bound, level),
        note=note,
    )


def _grouped_harm(
    rule: Rule, counts: list[np.ndarray[tuple[int], np.dtype[np.int64]]], harm_level: float
) -> float:
    """A bound gives no p-value; exceeded at the strictest level Holm would use, it counts as one there."""
    match rule.method:
        case Method.MOVER_TANGO:
            proven = pairs.proven_change_gap(counts[0], counts[1], counts[2], rule.value, harm_level)
            return harm_level if proven else 1.0
        case Method.MIETTINEN_NURMINEN:
            return pairs.difference_p(counts[0], counts[1], rule.value)
        case _:
            return harm_level if pairs.proven_ratio(counts[0], counts[1], rule.value, harm_level) else 1.0
