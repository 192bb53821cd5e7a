# SPDX-License-Identifier: Apache-2.0
"""`attestations.jsonl`: one DSSE envelope (https://github.com/secure-systems-lab/dsse) a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.canonical import sha256_file
from checks.errors import EvidenceError
from pipeline.attestation.dsse import STATEMENT, open_envelope, seal
from pipeline.attestation.statements import (
    GATE_EVIDENCE,
    PROVENANCE,
    SUMMARY,
    gate_evidence,
    provenance,
    statement,
    summary,
)
from pipeline.card.contents import ATTESTATIONS, Contents
from pipeline.card.files import list_files
from pipeline.fields import Fields
from pipeline.files import write_text

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

__all__ = ["Signed", "attest", "open_envelope", "read_signed", "seal", "who_signed"]

_MAX_BYTES = 16 * 1024 * 1024
_MAX_LINES = 100
_STALE = "the bundle was changed after it was signed; make and sign it again"


@dataclass(frozen=True)
class Signed:
    """What a bundle's attestations are worth.

    Attributes:
        predicates: Types of the statements whose signature holds.
        keys: Ids of the trusted keys that signed all of them.
        strangers: Ids of keys that signed, and are not trusted.
    """

    predicates: tuple[str, ...]
    keys: tuple[str, ...]
    strangers: tuple[str, ...]


def _digests(folder: Path) -> dict[str, str]:
    return {name: sha256_file(path) for name, path in list_files(folder).items() if name != ATTESTATIONS}


def attest(
    folder: Path, manifest: Fields, contents: Contents, origin: Mapping[str, Any], signer: Signer
) -> None:
    """Write `attestations.jsonl` into a finished bundle.

    Args:
        folder: The bundle, with card and manifest.
        manifest: Its `bundle.json`.
        contents: Its files, checked.
        origin: What it was made from.
        signer: Of Ed25519, so that the same bundle and key give the same bytes.
    """
    files = _digests(folder)
    predicates = {
        PROVENANCE: provenance(folder, manifest, origin),
        GATE_EVIDENCE: gate_evidence(contents),
        SUMMARY: summary(contents),
    }
    lines = [seal(statement(files, kind, predicate), signer) for kind, predicate in predicates.items()]
    write_text(folder / ATTESTATIONS, "".join(f"{line}\n" for line in lines))


def _lines(path: Path) -> list[str]:
    if path.stat().st_size > _MAX_BYTES:
        raise EvidenceError(f"expected at most {_MAX_BYTES} bytes, got more", where=str(path))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise EvidenceError(f"expected lines of JSON, got {error}", where=str(path)) from error
    if not 1 <= len(lines) <= _MAX_LINES:
        raise EvidenceError(f"expected 1 to {_MAX_LINES} envelopes, got {len(lines)}", where=str(path))
    return lines


def _expect_statement(value: Any, files: Mapping[str, str], contents: Contents, where: str) -> str:
    """Return the kind of a statement; one about other files, or that does not follow from these, is none."""
    kind = value.get("predicateType") if isinstance(value, dict) else None
    follows = {GATE_EVIDENCE: gate_evidence, SUMMARY: summary}
    if kind not in (PROVENANCE, *follows) or value.get("_type") != STATEMENT:
        raise EvidenceError(f"expected a statement of a kind that is known, got {kind!r}"[:200], where=where)
    predicate = follows[kind](contents) if kind in follows else value.get("predicate")
    if not isinstance(predicate, dict) or value != statement(files, kind, predicate):
        raise EvidenceError(
            f"expected the statement {kind} about these files, got another", where=where, hint=_STALE
        )
    return str(kind)


def read_signed(folder: Path, contents: Contents, trusted: Mapping[str, Key]) -> Signed:
    """Check every envelope of a bundle: signature, digests of the files, and what is stated of them.

    Args:
        folder: The bundle.
        contents: Its files, checked.
        trusted: Public keys by their ids.

    Raises:
        EvidenceError: if there are none, a signature of a trusted key does not hold, a statement is about
            other files or does not follow from these, or a kind of statement is missing or twice there.
    """
    path = folder / ATTESTATIONS
    if not path.is_file():
        raise EvidenceError(
            "expected signed attestations, got none",
            where=str(path),
            hint="set LEANGATE_SIGNING_KEY and run `leangate run`",
        )
    files = _digests(folder)
    kinds: list[str] = []
    by_all: set[str] | None = None
    strangers: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path} line {number}"
        value, held, others = open_envelope(line, where, trusted)
        kinds.append(_expect_statement(value, files, contents, where))
        by_all = held if by_all is None else by_all & held
        strangers |= others
    want: Sequence[str] = sorted((PROVENANCE, GATE_EVIDENCE, SUMMARY))
    if sorted(kinds) != want:
        raise EvidenceError(
            f"expected one statement of each kind {want}, got {sorted(kinds)}", where=str(path)
        )
    return Signed(tuple(kinds), tuple(sorted(by_all or ())), tuple(sorted(strangers)))


def who_signed(
    folder: Path, files: Mapping[str, str], trusted: Mapping[str, Key]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which trusted keys signed every statement about files, and which other keys signed any.

    What else the statements say is not looked at.

    Args:
        folder: The bundle.
        files: SHA-256 of each of its files, as they are now, without the attestations.
        trusted: Public keys by their ids.

    Raises:
        EvidenceError: if a statement is about other files, or a trusted key's signature does not hold.
    """
    path = folder / ATTESTATIONS
    by_all, strangers = set(trusted), set[str]()
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path} line {number}"
        value, held, others = open_envelope(line, where, trusted)
        if not isinstance(value, dict) or value.get("subject") != statement(files, "", {})["subject"]:
            raise EvidenceError("expected a statement about these files, got another", where=where)
        by_all &= held
        strangers |= others
    return tuple(sorted(by_all)), tuple(sorted(strangers))
