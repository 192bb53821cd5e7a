# SPDX-License-Identifier: Apache-2.0
"""`leangate policy lint`: what a policy can show on the prepared data, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leangate.terminal import Line, Table, render

if TYPE_CHECKING:
    from checks.planning_table import Plan, Row
    from pipeline.policy_lint import Attempts, Linted

__all__ = ["describe_plan", "lint"]

_NOTHING = "-"
_STYLES = {"impossible": "red", "unlikely": "yellow", "listed": "dim", "unknown": "magenta"}
_MARKS = {
    "fine": "",
    "impossible": "cannot pass",
    "unlikely": "unlikely",
    "listed": "listed only",
    "unknown": "unknown",
}


def _cells(row: Row) -> list[str]:
    prospect = row.prospect

    def shown(value: int | None) -> str:
        return _NOTHING if value is None else str(value)

    chance = _NOTHING
    if prospect is not None and prospect.chance is not None:
        # Never rounded up to certainty, nor down to none.
        chance = ">.99" if 0.99 < prospect.chance < 1 else f"{prospect.chance:.2f}"
        chance = "<.01" if 0 < prospect.chance < 0.01 else chance
    return [
        row.rule.id + ("" if row.rule.blocking else " (advisory)"),
        row.subject or "not measured",
        shown(prospect.n) if prospect else "0",
        shown(prospect.n_min) if prospect else _NOTHING,
        shown(prospect.n_plan) if prospect else _NOTHING,
        chance,
        _MARKS[row.standing],
    ]


def _notes(plan: Plan) -> list[Line]:
    """Say once for each rule what its figures leave out."""
    notes: dict[str, list[str]] = {}
    for row in plan.rows:
        if row.prospect is not None and row.prospect.note:
            rules = notes.setdefault(row.prospect.note, [])
            if row.rule.id not in rules:
                rules.append(row.rule.id)
    return [Line(f"{', '.join(rules)}: {note}", "dim", indent=2) for note, rules in notes.items()]


def _verdict(plan: Plan) -> list[Line]:
    lines = []
    if plan.impossible:
        lines.append(Line("No candidate can pass this policy on this data:", "bold red"))
        lines += [Line(row.message, indent=2) for row in plan.impossible]
    advisory = [row for row in plan.rows if row.standing == "impossible" and row not in plan.impossible]
    if advisory:
        lines.append(Line("Advisory rules that no candidate can pass:", "bold yellow"))
        lines += [Line(row.message, indent=2) for row in advisory]
    if plan.unlikely:
        lines.append(Line("Warning: an unchanged candidate is not expected to pass these:", "bold yellow"))
        lines += [Line(row.message, indent=2) for row in plan.unlikely]
    unknown = [row for row in plan.rows if row.standing == "unknown"]
    if unknown:
        lines.append(Line("Cannot be planned:", "bold"))
        lines += [Line(row.message, indent=2) for row in unknown]
    both = plan.chance_of_all
    if both is not None and not plan.impossible:
        low, high = both
        lines.append(
            Line(
                "An unchanged candidate passes every blocking rule whose chance is known with probability "
                f"between about {low:.2f} (if all rows were independent) and {high:.2f} (the hardest rule).",
                "bold",
            )
        )
    return lines


def _waivable(plan: Plan) -> list[Line]:
    """Say which rules may be waived, by whom and for how long."""
    waiving = plan.policy.waiving
    if waiving is None:
        return [Line("Nothing can be waived: the policy names no approvers.", "dim")]
    blocking = [rule for rule in plan.policy.rules if rule.blocking]
    may = ", ".join(rule.id for rule in blocking if rule.waivable) or "no rule"
    never = ", ".join(rule.id for rule in blocking if not rule.waivable) or "no rule"
    keys = "one of the keys" if len(waiving.approvers) > 1 else "the key"
    return [
        Line(f"May be waived for at most {waiving.max_days} days, by the holder of {keys}", "bold"),
        *(Line(key_id, indent=2) for key_id in waiving.approvers),
        Line(f"these rules: {may}", indent=2),
        Line(f"never: {never}", indent=2),
    ]


def _left(attempts: Attempts) -> list[Line]:
    """Say what the attempts on this test split used up, and what they leave."""
    first, last = attempts.next
    told = "This test split was shown no candidate yet."
    if attempts.used:
        candidates = "1 candidate" if attempts.used == 1 else f"{attempts.used} candidates"
        told = f"This test split was shown {candidates}, in {attempts.runs} run{'s' * (attempts.runs > 1)}."
    of = "" if attempts.planned is None else f" of {attempts.planned} planned"
    ahead = (
        f"attempt {first}"
        if first == last
        else f"attempts {first} {'and' if last == first + 1 else 'to'} {last}"
    )
    if attempts.alpha_each <= 0:
        return [Line(f"{told} The policy plans no attempt {first}: take a fresh test split.", "bold red")]
    lines = [Line(f"{told} Next: {ahead}{of}, at alpha {attempts.alpha_each:.4g} each.")]
    closed = attempts.closed_from
    if closed is not None and closed > first:
        lines.append(
            Line(f"From attempt {closed} on no candidate can pass with so many examples and sessions.")
        )
    return lines


def describe_plan(linted: Linted) -> str:
    """Return the plan as text: the table, what is wrong or used up, and what the figures leave out."""
    plan, left = linted.plan, _left(linted.attempts)
    if plan is None:
        return render(left)
    units = "" if plan.units == plan.examples else f" of {plan.units} independent units"
    head = Line(
        f"Policy {plan.policy.name} on {plan.examples} test examples{units}: alpha {plan.policy.alpha:g}, "
        f"{plan.alpha_each:.4g} for each finalist of the next run; churn {plan.churn or 0:g}",
        "bold",
    )
    table = Table(
        heads=("Rule", "Slice", "n", "n_min", "n_plan", "Chance", ""),
        rows=[_cells(row) for row in plan.rows],
        styles=[_STYLES.get(row.standing, "") for row in plan.rows],
        right=frozenset({2, 3, 4, 5}),
    )
    legend = (
        "n: independent units, of the smallest level where levels are compared. n_min: the fewest with "
        "which any candidate can pass. n_plan: for a chance of 0.8. Chance: that a candidate passes which "
        "is truly as good as the baseline and decides a share of the examples, the churn, otherwise. Robust "
        "accuracy usually churns more: plan it with --churn 0.1. Asserts and screens estimate nothing and "
        "are not planned."
    )
    notes = _notes(plan)
    spacer = [Line("")]
    waivers = [*spacer, *_waivable(plan)]
    verdict = [*left, *_verdict(plan)]
    return render([head, *spacer, table, *spacer, *verdict, *spacer, Line(legend, "dim"), *notes, *waivers])


def lint(
    root: Path, policy: Path | None, *, churn: float, finalists: int | None, as_json: bool
) -> tuple[str, int]:
    """Plan a policy on the prepared data in `root`.

    Args:
        root: Folder of `params.yaml`.
        policy: The policy file; by default `policy.yaml` in `root`.
        churn: Assumed probability that the candidate decides an example otherwise.
        finalists: New candidates of the next run; by default the number of slots.
        as_json: Return canonical JSON instead of a table.

    Returns:
        What to print, and the exit code: 0, or 2 if some blocking rule cannot pass on this data next time.

    Raises:
        InputError: if `params.yaml`, the policy or the prepared data is wrong or missing.
    """
    from checks.canonical import dumps
    from checks.errors import PolicyError
    from pipeline.layout import Layout
    from pipeline.params import load_params
    from pipeline.policy_file import load_policy
    from pipeline.policy_lint import lint_policy

    layout = Layout(root)
    params = load_params(layout.params)
    file = load_policy(policy or layout.policy)
    linted = lint_policy(layout, params, file, churn=churn, finalists=finalists)
    planned = linted.plan.to_json() if linted.plan else {}
    text = dumps({**planned, "attempts": linted.attempts.to_json()}) if as_json else describe_plan(linted)
    return text, PolicyError.exit_code if linted.plan is None or linted.plan.impossible else 0
