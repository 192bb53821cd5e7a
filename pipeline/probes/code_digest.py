# SPDX-License-Identifier: Apache-2.0
"""One SHA-256 for the code that measures and judges."""

from __future__ import annotations

from pathlib import Path

from checks.canonical import sha256_file, sha256_value
from checks.errors import StorageError

__all__ = ["PACKAGES", "code_sha256"]

PACKAGES = ("checks", "pipeline")


def code_sha256(root: Path | None = None) -> str:
    """Return the SHA-256 over the sorted pairs of relative path and SHA-256 of every source file.

    Args:
        root: Folder that holds the packages; by default the one this very code was imported from.

    Raises:
        StorageError: if a package holds no source files or one cannot be read.
    """
    root = root or Path(__file__).resolve().parents[2]
    pairs: list[list[str]] = []
    for package in PACKAGES:
        files = sorted((root / package).rglob("*.py"))
        if not files:
            raise StorageError("expected Python files, got none", where=str(root / package))
        pairs += [[path.relative_to(root).as_posix(), sha256_file(path)] for path in files]
    return sha256_value(sorted(pairs))
