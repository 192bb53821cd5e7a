# SPDX-License-Identifier: Apache-2.0
"""One statement in one envelope: in-toto Statement v1 in DSSE (https://github.com/secure-systems-lab/dsse)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checks.canonical import read_json_text
from checks.errors import EvidenceError

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

__all__ = ["PAYLOAD_TYPE", "STATEMENT", "open_envelope", "seal"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"

_CHANGED = "it was changed after it was signed; make and sign it again"


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def seal(value: Mapping[str, Any], signer: Signer) -> str:
    """Return the line that holds a statement, signed."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(_dumps(value).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return _dumps(envelope.to_dict())


def open_envelope(line: str, where: str, trusted: Mapping[str, Key]) -> tuple[Any, set[str], set[str]]:
    """Return the statement in an envelope, the trusted keys that signed it, and the other keys.

    Raises:
        EvidenceError: if it is no envelope in canonical form, or a trusted key's signature does not hold.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    try:
        envelope = Envelope.from_dict(read_json_text(line, where))
    except EvidenceError:
        raise
    except Exception as error:  # whatever is wrong with it, it is no envelope
        raise EvidenceError(f"expected a DSSE envelope, got {type(error).__name__}", where=where) from error
    if _dumps(envelope.to_dict()) != line:
        # Base64 and JSON have many texts for one value; of a file that is proof there is to be one.
        raise EvidenceError(
            "expected an envelope in its canonical form, got another", where=where, hint=_CHANGED
        )
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(f"expected {PAYLOAD_TYPE}, got {envelope.payload_type!r}"[:200], where=where)
    held = set()
    for key_id in sorted(set(envelope.signatures) & set(trusted)):
        try:
            envelope.verify([trusted[key_id]], 1)
        except VerificationError as error:
            raise EvidenceError(
                f"expected the signature of key {key_id[:16]} to hold, got one that does not",
                where=where,
                hint=_CHANGED,
            ) from error
        held.add(key_id)
    try:
        value = read_json_text(envelope.payload.decode("utf-8"), where)
    except ValueError as error:
        raise EvidenceError("expected a statement in UTF-8, got other bytes", where=where) from error
    return value, held, set(envelope.signatures) - set(trusted)
