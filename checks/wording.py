# SPDX-License-Identifier: Apache-2.0
"""One sentence for each finding: what was measured, how sure it is, and what to do."""

from __future__ import annotations

from checks.claim_values import Claim, Further
from checks.finding import Reason, Verdict
from checks.measurement import Method, describe_subject
from checks.policy import Rule

__all__ = ["describe"]

_DIGITS = 4
_TIMED = (Method.HODGES_LEHMANN, Method.ORDER_STATISTIC)


def _format(value: float) -> str:
    return f"{value:.{_DIGITS}g}"


def _edge(claim: Claim) -> float:
    rule = claim.rule
    return -rule.value if rule.limit == "margin" and claim.measurement.harm == "fall" else rule.value


def _limit_in_words(claim: Claim) -> str:
    rule = claim.rule
    if rule.limit == "margin":
        return f"{'above' if claim.measurement.harm == 'fall' else 'below'} {_format(_edge(claim))}"
    return f"at {'least' if rule.limit == 'min' else 'most'} {_format(rule.value)}"


def _is_floor(claim: Claim) -> bool:
    rule = claim.rule
    return rule.limit == "min" or (rule.limit == "margin" and claim.measurement.harm == "fall")


def _advice(claim: Claim, further: Further, subject: str) -> str:
    match claim.reason:
        case Reason.NOISY_HOST:
            return f"{claim.note}; run `dvc repro` again on a quieter host"
        case _ if claim.rule.method is Method.ORDER_STATISTIC:
            return "raise time.rounds or time.calls in params.yaml"
        case _ if claim.rule.method in _TIMED:
            return "raise time.sessions in params.yaml"
        case Reason.TOO_SMALL if claim.note and further.if_seen is not None:
            least = further.if_seen
            if further.if_equal and further.if_equal < least:
                least = further.if_equal
            more = f" ({further.if_seen} if what was seen holds)" if further.if_seen > least else ""
            return f"{claim.note}; collect {least} more of {subject}{more}, or pool it into a larger slice"
        case Reason.TOO_SMALL if claim.note and claim.bound is None:
            return f"{claim.note}; collect some, or pool it into a larger slice"
        case _ if further.if_seen is not None:
            equal = ""
            if further.if_equal and further.if_equal < further.if_seen:
                equal = f", {further.if_equal} if the models are in truth equal"
            return (
                f"about {further.if_seen} more examples of {subject} would settle it if what was seen "
                f"holds{equal}"
            )
        case _ if claim.rule.method in (Method.PAIRED_EXACT, Method.CLOPPER_PEARSON):
            return "more examples are not expected to help; compress less, or recover for longer"
        case _:
            return f"collect more examples of {subject}, or compress less"


def _remedy(rule: Rule) -> str:
    if rule.metric.startswith("baseline_"):
        return "mend the baseline"
    return "choose widths by latency" if rule.method in _TIMED else "compress less"


def describe(claim: Claim, verdict: Verdict, further: Further) -> str:
    """Return the sentence.

    Args:
        claim: What the measurement says about the rule.
        verdict: What the judge made of it.
        further: How many more examples would settle it; used for INCONCLUSIVE alone.
    """
    measurement, rule = claim.measurement, claim.rule
    subject = describe_subject(measurement.slice, claim.pair, measurement.target)
    value = measurement.value if claim.value is None else claim.value
    seen = f"{measurement.metric} on {subject} is {_format(value)}"
    if rule.kind == "screen":
        found = "" if verdict is Verdict.FAIL else "no "
        return (
            f"{seen} (n={measurement.n}, p={_format(claim.harm_p)}): {found}concentration found at level "
            f"{_format(rule.value)}, which all searches of the rule share; what a search does not find may "
            "still be there"
        )
    limit = _limit_in_words(claim)
    distance = _format(abs(value - _edge(claim)))
    if rule.method is Method.EXACT_VALUE:
        return f"{seen}, within {limit}" if verdict is Verdict.PASS else f"{seen}, {distance} off {limit}"
    side = "lower" if _is_floor(claim) else "upper"
    bound = "no finite bound" if claim.bound is None else f"{side} bound {_format(claim.bound)}"
    basis = f"{seen} (n={measurement.n}, {bound})"
    match verdict:
        case Verdict.PASS:
            return f"{basis}, proven {limit}"
        case Verdict.FAIL:
            # The bound on the other side proves it; this one would only confuse.
            shown = f"{seen} (n={measurement.n}), proven not {limit}"
            return f"{shown}; the estimate is {distance} beyond: {_remedy(rule)}"
        case _:
            return f"{basis}, not proven {limit}: {_advice(claim, further, subject)}"
