# SPDX-License-Identifier: Apache-2.0
"""enforce: fails here, and only here, if nothing passed; `bundle` and `register` depend on it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from checks.canonical import read_json, sha256_file
from checks.decision import Outcome
from checks.errors import BlockedError, EvidenceError, InconclusiveError, LeanGateError
from pipeline.decision_file import Finding, read_decision
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.plain import clean
from pipeline.policy_file import load_policy
from pipeline.report.wording import describe_distance, describe_place, describe_remedy

__all__ = ["run"]

_MOST_FINDINGS = 5


def _in_words(concern: Sequence[Finding]) -> str:
    """Say which rule stops what, how far it is off, and what to do; of bounds the message does most of it."""
    finding = concern[0]
    parts = [finding.message.rstrip(".")]
    if finding.verdict == "INCONCLUSIVE":
        parts.append(describe_distance(finding))
    if finding.kind != "bounded" or finding.verdict != "INCONCLUSIVE":
        parts.append(describe_remedy(finding))
    told = ". ".join(clean(part).rstrip(".") for part in parts if part)
    return f"{clean(finding.verdict)} {describe_place(concern)}: {told}"


def _findings_in_words(layout: Layout, selection: Mapping[str, Any]) -> list[str]:
    lines = []
    for finalist in selection["finalists"]:
        if finalist["candidate"] is None:
            lines.append(f"slot {finalist['slot']}: no candidate was good enough on the validation split")
            continue
        concerns = read_decision(layout.decision(finalist["slot"])).concerns
        stopping = [concern for concern in concerns if concern[0].stops]
        lines += [f"{finalist['candidate']}: {_in_words(concern)}" for concern in stopping[:_MOST_FINDINGS]]
        if len(stopping) > _MOST_FINDINGS:
            lines.append(f"{finalist['candidate']}: and {len(stopping) - _MOST_FINDINGS} more")
    return lines


def _refuse(layout: Layout, selection: Mapping[str, Any]) -> LeanGateError:
    what = "expected a finalist that passed, got none:\n  " + "\n  ".join(
        _findings_in_words(layout, selection)
    )
    where = str(layout.selection)
    report = f"read {layout.report / 'report.html'}; nothing was bundled or registered"
    match selection["outcome"]:
        case Outcome.BLOCKED:
            return BlockedError(what, where=where, hint=report)
        case Outcome.INCONCLUSIVE:
            return InconclusiveError(
                what, where=where, hint=f"collect what is asked for, or compress less; {report}"
            )
        case _:
            return LeanGateError(what, where=where, hint=report)


def run(layout: Layout, params: Params) -> None:
    """Write `verdict.json` if a finalist passed, under the policy that lies here now.

    Raises:
        BlockedError: if harm was proven.
        InconclusiveError: if nothing was proven either way.
        LeanGateError: if something could not be judged.
        EvidenceError: if the selection does not fit the decision, the file, or the policy.
    """
    selection = read_json(layout.selection)
    if selection["outcome"] != Outcome.PASSED or selection["chosen"] is None:
        # A bundle of an earlier run, with a card that says "passed", must not be taken for this run's.
        shutil.rmtree(layout.bundle, ignore_errors=True)
        raise _refuse(layout, selection)
    chosen = selection["chosen"]
    slot = chosen["slot"]
    decision = read_json(layout.decision(slot))
    if decision.get("open") is not True or not decision.get("subject"):
        raise EvidenceError(
            f"expected the open decision that was selected, got {decision.get('outcome')!r}",
            where=str(layout.decision(slot)),
            hint="run `dvc repro`: the decision was made again after the selection",
        )
    onnx_sha256 = sha256_file(layout.finalist(slot) / "model.onnx")
    policy_sha256 = load_policy(layout.policy).sha256
    for what, want, came in (
        ("the candidate that was selected", chosen["candidate"], decision["candidate"]),
        ("a decision on this ONNX file", onnx_sha256, decision["subject"]["candidate_sha256"]),
        ("a decision under this policy", policy_sha256, decision["policy"]["sha256"]),
    ):
        if want != came:
            raise EvidenceError(f"expected {what}, {want}, got {came}", where=str(layout.decision(slot)))
    write_json(
        layout.verdict,
        {
            "schema": "leangate/verdict/1",
            "slot": slot,
            "candidate": chosen["candidate"],
            "onnx_sha256": onnx_sha256,
            "policy_sha256": policy_sha256,
            "decision_sha256": sha256_file(layout.decision(slot)),
        },
    )
