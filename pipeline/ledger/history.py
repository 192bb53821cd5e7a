# SPDX-License-Identifier: Apache-2.0
"""What held an alias when, who moved it, and on what evidence: read from the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from checks.errors import InputError
from pipeline.ledger.entries import Entry

__all__ = ["Term", "end_of", "terms_of"]


@dataclass(frozen=True)
class Term:
    """A time during which a version held an alias.

    Attributes:
        alias: Which.
        version: Which.
        since: When it was moved there.
        until: When it was moved on; None if it holds it still.
        by: Who moved it, if somebody was logged in.
        number: Of the entry by which it was moved.
        evidence: SHA-256 of ONNX file, bundle, policy and decision, by name.
        approvals: Id of the approver's key and who sent it, of each approval that counted.
        revoked: When it was revoked, or None.
        reason: Of the revocation.
    """

    alias: str
    version: str
    since: datetime
    until: datetime | None
    by: str | None
    number: int
    evidence: Mapping[str, str]
    approvals: tuple[tuple[str, str | None], ...]
    revoked: datetime | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return it for printing as JSON."""
        return {
            "alias": self.alias,
            "version": self.version,
            "since": self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "by": self.by,
            "entry": self.number,
            "evidence": dict(self.evidence),
            "approvals": [{"key": key, "by": by} for key, by in self.approvals],
            "revoked": None if self.revoked is None else self.revoked.isoformat(),
            "reason": self.reason,
        }


def end_of(text: str) -> datetime:
    """Return the last instant of a day, or the instant itself, in UTC unless it says otherwise.

    Raises:
        InputError: if it is neither.
    """
    try:
        if len(text) == 10:
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return day + timedelta(days=1) - timedelta(microseconds=1)
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"expected a day or a time, as 2026-11-24 or 2026-11-24T12:00:00, got {text!r}"[:200],
            where="--at",
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _term(entry: Entry, entries: Mapping[int, Entry], until: datetime | None, revoked: Entry | None) -> Term:
    agreed = [entries[number] for number in entry.detail["approvals"] if number in entries]
    names = ("onnx_sha256", "bundle_sha256", "policy_sha256", "decision_sha256")
    return Term(
        alias=str(entry.detail["alias"]),
        version=entry.version,
        since=entry.at,
        until=until,
        by=entry.by,
        number=entry.number,
        evidence={name: str(entry.detail[name]) for name in names},
        approvals=tuple((str(one.detail["key"]), one.by) for one in agreed),
        revoked=None if revoked is None else revoked.at,
        reason="" if revoked is None else str(revoked.detail["reason"]),
    )


def terms_of(entries: Sequence[Entry], model: str, at: datetime | None = None) -> list[Term]:
    """Return the terms of a model's protected aliases, oldest first.

    Args:
        entries: Of the whole ledger.
        model: Name of the registered model.
        at: As of when, and then only the terms of that instant; None for all.
    """
    known = [entry for entry in entries if at is None or entry.at <= at]
    numbered = {entry.number: entry for entry in known}
    moved = [entry for entry in known if entry.act == "promote" and entry.model == model]
    # While registry.yaml did not protect it, an alias moved and went without a promotion.
    ends = ("promote", "alias", "delete-alias")
    gone = [entry for entry in known if entry.act in ends and entry.model == model]
    revoked = {entry.version: entry for entry in known if entry.act == "revoke" and entry.model == model}
    terms = []
    for entry in moved:
        later = [
            other
            for other in gone
            if other.number > entry.number and other.detail["alias"] == entry.detail["alias"]
        ]
        if later and at is not None:
            continue
        until = later[0].at if later else None
        terms.append(_term(entry, numbered, until, revoked.get(entry.version)))
    return terms
