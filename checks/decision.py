# SPDX-License-Identifier: Apache-2.0
"""The decision: all findings on one candidate, open or closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from checks.crossing import cross
from checks.errors import EvidenceError, LeanGateError, PolicyError
from checks.evidence import RESTRICTED, Evidence, Examples
from checks.finding import Finding, Verdict
from checks.judge import judge
from checks.measurement import Measurement
from checks.outcomes import ATTACK, LABEL
from checks.policy import Kind, Policy, matches
from checks.protocol import Check, Narrowing, look_up, metrics_of
from checks.runner import Run, run_checks

__all__ = [
    "Decision",
    "Outcome",
    "absent",
    "combine",
    "cross_examples",
    "decide",
    "decide_unreadable",
    "declared_levels",
    "measure",
]

SCHEMA = "leangate/decision/1"


_OPENING: Mapping[Kind, tuple[Verdict, ...]] = {
    "assert": (Verdict.PASS,),
    "bounded": (Verdict.PASS,),
    "screen": (Verdict.NO_FINDING,),
}
"""The verdicts that keep nothing closed."""


class Outcome(StrEnum):
    """What all findings together say."""

    PASSED = "passed"
    BLOCKED = "blocked"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    ABSENT = "absent"


@dataclass(frozen=True)
class Decision:
    """All findings on one candidate, and what follows."""

    outcome: Outcome
    findings: tuple[Finding, ...]
    measurements: tuple[Measurement, ...]
    alpha_each: float
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether the candidate may go on."""
        return self.outcome is Outcome.PASSED

    def to_json(self) -> dict[str, Any]:
        """Return the decision as plain JSON values."""
        return {
            "schema": SCHEMA,
            "outcome": str(self.outcome),
            "open": self.open,
            "alpha_each": self.alpha_each,
            "findings": [finding.to_json() for finding in self.findings],
            "measurements": [measurement.to_json() for measurement in self.measurements],
        }


def combine(findings: Sequence[Finding]) -> Outcome:
    """Return what `findings` say together: only all blocking rules at PASS, or NO-FINDING, open the gate.

    An ERROR anywhere, advisory rules included, means that something could not be judged.
    """
    blocking = [finding for finding in findings if finding.blocking]
    if not blocking or any(finding.verdict is Verdict.ERROR for finding in findings):
        return Outcome.ERROR
    if any(finding.verdict is Verdict.FAIL for finding in blocking):
        return Outcome.BLOCKED
    if all(finding.verdict in _OPENING[finding.rule.kind] for finding in blocking):
        return Outcome.PASSED
    return Outcome.INCONCLUSIVE


def declared_levels(evidence: Evidence) -> dict[str, tuple[str, ...]]:
    """Return every slice attribute that a rule may name, with every level it has in any split."""
    examples = evidence.examples
    return {**examples.levels, LABEL: examples.classes, ATTACK: evidence.attacks.names}


def decide(checks: Sequence[Check], evidence: Evidence, policy: Policy, *, alpha: float) -> Decision:
    """Run the checks on the evidence and judge what they measured.

    Args:
        checks: What measures.
        evidence: Of one candidate.
        policy: What judges.
        alpha: Probability that this candidate gets PASS by mistake, in (0, `policy.alpha`].

    Raises:
        EvidenceError: if slice columns are withheld: a rule on them would be answered by their absence.
        PolicyError: if a rule names a slice that does not exist.
    """
    if evidence.examples.withheld:
        raise EvidenceError(
            f"expected the columns {list(evidence.examples.withheld)}, got none", where=RESTRICTED
        )
    evidence = replace(evidence, examples=cross_examples(evidence.examples, policy))
    run = _measure(checks, evidence, policy)
    findings = judge(
        run.measurements,
        policy,
        alpha=alpha,
        levels=declared_levels(evidence),
        broken=run.broken,
        classes=evidence.examples.classes,
        same_file=evidence.subject.baseline_sha256 == evidence.subject.candidate_sha256,
    )
    return Decision(combine(findings), tuple(findings), run.measurements, alpha, run.seconds)


def measure(checks: Sequence[Check], evidence: Evidence, policy: Policy) -> Run:
    """Run the checks as `decide` does, and judge nothing.

    Args:
        checks: What measures.
        evidence: Of one candidate; what combines slice columns that are withheld is left out.
        policy: Says what is asked for.

    Raises:
        PolicyError: if a rule names a combination that does not exist.
    """
    withheld = set(evidence.examples.withheld)
    here = [crossing for crossing in policy.crossings if not withheld & set(crossing.split("*"))]
    return _measure(checks, replace(evidence, examples=cross(evidence.examples, here)), policy)


def _measure(checks: Sequence[Check], evidence: Evidence, policy: Policy) -> Run:
    asked = [_narrowed(check, policy) for check in checks if _may_matter(check, policy)]
    run = run_checks(asked, evidence)
    return replace(run, measurements=_asked_for(run.measurements, checks, policy))


def _may_matter(check: Check, policy: Policy) -> bool:
    """Whether anything the check measures can be kept; what nobody asks for need not be measured."""
    shown = any(not metric.on_demand for metric in check.metrics.values())
    return shown or any(look_up(rule.metric, check.metrics) for rule in policy.rules)


def cross_examples(examples: Examples, policy: Policy) -> Examples:
    """Return the examples with a column for every combination of attributes that the policy names.

    Raises:
        PolicyError: naming the rule, if a combination does not exist.
    """
    try:
        return cross(examples, policy.crossings)
    except PolicyError as error:
        for rule in policy.rules:
            try:
                cross(examples, [selector for selector in rule.slices if "*" in selector])
            except PolicyError as own:
                raise PolicyError(own.what, where=f"{rule.where}.slices", hint=own.hint) from error
        raise


def _narrowed(check: Check, policy: Policy) -> Check:
    def wanted(metric: str, attribute: str, target: str) -> bool:
        return any(
            rule.metric == metric
            and (not rule.targets or target in rule.targets)
            and any(selector.partition("=")[0] == attribute for selector in rule.slices)
            for rule in policy.rules
        )

    return check.narrow(wanted) if isinstance(check, Narrowing) else check


def _asked_for(
    measurements: Sequence[Measurement], checks: Sequence[Check], policy: Policy
) -> tuple[Measurement, ...]:
    """Leave out what is measured on demand and no rule selects: there can be thousands."""
    declared = metrics_of(checks)
    kept = []
    for entry in measurements:
        metric = look_up(entry.metric, declared)
        on_demand = metric is not None and metric.on_demand
        if not on_demand or any(matches(rule, entry) for rule in policy.rules):
            kept.append(entry)
    return tuple(kept)


def decide_unreadable(policy: Policy, error: LeanGateError) -> Decision:
    """Return the decision on evidence that cannot be read: every rule is an ERROR.

    Raises:
        PolicyError: never swallowed, passed on.
    """
    if isinstance(error, PolicyError):
        raise error
    findings = tuple(Finding(rule, None, Verdict.ERROR, f"could not judge: {error}") for rule in policy.rules)
    return Decision(Outcome.ERROR, findings, (), 0.0)


def absent() -> Mapping[str, Any]:
    """Return the decision on a slot that no candidate fills: closed."""
    return Decision(Outcome.ABSENT, (), (), 0.0).to_json()
