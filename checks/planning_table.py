# SPDX-License-Identifier: Apache-2.0
"""What a policy can show on the test examples that are there, before any model is trained.

Every check runs on a stand-in: both models decide every example as labelled. What it measures has the units
that the real measurement will have, so each rule is planned on the units it will be judged on. Its values
are never looked at. The judge itself says which slices a rule selects, and which of them it would only list.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.decision import cross_examples
from checks.errors import EvidenceError, PolicyError
from checks.evidence import Attacks, Evidence, Examples, Scores
from checks.finding import Finding
from checks.judge import judge
from checks.measurement import Method, describe_subject
from checks.outcomes import ATTACK, LABEL, units_of
from checks.policy import Policy, Rule
from checks.prospects import TIMED, Prospect, prospect_of, time_prospect, widest_margin
from checks.protocol import Check, look_up
from checks.runner import run_checks
from checks.tables import Subject

__all__ = ["Effort", "Plan", "Row", "Standing", "plan_policy"]

SCHEMA = "leangate/policy-plan/1"

_UNLIKELY = 0.5
_SURE_SCORE = 30.0


class Standing(StrEnum):
    """What a row of the plan means for the policy."""

    FINE = "fine"
    UNLIKELY = "unlikely"
    IMPOSSIBLE = "impossible"
    LISTED = "listed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Effort:
    """What the probes will do on the test split.

    Attributes:
        attacked: Ids of the examples that will be attacked.
        attacks: Names of the attacks.
        batch_sizes: That are timed.
        sessions: Fresh session pairs of a timing, >= 1.
        calls: Calls of one model in one session, >= 1.
    """

    attacked: npt.NDArray[np.str_]
    attacks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    sessions: int
    calls: int


@dataclass(frozen=True)
class Row:
    """One bounded rule on one slice and target.

    Attributes:
        rule: The rule.
        subject: The slice and target, in words; empty where nothing can be measured.
        attribute: The attribute the slice belongs to; empty for all examples.
        prospect: Units, how many are needed, and the chance; None where that cannot be known.
        standing: What follows.
        message: What is wrong and what to do, if anything.
    """

    rule: Rule
    subject: str
    attribute: str
    prospect: Prospect | None
    standing: Standing
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        prospect = self.prospect
        return {
            "rule": self.rule.id,
            "metric": self.rule.metric,
            "blocking": self.rule.blocking,
            "limit": self.rule.value,
            "limit_kind": self.rule.limit,
            "subject": self.subject,
            "n": prospect.n if prospect else None,
            "n_min": prospect.n_min if prospect else None,
            "n_plan": prospect.n_plan if prospect else None,
            "chance": prospect.chance if prospect else None,
            "note": prospect.note if prospect else "",
            "standing": str(self.standing),
            "message": self.message,
        }


@dataclass(frozen=True)
class Plan:
    """Every bounded rule on every slice.

    Attributes:
        rows: In the order of the policy.
        policy: The policy.
        alpha_each: Level of one finalist.
        churn: Assumed; None where chances were left out.
        examples: Test examples.
        units: Independent units among them.
    """

    rows: tuple[Row, ...]
    policy: Policy
    alpha_each: float
    churn: float | None
    examples: int
    units: int

    @property
    def impossible(self) -> tuple[Row, ...]:
        """Rows that keep the gate closed whatever the candidate."""
        return tuple(row for row in self.rows if row.standing is Standing.IMPOSSIBLE and self._waits(row))

    @property
    def unlikely(self) -> tuple[Row, ...]:
        """Blocking rows that an unchanged candidate passes less often than not."""
        return tuple(row for row in self.rows if row.standing is Standing.UNLIKELY and row.rule.blocking)

    @property
    def chance_of_all(self) -> tuple[float, float] | None:
        """Bounds of the chance that an unchanged candidate passes every blocking rule with a known chance.

        The lower is the product over all rows. Rows on overlapping examples help each other, so this is low,
        roughly. The upper is the smallest product over slices of one rule and attribute, which are
        disjoint and so independent. None where no chance is known.
        """
        known = [
            (row.rule.id, row.attribute, row.prospect.chance)
            for row in self.rows
            if row.rule.blocking and row.standing is not Standing.LISTED
            if row.prospect is not None and row.prospect.chance is not None
        ]
        if not known:
            return None
        together: dict[tuple[str, str], float] = {}
        for name, attribute, chance in known:
            together[name, attribute] = together.get((name, attribute), 1.0) * chance
        return math.prod(chance for _, _, chance in known), min(together.values())

    @staticmethod
    def _waits(row: Row) -> bool:
        # What cannot be measured is an ERROR, and that closes the gate for advisory rules too.
        return row.rule.blocking or not row.subject

    def _waivers(self) -> dict[str, Any] | None:
        waiving = self.policy.waiving
        if waiving is None:
            return None
        rules = [rule.id for rule in self.policy.rules if rule.waivable]
        return {"approvers": list(waiving.approvers), "max_days": waiving.max_days, "rules": rules}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        both = self.chance_of_all
        return {
            "schema": SCHEMA,
            "policy": self.policy.name,
            "alpha": self.policy.alpha,
            "alpha_each": self.alpha_each,
            "churn": self.churn,
            "examples": self.examples,
            "units": self.units,
            "rows": [row.to_json() for row in self.rows],
            "chance_of_all": list(both) if both else None,
            "impossible": [row.message for row in self.impossible],
            "waivers": self._waivers(),
        }


class _Unknown:
    """What no data can tell before a model was run: a check that asks for it is told so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise EvidenceError(f"expected {self._name} of a model, which is not known before one was run")

    def __getitem__(self, key: object) -> Any:
        return getattr(self, str(key))


def _stand_in(examples: Examples, effort: Effort) -> Evidence:
    """Return evidence of two models that decide every example as labelled."""
    scores = np.zeros((len(examples.ids), len(examples.classes)), dtype=np.float32)
    scores[np.arange(len(examples.ids)), examples.labels] = _SURE_SCORE
    shape = (len(effort.attacks), len(effort.attacked))
    right = np.ones(shape, dtype=bool)
    known = {
        "subject": Subject("", "", "", ""),
        "examples": examples,
        "baseline": Scores(examples.ids, scores),
        "candidate": Scores(examples.ids, scores),
        "attacks": Attacks(
            effort.attacked, effort.attacks, right, right, np.zeros(shape), right, 1.0, (1.0, 1.0)
        ),
        "files": {},
    }
    every: dict[str, Any] = {field.name: _Unknown(field.name) for field in fields(Evidence)}
    return Evidence(**{**every, **known})


def _ease(rule: Rule) -> str:
    return f"{'lower' if rule.limit == 'min' else 'widen'} {rule.limit}"


def _advice(row_of: str, rule: Rule, prospect: Prospect, alpha: float) -> str:
    """Say how many units are missing, and what the risk owner can do."""
    if prospect.n_min is None:
        return (
            f"{rule.id} on {row_of}: {rule.limit} {rule.value:g} cannot be proven on any number of units; "
            f"{_ease(rule)} with a reason"
        )
    missing = prospect.n_min - prospect.n
    what = f"{rule.id} on {row_of}: n {prospect.n} is below n_min {prospect.n_min}"
    if rule.method is Method.HODGES_LEHMANN:
        return f"{what}: raise time.sessions in params.yaml"
    if rule.method is Method.ORDER_STATISTIC:
        return f"{what}: raise time.rounds or time.calls in params.yaml"
    wider = ""
    if rule.method is Method.PAIRED_EXACT and prospect.n > 0:
        margin = widest_margin(prospect.n, alpha)
        wider = f" to {margin:g} or more" if margin is not None and margin > rule.value else ""
    if prospect.n < rule.min_n:
        wider = f"{wider}, and lower min_n {rule.min_n}," if wider else f", or lower min_n {rule.min_n},"
    return (
        f"{what}: collect {missing} more, pool it into a larger slice, or {_ease(rule)}{wider} with a reason"
    )


def _row(finding: Finding, alpha: float, churn: float | None) -> Row:
    rule, measurement = finding.rule, finding.measurement
    if measurement is None:
        raise ValueError("expected a finding with a measurement")
    subject = describe_subject(measurement.slice, None, measurement.target)
    attribute = measurement.slice.attribute
    try:
        prospect = prospect_of(rule, measurement, alpha, churn)
    except ValueError as error:  # the judge could not apply this limit either
        message = f"{rule.id} on {subject}: {error}"
        return Row(rule, subject, attribute, None, Standing.IMPOSSIBLE, message)
    if finding.listed:
        return Row(rule, subject, attribute, prospect, Standing.LISTED)
    if not prospect.possible:
        message = _advice(subject, rule, prospect, alpha)
        return Row(rule, subject, attribute, prospect, Standing.IMPOSSIBLE, message)
    if prospect.chance is not None and prospect.chance < _UNLIKELY:
        message = (
            f"{rule.id} on {subject}: an unchanged candidate passes with probability {prospect.chance:.2f} "
            f"on n {prospect.n}"
        )
        if prospect.n_plan is not None and prospect.n_plan > prospect.n:
            message += f"; about {prospect.n_plan} give it 0.8"
        return Row(rule, subject, attribute, prospect, Standing.UNLIKELY, message)
    return Row(rule, subject, attribute, prospect, Standing.FINE)


def _unmeasured(finding: Finding, broken: dict[str, str]) -> Row:
    rule = finding.rule
    if look_up(rule.metric, broken) is not None:
        return Row(rule, "", "", None, Standing.UNKNOWN, f"{rule.id}: {finding.message}")
    what = finding.message.removeprefix("could not judge: ")
    message = (
        f"{rule.id}: {what}: the test split has no examples of it, or no combination of attributes is large "
        "enough to be judged; collect them, or name the slices and classes that it has"
    )
    return Row(rule, "", "", None, Standing.IMPOSSIBLE, message)


def _timed_row(rule: Rule, effort: Effort, alpha: float) -> Row:
    size = re.search(r"_b(\d+)$", rule.metric)
    if size is not None and int(size[1]) not in effort.batch_sizes:
        message = (
            f"{rule.id}: batch size {size[1]} is not timed: add it to time.batch_sizes in params.yaml, which "
            f"has {list(effort.batch_sizes)}"
        )
        return Row(rule, "", "", None, Standing.IMPOSSIBLE, message)
    prospect = time_prospect(rule, effort.sessions, effort.calls, alpha)
    if prospect.possible:
        return Row(rule, "overall", "", prospect, Standing.FINE)
    return Row(rule, "overall", "", prospect, Standing.IMPOSSIBLE, _advice("overall", rule, prospect, alpha))


def _check_points(policy: Policy, classes: Sequence[str]) -> None:
    for index, point in enumerate(policy.operating_points):
        if point.target not in classes:
            raise PolicyError(
                f"expected a class among {list(classes)[:20]}, got {point.target!r}",
                where=f"policy.yaml operating_points[{index}].class",
            )


def plan_policy(
    checks: Sequence[Check],
    examples: Examples,
    policy: Policy,
    *,
    alpha: float,
    effort: Effort,
    churn: float | None,
) -> Plan:
    """Plan every bounded rule of `policy` on the test examples.

    Args:
        checks: What will measure.
        examples: The test split.
        policy: What will judge.
        alpha: Level of one candidate, in (0, `policy.alpha`].
        effort: What the probes will do.
        churn: Probability of a loss plus that of a gain, in [0, 1]; None leaves the chances out, which is
            much faster.

    Returns:
        The plan; asserts and screens are no part of it, since they prove nothing.

    Raises:
        PolicyError: if any rule names a slice, a class or a check that does not exist.
    """
    crossed = cross_examples(examples, policy)
    levels = {**crossed.levels, LABEL: crossed.classes, ATTACK: effort.attacks}
    settings: dict[str, Any] = {"alpha": alpha, "levels": levels, "classes": crossed.classes}
    judge([], policy, **settings, broken={})  # refuses what no rule may name
    _check_points(policy, crossed.classes)
    planned = [rule for rule in policy.rules if rule.kind == "bounded" and rule.method not in TIMED]
    used = [check for check in checks if any(look_up(rule.metric, check.metrics) for rule in planned)]
    run = run_checks(used, _stand_in(crossed, effort))
    by_rule: dict[str, list[Row]] = {rule.id: [] for rule in policy.rules}
    for finding in judge(
        run.measurements, replace(policy, rules=tuple(planned)), **settings, broken=run.broken
    ):
        if finding.measurement is None:
            row = _unmeasured(finding, dict(run.broken))
        else:
            row = _row(finding, alpha, churn)
        by_rule[finding.rule.id].append(row)
    for rule in policy.rules:
        if rule.method in TIMED:
            by_rule[rule.id].append(_timed_row(rule, effort, alpha))
    return Plan(
        rows=tuple(row for rule in policy.rules for row in by_rule[rule.id]),
        policy=policy,
        alpha_each=alpha,
        churn=churn,
        examples=len(examples.ids),
        units=len(units_of(examples).draw(np.arange(len(examples.ids)))),
    )
