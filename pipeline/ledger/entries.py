# SPDX-License-Identifier: Apache-2.0
"""Entries of the ledger, each naming the one before it, and the signed checkpoints that stand for all.

An entry is a line of JSON. Its leaf is the hash of that line by RFC 6962; `previous` is the leaf before it. A
checkpoint is the size and the root of the tree of all leaves so far, signed with the registry's own key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from checks.canonical import read_json_text
from checks.errors import EvidenceError
from pipeline.ledger.merkle import Frontier, leaf_hash

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

__all__ = [
    "ACTS",
    "SCHEMA",
    "Checkpoint",
    "Entry",
    "Head",
    "append",
    "expect_signed",
    "parse_entry",
    "sign_checkpoint",
]

SCHEMA = "leangate/ledger/1"

ACTS = (
    *("open", "refuse", "policy", "register", "approve", "promote", "revoke"),
    *("create-model", "create-version", "update-model", "update-version", "rename-model"),
    *("delete-model", "delete-version", "stage", "alias", "delete-alias"),
    *("model-tag", "delete-model-tag", "version-tag", "delete-version-tag"),
)
"""Everything an entry can be about."""

_KEYS = {"schema", "ledger", "number", "at", "by", "act", "model", "version", "detail", "previous"}


@dataclass(frozen=True)
class Entry:
    """One thing that happened, or was refused.

    Attributes:
        ledger: Which ledger: 32 hexadecimal digits drawn when it was opened.
        number: From 1.
        at: By the registry's clock, UTC; never before the entry before it.
        by: Who was logged in, by the registry's own authentication; None if it has none.
        act: One of `ACTS`.
        model: Name of the registered model, or nothing.
        version: Of the model, or nothing.
        detail: What else there is to say.
        previous: Leaf of the entry before it; of the first one 64 zeros.
    """

    ledger: str
    number: int
    at: datetime
    by: str | None
    act: str
    model: str
    version: str
    detail: Mapping[str, Any]
    previous: str

    @property
    def line(self) -> str:
        """The text that is hashed."""
        value = {
            "schema": SCHEMA,
            "ledger": self.ledger,
            "number": self.number,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "by": self.by,
            "act": self.act,
            "model": self.model,
            "version": self.version,
            "detail": dict(self.detail),
            "previous": self.previous,
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

    @property
    def leaf(self) -> str:
        """Hash of the line."""
        return leaf_hash(self.line.encode())


@dataclass(frozen=True)
class Head:
    """Where a ledger ends.

    Attributes:
        ledger: Which.
        frontier: Of all its leaves.
        last: Leaf of the last entry.
        at: Of the last entry.
    """

    ledger: str
    frontier: Frontier
    last: str
    at: datetime


@dataclass(frozen=True)
class Checkpoint:
    """What stands for all entries up to one.

    Attributes:
        size: How many.
        root: Of their tree.
        key: Id of the key that signed, or nothing.
        signature: Ed25519, hexadecimal, or nothing.
    """

    size: int
    root: str
    key: str = ""
    signature: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as it is exported."""
        return {"size": self.size, "root": self.root, "key": self.key, "signature": self.signature}


def append(
    head: Head, act: str, model: str, version: str, detail: Mapping[str, Any], by: str | None
) -> Entry:
    """Return the entry that follows `head`, dated now, or as the one before if the clock went back."""
    now = datetime.now(UTC)
    at = max(now, head.at)
    if (behind := (at - now).total_seconds()) > 0:
        detail = {**detail, "clock_behind_seconds": round(behind, 6)}
    return Entry(head.ledger, head.frontier.size + 1, at, by, act, model, version, detail, head.last)


def parse_entry(line: str, where: str) -> Entry:
    """Read an entry; any other text for the same values is refused.

    Raises:
        EvidenceError: if it is none.
    """
    value = read_json_text(line, where)
    try:
        if not isinstance(value, dict) or set(value) != _KEYS or value["schema"] != SCHEMA:
            known = value.get("schema") if isinstance(value, dict) else None
            raise ValueError(f"keys or schema {known!r} that are not those of {SCHEMA}")
        entry = Entry(
            ledger=str(value["ledger"]),
            number=int(value["number"]),
            at=datetime.fromisoformat(value["at"]),
            by=value["by"],
            act=str(value["act"]),
            model=str(value["model"]),
            version=str(value["version"]),
            detail=dict(value["detail"]),
            previous=str(value["previous"]),
        )
        if entry.act not in ACTS:
            raise ValueError(f"the unknown act {entry.act!r}"[:100])
        same = entry.line == line
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise EvidenceError(f"expected an entry of a ledger, got {error}"[:300], where=where) from error
    if not same:
        raise EvidenceError("expected an entry in its canonical form, got another", where=where)
    return entry


def _stated(entry: Entry, size: int, root: str) -> bytes:
    return f"{SCHEMA} checkpoint\n{entry.ledger}\n{size}\n{root}\n{entry.leaf}\n".encode()


def sign_checkpoint(entry: Entry, frontier: Frontier, signer: Signer) -> Checkpoint:
    """Return the signed checkpoint of all entries up to the last, `entry`."""
    signature = signer.sign(_stated(entry, frontier.size, frontier.root))
    return Checkpoint(frontier.size, frontier.root, signer.public_key.keyid, signature.signature)


def expect_signed(entry: Entry, checkpoint: Checkpoint, keys: Mapping[str, Key], where: str) -> None:
    """Refuse an entry whose checkpoint none of `keys` signed.

    Raises:
        EvidenceError: naming whose signature is there.
    """
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
    from securesystemslib.signer import Signature

    key = keys.get(checkpoint.key)
    if key is None:
        raise EvidenceError(
            f"expected a checkpoint signed by one of {len(keys)} trusted keys, "
            f"got {checkpoint.key[:16] or 'no signature'}",
            where=where,
            hint="name the registry's public key with --trust",
        )
    try:
        key.verify_signature(
            Signature(checkpoint.key, checkpoint.signature),
            _stated(entry, checkpoint.size, checkpoint.root),
        )
    except (UnverifiedSignatureError, VerificationError, ValueError) as error:
        raise EvidenceError(
            f"expected the signature of key {checkpoint.key[:16]} to hold, got one that does not", where=where
        ) from error
