# SPDX-License-Identifier: Apache-2.0
"""A waiver: one finding on one artifact under one policy that an approver lets through, until a day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from checks.errors import EvidenceError
from pipeline.fields import Fields

__all__ = ["MAX_NAME", "MAX_REASON", "Waiver", "day_of", "parse_waiver", "today"]

MAX_NAME, MAX_REASON = 200, 1_000
"""Characters of an approver's name, and of a reason."""

_MAX_PLACE = 500
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_JOINERS = "\u200c\u200d"


def today() -> date:
    """Return the day it is, UTC."""
    return datetime.now(UTC).date()


def day_of(text: str) -> date:
    """Return the day that `YYYY-MM-DD` names.

    Raises:
        ValueError: if it names none.
    """
    if not _DAY.fullmatch(text):
        raise ValueError("expected YYYY-MM-DD")
    return date.fromisoformat(text)


@dataclass(frozen=True)
class Waiver:
    """What was waived, by whom, and until when.

    Attributes:
        rule: Its name in the policy.
        slice: Of the finding, as the decision names it.
        versus: The second slice of a comparison between slices, else None.
        target: The class or the operating point the finding is about, else None.
        verdict: What the approver saw: a waiver of FAIL covers INCONCLUSIVE too, not the other way round.
        reason: Why, in the approver's words; never blank.
        approver: Name in the approver's words; who it was says the key.
        key_id: SHA-256 that names the approver's public key.
        since: Day on which it was signed, UTC.
        until: Last day on which it holds, to its end, UTC.
        onnx_sha256: The artifact.
        policy_sha256: The policy it was judged under.
        data_sha256: The data it was judged on.
        sha256: Of the signed line itself.
    """

    rule: str
    slice: str
    versus: str | None
    target: str | None
    verdict: Literal["FAIL", "INCONCLUSIVE"]
    reason: str
    approver: str
    key_id: str
    since: date
    until: date
    onnx_sha256: str
    policy_sha256: str
    data_sha256: str
    sha256: str

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What tells the finding from every other one of a decision."""
        return self.rule, self.slice, self.versus or "", self.target or ""

    @property
    def subject(self) -> str:
        """The slice or the pair of slices, and the target, in words."""
        words = f"{self.slice} against {self.versus}" if self.versus else self.slice
        return f"{words} for {self.target}" if self.target else words

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, for selection, verdict and attestations."""
        return {
            name: value.isoformat() if isinstance(value, date) else value
            for name, value in vars(self).items()
        }


def _text(fields: Fields, key: str, longest: int) -> str:
    value = fields.text(key)
    plain = value == value.strip() and all(c.isprintable() or c in _JOINERS for c in value)
    if not value or len(value) > longest or not plain:
        raise EvidenceError(
            f"expected 1 to {longest} characters on one line, without blanks around them, got {value!r}"[
                :200
            ],
            where=f"{fields.where} {key}",
        )
    return value


def _place(fields: Fields, key: str) -> str:
    """Text out of data: as it is there, or it would name another slice."""
    value = fields.text(key)
    if not 0 < len(value) <= _MAX_PLACE:
        raise EvidenceError(
            f"expected 1 to {_MAX_PLACE} characters, got {value!r}"[:200], where=f"{fields.where} {key}"
        )
    return value


def _day(fields: Fields, key: str) -> date:
    try:
        return day_of(fields.text(key))
    except ValueError as error:
        raise EvidenceError(
            f"expected a day as YYYY-MM-DD, got {fields.text(key)!r}"[:200], where=f"{fields.where} {key}"
        ) from error


def _digest(fields: Fields, key: str) -> str:
    value = fields.text(key)
    if not _SHA256.fullmatch(value):
        raise EvidenceError(f"expected a SHA-256, got {value!r}"[:200], where=f"{fields.where} {key}")
    return value


def parse_waiver(fields: Fields) -> Waiver:
    """Return a waiver out of what `to_json` wrote.

    Raises:
        EvidenceError: naming file and key.
    """
    verdict = fields.text("verdict")
    if verdict not in ("FAIL", "INCONCLUSIVE"):
        raise EvidenceError(
            f"expected FAIL or INCONCLUSIVE, got {verdict!r}: what could not be measured cannot be waived"[
                :300
            ],
            where=f"{fields.where} verdict",
        )
    since, until = _day(fields, "since"), _day(fields, "until")
    if until < since:
        raise EvidenceError(f"expected {since} or later, got {until}", where=f"{fields.where} until")
    return Waiver(
        rule=_place(fields, "rule"),
        slice=_place(fields, "slice"),
        versus=None if fields.value.get("versus") is None else _place(fields, "versus"),
        target=None if fields.value.get("target") is None else _place(fields, "target"),
        verdict="FAIL" if verdict == "FAIL" else "INCONCLUSIVE",
        reason=_text(fields, "reason", MAX_REASON),
        approver=_text(fields, "approver", MAX_NAME),
        key_id=_digest(fields, "key_id"),
        since=since,
        until=until,
        onnx_sha256=_digest(fields, "onnx_sha256"),
        policy_sha256=_digest(fields, "policy_sha256"),
        data_sha256=_digest(fields, "data_sha256"),
        sha256=_digest(fields, "sha256"),
    )
