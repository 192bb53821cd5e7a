# SPDX-License-Identifier: Apache-2.0
"""A claim: what one measurement says about one rule, before verdicts are shared out.

PASS is settled here: each method has a one-sided test, or a bound that inverts one, of the hypothesis that
the rule is violated. For FAIL a claim carries a p-value of the hypothesis that the rule is kept, which the
judge corrects for the number of claims.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from checks.claim_values import Claim, FailLevels, Further, detectable_harm, fewest_units, grow
from checks.errors import CheckError
from checks.finding import Reason
from checks.group_claim import claim_of_groups
from checks.measurement import Measurement, Method
from checks.policy import Rule
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.multiplicity import holm
from checks.statistics.paired import exact_lower, p_harm, p_noninferior
from checks.statistics.planning import further_examples, minimum_detectable_effect, n_min, n_plan
from checks.statistics.ranks import hodges_lehmann, hodges_lehmann_bounds
from checks.statistics.resampling import rare_harm_floor

__all__ = ["can_pass", "claim_of"]

_GAMMA_SHARE = 100
"""The nuisance interval of the exact test takes at most this part of the level it is used at."""

_BOUND_TOLERANCE = 5e-5
"""A bound is shown with four digits; the verdict is the exact test's own."""

_FEWEST_CHURNED = 1.0


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
    return Claim(
        rule,
        measurement,
        passed=passes(successes, n),
        bound=bound,
        harm_p=harm,
        reason=Reason.BORDERLINE if can_pass(rule, n, alpha) else Reason.TOO_SMALL,
        further=lambda: grow(lambda k: passes(round(successes * k), round(n * k)), n),
        detectable=detectable_harm(measurement.value, bound, alpha),
    )


def _bounds(measurement: Measurement, alpha: float) -> tuple[float, float]:
    """Return the bounds a check gives, which are its own word until they are looked at."""
    where = f"{measurement.metric} on {measurement.subject}"
    if measurement.bounds is None:
        raise CheckError(f"expected bounds of a measurement by {measurement.method}, got none", where=where)
    low, high = (float(end) for end in measurement.bounds(alpha))
    if not low <= measurement.value <= high:  # NaN is between nothing
        raise CheckError(
            f"expected bounds around the value {measurement.value:g}, got {low:g} and {high:g}", where=where
        )
    return low, high


def _mean(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> Claim:
    n, margin = measurement.n, rule.value
    least = rare_harm_floor(alpha, margin, float(measurement.statistics["largest_harm"]))
    sign = 1.0 if measurement.harm == "rise" else -1.0
    # As harm: what rises is bad, and the margin is above it.
    high = max(sign * end for end in _bounds(measurement, alpha))
    value = sign * measurement.value
    # An estimate within the margin proves no harm; the strict bound need not be drawn to know it.
    harm_low = min(sign * end for end in _bounds(measurement, harm_level)) if value > margin else value
    distance = margin - value

    def further() -> Further:
        if distance <= 0 or not math.isfinite(high) or measurement.statistics.get("differing") == 0:
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
        detectable=detectable_harm(value, high, alpha),
        note=note,
    )


def _quantile(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> Claim:
    upper = _bounds(measurement, alpha)[1]
    lower = _bounds(measurement, harm_level)[0]
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
    if controls is not None and len(controls) != len(ratios):
        raise CheckError(
            f"expected a control a session pair, got {len(controls)} of {len(ratios)}",
            where=f"{measurement.metric} on {measurement.subject}",
        )
    control = math.exp(hodges_lehmann(list(controls))) if controls else 1.0
    limit = math.log(rule.value)
    upper = hodges_lehmann_bounds(ratios, alpha)[1]
    lower = hodges_lehmann_bounds(ratios, fail_level)[0]
    # What two copies of one file differ by is a bias the candidate may owe its lead, or its lag, to.
    bias = abs(math.log(control))
    bound = math.exp(upper + bias) if math.isfinite(upper) else None
    if abs(control - 1) > rule.control_tolerance:
        note = f"two copies of one file differ by {control - 1:+.1%}, more than {rule.control_tolerance:.1%}"
        return Claim(rule, measurement, False, bound, 1.0, reason=Reason.NOISY_HOST, note=note)
    return Claim(
        rule,
        measurement,
        passed=upper + bias < limit,
        bound=bound,
        harm_p=0.0 if lower - bias > limit else 1.0,
        reason=Reason.TOO_SMALL if bound is None else Reason.BORDERLINE,
        detectable=detectable_harm(measurement.value, bound, alpha) if bound is not None else None,
    )


def _search(rule: Rule, measurement: Measurement) -> Claim:
    p = float(measurement.statistics["p"])
    return Claim(rule, measurement, not holm([p], rule.value)[0], None, p, p=p, reason=Reason.NONE)


def can_pass(rule: Rule, n: int, alpha: float) -> bool:
    """Return whether n units can prove `rule`, whatever the candidate; True where that is not known.

    Args:
        rule: One rule.
        n: Independent units, >= 1.
        alpha: Largest probability that a violated rule passes.
    """
    match rule.method:
        case Method.PAIRED_EXACT:
            return n >= n_min(rule.value, alpha)
        case Method.CLOPPER_PEARSON if rule.limit == "min":
            return clopper_pearson_lower(n, n, alpha) >= rule.value
        case Method.CLOPPER_PEARSON:
            return clopper_pearson_upper(0, n, alpha) <= rule.value
        case _:
            return True


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
            claim = claim_of_groups(rule, measurement, alpha, fail.family)
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
