# SPDX-License-Identifier: Apache-2.0
"""What people sign: that a policy may be judged by, and that a version may move to an alias.

in-toto Statements v1 in DSSE envelopes, as a bundle's attestations are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from checks.errors import EvidenceError
from pipeline.attestation.envelopes import open_envelope, seal
from pipeline.attestation.statements import statement

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

__all__ = [
    "APPROVAL",
    "POLICY_APPROVAL",
    "Approval",
    "PolicyApproval",
    "Signature",
    "in_force",
    "key_of",
    "open_approval",
    "open_policy_approval",
    "sign_approval",
    "sign_policy_approval",
]

APPROVAL = "urn:leangate:approval:1"
POLICY_APPROVAL = "urn:leangate:policy-approval:1"

_MAX_ENVELOPE = 64 * 1024
_MAX_APPROVERS = 100


def _is_a_day(text: str) -> str:
    date.fromisoformat(text)
    return text


Day = Annotated[str, AfterValidator(_is_a_day)]


class _Predicate(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PolicyApproval(_Predicate):
    """That bundles judged under a policy may be promoted, with whose approval, until when."""

    models: tuple[str, ...] = Field(min_length=1, description="names of registered models, or `*`")
    approvals: int = Field(ge=0, le=_MAX_APPROVERS, description="how many approvers have to agree")
    approvers: dict[str, dict[str, Any]] = Field(
        max_length=_MAX_APPROVERS, description="public keys of those who may approve, by id"
    )
    until: Day = Field(description="last day, UTC")

    @field_validator("models", mode="before")
    @classmethod
    def _tuple(cls, names: Any) -> Any:
        return tuple(names) if isinstance(names, list) else names


class Approval(_Predicate):
    """That one version may move to one alias."""

    model: str = Field(min_length=1)
    version: str = Field(pattern=r"^[1-9]\d{0,9}$")
    alias: str = Field(min_length=1, max_length=255)
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    policy_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    until: Day = Field(description="last day on which the alias may be moved, UTC")


_M = TypeVar("_M", PolicyApproval, Approval)


@dataclass(frozen=True)
class Signature(Generic[_M]):
    """A statement that was signed by a key that counts.

    Attributes:
        key: Id of that key.
        subject: SHA-256 of what it is about.
        predicate: What is stated.
    """

    key: str
    subject: str
    predicate: _M


def in_force(until: str, now: datetime) -> bool:
    """Whether the last day, in UTC, is not over."""
    return now.astimezone(UTC).date() <= date.fromisoformat(until)


def key_of(value: Mapping[str, Any], key_id: str, where: str) -> Key:
    """Return an Ed25519 public key whose id is the one it is named by.

    Raises:
        EvidenceError: if it is none, or its id is of another key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(value["keyval"]["public"]))
    except Exception as error:  # several classes, without a base of their own
        raise EvidenceError("expected an Ed25519 public key, got something else", where=where) from error
    key = SSlibKey.from_crypto(public)
    if key.keyid != key_id:
        raise EvidenceError(f"expected key {key_id[:16]}, got key {key.keyid[:16]}", where=where)
    return key


def sign_policy_approval(policy_sha256: str, approval: PolicyApproval, signer: Signer) -> str:
    """Return the envelope by which a policy's owner approves it."""
    files = {"policy.yaml": policy_sha256}
    return seal(statement(files, POLICY_APPROVAL, approval.model_dump(mode="json")), signer)


def sign_approval(onnx_sha256: str, approval: Approval, signer: Signer) -> str:
    """Return the envelope by which an approver agrees to a version."""
    return seal(statement({"model.onnx": onnx_sha256}, APPROVAL, approval.model_dump(mode="json")), signer)


def _open(line: str, name: str, kind: str, keys: Mapping[str, Key], where: str) -> tuple[str, str, Any]:
    if len(line) > _MAX_ENVELOPE:
        raise EvidenceError(f"expected at most {_MAX_ENVELOPE} characters, got {len(line)}", where=where)
    value, held, others = open_envelope(line, where, keys)
    if len(held) != 1 or others:
        by = ", ".join(sorted(key[:16] for key in held | others)) or "nobody"
        may = ", ".join(sorted(key[:16] for key in keys)[:8]) or "nobody"
        raise EvidenceError(
            f"expected the signature of one key that may, and no other, got {by}; may: {may}",
            where=where,
            hint="set LEANGATE_SIGNING_KEY to the key of one who may",
        )
    try:
        (subject,) = value["subject"]
        digest = str(subject["digest"]["sha256"])
        if value != statement({name: digest}, kind, value["predicate"]):
            raise ValueError("another statement")
        return held.pop(), digest, value["predicate"]
    except (TypeError, ValueError, KeyError) as error:
        raise EvidenceError(f"expected a statement {kind} about {name}", where=where) from error


def _checked(model: type[_M], value: Any, where: str) -> _M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise EvidenceError(
            f"expected a valid {key}, got: {first['msg']}"[:300], where=f"{where} predicate"
        ) from error


def open_policy_approval(line: str, owners: Mapping[str, Key], where: str) -> Signature[PolicyApproval]:
    """Check the signature of a policy's owner and what it says.

    Raises:
        EvidenceError: if it does not hold, or is none of an owner.
    """
    key, digest, predicate = _open(line, "policy.yaml", POLICY_APPROVAL, owners, where)
    approval = _checked(PolicyApproval, predicate, where)
    for key_id, value in approval.approvers.items():
        key_of(value, key_id, f"{where} approvers")
    if approval.approvals > len(approval.approvers):
        raise EvidenceError(
            f"expected at least {approval.approvals} approvers, got {len(approval.approvers)}", where=where
        )
    return Signature(key, digest, approval)


def open_approval(line: str, approvers: Mapping[str, Mapping[str, Any]], where: str) -> Signature[Approval]:
    """Check the signature of an approver and what it says.

    Args:
        line: The envelope.
        approvers: Public keys by id, from the approval of the policy.
        where: For messages.

    Raises:
        EvidenceError: if it does not hold, or is none of an approver.
    """
    keys = {key_id: key_of(value, key_id, where) for key_id, value in approvers.items()}
    key, digest, predicate = _open(line, "model.onnx", APPROVAL, keys, where)
    return Signature(key, digest, _checked(Approval, predicate, where))
