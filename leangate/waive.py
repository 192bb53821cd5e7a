# SPDX-License-Identifier: Apache-2.0
"""`leangate waive`: an approver lets one finding on one artifact through, until a day."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date

    from pipeline.decision_entries import Finding
    from pipeline.decision_file import Decision
    from pipeline.layout import Layout
    from pipeline.policy_file import PolicyFile

__all__ = ["HELP", "Asked", "add_arguments", "waive"]

HELP = """Let one finding that blocks through: of this rule, on this slice, of this ONNX file, under the
policy and on the data it was judged with, from today through a day, UTC. The policy says in its section
`waivers` which keys may do that and for how many days; what could not be measured cannot be waived. The
verdict stays what it is, and the waiver is shown wherever the decision is. Signed like a bundle
(LEANGATE_SIGNING_KEY, or LEANGATE_SIGNING_COMMAND with LEANGATE_SIGNING_PUBLIC_KEY), and appended to
waivers.jsonl: commit that file.

exit codes:
  0  signed
  2  wrong use or input: the key is no approver's, the rule cannot be waived, nothing there is to be waived
  4  the decision or waivers.jsonl is missing or broken
"""

_HOW = "`leangate table` shows what blocks"


@dataclass(frozen=True)
class Asked:
    """What the command line says.

    Attributes:
        rule: Of the policy.
        slice: Of the finding.
        target: Class or operating point, where the finding has one.
        slot: Of the shortlist; or else
        artifact: SHA-256 of the ONNX file.
        reason: In the approver's words.
        until: Last day, `YYYY-MM-DD`.
        approver: Name; by default Git's.
    """

    rule: str
    slice: str
    target: str | None
    slot: str | None
    artifact: str | None
    reason: str
    until: str
    approver: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--rule", required=True, metavar="NAME", help="id of the rule in the policy")
    parser.add_argument("--slice", required=True, help="of the finding, for example overall or label=8")
    parser.add_argument(
        "--target", metavar="NAME", help="class or operating point, where the finding has one"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--artifact", metavar="SHA256", help="SHA-256 of the candidate's ONNX file")
    which.add_argument("--slot", help="the finalist in this slot, in place of --artifact")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; printed wherever it is shown")
    parser.add_argument(
        "--until", required=True, metavar="YYYY-MM-DD", help="last day on which it holds, UTC"
    )
    parser.add_argument("--approver", metavar="NAME", help="who signs; by default Git's user.name")


def _git_name(root: Path) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            [git, "-C", str(root), "config", "user.name"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _decision(layout: Layout, asked: Asked) -> Decision:
    from checks.errors import InputError
    from pipeline.decision_file import read_decision

    paths = sorted((layout.artifacts / "decisions").glob("*.json"))
    decisions = {path.stem: read_decision(path) for path in paths}
    found = [
        decision
        for slot, decision in decisions.items()
        if slot == asked.slot
        or (asked.artifact and dict(decision.subject).get("candidate_sha256") == asked.artifact.lower())
    ]
    if not found:
        known = {
            slot: dict(one.subject).get("candidate_sha256", "empty")[:16] for slot, one in decisions.items()
        }
        raise InputError(
            f"expected a finalist that was judged, among {known}, got {asked.slot or asked.artifact!r}"[:400],
            where="--slot" if asked.slot else "--artifact",
            hint="nobody answers for what was not seen: run `leangate run` first, or `dvc pull`",
        )
    return found[0]


def _finding(decision: Decision, asked: Asked) -> Finding:
    from checks.errors import InputError
    from pipeline.plain import shorten

    of_rule = [one for one in decision.findings if one.rule == asked.rule]
    found = [
        one
        for one in of_rule
        if one.slice == asked.slice and asked.slice and one.target == (asked.target or "")
    ]
    blocking = [
        f"{one.verdict} of {one.rule} on {one.slice or 'nothing'}"
        + (f" for {one.target}" if one.target else "")
        for one in decision.findings
        if one.stops
    ]
    told = shorten("; ".join(blocking) or "nothing blocks it", 1_000)
    if len(found) != 1 or not found[0].stops:
        came = "a finding that blocks nothing" if found else "none"
        raise InputError(
            f"expected a finding that blocks {decision.candidate}, got {came} of rule {asked.rule!r} on "
            f"{asked.slice!r}" + (f" for {asked.target!r}" if asked.target else "") + f"; there are: {told}",
            where="leangate waive",
            hint=_HOW,
        )
    if found[0].verdict not in ("FAIL", "INCONCLUSIVE"):
        raise InputError(
            f"expected FAIL or INCONCLUSIVE, got {found[0].verdict}: what was not measured cannot be waived",
            where="leangate waive",
            hint="mend what the message of the finding names, and run again",
        )
    return found[0]


def _days(asked: Asked, file: PolicyFile) -> tuple[date, date]:
    from checks.errors import InputError, PolicyError
    from pipeline.waiver import day_of, today

    waiving, since = file.policy.waiving, today()
    if waiving is None:
        raise PolicyError(
            "expected a section waivers that names approvers, got none: nothing can be waived",
            where="policy.yaml waivers",
            hint="whose keys may waive, and for how many days, is the risk owner's to say: docs/waivers.md",
        )
    try:
        until = day_of(asked.until)
    except ValueError as error:
        raise InputError(
            f"expected a day as YYYY-MM-DD, got {asked.until!r}"[:100], where="--until"
        ) from error
    if not 0 <= (until - since).days <= waiving.max_days:
        raise InputError(
            f"expected a day from today, {since}, and at most {waiving.max_days} days on, got {until}",
            where="--until",
        )
    return since, until


def _still_closed(judged: Decision) -> str:
    from pipeline.plain import shorten
    from pipeline.report.wording import describe_place

    stopping = [
        f"{concern[0].verdict} {describe_place(concern)}" for concern in judged.concerns if concern[0].stops
    ]
    if not stopping:
        return f"opens     nothing else blocks {judged.candidate}; `leangate run` goes on\n"
    return f"closed    still: {shorten('; '.join(stopping), 600)}\n"


def _append(root: Path, line: str) -> int:
    from pipeline.waiver_file import lines_of, write_lines

    lines = list(lines_of(root).values())
    if line not in lines:
        lines.append(line)
        write_lines(root, lines)
    return lines.index(line) + 1


def waive(root: Path, asked: Asked) -> tuple[str, int]:
    """Sign a waiver and append it; return what to print, and the exit code.

    Args:
        root: Folder of `policy.yaml` and `artifacts`.
        asked: What is to be waived.

    Raises:
        InputError: if nothing says what signs, the policy does not allow it, nothing is to be waived there,
            or reason or name are none.
        EvidenceError: if a decision or `waivers.jsonl` is broken.
    """
    from checks.errors import EvidenceError, InputError
    from pipeline.attestation.keys import need_signer
    from pipeline.layout import Layout
    from pipeline.policy_file import load_policy
    from pipeline.waiver_file import WAIVERS, sign_waiver
    from pipeline.waivers import apply_waivers, object_to, read_waivers

    layout = Layout(root)
    file = load_policy(layout.policy)
    since, until = _days(asked, file)
    signer = need_signer(os.environ, "leangate waive")
    read_waivers(root)  # never append to what cannot be read
    decision = _decision(layout, asked)
    if decision.policy_sha256 != file.sha256:
        raise InputError(
            f"expected a decision under this policy, {file.sha256[:16]}, got {decision.policy_sha256[:16]}",
            where=str(layout.decision(decision.slot)),
            hint="run `leangate run`: what was decided under another policy is nothing to waive",
        )
    finding, subject = _finding(decision, asked), dict(decision.subject)
    value = {
        "rule": finding.rule,
        "slice": finding.slice,
        "versus": finding.versus,
        "target": finding.target or None,
        "verdict": finding.verdict,
        "reason": asked.reason.strip(),
        "approver": (asked.approver or _git_name(root)).strip(),
        "since": since.isoformat(),
        "until": until.isoformat(),
        "onnx_sha256": subject["candidate_sha256"],
        "policy_sha256": file.sha256,
        "data_sha256": subject["data_sha256"],
    }
    _expect_words(value)
    try:
        line, waiver = sign_waiver(value, signer)
    except EvidenceError as error:  # it is what was typed that cannot be signed
        raise InputError(error.what, where=error.where) from error
    if why := object_to(waiver, file, since):
        raise InputError(f"expected a waiver that the policy allows: {why}", where="policy.yaml waivers")
    number = _append(root, line)
    judged = apply_waivers(decision, file, read_waivers(root), since)
    text = (
        f"waived    {waiver.verdict} of {waiver.rule} on {waiver.subject}, of {decision.candidate} "
        f"({waiver.onnx_sha256[:16]}), until {waiver.until}\n"
        f"approver  {waiver.approver}, key {waiver.key_id}\n"
        f"written   {root / WAIVERS} line {number}: commit it\n"
    )
    return text + _still_closed(judged), 0


def _expect_words(value: dict[str, str | None]) -> None:
    from checks.errors import InputError

    for name in ("reason", "approver"):
        if not value[name]:
            raise InputError(
                f"expected words, got none: a waiver without {'its reason' if name == 'reason' else 'a name'}"
                " answers for nothing",
                where=f"--{name}",
            )
