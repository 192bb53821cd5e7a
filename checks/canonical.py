# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON and SHA-256: equal values have equal bytes, equal bytes equal digests."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from checks.errors import EvidenceError, StorageError

__all__ = [
    "MAX_JSON_BYTES",
    "dumps",
    "read_json",
    "read_json_text",
    "sha256_bytes",
    "sha256_file",
    "sha256_value",
]

MAX_JSON_BYTES = 64 * 1024 * 1024
_MAX_DEPTH = 100


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


def _refuse_constant(text: str) -> float:
    raise ValueError(f"non-finite number {text}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def read_json(path: Path) -> Any:
    """Read a JSON file of at most 64 MiB, refusing what `read_json_text` does.

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


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # JSON has no infinity, but 1e999 reads as one
        raise ValueError(f"non-finite number {text[:40]}")
    return value


def _expect_shallow(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for entry in level
            if isinstance(entry, dict | list)
            for inner in (entry.values() if isinstance(entry, dict) else entry)
        ]
        if not level:
            return
    raise ValueError(f"more than {_MAX_DEPTH} levels")


def read_json_text(text: str, where: str = "") -> Any:
    """Read JSON, refusing duplicate keys, non-finite numbers, lone surrogates and more than 100 levels.

    Raises:
        EvidenceError: if it is not such JSON.
    """
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys
        )
        _expect_shallow(value)
        if "\\u" in text:  # an escape may stand for half a character, which no output could show
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"expected JSON, got {error}", where=where) from error
