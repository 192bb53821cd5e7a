# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON and SHA-256: equal values have equal bytes, equal bytes equal digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from checks.errors import EvidenceError, StorageError

__all__ = [
    "MAX_JSON_BYTES",
    "dumps",
    "read_json",
    "read_json_text",
    "refuse_constant",
    "sha256_bytes",
    "sha256_file",
    "sha256_value",
]

MAX_JSON_BYTES = 64 * 1024 * 1024


def dumps(value: Any) -> str:
    """Return the canonical JSON text of `value`: sorted keys, two-space indent, final newline.

    Args:
        value: dicts with string keys, lists, strings, booleans, None, ints and finite floats.

    Raises:
        ValueError: if `value` holds NaN or an infinity, which JSON cannot carry.
        TypeError: if `value` holds anything else.
    """
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_value(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`."""
    return sha256_bytes(dumps(value).encode())


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the bytes of the file at `path`.

    Raises:
        StorageError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"expected a readable file, got {error.strerror}", where=str(path)) from error


def refuse_constant(text: str) -> float:
    """Refuse NaN and infinities, which Python's JSON reader would let through; its `parse_constant`.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"non-finite number {text}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def read_json(path: Path) -> Any:
    """Read a JSON file, refusing duplicate keys, non-finite numbers and files over 64 MiB.

    Raises:
        EvidenceError: if the file is missing, too large, or not such JSON.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise EvidenceError(f"expected at most {MAX_JSON_BYTES} bytes, got {size}", where=str(path))
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvidenceError(f"expected a readable file, got {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise EvidenceError(f"expected JSON, got {error}", where=str(path)) from error
    return read_json_text(text, str(path))


def read_json_text(text: str, where: str = "") -> Any:
    """Read JSON, refusing duplicate keys and non-finite numbers.

    Raises:
        EvidenceError: if it is not such JSON.
    """
    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"expected JSON, got {error}", where=where) from error
