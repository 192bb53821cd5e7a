# SPDX-License-Identifier: Apache-2.0
"""enforce: fails here, and only here, if nothing passed; `bundle` and `register` depend on it.

A waiver that has ended since the selection was made closes the gate again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from checks.canonical import read_json, sha256_file
from checks.errors import BlockedError, EvidenceError, InconclusiveError, LeanGateError
from pipeline.decision_entries import Finding
from pipeline.decision_file import Decision, read_decision
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.plain import clean
from pipeline.policy_file import PolicyFile, load_policy
from pipeline.report.wording import describe_distance, describe_place, describe_remedy
from pipeline.waiver import today
from pipeline.waivers import apply_waivers, explain_waivers, read_waivers

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


def _judged(layout: Layout, slot: str, file: PolicyFile, on: date) -> Decision:
    return apply_waivers(read_decision(layout.decision(slot)), file, read_waivers(layout.root), on)


def _findings_in_words(layout: Layout, selection: Mapping[str, Any], file: PolicyFile, on: date) -> list[str]:
    lines, waivers = [], read_waivers(layout.root)
    for finalist in selection["finalists"]:
        if finalist["candidate"] is None:
            lines.append(f"slot {finalist['slot']}: no candidate was good enough on the validation split")
            continue
        judged = _judged(layout, finalist["slot"], file, on)
        stopping = [concern for concern in judged.concerns if concern[0].stops]
        lines += [f"{finalist['candidate']}: {_in_words(concern)}" for concern in stopping[:_MOST_FINDINGS]]
        if len(stopping) > _MOST_FINDINGS:
            lines.append(f"{finalist['candidate']}: and {len(stopping) - _MOST_FINDINGS} more")
        why_not = explain_waivers(judged, file, waivers, on)
        lines += [f"{finalist['candidate']}: {clean(sentence)}" for sentence in why_not[:_MOST_FINDINGS]]
    return lines


def _refuse(
    layout: Layout, selection: Mapping[str, Any], outcome: str, file: PolicyFile, on: date
) -> LeanGateError:
    what = "expected a finalist that passed, got none:\n  " + "\n  ".join(
        _findings_in_words(layout, selection, file, on)
    )
    where = str(layout.selection)
    report = f"read {layout.report / 'report.html'}; nothing was bundled or registered"
    match outcome:
        case "blocked":
            return BlockedError(what, where=where, hint=report)
        case "inconclusive":
            return InconclusiveError(
                what, where=where, hint=f"collect what is asked for, or compress less; {report}"
            )
        case _:
            return LeanGateError(what, where=where, hint=report)


def _close(layout: Layout) -> None:
    """Remove what an earlier run left: it says "passed", and must not be taken for this run's."""
    layout.verdict.unlink(missing_ok=True)
    shutil.rmtree(layout.bundle, ignore_errors=True)


def run(layout: Layout, params: Params) -> None:
    """Write `verdict.json` if a finalist passed, or is waived today, under the policy that lies here now.

    Raises:
        BlockedError: if harm was proven.
        InconclusiveError: if nothing was proven either way.
        LeanGateError: if something could not be judged.
        EvidenceError: if the selection does not fit the decision, the file, the policy, or the waivers.
    """
    # DVC keeps this output when the stage runs; see dvc.yaml.
    layout.verdict.unlink(missing_ok=True)
    selection, file, on = read_json(layout.selection), load_policy(layout.policy), today()
    chosen = selection["chosen"]
    if selection["outcome"] not in ("passed", "waived") or chosen is None:
        _close(layout)
        raise _refuse(layout, selection, selection["outcome"], file, on)
    slot = chosen["slot"]
    judged = _judged(layout, slot, file, on)
    if selection["outcome"] == "waived" and not judged.ships:
        _close(layout)
        raise _refuse(layout, selection, judged.outcome, file, on)
    decision = read_json(layout.decision(slot))
    if judged.standing != selection["outcome"] or not decision.get("subject"):
        raise EvidenceError(
            f"expected the decision that was selected, {selection['outcome']}, got {judged.standing}",
            where=str(layout.decision(slot)),
            hint="run `dvc repro`: the decision was made again after the selection",
        )
    onnx_sha256 = sha256_file(layout.finalist(slot) / "model.onnx")
    for what, want, came in (
        ("the candidate that was selected", chosen["candidate"], decision["candidate"]),
        ("a decision on this ONNX file", onnx_sha256, decision["subject"]["candidate_sha256"]),
        ("a decision under this policy", file.sha256, decision["policy"]["sha256"]),
    ):
        if want != came:
            raise EvidenceError(f"expected {what}, {want}, got {came}", where=str(layout.decision(slot)))
    write_json(
        layout.verdict,
        {
            "schema": "leangate/verdict/1",
            "outcome": judged.standing,
            "waived": [one.waiver.to_json() for one in judged.waived if one.waiver is not None],
            "slot": slot,
            "candidate": chosen["candidate"],
            "onnx_sha256": onnx_sha256,
            "policy_sha256": file.sha256,
            "decision_sha256": sha256_file(layout.decision(slot)),
        },
    )
