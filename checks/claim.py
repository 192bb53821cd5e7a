# SPDX-License-Identifier: Apache-2.0
"""A claim: what one measurement says about one rule, before verdicts are shared out.

PASS is settled here: each method has a one-sided test, or a bound that inverts one, of the hypothesis that
the rule is violated. For FAIL a claim carries a p-value of the hypothesis that the rule is kept, which the
judge corrects for the number of claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from checks.errors import CheckError
from checks.finding import Reason
from checks.measurement import GROUPED, Measurement, Method
from checks.policy import Rule
from checks.statistics import pairs
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.multiplicity import holm
from checks.statistics.paired import exact_lower, p_harm, p_noninferior
from checks.statistics.planning import further_examples, minimum_detectable_effect, n_min, n_plan
from checks.statistics.ranks import hodges_lehmann, hodges_lehmann_bounds
from checks.statistics.resampling import rare_harm_floor

__all__ = ["Claim", "FailLevels", "Further", "claim_of", "fewest_units"]

_GAMMA_SHARE = 100
"""The nuisance interval of the exact test takes at most this part of the level it is used at."""

_BOUND_TOLERANCE = 5e-5
"""A bound is shown with four digits; the verdict is the exact test's own."""

_POWER_QUANTILE = 0.8416212335729143
"""Normal quantile of 0.8."""

_MOST_GROWTH = 1024
"""More than so many times the data nobody collects."""

_FEWEST_CHURNED = 1.0


@dataclass(frozen=True)
class FailLevels:
    """Error at which one FAIL may be claimed: the strictest of the Holm family, and of one claim on time."""

    family: float
    time: float


@dataclass(frozen=True)
class Further:
    """How many more examples would settle it, if what was seen holds, and if the models are equal."""

    if_seen: int | None
    if_equal: int | None = None


@dataclass(frozen=True)
class Claim:
    """A rule on a measurement before verdicts.

    Attributes:
        rule: The rule.
        measurement: What was measured.
        passed: Whether it is proven that the rule is kept.
        bound: The one-sided bound that decides, in the measurement's unit.
        p: The p-value that decides, where there is one.
        harm_p: A p-value of "the rule is in fact kept".
        reason: Why it did not pass, if nothing is proven.
        further: How many more examples would settle it; asked only where that matters.
        value: Of the pair that decides, for a grouped method.
        pair: The levels that decide, for a grouped method.
        detectable: The smallest harm that would be told from none in four cases of five.
        note: What is wrong with the data, if anything.
    """

    rule: Rule
    measurement: Measurement
    passed: bool
    bound: float | None
    harm_p: float
    p: float | None = None
    reason: Reason = Reason.BORDERLINE
    further: Callable[[], Further] = lambda: Further(None)
    value: float | None = None
    pair: tuple[str, str] | None = None
    detectable: float | None = None
    note: str = ""


def fewest_units(measurement: Measurement) -> int:
    """Return the units behind a measurement; of its smallest level, if it compares levels."""
    if measurement.method in GROUPED:
        return int(min(measurement.statistics["n"]))
    return measurement.n


def _detectable(value: float, bound: float, alpha: float) -> float | None:
    """Scale the width of the bound to the power asked for; exact for a normal estimate."""
    from scipy.special import ndtri

    width = abs(bound - value)
    return width * (1 + _POWER_QUANTILE / float(ndtri(1 - alpha))) if math.isfinite(width) else None


def _grow(passes: Callable[[float], bool], n: int) -> Further:
    """Find how much more of the same data would pass, by doubling, then halving the step."""
    enough = 2.0
    while not passes(enough):
        enough *= 2
        if enough > _MOST_GROWTH:
            return Further(None)
    short = enough / 2
    while enough - short > 0.02 * enough:
        middle = (enough + short) / 2
        short, enough = (short, middle) if passes(middle) else (middle, enough)
    return Further(math.ceil((enough - 1) * n))


def _exact_value(rule: Rule, measurement: Measurement) -> Claim:
    value = measurement.value
    kept = value >= rule.value if rule.limit == "min" else value <= rule.value
    return Claim(rule, measurement, kept, value, 0.0 if not kept else 1.0)


@lru_cache(maxsize=4096)
def _exact_bound(losses: int, gains: int, n: int, alpha: float) -> float:
    """Equal slices without flips are common, and inverting the exact test is the judge's main cost."""
    return exact_lower(losses, gains, n, alpha, gamma=alpha / _GAMMA_SHARE, tolerance=_BOUND_TOLERANCE)


@lru_cache(maxsize=4096)
def _paired_detectable(n: int, discordant: int, alpha: float) -> float:
    return minimum_detectable_effect(n, min(1.0, discordant / n), alpha)


def _paired(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> Claim:
    losses, gains = measurement.statistics["losses"], measurement.statistics["gains"]
    n, margin = measurement.n, rule.value
    gamma = alpha / _GAMMA_SHARE
    p = p_noninferior(losses, gains, n, margin, gamma=gamma)
    least = n_min(margin, alpha, gamma)
    # A change above the margin cannot prove harm; the exact test need not be run to know it.
    beyond = (gains - losses) / n < -margin
    harm = p_harm(losses, gains, n, margin, gamma=harm_level / _GAMMA_SHARE) if beyond else 1.0
    churn = max((losses + gains) / n, _FEWEST_CHURNED / n)

    def further() -> Further:
        more = further_examples(losses, gains, n, margin, alpha)
        if more.if_observed_change is None:
            # What was seen is beyond the margin: more of it would not pass.
            return Further(None)
        short = max(0, least - n)
        return Further(max(more.if_observed_change, short), max(more.if_no_change or 0, short))

    reason = Reason.BORDERLINE
    if n < least:
        reason = Reason.TOO_SMALL
    elif n < n_plan(margin, min(churn, 1.0), alpha):
        reason = Reason.UNDERPOWERED
    bound = _exact_bound(losses, gains, n, alpha)
    return Claim(
        rule,
        measurement,
        passed=n >= least and p <= alpha,
        bound=bound if measurement.harm == "fall" else -bound,
        harm_p=harm,
        p=p,
        reason=reason,
        further=further,
        detectable=_paired_detectable(n, losses + gains, alpha),
        note=f"{n} examples are fewer than the {least} that this margin needs" if n < least else "",
    )


def _share(rule: Rule, measurement: Measurement, alpha: float) -> Claim:
    from scipy.special import bdtr, bdtrc

    successes, n = int(measurement.statistics["successes"]), measurement.n
    bound_of = clopper_pearson_lower if rule.limit == "min" else clopper_pearson_upper

    def passes(hits: int, units: int) -> bool:
        bound = bound_of(hits, units, alpha)
        return bound >= rule.value if rule.limit == "min" else bound <= rule.value

    bound = bound_of(successes, n, alpha)
    if rule.limit == "min":
        harm = float(bdtr(successes, n, rule.value))
    else:
        harm = 1.0 if successes == 0 else float(bdtrc(successes - 1, n, rule.value))
    best = n if rule.limit == "min" else 0
    return Claim(
        rule,
        measurement,
        passed=passes(successes, n),
        bound=bound,
        harm_p=harm,
        reason=Reason.BORDERLINE if passes(best, n) else Reason.TOO_SMALL,
        further=lambda: _grow(lambda k: passes(round(successes * k), round(n * k)), n),
        detectable=_detectable(measurement.value, bound, alpha),
    )


def _without_data(rule: Rule, measurement: Measurement) -> Claim | None:
    """A level without units is never fair: nothing is known of it."""
    counts = measurement.statistics["n"]
    empty = [level for level, n in zip(measurement.levels, counts, strict=True) if n == 0]
    if not empty:
        return None
    about = f" of {measurement.target}" if measurement.target else ""
    note = f"{measurement.slice} has no such examples{about} at {', '.join(empty[:3])}"
    return Claim(rule, measurement, passed=False, bound=None, harm_p=1.0, reason=Reason.TOO_SMALL, note=note)


def _grouped(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> Claim:
    without = _without_data(rule, measurement)
    if without:
        return without
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

    found = worst(counts, alpha)
    pair = (measurement.levels[found.index_g], measurement.levels[found.index_h])
    total = int(counts[-1][[found.index_g, found.index_h]].sum())
    return Claim(
        rule,
        measurement,
        passed=keeps(found.bound),
        bound=found.bound,
        harm_p=_grouped_harm(rule, counts, harm_level),
        further=lambda: _grow(
            lambda k: keeps(worst([np.rint(entry * k).astype(np.int64) for entry in counts], alpha).bound),
            total,
        ),
        value=found.value if math.isfinite(found.value) else None,
        pair=pair,
        detectable=_detectable(found.value, found.bound, alpha),
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


def _mean(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> Claim:
    n, margin = measurement.n, rule.value
    least = rare_harm_floor(alpha, margin, float(measurement.statistics["largest_harm"]))
    if measurement.bounds is None:
        raise CheckError(
            f"expected bounds of a measurement by {measurement.method}, got none",
            where=f"{measurement.metric} on {measurement.subject}",
        )
    sign = 1.0 if measurement.harm == "rise" else -1.0
    # As harm: what rises is bad, and the margin is above it.
    high = max(sign * end for end in measurement.bounds(alpha))
    value = sign * measurement.value
    # An estimate within the margin proves no harm; the strict bound need not be drawn to know it.
    harm_low = min(sign * end for end in measurement.bounds(harm_level)) if value > margin else value
    distance = margin - value

    def further() -> Further:
        if distance <= 0 or not math.isfinite(high):
            return Further(max(0, least - n) or None)
        return Further(max(least, math.ceil(n * ((high - value) / distance) ** 2)) - n)

    passed = n >= least and high < margin
    note = f"{n} examples are fewer than the {least} that this margin needs" if n < least else ""
    if not math.isfinite(high):
        note = note or "fewer than ten examples differ between the models"
    return Claim(
        rule,
        measurement,
        passed=passed,
        bound=sign * high if math.isfinite(high) else None,
        harm_p=harm_level if harm_low > margin else 1.0,
        reason=Reason.TOO_SMALL if note else Reason.BORDERLINE,
        further=further,
        detectable=_detectable(value, high, alpha),
        note=note,
    )


def _quantile(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> Claim:
    if measurement.bounds is None:
        raise CheckError(
            f"expected bounds of a measurement by {measurement.method}, got none",
            where=f"{measurement.metric} on {measurement.subject}",
        )
    upper = measurement.bounds(alpha)[1]
    lower = measurement.bounds(harm_level)[0]
    known = math.isfinite(upper)
    return Claim(
        rule,
        measurement,
        passed=upper <= rule.value,
        bound=upper if known else None,
        harm_p=0.0 if lower > rule.value else 1.0,
        reason=Reason.BORDERLINE if known else Reason.TOO_SMALL,
    )


def _times(rule: Rule, measurement: Measurement, alpha: float, fail_level: float) -> Claim:
    ratios = list(measurement.statistics["log_ratios"])
    controls = measurement.statistics.get("control_log_ratios")
    control = math.exp(hodges_lehmann(list(controls))) if controls else 1.0
    limit = math.log(rule.value)
    upper = hodges_lehmann_bounds(ratios, alpha)[1]
    lower = hodges_lehmann_bounds(ratios, fail_level)[0]
    bound = math.exp(upper) if math.isfinite(upper) else None
    if abs(control - 1) > rule.control_tolerance:
        note = f"two copies of one file differ by {control - 1:+.1%}, more than {rule.control_tolerance:.1%}"
        return Claim(rule, measurement, False, bound, 1.0, reason=Reason.NOISY_HOST, note=note)
    # What two copies of one file differ by is a bias the candidate may owe its lead to.
    return Claim(
        rule,
        measurement,
        passed=upper + abs(math.log(control)) < limit,
        bound=bound,
        harm_p=0.0 if lower > limit else 1.0,
        reason=Reason.TOO_SMALL if bound is None else Reason.BORDERLINE,
        detectable=_detectable(measurement.value, bound, alpha) if bound is not None else None,
    )


def _search(rule: Rule, measurement: Measurement) -> Claim:
    p = float(measurement.statistics["p"])
    return Claim(rule, measurement, not holm([p], rule.value)[0], None, p, p=p, reason=Reason.NONE)


def claim_of(rule: Rule, measurement: Measurement, alpha: float, fail: FailLevels) -> Claim:
    """Return what `measurement` says about `rule`.

    Args:
        rule: One rule.
        measurement: One that the rule selects.
        alpha: Largest probability that a violated rule passes.
        fail: Levels at which harm may be claimed.

    Raises:
        CheckError: if the measurement lacks what its method needs.
    """
    match rule.method:
        case Method.EXACT_VALUE:
            return _exact_value(rule, measurement)
        case Method.PAIRED_EXACT:
            claim = _paired(rule, measurement, alpha, fail.family)
        case Method.CLOPPER_PEARSON:
            claim = _share(rule, measurement, alpha)
        case Method.MOVER_TANGO | Method.MIETTINEN_NURMINEN | Method.MOVER_WILSON:
            claim = _grouped(rule, measurement, alpha, fail.family)
        case Method.BOOTSTRAP_T | Method.JACKKNIFE_T:
            claim = _mean(rule, measurement, alpha, fail.family)
        case Method.ORDER_STATISTIC:
            claim = _quantile(rule, measurement, alpha, fail.time)
        case Method.HODGES_LEHMANN:
            claim = _times(rule, measurement, alpha, fail.time)
        case Method.EXACT_TEST:
            return _search(rule, measurement)
    return _with_fewest(claim)


def _with_fewest(claim: Claim) -> Claim:
    """Apply the rule's own `min_n`: the risk owner may ask for more than the statistics do."""
    units, fewest = fewest_units(claim.measurement), claim.rule.min_n
    if units >= fewest or units == 0:
        return claim
    note = f"{units} examples are fewer than the min_n {fewest} of the policy"
    return replace(
        claim,
        passed=False,
        reason=Reason.TOO_SMALL,
        note=note,
        further=lambda: Further(fewest - units, fewest - units),
    )
