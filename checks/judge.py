# SPDX-License-Identifier: Apache-2.0
"""The judge: rules on measurements give findings.

PASS needs proof: the test of the hypothesis "the rule is violated" must reject it at level alpha. A decision
opens only if every blocking rule passes, so the chance that a violating candidate opens it is at most alpha
however many rules there are (intersection-union; Berger 1982, Technometrics 24:295), and PASS needs no
correction for their number. A claim of FAIL does: the chance that any of them is false is kept at
alpha_fail by Holm's procedure (Holm 1979, Scandinavian Journal of Statistics 6:65).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from checks.claim import can_pass, claim_of
from checks.claim_values import Claim, FailLevels, Further
from checks.errors import PolicyError
from checks.finding import Finding, Reason, Verdict
from checks.measurement import GROUPED, OVERALL, Measurement, Method
from checks.policy import Policy, Rule, matches
from checks.protocol import look_up
from checks.statistics.multiplicity import holm
from checks.wording import describe

__all__ = ["judge"]

_TIMED = (Method.HODGES_LEHMANN, Method.ORDER_STATISTIC)
"""Methods whose claims of FAIL have too few sessions for Holm's smallest levels."""

_UNCORRECTED = (*_TIMED, Method.EXACT_VALUE, Method.EXACT_TEST)
"""Methods whose claims of FAIL stand outside the Holm family."""


def _selected(selector: str, rule: Rule, levels: Mapping[str, Sequence[str]]) -> set[str]:
    """Every slice that a selector stands for; one that nothing knows is the policy's error."""
    attribute, _, level = selector.partition("=")
    if selector == str(OVERALL):
        return {selector}
    if selector in levels:
        return {selector} if rule.method in GROUPED else {f"{selector}={name}" for name in levels[selector]}
    if level and level in levels.get(attribute, ()):
        return {selector}
    raise PolicyError(
        f"expected overall, one of {sorted(levels)}, attribute=level or attribute*attribute, "
        f"got {selector!r}",
        where=f"{rule.where}.slices",
        hint="slice columns are named in params.yaml prepare.slices",
    )


def _expected(
    rule: Rule, levels: Mapping[str, Sequence[str]], targets: Mapping[str, Sequence[str]]
) -> set[tuple[str, str]]:
    """Every slice and target the rule must be judged on."""
    known = targets.get(rule.per, ("",))
    strangers = [name for name in rule.targets if name not in known]
    if strangers:
        what = {"class": "classes", "operating_point": "operating points"}.get(rule.per, "nothing")
        raise PolicyError(f"expected {what} among {list(known)[:20]}, got {strangers}", where=rule.where)
    slices = {where for selector in rule.slices for where in _selected(selector, rule, levels)}
    return {(where, target) for where in slices for target in rule.targets or known}


def _unjudged(rule: Rule, missing: set[tuple[str, str]], broken: Mapping[str, str]) -> Finding:
    places = ", ".join(sorted(f"{where} for {target}" if target else where for where, target in missing)[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    why = look_up(rule.metric, broken)
    if rule.kind == "screen" and why is None:
        message = f"{rule.metric} did not run on {places}{more}"
        return Finding(rule, None, Verdict.NOT_RUN, message)
    why = why or f"{rule.metric} was not measured on {places}{more}"
    return Finding(rule, None, Verdict.ERROR, f"could not judge: {why}")


def _answers_for(rule: Rule, attribute: str, level: str, of: Rule) -> bool:
    """Whether `rule` keeps the gate closed until the claim of `of` is proven on the whole of that level."""
    same = (rule.metric, rule.kind, rule.limit) == (of.metric, of.kind, of.limit)
    strict = rule.value >= of.value if rule.limit == "min" else rule.value <= of.value
    covers = attribute in rule.slices or f"{attribute}={level}" in rule.slices
    targets = not rule.targets or (bool(of.targets) and set(of.targets) <= set(rule.targets))
    return rule.blocking and same and strict and covers and targets


def _is_listed(claim: Claim, policy: Policy, alpha: float) -> bool:
    """Whether a combination of attributes is too small to be judged, and its parents answer for it."""
    where = claim.measurement.slice
    if "*" not in where.attribute or claim.rule.method in GROUPED:
        return False
    parents = zip(where.attribute.split("*"), where.level.split("*"), strict=True)
    for attribute, level in parents:
        if not any(_answers_for(rule, attribute, level, claim.rule) for rule in policy.rules):
            return False
    # The policy's own min_n lists nothing: whoever asks for more must not be answered with less.
    return not can_pass(claim.rule, claim.measurement.n, alpha)


def _finding(claim: Claim, verdict: Verdict, *, listed: bool = False) -> Finding:
    inconclusive = verdict is Verdict.INCONCLUSIVE
    further = claim.further() if inconclusive else Further(None)
    message = describe(claim, verdict, further)
    if listed:
        message += "; listed only, its parents are judged"
    return Finding(
        rule=claim.rule,
        measurement=claim.measurement,
        verdict=verdict,
        message=message,
        reason=claim.reason if inconclusive else Reason.NONE,
        bound=claim.bound,
        p=claim.p,
        further_examples=further.if_seen,
        further_if_equal=further.if_equal,
        detectable=claim.detectable,
        value=claim.value,
        pair=claim.pair,
        listed=listed,
    )


def _alarmed(claims: Sequence[Claim]) -> set[int]:
    """Screens that found something: Holm's procedure within each rule, at the rule's own level."""
    found: set[int] = set()
    for rule in {id(claim.rule): claim.rule for claim in claims if claim.rule.kind == "screen"}.values():
        members = [claim for claim in claims if claim.rule is rule]
        rejected = holm([claim.harm_p for claim in members], rule.value)
        found |= {id(claim) for claim, alarm in zip(members, rejected, strict=True) if alarm}
    return found


def _harmed(claims: Sequence[Claim], family_alpha: float, *, same_file: bool) -> set[int]:
    members = [claim for claim in claims if claim.rule.method not in _UNCORRECTED]
    rejected = holm([claim.harm_p for claim in members], family_alpha) if members else []
    harmed = {id(claim) for claim, false in zip(members, rejected, strict=True) if false}
    return harmed | {
        id(claim)
        for claim in claims
        if claim.rule.method in (*_TIMED, Method.EXACT_VALUE)
        and claim.harm_p == 0.0
        and not (same_file and claim.rule.method is Method.HODGES_LEHMANN)
    }


def _verdict(claim: Claim, harmed: set[int], alarmed: set[int]) -> Verdict:
    if claim.rule.kind == "screen":
        return Verdict.FAIL if id(claim) in alarmed else Verdict.NO_FINDING
    if claim.passed:
        return Verdict.PASS
    return Verdict.FAIL if id(claim) in harmed else Verdict.INCONCLUSIVE


def judge(
    measurements: Sequence[Measurement],
    policy: Policy,
    *,
    alpha: float,
    levels: Mapping[str, Sequence[str]],
    broken: Mapping[str, str],
    classes: Sequence[str] = (),
    same_file: bool = False,
) -> list[Finding]:
    """Apply every rule of `policy` to every measurement it selects.

    Args:
        measurements: What the checks returned.
        policy: The rules.
        alpha: Probability that this candidate gets PASS by mistake, in (0, `policy.alpha`].
        levels: Slice attribute to all of its levels, those without examples included.
        broken: Metric to why it was not measured.
        classes: Names of the classes.
        same_file: Whether candidate and baseline are one file, which is never told FAIL for its speed.

    Returns:
        At least one finding a rule; a rule with a slice that was not measured has an ERROR among them.

    Raises:
        PolicyError: if a rule names a slice or a class that does not exist.
        ValueError: if alpha is out of range.
    """
    if not 0 < alpha <= policy.alpha:
        raise ValueError(f"expected alpha in (0, {policy.alpha:g}], got {alpha:g}")
    targets = {
        "class": tuple(classes),
        "operating_point": tuple(point.name for point in policy.operating_points),
    }
    expected = {rule.id: _expected(rule, levels, targets) for rule in policy.rules}
    pairs = [(rule, entry) for rule in policy.rules for entry in measurements if matches(rule, entry)]
    family = sum(rule.method not in _UNCORRECTED for rule, _ in pairs)
    timed = sum(rule.method in _TIMED for rule, _ in pairs)
    # Claims about time have half of alpha_fail to themselves.
    family_alpha = policy.alpha_fail / 2 if timed else policy.alpha_fail
    fail = FailLevels(family_alpha / max(1, family), policy.alpha_fail / 2 / max(1, timed))
    claims: list[Claim] = []
    findings: list[Finding] = []
    for rule, entry in pairs:
        try:
            claims.append(claim_of(rule, entry, alpha, fail))
        except Exception as error:  # bounds are drawn by other people's code, which may raise anything
            findings.append(Finding(rule, entry, Verdict.ERROR, f"could not judge: {error}"))
    harmed = _harmed(claims, family_alpha, same_file=same_file)
    alarmed = _alarmed(claims)
    for claim in claims:
        verdict = _verdict(claim, harmed, alarmed)
        listed = verdict is Verdict.INCONCLUSIVE and _is_listed(claim, policy, alpha)
        findings.append(_finding(claim, verdict, listed=listed))
    for rule in policy.rules:
        seen = {(str(entry.slice), entry.target) for of, entry in pairs if of is rule}
        missing = expected[rule.id] - seen
        found = [finding for finding in findings if finding.rule is rule]
        if missing or not found:
            findings.append(_unjudged(rule, missing or expected[rule.id] or {("", "")}, broken))
        elif all(finding.listed for finding in found):
            message = f"no combination of {', '.join(rule.slices)} has examples enough: collect more, or pool"
            findings.append(Finding(rule, None, Verdict.INCONCLUSIVE, message, reason=Reason.TOO_SMALL))
    order = {rule.id: position for position, rule in enumerate(policy.rules)}
    return sorted(findings, key=lambda finding: order[finding.rule.id])
