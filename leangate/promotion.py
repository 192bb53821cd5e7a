# SPDX-License-Identifier: Apache-2.0
"""`leangate policy approve`, `approve`, `promote`, `rollback` and `revoke`: acts on a gated registry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.ledger.history import Term
    from pipeline.registry_acts import Registry

__all__ = [
    "APPROVE_HELP",
    "POLICY_HELP",
    "PROMOTE_HELP",
    "REVOKE_HELP",
    "ROLLBACK_HELP",
    "approve",
    "approve_policy",
    "promote",
    "revoke",
    "rollback",
]

_CODES = """
exit codes:
  0  done
  1  the registry refuses, and says why; the refusal is in its ledger
  2  wrong use or input
  4  the registry cannot be reached, or what it holds cannot be verified
"""

POLICY_HELP = (
    """Approve a policy, as its owner, before anything is judged under it: what was registered
earlier, or was judged under another policy, is never promoted. Says for which
registered models, how many approvers have to agree to a version, who may, and until
when. Approving again replaces it; until yesterday ends it. Signs with
LEANGATE_SIGNING_KEY and sends it to the registry that MLFLOW_TRACKING_URI names.
"""
    + _CODES
)
APPROVE_HELP = (
    """Agree, as an approver, that one version moves to an alias. Its bundle is fetched and
verified here first: every verdict is derived anew. Signs with LEANGATE_SIGNING_KEY,
which may not be the key that signed the bundle.
"""
    + _CODES
)
PROMOTE_HELP = (
    """Move an alias to a version. The registry checks files, signatures, policy and approvals
as they are now.
"""
    + _CODES
)
ROLLBACK_HELP = (
    """Move an alias back to the version that held it before and still may. What it was
promoted on is checked again; the approvals it was promoted with count, even if their
days are over.
"""
    + _CODES
)
REVOKE_HELP = (
    """Say that a version never counts again. Whoever asks for an alias it holds is refused
from then on.
"""
    + _CODES
)

_DAYS = 30


def _day(text: str | None, default: int, command: str) -> str:
    """Return the last day of something; today plus `default` days if none is given."""
    from checks.errors import InputError

    if text is None:
        return (datetime.now(UTC).date() + timedelta(days=default)).isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise InputError(
            f"expected a day, as 2027-01-31, got {text!r}"[:100], where=f"leangate {command} --until"
        ) from error


def approve_policy(
    root: Path, policy: Path, models: Sequence[str], approvers: Path | None, approvals: int, until: str
) -> tuple[str, int]:
    """Approve a policy; return what to print, and the exit code.

    Args:
        root: The folder of `dvc.yaml`.
        policy: The file.
        models: Names of registered models; the approval is kept with the first.
        approvers: Folder of public keys, or one; None if nobody has to agree.
        approvals: How many of them.
        until: Last day.

    Raises:
        InputError: if there are too few approvers.
        LeanGateError: if the registry refuses or cannot be reached.
    """
    from checks.errors import InputError
    from pipeline.attestation.keys import need_signer, read_trusted
    from pipeline.policy_file import load_policy
    from pipeline.promotion.statements import PolicyApproval, sign_policy_approval
    from pipeline.registry_acts import open_registry

    file = load_policy(policy)
    keys = read_trusted(approvers) if approvers else {}
    if not 0 <= approvals <= len(keys):
        raise InputError(
            f"expected 0 to {len(keys)} approvals, as there are approvers, got {approvals}",
            where="leangate policy approve --approvals",
            hint="name the folder of the approvers' public keys with --approvers",
        )
    statement = PolicyApproval(
        models=tuple(models),
        approvals=approvals,
        approvers={key_id: key.to_dict() for key_id, key in keys.items()},
        until=_day(until, 0, "policy approve"),
    )
    signer = need_signer(os.environ, "leangate policy approve")
    with open_registry(root) as registry:
        made = registry.approve_policy(models[0], sign_policy_approval(file.sha256, statement, signer))
        if date.fromisoformat(statement.until) < datetime.now(UTC).date():
            return (
                f"policy {file.sha256}\nits approval for {', '.join(models)} ended on {statement.until}, "
                "and what was judged under it is neither promoted nor resolved\n"
            ), 0
        return (
            f"policy {file.sha256}\n"
            f"approved for {', '.join(models)} until {statement.until} by {signer.public_key.keyid[:16]}; "
            f"{approvals} of {len(keys)} approvers have to agree to a version\n"
            + (f"there was no model {models[0]} yet; it was made\n" if made else "")
        ), 0


def approve(root: Path, model: str, version: str, alias: str, until: str | None) -> tuple[str, int]:
    """Approve a version; return what to print, and the exit code.

    Raises:
        EvidenceError: if its bundle does not verify.
        LeanGateError: if the registry refuses or cannot be reached.
    """
    from checks.errors import EvidenceError
    from pipeline.attestation.keys import need_signer
    from pipeline.card.contents import MANIFEST, read_bundle
    from pipeline.promotion.statements import Approval, sign_approval
    from pipeline.registry_acts import open_registry
    from pipeline.restricted import restricted_folder
    from pipeline.verification import verify_bundle

    day, signer = _day(until, _DAYS, "approve"), need_signer(os.environ, "leangate approve")
    with open_registry(root) as registry, registry.bundle(model, version) as bundle:
        registry.expect_protected(alias)
        from checks.canonical import sha256_file

        steps = verify_bundle(bundle, restricted=restricted_folder())
        unchecked = [step.said for step in steps if step.state == "unchecked"]
        if unchecked:
            raise EvidenceError(
                f"expected a bundle that can be verified whole, got {unchecked[0]}",
                where=f"model {model!r}, version {version}",
            )
        _, contents = read_bundle(bundle)
        approval = Approval(
            model=model,
            version=version,
            alias=alias,
            bundle_sha256=sha256_file(bundle / MANIFEST),
            policy_sha256=contents.digest("policy.yaml"),
            until=day,
        )
        onnx = contents.digest("model.onnx")
        registry.approve(model, version, sign_approval(onnx, approval, signer))
        findings = len(list(contents.decision.entries("findings")))
    return (
        f"{model} version {version}: {findings} findings follow from the evidence on model.onnx {onnx}\n"
        f"approved for {alias} until {day} by {signer.public_key.keyid[:16]}\n"
    ), 0


def promote(root: Path, model: str, version: str, alias: str) -> tuple[str, int]:
    """Move an alias; return what to print, and the exit code.

    Raises:
        LeanGateError: if the registry refuses or cannot be reached.
    """
    from pipeline.registry_acts import open_registry

    with open_registry(root) as registry:
        registry.expect_protected(alias)
        registry.promote(model, version, alias)
        return f"{model}@{alias} is version {registry.holder(model, alias)}\n", 0


def _terms(registry: Registry, model: str, alias: str) -> list[Term]:
    from pipeline.ledger.history import terms_of
    from pipeline.ledger.verification import verify_lines

    ledger = verify_lines(registry.ledger(), None, registry.uri)
    return [term for term in terms_of(ledger.entries, model) if term.alias == alias]


def rollback(root: Path, model: str, alias: str, to: str | None) -> tuple[str, int]:
    """Move an alias back; return what to print, and the exit code.

    Raises:
        BlockedError: if no earlier version may hold it.
        LeanGateError: if the registry refuses or cannot be reached.
    """
    from checks.errors import BlockedError
    from pipeline.registry_acts import open_registry

    with open_registry(root) as registry:
        terms = _terms(registry, model, alias)
        now = terms[-1].version if terms else ""
        earlier = [term.version for term in reversed(terms) if term.version != now and not term.revoked]
        target = to or (earlier[0] if earlier else "")
        if not target:
            raise BlockedError(
                f"expected a version that held {alias!r} before {now or 'any'}, got none that still may",
                where=f"model {model!r}",
                hint="promote another version, or revoke this one: readers are refused from then on",
            )
        registry.promote(model, target, alias)
        return f"{model}@{alias} is version {registry.holder(model, alias)}, it was {now or 'none'}\n", 0


def revoke(root: Path, model: str, version: str, reason: str) -> tuple[str, int]:
    """Revoke a version; return what to print, and the exit code.

    Raises:
        LeanGateError: if the registry refuses or cannot be reached.
    """
    from pipeline.registry_acts import open_registry

    with open_registry(root) as registry:
        registry.revoke(model, version, reason)
    return f"{model} version {version} is revoked: {reason}\n", 0
