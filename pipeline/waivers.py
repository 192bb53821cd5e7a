# SPDX-License-Identifier: Apache-2.0
"""Which waivers hold, and which findings they let through. A waiver changes no verdict.

It holds if an approver whom the policy names signed it, under this very policy, for a rule that may be
waived, for no more days than the policy allows, and the day is one of them. It lets one finding through: of
this rule on this slice and target, of this ONNX file on these data, and no worse than what the approver saw.
What could not be measured cannot be waived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from checks.errors import EvidenceError
from pipeline.decision_entries import Finding
from pipeline.decision_file import Decision
from pipeline.plain import shorten
from pipeline.policy_file import PolicyFile
from pipeline.waiver import Waiver
from pipeline.waiver_file import WAIVERS, read_waivers

__all__ = [
    "WAIVERS",
    "Waiver",
    "apply_waivers",
    "check_waivers",
    "explain_waivers",
    "object_to",
    "read_waivers",
    "with_waivers",
]


def object_to(waiver: Waiver, file: PolicyFile, on: date | None) -> str:
    """Return why a waiver does not hold under a policy, or nothing.

    Args:
        waiver: Whose own signature holds.
        file: The policy.
        on: The day, UTC; None leaves the days of the calendar out.
    """
    waiving = file.policy.waiving
    if waiving is None:
        return "the policy lets nobody waive anything: it has no section waivers"
    if waiver.policy_sha256 != file.sha256:
        return f"it was signed under the policy {waiver.policy_sha256[:16]}, and this is {file.sha256[:16]}"
    if waiver.key_id not in waiving.approvers:
        return f"key {waiver.key_id[:16]} is none of the policy's approvers"
    rule = next((rule for rule in file.policy.rules if rule.id == waiver.rule), None)
    if rule is None:
        return f"the policy has no rule {shorten(waiver.rule, 60)}"
    if not rule.waivable:
        return f"rule {rule.id} cannot be waived"
    days = (waiver.until - waiver.since).days
    if days > waiving.max_days:
        return f"it would hold for {days} days, and the policy allows {waiving.max_days}"
    if on is not None and on > waiver.until:
        return f"it ended on {waiver.until}"
    if on is not None and on < waiver.since:
        return f"it begins on {waiver.since}"
    return ""


def check_waivers(file: PolicyFile, waivers: Sequence[Waiver], on: date) -> None:
    """Refuse waivers that do not hold: expired, too long, not by an approver, of what cannot be waived.

    Args:
        file: The policy, `load_policy(bundle / "policy.yaml")` for a bundle's.
        waivers: From `read_waivers`.
        on: The day, UTC.

    Raises:
        EvidenceError: naming the first that does not hold, and why.
    """
    for waiver in waivers:
        why = object_to(waiver, file, on)
        if why:
            raise EvidenceError(
                f"expected a waiver that holds on {on}, got the one of {shorten(waiver.rule, 60)} on "
                f"{shorten(waiver.subject, 120)}: {why}",
                where=WAIVERS,
            )


def _object_to_finding(waiver: Waiver, finding: Finding, decision: Decision) -> str:
    subject = dict(decision.subject)
    if waiver.onnx_sha256 != subject.get("candidate_sha256"):
        return f"it is about the file {waiver.onnx_sha256[:16]}"
    if waiver.data_sha256 != subject.get("data_sha256"):
        return f"it is about the data {waiver.data_sha256[:16]}"
    if waiver.place != finding.place:
        return f"it is about {shorten(waiver.subject, 120)}"
    if finding.verdict not in ("FAIL", "INCONCLUSIVE"):
        return "what could not be measured cannot be waived"
    if finding.verdict == "FAIL" and waiver.verdict != "FAIL":
        return "what was waived was INCONCLUSIVE, and now it is FAIL"
    return ""


def apply_waivers(
    decision: Decision, file: PolicyFile, waivers: Sequence[Waiver], on: date | None
) -> Decision:
    """Return the decision with the waivers that hold beside the findings they let through.

    Of several on one finding the one that holds longest counts.

    Args:
        decision: As the gate wrote it.
        file: The policy that lies beside it.
        waivers: From `read_waivers`.
        on: The day, UTC; None leaves the days of the calendar out.
    """
    if decision.outcome not in ("blocked", "inconclusive") or decision.policy_sha256 != file.sha256:
        return decision
    held = [waiver for waiver in waivers if not object_to(waiver, file, on)]
    longest_first = sorted(held, key=lambda waiver: (-waiver.until.toordinal(), waiver.sha256))
    used = []
    for finding in decision.findings:
        if finding.stops and finding.slice:
            fits = (one for one in longest_first if not _object_to_finding(one, finding, decision))
            used += [one for one in (next(fits, None),) if one is not None]
    return with_waivers(decision, used, WAIVERS)


def explain_waivers(decision: Decision, file: PolicyFile, waivers: Sequence[Waiver], on: date) -> list[str]:
    """Return why waivers of rules that stop a decision do not let it through, a sentence each.

    Args:
        decision: With the waivers that hold beside their findings.
        file: The policy.
        waivers: From `read_waivers`, in the order of their lines.
        on: The day, UTC.
    """
    stopping = {finding.rule: finding for finding in decision.findings if finding.stops}
    told = []
    for number, waiver in enumerate(waivers, start=1):
        finding = stopping.get(waiver.rule)
        same = next((one for one in decision.findings if one.stops and one.place == waiver.place), finding)
        if same is not None:
            why = object_to(waiver, file, on) or _object_to_finding(waiver, same, decision)
            told.append(f"{WAIVERS} line {number} does not waive {waiver.rule}: {why}")
    return told


def with_waivers(decision: Decision, waivers: Sequence[Waiver], where: str) -> Decision:
    """Return the decision with each waiver beside the finding it is about.

    Args:
        decision: As the gate wrote it.
        waivers: Held valid by whoever chose them; here only what they are about is compared.
        where: Who says so, for messages.

    Raises:
        EvidenceError: if one is about another artifact, policy or data, about no finding that blocks, or two
            are about one.
    """
    by_place = {waiver.place: waiver for waiver in waivers}
    subject = dict(decision.subject)
    about = subject.get("candidate_sha256"), decision.policy_sha256, subject.get("data_sha256")
    findings = tuple(
        replace(finding, waiver=by_place.pop(finding.place, None)) if finding.stops else finding
        for finding in decision.findings
    )
    found = [finding for finding in findings if finding.waiver is not None]
    fits = all(
        about == (one.waiver.onnx_sha256, one.waiver.policy_sha256, one.waiver.data_sha256)
        and one.verdict in (one.waiver.verdict, "INCONCLUSIVE")
        for one in found
        if one.waiver is not None
    )
    if by_place or len(found) != len(waivers) or not fits:
        raise EvidenceError(
            f"expected each of {len(waivers)} waivers to be about a finding that blocks, got others",
            where=where,
            hint="run `dvc repro`",
        )
    return replace(decision, findings=findings)
