# SPDX-License-Identifier: Apache-2.0
"""`waivers.jsonl`: signed waivers, one DSSE envelope a line.

A line is an in-toto Statement v1 about the ONNX file, with the predicate `urn:leangate:waiver:1`, whose JSON
Schema is `attestation/schemas/waiver.json`. The approver's public key stands in it, so that its id can be
held against the policy's list without a key being sent along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.canonical import sha256_bytes
from checks.errors import EvidenceError, InputError
from pipeline.attestation.dsse import STATEMENT, open_envelope, seal
from pipeline.attestation.keys import parse_public_key, public_pem
from pipeline.fields import Fields
from pipeline.files import write_text
from pipeline.waiver import Waiver, parse_waiver

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

__all__ = [
    "WAIVER",
    "WAIVERS",
    "lines_of",
    "read_waivers",
    "sign_waiver",
    "write_lines",
]

WAIVERS = "waivers.jsonl"
WAIVER = "urn:leangate:waiver:1"
"""Type of the predicate."""

_SUBJECT = "model.onnx"
_MAX_BYTES = 1024 * 1024
_MOST_LINES = 1_000
_OF_PREDICATE = {
    *("rule", "slice", "versus", "target", "verdict", "reason", "approver", "key", "since", "until"),
    *("policy", "data"),
}
_MEND = "delete the line, and sign the waiver again with `leangate waive`"


def sign_waiver(waiver: Mapping[str, Any], signer: Signer) -> tuple[str, Waiver]:
    """Return the signed line of a waiver, and the waiver as it is read from it.

    Args:
        waiver: As `Waiver.to_json` returns it; `key_id` and `sha256` are the signer's and the line's.
        signer: Of Ed25519.

    Raises:
        EvidenceError: if it would be no waiver.
    """
    kept = {name: waiver.get(name) for name in _OF_PREDICATE - {"key", "policy", "data"}}
    predicate = kept | {
        "key": public_pem(signer.public_key),
        "policy": {"sha256": waiver["policy_sha256"]},
        "data": {"sha256": waiver["data_sha256"]},
    }
    digest = {"sha256": waiver["onnx_sha256"]}
    line = seal(
        {
            "_type": STATEMENT,
            "subject": [{"name": _SUBJECT, "digest": digest}],
            "predicateType": WAIVER,
            "predicate": predicate,
        },
        signer,
    )
    return line, _parse(line, "the waiver")


def _expect_keys(fields: Fields, keys: set[str]) -> None:
    if set(fields.value) != keys:
        raise EvidenceError(
            f"expected the keys {sorted(keys)}, got {sorted(map(str, fields.value))}"[:400],
            where=fields.where,
        )


def _parse(line: str, where: str) -> Waiver:
    """Return the waiver in a line whose signature holds, by the key that stands in it."""
    value, _, _ = open_envelope(line, where, {})
    if not isinstance(value, dict) or value.get("_type") != STATEMENT or value.get("predicateType") != WAIVER:
        raise EvidenceError(f"expected a statement of type {WAIVER}", where=where, hint=_MEND)
    statement = Fields(value, where)
    _expect_keys(statement, {"_type", "subject", "predicateType", "predicate"})
    subjects, predicate = list(statement.entries("subject")), statement.inner("predicate")
    _expect_keys(predicate, _OF_PREDICATE)
    digests = [entry.inner("digest") for entry in subjects]
    named = {"policy": predicate.inner("policy"), "data": predicate.inner("data")}
    for digest in (*digests, *named.values()):
        _expect_keys(digest, {"sha256"})
    if [entry.text("name") for entry in subjects] != [_SUBJECT]:
        raise EvidenceError(f"expected one subject, {_SUBJECT}", where=f"{where} subject")
    try:
        key = parse_public_key(predicate.text("key").encode(), f"{where} key")
    except InputError as error:
        raise EvidenceError(error.what, where=error.where) from error
    _, held, strangers = open_envelope(line, where, {key.keyid: key})
    if held != {key.keyid} or strangers:
        raise EvidenceError(
            f"expected the signature of the key that stands in the waiver, {key.keyid[:16]}, and no other",
            where=where,
            hint=_MEND,
        )
    return parse_waiver(
        Fields(
            {
                **predicate.value,
                "key_id": key.keyid,
                "onnx_sha256": digests[0].text("sha256"),
                "policy_sha256": named["policy"].text("sha256"),
                "data_sha256": named["data"].text("sha256"),
                "sha256": sha256_bytes(line.encode()),
            },
            where,
        )
    )


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise EvidenceError(f"expected at most {_MAX_BYTES} bytes, got more", where=str(path))
        # Not splitlines: text may hold other line ends.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise EvidenceError(f"expected lines of JSON, got {error}", where=str(path)) from error
    if lines[-1] == "":
        lines.pop()
    if len(lines) > _MOST_LINES:
        raise EvidenceError(f"expected at most {_MOST_LINES} waivers, got {len(lines)}", where=str(path))
    return lines


def read_waivers(folder: Path) -> tuple[Waiver, ...]:
    """Return the waivers in `waivers.jsonl` of a project or a bundle whose own signature holds.

    That they hold under a policy and today is another question: `check_waivers`.

    Args:
        folder: Of the project or the bundle; without the file there are none.

    Raises:
        EvidenceError: naming the line, if one is no signed waiver; if there are two of one line, or too many.
    """
    path = folder / WAIVERS
    waivers = tuple(
        _parse(line, f"{path} line {number}") for number, line in enumerate(_lines(path), start=1)
    )
    if len({waiver.sha256 for waiver in waivers}) != len(waivers):
        raise EvidenceError("expected each waiver once", where=str(path))
    return waivers


def lines_of(folder: Path) -> dict[str, str]:
    """Return the lines of `waivers.jsonl` by their SHA-256, unread.

    Raises:
        EvidenceError: if there are too many.
    """
    return {sha256_bytes(line.encode()): line for line in _lines(folder / WAIVERS)}


def write_lines(folder: Path, lines: Sequence[str]) -> None:
    """Write `waivers.jsonl`, whole or not at all.

    Raises:
        EvidenceError: if that would be more than is ever read.
        StorageError: if it cannot be written.
    """
    text = "".join(f"{line}\n" for line in lines)
    if len(lines) > _MOST_LINES or len(text.encode()) > _MAX_BYTES:
        raise EvidenceError(
            f"expected at most {_MOST_LINES} waivers and {_MAX_BYTES} bytes, got more",
            where=str(folder / WAIVERS),
            hint="delete the lines of what has ended",
        )
    write_text(folder / WAIVERS, text)
