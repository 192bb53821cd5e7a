# SPDX-License-Identifier: Apache-2.0
"""The plan of a policy on the prepared data, before anything is trained: `leangate policy lint`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from checks.attempts import Round, read_rounds
from checks.errors import ParamsError, PolicyError
from checks.evidence import Examples
from checks.planning_table import Effort, Plan, plan_policy
from checks.statistics.attempts import shared_alpha
from pipeline.data.test_examples import read_test_examples
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.policy_file import PolicyFile

__all__ = ["Attempts", "Linted", "expect_possible", "lint_policy"]

_FURTHEST = 1_000
"""Further runs that are looked at; whoever makes as many has other troubles."""


@dataclass(frozen=True)
class Attempts:
    """What the attempts on this test split leave to the next run.

    Attributes:
        used: Candidates that the split was shown.
        runs: Runs that showed it any.
        finalists: New candidates of the next run.
        planned: How many attempts the policy plans; None for any number.
        alpha_each: What each finalist of the next run may err.
        closed_from: The first attempt of the first run from now on in which no candidate can pass on so many
            examples; None if that is more than a thousand runs away.
    """

    used: int
    runs: int
    finalists: int
    planned: int | None
    alpha_each: float
    closed_from: int | None

    @property
    def next(self) -> tuple[int, int]:
        """The first and the last attempt of the next run."""
        return self.used + 1, self.used + self.finalists

    def to_json(self) -> dict[str, Any]:
        """Return the attempts as plain JSON values."""
        return {
            "used": self.used,
            "runs": self.runs,
            "next": list(self.next),
            "planned": self.planned,
            "alpha_each": self.alpha_each,
            "closed_from": self.closed_from,
        }


@dataclass(frozen=True)
class Linted:
    """The plan of a policy, at the level that the next run has, and what is left on this test split.

    Attributes:
        plan: Every bounded rule on every slice; None where the policy plans no further attempt.
        attempts: Used and left.
    """

    plan: Plan | None
    attempts: Attempts


def _effort(examples: Examples, params: Params) -> Effort:
    from pipeline.probes.pool import ATTACKS

    count = min(params.evaluate.attack.examples, len(examples.ids))
    # The draw of `evaluate`, so that units with several examples are counted as they will be.
    drawn = np.random.default_rng([params.seed, 0]).choice(len(examples.ids), count, replace=False)
    return Effort(
        attacked=examples.ids[np.sort(drawn)],
        attacks=ATTACKS,
        batch_sizes=params.time.batch_sizes,
        sessions=params.time.sessions,
        calls=params.time.rounds * params.time.calls,
    )


def _rounds(layout: Layout, test_sha256: str) -> list[Round]:
    return [entry for entry in read_rounds(layout.attempts_file) if entry.test_sha256 == test_sha256]


def _closed_from(level: Callable[[int], float], can_pass: Callable[[float], bool]) -> int | None:
    """Return the first run, counted from 0, whose level lets nothing pass; levels never rise."""

    def closed(run: int) -> bool:
        alpha = level(run)
        return alpha <= 0 or not can_pass(alpha)

    far = 1
    while not closed(far - 1):
        if far >= _FURTHEST:
            return None
        far *= 2
    low, high = far // 2, far - 1  # open before `low`, closed at `high`
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if closed(middle) else (middle + 1, high)
    return high


def lint_policy(
    layout: Layout,
    params: Params,
    file: PolicyFile,
    *,
    churn: float | None,
    finalists: int | None = None,
) -> Linted:
    """Plan a policy on the prepared data.

    Args:
        layout: Where the data and `attempts.jsonl` lie.
        params: Slots, and what the probes will do.
        file: The policy.
        churn: Assumed probability that the candidate decides an example otherwise, in [0, 1]; None leaves
            the chances out.
        finalists: New candidates of the next run; by default the number of `shortlist.slots`.

    Raises:
        DataError: if there is no prepared data, or it cannot be read.
        EvidenceError: if `attempts.jsonl` is missing, or was changed other than by growing.
        ParamsError: if churn or finalists is out of range.
        PolicyError: if a rule names a slice, a class or an operating point that does not exist.
    """
    if churn is not None and not 0 <= churn <= 1:
        raise ParamsError(f"expected a probability in [0, 1], got {churn:g}", where="--churn")
    many = len(params.shortlist.slots) if finalists is None else finalists
    if not 1 <= many <= 100:
        raise ParamsError(f"expected a number from 1 to 100, got {many}", where="--finalists")
    examples, policy = read_test_examples(layout.data), file.policy
    effort = _effort(examples, params)
    rounds = _rounds(layout, examples.test_sha256)
    used = rounds[-1].last if rounds else 0

    def planned_at(alpha: float, churn: float | None) -> Plan:
        return plan_policy(file.checks, examples, policy, alpha=alpha, effort=effort, churn=churn)

    def level(run: int) -> float:
        first = used + 1 + run * many
        return shared_alpha(policy.alpha, first, first + many - 1, policy.planned_attempts)

    each = level(0)
    plan = planned_at(each, churn) if each > 0 else None
    closed = _closed_from(level, lambda alpha: not planned_at(alpha, None).impossible)
    attempts = Attempts(
        used=used,
        runs=len(rounds),
        finalists=many,
        planned=policy.planned_attempts,
        alpha_each=each,
        closed_from=None if closed is None else used + 1 + closed * many,
    )
    return Linted(plan, attempts)


def expect_possible(layout: Layout, params: Params, file: PolicyFile) -> None:
    """Refuse a policy that no candidate can pass on this data, not even a first one.

    What is left to the next run is not looked at: known bytes may be judged again, at the level they had.

    Raises:
        DataError: if there is no prepared data, or it cannot be read.
        PolicyError: naming every rule, slice, number of units and number needed.
    """
    examples, policy = read_test_examples(layout.data), file.policy
    alpha = shared_alpha(policy.alpha, 1, len(params.shortlist.slots), policy.planned_attempts)
    effort = _effort(examples, params)
    plan = plan_policy(file.checks, examples, policy, alpha=alpha, effort=effort, churn=None)
    if plan.impossible:
        lines = "\n  ".join(row.message for row in plan.impossible)
        raise PolicyError(
            f"expected rules that {plan.examples} test examples can prove, got some that no candidate can "
            f"pass:\n  {lines}",
            where=str(layout.policy),
            hint="`leangate policy lint` shows every rule and slice",
        )
