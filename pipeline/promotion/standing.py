# SPDX-License-Identifier: Apache-2.0
"""What the ledger says of one version: what was proven, who agreed, and whether it still counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from checks.errors import EvidenceError
from pipeline.ledger.entries import Entry
from pipeline.promotion.proof import Proof
from pipeline.promotion.statements import Approval, PolicyApproval, Signature, in_force, open_policy_approval
from pipeline.promotion.statements import open_approval as open_version_approval

if TYPE_CHECKING:
    from securesystemslib.signer import Key

__all__ = [
    "Agreement",
    "Standing",
    "expect_agreed",
    "expect_approval_fits",
    "expect_not_replaced",
    "expect_policy",
    "expect_standing",
    "first_held",
    "holder_of",
    "standing_of",
]

ANY_MODEL = "*"


@dataclass(frozen=True)
class Agreement:
    """An approval that the ledger holds.

    Attributes:
        entry: Where.
        envelope: The signed statement.
    """

    entry: Entry
    envelope: str


@dataclass(frozen=True)
class Standing:
    """One version, by the entries of the ledger.

    Attributes:
        model: Name of the registered model.
        version: Of it.
        registered: The entry by which it was registered.
        proof: What was derived then.
        approvals: Of this version, in order.
        policies: Approvals of policies that speak of this model, in order.
        revoked: The entry by which it was revoked, or None.
    """

    model: str
    version: str
    registered: Entry
    proof: Proof
    approvals: tuple[Agreement, ...]
    policies: tuple[Agreement, ...]
    revoked: Entry | None


def standing_of(entries: Iterable[Entry], model: str, version: str) -> Standing:
    """Read the standing of one version out of the ledger.

    Args:
        entries: Those of the acts register, approve, revoke and policy, in order; others are passed over.
        model: Name of the registered model.
        version: Of it.

    Raises:
        EvidenceError: if it was not registered with evidence.
    """
    registered: Entry | None = None
    revoked: Entry | None = None
    approvals: list[Agreement] = []
    policies: list[Agreement] = []
    for entry in entries:
        if entry.act == "policy":
            policies.append(Agreement(entry, str(entry.detail["envelope"])))
        if (entry.model, entry.version) != (model, version):
            continue
        # A model that was deleted and made anew starts from nothing, but a revocation is not taken back: what
        # was agreed to before could be sent again.
        if entry.act == "register":
            registered, approvals = entry, []
        elif entry.act == "create-version":
            registered, approvals = None, []
        elif entry.act == "approve":
            approvals.append(Agreement(entry, str(entry.detail["envelope"])))
        elif entry.act == "revoke":
            revoked = entry
    if registered is None:
        raise EvidenceError(
            "expected a version whose evidence was derived when it was registered, got one without",
            where=f"model {model!r}, version {version}",
            hint="run `leangate run` with MLFLOW_TRACKING_URI set to this registry and a signing key",
        )
    proof = Proof.from_json(registered.detail["proof"])
    return Standing(model, version, registered, proof, tuple(approvals), tuple(policies), revoked)


def holder_of(entries: Iterable[Entry], model: str, alias: str) -> Entry | None:
    """Return the entry by which an alias was last moved; None if it never was."""
    held = None
    for entry in entries:
        if entry.act == "promote" and entry.model == model and entry.detail["alias"] == alias:
            held = entry
    return held


def first_held(entries: Iterable[Entry], standing: Standing, alias: str) -> datetime | None:
    """Return when a version as it is registered first held an alias; None if it never did."""
    for entry in entries:
        same = entry.detail["alias"] == alias and entry.detail["registered"] == standing.registered.number
        if entry.act == "promote" and same:
            return entry.at
    return None


def _where(standing: Standing) -> str:
    return f"model {standing.model!r}, version {standing.version}"


def expect_standing(standing: Standing, makers: Mapping[str, Key], now: datetime) -> None:
    """Refuse a version that was revoked, whose waivers ended, or whose bundle nobody signed who still counts.

    Raises:
        EvidenceError: saying which.
    """
    if standing.revoked is not None:
        reason = standing.revoked.detail.get("reason", "")
        raise EvidenceError(
            f"expected a version that stands, got one revoked on {standing.revoked.at:%Y-%m-%d}: {reason}"[
                :400
            ],
            where=_where(standing),
            hint="register a new version; a revocation is not taken back",
        )
    for waiver in standing.proof.waivers:
        if not in_force(waiver["until"], now):
            raise EvidenceError(
                f"expected {waiver['rule']} on {waiver['slice']} waived, got a waiver that ended on "
                f"{waiver['until']}",
                where=_where(standing),
                hint="mend the model, or waive anew and register again",
            )
    if not set(standing.proof.makers) & set(makers):
        raise EvidenceError(
            "expected a bundle signed by a key that counts, got "
            + ", ".join(key[:16] for key in standing.proof.makers),
            where=_where(standing),
            hint="the key was withdrawn; sign and register again",
        )


def _policy_approvals(
    standing: Standing, owners: Mapping[str, Key]
) -> list[tuple[Entry, Signature[PolicyApproval]]]:
    found = []
    for agreement in standing.policies:
        try:
            signed = open_policy_approval(
                agreement.envelope, owners, f"ledger entry {agreement.entry.number}"
            )
        except EvidenceError:  # of an owner who no longer counts
            continue
        names = signed.predicate.models
        if signed.subject == standing.proof.policy_sha256 and {standing.model, ANY_MODEL} & set(names):
            found.append((agreement.entry, signed))
    return found


def expect_policy(standing: Standing, owners: Mapping[str, Key], now: datetime) -> PolicyApproval:
    """Return the approval of the policy that the version was judged under.

    The approval that came last counts, so that an owner ends it by approving until a day that is over; the
    first must have come before the version was registered.

    Raises:
        EvidenceError: if the policy is not approved, was only afterwards, or is no longer.
    """
    found = _policy_approvals(standing, owners)
    digest = standing.proof.policy_sha256
    if not found:
        raise EvidenceError(
            f"expected an approved policy, got {digest}, which no owner approved for {standing.model!r}",
            where=_where(standing),
            hint="an owner approves it with `leangate policy approve`; then register again",
        )
    if found[0][0].number > standing.registered.number:
        raise EvidenceError(
            f"expected a policy that was approved before the version was registered, got one approved by "
            f"entry {found[0][0].number}, after entry {standing.registered.number}",
            where=_where(standing),
            hint="judge and register again under the approved policy",
        )
    approval = found[-1][1].predicate
    if not in_force(approval.until, now):
        raise EvidenceError(
            f"expected a policy in force, got {digest[:16]}, approved until {approval.until}",
            where=_where(standing),
            hint="an owner extends it with `leangate policy approve`, or judges by another policy",
        )
    return approval


def expect_not_replaced(
    entries: Iterable[Entry], signed: Signature[PolicyApproval], owners: Mapping[str, Key], where: str
) -> None:
    """Refuse an approval of a policy that came before and was replaced: anybody can send it once more.

    Args:
        entries: Approvals of policies, in order.
        signed: The one that comes now.
        owners: Public keys by id.
        where: For messages.

    Raises:
        EvidenceError: if an owner has said something else since.
    """
    said, models, since = None, set(signed.predicate.models), 0
    for entry in entries:
        try:
            earlier = open_policy_approval(str(entry.detail["envelope"]), owners, where)
        except EvidenceError:  # of an owner who no longer counts
            continue
        if earlier == signed:
            said, since = entry, 0
        elif earlier.subject == signed.subject and (
            ANY_MODEL in models | set(earlier.predicate.models) or models & set(earlier.predicate.models)
        ):
            since = since or entry.number
    if said is not None and since:
        raise EvidenceError(
            f"expected an approval that nothing has replaced, got the one of entry {said.number}, "
            f"which entry {since} replaced",
            where=where,
            hint="the owner signs anew, until another day",
        )


def expect_approval_fits(standing: Standing, signed: Signature[Approval]) -> None:
    """Refuse an approval of anything but this version as it was registered.

    Raises:
        EvidenceError: naming what is of something else.
    """
    said = signed.predicate
    for what, want, came in (
        ("model", standing.model, said.model),
        ("version", standing.version, said.version),
        ("SHA-256 of the ONNX file", standing.proof.onnx_sha256, signed.subject),
        ("SHA-256 of the bundle", standing.proof.bundle_sha256, said.bundle_sha256),
        ("SHA-256 of the policy", standing.proof.policy_sha256, said.policy_sha256),
    ):
        if want != came:
            raise EvidenceError(
                f"expected an approval of {what} {want}, got {came}"[:300], where=_where(standing)
            )
    if signed.key in standing.proof.makers:
        raise EvidenceError(
            f"expected an approver who did not make the bundle, got key {signed.key[:16]} for both",
            where=_where(standing),
            hint="somebody else approves",
        )


def expect_agreed(
    standing: Standing, policy: PolicyApproval, alias: str, now: datetime, held: datetime | None = None
) -> list[Entry]:
    """Return the approvals that count, one an approver.

    Args:
        standing: Of the version.
        policy: The approval of its policy.
        alias: Which is to move.
        now: By the registry's clock.
        held: When the version first held the alias; what was in force then, and said by then, counts still.

    Raises:
        EvidenceError: if there are fewer than the policy asks for.
    """
    counted: dict[str, Entry] = {}
    people: set[str] = set()
    past: list[str] = []
    for agreement in standing.approvals:
        where = f"ledger entry {agreement.entry.number}"
        try:
            signed = open_version_approval(agreement.envelope, policy.approvers, where)
            expect_approval_fits(standing, signed)
        except EvidenceError as error:
            past.append(error.what)
            continue
        if signed.predicate.alias.casefold() != alias.casefold():
            past.append(f"one for the alias {signed.predicate.alias!r}")
        elif not in_force(signed.predicate.until, now) and (
            held is None or agreement.entry.at > held or not in_force(signed.predicate.until, held)
        ):
            past.append(f"one that ended on {signed.predicate.until}")
        elif agreement.entry.by is not None and agreement.entry.by in people | {standing.registered.by}:
            past.append(f"a second one by {agreement.entry.by!r}, who registered or approved already")
        elif signed.key not in counted:
            counted[signed.key] = agreement.entry
            people |= {agreement.entry.by} if agreement.entry.by else set()
    if len(counted) < policy.approvals:
        more = f"; not counted: {'; '.join(past)}"[:400] if past else ""
        want = f"{policy.approvals} approvals of {len(policy.approvers)} approvers"
        raise EvidenceError(
            f"expected {want}, got {len(counted)}{more}",
            where=_where(standing),
            hint="an approver runs `leangate approve`",
        )
    return list(counted.values())
