# SPDX-License-Identifier: Apache-2.0
"""What a rule can show on so many units before any model exists: the fewest that can pass, and the chance.

Everything here assumes a candidate with no true change and a given churn, the probability that an example
is decided otherwise by the candidate in either direction: half of it losses, half of it gains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from checks.latency import FEWEST
from checks.measurement import Measurement, Method
from checks.policy import Rule
from checks.statistics import pairs
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.order_statistics import n_for_quantile
from checks.statistics.paired import tango_bounds_many
from checks.statistics.planning import n_min, n_plan, power
from checks.statistics.ranks import hodges_lehmann_bounds
from checks.statistics.resampling import rare_harm_floor

__all__ = ["TIMED", "Prospect", "change_gap_chance", "prospect_of", "time_prospect", "widest_margin"]

TIMED = (Method.HODGES_LEHMANN, Method.ORDER_STATISTIC)
"""Methods whose units are sessions or calls, not examples."""

_MOST_UNITS = 10_000_000
_MOST_SESSIONS = 64
_POWER = 0.8


_MOST_PLANNED = 100_000
"""More examples of a level nobody collects for a gap."""

_DRAWS = 2000
_SEED = 0

_EXPECTED_RATE = {"flip_rate": 1.0, "loss_rate": 0.5}
"""Rates that follow from the churn alone, as a share of it."""


@dataclass(frozen=True)
class Prospect:
    """What one rule can show on so many units.

    Attributes:
        n: Independent units; of the smallest level, if levels are compared.
        n_min: The fewest with which it can pass, whatever the candidate; None if no number can.
        n_plan: How many give a chance of 0.8; None where that is not known.
        chance: That a candidate with no true change passes, in [0, 1]; None where that is not known.
        note: Where figures are approximate or missing, why.
    """

    n: int
    n_min: int | None
    n_plan: int | None
    chance: float | None
    note: str = ""

    @property
    def possible(self) -> bool:
        """Whether some candidate can pass on these units."""
        return self.n_min is not None and self.n >= self.n_min


def _smallest(holds: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest count from 1 on at which the rising predicate holds, None if none up to `most`."""
    enough = 1
    while not holds(enough):
        if enough >= most:
            return None
        enough = min(most, enough * 2)
    short = enough // 2
    while enough - short > 1:
        middle = (enough + short) // 2
        short, enough = (short, middle) if holds(middle) else (middle, enough)
    return enough


@lru_cache(maxsize=4096)
def _power(n: int, margin: float, churn: float, alpha: float) -> float:
    return power(n, margin, churn, alpha)


def _paired(rule: Rule, n: int, alpha: float, churn: float | None) -> Prospect:
    least = max(n_min(rule.value, alpha), rule.min_n)
    if churn is None:
        return Prospect(n, least, None, None)
    planned = max(least, n_plan(rule.value, churn, alpha))
    # Below the fewest lucky gains alone could pass, and the judge does not let them.
    chance = _power(n, rule.value, churn, alpha) if n >= least else 0.0
    return Prospect(n, least, planned, chance)


def _errors_allowed(rule: Rule, n: int, alpha: float) -> int:
    """Return the most units on the wrong side with which the rule passes, -1 if none can."""

    def passes(wrong: int) -> bool:
        if rule.limit == "min":
            return clopper_pearson_lower(n - wrong, n, alpha) >= rule.value
        return clopper_pearson_upper(wrong, n, alpha) <= rule.value

    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def _share(rule: Rule, n: int, alpha: float, churn: float | None) -> Prospect:
    from scipy.special import bdtr

    least = _smallest(lambda units: _errors_allowed(rule, units, alpha) >= 0, _MOST_UNITS)
    if least is not None:
        least = max(least, rule.min_n)
    allowed = _errors_allowed(rule, n, alpha)
    if churn is None or least is None or n < least:
        return Prospect(n, least, None, 0.0 if churn is not None else None)
    side = "right" if rule.limit == "min" else "affected"
    count = f"{n - allowed} of {n} or more" if rule.limit == "min" else f"{allowed} of {n} or fewer"
    rate = _EXPECTED_RATE.get(rule.metric)
    if rate is None or rule.limit == "min":
        return Prospect(
            n, least, None, None, f"chance unknown, as is the share itself; passes with {count} {side}"
        )
    rate *= churn

    def chance(units: int) -> float:
        most = _errors_allowed(rule, units, alpha)
        return float(bdtr(most, units, rate)) if most >= 0 else 0.0

    planned = None
    if rate < rule.value:
        planned = _smallest(lambda units: units >= least and chance(units) >= _POWER, _MOST_UNITS)
    return Prospect(n, least, planned, chance(n), f"passes with {count} {side}")


def change_gap_chance(sizes: Sequence[int], limit: float, churn: float, alpha: float) -> float:
    """Return the chance that a rule on the gap of changes passes if nothing truly changed.

    By simulation of the rule itself: 2,000 draws from one seed, so within about 0.02.

    Args:
        sizes: Units of each level, two levels or more, each >= 1.
        limit: The rule's `max`, in (0, 1].
        churn: Probability of a loss plus that of a gain, in [0, 1].
        alpha: One-sided level, in (0, 0.5].

    Source: MOVER with Tango limits, as `checks.statistics.pairs.worst_change_gap`.
    """
    n = np.asarray(sizes, dtype=np.int64)
    random = np.random.default_rng(_SEED)
    losses = random.binomial(n, churn / 2, (_DRAWS, n.size))
    gains = random.binomial(n - losses, churn / 2 / (1 - churn / 2))
    counts = np.stack([losses, gains, np.broadcast_to(n, losses.shape)]).reshape(3, -1)
    # Equal counts are common, and each costs a bisection.
    distinct, back = np.unique(counts, axis=1, return_inverse=True)
    low, high = (
        bound[back.reshape(losses.shape)]
        for bound in tango_bounds_many(
            distinct[0], distinct[1], distinct[2], pairs.small_groups_level(n, alpha)
        )
    )
    change = (gains - losses) / n
    below, above = change - low, high - change
    kept = np.ones(_DRAWS, dtype=bool)
    for g in range(n.size):
        others = np.arange(n.size) != g
        gap = change[:, others] - change[:, [g]] + np.hypot(above[:, others], below[:, [g]])
        kept &= np.logical_and.reduce(gap < limit, axis=1)
    return float(kept.mean())


def _best_gap(rule: Rule, sizes: np.ndarray[tuple[int], np.dtype[np.int64]], alpha: float) -> bool:
    """Whether the most favourable counts pass on levels of these sizes."""
    if sizes.min() < pairs.FEWEST_UNITS:
        return False
    nobody, level = np.zeros_like(sizes), pairs.small_groups_level(sizes, alpha)
    match rule.method:
        case Method.MOVER_TANGO:
            return pairs.worst_change_gap(nobody, nobody, sizes, level).bound < rule.value
        case Method.MIETTINEN_NURMINEN:
            return pairs.worst_difference(nobody, sizes, level).bound < rule.value
        case _:
            return pairs.worst_ratio(sizes, sizes, level).bound > rule.value


def _gap(rule: Rule, measurement: Measurement, alpha: float, churn: float | None) -> Prospect:
    sizes = np.asarray(measurement.statistics["n"], dtype=np.int64)
    smallest = int(sizes.argmin())
    n = int(sizes[smallest])
    where = f"{measurement.slice.attribute}={measurement.levels[smallest]}"

    def holds(units: int) -> bool:
        grown = np.maximum(sizes, units)
        grown[smallest] = units
        return _best_gap(rule, grown, alpha)

    least = _smallest(holds, _MOST_UNITS)
    if least is not None:
        least = max(least, rule.min_n)
    note = f"smallest level {where}"
    if churn is None or least is None or n < least:
        return Prospect(n, least, None, 0.0 if churn is not None else None, note)
    if rule.method is not Method.MOVER_TANGO:
        return Prospect(n, least, None, None, f"{note}; chance unknown, as are the rates themselves")

    def likely(units: int) -> bool:
        grown = np.maximum(sizes, units)
        grown[smallest] = units
        return units >= least and change_gap_chance(grown.tolist(), rule.value, churn, alpha) >= _POWER

    planned = _smallest(likely, _MOST_PLANNED)
    chance = change_gap_chance(sizes.tolist(), rule.value, churn, alpha)
    return Prospect(n, least, planned, chance, f"{note}; chance and n_plan by simulation")


def _mean(rule: Rule, measurement: Measurement, alpha: float, churn: float | None) -> Prospect:
    least = rare_harm_floor(alpha, rule.value, float(measurement.statistics["largest_harm"]))
    least = max(least, rule.min_n)
    return Prospect(
        measurement.n,
        least,
        None,
        0.0 if churn is not None and measurement.n < least else None,
        "chance unknown, as is the spread of the differences; with one to nine that differ nothing passes",
    )


def prospect_of(rule: Rule, measurement: Measurement, alpha: float, churn: float | None) -> Prospect:
    """Return what `rule` can show on the units of `measurement`.

    Args:
        rule: A bounded rule, not of a timed method.
        measurement: Made on a stand-in for the candidate; only its units are looked at.
        alpha: Level at which the rule is judged.
        churn: Probability of a loss plus that of a gain, in [0, 1]; None leaves the chances out.

    Raises:
        ValueError: if the limit is outside what its statistic can bound.
    """
    match rule.method:
        case Method.PAIRED_EXACT:
            return _paired(rule, measurement.n, alpha, churn)
        case Method.CLOPPER_PEARSON:
            return _share(rule, measurement.n, alpha, churn)
        case Method.MOVER_TANGO | Method.MIETTINEN_NURMINEN | Method.MOVER_WILSON:
            return _gap(rule, measurement, alpha, churn)
        case _:
            return _mean(rule, measurement, alpha, churn)


def time_prospect(rule: Rule, sessions: int, calls: int, alpha: float) -> Prospect:
    """Return what a rule on times can show; its chance depends on host and model, which nobody knows yet.

    Args:
        rule: A rule of a timed method.
        sessions: Fresh session pairs, >= 1.
        calls: Calls of one model in one session, >= 1.
        alpha: Level at which the rule is judged.
    """
    note = "chance unknown: it depends on the model and the host"
    if rule.method is Method.HODGES_LEHMANN:

        def bounded(count: int) -> bool:
            return math.isfinite(hodges_lehmann_bounds([0.0] * count, alpha)[1])

        least = _smallest(bounded, _MOST_SESSIONS)
        least = max(least or 1, FEWEST["sessions"], rule.min_n)
        return Prospect(sessions, least, None, None, f"n counts sessions; {note}")
    named = re.search(r"_p(\d\d?)_", rule.metric)
    if named is None:
        return Prospect(calls, 1, None, None, f"n counts calls of a session; {note}")
    least = n_for_quantile(int(named[1]) / 100, alpha)
    return Prospect(calls, max(least, rule.min_n), None, None, f"n counts calls of a session; {note}")


def widest_margin(n: int, alpha: float) -> float | None:
    """Return the smallest margin, in thousandths, that `n` units without a loss can pass; None above 0.5."""
    first = math.ceil(1000 * (1 - alpha ** (1 / n)))
    for thousandths in range(max(1, first), 501):
        if n_min(thousandths / 1000, alpha) <= n:
            return thousandths / 1000
    return None
