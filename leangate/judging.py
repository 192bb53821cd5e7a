# SPDX-License-Identifier: Apache-2.0
"""`leangate gate`: judge the evidence that lies here, for people; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leangate.terminal import Line, Table, render

if TYPE_CHECKING:
    from checks.finding import Finding
    from pipeline.gate import Judged

__all__ = ["HELP", "describe_judged", "gate"]

HELP = """Judge the evidence in artifacts/ on the finalist of one slot, and print every finding. Nothing is
written: the stage that `dvc repro` runs is `python -m pipeline gate`.

verdicts:
  PASS          proven: the chance that a candidate which violates the rule gets it is at most alpha
  FAIL          proven harm, or an exact value beyond its limit, or a search that found something
  INCONCLUSIVE  neither is proven; the sentence says how many more examples would settle it
  ERROR         something broke, is missing or is not a number; the gate stays shut
  NO-FINDING    a search found nothing, which proves nothing
  NOT-RUN       a search had nothing to look at; the gate stays shut

exit codes:
  0  passed: every blocking rule is PASS, every blocking search ended with NO-FINDING
  1  blocked: a blocking rule is FAIL, or no candidate was good enough for the slot
  2  wrong use or input: params.yaml, the policy, a slot nobody knows
  3  inconclusive: more data is needed
  4  could not judge: evidence is missing, broken, or of another file
"""

_STYLES = {
    "PASS": "green",
    "NO-FINDING": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "ERROR": "magenta",
    "NOT-RUN": "magenta",
}
_OUTCOMES = {
    "passed": (0, "bold green", "every blocking rule is proven"),
    "blocked": (1, "bold red", "a blocking rule failed"),
    "absent": (1, "bold red", "no candidate was good enough for this slot"),
    "inconclusive": (3, "bold yellow", "nothing failed, and not everything is proven"),
    "error": (4, "bold magenta", "something could not be judged"),
}
_WIDEST_RULE = 30


def _row(finding: Finding) -> tuple[str, str, str]:
    aside = ""
    if not finding.rule.blocking:
        aside = " (advisory)"
    elif finding.listed:
        aside = " (listed)"
    return str(finding.verdict), f"{finding.rule.id}{aside}", finding.message


def _table(findings: Sequence[Finding]) -> Table:
    return Table(
        heads=("Verdict", "Rule", "Finding"),
        rows=[_row(finding) for finding in findings],
        styles=[_STYLES[finding.verdict] for finding in findings],
        widest={1: _WIDEST_RULE},
    )


def _level(value: Mapping[str, Any]) -> str:
    attempt = value["attempt"]
    if attempt is None:
        return "no attempt on this test split"
    return f"attempt {attempt['number']} on this test split, alpha {value['alpha_each']:.4g}"


def describe_judged(judged: Judged, *, verbose: bool) -> str:
    """Return every finding, the outcome, and if `verbose` the seconds of each check."""
    value, decision = judged.value, judged.decision
    outcome = str(value["outcome"])
    _, style, why = _OUTCOMES[outcome]
    lines: list[Line | Table] = []
    if decision is not None:
        lines.append(_table(decision.findings))
        if verbose:
            lines.append(Line(""))
            lines += [Line(f"{seconds:8.3f} s  {name}", "dim") for name, seconds in decision.seconds.items()]
        lines.append(Line(""))
    who = value["candidate"] or "nobody"
    policy: Mapping[str, str] = value["policy"]
    lines.append(
        Line(
            f"{who} in slot {value['slot']} under policy {policy['name']} "
            f"({_level(value)}): {outcome}, {why}",
            style,
        )
    )
    return render(lines)


def gate(
    root: Path, slot: str | None, policy: Path | None, *, as_json: bool, verbose: bool
) -> tuple[str, int]:
    """Judge the finalist of one slot.

    Args:
        root: Folder of `params.yaml` and `artifacts`.
        slot: Of the shortlist; by default the first in `params.yaml`.
        policy: The policy file; by default `policy.yaml` in `root`.
        as_json: Return what the stage would write, as canonical JSON.
        verbose: Also the processor seconds of each check.

    Returns:
        What to print, and the exit code: 0 passed, 1 blocked, 3 inconclusive, 4 could not judge.

    Raises:
        InputError: if `params.yaml`, the policy or the slot is wrong.
        EvidenceError: if there is no shortlist yet.
    """
    from checks.canonical import dumps
    from pipeline.gate import judge_slot
    from pipeline.layout import Layout
    from pipeline.params import load_params
    from pipeline.policy_file import load_policy

    layout = Layout(root)
    params = load_params(layout.params)
    file = load_policy(policy or layout.policy)
    judged = judge_slot(layout, slot or params.shortlist.slots[0], file)
    code = _OUTCOMES[str(judged.value["outcome"])][0]
    if not as_json:
        return describe_judged(judged, verbose=verbose), code
    seconds = {"seconds": dict(judged.decision.seconds)} if verbose and judged.decision else {}
    return dumps({**judged.value, **seconds}), code
