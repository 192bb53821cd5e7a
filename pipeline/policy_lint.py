# SPDX-License-Identifier: Apache-2.0
"""The plan of a policy on the prepared data, before anything is trained: `leangate policy lint`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from checks.errors import ParamsError, PolicyError
from checks.evidence import Examples
from checks.planning_table import Effort, Plan, plan_policy
from pipeline.data.test_examples import read_test_examples
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.policy_file import PolicyFile

__all__ = ["expect_possible", "lint_policy"]


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


def lint_policy(
    layout: Layout,
    params: Params,
    file: PolicyFile,
    *,
    churn: float | None,
    finalists: int | None = None,
) -> Plan:
    """Plan a policy on the prepared data.

    Args:
        layout: Where the data lie.
        params: Slots, and what the probes will do.
        file: The policy.
        churn: Assumed probability that the candidate decides an example otherwise, in [0, 1]; None leaves
            the chances out.
        finalists: How many share alpha; by default the number of `shortlist.slots`.

    Raises:
        DataError: if there is no prepared data, or it cannot be read.
        ParamsError: if churn or finalists is out of range.
        PolicyError: if a rule names a slice, a class or an operating point that does not exist.
    """
    if churn is not None and not 0 <= churn <= 1:
        raise ParamsError(f"expected a probability in [0, 1], got {churn:g}", where="--churn")
    finalists = len(params.shortlist.slots) if finalists is None else finalists
    if not 1 <= finalists <= 100:
        raise ParamsError(f"expected a number from 1 to 100, got {finalists}", where="--finalists")
    examples = read_test_examples(layout.data)
    return plan_policy(
        file.checks,
        examples,
        file.policy,
        finalists=finalists,
        effort=_effort(examples, params),
        churn=churn,
    )


def expect_possible(plan: Plan, path: Path) -> None:
    """Refuse a policy that no candidate can pass on this data.

    Raises:
        PolicyError: naming every rule, slice, number of units and number needed.
    """
    impossible = plan.impossible
    if impossible:
        lines = "\n  ".join(row.message for row in impossible)
        raise PolicyError(
            f"expected rules that {plan.examples} test examples can prove, got some that no candidate can "
            f"pass:\n  {lines}",
            where=str(path),
            hint="`leangate policy lint` shows every rule and slice",
        )
