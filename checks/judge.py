# SPDX-License-Identifier: Apache-2.0
"""The judge: rules on measurements give findings.

PASS needs proof: the test of the hypothesis "the rule is violated" must reject it at level alpha. A decision
opens only if every blocking rule passes, so the chance that a violating candidate opens it is at most alpha
however many rules there are (intersection-union; Berger 1982, Technometrics 24:295), and PASS needs no
correction for their number. A claim of FAIL does: the chance that any of them is false is kept at
alpha_fail by Holm's procedure (Holm 1979, Scandinavian Journal of Statistics 6:65).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from checks.errors import PolicyError
from checks.finding import Finding, Reason, Verdict
from checks.measurement import OVERALL, Measurement, Method
from checks.policy import Policy, Rule, matches
from checks.protocol import look_up
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.disparity import mover_tango_lower, mover_tango_upper
from checks.statistics.multiplicity import holm
from checks.statistics.paired import exact_lower, p_harm, p_noninferior
from checks.statistics.planning import further_examples, n_min, n_plan
from checks.statistics.ranks import hodges_lehmann, hodges_lehmann_bounds

__all__ = ["judge"]

_GAMMA_SHARE = 100
"""The nuisance interval of the exact test takes at most this part of the level it is used at."""

_CORRECTED = (Method.PAIRED_EXACT, Method.CLOPPER_PEARSON, Method.MOVER_TANGO)
"""Methods whose claims of FAIL are corrected together."""

_DISPLAY_DIGITS = 4

_BOUND_TOLERANCE = 5e-5
"""A bound is shown with four digits; the verdict is the exact test's own."""


@dataclass(frozen=True)
class _Claim:
    """A rule on a measurement before verdicts: whether PASS is proven, and evidence for FAIL.

    `harm_p` is a p-value of "the rule is in fact kept"; it goes through Holm.
    """

    rule: Rule
    measurement: Measurement
    passed: bool
    bound: float | None
    p: float | None
    harm_p: float
    reason: Reason
    further: int | None
    note: str = ""


def _format(value: float) -> str:
    return f"{value:.{_DISPLAY_DIGITS}g}"


def _is_within(rule: Rule, value: float) -> bool:
    return value >= rule.value if rule.limit == "min" else value <= rule.value


def _judge_exact_value(rule: Rule, measurement: Measurement) -> _Claim:
    kept = _is_within(rule, measurement.value)
    return _Claim(rule, measurement, kept, measurement.value, None, 1.0 if kept else 0.0, Reason.NONE, None)


@lru_cache(maxsize=4096)
def _exact_bound(losses: int, gains: int, n: int, alpha: float) -> float:
    """Equal slices without flips are common, and inverting the exact test is the judge's main cost."""
    return exact_lower(losses, gains, n, alpha, gamma=alpha / _GAMMA_SHARE, tolerance=_BOUND_TOLERANCE)


def _judge_paired(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> _Claim:
    losses, gains = measurement.statistics["losses"], measurement.statistics["gains"]
    n, margin = measurement.n, rule.value
    gamma = alpha / _GAMMA_SHARE
    p = p_noninferior(losses, gains, n, margin, gamma=gamma)
    least = n_min(margin, alpha, gamma)
    passed = n >= least and p <= alpha
    # A change above the margin cannot prove harm; the exact test need not be run to know it.
    harm = (
        1.0
        if measurement.value >= -margin
        else p_harm(losses, gains, n, margin, gamma=harm_level / _GAMMA_SHARE)
    )
    reason, further = Reason.NONE, None
    if not passed:
        churn = max((losses + gains) / n, 1 / n)
        planned = n_plan(margin, min(churn, 1.0), alpha)
        reason = Reason.TOO_SMALL if n < least else Reason.UNDERPOWERED if n < planned else Reason.BORDERLINE
        more = further_examples(losses, gains, n, margin, alpha)
        further = more.if_observed_change if more.if_observed_change is not None else None
        if reason is Reason.TOO_SMALL:
            further = max(further or 0, least - n)
    note = f"{n} examples are fewer than the {least} that this margin needs" if n < least else ""
    bound = _exact_bound(losses, gains, n, alpha)
    return _Claim(rule, measurement, passed, bound, p, harm, reason, further, note)


def _judge_share(rule: Rule, measurement: Measurement, alpha: float) -> _Claim:
    from scipy.special import bdtr, bdtrc

    successes, n = int(measurement.statistics["successes"]), measurement.n
    if rule.limit == "min":
        bound = clopper_pearson_lower(successes, n, alpha)
        passed = bound >= rule.value
        harm = float(bdtr(successes, n, rule.value))
    else:
        bound = clopper_pearson_upper(successes, n, alpha)
        passed = bound <= rule.value
        harm = 1.0 if successes == 0 else float(bdtrc(successes - 1, n, rule.value))
    reason = Reason.NONE if passed else Reason.BORDERLINE
    return _Claim(rule, measurement, passed, bound, None, harm, reason, None)


def _judge_gap(rule: Rule, measurement: Measurement, alpha: float, harm_level: float) -> _Claim:
    names = ("losses_g", "gains_g", "n_g", "losses_h", "gains_h", "n_h")
    counts = [int(measurement.statistics[name]) for name in names]
    bound = mover_tango_upper(*counts, alpha)  # type: ignore[call-arg]
    passed = bound < rule.value
    # The bound gives no p-value; exceeded at the strictest
    # level Holm would use, it counts as one at that level.
    proven = mover_tango_lower(*counts, harm_level) > rule.value  # type: ignore[call-arg]
    reason = Reason.NONE if passed else Reason.BORDERLINE
    return _Claim(rule, measurement, passed, bound, None, harm_level if proven else 1.0, reason, None)


def _judge_times(rule: Rule, measurement: Measurement, alpha: float, alpha_fail: float) -> _Claim:
    ratios = list(measurement.statistics["log_ratios"])
    control = math.exp(hodges_lehmann(list(measurement.statistics["control_log_ratios"])))
    limit = math.log(rule.value)
    upper = hodges_lehmann_bounds(ratios, alpha)[1]
    lower = hodges_lehmann_bounds(ratios, alpha_fail)[0]
    bound = math.exp(upper) if math.isfinite(upper) else None
    if abs(control - 1) > rule.control_tolerance:
        note = f"two copies of one file differ by {control - 1:+.1%}, more than {rule.control_tolerance:.1%}"
        return _Claim(rule, measurement, False, bound, None, 1.0, Reason.NOISY_HOST, None, note)
    # What two copies of one file differ by is a bias the candidate may owe its lead to.
    passed = upper + abs(math.log(control)) < limit
    reason = Reason.NONE if passed else Reason.TOO_SMALL if bound is None else Reason.BORDERLINE
    return _Claim(rule, measurement, passed, bound, None, 0.0 if lower > limit else 1.0, reason, None)


@dataclass(frozen=True)
class _FailLevels:
    """Error at which one FAIL may be claimed: the strictest of the Holm family, and of one claim on time."""

    family: float
    time: float


def _claim(rule: Rule, measurement: Measurement, alpha: float, fail: _FailLevels) -> _Claim:
    match rule.method:
        case Method.EXACT_VALUE:
            return _judge_exact_value(rule, measurement)
        case Method.PAIRED_EXACT:
            return _judge_paired(rule, measurement, alpha, fail.family)
        case Method.CLOPPER_PEARSON:
            return _judge_share(rule, measurement, alpha)
        case Method.MOVER_TANGO:
            return _judge_gap(rule, measurement, alpha, fail.family)
        case Method.HODGES_LEHMANN:
            return _judge_times(rule, measurement, alpha, fail.time)


def _limit_in_words(rule: Rule) -> str:
    if rule.limit == "margin":
        return f"above {_format(-rule.value)}"
    return f"at {'least' if rule.limit == 'min' else 'most'} {_format(rule.value)}"


def _advice(claim: _Claim) -> str:
    subject = claim.measurement.subject
    match claim.reason:
        case Reason.NOISY_HOST:
            return f"{claim.note}; run `dvc repro` again on a quieter host"
        case _ if claim.rule.method is Method.HODGES_LEHMANN:
            return "raise time.sessions or time.rounds in params.yaml"
        case Reason.TOO_SMALL if claim.note:
            return f"{claim.note}; collect {claim.further} more of {subject}, or pool it into a larger slice"
        case _ if claim.further is not None:
            return f"about {claim.further} more examples of {subject} would settle it if what was seen holds"
        case _ if claim.rule.method is Method.PAIRED_EXACT:
            return "more examples are not expected to help; compress less, or recover for longer"
        case _:
            return f"collect more examples of {subject}, or compress less"


def _message(claim: _Claim, verdict: Verdict) -> str:
    measurement, rule = claim.measurement, claim.rule
    seen = f"{measurement.metric} on {measurement.subject} is {_format(measurement.value)}"
    limit = _limit_in_words(rule)
    if rule.method is Method.EXACT_VALUE:
        distance = abs(measurement.value - rule.value)
        return (
            f"{seen}, within {limit}"
            if verdict is Verdict.PASS
            else f"{seen}, {_format(distance)} off {limit}"
        )
    side = "lower" if rule.limit in ("margin", "min") else "upper"
    bound = "no finite bound" if claim.bound is None else f"{side} bound {_format(claim.bound)}"
    basis = f"{seen} (n={measurement.n}, {bound})"
    match verdict:
        case Verdict.PASS:
            return f"{basis}, proven {limit}"
        case Verdict.FAIL:
            edge = -rule.value if rule.limit == "margin" else rule.value
            distance = abs(measurement.value - edge)
            advice = "choose widths by latency" if rule.method is Method.HODGES_LEHMANN else "compress less"
            return f"{basis}, proven not {limit}; the estimate is {_format(distance)} beyond: {advice}"
        case _:
            return f"{basis}, not proven {limit}: {_advice(claim)}"


def _expected(rule: Rule, levels: Mapping[str, Sequence[str]]) -> set[str]:
    """Every slice the rule must be judged on; a slice that nothing knows is the policy's error."""
    expected = set()
    for selector in rule.slices:
        attribute, _, level = selector.partition("=")
        if selector == str(OVERALL):
            expected.add(selector)
        elif selector in levels:
            expected |= {f"{selector}={name}" for name in levels[selector]}
        elif level and level in levels.get(attribute, ()):
            expected.add(selector)
        else:
            raise PolicyError(
                f"expected overall, one of {sorted(levels)}, or attribute=level, got {selector!r}",
                where=f"{rule.where}.slices",
                hint="slice columns are named in params.yaml prepare.slices",
            )
    return expected


def _unjudged(rule: Rule, missing: set[str], broken: Mapping[str, str]) -> Finding:
    why = look_up(rule.metric, broken) or f"{rule.metric} was not measured on {', '.join(sorted(missing))}"
    return Finding(rule, None, Verdict.ERROR, f"could not judge: {why}")


def judge(
    measurements: Sequence[Measurement],
    policy: Policy,
    *,
    finalists: int,
    levels: Mapping[str, Sequence[str]],
    broken: Mapping[str, str],
    same_file: bool = False,
) -> list[Finding]:
    """Apply every rule of `policy` to every measurement it selects.

    Args:
        measurements: What the checks returned.
        policy: The rules.
        finalists: How many candidates share `policy.alpha`, >= 1.
        levels: Slice attribute to all of its levels, those without examples included.
        broken: Metric to why it was not measured.
        same_file: Whether candidate and baseline are one file, which is never told FAIL for its speed.

    Returns:
        At least one finding a rule; a rule with a slice that was not measured has an ERROR among them.

    Raises:
        PolicyError: if a rule names a slice that does not exist.
    """
    expected = {rule.id: _expected(rule, levels) for rule in policy.rules}
    pairs = [(rule, entry) for rule in policy.rules for entry in measurements if matches(rule, entry)]
    family = sum(rule.method in _CORRECTED for rule, _ in pairs)
    timed = sum(rule.method is Method.HODGES_LEHMANN for rule, _ in pairs)
    # Claims about time have too few sessions for Holm's smallest levels: they have half of alpha_fail apart.
    family_alpha = policy.alpha_fail / 2 if timed else policy.alpha_fail
    levels_of_fail = _FailLevels(family_alpha / max(1, family), policy.alpha_fail / 2 / max(1, timed))
    alpha = policy.alpha / finalists
    claims = [_claim(rule, entry, alpha, levels_of_fail) for rule, entry in pairs]
    members = [claim for claim in claims if claim.rule.method in _CORRECTED]
    rejected = holm([claim.harm_p for claim in members], family_alpha) if members else []
    harmed = {id(claim) for claim, false in zip(members, rejected, strict=True) if false}
    harmed |= {
        id(claim)
        for claim in claims
        if claim.rule.method not in _CORRECTED
        and claim.harm_p == 0.0
        and not (same_file and claim.rule.method is Method.HODGES_LEHMANN)
    }
    findings = [_finding(claim, harmed=id(claim) in harmed) for claim in claims]
    for rule in policy.rules:
        missing = expected[rule.id] - {str(entry.slice) for of, entry in pairs if of is rule}
        if missing or not expected[rule.id]:
            findings.append(_unjudged(rule, missing or set(rule.slices), broken))
    order = {rule.id: position for position, rule in enumerate(policy.rules)}
    return sorted(findings, key=lambda finding: order[finding.rule.id])


def _finding(claim: _Claim, *, harmed: bool) -> Finding:
    verdict = Verdict.PASS if claim.passed else Verdict.FAIL if harmed else Verdict.INCONCLUSIVE
    inconclusive = verdict is Verdict.INCONCLUSIVE
    return Finding(
        rule=claim.rule,
        measurement=claim.measurement,
        verdict=verdict,
        message=_message(claim, verdict),
        reason=claim.reason if inconclusive else Reason.NONE,
        bound=claim.bound,
        p=claim.p,
        further_examples=claim.further if inconclusive else None,
    )
